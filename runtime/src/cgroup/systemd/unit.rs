//! `linux.cgroupsPath` for systemd, `slice:prefix:name`: the unit that is a container's group, and the slice it is in.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FIELD: &str = "linux.cgroupsPath";
/// systemd takes no longer names.
const NAME_BYTES_MAX: usize = 255;

/// A scope, as the container's state keeps it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Unit {
    pub(super) name: String,
    /// The user's own systemd has it, not that of the host.
    pub(super) user: bool,
}

#[derive(Debug, Eq, PartialEq)]
pub(super) struct Location {
    pub(super) name: String,
    pub(super) slice: String,
    /// The scope's group, below that of the systemd which has it.
    pub(super) path: PathBuf,
}

impl Location {
    /// Without a path, the container's id names the scope. Of the three parts, the first two may be empty.
    pub(super) fn from_spec(spec: &Spec, id: &str, user: bool) -> Result<Self> {
        let refuse = |rule: String| Err(Error::spec(FIELD, rule));
        let asked = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_deref())
            .filter(|path| !path.as_os_str().is_empty());
        let text = match asked.map(Path::to_str) {
            None => format!("::{id}"),
            Some(Some(text)) => text.to_owned(),
            Some(None) => return refuse("is not text".into()),
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts.as_slice() else {
            return refuse(format!(
                "must be of the form slice:prefix:name with --systemd-cgroup, and is {text:?}"
            ));
        };
        let slice = match (*slice, user) {
            ("", true) => "user.slice",
            ("", false) => "system.slice",
            (slice, _) => slice,
        };
        let unit = match *prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        if name.is_empty() {
            return refuse(format!("{text:?} has no name after the second colon"));
        }
        for word in [&unit, slice] {
            let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.\\@".contains(&byte);
            if word.len() > NAME_BYTES_MAX || !word.bytes().all(is_known) {
                return refuse(format!(
                    "{word:?} is no name of a systemd unit: at most {NAME_BYTES_MAX} letters, digits and - _ . \\ @"
                ));
            }
        }
        Ok(Self {
            path: expand(slice)?.join(&unit),
            slice: slice.to_owned(),
            name: unit,
        })
    }
}

/// Where a slice's group is: `a-b.slice` is in `a.slice`, and `-.slice` is the root. See `systemd.slice(5)`.
fn expand(slice: &str) -> Result<PathBuf> {
    let refuse = || Err(Error::spec(FIELD, format!("{slice:?} is no name of a slice")));
    let Some(stem) = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty()) else {
        return refuse();
    };
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    for (at, part) in stem.split('-').scan(0, |end, part| {
        *end += part.len() + 1;
        Some((*end - 1, part))
    }) {
        if part.is_empty() {
            return refuse();
        }
        path.push(format!("{}.slice", &stem[..at]));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(path: &str, user: bool) -> Result<Location> {
        let spec = serde_json::json!({"ociVersion": "1.2.0", "linux": {"cgroupsPath": path}});
        Location::from_spec(&serde_json::from_value(spec).unwrap(), "box", user)
    }

    fn group(path: &str) -> String {
        location(path, false).unwrap().path.display().to_string()
    }

    #[test]
    fn slices_are_expanded() {
        assert_eq!(group("a.slice:p:n"), "a.slice/p-n.scope");
        assert_eq!(
            group("a-b-c.slice:p:n"),
            "a.slice/a-b.slice/a-b-c.slice/p-n.scope"
        );
        assert_eq!(group("-.slice:p:n"), "p-n.scope");
        assert_eq!(group("system.slice::n"), "system.slice/n.scope");
        assert_eq!(group(":p:n"), "system.slice/p-n.scope");
        assert_eq!(group(""), "system.slice/box.scope");
        assert_eq!(location("", true).unwrap().slice, "user.slice");
    }

    #[test]
    fn what_names_no_slice_or_scope_is_refused_by_field() {
        let long = format!("a.slice:p:{}", "x".repeat(260));
        for path in [
            "/a/b",
            "a.slice:n",
            "a.slice:p:",
            "a.slice:p:n:m",
            "a:p:n",
            ".slice:p:n",
            "-a.slice:p:n",
            "a-.slice:p:n",
            "a--b.slice:p:n",
            "a/b.slice:p:n",
            "a.slice:p:x/y",
            "a.slice:p:a+b",
            "a.slice:..:ü",
            &long,
        ] {
            let error = location(path, false).unwrap_err().to_string();
            assert!(
                error.starts_with("config.json: linux.cgroupsPath: "),
                "{path}: {error}"
            );
        }
    }
}
