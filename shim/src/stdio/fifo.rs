//! Fifos and other paths that containerd gives for a stream.
//!
//! No open here waits for the other side, and no missing reader or writer is an error: containerd may be restarting,
//! and the container runs on. So a fifo for output is opened for reading too (with our own read end there is never
//! `EPIPE`, at most a full fifo), and the stdin fifo gets a write end of ours that keeps it from ending until `CloseIO`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::pump::Sink;

/// A stream to read, and for a fifo the write end that keeps it open.
#[derive(Debug)]
pub struct Source {
    pub fd: OwnedFd,
    pub keeper: Option<OwnedFd>,
}

pub fn open_for_reading(path: &Path) -> io::Result<Source> {
    if !path.metadata()?.file_type().is_fifo() {
        return Ok(Source {
            fd: File::open(path)?.into(),
            keeper: None,
        });
    }
    let fd = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let keeper = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    Ok(Source {
        fd: fd.into(),
        keeper: Some(keeper.into()),
    })
}

pub fn open_for_writing(path: &Path) -> io::Result<Sink> {
    let kind = path.metadata()?.file_type();
    if kind.is_fifo() {
        let both = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        return Sink::fifo(both.into());
    }
    if kind.is_char_device() {
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        return Ok(Sink::Stream(device.into()));
    }
    Sink::append_to(path)
}
