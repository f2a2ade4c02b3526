//! Which syslog server is meant, and how it wants its messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use crate::Error;

const PORT: u16 = 514;
/// Where this machine's own server listens.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
/// A server has to take a connection before the container is started.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// `daemon`.
const USUAL_FACILITY: u8 = 3;
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

pub(crate) struct Settings {
    address: Address,
    pub(crate) facility: u8,
    /// As the shim names it.
    pub(crate) format: &'static str,
}

enum Address {
    Local,
    UnixStream(PathBuf),
    UnixDatagrams(PathBuf),
    /// With the port.
    Udp(String),
    Tcp(String),
}

impl Settings {
    pub(crate) fn of(options: &BTreeMap<String, String>) -> Result<Settings, Error> {
        let text = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
        Ok(Settings {
            address: address(text("syslog-address"))?,
            facility: facility(text("syslog-facility"))?,
            format: match text("syslog-format") {
                "" => "unix",
                "rfc3164" => "rfc3164",
                "rfc5424" => "rfc5424",
                "rfc5424micro" => "rfc5424micro",
                other => {
                    return Err(invalid(format!(
                        "syslog-format: invalid syslog format {other:?}; there are rfc3164, rfc5424 and rfc5424micro"
                    )));
                }
            },
        })
    }

    /// The server as the shim is told it, after a look whether it is there. Its name is looked up here, as the shim
    /// knows addresses alone.
    pub(crate) async fn receiver(&self) -> Result<String, Error> {
        let missing = |what: String, error: &dyn std::fmt::Display| {
            invalid(format!(
                "failed to initialize logging driver: syslog server {what}: {error}"
            ))
        };
        match &self.address {
            Address::Local => LOCAL
                .iter()
                .find(|path| Path::new(path).exists())
                .map(|path| format!("unixgram://{path}"))
                .ok_or_else(|| {
                    missing(
                        "of this machine".to_owned(),
                        &format_args!(
                            "there is none of {}: start one, or name another with syslog-address",
                            LOCAL.join(", ")
                        ),
                    )
                }),
            Address::UnixStream(path) => Ok(format!("unix://{}", path.display())),
            Address::UnixDatagrams(path) => Ok(format!("unixgram://{}", path.display())),
            Address::Udp(host) => {
                let found = lookup_host(host).await;
                let mut found = found.map_err(|error| missing(format!("udp://{host}"), &error))?;
                found
                    .next()
                    .map(|address| format!("udp://{address}"))
                    .ok_or_else(|| missing(format!("udp://{host}"), &"it has no address"))
            }
            Address::Tcp(host) => {
                let connect = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(host)).await;
                let connected = match connect {
                    Ok(connected) => connected.and_then(|stream| stream.peer_addr()),
                    Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
                };
                let address = connected.map_err(|error| missing(format!("tcp://{host}"), &error))?;
                Ok(format!("tcp://{address}"))
            }
        }
    }
}

fn address(text: &str) -> Result<Address, Error> {
    if text.is_empty() {
        return Ok(Address::Local);
    }
    let bad = |why: &str| invalid(format!("syslog-address {text:?}: {why}"));
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad(
            "it should be of the form (tcp|udp)://HOST:PORT or (unix|unixgram):///PATH",
        ));
    };
    let path = || {
        let path = PathBuf::from(rest);
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(bad("the path is not absolute"))
        }
    };
    Ok(match scheme {
        "unix" => Address::UnixStream(path()?),
        "unixgram" => Address::UnixDatagrams(path()?),
        "udp" => Address::Udp(with_port(rest).ok_or_else(|| bad("it names no host and port"))?),
        "tcp" => Address::Tcp(with_port(rest).ok_or_else(|| bad("it names no host and port"))?),
        "tcp+tls" => {
            return Err(bad(
                "this version does not speak TLS with syslog servers: have a syslog server of this machine forward to it",
            ));
        }
        other => return Err(bad(&format!("unsupported scheme: '{other}'"))),
    })
}

/// A host with its port; without one it is that of syslog.
fn with_port(host: &str) -> Option<String> {
    let host = host.trim_end_matches('/');
    let behind_name = match host.rfind(']') {
        Some(bracket) => &host[bracket..],
        None => host,
    };
    match behind_name.rsplit_once(':') {
        _ if host.is_empty() || host.contains('/') => None,
        Some((_, port)) => port.parse::<u16>().ok().map(|_| host.to_owned()),
        None => Some(format!("{host}:{PORT}")),
    }
}

fn facility(text: &str) -> Result<u8, Error> {
    if text.is_empty() {
        return Ok(USUAL_FACILITY);
    }
    let by_name = FACILITIES.iter().position(|name| *name == text);
    by_name
        .and_then(|number| u8::try_from(number).ok())
        .or_else(|| text.parse().ok().filter(|number| *number < 24))
        .ok_or_else(|| {
            let known: Vec<_> = FACILITIES.iter().copied().filter(|name| !name.is_empty()).collect();
            invalid(format!(
                "syslog-facility: invalid syslog facility {text:?}; there are {} and the numbers from 0 to 23",
                known.join(", ")
            ))
        })
}

fn invalid(rule: String) -> Error {
    Error::invalid("log_driver", rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_the_usual_port_where_none_is_said() {
        assert_eq!(with_port("log.example").as_deref(), Some("log.example:514"));
        assert_eq!(with_port("log.example:1514").as_deref(), Some("log.example:1514"));
        assert_eq!(with_port("[::1]").as_deref(), Some("[::1]:514"));
        assert_eq!(with_port("[::1]:99").as_deref(), Some("[::1]:99"));
        assert_eq!(with_port("a:b"), None);
        assert_eq!(with_port(""), None);
    }

    #[test]
    fn facilities_have_names_and_numbers() {
        for (text, number) in [("", 3), ("mail", 2), ("local7", 23), ("16", 16)] {
            assert_eq!(facility(text).unwrap(), number);
        }
        for bad in ["24", "-1", "locals"] {
            assert!(facility(bad).is_err(), "{bad}");
        }
    }
}
