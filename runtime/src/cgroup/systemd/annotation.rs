//! `org.systemd.property.NAME` annotations: properties of the container's unit, with the value in the text format of
//! `GVariant` (<https://docs.gtk.org/glib/gvariant-text-format.html>): booleans, numbers with or without a type before
//! them, texts, and arrays of those. What runc understands beyond that no property of a scope needs.

use std::collections::HashMap;

use super::dbus::Value;
use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";
/// These say what a container's unit is, and are not for the configuration to choose.
const OURS: [&str; 3] = ["PIDs", "Slice", "Delegate"];

/// In the order of their names.
pub(super) fn properties(annotations: Option<&HashMap<String, String>>) -> Result<Vec<(String, Value)>> {
    let mut wanted: Vec<_> = annotations
        .into_iter()
        .flatten()
        .filter_map(|(key, text)| Some((key, key.strip_prefix(PREFIX)?, text)))
        .collect();
    wanted.sort();
    let read = |(key, name, text): (&String, &str, &String)| {
        property(name, text).map_err(|rule| Error::spec(format!("annotations[{key:?}]"), rule))
    };
    wanted.into_iter().map(read).collect()
}

fn property(name: &str, text: &str) -> std::result::Result<(String, Value), String> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(format!("{name:?} is no name of a property"));
    }
    if OURS.contains(&name) {
        return Err(format!("{name} is set by the runtime"));
    }
    let value = Parser { left: text.trim() }.whole()?;
    // As in unit files, where systemd itself converts: seconds on the outside, microseconds on the bus.
    let seconds = name
        .strip_suffix("Sec")
        .filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase()));
    match seconds {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value)?)),
        None => Ok((name.to_owned(), value)),
    }
}

fn microseconds(seconds: &Value) -> std::result::Result<Value, String> {
    let whole = match *seconds {
        Value::Byte(number) => Some(number.into()),
        Value::Uint16(number) => Some(number.into()),
        Value::Uint32(number) => Some(number.into()),
        Value::Uint64(number) => Some(number),
        Value::Int16(number) => number.try_into().ok(),
        Value::Int32(number) => number.try_into().ok(),
        Value::Int64(number) => number.try_into().ok(),
        Value::Double(number) if (0.0..1e12).contains(&number) => {
            return Ok(Value::Uint64((number * 1e6) as u64));
        }
        _ => None,
    };
    let micros = whole.and_then(|number: u64| number.checked_mul(1_000_000));
    micros
        .map(Value::Uint64)
        .ok_or_else(|| "is no number of seconds".to_owned())
}

/// Words for types, and their signatures.
const TYPES: [(&str, &str); 11] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
];

struct Parser<'a> {
    left: &'a str,
}

impl Parser<'_> {
    fn whole(mut self) -> std::result::Result<Value, String> {
        let value = self.value()?;
        match self.left.trim() {
            "" => Ok(value),
            rest => Err(format!("{rest:?} follows the value")),
        }
    }

    fn skip(&mut self, text: &str) -> bool {
        self.left = self.left.trim_start();
        match self.left.strip_prefix(text) {
            Some(rest) => {
                self.left = rest;
                true
            }
            None => false,
        }
    }

    /// A value, with its type before it or not.
    fn value(&mut self) -> std::result::Result<Value, String> {
        if self.skip("@") {
            let signature = self.word();
            let element = signature.strip_prefix('a');
            return match element {
                Some(element) if element.len() == 1 && self.skip("[") => self.array(Some(element)),
                None if signature.len() == 1 => self.single(Some(&signature)),
                _ => Err(format!("the type {signature:?} is not known here")),
            };
        }
        if self.skip("[") {
            return self.array(None);
        }
        for (word, signature) in TYPES {
            let rest = self.left.strip_prefix(word);
            if rest.is_some_and(|rest| rest.starts_with(char::is_whitespace)) {
                self.skip(word);
                return self.single(Some(signature));
            }
        }
        self.single(None)
    }

    fn array(&mut self, element: Option<&str>) -> std::result::Result<Value, String> {
        let mut values: Vec<Value> = Vec::new();
        while !self.skip("]") {
            if !values.is_empty() && !self.skip(",") {
                return Err("an array does not end".to_owned());
            }
            let value = match (element, values.first()) {
                (Some(element), _) => self.single(Some(element))?,
                // A type before the first holds for all.
                (None, Some(first)) => self.single(Some(&first.signature()))?,
                (None, None) => self.value()?,
            };
            values.push(value);
        }
        let element = element
            .map(str::to_owned)
            .or_else(|| values.first().map(Value::signature));
        match element {
            Some(element) if element.len() == 1 => Ok(Value::Array(element, values)),
            Some(_) => Err("arrays of arrays are not known here".to_owned()),
            None => Err("an empty array needs its type, such as @as []".to_owned()),
        }
    }

    /// Letters, digits and what numbers are made of.
    fn word(&mut self) -> String {
        self.left = self.left.trim_start();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.left.find(|c| !is_part(c)).unwrap_or(self.left.len());
        let (word, rest) = self.left.split_at(end);
        self.left = rest;
        word.to_owned()
    }

    fn single(&mut self, signature: Option<&str>) -> std::result::Result<Value, String> {
        self.left = self.left.trim_start();
        if let Some(quote @ ('\'' | '"')) = self.left.chars().next() {
            let text = self.quoted(quote)?;
            return match signature {
                None | Some("s") => Ok(Value::Text(text)),
                Some("o") => Ok(Value::ObjectPath(text)),
                Some(other) => Err(format!("{text:?} is not of type {other}")),
            };
        }
        let word = self.word();
        if word.is_empty() {
            return Err(format!("no value begins at {:?}", self.left));
        }
        number(&word, signature).ok_or_else(|| match signature {
            Some(signature) => format!("{word:?} is not of type {signature}"),
            None => format!("{word:?} is neither a number, true, false, nor a text in quotes"),
        })
    }

    fn quoted(&mut self, quote: char) -> std::result::Result<String, String> {
        let mut text = String::new();
        let mut chars = self.left.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.left = &self.left[at + 1..];
                    return Ok(text);
                }
                '\0' => break,
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(c @ ('\\' | '\'' | '"')) => text.push(c),
                    _ => return Err("an escape that is not known here".to_owned()),
                },
                c => text.push(c),
            }
        }
        Err("a text does not end".to_owned())
    }
}

