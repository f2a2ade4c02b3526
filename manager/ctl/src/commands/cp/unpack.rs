//! An archive into a folder of this machine, made by a thread with a pipe to it. The archive is a stranger's: of a
//! container, through a manager that may be another machine's. Nothing but what was asked for is made of it: all of it
//! is called by the name that was asked for, and no link leads any of it elsewhere.

use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::path::{Component, Path, PathBuf};
use std::thread::JoinHandle;

use tar::{Entry, EntryType};

use crate::failure::{Failure, Result};

/// The bits by which a program gets the rights of its file's owner or group.
const SET_IDS: u32 = 0o6000;

/// What the archive has to hold.
pub(super) struct Expected {
    /// What the copy is called; `.`: what is in a folder, by its own names.
    pub(super) name: String,
    pub(super) is_folder: bool,
    /// Files are to belong to whom the archive says, and to have all bits of their modes; else they are the caller's,
    /// with whose rights a container's program is not to run.
    pub(super) keep_owners: bool,
}

/// Where to write an archive that is to be unpacked in `folder`, and what became of it.
pub(super) fn unpack(folder: &str, expected: Expected) -> Result<(PipeWriter, Unpacking)> {
    if !Path::new(folder).is_dir() {
        return Err(Failure::new(format!("{folder}: no such directory")));
    }
    let (reader, writer) = io::pipe().map_err(|error| Failure::new(format!("make a pipe: {error}")))?;
    let folder = PathBuf::from(folder);
    let unpacking = std::thread::spawn(move || expected.take(reader, &folder));
    Ok((writer, Unpacking(unpacking)))
}

pub(super) struct Unpacking(JoinHandle<io::Result<()>>);

impl Unpacking {
    /// Wait for its end; the writer has been dropped.
    pub(super) fn join(self) -> io::Result<()> {
        super::joined(self.0)
    }
}

impl Expected {
    fn take(&self, reader: PipeReader, folder: &Path) -> io::Result<()> {
        let mut archive = tar::Archive::new(io::BufReader::new(reader));
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        archive.set_preserve_ownerships(self.keep_owners);
        archive.set_mask(if self.keep_owners { 0 } else { SET_IDS });
        // Their modes and times come last: files could not be made in them, and would change them.
        let mut folders = Vec::new();
        let mut entries = 0_u64;
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = self.check(&entry, entries)?;
            entries += 1;
            if is_special(entry.header().entry_type()) {
                // The library would make an empty file of it.
                if !self.is_folder {
                    return Err(special(&path));
                }
                eprintln!("left out: {}", special(&path));
                continue;
            }
            if entry.header().entry_type() == EntryType::Directory {
                no_links(folder, &path)?;
                fs::create_dir_all(folder.join(&path))?;
                folders.push((path, entry));
            } else {
                no_links(folder, path.parent().unwrap_or(Path::new("")))?;
                if let (EntryType::Link, Some(target)) = (entry.header().entry_type(), entry.link_name()?) {
                    // Of what an earlier entry's link leads to it would be a second name.
                    let target = self.place(&target).unwrap_or_default();
                    no_links(folder, target.parent().unwrap_or(Path::new("")))?;
                }
                made(entry.unpack_in(folder)?, &path)?;
            }
        }
        if entries == 0 {
            return Err(refused("is empty"));
        }
        folders.sort_by(|(one, _), (other, _)| other.cmp(one));
        for (path, mut entry) in folders {
            no_links(folder, &path)?;
            // What is asked for by `.` stays as it is itself.
            if !path.as_os_str().is_empty() {
                made(entry.unpack_in(folder)?, &path)?;
            }
        }
        Ok(())
    }

    /// Where an entry belongs, if it belongs to what was asked for.
    fn check(&self, entry: &Entry<'_, impl io::Read>, before: u64) -> io::Result<PathBuf> {
        let shown = || String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = self
            .place(&entry.path()?)
            .ok_or_else(|| refused(format!("has {:?}, which is nothing that was asked for", shown())))?;
        let kind = entry.header().entry_type();
        if !self.is_folder && (before > 0 || kind == EntryType::Directory || path.components().count() != 1) {
            return Err(refused(format!(
                "has {:?}, where one file was asked for",
                shown()
            )));
        }
        if kind == EntryType::Link {
            let leads_to = entry.link_name()?.and_then(|target| self.place(&target));
            if leads_to.is_none_or(|target| target.as_os_str().is_empty()) {
                return Err(refused(format!(
                    "makes {:?} a second name of something that was not asked for",
                    shown()
                )));
            }
        }
        Ok(path)
    }

    /// A name of the archive without what means nothing in it, if it is the one that was asked for, or is below it.
    fn place(&self, name: &Path) -> Option<PathBuf> {
        let mut place = PathBuf::new();
        for part in name.components() {
            match part {
                Component::Normal(part) => place.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        let is_asked_for = self.name == "." || place.starts_with(&self.name);
        is_asked_for.then_some(place)
    }
}

fn is_special(kind: EntryType) -> bool {
    matches!(kind, EntryType::Fifo | EntryType::Char | EntryType::Block)
}

fn special(path: &Path) -> io::Error {
    io::Error::other(format!("{} is a pipe or a device", path.display()))
}

/// An archive that is not what was asked for.
fn refused(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the archive of the manager {why}"),
    )
}

