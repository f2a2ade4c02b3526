//! A CRIU process that serves one request, and the talk with it: protocol buffers over a socket of packets
//! (`criu swrk`). The command line would do for a dump, but only this way hands over the master side of a restored
//! terminal, tells the moments at which hooks belong, and makes the restored init a child of ours.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::SigSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::message::{Fields, Message};
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::init::ExitOnUnwind;
use crate::newborn::Newborn;
use crate::program;
use crate::sys::clone::{Side, clone3};
use crate::sys::exec::execute;
use crate::sys::inherit::place_from;
use crate::sys::process as own;
use crate::sys::socket;

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

const NOTIFY: u64 = 6;

/// The number at which CRIU finds its socket; what else it inherits follows.
const SOCKET_NUMBER: i32 = 3;
pub(super) const INHERITED_FROM: i32 = SOCKET_NUMBER + 1;

/// CRIU's answers are short.
const ANSWER_BYTES_MAX: usize = 40 << 10;

/// What our child hears, with the `tasks` files of its groups beside it.
const ENTER: &[u8] = b"e";

/// What our child says before it is CRIU: it is where it shall be, or why it is not. No answer of CRIU's begins so.
const READY: &[u8] = b"r";
const FAILED: u8 = b'f';

/// CRIU tells that it has come so far, and waits for our consent.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    pub(super) name: &'a str,
    pub(super) pid: i32,
    pub(super) descriptor: Option<OwnedFd>,
}

/// Where a CRIU process is to run.
#[derive(Default)]
pub(super) struct Place<'a> {
    /// A cgroup v2 that it is born in.
    pub(super) unified: Option<OwnedFd>,
    /// From [`INHERITED_FROM`] on.
    pub(super) inherited: Vec<BorrowedFd<'a>>,
}

/// A started CRIU. Killed when dropped.
#[derive(Debug)]
pub(super) struct Criu {
    process: Newborn,
    socket: OwnedFd,
}

/// Finds the program: a path, or a name in `$PATH`.
pub(super) fn find(named: Option<&str>) -> Result<PathBuf> {
    let name = named.filter(|name| !name.is_empty()).unwrap_or("criu");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{path}:/usr/local/sbin:/usr/sbin:/sbin");
    program::find(name, &path).map(PathBuf::from).map_err(|error| {
        Error::Refused(format!(
            "checkpoint and restore need CRIU (package criu, or --criu PATH): {error}"
        ))
    })
}

