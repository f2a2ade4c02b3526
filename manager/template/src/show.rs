//! Values as Go prints them.

use std::fmt::Write as _;

use serde_json::Value;

/// Go's %v.
pub(crate) fn value(value: &Value, output: &mut String) {
    match value {
        Value::Null => output.push_str("<no value>"),
        Value::String(text) => output.push_str(text),
        // A string takes it.
        Value::Bool(_) | Value::Number(_) => drop(write!(output, "{value}")),
        Value::Array(items) => {
            output.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    output.push(' ');
                }
                self::value(item, output);
            }
            output.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            output.push_str("map[");
            for (at, (key, item)) in entries.into_iter().enumerate() {
                if at > 0 {
                    output.push(' ');
                }
                output.push_str(key);
                output.push(':');
                self::value(item, output);
            }
            output.push(']');
        }
    }
}

pub(crate) fn text(value: &Value) -> String {
    let mut text = String::new();
    self::value(value, &mut text);
    text
}

/// What is empty or zero is false.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
