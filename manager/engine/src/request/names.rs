//! Whom a container asks for names, and which names it knows by itself.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The C library reads no more servers than three (`MAXNS`); others may.
const SERVERS_MAX: usize = 16;
const SEARCH_MAX: usize = 32;
const OPTIONS_MAX: usize = 32;
const HOSTS_MAX: usize = 1000;
/// The longest name of a host or domain (RFC 1035, 2.3.4).
const NAME_MAX_BYTES: usize = 253;
/// Stands for the host's own address on the container's network.
const HOST_GATEWAY: &str = "host-gateway";

/// What stands in a container's own resolv.conf and hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Name servers in place of the host's.
    pub servers: Vec<String>,
    /// Domains to search, in place of the host's; "." alone: none.
    pub search: Vec<String>,
    /// Options of the resolver, in place of the host's.
    pub options: Vec<String>,
    /// More lines of /etc/hosts.
    pub hosts: Vec<HostEntry>,
}

/// A name, and whom it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The name.
    pub name: String,
    /// An address of IPv4 or IPv6, or `host-gateway`.
    pub address: String,
}

impl Names {
    /// Check every rule: each of these becomes a line or a word of a file that the container's programs trust.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (field, count, most) in [
            ("dns", self.servers.len(), SERVERS_MAX),
            ("dns_search", self.search.len(), SEARCH_MAX),
            ("dns_options", self.options.len(), OPTIONS_MAX),
            ("extra_hosts", self.hosts.len(), HOSTS_MAX),
        ] {
            if count > most {
                return Err(Error::invalid(field, format!("{count} are more than {most}")));
            }
        }
        for server in &self.servers {
            if server.parse::<IpAddr>().is_err() {
                return Err(Error::invalid(
                    "dns",
                    format!("{server:?} is not an address of a name server"),
                ));
            }
        }
        for domain in self.search.iter().filter(|domain| *domain != ".") {
            check_name("dns_search", domain)?;
        }
        for option in &self.options {
            check_word("dns_options", option)?;
        }
        for entry in &self.hosts {
            check_name("extra_hosts", &entry.name)?;
            if entry.address != HOST_GATEWAY && entry.address.parse::<IpAddr>().is_err() {
                return Err(Error::invalid(
                    "extra_hosts",
                    format!("invalid IP address in add-host: {:?}", entry.address),
                ));
            }
        }
        Ok(())
    }
}

impl HostEntry {
    /// The address as it stands in the file. None: the host's own is wanted, and it has none on the network.
    pub(crate) fn address(&self, gateway: Option<IpAddr>) -> Option<IpAddr> {
        if self.address == HOST_GATEWAY {
            gateway
        } else {
            self.address.parse().ok()
        }
    }
}

pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), Error> {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let labels = name.strip_suffix('.').unwrap_or(name);
    if name.len() <= NAME_MAX_BYTES && labels.split('.').all(is_label) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{name:?} is not a valid domain")))
}

fn check_word(field: &'static str, word: &str) -> Result<(), Error> {
    let fits = (1..=NAME_MAX_BYTES).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{word:?} is not one word")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, address: &str) -> Names {
        Names {
            hosts: vec![HostEntry {
                name: name.to_owned(),
                address: address.to_owned(),
            }],
            ..Names::default()
        }
    }

    #[test]
    fn nothing_gets_into_a_file_that_is_not_what_it_should_be() {
        let words = |word: &str| vec![word.to_owned()];
        for names in [
            host("db", "10.0.0"),
            host("db", "10.0.0.1\n10.0.0.2 bank"),
            host("db\n10.0.0.2 bank", "10.0.0.1"),
            host("db bank", "10.0.0.1"),
            host("", "10.0.0.1"),
            host(&"a".repeat(64), "::1"),
            Names {
                servers: words("dns.example"),
                ..Names::default()
            },
            Names {
                servers: words("fe80::1%eth0\nsearch evil"),
                ..Names::default()
            },
            Names {
                search: words("a b"),
                ..Names::default()
            },
            Names {
                search: words("a..b"),
                ..Names::default()
            },
            Names {
                options: words("ndots:1\nnameserver 1.2.3.4"),
                ..Names::default()
            },
            Names {
                options: words(""),
                ..Names::default()
            },
        ] {
            assert!(names.check().is_err(), "{names:?}");
        }
        host("db.example.", "::1").check().unwrap();
        host("my_db", HOST_GATEWAY).check().unwrap();
    }
}
