//! Paths inside the rootfs. The image and other containers that share it may have put symbolic links anywhere, and
//! may exchange them while we look (CVE-2019-16884, CVE-2021-30465): so each path is resolved by the kernel with
//! `openat2(RESOLVE_IN_ROOT)`, once, to a descriptor, and all that follows works on that descriptor.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

use crate::error::{Context as _, Result};

/// The kernel answers EAGAIN when something was renamed or mounted during the walk; on a busy machine that can
/// happen often, and an attacker can make it happen often.
const RETRIES: u32 = 256;

/// As many links as the kernel follows in one path.
const LINKS_MAX: u32 = 40;

/// More folders than a path of `PATH_MAX` bytes can name.
const STEPS_MAX: u32 = 4096;

/// What stands where a mount is to go.
pub(crate) struct Target {
    pub(crate) fd: OwnedFd,
    /// A symbolic link was followed, so the place may be another than the path says.
    pub(crate) through_link: bool,
}

/// Opens a path below `root` as if `root` were the root folder. `path` is as it comes from config.json.
pub(crate) fn open(root: BorrowedFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolve | ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    for _ in 0..RETRIES {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// Opens a path for use as a mount target or source, without access to its contents.
pub(crate) fn locate(root: BorrowedFd, path: &Path) -> io::Result<Target> {
    match open(root, path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS) {
        Ok(fd) => Ok(Target {
            fd,
            through_link: false,
        }),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let fd = open(root, path, OFlag::O_PATH, ResolveFlag::empty())?;
            Ok(Target {
                fd,
                through_link: true,
            })
        }
        Err(error) => Err(error),
    }
}

/// Whether a path leads through a symbolic link, to wherever.
pub(crate) fn has_link(root: BorrowedFd, path: &Path) -> bool {
    open(root, path, OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS)
        .is_err_and(|error| error.raw_os_error() == Some(libc::ELOOP))
}

/// Opens a folder, making it and its parents where they are missing.
pub(crate) fn folder(root: BorrowedFd, path: &Path) -> Result<Target> {
    made(root, path, Missing::Folder)
        .context(|| format!("make the folder {} in the rootfs", absolute(path).display()))
}

/// Opens a file, making an empty one and its parents where they are missing.
pub(crate) fn file(root: BorrowedFd, path: &Path) -> Result<Target> {
    made(root, path, Missing::File)
        .context(|| format!("make the file {} in the rootfs", absolute(path).display()))
}

/// The parent folder of a path, made where it is missing, and the last name.
pub(crate) fn parent(root: BorrowedFd, path: &Path) -> Result<(Target, PathBuf)> {
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let above = path.parent().unwrap_or(Path::new(""));
    Ok((folder(root, above)?, name))
}

/// What to make when the last part of a path is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Folder,
    File,
}

fn made(root: BorrowedFd, path: &Path, last: Missing) -> io::Result<Target> {
    match locate(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => walk(root, path, last),
        other => other,
    }
}

/// Goes down name by name and makes what is missing, also behind links that lead to nothing yet: images have
/// `/etc/resolv.conf` as such a link, and engines mount a file there. `..` goes back to the folder we came from, so
/// whatever is renamed meanwhile, no step leaves the root.
fn walk(root: BorrowedFd, path: &Path, last: Missing) -> io::Result<Target> {
    let mut ahead: VecDeque<OsString> = parts(path);
    let mut behind: Vec<OwnedFd> = Vec::new();
    let (mut links, mut created) = (0, 0);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            behind.pop();
            continue;
        }
        let here = behind.last().map_or(root, AsFd::as_fd);
        let name = Path::new(&name);
        let fd = match open(
            here,
            name,
            OFlag::O_PATH | OFlag::O_NOFOLLOW,
            ResolveFlag::RESOLVE_NO_SYMLINKS,
        ) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound && created < STEPS_MAX => {
                created += 1;
                if ahead.is_empty() && last == Missing::File {
                    make_file(here, name)?;
                } else {
                    make_folder(here, name)?;
                }
                ahead.push_front(name.into());
                continue;
            }
            Err(error) => return Err(error),
        };
        match readlinkat(&fd, "") {
            Ok(link) => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::ELOOP.into());
                }
                if Path::new(&link).is_absolute() {
                    behind.clear();
                }
                for part in parts(Path::new(&link)).into_iter().rev() {
                    ahead.push_front(part);
                }
            }
            Err(_) => behind.push(fd),
        }
    }
    let fd = match behind.pop() {
        Some(fd) => fd,
        None => root.try_clone_to_owned()?,
    };
    Ok(Target {
        fd,
        through_link: links > 0,
    })
}

