//! The standard streams of a container's process, and what else it inherits.

use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use nix::unistd::{Uid, fchown};

use crate::error::{Context, Error, Result};
use crate::sys::fd::{close_on_exec_from, is_open};

/// More would not be an honest number.
const PRESERVED_MAX: u32 = 1 << 16;

/// Lets `uid` own its streams, so that it can open /dev/stdout again, as runc does.
pub(crate) fn give_to(uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()] {
        let Ok(found) = fstat(fd) else { continue };
        let null = (
            nix::sys::stat::major(found.st_rdev),
            nix::sys::stat::minor(found.st_rdev),
        ) == (1, 3);
        if found.st_uid == uid || null {
            continue;
        }
        match fchown(fd, Some(Uid::from_raw(uid)), None) {
            // Sockets, read-only file systems and ids that are not mapped here can't be changed; nothing is lost.
            Err(
                nix::errno::Errno::EINVAL
                | nix::errno::Errno::EPERM
                | nix::errno::Errno::EROFS
                | nix::errno::Errno::EACCES,
            ) => {}
            other => other.context(|| format!("give the standard streams to user {uid}"))?,
        }
    }
    Ok(())
}

/// Sets close-on-exec on all that was leaked to us, except `$LISTEN_FDS` and `extra` descriptors after the standard
/// streams.
pub(crate) fn keep_only(extra: u32) -> Result<()> {
    let listen = match std::env::var("LISTEN_FDS") {
        Ok(text) => text
            .parse()
            .map_err(|_| Error::Refused(format!("$LISTEN_FDS is {text:?}, not a number")))?,
        Err(_) => 0_u32,
    };
    let kept = extra.saturating_add(listen);
    if kept > PRESERVED_MAX {
        return Err(Error::Refused(format!(
            "{kept} descriptors to preserve are too many"
        )));
    }
    for number in 3..3 + kept {
        if !is_open(number as i32) {
            return Err(Error::Refused(format!(
                "please check that descriptor {number} to preserve is open"
            )));
        }
    }
    close_on_exec_from(3 + kept).context(|| "set close-on-exec on inherited descriptors".into())
}
