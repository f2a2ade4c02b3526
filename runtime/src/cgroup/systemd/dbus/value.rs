//! Values of D-Bus, and the form in which they lie in a message: little-endian, aligned to their size.
//!
//! Reading trusts nothing: lengths, depths and texts are checked, and what a message claims is never allocated before
//! it is there.

/// Deepest nesting that is read. What systemd answers here nests two levels.
const DEPTH_MAX: u32 = 8;

/// Bytes that are no D-Bus message, or one that uses what we never asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the message breaks the D-Bus format: {0}")]
pub(in super::super) struct Malformed(pub(super) &'static str);

#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    ObjectPath(String),
    Signature(String),
    /// The signature of one element, and the elements, which all have it.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(in super::super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The text of what has one.
    pub(in super::super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::ObjectPath(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }

    pub(in super::super) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::Int16(_) => "n".into(),
            Self::Uint16(_) => "q".into(),
            Self::Int32(_) => "i".into(),
            Self::Uint32(_) => "u".into(),
            Self::Int64(_) => "x".into(),
            Self::Uint64(_) => "t".into(),
            Self::Double(_) => "d".into(),
            Self::Text(_) => "s".into(),
            Self::ObjectPath(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => {
                let fields: String = fields.iter().map(Self::signature).collect();
                format!("({fields})")
            }
            Self::Variant(_) => "v".into(),
        }
    }

    /// Appends the value. Alignment counts from the start of `to`, which is that of a body or a whole message.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Byte(value) => to.push(*value),
            Self::Bool(value) => put(to, 4, &u32::from(*value).to_le_bytes()),
            Self::Int16(value) => put(to, 2, &value.to_le_bytes()),
            Self::Uint16(value) => put(to, 2, &value.to_le_bytes()),
            Self::Int32(value) => put(to, 4, &value.to_le_bytes()),
            Self::Uint32(value) => put(to, 4, &value.to_le_bytes()),
            Self::Int64(value) => put(to, 8, &value.to_le_bytes()),
            Self::Uint64(value) => put(to, 8, &value.to_le_bytes()),
            Self::Double(value) => put(to, 8, &value.to_le_bytes()),
            Self::Text(text) | Self::ObjectPath(text) => {
                put(to, 4, &(text.len() as u32).to_le_bytes());
                to.extend_from_slice(text.as_bytes());
                to.push(0);
            }
            Self::Signature(text) => {
                to.push(text.len() as u8);
                to.extend_from_slice(text.as_bytes());
                to.push(0);
            }
            Self::Array(element, values) => {
                align(to, 4);
                let length_at = to.len();
                to.extend_from_slice(&[0; 4]);
                // The gap before the first element belongs to no length, and is there even without elements.
                align(to, alignment(element));
                let start = to.len();
                for value in values {
                    value.write(to);
                }
                let length = (to.len() - start) as u32;
                to[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Self::Struct(fields) => {
                align(to, 8);
                for field in fields {
                    field.write(to);
                }
            }
            Self::Variant(value) => {
                Self::Signature(value.signature()).write(to);
                value.write(to);
            }
        }
    }
}

fn put(to: &mut Vec<u8>, alignment: usize, bytes: &[u8]) {
    align(to, alignment);
    to.extend_from_slice(bytes);
}

pub(super) fn align(to: &mut Vec<u8>, alignment: usize) {
    to.resize(to.len().next_multiple_of(alignment), 0);
}

/// Of a value with this signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Reads values from bytes whose first is aligned to 8.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Leaves out bytes that were read by other means.
    pub(super) fn skip(&mut self, length: usize) -> Result<(), Malformed> {
        self.take(length).map(drop)
    }

    /// Goes on at the next multiple; what is skipped must be zero.
    fn align(&mut self, alignment: usize) -> Result<(), Malformed> {
        let gap = self.at.next_multiple_of(alignment) - self.at;
        if self.take(gap)?.iter().any(|byte| *byte != 0) {
            return Err(Malformed("padding is not zero"));
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(Malformed("it ends too early"))?;
        self.at += length;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Malformed("it ends too early"))
    }

    pub(super) fn uint32(&mut self) -> Result<u32, Malformed> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let bytes = self.take(length)?;
        if self.take(1)? != [0] || bytes.contains(&0) {
            return Err(Malformed("a text does not end where it should"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// All values of a signature, one after the other.
    pub(super) fn all(&mut self, signature: &str) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        let mut left = signature;
        while !left.is_empty() {
            let (one, rest) = split(left)?;
            values.push(self.value(one, DEPTH_MAX)?);
            left = rest;
        }
        Ok(values)
    }

    /// One value of a complete type. Dictionaries are never part of what we ask for.
    fn value(&mut self, signature: &str, depth: u32) -> Result<Value, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed("it is nested too deep"))?;
        let value = match signature.as_bytes() {
            b"y" => Value::Byte(self.take(1)?[0]),
            b"b" => match self.uint32()? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(Malformed("a boolean is neither 0 nor 1")),
            },
            b"n" => Value::Int16(i16::from_le_bytes(self.number()?)),
            b"q" => Value::Uint16(u16::from_le_bytes(self.number()?)),
            b"i" => Value::Int32(i32::from_le_bytes(self.number()?)),
            b"u" => Value::Uint32(self.uint32()?),
            b"x" => Value::Int64(i64::from_le_bytes(self.number()?)),
            b"t" => Value::Uint64(u64::from_le_bytes(self.number()?)),
            b"d" => Value::Double(f64::from_le_bytes(self.number()?)),
            b"s" => Value::Text(self.long_text()?),
            b"o" => Value::ObjectPath(self.long_text()?),
            b"g" => Value::Signature(self.signature()?),
            b"v" => {
                let signature = self.signature()?;
                let (one, rest) = split(&signature)?;
                if !rest.is_empty() {
                    return Err(Malformed("a variant holds more than one value"));
                }
                Value::Variant(Box::new(self.value(one, depth)?))
            }
            [b'a', element @ ..] => {
                let element =
                    std::str::from_utf8(element).map_err(|_| Malformed("a signature is not ASCII"))?;
                return self.array(element, depth);
            }
            [b'(', .., b')'] => {
                self.align(8)?;
                let mut left = &signature[1..signature.len() - 1];
                let mut fields = Vec::new();
                while !left.is_empty() {
                    let (one, rest) = split(left)?;
                    fields.push(self.value(one, depth)?);
                    left = rest;
                }
                Value::Struct(fields)
            }
            _ => return Err(Malformed("a type that nobody asked for")),
        };
        Ok(value)
    }

    fn array(&mut self, element: &str, depth: u32) -> Result<Value, Malformed> {
        let length = self.uint32()? as usize;
        self.align(alignment(element))?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Malformed("an array is longer than the message"))?;
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(element, depth)?);
            if self.at == before {
                return Err(Malformed("an array of nothing"));
            }
        }
        if self.at != end {
            return Err(Malformed("an array does not end with an element"));
        }
        Ok(Value::Array(element.to_owned(), values))
    }

    fn long_text(&mut self) -> Result<String, Malformed> {
        let length = self.uint32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = self.take(1)?[0].into();
        self.text(length)
    }
}

