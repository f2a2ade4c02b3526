//! Messages: method calls that we send, and what comes back.

use std::io::{self, Read};

use super::value::{Malformed, Reader, Value, align};

/// Replies are short; a bus carries no longer ones to us than this.
const BYTES_MAX: usize = 1 << 20;
const FIELDS_BYTES_MAX: usize = 1 << 16;
/// Endianness, type, flags, version, length of the body, serial, and the length of the header fields.
const FIXED_BYTES: usize = 16;

// Codes of message types and header fields.
const METHOD_CALL: u8 = 1;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method call.
#[derive(Debug)]
pub(in super::super) struct Call<'a> {
    pub(in super::super) destination: &'a str,
    pub(in super::super) path: &'a str,
    pub(in super::super) interface: &'a str,
    pub(in super::super) member: &'a str,
    pub(in super::super) arguments: Vec<Value>,
}

impl Call<'_> {
    /// The whole message.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        for value in &self.arguments {
            value.write(&mut body);
        }
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let mut fields = vec![
            field(PATH, Value::ObjectPath(self.path.into())),
            field(INTERFACE, Value::text(self.interface)),
            field(MEMBER, Value::text(self.member)),
            field(DESTINATION, Value::text(self.destination)),
        ];
        if !signature.is_empty() {
            fields.push(field(SIGNATURE, Value::Signature(signature)));
        }
        let mut message = vec![b'l', METHOD_CALL, 0, 1];
        Value::Uint32(body.len() as u32).write(&mut message);
        Value::Uint32(serial).write(&mut message);
        Value::Array("(yv)".into(), fields).write(&mut message);
        align(&mut message, 8);
        message.append(&mut body);
        message
    }
}

