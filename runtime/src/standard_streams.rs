//! The standard streams of a container's process, and what else it inherits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, makedev};
use nix::unistd::{Uid, fchown};

use crate::error::{Context, Error, Result};
use crate::sys::fd::{
    become_standard, close_later, close_on_exec_from, close_others_from, close_spent, is_open,
};

/// More would not be an honest number.
const PRESERVED_MAX: u32 = 1 << 16;

/// The first descriptor that the container's program does not inherit.
static FIRST_OWN: AtomicI32 = AtomicI32::new(3);

/// Puts the container's null device under each stream that is the host's, as runc does: a root in the container could
/// change the host's owner and mode, and CRIU does not find it among the container's files.
///
/// Called in the container's root. Where that has no null device the streams stay as they are. `shared` says that
/// processes of the container are there already, who can have put anything in its place.
pub(crate) fn take_null_from_container(shared: bool) -> Result<()> {
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()];
    let mut null_streams = streams.into_iter().filter(of_null).peekable();
    if null_streams.peek().is_none() {
        return Ok(());
    }
    // Opening some things waits, or has an effect; a look has none.
    let look = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if shared && !openat(AT_FDCWD, "/dev/null", look, Mode::empty()).is_ok_and(|found| of_null(&found)) {
        return Ok(());
    }
    // Whatever the image has in its place, a fifo or a terminal, opening it like this waits for nobody.
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Some(own) = openat(AT_FDCWD, "/dev/null", flags, Mode::empty())
        .ok()
        .filter(of_null)
    else {
        return Ok(());
    };
    for stream in null_streams {
        become_standard(own.as_fd(), stream.as_raw_fd())
            .context(|| "put the container's /dev/null under a standard stream".into())?;
    }
    close_later(own);
    Ok(())
}

fn of_null(stream: &impl AsFd) -> bool {
    fstat(stream).is_ok_and(|found| is_null(&found))
}

fn is_null(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR
        && found.st_rdev == makedev(1, 3)
}

/// Lets `uid` own its streams, so that it can open /dev/stdout again, as runc does.
pub(crate) fn give_to(uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()] {
        let Ok(found) = fstat(fd) else { continue };
        if found.st_uid == uid || is_null(&found) {
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
    FIRST_OWN.store(3 + kept.cast_signed(), Ordering::Relaxed);
    close_on_exec_from(3 + kept).context(|| "set close-on-exec on inherited descriptors".into())
}

/// Closes what the container's program does not inherit, but for `needed`: a created container can wait for its start
/// for long, and what the caller of `create` has open, a pipe perhaps, is not its to hold. Called by init, which uses
/// no other descriptor from then on.
pub(crate) fn close_others(needed: &[BorrowedFd]) {
    close_spent();
    close_others_from(FIRST_OWN.load(Ordering::Relaxed), needed);
}
