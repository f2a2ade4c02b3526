//! The functions of templates: Go's own, and those that docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use crate::render::{failed, find};
use crate::{Error, printf, show};

pub(crate) const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
];
/// What `pad` may add.
const PAD_MAX: usize = 1000;

pub(crate) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(crate) fn call(name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let wrong = |what: &str| failed(format!("{name} {what}"));
    Ok(match (name, arguments) {
        // What decides it came earlier, or is the last.
        ("and" | "or", [.., last]) => last.clone(),
        ("not", [value]) => (!show::is_true(value)).into(),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest
            .iter()
            .any(|other| compare(first, other) == Some(Ordering::Equal))
            .into(),
        ("ne", [one, other]) => (compare(one, other) != Some(Ordering::Equal)).into(),
        ("lt" | "le" | "gt" | "ge", [one, other]) => {
            let ordering = compare(one, other).ok_or_else(|| wrong("compares numbers, or texts"))?;
            match name {
                "lt" => ordering.is_lt(),
                "le" => ordering.is_le(),
                "gt" => ordering.is_gt(),
                _ => ordering.is_ge(),
            }
            .into()
        }
        ("index", [value, keys @ ..]) => index(value, keys)?,
        ("join", [Value::Array(items), Value::String(between)]) => {
            let items: Vec<_> = items.iter().map(show::text).collect();
            items.join(between).into()
        }
        ("join", [Value::Null, _]) => "".into(),
        ("split", [Value::String(text), Value::String(between)]) => {
            text.split(between.as_str()).map(Value::from).collect()
        }
        ("json", [value]) => value.to_string().into(),
        ("len", [value]) => match value {
            Value::Null => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => return Err(wrong("counts in texts, lists and maps")),
        }
        .into(),
        ("lower", [value]) => show::text(value).to_lowercase().into(),
        ("upper", [value]) => show::text(value).to_uppercase().into(),
        ("title", [value]) => title(&show::text(value)).into(),
        ("print", _) => print(arguments).into(),
        ("println", _) => {
            let all: Vec<_> = arguments.iter().map(show::text).collect();
            (all.join(" ") + "\n").into()
        }
        ("printf", [Value::String(format), rest @ ..]) => {
            printf::printf(format, rest).map_err(failed)?.into()
        }
        ("truncate", [value, Value::Number(length)]) => {
            let length = length.as_u64().ok_or_else(|| wrong("takes a length"))?;
            show::text(value)
                .chars()
                .take(length as usize)
                .collect::<String>()
                .into()
        }
        ("pad", [value, Value::Number(before), Value::Number(after)]) => {
            let spaces = |number: &serde_json::Number| {
                let number = number.as_u64().filter(|number| *number <= PAD_MAX as u64);
                number.map(|number| " ".repeat(number as usize))
            };
            let (Some(before), Some(after)) = (spaces(before), spaces(after)) else {
                return Err(wrong("takes two numbers of spaces"));
            };
            (before + &show::text(value) + &after).into()
        }
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds)?,
        _ => return Err(wrong("is called with the wrong arguments")),
    })
}

/// None: they are of different kinds.
fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
        },
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (one, other) => (one == other).then_some(Ordering::Equal),
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, Error> {
    let mut here = value;
    for key in keys {
        here = match (here, key) {
            (Value::Object(map), Value::String(key)) => match find(map, key) {
                Some(found) => found,
                None => return Ok("".into()),
            },
            (Value::Array(items), Value::Number(at)) => {
                let found = at.as_u64().and_then(|at| items.get(usize::try_from(at).ok()?));
                found.ok_or_else(|| failed(format!("there is no item {at} among {}", items.len())))?
            }
            (Value::Null, _) => return Ok(Value::Null),
            (here, key) => return Err(failed(format!("{key} is nothing to find in {here}"))),
        };
    }
    Ok(here.clone())
}

/// Of a text, by bytes, as in Go.
fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        _ => return Err(failed("slice cuts texts and lists")),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Some(default),
        Some(bound) => bound.as_u64().and_then(|bound| usize::try_from(bound).ok()),
    };
    let range = bound(0, 0).zip(bound(1, length)).map(|(first, end)| first..end);
    let cut = range.and_then(|range| match value {
        Value::String(text) => text.get(range).map(Value::from),
        Value::Array(items) => items.get(range).map(Value::from),
        _ => None,
    });
    cut.ok_or_else(|| {
        failed(format!(
            "slice goes beyond a length of {length}, or through a character"
        ))
    })
}

fn title(text: &str) -> String {
    let mut starts = true;
    let upper = |c: char| -> String {
        let begins = starts;
        starts = c.is_whitespace();
        if begins {
            c.to_uppercase().collect()
        } else {
            c.to_string()
        }
    };
    text.chars().map(upper).collect()
}

/// Go's Sprint: a space between two of which neither is a text.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 && !value.is_string() && !arguments[at - 1].is_string() {
            text.push(' ');
        }
        show::value(value, &mut text);
    }
    text
}