impl Criu {
    /// `groups` hears of the process when it is born and may move it; the `tasks` files that it returns are those
    /// through which the process enters cgroups v1 by itself.
    pub(super) fn start(
        program: &Path,
        place: &Place<'_>,
        groups: impl FnOnce(i32) -> Result<Vec<OwnedFd>>,
    ) -> Result<Self> {
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context(|| "make a socket pair for CRIU".into())?;
        let what = || "clone a process for CRIU".into();
        let process = match clone3(0, place.unified.as_ref().map(AsFd::as_fd)).context(what)? {
            Side::Child => {
                drop(socket);
                become_criu(program, place, &theirs)
            }
            Side::Parent { pid, pidfd } => Newborn::new(pid, pidfd),
        };
        drop(theirs);
        let criu = Self { process, socket };
        let entries = groups(criu.pid())?;
        let entries: Vec<BorrowedFd<'_>> = entries.iter().map(AsFd::as_fd).collect();
        socket::send(&criu.socket, ENTER, &entries).context(|| "send to CRIU's process".into())?;
        let (bytes, _) = criu.receive()?;
        if bytes == READY {
            Ok(criu)
        } else {
            Err(failure(&bytes))
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Has the request carried out. `on` hears of each moment on the way, and can stop it by an error. Returns the pid
    /// of a restored init.
    pub(super) fn carry_out(
        self,
        kind: Kind,
        options: &Message,
        mut on: impl FnMut(Moment<'_>) -> Result<()>,
    ) -> Result<i32> {
        self.send(&Message::default().number(1, kind as u64).message(2, options))?;
        let pid = loop {
            let (bytes, mut descriptors) = self.receive()?;
            if bytes.first() == Some(&FAILED) {
                return Err(failure(&bytes));
            }
            let answer = Fields::new(&bytes);
            let number = answer.number(7).unwrap_or_default();
            if answer.number(2) != Some(1) {
                let reason = std::io::Error::from_raw_os_error(number as i32);
                return Err(Error::Refused(match number {
                    0 => "CRIU gave up".into(),
                    _ => format!("CRIU gave up: {reason}"),
                }));
            }
            match answer.number(1) {
                Some(NOTIFY) => {
                    let notify = answer.message(5).unwrap_or(Fields::new(&[]));
                    let consent = on(Moment {
                        name: notify.text(1).unwrap_or_default(),
                        pid: notify.number(2).unwrap_or_default() as i32,
                        descriptor: descriptors.pop(),
                    });
                    if let Err(error) = consent {
                        // Without an answer it undoes what it has done, and ends.
                        drop(self.socket);
                        self.process.wait()?;
                        return Err(error);
                    }
                    self.send(&Message::default().number(1, NOTIFY).number(3, 1))?;
                }
                Some(done) if done == kind as u64 => {
                    break answer
                        .message(4)
                        .and_then(|restored| restored.number(1))
                        .unwrap_or_default();
                }
                other => {
                    return Err(Error::Refused(format!("CRIU answers strangely (type {other:?})")));
                }
            }
        };
        drop(self.socket);
        // After a pre-dump it stays until the memory is written, which may be long.
        self.process.wait()?;
        Ok(pid as i32)
    }

    fn send(&self, message: &Message) -> Result<()> {
        match socket::send(&self.socket, message.bytes(), &[]) {
            // What it said before it went is still to be received.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context(|| "send to CRIU".into()),
        }
    }

    fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let (length, descriptors) = match socket::receive(&self.socket, &mut buffer) {
            // It is gone, and has not read what we sent.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => (0, Vec::new()),
            other => other.context(|| "receive from CRIU".into())?,
        };
        if length == 0 {
            return Err(Error::Refused("CRIU ended before it answered".into()));
        }
        buffer.truncate(length);
        Ok((buffer, descriptors))
    }
}

fn failure(bytes: &[u8]) -> Error {
    let text = bytes.get(1..).unwrap_or_default();
    Error::Refused(String::from_utf8_lossy(text).into_owned())
}

fn become_criu(program: &Path, place: &Place<'_>, socket: &OwnedFd) -> ! {
    let _guard = ExitOnUnwind;
    let prepare = || {
        own::die_with_parent().context(|| "ask to die with the runtime".into())?;
        let (_, entries) =
            socket::receive(socket, &mut [0; 1]).context(|| "receive from the runtime".into())?;
        cgroup::enter(&entries)?;
        // CRIU waits for children by SIGCHLD.
        SigSet::empty()
            .thread_set_mask()
            .context(|| "unblock signals".into())?;
        own::default_signal(libc::SIGPIPE);
        let c_string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let arguments = ["criu", "swrk", "3"].map(|word| c_string(word.as_bytes()));
        let environment: Vec<CString> = std::env::vars_os()
            .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
            .collect();
        socket::send(socket, READY, &[]).context(|| "send to the runtime".into())?;
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(socket.as_fd())
            .chain(place.inherited.iter().copied())
            .collect();
        place_from(SOCKET_NUMBER, &descriptors).context(|| "hand descriptors to CRIU".into())?;
        let source = execute(
            &c_string(program.as_os_str().as_bytes()),
            &arguments,
            &environment,
        );
        Err(source).context(|| format!("execute {}", program.display()))
    };
    let done: Result<()> = prepare();
    if let Err(error) = done {
        let text = [&[FAILED][..], error.to_string().as_bytes()].concat();
        let _ = socket::send(socket, &text, &[]);
    }
    own::exit_now(1)
}