/// The names of a path and its `..`.
fn parts(path: &Path) -> VecDeque<OsString> {
    let keep = |part: &Component| matches!(part, Component::Normal(_) | Component::ParentDir);
    path.components()
        .filter(keep)
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Makes a folder; one that is there already will do.
fn make_folder(parent: BorrowedFd, name: &Path) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes an empty regular file; one that is there already will do.
pub(crate) fn make_file(parent: BorrowedFd, name: &Path) -> io::Result<()> {
    match mknodat(parent, name, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// For messages: the path as a process in the container would write it.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// A path from config.json as names below the root. `..` is taken away by its text, as runc does: above the root
/// there is nothing.
pub(crate) fn names(path: &Path) -> PathBuf {
    let mut names = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> (PathBuf, File) {
        let path = std::env::temp_dir().join(format!("berth-inside-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("rootfs/etc")).unwrap();
        let root = File::open(path.join("rootfs")).unwrap();
        (path, root)
    }

    #[test]
    fn names_stay_below_the_root() {
        assert_eq!(names(Path::new("/a/./b/../c//d/")), Path::new("a/c/d"));
        assert_eq!(names(Path::new("../../etc")), Path::new("etc"));
        assert_eq!(names(Path::new("/..")), Path::new(""));
    }

    #[test]
    fn links_out_of_the_rootfs_end_inside_it() {
        let (path, root) = scratch("links");
        symlink("../../../../..", path.join("rootfs/up")).unwrap();
        symlink("/etc", path.join("rootfs/abs")).unwrap();
        let target = folder(root.as_fd(), Path::new("up/made/here")).unwrap();
        assert!(target.through_link);
        assert!(path.join("rootfs/made/here").is_dir());
        file(root.as_fd(), Path::new("abs/berth-test-file")).unwrap();
        assert!(path.join("rootfs/etc/berth-test-file").is_file());
        assert!(!Path::new("/etc/berth-test-file").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_a_dangling_link_names_is_made_inside() {
        let (path, root) = scratch("dangling");
        symlink(
            "../../../../run/made/resolv.conf",
            path.join("rootfs/etc/resolv.conf"),
        )
        .unwrap();
        symlink("/nowhere", path.join("rootfs/etc/dir")).unwrap();
        symlink("loop", path.join("rootfs/etc/loop")).unwrap();
        assert!(
            file(root.as_fd(), Path::new("etc/resolv.conf"))
                .unwrap()
                .through_link
        );
        assert!(path.join("rootfs/run/made/resolv.conf").is_file());
        folder(root.as_fd(), Path::new("etc/dir/x")).unwrap();
        assert!(path.join("rootfs/nowhere/x").is_dir());
        assert!(!Path::new("/nowhere").exists());
        assert!(folder(root.as_fd(), Path::new("etc/loop/x")).is_err());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn missing_folders_and_files_are_made_once() {
        let (path, root) = scratch("made");
        assert!(!folder(root.as_fd(), Path::new("a/b/c")).unwrap().through_link);
        folder(root.as_fd(), Path::new("a/b/c")).unwrap();
        file(root.as_fd(), Path::new("a/b/f")).unwrap();
        file(root.as_fd(), Path::new("a/b/f")).unwrap();
        assert!(path.join("rootfs/a/b/f").is_file());
        assert!(file(root.as_fd(), Path::new("a/b/f/g")).is_err());
        fs::remove_dir_all(path).unwrap();
    }
}