/// The first complete type of a signature, and what follows.
fn split(signature: &str) -> Result<(&str, &str), Malformed> {
    let mut depth = 0_u32;
    for (at, byte) in signature.bytes().enumerate() {
        match byte {
            b'a' => continue,
            b'(' => depth += 1,
            b')' if depth == 0 => return Err(Malformed("a signature is unbalanced")),
            b')' => depth -= 1,
            // Also keeps every cut below between characters.
            _ if !byte.is_ascii_lowercase() => return Err(Malformed("a type that nobody asked for")),
            _ => {}
        }
        if depth == 0 {
            return Ok(signature.split_at(at + 1));
        }
    }
    Err(Malformed("a signature is unbalanced"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        bytes
    }

    #[test]
    fn values_lie_as_the_specification_says() {
        assert_eq!(written(&Value::text("foo")), b"\x03\0\0\0foo\0");
        assert_eq!(written(&Value::Bool(true)), [1, 0, 0, 0]);
        let signature = Value::Signature("a(sv)".into());
        assert_eq!(written(&signature), b"\x05a(sv)\0");
        // The example of the specification: an array of one 64-bit integer has a gap that its length leaves out.
        let array = Value::Array("x".into(), vec![Value::Int64(5)]);
        assert_eq!(written(&array), [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(&Value::Array("t".into(), Vec::new())), [0; 8]);
        let property = Value::Struct(vec![
            Value::text("PIDs"),
            Value::Variant(Box::new(Value::Array("u".into(), vec![Value::Uint32(7)]))),
        ]);
        assert_eq!(property.signature(), "(sv)");
        assert_eq!(
            written(&property),
            b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x07\0\0\0"
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let all = [
            Value::Byte(1),
            Value::Int16(-2),
            Value::Uint16(3),
            Value::Bool(false),
            Value::Int32(-4),
            Value::Uint32(5),
            Value::Int64(-6),
            Value::Uint64(7),
            Value::Double(0.5),
            Value::text("ä"),
            Value::ObjectPath("/a".into()),
            Value::Signature("as".into()),
            Value::Array(
                "(sv)".into(),
                vec![Value::Struct(vec![
                    Value::text("x"),
                    Value::Variant(Box::new(Value::Array("y".into(), vec![Value::Byte(9)]))),
                ])],
            ),
        ];
        let mut bytes = Vec::new();
        for value in &all {
            value.write(&mut bytes);
        }
        let signature: String = all.iter().map(Value::signature).collect();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.all(&signature).unwrap(), all);
        assert!(reader.is_at_end());
        for length in 0..bytes.len() {
            assert!(Reader::new(&bytes[..length]).all(&signature).is_err(), "{length}");
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        for (signature, bytes) in [
            ("s", &b"\xff\xff\xff\xffx\0"[..]),
            ("s", b"\x01\0\0\0xy"),
            ("s", b"\x01\0\0\0\0\0"),
            ("s", b"\x01\0\0\0\xff\0"),
            ("b", b"\x02\0\0\0"),
            ("as", b"\xff\xff\xff\xff"),
            ("au", b"\x03\0\0\0\x01\0\0\0"),
            ("a()", b"\x01\0\0\0\0\0\0\0\0"),
            ("yu", b"\x01\x01\0\0\x01\0\0\0"),
            ("v", b"\x02uu\0\0\0\0\0\0\0\0\0"),
            ("v", b"\x01{\0"),
            ("v", b"\x00\0"),
            ("a{sv}", b"\0\0\0\0"),
            (")", b""),
            ("(", b""),
            ("a", b"\0\0\0\0"),
        ] {
            assert!(
                Reader::new(bytes).all(signature).is_err(),
                "{signature} {bytes:?}"
            );
        }
        // Variants in variants, without end.
        let nest: Vec<u8> = b"\x01v\0".repeat(100);
        assert_eq!(
            Reader::new(&nest).all("v"),
            Err(Malformed("it is nested too deep"))
        );
        assert!(Reader::new(&[0; 64]).all(&"a".repeat(20)).is_err());
    }
}
