//! A connection to systemd, directly or through a message bus.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use super::message::{Call, Kind, Message};
use super::value::Value;

/// systemd may be starting hundreds of units at this moment; runc waits as long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Signals that are kept while an answer is waited for. On a busy host others' jobs end all the time.
const SIGNALS_MAX: usize = 4096;
const LINE_BYTES_MAX: u64 = 512;

/// Why a call gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Failure {
    /// The other side refused; the name of the error, and its words.
    #[error("{text} ({name})")]
    Refused { name: String, text: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    /// Whether this is the error of systemd with this name.
    pub(in super::super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name.strip_prefix("org.freedesktop.systemd1.") == Some(wanted))
    }
}

#[derive(Debug)]
pub(in super::super) struct Connection {
    stream: BufReader<UnixStream>,
    serial: u32,
    signals: Vec<Message>,
}

impl Connection {
    /// Connects to the socket at a path, or to an abstract one if the name begins with a NUL. `bus` says that there is
    /// a message bus behind it and not systemd itself.
    pub(in super::super) fn open(socket: &[u8], bus: bool) -> Result<Self, Failure> {
        let address = match socket.split_first() {
            Some((0, name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(OsStr::from_bytes(socket))?,
        };
        let stream = UnixStream::connect_addr(&address)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut connection = Self {
            stream: BufReader::new(stream),
            serial: 0,
            signals: Vec::new(),
        };
        connection.authenticate()?;
        if bus {
            connection.call(&Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "Hello",
                arguments: Vec::new(),
            })?;
        }
        Ok(connection)
    }

    /// SASL EXTERNAL without an identity: the other side takes that of the socket. So this works in a user namespace
    /// too, where we do not know our own user id as the other side sees it. All is said at once, as systemd does.
    fn authenticate(&mut self) -> io::Result<()> {
        self.stream
            .get_mut()
            .write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let mut line = Vec::new();
            self.limit_reads(deadline)?;
            self.stream
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)
                .map_err(timed_out)?;
            if line.starts_with(b"OK ") && line.ends_with(b"\r\n") {
                return Ok(());
            }
            if line != b"DATA\r\n" {
                let text = format!("authentication was refused: {}", line.escape_ascii());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
        }
    }

    fn limit_reads(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no limit.
        let left = left.max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left))
    }

    fn next(&mut self, deadline: Instant) -> io::Result<Message> {
        if Instant::now() > deadline {
            return Err(timed_out(io::ErrorKind::TimedOut.into()));
        }
        self.limit_reads(deadline)?;
        Message::read(&mut self.stream).map_err(timed_out)
    }

    /// Calls a method and waits for its answer.
    pub(in super::super) fn call(&mut self, call: &Call<'_>) -> Result<Vec<Value>, Failure> {
        self.serial += 1;
        self.stream.get_mut().write_all(&call.encode(self.serial))?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = self.next(deadline)?;
            match message.kind {
                Kind::Signal if self.signals.len() < SIGNALS_MAX => self.signals.push(message),
                Kind::Signal => return Err(Failure::Io(io::Error::other("signals came, but no answer"))),
                Kind::Reply | Kind::Error if message.reply_to != Some(self.serial) => {}
                Kind::Reply => return message.arguments().map_err(malformed),
                Kind::Error => {
                    let arguments = message.arguments().unwrap_or_default();
                    let text = arguments.first().and_then(Value::as_text);
                    return Err(Failure::Refused {
                        text: text.unwrap_or("refused").to_owned(),
                        name: message.error_name.unwrap_or_default(),
                    });
                }
                // Nobody has anything to ask us.
                Kind::Call => {}
            }
        }
    }

    /// Waits for the first signal of this name for which `wanted` finds something in the arguments.
    pub(in super::super) fn wait_for<T>(
        &mut self,
        name: &str,
        wanted: impl Fn(&[Value]) -> Option<T>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + TIMEOUT;
        let mut early = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match early.next() {
                Some(message) => message,
                None => self.next(deadline)?,
            };
            if message.kind == Kind::Signal
                && message.member.as_deref() == Some(name)
                && let Some(found) = wanted(&message.arguments().map_err(malformed)?)
            {
                return Ok(found);
            }
        }
    }
}

fn malformed(error: super::value::Malformed) -> Failure {
    Failure::Io(io::Error::new(io::ErrorKind::InvalidData, error))
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", TIMEOUT.as_secs()),
        ),
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the other side: takes the authentication, then a message, and answers with these bytes.
    fn against(answers: Vec<Vec<u8>>) -> Result<Vec<Value>, Failure> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let other = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            for answer in answers {
                let _ = theirs.read(&mut buffer);
                theirs.write_all(&answer).unwrap();
            }
        });
        let mut connection = Connection {
            stream: BufReader::new(ours),
            serial: 0,
            signals: Vec::new(),
        };
        let call = Call {
            destination: "a.b",
            path: "/a",
            interface: "a.b",
            member: "C",
            arguments: Vec::new(),
        };
        let result = connection
            .authenticate()
            .map_err(Failure::Io)
            .and_then(|()| connection.call(&call));
        drop(connection);
        other.join().unwrap();
        result
    }

    const OK: &[u8] = b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n";

    #[test]
    fn an_answer_is_told_from_signals_and_other_answers() {
        let all = [signal(), reply(9, "early"), reply(1, "late")].concat();
        assert_eq!(against(vec![OK.to_vec(), all]).unwrap(), [Value::text("late")]);
    }

    fn signal() -> Vec<u8> {
        let mut bytes = vec![b'l', 4, 0, 1];
        Value::Uint32(0).write(&mut bytes);
        Value::Uint32(3).write(&mut bytes);
        let member = Value::Struct(vec![Value::Byte(3), Value::Variant(Box::new(Value::text("X")))]);
        Value::Array("(yv)".into(), vec![member]).write(&mut bytes);
        super::super::value::align(&mut bytes, 8);
        bytes
    }

    fn reply(to: u32, text: &str) -> Vec<u8> {
        let mut body = Vec::new();
        Value::text(text).write(&mut body);
        let mut bytes = vec![b'l', 2, 0, 1];
        Value::Uint32(body.len() as u32).write(&mut bytes);
        Value::Uint32(3).write(&mut bytes);
        let field = |code, value| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let fields = vec![
            field(5, Value::Uint32(to)),
            field(8, Value::Signature("s".into())),
        ];
        Value::Array("(yv)".into(), fields).write(&mut bytes);
        super::super::value::align(&mut bytes, 8);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn refusals_and_broken_answers_are_told() {
        let rejected = against(vec![b"REJECTED EXTERNAL\r\n".to_vec()])
            .unwrap_err()
            .to_string();
        assert!(rejected.contains("authentication was refused"), "{rejected}");
        let closed = against(vec![OK.to_vec(), Vec::new()]).unwrap_err().to_string();
        assert!(closed.contains("closed"), "{closed}");
        let broken = against(vec![OK.to_vec(), b"HTTP/1.1 400 Bad Request\r\n".to_vec()])
            .unwrap_err()
            .to_string();
        assert!(broken.contains("D-Bus format"), "{broken}");
    }
}
