//! A container's tree as its processes see it, mounts and all, for copies out of it and into it.
//!
//! Whoever is in the container changes it meanwhile, and may do so with malice: a folder becomes a link, a file a device.
//! The root is an open descriptor, and every path is resolved beneath it (`RESOLVE_IN_ROOT`), so that no link leads out;
//! what is below is reached from the folder that was found, by single names and without following links.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::archive::Entry;
use crate::extract::{self, Owner};
use crate::overlay::{self, Data, Layers};
use crate::pack::Packer;
use crate::{Error, Owners};

/// The root of a container that is seen as its processes see it.
pub struct LiveTree {
    root: OwnedFd,
    /// For errors.
    container: String,
    /// Of its user namespace, if it has one of its own.
    owners: Option<Owners>,
}

/// What is at a path. A link as the last name is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last name of the path.
    pub name: Vec<u8>,
    /// Of a file.
    pub size_bytes: u64,
    /// `st_mode`.
    pub mode: u32,
    /// In nanoseconds since 1970.
    pub modified_unix_nanos: i64,
    /// Of a symbolic link.
    pub link_target: Vec<u8>,
}

/// What was found at a path.
struct Found {
    object: OwnedFd,
    status: Stat,
}

impl LiveTree {
    /// `root` is the container's `/`. With `owners`, archives have those that the container's processes see.
    ///
    /// To write there, a thread has to be the namespace's root by its `fsuid` and `fsgid`: what it makes is its own at
    /// first, and volumes with mapped owners take nobody's files whom the namespace lacks.
    pub fn new(root: OwnedFd, container: &str, owners: Option<Owners>) -> LiveTree {
        LiveTree {
            root,
            container: container.to_owned(),
            owners,
        }
    }

    /// What is at `path`.
    pub fn stat(&self, path: &[u8]) -> Result<PathStat, Error> {
        let found = self.find(path, OFlags::NOFOLLOW)?;
        let link_target = match FileType::from_raw_mode(found.status.st_mode) {
            FileType::Symlink => rustix::fs::readlinkat(&found.object, "", Vec::new())
                .map_err(|e| self.failed(path, e.into()))?
                .into_bytes(),
            _ => Vec::new(),
        };
        let seconds = found.status.st_mtime.saturating_mul(1_000_000_000);
        Ok(PathStat {
            name: last_name(path).to_vec(),
            size_bytes: u64::try_from(found.status.st_size).unwrap_or(0),
            mode: found.status.st_mode,
            modified_unix_nanos: seconds.saturating_add_unsigned(found.status.st_mtime_nsec),
            link_target,
        })
    }

    /// Where a path leads, links followed: absolute, as the kernel names it.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        let found = self.find(path, OFlags::empty())?;
        let absolute = overlay::kernel_path(found.object.as_fd());
        let root = overlay::kernel_path(self.root.as_fd());
        let named = root.and_then(|root| {
            let path = absolute?;
            let rest = path.strip_prefix(root.as_slice()).unwrap_or(&path);
            Ok([b"/", rest.strip_prefix(b"/").unwrap_or(rest)].concat())
        });
        named.map_err(|e| self.failed(path, e))
    }

    /// Write what is at `path` as a tar archive, in which it is called `name`; empty: its own name. A link as the last
    /// name is not followed, unless a slash follows it.
    pub fn pack(
        &self,
        path: &[u8],
        name: &[u8],
        cancelled: &CancellationToken,
        stream: impl Write,
    ) -> Result<(), Error> {
        let found = self.find(path, OFlags::NOFOLLOW)?;
        let name = if name.is_empty() { last_name(path) } else { name };
        let mut packer = Packer::new(stream);
        let mut put = |entry: &Entry, data: Data| {
            let mut entry = entry.named_below(name);
            // Plain files: not every reader of archives knows of holes.
            entry.extents = None;
            packer.append(&entry, data)
        };
        if FileType::from_raw_mode(found.status.st_mode) == FileType::Directory {
            let folder = reopen_folder(&found.object).map_err(|e| self.failed(path, e.into()))?;
            let layers = Layers::of_tree(folder, self.owners.clone());
            let root = layers.root();
            overlay::walk(&layers, root, cancelled, &mut put)
        } else {
            overlay::opened(found.object, b"")
                .and_then(|item| {
                    let mut item = item.ok_or_else(|| io::Error::other("no archive can have a socket"))?;
                    if let Some(owners) = &self.owners {
                        owners.seen(&mut item.entry);
                    }
                    let data = item.open_whole(cancelled)?;
                    put(&item.entry, data)
                })
                .map_err(|e| (Vec::new(), e))
        }
        .map_err(|(below, e)| self.failed(&[path, below.as_slice()].join(&b'/'), e))?;
        packer.finish().map(drop).map_err(Error::Output)
    }

    /// Unpack a tar archive in the folder at `path`. `owner`: whom all of it belongs to, in place of whom it says.
    pub fn unpack(
        &self,
        path: &[u8],
        owner: Option<(u32, u32)>,
        cancelled: &CancellationToken,
        archive: impl Read,
    ) -> Result<(), Error> {
        let found = self.find(path, OFlags::DIRECTORY)?;
        let folder = reopen_folder(&found.object).map_err(|e| self.failed(path, e.into()))?;
        let owner = owner.map_or(Owner::OfEntry, |(uid, gid)| Owner::One { uid, gid });
        extract::extract(archive, &folder, owner, self.owners.as_ref(), cancelled).map_err(|failure| {
            match failure {
                extract::Failure::Entry(entry, e) => self.failed(&[path, entry.as_slice()].join(&b'/'), e),
                extract::Failure::Archive(e) => Error::Input(e),
            }
        })
    }

    fn find(&self, path: &[u8], flags: OFlags) -> Result<Found, Error> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // The kernel could not tell whether a concurrent rename moved a `..` out.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => break result,
            }
        };
        let object = opened.map_err(|e| match e {
            Errno::NOENT => Error::NoSuchPath {
                container: self.container.clone(),
                path: String::from_utf8_lossy(path).into_owned(),
            },
            e => self.failed(path, e.into()),
        })?;
        let status = rustix::fs::fstat(&object).map_err(|e| self.failed(path, e.into()))?;
        if overlay::is_of_kernel(object.as_fd()) {
            let rule = "it is in a file system of the kernel's, which has no files to be copied";
            return Err(self.failed(path, io::Error::other(rule)));
        }
        Ok(Found { object, status })
    }

    fn failed(&self, path: &[u8], source: io::Error) -> Error {
        Error::Container {
            container: self.container.clone(),
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        }
    }
}