/// Nothing below `folder` on the way to `path`, and `path` itself, may be a link: an earlier entry may have made it.
fn no_links(folder: &Path, path: &Path) -> io::Result<()> {
    let mut place = folder.to_owned();
    for part in path.components() {
        place.push(part);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_symlink() => {
                return Err(io::Error::other(format!(
                    "{} is a link: nothing is copied through it",
                    place.display()
                )));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn made(was_made: bool, path: &Path) -> io::Result<()> {
    if was_made {
        return Ok(());
    }
    Err(refused(format!(
        "has {}, which leads out of the folder",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// What was asked for, whether that is a folder, and what the archive has.
    type Case = (
        &'static str,
        bool,
        &'static [(&'static str, EntryType, &'static str)],
    );

    /// An archive of names, kinds, and what links lead to; each file holds its own name and has all bits of a mode.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, target) in entries {
            let mut header = tar::Header::new_gnu();
            // Also names that the library would not write.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o6755);
            let data = if *kind == EntryType::Regular {
                name.as_bytes()
            } else {
                b""
            };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Unpack in a folder `in`, beside which is a file `outside`, and in which is a folder `other`.
    fn take(
        name: &str,
        is_folder: bool,
        entries: &[(&str, EntryType, &str)],
    ) -> (tempfile::TempDir, io::Result<()>) {
        let sandbox = tempfile::tempdir().unwrap();
        let folder = sandbox.path().join("in");
        fs::create_dir_all(folder.join("other")).unwrap();
        fs::write(sandbox.path().join("outside"), "mine").unwrap();
        fs::write(folder.join("other/file"), "mine").unwrap();
        let expected = Expected {
            name: name.to_owned(),
            is_folder,
            keep_owners: false,
        };
        let (mut writer, unpacking) = unpack(folder.to_str().unwrap(), expected).unwrap();
        // Who refuses it reads no further.
        let _ = writer.write_all(&archive(entries));
        drop(writer);
        let told = unpacking.join();
        assert_eq!(fs::read(sandbox.path().join("outside")).unwrap(), b"mine");
        assert_eq!(fs::read(folder.join("other/file")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.join("other")).unwrap().count(), 1);
        (sandbox, told)
    }

    const FILE: EntryType = EntryType::Regular;
    const FOLDER: EntryType = EntryType::Directory;
    const LINK: EntryType = EntryType::Symlink;
    const HARD_LINK: EntryType = EntryType::Link;

    #[test]
    fn what_was_asked_for_is_taken() {
        let (sandbox, told) = take("a", false, &[("a", FILE, "")]);
        told.unwrap();
        let made = fs::metadata(sandbox.path().join("in/a")).unwrap();
        assert_eq!(
            made.permissions().mode() & 0o7777,
            0o755,
            "nobody's rights come along"
        );
        let tree = [
            ("a/", FOLDER, ""),
            ("a/b", FILE, ""),
            ("a/c", EntryType::Link, "a/b"),
            ("a/d", EntryType::Symlink, "../../outside"),
        ];
        let (sandbox, told) = take("a", true, &tree);
        told.unwrap();
        assert_eq!(fs::read(sandbox.path().join("in/a/c")).unwrap(), b"a/b");
        let with_pipe = [
            ("a/", FOLDER, ""),
            ("a/p", EntryType::Fifo, ""),
            ("a/b", FILE, ""),
        ];
        let (sandbox, told) = take("a", true, &with_pipe);
        told.unwrap();
        assert!(sandbox.path().join("in/a/b").exists() && !sandbox.path().join("in/a/p").exists());
        let (sandbox, told) = take(".", true, &[("./", FOLDER, ""), ("./b", FILE, "")]);
        told.unwrap();
        assert!(sandbox.path().join("in/b").exists());
    }

    #[test]
    fn nothing_else_is_made() {
        let cases: [Case; 15] = [
            ("a", false, &[("a", EntryType::Fifo, "")]),
            (
                "a",
                true,
                &[("a/b", LINK, "../other"), ("a/c", HARD_LINK, "a/b/file")],
            ),
            ("a", false, &[]),
            ("a", true, &[]),
            ("a", false, &[("other/new", FILE, "")]),
            ("a", false, &[("a", FILE, ""), ("b", FILE, "")]),
            ("a", false, &[("a", FOLDER, "")]),
            ("a", false, &[("a", LINK, "other"), ("a/new", FILE, "")]),
            ("a", true, &[("a", FOLDER, ""), ("other/file", FILE, "")]),
            ("a", true, &[("a", LINK, "other"), ("a/new", FILE, "")]),
            ("a", true, &[("a/b", LINK, "../other"), ("a/b/new", FILE, "")]),
            ("a", true, &[("a/b", LINK, "../other"), ("a/b", FOLDER, "")]),
            ("a", true, &[("a/b", HARD_LINK, "other/file")]),
            ("a", true, &[("a/../other/new", FILE, "")]),
            (".", true, &[("../outside", FILE, "")]),
        ];
        for (name, is_folder, entries) in cases {
            let (_sandbox, told) = take(name, is_folder, entries);
            assert!(told.is_err(), "{name} {entries:?}");
        }
        // Also not through a link of the caller's own.
        let (sandbox, _) = take("a", true, &[]);
        symlink("../outside", sandbox.path().join("in/b")).unwrap();
        assert!(no_links(&sandbox.path().join("in"), Path::new("b")).is_err());
    }
}
