//! Docker's rules of what is copied where: what the ends of paths mean, and what is there already.

use std::path::Path;

use crate::failure::{Failure, Result};

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Argument {
    Container {
        name: String,
        path: String,
    },
    /// A path, or `-`.
    Local(String),
}

impl Argument {
    /// What has a colon is of a container, unless it begins as a path does.
    pub(super) fn parse(text: &str) -> Argument {
        match text.split_once(':') {
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => Argument::Container {
                name: name.to_owned(),
                path: if path.starts_with('/') {
                    path.to_owned()
                } else {
                    format!("/{path}")
                },
            },
            _ => Argument::Local(text.to_owned()),
        }
    }
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
    Link,
    Other,
}

impl Kind {
    /// By `st_mode`.
    pub(super) fn of_mode(mode: u32) -> Kind {
        match mode & 0o170_000 {
            0o040_000 => Kind::Folder,
            0o100_000 => Kind::File,
            0o120_000 => Kind::Link,
            _ => Kind::Other,
        }
    }
}

/// A path, and what is there; None: nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) kind: Option<Kind>,
}

impl Place {
    /// Where a copy is to go on this machine. What a link leads to is meant.
    pub(super) fn of_local(path: &str) -> Result<Place> {
        let kind = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Kind::Folder,
            Ok(found) if found.is_file() => Kind::File,
            Ok(_) => Kind::Other,
            Err(_) => {
                return Ok(Place {
                    path: path.to_owned(),
                    kind: None,
                });
            }
        };
        let real = match kind {
            Kind::Folder => path.to_owned(),
            _ => std::fs::canonicalize(path)
                .map_err(|error| Failure::new(format!("{path}: {error}")))?
                .to_string_lossy()
                .into_owned(),
        };
        Ok(Place {
            path: real,
            kind: Some(kind),
        })
    }

    /// What is to be copied of this machine. A link is meant itself, unless it is to be followed or a slash follows.
    pub(super) fn of_source(path: &str, follow: bool) -> Result<Place> {
        let found = if follow || path.ends_with('/') || path.ends_with("/.") {
            std::fs::metadata(path)
        } else {
            std::fs::symlink_metadata(path)
        };
        let found = found.map_err(|error| Failure::new(format!("{path}: {error}")))?;
        let real = if follow {
            std::fs::canonicalize(path).map_err(|error| Failure::new(format!("{path}: {error}")))?
        } else {
            path.into()
        };
        Ok(Place {
            path: real.to_string_lossy().into_owned(),
            kind: Some(match found.file_type() {
                kind if kind.is_dir() => Kind::Folder,
                kind if kind.is_file() => Kind::File,
                kind if kind.is_symlink() => Kind::Link,
                _ => Kind::Other,
            }),
        })
    }
}

/// In which folder the archive of a source is to be unpacked, and what the source is to be called in it; None: as ever.
pub(super) fn plan(source: Kind, to: &Place) -> std::result::Result<(String, Option<String>), &'static str> {
    let renamed = || Ok((folder(&to.path).to_owned(), Some(base(&to.path).to_owned())));
    match to.kind {
        Some(Kind::Folder) => Ok((to.path.clone(), None)),
        Some(Kind::Other) => Err("destination must be a directory or a regular file"),
        Some(_) if source == Kind::Folder => Err("cannot copy a directory onto a file"),
        // It says that it is a folder, and there is none.
        None if source != Kind::Folder && (to.path.ends_with('/') || to.path.ends_with("/.")) => {
            Err("no such directory")
        }
        Some(_) | None => renamed(),
    }
}

/// The last name of a path; `.` of what ends so, and of the root.
pub(super) fn base(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => ".",
        Some(name) => name,
    }
}

/// All but the last name of a path.
fn folder(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    }
}

/// Where the target of a link leads that is at `path`.
pub(super) fn in_folder(path: &str, target: &str) -> String {
    Path::new(folder(path))
        .join(target)
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container_unless_it_is_in_a_path() {
        let container = |name: &str, path: &str| Argument::Container {
            name: name.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(Argument::parse("c:/a:b"), container("c", "/a:b"));
        assert_eq!(Argument::parse("c:a"), container("c", "/a"));
        for local in ["-", "a", "/a:b", "./c:/a", ":a"] {
            assert_eq!(Argument::parse(local), Argument::Local(local.to_owned()));
        }
    }

    #[test]
    fn what_is_there_decides_where_a_copy_goes() {
        let place = |path: &str, kind| Place {
            path: path.to_owned(),
            kind,
        };
        let into = |folder: &str, name: Option<&str>| Ok((folder.to_owned(), name.map(str::to_owned)));
        for source in [Kind::File, Kind::Folder] {
            assert_eq!(
                plan(source, &place("/a/b", Some(Kind::Folder))),
                into("/a/b", None)
            );
            assert_eq!(plan(source, &place("/a/b", None)), into("/a", Some("b")));
        }
        assert_eq!(
            plan(Kind::File, &place("/b", Some(Kind::File))),
            into("/", Some("b"))
        );
        assert_eq!(plan(Kind::File, &place("b", None)), into(".", Some("b")));
        assert_eq!(plan(Kind::Folder, &place("/a/b/", None)), into("/a", Some("b")));
        assert!(plan(Kind::Folder, &place("/b", Some(Kind::File))).is_err());
        assert!(plan(Kind::File, &place("/b/", None)).is_err());
        assert!(plan(Kind::File, &place("/b", Some(Kind::Other))).is_err());
    }

    #[test]
    fn names_are_taken_from_the_ends_of_paths() {
        for (path, name) in [
            ("/a/b", "b"),
            ("/a/b/", "b"),
            ("/a/.", "."),
            ("/", "."),
            ("b", "b"),
        ] {
            assert_eq!(base(path), name, "{path}");
        }
        assert_eq!(in_folder("/a/link", "../b"), "/a/../b");
        assert_eq!(in_folder("/a/link", "/b"), "/b");
    }
}
