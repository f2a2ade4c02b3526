//! On which addresses of the host a port is published, and what is special about those of IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use network::{Protocol, PublishedPort};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};

use super::refused;
use crate::Error;
use crate::request::Wanted;

/// The addresses: those that are named, or all of the families in which the container is reached.
pub(super) fn host_addresses(wanted: &Wanted, has_v6: bool, is_behind: bool) -> Result<Vec<IpAddr>, Error> {
    let Some(address) = wanted.host_address else {
        let mut all = vec![Ipv4Addr::UNSPECIFIED.into()];
        // Behind slirp4netns, which listens on addresses of IPv4 alone.
        if has_v6 && !is_behind {
            all.push(Ipv6Addr::UNSPECIFIED.into());
        }
        return Ok(all);
    };
    let why = match address {
        IpAddr::V6(_) if is_behind => {
            "a manager without root's rights publishes no ports on IPv6: slirp4netns has none"
        }
        IpAddr::V6(address) if address.is_loopback() => {
            "the kernel lets no container answer to [::1]: publish it on 127.0.0.1, or on another address of the host"
        }
        IpAddr::V6(_) if !has_v6 => {
            "the container has no address of IPv6 on a network with a way out: put it on one made with --ipv6"
        }
        _ => return Ok(vec![address]),
    };
    let host_port = wanted.host.as_ref().map_or(0, |host| *host.start());
    let port = PublishedPort {
        host_address: address,
        host_port,
        protocol: wanted.protocol,
        container_port: wanted.container_port,
    };
    Err(refused(port, why.to_owned()))
}

/// Be a program with this port for a moment, with no claim to the same port of IPv4.
pub(super) fn try_bind(port: PublishedPort, address: Ipv6Addr) -> io::Result<()> {
    let kind = match port.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
        // Where the host has no SCTP, no program of it can have such a port.
        Protocol::Sctp => return Ok(()),
    };
    let socket = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let is_stream = port.protocol == Protocol::Tcp;
    // Connections that are over do not count.
    setsockopt(&socket, sockopt::ReuseAddr, &is_stream)?;
    let at = SockaddrIn6::from(SocketAddrV6::new(address, port.host_port, 0, 0));
    bind(socket.as_raw_fd(), &at)?;
    if is_stream {
        listen(&socket, Backlog::new(1)?)?;
    }
    Ok(())
}
