//! Removal of a file or of a folder with all in it, however deep: an unprivileged process can nest folders until no
//! path is long enough for them, and no stack deep enough for a call each.
//!
//! Everything goes by descriptor, and nothing above the doomed folder is ever opened: a walk that went back up by
//! `..` would follow whoever moves a folder meanwhile. What lies deeper than [`LEVELS_MAX`] is moved up into the
//! doomed folder itself, and goes in the next round. So calls and open descriptors have a bound.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom};
use rustix::io::Errno;
use rustix::path::Arg;

/// Hardly any honest tree is deeper.
const LEVELS_MAX: usize = 32;
/// What getdents64(2) fills at once, on the stack of each level.
const LIST_BYTES: usize = 8 << 10;

/// Remove a file or a folder with all in it; one that is not there is fine. What is mounted in it is an error (`EXDEV`).
pub fn remove(path: &Path) -> io::Result<()> {
    Ok(path.into_with_c_str(|path| remove_at(CWD, path))?)
}

/// Like [`remove`], for what is called `name` in an open folder.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Err(Errno::NOENT) => return Ok(()),
        result => return result,
    }
    let doomed = rustix::fs::openat(parent, name, FOLDER, Mode::empty())?;
    let mut removal = Removal {
        doomed: doomed.as_fd(),
        moved: 0,
    };
    loop {
        let before = removal.moved;
        removal.empty(doomed.as_fd(), 1)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // What was moved up after the place had been listed.
            Err(Errno::NOTEMPTY) if removal.moved > before => {
                rustix::fs::seek(&doomed, SeekFrom::Start(0))?;
            }
            Err(Errno::NOENT) => return Ok(()),
            result => return result,
        }
    }
}

struct Removal<'a> {
    doomed: BorrowedFd<'a>,
    /// How many folders were moved up so far; each has such a number for its name.
    moved: u64,
}

impl Removal<'_> {
    /// Take away all that is in a folder. Calls itself, at most [`LEVELS_MAX`] deep.
    fn empty(&mut self, folder: BorrowedFd<'_>, level: usize) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); LIST_BYTES];
        let mut entries = RawDir::new(folder, &mut space);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            // Some file systems do not tell what an entry is.
            if !matches!(entry.file_type(), FileType::Directory) {
                match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR) => {}
                    Err(e) => return Err(e),
                }
            }
            if level == LEVELS_MAX {
                self.move_up(folder, name)?;
                continue;
            }
            // Another thread may be at the same tree.
            let gone = |e| if e == Errno::NOENT { Ok(()) } else { Err(e) };
            match open_folder(folder, name) {
                Ok(child) => self.empty(child.as_fd(), level + 1)?,
                Err(e) => gone(e)?,
            }
            rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).or_else(gone)?;
        }
        Ok(())
    }

    /// Move a folder into the doomed one, under a name that is free there.
    fn move_up(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            match rustix::fs::renameat(folder, name, self.doomed, self.moved.to_string()) {
                // Somebody's own file or folder has this name. (An empty folder is replaced, which is as good.)
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                result => return result,
            }
        }
    }
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Never through a link, nor into what is mounted there.
fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    loop {
        match rustix::fs::openat2(parent, name, FOLDER, Mode::empty(), ResolveFlags::NO_XDEV) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(root: &Path, depth: usize) {
        let mut folder = rustix::fs::open(root, FOLDER, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&folder, "d", Mode::from_raw_mode(0o755)).unwrap();
            folder = rustix::fs::openat(&folder, "d", FOLDER, Mode::empty()).unwrap();
        }
        rustix::fs::mkdirat(&folder, "file", Mode::from_raw_mode(0o644)).unwrap();
    }

    #[test]
    fn a_tree_too_deep_for_a_path_or_a_stack_goes() {
        // In memory, where there is such a file system: so many folders keep a disk's journal busy.
        let place = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let root = place.path().join("root");
        std::fs::create_dir(&root).unwrap();
        // What is moved up meets these names.
        std::fs::write(root.join("1"), "").unwrap();
        std::fs::create_dir_all(root.join("2/full")).unwrap();
        std::fs::create_dir(root.join("3")).unwrap();
        nest(&root, 50_000);
        let small_stack = std::thread::Builder::new().stack_size(1 << 20);
        let removal = small_stack.spawn(move || remove(&root).unwrap()).unwrap();
        removal.join().unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_wide_tree_goes_to_its_last_entry() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        // Of one folder's entries the list is read in many pieces, while they go.
        for folder in ["", "a", "a/b", "c"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
            for number in 0..1500 {
                std::fs::write(root.join(folder).join(format!("file-{number}")), "").unwrap();
            }
        }
        remove(&root).unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        std::fs::create_dir_all(root.join("folder")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("folder/link")).unwrap();
        std::os::unix::fs::symlink(&outside, place.path().join("link")).unwrap();
        remove(&place.path().join("link")).unwrap();
        remove(&root).unwrap();
        remove(&root).unwrap();
        let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(outside.join("kept").exists());
    }
}
