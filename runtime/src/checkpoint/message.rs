//! Protocol buffers, as far as CRIU's few messages go: numbers, texts and messages in messages.

/// A message under construction. Field numbers are those of CRIU's `images/rpc.proto`.
#[derive(Debug, Default, Clone)]
pub(super) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    /// Left out when it is off, as all of CRIU's switches are by default.
    pub(super) fn switch(self, field: u64, on: bool) -> Self {
        if on { self.number(field, 1) } else { self }
    }

    pub(super) fn text(mut self, field: u64, value: &str) -> Self {
        self.varint(field << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(super) fn message(mut self, field: u64, value: &Self) -> Self {
        self.varint(field << 3 | BYTES);
        self.varint(value.0.len() as u64);
        self.0.extend_from_slice(&value.0);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A received message, read field by field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn number(self, field: u64) -> Option<u64> {
        match self.find(field)? {
            Value::Number(number) => Some(number),
            Value::Bytes(_) => None,
        }
    }

    pub(super) fn text(self, field: u64) -> Option<&'a str> {
        match self.find(field)? {
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Value::Number(_) => None,
        }
    }

    pub(super) fn message(self, field: u64) -> Option<Self> {
        match self.find(field)? {
            Value::Bytes(bytes) => Some(Self(bytes)),
            Value::Number(_) => None,
        }
    }

    fn find(mut self, wanted: u64) -> Option<Value<'a>> {
        while let Some((field, value)) = self.next() {
            if field == wanted {
                return Some(value);
            }
        }
        None
    }

    fn next(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            VARINT => Value::Number(self.varint()?),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            FIXED64 => Value::Bytes(self.take(8)?),
            FIXED32 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().number(1, 300).text(2, "ä");
        let outer = Message::default()
            .number(1, u64::MAX)
            .switch(3, false)
            .message(17, &inner);
        let fields = Fields::new(outer.bytes());
        assert_eq!(fields.number(1), Some(u64::MAX));
        assert_eq!(fields.number(3), None);
        let inner = fields.message(17).unwrap();
        assert_eq!((inner.number(1), inner.text(2)), (Some(300), Some("ä")));
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(Message::default().number(1, 150).bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().text(2, "hi").bytes(), [0x12, 2, b'h', b'i']);
    }

    #[test]
    fn what_is_cut_off_or_strange_is_nothing() {
        for bytes in [&[0x08][..], &[0x12, 9, 1], &[0x0b], &[0xff; 12]] {
            assert_eq!(Fields::new(bytes).number(1), None);
            assert_eq!(Fields::new(bytes).text(2), None);
        }
    }
}
