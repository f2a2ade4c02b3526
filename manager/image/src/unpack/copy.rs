//! Putting a folder of an overlay into a folder of its own, by the hands that unpack layers. Its entries come from the
//! walk through the overlay, so that names mean nothing but themselves here.

use std::io::{self, Read};
use std::path::Path;

use super::sink::Sink;
use super::tree::Tree;
use super::{Failure, Problem};
use crate::archive::{Entry, Kind};

/// For the times of folders: their paths are kept in memory to the end.
const REMEMBERED_BYTES_MAX: usize = 64 << 20;

pub(crate) struct Copy {
    tree: Tree,
    /// What is copied, as a path in the overlay; it becomes the root here.
    from: Vec<u8>,
}

impl Copy {
    /// Begin to copy the folder `from` into the empty folder `to`.
    pub(crate) fn begin(to: &Path, from: &[u8]) -> io::Result<Copy> {
        Ok(Copy {
            tree: Tree::open(to, REMEMBERED_BYTES_MAX)?,
            from: from.to_vec(),
        })
    }

    /// Add an entry with its data.
    pub(crate) fn put(&mut self, entry: &Entry, mut data: impl Read) -> io::Result<()> {
        let path = below(&self.from, &entry.path)?;
        let put = match entry.kind {
            Kind::Directory => self.tree.directory(&path, entry),
            Kind::File => self.tree.file(&path, entry, |buffer| data.read(buffer)),
            Kind::Symlink => self.tree.symlink(&path, entry),
            Kind::HardLink => {
                let target = below(&self.from, &entry.link)?;
                self.tree.hard_link(&path, &target)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.tree.node(&path, entry),
        };
        put.map_err(|problem| match problem {
            Problem::Rule(rule) => io::Error::other(rule),
            Problem::System(action, error) => {
                io::Error::new(error.kind(), format!("{action} its copy: {error}"))
            }
            Problem::Read(error) => error,
        })
    }

    /// Do what had to wait for the last entry.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.tree.finish().map(drop).map_err(|failure| match failure {
            Failure::Rule { rule, .. } => io::Error::other(rule),
            Failure::System { action, source, .. } => {
                io::Error::new(source.kind(), format!("{action} a copy: {source}"))
            }
            Failure::Read(error) => error,
        })
    }
}

/// The names of `path` below the folder `from`.
fn below<'a>(from: &[u8], path: &'a [u8]) -> io::Result<Vec<&'a [u8]>> {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let rest = path
        .strip_prefix(from)
        .filter(|rest| from.is_empty() || rest.is_empty() || rest.starts_with(b"/"));
    let rest = rest.ok_or_else(|| io::Error::other("it lies outside of the folder that is copied"))?;
    Ok(rest
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_below_what_is_copied() {
        assert_eq!(below(b"var/lib", b"var/lib/a/b").unwrap(), [b"a", b"b"]);
        assert!(below(b"var/lib", b"var/lib/").unwrap().is_empty());
        assert!(below(b"", b"./").unwrap().is_empty());
        assert_eq!(below(b"", b"etc").unwrap(), [b"etc"]);
        for outside in [&b"var/library"[..], b"var", b"etc/var/lib"] {
            assert!(below(b"var/lib", outside).is_err());
        }
    }
}
