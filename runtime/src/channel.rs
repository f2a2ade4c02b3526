//! What the runtime and the container's init say to each other while a container is made: a few small messages
//! over one pair of sequenced-packet sockets, each side blocking until the other has spoken. When init executes
//! the container's program its end closes, and that silence is the good news.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::error::{Context, Error, Result};
use crate::sys::socket;

/// Longer texts are cut: an error message is one line.
const TEXT_BYTES_MAX: usize = 4000;

/// One message; who sends it stands beside it.
#[derive(Debug)]
pub(crate) enum Message {
    /// Init, from an intermediate process: this is the PID of the real one.
    Pid(i32),
    /// Runtime: these of the planned cgroups exist, and the `tasks` files of those in v1 hierarchies are here to be
    /// written. systemd has moved you into yours, if it made them.
    Groups { joined: Vec<u8>, entries: Vec<OwnedFd> },
    /// Runtime: you are in your cgroup, into which systemd has moved you; or, to a process of exec in a user namespace,
    /// your id is known here.
    Admitted,
    /// Runtime: your user and group ids, or the owners in the mount that you sent, are mapped.
    Mapped,
    /// Init: map the owners of this mount's files as the entry with this index in `mounts` says.
    MapOwners(usize, OwnedFd),
    /// Init: I may not open the source of the entry with this index in `mounts`. This is the root from which I see it.
    OpenSource(usize, OwnedFd),
    /// Runtime: here it is.
    Source(OwnedFd),
    /// Init: the mounts are made; hooks that want to see them may run now.
    Mounted,
    /// Runtime: this is your pid; it is on record and your limits are set, so go on. When ready: wait at the gate.
    Continue(i32),
    /// Init: here is the master side of the terminal.
    Terminal(OwnedFd),
    /// Init: here is the descriptor on which seccomp notifies.
    SeccompNotify(OwnedFd),
    /// Runtime: the descriptor was handed over.
    Taken,
    /// Init: everything is ready. Without a gate, the container's program comes next.
    Ready,
    /// `start`, at the gate: go.
    Start,
    /// Init: this went wrong, and I am gone.
    Failed(String),
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context(|| "make a socket pair between runtime and init".into())?;
        Ok((Self(ours), Self(theirs)))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub(crate) fn send(&self, message: &Message) -> Result<()> {
        let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
        let mut bytes = Vec::new();
        match message {
            Message::Pid(pid) => {
                bytes.push(b'p');
                bytes.extend_from_slice(&pid.to_ne_bytes());
            }
            Message::Admitted => bytes.push(b'a'),
            Message::Groups { joined, entries } => {
                bytes.push(b'g');
                bytes.extend_from_slice(joined);
                descriptors.extend(entries.iter().map(AsFd::as_fd));
            }
            Message::Mapped => bytes.push(b'm'),
            Message::MapOwners(index, fd) => {
                bytes.push(b'w');
                bytes.extend_from_slice(&index.to_ne_bytes());
                descriptors.push(fd.as_fd());
            }
            Message::OpenSource(index, fd) => {
                bytes.push(b'q');
                bytes.extend_from_slice(&index.to_ne_bytes());
                descriptors.push(fd.as_fd());
            }
            Message::Source(fd) => {
                bytes.push(b'h');
                descriptors.push(fd.as_fd());
            }
            Message::Mounted => bytes.push(b'o'),
            Message::Continue(pid) => {
                bytes.push(b'c');
                bytes.extend_from_slice(&pid.to_ne_bytes());
            }
            Message::Terminal(fd) => {
                bytes.push(b't');
                descriptors.push(fd.as_fd());
            }
            Message::SeccompNotify(fd) => {
                bytes.push(b'y');
                descriptors.push(fd.as_fd());
            }
            Message::Taken => bytes.push(b'k'),
            Message::Ready => bytes.push(b'r'),
            Message::Start => bytes.push(b's'),
            Message::Failed(text) => {
                bytes.push(b'f');
                let end = text.floor_char_boundary(TEXT_BYTES_MAX);
                bytes.extend_from_slice(&text.as_bytes()[..end]);
            }
        }
        socket::send(&self.0, &bytes, &descriptors).context(|| "send to the other side of init".into())
    }

    /// The next message; `None` when the other side has closed or died.
    pub(crate) fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; TEXT_BYTES_MAX + 16];
        let received = match socket::receive(&self.0, &mut buffer) {
            // The other side died with a message of ours unread. What it said before still lies here.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => socket::receive(&self.0, &mut buffer),
            other => other,
        };
        let (length, mut descriptors) = received.context(|| "receive from the other side of init".into())?;
        let Some((tag, rest)) = buffer[..length].split_first() else {
            return Ok(None);
        };
        let strange = || {
            Error::Refused(format!(
                "init and runtime don't understand each other (message {tag})"
            ))
        };
        let message = match tag {
            b'p' => Message::Pid(number(rest).ok_or_else(strange)?),
            b'a' => Message::Admitted,
            b'g' => Message::Groups {
                joined: rest.to_vec(),
                entries: descriptors,
            },
            b'm' => Message::Mapped,
            b'w' => {
                let index = index(rest).ok_or_else(strange)?;
                Message::MapOwners(index, descriptors.pop().ok_or_else(strange)?)
            }
            b'q' => {
                let index = index(rest).ok_or_else(strange)?;
                Message::OpenSource(index, descriptors.pop().ok_or_else(strange)?)
            }
            b'h' => Message::Source(descriptors.pop().ok_or_else(strange)?),
            b'o' => Message::Mounted,
            b'c' => Message::Continue(number(rest).ok_or_else(strange)?),
            b't' => Message::Terminal(descriptors.pop().ok_or_else(strange)?),
            b'y' => Message::SeccompNotify(descriptors.pop().ok_or_else(strange)?),
            b'k' => Message::Taken,
            b'r' => Message::Ready,
            b's' => Message::Start,
            b'f' => Message::Failed(String::from_utf8_lossy(rest).into_owned()),
            _ => return Err(strange()),
        };
        Ok(Some(message))
    }
}

fn number(bytes: &[u8]) -> Option<i32> {
    bytes.try_into().ok().map(i32::from_ne_bytes)
}

fn index(bytes: &[u8]) -> Option<usize> {
    bytes.try_into().ok().map(usize::from_ne_bytes)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_said_before_death_is_heard_though_our_message_was_unread() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&Message::Continue(1)).unwrap();
        theirs.send(&Message::Failed("no such thing".into())).unwrap();
        drop(theirs);
        let heard = (0..2).find_map(|_| ours.receive().unwrap());
        assert!(matches!(heard, Some(Message::Failed(text)) if text == "no such thing"));
        assert!(ours.receive().unwrap().is_none());
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(&Message::Failed("ä".repeat(TEXT_BYTES_MAX))).unwrap();
        assert!(matches!(ours.receive().unwrap(), Some(Message::Failed(t)) if t.len() <= TEXT_BYTES_MAX));
    }

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (ours, theirs) = Channel::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        theirs.send(&Message::Terminal(file.into())).unwrap();
        assert!(matches!(ours.receive().unwrap(), Some(Message::Terminal(_))));
    }
}
