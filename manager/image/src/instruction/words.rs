//! Words, quotes and variables in a Dockerfile instruction: as a shell has them, without its commands.

use serde_json::{Map, Value};

/// Nobody writes a longer one; variables that hold variables could.
const EXPANDED_BYTES_MAX: usize = 1 << 20;

/// The environment that `$NAME` is looked up in: that of the image.
pub(super) struct Variables(Vec<(String, String)>);

impl Variables {
    pub(super) fn of(config: &Map<String, Value>) -> Variables {
        let list = config.get("Env").and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        let split = |text: &str| {
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        };
        Variables(texts.filter_map(split).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut entries = self.0.iter();
        entries
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// `key=value key="other value"`, or in the old form `key all the rest`.
pub(super) fn pairs(text: &str, variables: &Variables) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{text:?} has neither `=` nor a value"))?;
        return Ok(vec![(key.to_owned(), expand(value.trim(), variables)?)]);
    }
    split(text, variables)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(format!("{word:?} has no name before its `=`")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{word:?} is not of the form name=value")),
        })
        .collect()
}

/// All of the text as one word.
pub(super) fn expand(text: &str, variables: &Variables) -> Result<String, String> {
    let mut words = Reader::new(text, variables).words(false)?;
    Ok(words.pop().unwrap_or_default())
}

/// The words of the text, which blanks part.
pub(super) fn split(text: &str, variables: &Variables) -> Result<Vec<String>, String> {
    Reader::new(text, variables).words(true)
}

struct Reader<'a> {
    left: std::iter::Peekable<std::str::Chars<'a>>,
    variables: &'a Variables,
    word: String,
    /// Even an empty pair of quotes is a word.
    has_word: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, variables: &'a Variables) -> Reader<'a> {
        Reader {
            left: text.chars().peekable(),
            variables,
            word: String::new(),
            has_word: false,
        }
    }

    fn words(mut self, splits: bool) -> Result<Vec<String>, String> {
        let mut words = Vec::new();
        while let Some(next) = self.left.next() {
            match next {
                blank if splits && blank.is_whitespace() => {
                    if self.has_word {
                        words.push(std::mem::take(&mut self.word));
                        self.has_word = false;
                    }
                    continue;
                }
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                // At the very end, a backslash is one.
                '\\' => self.word.push(self.left.next().unwrap_or('\\')),
                '$' => self.variable()?,
                other => self.word.push(other),
            }
            self.has_word = true;
            if self.word.len() > EXPANDED_BYTES_MAX {
                return Err(format!(
                    "with its variables it is longer than {EXPANDED_BYTES_MAX} bytes"
                ));
            }
        }
        if self.has_word {
            words.push(self.word);
        }
        Ok(words)
    }

    fn single_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.left.next() {
                Some('\'') => return Ok(()),
                Some(other) => self.word.push(other),
                None => return Err("a single quote is not closed".into()),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        loop {
            match self.left.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable()?,
                Some('\\') => match self.left.next() {
                    Some(escaped @ ('"' | '$' | '\\')) => self.word.push(escaped),
                    Some(other) => self.word.extend(['\\', other]),
                    None => return Err("a double quote is not closed".into()),
                },
                Some(other) => self.word.push(other),
                None => return Err("a double quote is not closed".into()),
            }
        }
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:+instead}`.
    fn variable(&mut self) -> Result<(), String> {
        let in_braces = self.left.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(next) = self.left.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(next);
        }
        let value = self.variables.get(&name).unwrap_or_default();
        if !in_braces {
            self.word.push_str(if name.is_empty() { "$" } else { value });
            return Ok(());
        }
        if name.is_empty() {
            return Err("`${` has no variable's name after it".into());
        }
        let mut rest = String::new();
        loop {
            match self.left.next() {
                Some('}') => break,
                Some(other) => rest.push(other),
                None => return Err(format!("`${{{name}` is not closed")),
            }
        }
        let chosen = match rest.get(..2) {
            None if rest.is_empty() => value,
            Some(":-") if value.is_empty() => &rest[2..],
            Some(":-") => value,
            Some(":+") if value.is_empty() => "",
            Some(":+") => &rest[2..],
            _ => {
                return Err(format!(
                    "`${{{name}{rest}}}` is none of ${{a}}, ${{a:-b}} and ${{a:+b}}"
                ));
            }
        };
        self.word.push_str(chosen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables(vec![("A".into(), "1 2".into()), ("EMPTY".into(), String::new())])
    }

    #[test]
    fn words_are_a_shells() {
        for (text, words) in [
            ("a  b\tc", &["a", "b", "c"][..]),
            (r#"a\ b "c d" 'e f'"#, &["a b", "c d", "e f"]),
            (r#"x"$A"y '$A' \$A $"#, &["x1 2y", "$A", "$A", "$"]),
            ("$A", &["1 2"]),
            (r#""" b"#, &["", "b"]),
            (r#""\"\\\n""#, &["\"\\\\n"]),
            ("${EMPTY:-d} ${A:+s} ${EMPTY:+s}x", &["d", "s", "x"]),
        ] {
            assert_eq!(split(text, &variables()).unwrap(), words, "{text}");
        }
        for text in ["'a", "\"a", "\"\\", "${A", "${}", "${A!b}"] {
            assert!(split(text, &variables()).is_err(), "{text}");
        }
    }
}