fn field(code: u8, value: Value) -> Value {
    Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Kind {
    Call,
    Reply,
    Error,
    Signal,
}

/// A message that came. Its arguments are read only when somebody wants them.
#[derive(Debug)]
pub(in super::super) struct Message {
    pub(in super::super) kind: Kind,
    pub(in super::super) member: Option<String>,
    pub(super) error_name: Option<String>,
    /// The serial of the call that this answers.
    pub(super) reply_to: Option<u32>,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// Takes the next message off a stream.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let broken = |error: Malformed| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut bytes = vec![0; FIXED_BYTES];
        stream.read_exact(&mut bytes)?;
        let rest = length_after_start(&bytes).map_err(broken)?;
        bytes.resize(FIXED_BYTES + rest, 0);
        stream.read_exact(&mut bytes[FIXED_BYTES..])?;
        Self::decode(&bytes).map_err(broken)
    }

    /// Reads a whole message.
    pub(in super::super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let rest = length_after_start(bytes)?;
        if bytes.len() != FIXED_BYTES + rest {
            return Err(Malformed("it is not as long as it says"));
        }
        let body_length = word(bytes, 4)? as usize;
        let (head, body) = bytes.split_at(bytes.len() - body_length);
        let mut message = Self {
            kind: match bytes[1] {
                METHOD_CALL => Kind::Call,
                2 => Kind::Reply,
                3 => Kind::Error,
                4 => Kind::Signal,
                _ => return Err(Malformed("an unknown type of message")),
            },
            member: None,
            error_name: None,
            reply_to: None,
            signature: String::new(),
            body: body.to_owned(),
        };
        // The gap to the body belongs to the head but not to the array.
        let end = FIXED_BYTES + word(bytes, 12)? as usize;
        let mut fields = Reader::new(&head[..end]);
        fields.skip(12)?;
        let fields = fields.all("a(yv)")?;
        let [Value::Array(_, fields)] = fields.as_slice() else {
            return Err(Malformed("it has no header fields"));
        };
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), Value::Variant(value)] = pair.as_slice() else {
                continue;
            };
            let text = value.as_text().map(str::to_owned);
            match (*code, value.as_ref()) {
                (MEMBER, Value::Text(_)) => message.member = text,
                (ERROR_NAME, Value::Text(_)) => message.error_name = text,
                (REPLY_SERIAL, Value::Uint32(serial)) => message.reply_to = Some(*serial),
                (SIGNATURE, Value::Signature(signature)) => message.signature.clone_from(signature),
                (MEMBER | ERROR_NAME | REPLY_SERIAL | SIGNATURE, _) => {
                    return Err(Malformed("a header field of the wrong type"));
                }
                _ => {}
            }
        }
        Ok(message)
    }

    pub(in super::super) fn arguments(&self) -> Result<Vec<Value>, Malformed> {
        let mut reader = Reader::new(&self.body);
        let values = reader.all(&self.signature)?;
        if reader.is_at_end() {
            Ok(values)
        } else {
            Err(Malformed("the body is longer than its signature"))
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let mut reader = Reader::new(bytes);
    reader.skip(at)?;
    reader.uint32()
}

/// How many bytes follow the fixed start of a message.
fn length_after_start(start: &[u8]) -> Result<usize, Malformed> {
    let (body, fields) = (word(start, 4)? as usize, word(start, 12)? as usize);
    match (start[0], start[3]) {
        (b'l', 1) => {}
        // Everybody on this host has our byte order.
        (b'B', _) => return Err(Malformed("it is big-endian")),
        _ => return Err(Malformed("an unknown byte order or version")),
    }
    if fields > FIELDS_BYTES_MAX || body > BYTES_MAX {
        return Err(Malformed("it is longer than any answer"));
    }
    Ok(fields.next_multiple_of(8) + body)
}

#[cfg(test)]
mod tests {
    use super::*;

    // All made by another implementation, jeepney 0.9.
    const HELLO: &[u8] = b"l\x01\0\x01\0\0\0\0\x01\0\0\0m\0\0\0\
        \x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\
        \x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
        \x03\x01s\0\x05\0\0\0Hello\0\0\0\
        \x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0";
    const START: &[u8] = b"l\x01\0\x01\xb0\0\0\0\x07\0\0\0\xb6\0\0\0\
        \x01\x01o\0\x19\0\0\0/org/freedesktop/systemd1\0\0\0\0\0\0\0\
        \x02\x01s\0 \0\0\0org.freedesktop.systemd1.Manager\0\0\0\0\0\0\0\0\
        \x03\x01s\0\x12\0\0\0StartTransientUnit\0\0\0\0\0\0\
        \x06\x01s\0\x18\0\0\0org.freedesktop.systemd1\0\0\0\0\0\0\0\0\
        \x08\x01g\0\x10ssa(sv)a(sa(sv))\0\0\0\
        \x07\0\0\0a.scope\0\x07\0\0\0replace\0\x89\0\0\0\0\0\0\0\
        \x05\0\0\0Slice\0\x01s\0\0\0\0\x07\0\0\0x.slice\0\0\0\0\0\
        \x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0*\0\0\0\
        \x08\0\0\0Delegate\0\x01b\0\x01\0\0\0\0\0\0\0\
        \x09\0\0\0MemoryMax\0\x01t\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\
        \x0b\0\0\0AllowedCPUs\0\x02ay\0\x01\0\0\0\x03\0\0\0\0\0\0\0";
    const REMOVED: &[u8] = b"l\x04\0\x01=\0\0\0\x03\0\0\0z\0\0\0\
        \x01\x01o\0\x19\0\0\0/org/freedesktop/systemd1\0\0\0\0\0\0\0\
        \x02\x01s\0 \0\0\0org.freedesktop.systemd1.Manager\0\0\0\0\0\0\0\0\
        \x03\x01s\0\n\0\0\0JobRemoved\0\0\0\0\0\0\
        \x08\x01g\0\x04uoss\0\0\0\0\0\0\0\
        \x09\0\0\0\x1f\0\0\0/org/freedesktop/systemd1/job/9\0\
        \x07\0\0\0a.scope\0\x04\0\0\0done\0";
    const EXISTS: &[u8] = b"l\x03\0\x01\x19\0\0\0\x04\0\0\0?\0\0\0\
        \x04\x01s\0#\0\0\0org.freedesktop.systemd1.UnitExists\0\0\0\0\0\
        \x05\x01u\0\x07\0\0\0\x08\x01g\0\x01s\0\0\
        \x14\0\0\0Unit a.scope exists.\0";

    fn variant(name: &str, value: Value) -> Value {
        Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
    }

    #[test]
    fn calls_are_byte_for_byte_those_of_another_implementation() {
        let hello = Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            arguments: Vec::new(),
        };
        assert_eq!(hello.encode(1), HELLO);
        let properties = vec![
            variant("Slice", Value::text("x.slice")),
            variant("PIDs", Value::Array("u".into(), vec![Value::Uint32(42)])),
            variant("Delegate", Value::Bool(true)),
            variant("MemoryMax", Value::Uint64(1 << 40)),
            variant("AllowedCPUs", Value::Array("y".into(), vec![Value::Byte(3)])),
        ];
        let start = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
            arguments: vec![
                Value::text("a.scope"),
                Value::text("replace"),
                Value::Array("(sv)".into(), properties),
                Value::Array("(sa(sv))".into(), Vec::new()),
            ],
        };
        assert_eq!(
            start.encode(7).escape_ascii().to_string(),
            START.escape_ascii().to_string()
        );
        let read = Message::decode(START).unwrap();
        assert_eq!(read.kind, Kind::Call);
        assert_eq!(read.arguments().unwrap(), start.arguments);
    }

    #[test]
    fn signals_and_errors_are_read() {
        let signal = Message::read(&mut &REMOVED[..]).unwrap();
        assert_eq!(
            (signal.kind, signal.member.as_deref()),
            (Kind::Signal, Some("JobRemoved"))
        );
        assert_eq!(
            signal.arguments().unwrap(),
            [
                Value::Uint32(9),
                Value::ObjectPath("/org/freedesktop/systemd1/job/9".into()),
                Value::text("a.scope"),
                Value::text("done"),
            ]
        );
        let error = Message::read(&mut &EXISTS[..]).unwrap();
        assert_eq!((error.kind, error.reply_to), (Kind::Error, Some(7)));
        assert_eq!(
            error.error_name.as_deref(),
            Some("org.freedesktop.systemd1.UnitExists")
        );
    }

    #[test]
    fn broken_messages_are_refused_at_every_length_and_byte() {
        for whole in [HELLO, START, REMOVED, EXISTS] {
            for length in 0..whole.len() {
                assert!(Message::read(&mut &whole[..length]).is_err());
                assert!(Message::decode(&whole[..length]).is_err());
            }
            for at in 0..whole.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bytes = whole.to_owned();
                    bytes[at] = value;
                    // Whatever comes out, nothing panics and nothing huge is allocated.
                    let _ = Message::decode(&bytes).map(|message| message.arguments());
                }
            }
        }
        let huge = b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0";
        assert!(Message::read(&mut &huge[..]).is_err());
    }
}
