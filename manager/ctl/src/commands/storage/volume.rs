//! `-v`: what of this machine a container sees.

use std::path::{Component, Path, PathBuf};

use proto::v1::Bind;

use crate::failure::{Failure, Result};

/// Reads `SOURCE:TARGET[:OPTIONS]`; a source that begins with `.` is taken from the directory one is in.
pub(super) fn parse(argument: &str) -> Result<Bind> {
    let fail = |what: &str| Failure::new(format!("-v {argument}: {what}"));
    let parts: Vec<&str> = argument.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [_] => {
            return Err(fail(
                "a volume without a source is not supported yet; name a directory: SOURCE:TARGET",
            ));
        }
        _ => return Err(fail("has more than three parts")),
    };
    if !target.starts_with('/') {
        return Err(fail("the target is not an absolute path"));
    }
    if Path::new(target)
        .components()
        .all(|part| part == Component::RootDir)
    {
        return Err(fail("the target can't be the root of the container"));
    }
    let source = match source.as_bytes().first() {
        Some(b'/') => PathBuf::from(source),
        Some(b'.') => std::path::absolute(source).map_err(|error| fail(&error.to_string()))?,
        Some(_) => {
            return Err(fail(
                "named volumes are not supported yet; a directory begins with / or .",
            ));
        }
        None => return Err(fail("the source is empty")),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            _ => {
                return Err(fail(&format!(
                    "the option {option:?} is not supported; use ro or rw"
                )));
            }
        }
    }
    Ok(Bind {
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, target: &str, read_only: bool) -> Bind {
        Bind {
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        }
    }

    #[test]
    fn binds_have_a_source_a_target_and_options() {
        assert_eq!(parse("/a:/b").unwrap(), bind("/a", "/b", false));
        assert_eq!(parse("/a:/b:ro").unwrap(), bind("/a", "/b", true));
        assert_eq!(parse("/a:/b:rw").unwrap(), bind("/a", "/b", false));
        let here = std::env::current_dir().unwrap().join("c");
        assert_eq!(parse("./c:/b").unwrap().source, here.to_str().unwrap());
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (argument, word) in [
            ("data:/b", "named volumes"),
            ("/b", "without a source"),
            ("/a:b", "absolute"),
            ("/a:/", "root"),
            ("/a:/b:z", "\"z\""),
            ("/a:/b:ro:x", "three parts"),
            (":/b", "empty"),
        ] {
            assert!(parse(argument).unwrap_err().message.contains(word), "{argument}");
        }
    }
}
