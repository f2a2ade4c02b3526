//! Sockets to receivers of log messages, and the local time that they are told.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{check, check_size};

const SEND_BUFFER_BYTES: libc::c_int = 256 << 10;

/// A datagram socket, non-blocking and close-on-exec, connected to a UNIX socket.
pub(crate) fn unix_datagrams(path: &std::path::Path) -> io::Result<OwnedFd> {
    super::fd::connect_unix_of_type(path, libc::SOCK_DGRAM)
}

/// A socket to a port, non-blocking and close-on-exec. A connection may still be under way: then writes would block.
/// One that nobody answers fails after some seven seconds, and one whose other side takes nothing any more, or is gone
/// without a word, after ten: the kernel's own bound (`tcp_retries2`) is a quarter of an hour.
pub(crate) fn connect_internet(address: SocketAddr, stream: bool) -> io::Result<OwnedFd> {
    const RETRIES: libc::c_int = 2;
    const TIMEOUT_MS: libc::c_int = 10_000;
    let (family, kind) = (
        if address.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        },
        if stream {
            libc::SOCK_STREAM
        } else {
            libc::SOCK_DGRAM
        },
    );
    // SAFETY: no pointers.
    let raw = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    if stream {
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SYNCNT, RETRIES)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, TIMEOUT_MS)?;
    }
    let connected = match address {
        SocketAddr::V4(v4) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            connect(&socket, &address)
        }
        SocketAddr::V6(v6) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            connect(&socket, &address)
        }
    };
    match connected {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// `address` is one of the kernel's address structures.
fn connect<T>(socket: &OwnedFd, address: &T) -> io::Result<()> {
    // SAFETY: `address` lives through the call and has the size that is told.
    check(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            std::ptr::from_ref(address).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

fn set_option(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` lives through the call and has the size that is told.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Room for a message with many fields. What the kernel refuses is no loss.
pub(crate) fn widen_send_buffer(socket: &OwnedFd) {
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER_BYTES);
}

/// Sends what a socket takes at once; a receiver that is gone is an error and no signal.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes are readable for their whole length.
    check_size(unsafe {
        libc::send(
            socket.as_fd().as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    })
}

/// The name of this machine.
pub(crate) fn host_name() -> String {
    let mut name = [0u8; 256];
    // SAFETY: `name` is writable for the length that is told.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0 {
        return "localhost".to_owned();
    }
    let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..length]).into_owned()
}

/// Month (0 to 11), day, hour, minute and second of local time.
pub(crate) fn local_time(unix_seconds: i64) -> [i32; 5] {
    // SAFETY: tm is plain data, all zero is a valid value.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers live through the call.
    unsafe { libc::localtime_r(&raw const unix_seconds, &raw mut time) };
    [time.tm_mon, time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec]
}
