//! Where a container asks for names: sockets of the manager's at 127.0.0.11 inside the container's network
//! namespace, and the rules there that make port 53 of that address theirs.
//!
//! The sockets have a port of the kernel's choice, so that a program of the container may have port 53 for itself, at
//! all addresses too. The rules rewrite the port of packets and nothing else; they need no connection tracking, which
//! a NAT rule would switch on for all of the container's traffic. Who may change rules in the container's namespace
//! can only cut itself off.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use crate::netlink::Netfilter;
use crate::{Error, namespace, nft};

/// The address of a container's name server, as docker has it: programs expect it there.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// How often another port is tried, of which one protocol is taken.
const PORT_ATTEMPTS: usize = 16;

/// The sockets that a container's questions come to. They are closed with the value; the rules stay as long as the
/// namespace, and are replaced when sockets are opened anew.
#[derive(Debug)]
pub struct ResolverSockets {
    /// For datagrams. Nonblocking.
    pub udp: UdpSocket,
    /// For connections, on the same port. Nonblocking.
    pub tcp: TcpListener,
}

impl ResolverSockets {
    /// Open them in the namespace `netns`, and bring port 53 of [`RESOLVER_ADDRESS`] there to them. The loopback link
    /// has to be up before anyone asks.
    ///
    /// # Errors
    /// What the kernel refuses. Then nothing is left in the namespace, except rules of former sockets.
    pub fn open(netns: BorrowedFd<'_>) -> Result<Self, Error> {
        namespace::within(netns, || {
            let sockets = Self::bind()?;
            let port = sockets.port()?;
            nft::redirect_names(&mut Netfilter::open()?, RESOLVER_ADDRESS, port)?;
            Ok(sockets)
        })
    }

    fn bind() -> Result<Self, Error> {
        let system = |source| Error::System {
            action: format!("listen on {RESOLVER_ADDRESS} in the container's network namespace"),
            source,
        };
        let any = SocketAddrV4::new(RESOLVER_ADDRESS, 0);
        let mut attempt = 1;
        loop {
            let udp = UdpSocket::bind(any).map_err(system)?;
            match TcpListener::bind(udp.local_addr().map_err(system)?) {
                Ok(tcp) => {
                    udp.set_nonblocking(true).map_err(system)?;
                    tcp.set_nonblocking(true).map_err(system)?;
                    return Ok(Self { udp, tcp });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < PORT_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error) => return Err(system(error)),
            }
        }
    }

    fn port(&self) -> Result<u16, Error> {
        let address = self.udp.local_addr().map_err(|source| Error::System {
            action: format!("ask for the port on {RESOLVER_ADDRESS}"),
            source,
        })?;
        Ok(address.port())
    }
}
