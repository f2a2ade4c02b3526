//! What is asked for of a container's place on a network, as plain values: what can be wrong with it, and the options that
//! docker's drivers have for a place.

use std::net::IpAddr;

use network::LinkSysctl;

use super::{Joined, Joining};
use crate::Error;
use crate::request::check_links;

/// As a name in the domain name system.
const ALIAS_MAX_BYTES: usize = 253;
/// The option that names the link inside.
const LINK_NAME: &str = "com.docker.network.endpoint.ifname";
/// The option with settings of the link inside, separated by commas.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// The longest name of a link, without the NUL (`IFNAMSIZ`).
const LINK_NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;
/// A place with more is a mistake.
const SYSCTLS_MAX: usize = 64;
const LINK_LOCAL_MAX: usize = 64;
/// Names that are another link's in each network namespace, that the kernel has for settings of all links
/// (`sysctl_dev_name_is_allowed`), or that are no file's.
const NO_LINKS: [&str; 5] = ["lo", "all", "default", ".", ".."];

impl Joining {
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_links(&self.links)?;
        for alias in &self.aliases {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if alias.is_empty() || alias.len() > ALIAS_MAX_BYTES || !alias.bytes().all(allowed) {
                return Err(Error::invalid(
                    "network alias",
                    format!("{alias:?} is no name of a host"),
                ));
            }
        }
        if self.mac.is_some_and(|mac| mac[0] & 1 != 0 || mac == [0; 6]) {
            return Err(Error::invalid(
                "mac-address",
                "must be that of one link, not of a group",
            ));
        }
        self.check_link_local()?;
        self.check_options()
    }

    /// Docker takes any address here, and says that it is for these.
    fn check_link_local(&self) -> Result<(), Error> {
        let refuse = |rule: String| Err(Error::invalid("link-local-ip", rule));
        if self.link_local.len() > LINK_LOCAL_MAX {
            return refuse(format!("at most {LINK_LOCAL_MAX} for one place"));
        }
        for (position, address) in self.link_local.iter().enumerate() {
            let is_host = match address {
                // The first and the last name no host (RFC 3927, 2.1 keeps some more of them free).
                IpAddr::V4(address) => {
                    address.is_link_local() && !matches!(address.octets()[2..], [0, 0] | [255, 255])
                }
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            if !is_host {
                return refuse(format!(
                    "invalid link-local IP address: {address} is no host's of 169.254.0.0/16 or fe80::/10"
                ));
            }
            if self.link_local[..position].contains(address) {
                return refuse(format!("{address} is given twice"));
            }
        }
        Ok(())
    }

    fn check_options(&self) -> Result<(), Error> {
        for (option, value) in &self.driver_options {
            match option.as_str() {
                LINK_NAME => check_link_name(value)?,
                SYSCTLS => drop(self.sysctls()?),
                _ => {
                    let rule = format!(
                        "{option:?} is not done in this version, where a place on a network has {LINK_NAME} and {SYSCTLS}"
                    );
                    return Err(Error::invalid("driver-opt", rule));
                }
            }
        }
        Ok(())
    }

    /// The name that its link is to have inside; None: `ethN`.
    pub(super) fn link_name(&self) -> Option<&str> {
        self.driver_options.get(LINK_NAME).map(String::as_str)
    }

    /// What is to be set on its link inside.
    pub(super) fn sysctls(&self) -> Result<Vec<LinkSysctl>, Error> {
        let Some(texts) = self.driver_options.get(SYSCTLS) else {
            return Ok(Vec::new());
        };
        if texts.split(',').count() > SYSCTLS_MAX {
            let rule = format!("{SYSCTLS}: at most {SYSCTLS_MAX} for one place");
            return Err(Error::invalid("driver-opt", rule));
        }
        let sysctls = texts.split(',').map(LinkSysctl::parse);
        let sysctls: Result<_, _> = sysctls.collect();
        sysctls.map_err(|rule| Error::invalid("driver-opt", rule))
    }

    /// The number of its link, after all others: by that order places count. `others` are the container's other links with
    /// their names; no two have the same.
    pub(crate) fn slot(&self, others: &[(u32, String)]) -> Result<u32, Error> {
        let is_taken = |name: &str| others.iter().any(|(_, other)| other == name);
        let last = others.iter().map(|(slot, _)| *slot).max();
        let next = last.map_or(0, |last| last + 1);
        match self.link_name() {
            Some(name) if is_taken(name) => {
                let rule = format!("{LINK_NAME}={name}: another link of the container has this name");
                Err(Error::invalid("driver-opt", rule))
            }
            Some(_) => Ok(next),
            // Past names that users gave to others.
            None => Ok((next..=u32::MAX)
                .find(|slot| !is_taken(&numbered(*slot)))
                .unwrap_or(next)),
        }
    }
}

impl Joined {
    /// The name of its link inside.
    pub fn inside(&self) -> String {
        inside(&self.wanted, self.slot)
    }
}

