//! The host's own name servers, as /etc/resolv.conf has them at the moment: a machine that changes networks is one of the
//! places where containers run.

use std::fs;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::net::if_::if_nametoindex;

use crate::{Server, Side};

const PORT: u16 = 53;
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Reads the host's servers, and again when the file has changed.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    read: Mutex<Option<(Version, Vec<Server>)>>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl HostServers {
    /// Those in the file at `path`, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: Mutex::default(),
        }
    }

    /// The servers in the order of the file. None, if it cannot be read.
    pub fn now(&self) -> Vec<Server> {
        let Some(version) = self.version() else {
            return Vec::new();
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((known, servers)) if *known == version => servers.clone(),
            _ => {
                let text = fs::read_to_string(&self.path).unwrap_or_default();
                let servers = servers_in(&text);
                *read = Some((version, servers.clone()));
                servers
            }
        }
    }

    fn version(&self) -> Option<Version> {
        let metadata = fs::metadata(&self.path).ok()?;
        (metadata.is_file() && metadata.len() <= FILE_BYTES_MAX).then(|| Version {
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The servers of a resolv.conf(5) of the host, asked from there, as docker 28 does: they may be on its loopback or behind
/// a link (`fe80::1%eth0`), and need not be within reach of a container.
fn servers_in(text: &str) -> Vec<Server> {
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| socket_address(words.next()?))?
    };
    let of_host = |address| Server {
        address,
        side: Side::Host,
    };
    text.lines().filter_map(address).map(of_host).collect()
}

fn socket_address(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some((text.parse::<IpAddr>().ok()?, PORT).into()),
        Some((address, link)) => {
            let scope = if_nametoindex(link).ok()?;
            Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
        }
    }
}

impl Server {
    /// A server that was asked for in the place of the host's: it is asked as the container itself would, where
    /// 127.0.0.1 is the container's own.
    pub fn of_container(address: IpAddr) -> Self {
        Self {
            address: (address, PORT).into(),
            side: Side::Container,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_in_their_order() {
        let text = "# one\nnameserver 127.0.0.53\nnameserver\t10.0.0.1 \nnameserver fe80::1%lo\n\
            nameserver fe80::1%gone\nsearch example.org\nnameserver 2001:db8::1\nnameserver\n nameserver ten\n";
        let found: Vec<_> = servers_in(text)
            .iter()
            .map(|server| server.address.to_string())
            .collect();
        assert_eq!(
            found,
            [
                "127.0.0.53:53",
                "10.0.0.1:53",
                "[fe80::1%1]:53",
                "[2001:db8::1]:53"
            ]
        );
    }

    #[test]
    fn a_changed_file_counts_from_the_next_question_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let servers = HostServers::new(&path);
        assert_eq!(servers.now(), []);
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(servers.now()[0].address.to_string(), "10.0.0.1:53");
        // As resolvconf and systemd do it.
        let other = folder.path().join("other");
        fs::write(&other, "nameserver 10.0.0.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(servers.now()[0].address.to_string(), "10.0.0.2:53");
    }
}
