//! Descriptors that travel over UNIX sockets, and sockets at paths longer than `sun_path`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Room for the one control message that we ever send or accept.
#[repr(C, align(8))]
struct Control([u8; 16 + DESCRIPTORS_MAX * size_of::<i32>()]);

/// The most descriptors one message carries: one for each v1 cgroup hierarchy, of which a kernel has some fourteen.
pub(crate) const DESCRIPTORS_MAX: usize = 64;

/// Sends `bytes` in one message, with `descriptors` beside it.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!(
        descriptors.len() <= DESCRIPTORS_MAX,
        "more descriptors than a message has room for"
    );
    let mut control = Control([0; _]);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if !descriptors.is_empty() {
        let length = size_of_val(descriptors) as u32;
        // SAFETY: `control` is aligned for a cmsghdr and as large as CMSG_SPACE of all descriptors; the header
        // and its data lie within it.
        unsafe {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(length) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as _;
            for (index, fd) in descriptors.iter().enumerate() {
                let bytes = fd.as_raw_fd().to_ne_bytes();
                libc::CMSG_DATA(header).cast::<[u8; 4]>().add(index).write(bytes);
            }
        }
    }
    loop {
        // SAFETY: `message` points to live buffers only.
        let sent =
            unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match check(sent as libc::c_long) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message into `buffer`. Returns its length (0 when the other side is gone) and what came beside it.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; _]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    let length = loop {
        // SAFETY: `message` points to live buffers of the given lengths only.
        let got = unsafe {
            libc::recvmsg(
                socket.as_fd().as_raw_fd(),
                &raw mut message,
                libc::MSG_CMSG_CLOEXEC,
            )
        };
        match check(got as libc::c_long) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => break other? as usize,
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled `control` up to msg_controllen; CMSG_* stay within it, and each SCM_RIGHTS entry
    // is a new descriptor of ours.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<i32>() {
                    let bytes = libc::CMSG_DATA(header).cast::<[u8; 4]>().add(index).read();
                    descriptors.push(OwnedFd::from_raw_fd(i32::from_ne_bytes(bytes)));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((length, descriptors))
}
