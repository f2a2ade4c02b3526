//! Settings of one link that the kernel has as files, of which users give some for a container's link as docker has them:
//! `net.ipv4.conf.IFNAME.log_martians=1`.
//!
//! The file is named from parts that are known or plain words, and from the link's name: no text of a user's is a path.

use std::fs;

use crate::Error;

/// What stands for the link's name, in docker's two spellings.
const LINK: [&str; 2] = ["IFNAME", "ifname"];
const FAMILIES: [&str; 3] = ["ipv4", "ipv6", "mpls"];
/// What a family has for each link.
const TABLES: [&str; 2] = ["conf", "neigh"];
/// The longest that the kernel has are half as long.
const KEY_BYTES_MAX: usize = 64;
/// A list of numbers is the longest that a setting can be.
const VALUE_BYTES_MAX: usize = 256;

/// One setting of a link that has no name yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSysctl {
    family: &'static str,
    table: &'static str,
    key: String,
    value: String,
}

impl LinkSysctl {
    /// Reads `net.ipv4.conf.IFNAME.log_martians=1`: of ipv4, ipv6 or mpls, and of `conf` or `neigh`.
    ///
    /// # Errors
    /// Why it is none, naming it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // In docker's words, as far as they go.
        let unrecognised = || {
            format!(
                "unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must \
                 be 'ipv4', 'ipv6' or 'mpls' and 'Y' 'conf' or 'neigh'"
            )
        };
        let (name, value) = text.split_once('=').ok_or_else(unrecognised)?;
        let parts: Vec<_> = name.split('.').collect();
        let &["net", family, table, link, key] = &*parts else {
            return Err(unrecognised());
        };
        let known = |all: &[&'static str], one: &str| all.iter().find(|known| **known == one).copied();
        let family = known(&FAMILIES, family).ok_or_else(unrecognised)?;
        let table = known(&TABLES, table).ok_or_else(unrecognised)?;
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_key = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(is_word);
        if !is_key || !LINK.contains(&link) {
            return Err(unrecognised());
        }
        let is_shown = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if value.is_empty() || value.len() > VALUE_BYTES_MAX || !value.bytes().all(is_shown) {
            return Err(format!("the value of network interface sysctl '{text}' is none"));
        }
        Ok(Self {
            family,
            table,
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    fn path(&self, link: &str) -> String {
        let Self {
            family, table, key, ..
        } = self;
        format!("/proc/sys/net/{family}/{table}/{link}/{key}")
    }

    /// Sets it on the link named `link` in the network namespace of the calling thread.
    fn set(&self, link: &str) -> Result<(), Error> {
        let path = self.path(link);
        let set = || {
            if fs::read_to_string(&path)?.trim() == self.value {
                return Ok(());
            }
            fs::write(&path, format!("{}\n", self.value))
        };
        set().map_err(|source| Error::System {
            action: format!(
                "set sysctl net.{}.{}.{link}.{} to {} by {path} in the container's network namespace",
                self.family, self.table, self.key, self.value
            ),
            source,
        })
    }
}

/// Sets all on the link named `link`, which is not up yet, in the network namespace of the calling thread.
pub(crate) fn set_all(link: &str, sysctls: &[LinkSysctl]) -> Result<(), Error> {
    sysctls.iter().try_for_each(|sysctl| sysctl.set(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_one_file_of_its_link() {
        let path = |text: &str| LinkSysctl::parse(text).unwrap().path("eth0");
        assert_eq!(
            path("net.ipv4.conf.IFNAME.log_martians=1"),
            "/proc/sys/net/ipv4/conf/eth0/log_martians"
        );
        assert_eq!(
            path("net.ipv6.neigh.ifname.gc_stale_time=30"),
            "/proc/sys/net/ipv6/neigh/eth0/gc_stale_time"
        );
        assert_eq!(
            path("net.mpls.conf.IFNAME.input=1"),
            "/proc/sys/net/mpls/conf/eth0/input"
        );
    }

    #[test]
    fn what_is_no_setting_of_a_link_is_refused() {
        for text in [
            "",
            "net.ipv4.conf.IFNAME.log_martians",
            "net.ipv4.conf.eth0.log_martians=1",
            "net.ipv4.conf.all.log_martians=1",
            "net.ipv4.conf.log_martians=1",
            "net.core.conf.IFNAME.log_martians=1",
            "net.ipv4.route.IFNAME.flush=1",
            "kernel.ipv4.conf.IFNAME.log_martians=1",
            "net.ipv4.conf.IFNAME.a.b=1",
            "net.ipv4.conf.IFNAME.=1",
            "net.ipv4.conf.IFNAME./../../all/forwarding=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "net/ipv4/conf/IFNAME/log_martians=1",
            "net.ipv4/../../kernel.conf.IFNAME.x=1",
        ] {
            let refused = LinkSysctl::parse(text).unwrap_err();
            assert!(
                refused.contains(&format!("'{text}'")) && refused.contains("IFNAME.Z"),
                "{refused}"
            );
        }
        for value in ["", "1\n2", "\u{0}"] {
            let refused = LinkSysctl::parse(&format!("net.ipv4.conf.IFNAME.log_martians={value}"));
            assert!(refused.unwrap_err().starts_with("the value of"), "{value:?}");
        }
    }
}
