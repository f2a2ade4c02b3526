//! Where a receiver of messages listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::sys;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    UnixDatagrams(PathBuf),
    UnixStream(PathBuf),
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver::UnixDatagrams(PathBuf::from("/dev/log"))
    }
}

impl Receiver {
    pub const RULE: &str = "unixgram:///PATH, unix:///PATH, udp://ADDRESS:PORT or tcp://ADDRESS:PORT";

    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let path = || Some(PathBuf::from(rest)).filter(|path| path.is_absolute());
        Some(match scheme {
            "unixgram" => Receiver::UnixDatagrams(path()?),
            "unix" => Receiver::UnixStream(path()?),
            "udp" => Receiver::Udp(rest.parse().ok()?),
            "tcp" => Receiver::Tcp(rest.parse().ok()?),
            _ => return None,
        })
    }

    /// A non-blocking socket to it.
    pub(super) fn connect(&self) -> io::Result<OwnedFd> {
        let socket = match self {
            Receiver::UnixDatagrams(path) => sys::unix_datagrams(path)?,
            Receiver::UnixStream(path) => sys::connect_unix(path)?,
            Receiver::Udp(address) => sys::connect_internet(*address, false)?,
            Receiver::Tcp(address) => sys::connect_internet(*address, true)?,
        };
        sys::widen_send_buffer(&socket);
        Ok(socket)
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Receiver::UnixDatagrams(path) => write!(formatter, "unixgram://{}", path.display()),
            Receiver::UnixStream(path) => write!(formatter, "unix://{}", path.display()),
            Receiver::Udp(address) => write!(formatter, "udp://{address}"),
            Receiver::Tcp(address) => write!(formatter, "tcp://{address}"),
        }
    }
}
