//! The size of a tree of files that may change meanwhile, and be deeper than any path is long.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A folder on the way down to where the walk is.
struct Level {
    /// Device and inode.
    identity: (u64, u64),
    /// Folders in it that the walk has not been in.
    folders: Vec<CString>,
}

#[derive(Default)]
struct Walk {
    bytes: u64,
    /// Files with several names that were counted.
    linked: HashSet<(u64, u64)>,
}

/// Bytes of all files and symbolic links below `root` by their lengths, those with several names once, and none of the
/// folders: as docker counts. Never follows a link, nor leaves the file system.
///
/// Of a folder that is moved while the walk is in it, the way back is lost: what was not seen then is not counted.
pub fn tree_bytes(root: &Path) -> io::Result<u64> {
    let mut walk = Walk::default();
    let mut here = rustix::fs::open(root, folder_flags(), Mode::empty())?;
    let mut levels = vec![walk.list(&here)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.folders.pop() {
            match rustix::fs::openat2(&here, &name, folder_flags(), Mode::empty(), ResolveFlags::NO_XDEV) {
                Ok(folder) => {
                    levels.push(walk.list(&folder)?);
                    here = folder;
                }
                // A container that runs changes what it likes meanwhile.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(e) => return Err(e.into()),
            }
            continue;
        }
        levels.pop();
        let Some(above) = levels.last() else { break };
        // One descriptor, not one for each level.
        let Ok(parent) = rustix::fs::openat(&here, "..", folder_flags(), Mode::empty()) else {
            break;
        };
        if identity(&rustix::fs::fstat(&parent)?) != above.identity {
            break;
        }
        here = parent;
    }
    Ok(walk.bytes)
}

impl Walk {
    /// Count the files of a folder, and find its folders.
    fn list(&mut self, folder: &OwnedFd) -> io::Result<Level> {
        let mut level = Level {
            identity: identity(&rustix::fs::fstat(folder)?),
            folders: Vec::new(),
        };
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let status = match rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                status => status?,
            };
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => level.folders.push(name.to_owned()),
                FileType::RegularFile | FileType::Symlink
                    if status.st_nlink < 2 || self.linked.insert(identity(&status)) =>
                {
                    self.bytes += status.st_size.cast_unsigned();
                }
                _ => {}
            }
        }
        Ok(level)
    }
}

fn identity(status: &rustix::fs::Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_path_is_long_is_counted_whole() {
        let root = tempfile::tempdir().unwrap();
        let all = Mode::from_raw_mode(0o755);
        let mut folder = rustix::fs::open(root.path(), folder_flags(), Mode::empty()).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&folder, "folder", all).unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&folder, "file", flags, all).unwrap();
            rustix::io::write(&file, b"12").unwrap();
            folder = rustix::fs::openat(&folder, "folder", folder_flags(), Mode::empty()).unwrap();
        }
        std::fs::write(root.path().join("one"), "12345").unwrap();
        std::fs::hard_link(root.path().join("one"), root.path().join("other")).unwrap();
        std::os::unix::fs::symlink("/", root.path().join("link")).unwrap();
        assert_eq!(tree_bytes(root.path()).unwrap(), 6_006);
        // tempfile removes by path.
        crate::removal::remove(root.path()).unwrap();
    }
}