/// The last name of a path as docker takes it: `.` of what ends so, and of the root.
fn last_name(path: &[u8]) -> &[u8] {
    let path = path.trim_ascii_end();
    let end = path
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    match path[..end].rsplit(|byte| *byte == b'/').next() {
        None | Some(b"") => b".",
        Some(name) => name,
    }
}

fn reopen_folder(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, LiveTree) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("etc/deep")).unwrap();
        fs::write(root.join("etc/deep/file"), "inside").unwrap();
        fs::write(folder.path().join("file"), "outside").unwrap();
        let open = fs::File::open(&root).unwrap();
        (folder, LiveTree::new(open.into(), "c", None))
    }

    fn packed(tree: &LiveTree, path: &str) -> Vec<(String, String)> {
        let mut stream = Vec::new();
        tree.pack(path.as_bytes(), b"", &CancellationToken::new(), &mut stream)
            .unwrap();
        let mut archive = tar::Archive::new(stream.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), text)
        });
        entries.collect()
    }

    fn pair(path: &str, text: &str) -> (String, String) {
        (path.to_owned(), text.to_owned())
    }

    #[test]
    fn an_archive_begins_with_the_last_name_of_the_path() {
        let (_folder, tree) = tree();
        let expected = |name: &str| {
            [
                pair(&format!("{name}/"), ""),
                pair(&format!("{name}/deep/"), ""),
                pair(&format!("{name}/deep/file"), "inside"),
            ]
        };
        assert_eq!(packed(&tree, "/etc"), expected("etc"));
        assert_eq!(packed(&tree, "/etc/"), expected("etc"));
        assert_eq!(packed(&tree, "/etc/deep/file"), [pair("file", "inside")]);
        assert_eq!(packed(&tree, "/etc/deep/.")[0].0, "./");
        assert_eq!(packed(&tree, "/").len(), 4);
    }

    #[test]
    fn no_link_leads_out() {
        let (folder, tree) = tree();
        symlink("../file", folder.path().join("root/up")).unwrap();
        symlink(folder.path(), folder.path().join("root/absolute")).unwrap();
        symlink("/etc/deep", folder.path().join("root/deep")).unwrap();
        assert_eq!(tree.stat(b"/up").unwrap().link_target, b"../file");
        for path in ["/up/", "/absolute/file", "/../file"] {
            let refused = tree.stat(path.as_bytes()).unwrap_err();
            assert!(matches!(refused, Error::NoSuchPath { .. }), "{refused}");
        }
        assert_eq!(packed(&tree, "/deep/file"), [pair("file", "inside")]);
        assert_eq!(tree.resolve(b"/deep").unwrap(), b"/etc/deep");
    }
}