/// The name of the link that a place with this number has inside.
pub(crate) fn inside(wanted: &Joining, slot: u32) -> String {
    wanted.link_name().map_or_else(|| numbered(slot), str::to_owned)
}

/// The name of a link that nobody has named.
pub(crate) fn numbered(slot: u32) -> String {
    format!("eth{slot}")
}

/// As the kernel has it (`dev_valid_name`), which reads `%` as a place for a number besides.
fn check_link_name(name: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    let is_name = (1..=LINK_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
    if is_name && !NO_LINKS.contains(&name) {
        return Ok(());
    }
    let rule = format!(
        "{LINK_NAME}={name}: is no name for a container's link, which has up to {LINK_NAME_BYTES_MAX} visible characters \
         without /, : and %, and is none of {}",
        NO_LINKS.join(" ")
    );
    Err(Error::invalid("driver-opt", rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(option: &str, value: &str) -> Joining {
        Joining {
            driver_options: [(option.to_owned(), value.to_owned())].into(),
            ..Joining::default()
        }
    }

    #[test]
    fn options_are_known_and_right_or_refused_by_name() {
        for name in ["wan", "eth7", "a", "fifteen-letters", "vlan.10", "x@y"] {
            with(LINK_NAME, name).check().unwrap();
        }
        for name in [
            "",
            "lo",
            "all",
            "default",
            ".",
            "..",
            "a/b",
            "a b",
            "a\tb",
            "eth%d",
            "a:1",
            "sixteen-letters-",
            "ä",
        ] {
            let refused = with(LINK_NAME, name).check().unwrap_err().to_string();
            assert!(refused.contains(&format!("ifname={name}:")), "{refused}");
        }
        let both = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.forwarding=1";
        let both = with(SYSCTLS, both);
        both.check().unwrap();
        assert_eq!(both.sysctls().unwrap().len(), 2);
        for text in [
            "",
            "net.ipv4.conf.IFNAME.log_martians=1,",
            "net.ipv4.conf.eth0.log_martians=1",
        ] {
            let refused = with(SYSCTLS, text).check().unwrap_err().to_string();
            assert!(refused.contains("unrecognised"), "{refused}");
        }
        let many = vec!["net.ipv4.conf.IFNAME.log_martians=1"; SYSCTLS_MAX + 1].join(",");
        assert!(with(SYSCTLS, &many).check().is_err());
        let refused = with("com.example.x", "1").check().unwrap_err().to_string();
        assert!(
            refused.contains("\"com.example.x\"") && refused.contains(LINK_NAME),
            "{refused}"
        );
    }

    #[test]
    fn further_addresses_are_of_the_link_alone() {
        let with = |addresses: &[&str]| Joining {
            link_local: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..Joining::default()
        };
        with(&["169.254.7.7", "fe80::254:77", "febf::1"]).check().unwrap();
        for address in [
            "169.253.5.5",
            "169.254.0.0",
            "169.254.255.255",
            "2001:db8::89",
            "fec0::1",
            "::",
            "0.0.0.0",
        ] {
            let refused = with(&["169.254.7.7", address]).check().unwrap_err().to_string();
            assert!(
                refused.contains(&format!("address: {address} is no host's")),
                "{refused}"
            );
        }
        let twice = with(&["fe80::1", "fe80:0::1"]).check().unwrap_err();
        assert!(twice.to_string().contains("fe80::1 is given twice"), "{twice}");
    }

    #[test]
    fn links_have_names_of_their_own() {
        let named = |name: &str| with(LINK_NAME, name);
        let places = |wanted: &[Joining], on_bridge: u32| -> Result<Vec<String>, Error> {
            let mut others = Vec::new();
            if on_bridge == 1 {
                others.push((0, numbered(0)));
            }
            for wanted in wanted {
                let slot = wanted.slot(&others)?;
                others.push((slot, inside(wanted, slot)));
            }
            Ok(others.into_iter().map(|(_, name)| name).collect())
        };
        let plain = Joining::default;
        assert_eq!(places(&[plain(), plain()], 0).unwrap(), ["eth0", "eth1"]);
        assert_eq!(places(&[plain()], 1).unwrap(), ["eth0", "eth1"]);
        assert_eq!(places(&[named("wan"), plain()], 0).unwrap(), ["wan", "eth1"]);
        assert_eq!(
            places(&[plain(), named("eth2"), plain(), plain()], 0).unwrap(),
            ["eth0", "eth2", "eth3", "eth4"]
        );
        assert_eq!(places(&[named("eth1"), plain()], 0).unwrap(), ["eth1", "eth2"]);
        for taken in [
            places(&[plain(), named("eth0")], 0),
            places(&[named("eth0")], 1),
            places(&[named("wan"), named("wan")], 0),
        ] {
            assert!(taken.unwrap_err().to_string().contains("has this name"));
        }
    }
}
