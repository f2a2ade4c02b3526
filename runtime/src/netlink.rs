//! The few route netlink messages that moving a network device takes: ask, answer, acknowledge.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::error::{Context, Error, Result};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_GETLINK: u16 = 18;
pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_GETADDR: u16 = 22;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

/// Of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// The kernel's answers are no longer than this.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A message under construction.
#[derive(Debug)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// `fixed` is the fixed part that stands before the attributes.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, format!("{text}\0").as_bytes())
    }
}

/// A socket in the network namespace that its maker was in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> Result<Self> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map(Self)
            .context(|| "open a route netlink socket".into())
    }

    /// Sends a request and waits for the kernel's consent.
    pub(crate) fn change(&self, request: Request, what: impl FnOnce() -> String) -> Result<()> {
        self.exchange(request, NLM_F_ACK, what).map(drop)
    }

    /// Sends a question. The answers, each from its fixed part on.
    pub(crate) fn ask(&self, request: Request, what: impl FnOnce() -> String) -> Result<Vec<Vec<u8>>> {
        self.exchange(request, NLM_F_ACK, what)
    }

    fn exchange(
        &self,
        Request(mut bytes): Request,
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<Vec<Vec<u8>>> {
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let wanted = u16_at(&bytes, 6).unwrap_or_default() | flags;
        bytes[6..8].copy_from_slice(&wanted.to_ne_bytes());
        match self.send_and_gather(&bytes) {
            Ok(answers) => Ok(answers),
            Err(e) => Err(e).context(what),
        }
    }

    fn send_and_gather(&self, bytes: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
        send(self.0.as_raw_fd(), bytes, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let (Some(size), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
                let size = size as usize;
                let Some(body) = rest.get(HEADER_BYTES..size) else {
                    return Err(std::io::ErrorKind::InvalidData.into());
                };
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match i32_at(body, 0) {
                        Some(0) => return Ok(answers),
                        Some(code) => return Err(std::io::Error::from_raw_os_error(-code)),
                        None => return Err(std::io::ErrorKind::InvalidData.into()),
                    },
                    _ => answers.push(body.to_vec()),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// The attributes behind a fixed part of `fixed` bytes.
pub(crate) fn attributes(message: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(fixed..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = u16_at(rest, 0)? as usize;
        // The upper bits say how the value is to be read.
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

/// What the kernel should have said and did not.
pub(crate) fn strange(what: &str) -> Error {
    Error::Refused(format!("{what}: the kernel gave no answer that makes sense"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let Request(bytes) = Request::new(RTM_NEWLINK, 0, &[0; 16])
            .text(3, "eth0")
            .attribute(28, &7_i32.to_ne_bytes());
        assert_eq!(bytes.len(), 16 + 16 + 12 + 8);
        let read: Vec<_> = attributes(&bytes, 32).collect();
        assert_eq!(read, [(3, &b"eth0\0"[..]), (28, &7_i32.to_ne_bytes()[..])]);
        // A length that lies ends the list.
        assert_eq!(attributes(&[200, 0, 1, 0, 0], 0).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 0, 0], 0).count(), 0);
    }
}
