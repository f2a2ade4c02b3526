//! The gate between `create` and `start`: a listening socket in the state directory. Init is made with the socket,
//! and `create` gives it its name only when everything is ready, so a gate that can be seen is a container that
//! is created. `start` connects, says so, and hears either why the program could not be executed or, when the
//! socket closes by `execve`, that it runs. A gate nobody listens at any more is an open one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};

use crate::channel::{Channel, Message};
use crate::error::{Context, Result};

/// The socket's name in the state directory.
pub(crate) const NAME: &str = "gate";

/// Waiting `start`s and lookers; more of them get told to try again.
const BACKLOG: i32 = 64;

/// Makes the socket that init inherits.
pub(crate) fn make() -> Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context(|| "make the start gate".into())
}

/// The address of the gate in an opened state directory, whose path may be longer than a socket's may.
fn address(dir: impl AsFd) -> nix::Result<UnixAddr> {
    UnixAddr::new(format!("/proc/self/fd/{}/{NAME}", dir.as_fd().as_raw_fd()).as_str())
}

/// Gives the gate its name: from here on the container is created.
pub(crate) fn publish(gate: &OwnedFd, dir: &Path) -> Result<()> {
    let home = fs::File::open(dir).context(|| format!("open {}", dir.display()))?;
    address(&home)
        .and_then(|address| bind(gate.as_raw_fd(), &address))
        .and_then(|()| listen(gate, Backlog::new(BACKLOG)?))
        .context(|| "publish the start gate".into())
}

/// Init waits here. Returns the channel to the `start` that let it pass.
pub(crate) fn wait(gate: &OwnedFd) -> Result<Channel> {
    loop {
        let start = match accept4(gate, SockFlag::SOCK_CLOEXEC) {
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNABORTED) => continue,
            other => other.context(|| "wait at the start gate".into())?,
        };
        let channel = Channel::from_fd(start);
        // Those who only look say nothing.
        if let Ok(Some(Message::Start)) = channel.receive() {
            return Ok(channel);
        }
    }
}

/// What is to be seen at a gate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Init waits for `start`.
    Waiting,
    /// There is no gate any more.
    Open,
}

/// Looks whether init still waits.
pub(crate) fn look(dir: &Path) -> Result<Look> {
    Ok(match approach(dir)? {
        Some(_) => Look::Waiting,
        None => Look::Open,
    })
}

/// Opens the gate for good. `None` when nobody waits behind it.
pub(crate) fn open(dir: &Path) -> Result<Option<Channel>> {
    let Some(channel) = approach(dir)? else {
        return Ok(None);
    };
    channel.send(&Message::Start)?;
    Ok(Some(channel))
}

/// Takes the gate's name away after it was opened.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_file(dir.join(NAME)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("remove {}", dir.join(NAME).display())),
    }
}

fn approach(dir: &Path) -> Result<Option<Channel>> {
    let what = || format!("connect to the start gate in {}", dir.display());
    if !dir.join(NAME).try_exists().context(what)? {
        return Ok(None);
    }
    let home = fs::File::open(dir).context(what)?;
    let us = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context(what)?;
    match address(&home).and_then(|address| connect(us.as_raw_fd(), &address)) {
        Ok(()) => Ok(Some(Channel::from_fd(us))),
        Err(nix::errno::Errno::ECONNREFUSED | nix::errno::Errno::ENOENT) => Ok(None),
        Err(e) => Err(e).context(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_seen_once_published_and_opens_once() {
        let dir = std::env::temp_dir().join(format!("gate-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let gate = make().unwrap();
        assert_eq!(look(&dir).unwrap(), Look::Open);
        publish(&gate, &dir).unwrap();
        assert_eq!(look(&dir).unwrap(), Look::Waiting);
        let start = open(&dir).unwrap().unwrap();
        let init = wait(&gate).unwrap();
        drop(gate);
        init.send(&Message::Failed("because".into())).unwrap();
        drop(init);
        assert!(matches!(start.receive().unwrap(), Some(Message::Failed(_))));
        assert_eq!(look(&dir).unwrap(), Look::Open);
        remove(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
    }
}
