//! Where a manager is, as people type it, and what it is spoken to with.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::{Connection, Endpoint};
use crate::contexts::Contexts;
use crate::failure::{Failure, Result};

const SOCKET: &str = "/run/berth/manager.sock";
/// `sun_path` of unix(7), without the zero byte at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A manager's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A socket of this machine.
    Unix(String),
    /// `HOST:PORT`, over TLS.
    Tcp(String),
    /// Another machine's socket, through ssh.
    Ssh(Ssh),
}

/// A machine as ssh knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ssh {
    pub(crate) user: Option<String>,
    pub(crate) machine: String,
    pub(crate) port: Option<u16>,
}

/// Files in PEM with which both sides show who they are.
#[derive(Debug, Clone)]
pub(crate) struct Certificates {
    pub(crate) authorities: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A manager that can be spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: Host,
    /// For [`Host::Tcp`].
    pub(crate) certificates: Option<Certificates>,
}

impl Host {
    /// Read what was typed.
    pub(crate) fn parse(text: &str) -> Result<Host> {
        let wrong = |rule: &str| Err(Failure::new(format!("the manager's address {text:?}: {rule}")));
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("must begin with unix://, tcp:// or ssh://");
        };
        match scheme {
            "unix" => Host::unix(rest),
            "tcp" => {
                let port = rest
                    .rsplit_once(':')
                    .and_then(|(_, port)| port.parse::<u16>().ok());
                let machine = rest.rsplit_once(':').map_or("", |(machine, _)| machine);
                if port.is_none_or(|port| port == 0)
                    || machine.is_empty()
                    || rest.contains(['/', '@', '?', '#'])
                {
                    return wrong("must be tcp://HOST:PORT");
                }
                Ok(Host::Tcp(rest.to_owned()))
            }
            "ssh" => match Ssh::parse(rest) {
                Some(ssh) => Ok(Host::Ssh(ssh)),
                None => wrong(
                    "must be ssh://[USER@]HOST[:PORT]; what else ssh needs is for its own configuration",
                ),
            },
            _ => wrong("must begin with unix://, tcp:// or ssh://"),
        }
    }

    /// The path of a socket.
    pub(crate) fn unix(path: &str) -> Result<Host> {
        if path.is_empty() {
            return Err(Failure::new("the manager's socket: the path is empty"));
        }
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(Failure::new(format!(
                "the manager's socket {path}: the path is too long for a socket: {} bytes, and the kernel takes \
                 {SOCKET_PATH_BYTES_MAX}",
                path.len()
            )));
        }
        Ok(Host::Unix(path.to_owned()))
    }

    fn of_path(path: &Path) -> Result<Host> {
        let Some(text) = path.to_str() else {
            return Err(Failure::new(format!(
                "the manager's socket {}: must be a path in UTF-8",
                path.display()
            )));
        };
        Host::unix(text.strip_prefix("unix://").unwrap_or(text))
    }
}

impl Ssh {
    /// Nothing in it can be an option of ssh's.
    fn parse(text: &str) -> Option<Ssh> {
        let (user, place) = match text.split_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, text),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (machine, port) = match place.rsplit_once(':') {
            // The colons of an IPv6 address stand in brackets.
            Some((machine, port)) if !port.ends_with(']') => (machine, Some(port.parse().ok()?)),
            _ => (place, None),
        };
        let machine = machine
            .strip_prefix('[')
            .map_or(Some(machine), |inner| inner.strip_suffix(']'))?;
        let is_word = |word: &str| {
            !word.is_empty()
                && !word.starts_with('-')
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._:%\\".contains(&byte))
        };
        (is_word(machine) && user.is_none_or(is_word)).then(|| Ssh {
            user: user.map(str::to_owned),
            machine: machine.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Unix(path) => write!(out, "unix://{path}"),
            Host::Tcp(place) => write!(out, "tcp://{place}"),
            Host::Ssh(Ssh { user, machine, port }) => {
                write!(out, "ssh://")?;
                if let Some(user) = user {
                    write!(out, "{user}@")?;
                }
                if machine.contains(':') {
                    write!(out, "[{machine}]")?;
                } else {
                    write!(out, "{machine}")?;
                }
                port.map_or(Ok(()), |port| write!(out, ":{port}"))
            }
        }
    }
}

