//! Where in a JSON text an error lies: serde tells line and column, people need `linux.namespaces[2].type`.

use std::fmt::Write;

/// The path of the value at `line` and `column` (both from 1, as `serde_json::Error` counts). Empty at the top.
pub(crate) fn path_at(text: &[u8], line: usize, column: usize) -> String {
    let before_line: usize = text
        .split_inclusive(|b| *b == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let end = (before_line + column).min(text.len());
    let mut stack: Vec<Step> = Vec::new();
    let mut left: Option<Vec<Step>> = None;
    let mut at = 0;
    while at < end {
        left = None;
        match text[at] {
            b'{' => stack.push(Step::Key(String::new(), true)),
            b'[' => stack.push(Step::Index(0)),
            b'}' | b']' => {
                // An error at a closing bracket is about the value that it closes.
                left = Some(stack.clone());
                stack.pop();
            }
            b',' => match stack.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                Some(Step::Key(_, wants_key)) => *wants_key = true,
                None => {}
            },
            b'"' => {
                let start = at + 1;
                at = start;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if let Some(Step::Key(key, wants_key @ true)) = stack.last_mut() {
                    *key = String::from_utf8_lossy(&text[start..at.min(text.len())]).into_owned();
                    *wants_key = false;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if let Some(mut closed) = left {
        closed.pop();
        stack = closed;
    }
    let mut path = String::new();
    for step in stack {
        match step {
            Step::Index(index) => {
                let _ = write!(path, "[{index}]");
            }
            Step::Key(key, _) if key.is_empty() => {}
            Step::Key(key, _) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
            }
        }
    }
    path
}

#[derive(Clone)]
enum Step {
    /// In an object: the key in work, and whether the next string is a key.
    Key(String, bool),
    /// In an array.
    Index(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;

    fn path_of(text: &str) -> String {
        let error = serde_json::from_str::<Spec>(text).unwrap_err();
        path_at(text.as_bytes(), error.line(), error.column())
    }

    #[test]
    fn the_value_that_breaks_a_rule_is_found() {
        let text = r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid"},{"type":"bogus"}]}}"#;
        assert_eq!(path_of(text), "linux.namespaces[1].type");
        let text =
            "{\n\"ociVersion\": \"1.0.2\",\n\"process\": {\"user\": {\"uid\": \"x\"},\n\"cwd\": \"/\"}}";
        assert_eq!(path_of(text), "process.user.uid");
        let text =
            r#"{"ociVersion":"1","process":{"user":{},"cwd":"/","capabilities":{"bounding":["CAP_X"]}}}"#;
        assert!(path_of(text).starts_with("process.capabilities.bounding"));
    }

    #[test]
    fn a_missing_field_is_of_the_object_that_ends_there() {
        let text = r#"{"ociVersion":"1","mounts":[{"type":"proc"}]}"#;
        assert_eq!(path_of(text), "mounts[0]");
    }

    #[test]
    fn broken_text_does_not_break_us() {
        for text in ["", "{", "[[[[", "{\"a\\", "\"\\"] {
            path_at(text.as_bytes(), 1, 100);
        }
    }
}
