//! Variables and labels of a container, from `-e`, `--env-file`, `-l` and
//! `--label-file`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};

/// A file of variables is read whole.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Variables of files first, so that `-e` has the last word. A name without `=` takes its value from this
/// process; where it has none, neither has the container.
pub(crate) fn gather(files: &[impl AsRef<Path>], arguments: &[String]) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in files {
        variables.extend(read_file("--env-file", path.as_ref(), own)?);
    }
    for argument in arguments {
        variables.extend(parse(argument, own).map_err(|what| Failure::new(format!("-e: {what}")))?);
    }
    Ok(variables)
}

fn read_file(flag: &str, path: &Path, own: impl Fn(&str) -> Option<String> + Copy) -> Result<Vec<String>> {
    let fail = |what: String| Failure::new(format!("{flag} {}: {what}", path.display()));
    let size_bytes = std::fs::metadata(path)
        .map_err(|error| fail(error.to_string()))?
        .len();
    if size_bytes > FILE_BYTES_MAX {
        return Err(fail(format!(
            "has {size_bytes} bytes, more than {FILE_BYTES_MAX}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    parse_file(&text, own).map_err(fail)
}

/// Labels: `key=value`, or a key alone. Those of files first, so that `-l` has the last word.
pub(crate) fn labels(files: &[PathBuf], arguments: &[String]) -> Result<HashMap<String, String>> {
    let mut lines = Vec::new();
    for path in files {
        // A key alone has no value, whatever this process's environment has of that name.
        lines.extend(read_file("--label-file", path, |_| Some(String::new()))?);
    }
    let label = |argument: &String| {
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        if key.is_empty() {
            None
        } else {
            Some((key.to_owned(), value.to_owned()))
        }
    };
    lines
        .iter()
        .chain(arguments)
        .map(|argument| label(argument).ok_or_else(|| Failure::new(format!("-l {argument}: has no key"))))
        .collect()
}

fn own(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn parse_file(
    text: &str,
    own: impl Fn(&str) -> Option<String> + Copy,
) -> std::result::Result<Vec<String>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index, line.trim_start()));
    let meaningful = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let parsed = meaningful.map(|(index, line)| {
        parse(line, own)
            .map_err(|what| format!("line {}: {what}", index + 1))
            .map(Option::into_iter)
    });
    Ok(parsed
        .collect::<std::result::Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn parse(
    variable: &str,
    own: impl Fn(&str) -> Option<String>,
) -> std::result::Result<Option<String>, String> {
    let name = variable.split_once('=').map_or(variable, |(name, _)| name);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(format!(
            "{variable:?}: a variable's name is not empty and has no white space"
        ));
    }
    if variable.contains('=') {
        return Ok(Some(variable.to_owned()));
    }
    Ok(own(name).map(|value| format!("{name}={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn files_have_comments_and_names_that_take_the_callers_value() {
        let text = "\u{feff}# comment\n\nA=1 2\n  B=\r\nHOME\nNOT_SET\n";
        assert_eq!(parse_file(text, own).unwrap(), ["A=1 2", "B=", "HOME=/root"]);
    }

    #[test]
    fn a_broken_line_is_named() {
        assert!(
            parse_file("A=1\nB C=2\n", own)
                .unwrap_err()
                .starts_with("line 2: ")
        );
        assert!(parse("=x", own).is_err());
    }

    #[test]
    fn labels_may_lack_a_value_but_not_a_key() {
        let found = labels(&[], &["a=b=c".to_owned(), "d".to_owned()]).unwrap();
        assert_eq!((found["a"].as_str(), found["d"].as_str()), ("b=c", ""));
        assert!(labels(&[], &["=x".to_owned()]).is_err());
    }
}