impl Target {
    /// The manager that is meant by what was typed, else by the environment, else by the context in use.
    pub(crate) fn find(typed: &Connection) -> Result<Target> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if typed.endpoint.host.is_some() {
            return Target::of_endpoint(&typed.endpoint);
        }
        if let Some(socket) = &typed.socket {
            return Ok(Target::local(Host::of_path(socket)?));
        }
        if let Some(name) = &typed.context {
            return Contexts::open()?.target(name);
        }
        if let Some(host) = variable("BERTH_HOST") {
            let host = Some(host.to_string_lossy().into_owned());
            return Target::of_endpoint(&Endpoint {
                host,
                tlscacert: None,
                tlscert: None,
                tlskey: None,
            });
        }
        if let Some(socket) = variable("BERTH_SOCKET") {
            return Ok(Target::local(Host::of_path(Path::new(&socket))?));
        }
        if let Some(name) = variable("BERTH_CONTEXT") {
            return Contexts::open()?.target(&name.to_string_lossy());
        }
        // Without a home there are no contexts.
        match Contexts::open() {
            Ok(contexts) => contexts.target(&contexts.current()?),
            Err(_) => Target::of_this_machine(),
        }
    }

    /// The manager of this machine, where it is unless it was told otherwise: this user's own if there is one, else
    /// the machine's.
    pub(crate) fn of_this_machine() -> Result<Target> {
        let own = std::env::var_os("XDG_RUNTIME_DIR")
            .map(|folder| PathBuf::from(folder).join("berth/manager.sock"));
        match own.filter(|socket| !rustix::process::geteuid().is_root() && socket.exists()) {
            Some(socket) => Ok(Target::local(Host::of_path(&socket)?)),
            None => Ok(Target::local(Host::unix(SOCKET)?)),
        }
    }

    /// The manager that flags name, with the certificates that they or the environment name.
    pub(crate) fn of_endpoint(endpoint: &Endpoint) -> Result<Target> {
        let host = Host::parse(endpoint.host.as_deref().unwrap_or_default())?;
        let given = [&endpoint.tlscacert, &endpoint.tlscert, &endpoint.tlskey];
        if !matches!(host, Host::Tcp(_)) {
            if given.iter().any(|file| file.is_some()) {
                return Err(Failure::new(format!("{host}: certificates are for tcp://")));
            }
            return Ok(Target::local(host));
        }
        let folder = std::env::var_os("BERTH_CERT_PATH").map(PathBuf::from);
        let file = |given: &Option<PathBuf>, flag: &str, name: &str| {
            let path = given.clone().or_else(|| Some(folder.as_ref()?.join(name)));
            path.ok_or_else(|| {
                Failure::new(format!(
                    "{host}: there is no {name}, and over TCP both sides show certificates"
                ))
                .with_hint(format!("name it with {flag}, or its folder with BERTH_CERT_PATH"))
            })
        };
        let certificates = Certificates {
            authorities: file(&endpoint.tlscacert, "--tlscacert", "ca.pem")?,
            certificate: file(&endpoint.tlscert, "--tlscert", "cert.pem")?,
            key: file(&endpoint.tlskey, "--tlskey", "key.pem")?,
        };
        Ok(Target {
            host,
            certificates: Some(certificates),
        })
    }

    fn local(host: Host) -> Target {
        Target {
            host,
            certificates: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_as_they_were_typed() {
        for text in [
            "unix:///run/berth/manager.sock",
            "tcp://host:2376",
            "tcp://[::1]:2376",
            "ssh://host",
            "ssh://root@host:22",
            "ssh://me@[fe80::1%eth0]:2222",
        ] {
            assert_eq!(Host::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_or_would_be_an_option_is_refused() {
        for text in [
            "",
            "/run/manager.sock",
            "http://host:1",
            "unix://",
            "tcp://host",
            "tcp://:2376",
            "tcp://host:0",
            "tcp://host:99999",
            "tcp://host:1/path",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://host;id",
            "ssh://host/run/x.sock",
            "ssh://[::1",
            "ssh://host:port",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }
}
