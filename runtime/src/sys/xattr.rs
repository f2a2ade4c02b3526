//! Extended attributes by descriptor.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The names of all attributes; empty where the file system has none.
pub(crate) fn list(fd: BorrowedFd) -> io::Result<Vec<u8>> {
    read(|buffer| {
        // SAFETY: the pointer and length are of one live buffer.
        unsafe { libc::flistxattr(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

pub(crate) fn get(fd: BorrowedFd, name: &CStr) -> io::Result<Vec<u8>> {
    read(|buffer| {
        // SAFETY: the pointer and length are of one live buffer, and `name` is a C string.
        unsafe {
            libc::fgetxattr(
                fd.as_raw_fd(),
                name.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        }
    })
}

pub(crate) fn set(fd: BorrowedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and length are of one live slice, and `name` is a C string.
    let result = unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn read(call: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        let length = call(&mut buffer);
        if length >= 0 {
            buffer.truncate(length as usize);
            return Ok(buffer);
        }
        let error = io::Error::last_os_error();
        // The kernel allows 64 KiB for a value and for the list of names.
        if error.raw_os_error() != Some(libc::ERANGE) || buffer.len() >= 1 << 16 {
            return Err(error);
        }
        buffer.resize(1 << 16, 0);
    }
}