/// A boolean or number; without a type, whole ones are int32, as in `GVariant`.
fn number(word: &str, signature: Option<&str>) -> Option<Value> {
    let hexadecimal = |word: &str| {
        let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
        i128::from_str_radix(digits, 16).ok()
    };
    let whole = || hexadecimal(word).or_else(|| word.parse::<i128>().ok());
    Some(match signature {
        None => match (word, whole()) {
            ("true" | "false", _) => Value::Bool(word == "true"),
            (_, Some(whole)) => Value::Int32(whole.try_into().ok()?),
            _ => Value::Double(decimal(word)?),
        },
        Some("b") => Value::Bool(word.parse().ok()?),
        Some("y") => Value::Byte(whole()?.try_into().ok()?),
        Some("n") => Value::Int16(whole()?.try_into().ok()?),
        Some("q") => Value::Uint16(whole()?.try_into().ok()?),
        Some("i") => Value::Int32(whole()?.try_into().ok()?),
        Some("u") => Value::Uint32(whole()?.try_into().ok()?),
        Some("x") => Value::Int64(whole()?.try_into().ok()?),
        Some("t") => Value::Uint64(whole()?.try_into().ok()?),
        Some("d") => Value::Double(decimal(word)?),
        Some(_) => return None,
    })
}

fn decimal(word: &str) -> Option<f64> {
    // Not the names of infinity, which Rust would take.
    let begins = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    word.parse()
        .ok()
        .filter(|number: &f64| begins && number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> std::result::Result<(String, Value), String> {
        property(name, text)
    }

    fn value(text: &str) -> Value {
        read("Some", text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .1
    }

    #[test]
    fn values_of_each_type_are_read() {
        for (text, expected) in [
            ("true", Value::Bool(true)),
            ("5", Value::Int32(5)),
            ("0x10", Value::Int32(16)),
            ("int16 -5", Value::Int16(-5)),
            ("uint64 123456789", Value::Uint64(123_456_789)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("@t 7", Value::Uint64(7)),
            ("byte 0xff", Value::Byte(255)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#" "it's \\ \"x\"" "#, Value::text("it's \\ \"x\"")),
            ("objectpath '/a'", Value::ObjectPath("/a".into())),
            (
                "['a.service', 'b.service']",
                Value::Array(
                    "s".into(),
                    vec![Value::text("a.service"), Value::text("b.service")],
                ),
            ),
            ("@as []", Value::Array("s".into(), Vec::new())),
            (
                "[byte 1, 2]",
                Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]),
            ),
            (
                "[uint32 1,2]",
                Value::Array("u".into(), vec![Value::Uint32(1), Value::Uint32(2)]),
            ),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        let read = |name, text| read(name, text).unwrap();
        assert_eq!(
            read("TimeoutStopSec", "uint64 3"),
            ("TimeoutStopUSec".into(), Value::Uint64(3_000_000))
        );
        assert_eq!(read("TimeoutStopSec", "1.5").1, Value::Uint64(1_500_000));
        assert_eq!(read("CPUQuotaPerSec", "3").0, "CPUQuotaPerUSec");
        assert_eq!(read("TimeoutStopUSec", "uint64 3").0, "TimeoutStopUSec");
    }

    #[test]
    fn what_is_no_value_or_not_allowed_is_refused() {
        for (name, text) in [
            ("Some", ""),
            ("Some", "word"),
            ("Some", "'open"),
            ("Some", "1 2"),
            ("Some", "[]"),
            ("Some", "[1"),
            ("Some", "[[1]]"),
            ("Some", "[1,'a']"),
            ("Some", "byte 256"),
            ("Some", "uint32 -1"),
            ("Some", "inf"),
            ("Some", "@a{sv} {}"),
            ("Some", "@q70000"),
            ("Some", r"'\x'"),
            ("TimeoutSec", "'5'"),
            ("TimeoutSec", "-1"),
            ("PIDs", "[uint32 1]"),
            ("Slice", "'x.slice'"),
            ("a.b", "1"),
            ("ab", "1"),
            ("Späte", "1"),
        ] {
            assert!(read(name, text).is_err(), "{name} {text}");
        }
    }

    #[test]
    fn the_annotation_is_named() {
        let annotations = [("org.systemd.property.X".to_owned(), "1".to_owned())].into();
        let error = properties(Some(&annotations)).unwrap_err().to_string();
        assert!(
            error.starts_with("config.json: annotations[\"org.systemd.property.X\"]: "),
            "{error}"
        );
        let other = [("org.systemd".to_owned(), "1".to_owned())].into();
        assert_eq!(properties(Some(&other)).unwrap(), Vec::new());
    }
}
