//! Lines of a container's output on their way to journald or a syslog server.
//!
//! The shim sends them itself, so that they need no manager. A receiver that is slow makes the container wait, as with
//! any pipe, unless a buffer was asked for: then what does not fit there is lost. For a receiver that is gone nobody
//! waits. What was lost is counted, and told to the receiver and in the shim's log when there is one again.

mod format;
mod receiver;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use super::log::{ENTRY_BYTES_MAX, Stream};
use crate::{shim_log, sys};

pub use format::Format;
use format::{Encoder, Message, Piece};
pub use receiver::Receiver;

/// After a receiver was found gone, the next one is looked for so much later; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Where lines go, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardSettings {
    pub receiver: Receiver,
    pub format: Format,
    /// Of syslog.
    pub facility: u8,
    /// Of syslog.
    pub tag: String,
    /// Of journald: each `NAME=VALUE` with a newline behind it.
    pub fields: String,
    /// For a slow receiver; `None`: the container waits.
    pub buffer_bytes: Option<usize>,
}

/// One stream's way to a receiver.
#[derive(Debug)]
pub struct Forward {
    receiver: Receiver,
    buffer_bytes: Option<usize>,
    encoder: Encoder,
    socket: Option<OwnedFd>,
    /// The socket has taken something: when that ends, the receiver may just have been restarted.
    proven: bool,
    /// When a receiver is looked for again.
    retry: Option<(Instant, Duration)>,
    /// The beginning of a line.
    line: Vec<u8>,
    /// Earlier pieces of this line, which was too long for one message.
    piece: Piece,
    /// Messages that wait for a slow receiver, the first of them perhaps a rest.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    lost_lines: u64,
    /// The stream is over, and its last line is not sent yet.
    finishing: bool,
}

/// What came of one message.
enum Sent {
    Done,
    /// The receiver is slow: nothing of it was taken.
    NotNow,
}

impl Forward {
    /// There has to be a receiver now. A connection may still be under way.
    pub fn open(settings: ForwardSettings, stream: Stream) -> io::Result<Self> {
        let socket = settings.receiver.connect()?;
        Ok(Self {
            encoder: Encoder::new(&settings, stream),
            receiver: settings.receiver,
            buffer_bytes: settings.buffer_bytes,
            socket: Some(socket),
            proven: true,
            retry: None,
            line: Vec::new(),
            piece: Piece::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            lost_lines: 0,
            finishing: false,
        })
    }

    /// Becomes writable when the receiver takes more.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Whether something was taken that waits for the receiver.
    pub fn is_behind(&self) -> bool {
        self.finishing || self.has_waiting()
    }

    fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends whole lines and keeps the beginning of the last; how many bytes were taken. `WouldBlock`: none, as the
    /// receiver is slow.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let room = ENTRY_BYTES_MAX - self.line.len();
            let end = rest.iter().take(room).position(|&byte| byte == b'\n');
            let length = end.unwrap_or(room.min(rest.len()));
            if end.is_none() && length < room {
                self.line.extend_from_slice(rest);
                return Ok(bytes.len());
            }
            let before = self.line.len();
            self.line.extend_from_slice(&rest[..length]);
            if let Sent::NotNow = self.send_line(end.is_some()) {
                self.line.truncate(before);
                return match taken {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(taken),
                };
            }
            taken += length + usize::from(end.is_some());
        }
        Ok(taken)
    }

    /// The stream is over: sends what is left. `WouldBlock`: not everything yet.
    pub fn finish(&mut self) -> io::Result<()> {
        self.finishing = true;
        if !self.line.is_empty()
            && let Sent::NotNow = self.send_line(true)
        {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.flush();
        if self.has_waiting() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.finishing = false;
        Ok(())
    }

    /// Sends what waits, as far as the receiver takes it.
    pub fn flush(&mut self) {
        while let Some(first) = self.waiting.front_mut() {
            let Some(socket) = &self.socket else {
                self.lose_waiting();
                return;
            };
            match sys::send(socket, first) {
                Ok(count) if count < first.len() => {
                    first.drain(..count);
                    self.waiting_bytes -= count;
                }
                Ok(count) => {
                    self.waiting_bytes -= count;
                    self.waiting.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.disconnect(&error);
                    self.lose_waiting();
                    return;
                }
            }
        }
        self.waiting = VecDeque::new();
    }

    fn lose_waiting(&mut self) {
        self.lost_lines += self.waiting.len() as u64;
        self.waiting_bytes = 0;
        self.waiting = VecDeque::new();
    }

    /// Sends `self.line`, which ends with this message if `last` says so.
    fn send_line(&mut self, last: bool) -> Sent {
        if self.lost_lines > 0 && self.has_receiver() {
            let notice = format!("[shim: {} lines of output are missing here]", self.lost_lines);
            let before = std::mem::take(&mut self.lost_lines);
            let encoded = self.encoder.encode(&Message::whole(notice.as_bytes()));
            let sent = self.send(encoded);
            if matches!(sent, Sent::NotNow) || self.lost_lines > 0 {
                self.lost_lines = before;
                if let Sent::NotNow = sent {
                    return sent;
                }
            } else {
                shim_log::warn(format_args!("{}: {before} lines were lost", self.receiver));
            }
        }
        let message = Message {
            text: &self.line,
            at: SystemTime::now(),
            piece: self.piece.and(last),
        };
        let encoded = self.encoder.encode(&message);
        if let Sent::NotNow = self.send(encoded) {
            return Sent::NotNow;
        }
        self.piece = self.piece.next(last);
        self.line = Vec::new();
        Sent::Done
    }

    /// Whether there is a socket, or a new one can be made now.
    fn has_receiver(&mut self) -> bool {
        if self.socket.is_some() {
            return true;
        }
        if self.retry.is_some_and(|(due, _)| Instant::now() < due) {
            return false;
        }
        match self.receiver.connect() {
            Ok(socket) => {
                self.socket = Some(socket);
                true
            }
            Err(error) => {
                self.disconnect(&error);
                false
            }
        }
    }

    fn send(&mut self, message: Vec<u8>) -> Sent {
        self.flush();
        if self.has_waiting() {
            return self.wait_with(message);
        }
        // A receiver that was restarted is found at the second try.
        for _ in 0..2 {
            if !self.has_receiver() {
                break;
            }
            let Some(socket) = &self.socket else { break };
            match sys::send(socket, &message) {
                Ok(count) => {
                    (self.proven, self.retry) = (true, None);
                    if count < message.len() {
                        self.wait_for_rest(message[count..].to_vec());
                    }
                    return Sent::Done;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.wait_with(message),
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    shim_log::warn(format_args!("{}: {error}", self.receiver));
                    break;
                }
                Err(error) => self.disconnect(&error),
            }
        }
        self.lost_lines += 1;
        Sent::Done
    }

    /// The receiver is slow.
    fn wait_with(&mut self, message: Vec<u8>) -> Sent {
        match self.buffer_bytes {
            None => return Sent::NotNow,
            Some(max) if self.waiting_bytes + message.len() > max => self.lost_lines += 1,
            Some(_) => self.wait_for_rest(message),
        }
        Sent::Done
    }

    fn wait_for_rest(&mut self, bytes: Vec<u8>) {
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(bytes);
    }

    fn disconnect(&mut self, error: &io::Error) {
        self.socket = None;
        if std::mem::take(&mut self.proven) {
            return;
        }
        if self.retry.is_none() {
            shim_log::warn(format_args!("{}: {error}; lines are being lost", self.receiver));
        }
        let pause = self
            .retry
            .map_or(PAUSE_MIN, |(_, pause)| (pause * 2).min(PAUSE_MAX));
        self.retry = Some((Instant::now() + pause, pause));
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.lose_waiting();
        self.lost_lines += u64::from(!self.line.is_empty());
        if self.lost_lines > 0 {
            let (receiver, lost) = (&self.receiver, self.lost_lines);
            shim_log::warn(format_args!("{receiver}: the last {lost} lines were lost"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;

    fn forward(path: &Path, buffer_bytes: Option<usize>) -> Forward {
        let settings = ForwardSettings {
            receiver: Receiver::UnixDatagrams(path.to_owned()),
            format: Format::Journald,
            buffer_bytes,
            ..ForwardSettings::default()
        };
        Forward::open(settings, Stream::Stdout).unwrap()
    }

    fn bind(path: &Path) -> UnixDatagram {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = vec![0; 64 << 10];
        std::iter::from_fn(|| {
            let length = socket.recv(&mut buffer).ok()?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            Some(text.rsplit_once("\nMESSAGE=").unwrap().1.trim_end().to_owned())
        })
        .collect()
    }

    #[test]
    fn a_slow_receiver_makes_the_writer_wait_and_gets_each_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let receiver = bind(&path);
        let mut forward = forward(&path, None);
        let sent: Vec<String> = (0..2000).map(|number| format!("line {number}")).collect();
        let text = sent.join("\n") + "\nend";
        let (mut rest, mut got, mut waits) = (text.as_bytes(), Vec::new(), 0);
        while !rest.is_empty() {
            if let Ok(taken) = forward.take(rest) {
                rest = &rest[taken..];
            } else {
                waits += 1;
                got.extend(received(&receiver));
            }
        }
        while forward.finish().is_err() {
            got.extend(received(&receiver));
        }
        got.extend(received(&receiver));
        assert!(waits > 0);
        assert_eq!(got.pop().as_deref(), Some("end"));
        assert_eq!(got, sent);
    }

    #[test]
    fn with_a_buffer_nobody_waits_and_what_is_lost_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let receiver = bind(&path);
        let mut forward = forward(&path, Some(10_000));
        let line = [b"x".repeat(99), b"\n".to_vec()].concat();
        for _ in 0..1000 {
            assert_eq!(forward.take(&line).unwrap(), line.len());
        }
        assert!(forward.is_behind());
        let mut got = received(&receiver);
        while forward.is_behind() {
            forward.flush();
            got.extend(received(&receiver));
        }
        let lost = 1000 - got.len();
        assert!(lost > 0);
        forward.take(b"after\n").unwrap();
        let notice = format!("[shim: {lost} lines of output are missing here]");
        assert_eq!(received(&receiver), [notice.as_str(), "after"]);
    }

    #[test]
    fn a_receiver_that_was_restarted_is_found_and_one_that_is_gone_stalls_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let first = bind(&path);
        let mut forward = forward(&path, None);
        forward.take(b"one\n").unwrap();
        assert_eq!(received(&first), ["one"]);
        drop(first);
        let second = bind(&path);
        forward.take(b"two\n").unwrap();
        assert_eq!(received(&second), ["two"]);
        drop(second);
        std::fs::remove_file(&path).unwrap();
        forward.take(b"three\nfour\n").unwrap();
        assert_eq!(forward.lost_lines, 2);
        let third = bind(&path);
        forward.retry = None;
        forward.take(b"five\n").unwrap();
        assert_eq!(
            received(&third),
            ["[shim: 2 lines of output are missing here]", "five"]
        );
    }

    #[test]
    fn a_long_line_goes_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let receiver = bind(&path);
        let mut forward = forward(&path, None);
        let line = "y".repeat(ENTRY_BYTES_MAX + 10);
        let written = format!("{line}\n");
        for chunk in written.as_bytes().chunks(5000) {
            assert_eq!(forward.take(chunk).unwrap(), chunk.len());
        }
        let got = received(&receiver);
        assert_eq!(
            got.iter().map(String::len).collect::<Vec<_>>(),
            [ENTRY_BYTES_MAX, 10]
        );
        assert_eq!(got.concat(), line);
    }
}
