//! Container ids. An id becomes the name of a directory below the state root, so this rule is also what keeps it
//! from leaving that root.

use std::fmt;

use crate::error::{Error, Result};

/// The longest name a directory can have.
const BYTES_MAX: usize = 255;

/// A checked container id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id(String);

impl Id {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        let rule = if text.is_empty() {
            "must not be empty"
        } else if text.len() > BYTES_MAX {
            "must be at most 255 bytes long"
        } else if matches!(text, "." | "..") {
            "must not be a dot or two"
        } else if !text.chars().all(allowed) {
            "may contain only letters, digits and _ + - ."
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Error::Refused(format!(
            "invalid container ID format: {text:?} {rule}"
        )))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_leave_the_root_are_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ä", "a\0", &"x".repeat(256)] {
            assert!(Id::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "A-1_b.c+d", "...", &"x".repeat(255)] {
            assert!(Id::parse(good).is_ok(), "{good:?}");
        }
    }
}
