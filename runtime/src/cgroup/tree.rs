//! Walks over a group and all groups below it. A container may nest groups so deep that their paths are too long for
//! the kernel and their descriptors too many for us; so one directory is open at a time, left again through `..`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::dir::{Dir, is, is_gone, read_text};
use crate::error::{Context, Result};

fn open_at(at: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    openat(at, name, flags, Mode::empty())
}

/// The names of the groups directly below.
fn children(fd: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match std::fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd())) {
        Err(error) if is_gone(&error) => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name().into_string();
            names.push(name.map_err(|name: OsString| not_text(&name))?);
        }
    }
    Ok(names)
}

fn not_text(name: &OsString) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a group has the name {}, which is no text", name.display()),
    )
}

/// Every process in the group and below, once each.
pub(super) fn processes(dir: &Dir) -> Result<Vec<i32>> {
    let mut pids = walk_processes(dir).context(|| format!("list processes of {}", dir.path().display()))?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn walk_processes(dir: &Dir) -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    let mut at = open_at(dir, ".")?;
    read_processes(&at, &mut pids)?;
    let mut pending = vec![children(&at)?];
    while let Some(names) = pending.last_mut() {
        let Some(name) = names.pop() else {
            pending.pop();
            if !pending.is_empty() {
                match open_at(&at, "..") {
                    Ok(parent) => at = parent,
                    // The group was removed while we were in it: what is left of the walk went with it.
                    Err(Errno::ENOENT | Errno::ENODEV) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
            continue;
        };
        match open_at(&at, &name) {
            Ok(child) => at = child,
            Err(Errno::ENOENT | Errno::ENODEV) => continue,
            Err(errno) => return Err(errno.into()),
        }
        read_processes(&at, &mut pids)?;
        pending.push(children(&at)?);
    }
    Ok(pids)
}

fn read_processes(at: &OwnedFd, pids: &mut Vec<i32>) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = openat(at, "cgroup.procs", flags, Mode::empty()).map_err(io::Error::from);
    let text = match file.and_then(|file| read_text(&mut File::from(file))) {
        Ok(text) => text,
        // A threaded group shows its processes at the top of its domain only.
        Err(error) if is_gone(&error) || is(&error, Errno::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    // 0 is a process that our pid namespace does not see.
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    Ok(())
}

/// Removes all groups below; EBUSY if processes are left in some, after the others have been removed.
pub(super) fn remove_children(dir: &Dir) -> io::Result<()> {
    let mut busy = false;
    let mut at = open_at(dir, ".")?;
    // For each level the name by which we came in, and the groups still to be removed.
    let mut above: Vec<(String, Vec<String>)> = Vec::new();
    let mut names = children(&at)?;
    loop {
        let Some(name) = names.pop() else {
            let Some((name, rest)) = above.pop() else { break };
            at = open_at(&at, "..")?;
            busy |= !remove_one(&at, &name)?;
            names = rest;
            continue;
        };
        if remove_one(&at, &name)? {
            continue;
        }
        let child = match open_at(&at, &name) {
            Err(Errno::ENOENT) => continue,
            child => child?,
        };
        let below = children(&child)?;
        if below.is_empty() {
            busy = true;
            continue;
        }
        at = child;
        above.push((name, std::mem::replace(&mut names, below)));
    }
    if busy { Err(Errno::EBUSY.into()) } else { Ok(()) }
}

/// Whether the group is gone; `false` if it has groups or processes.
fn remove_one(at: &OwnedFd, name: &str) -> io::Result<bool> {
    match unlinkat(at, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_below_are_found_once_each() {
        let path = super::super::tests::scratch("processes");
        for (group, procs) in [("", "7\n0\n"), ("a", "8\n7\n"), ("a/b", "9\n"), ("c", "")] {
            let group = path.join(group);
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("cgroup.procs"), procs).unwrap();
        }
        std::fs::create_dir(path.join("no-file")).unwrap();
        assert_eq!(processes(&Dir::open(&path).unwrap()).unwrap(), [7, 8, 9]);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn groups_below_are_removed_from_the_bottom() {
        let path = super::super::tests::scratch("children");
        for group in ["a/b/c", "a/d", "e/f", "e/busy"] {
            std::fs::create_dir_all(path.join(group)).unwrap();
        }
        std::fs::write(path.join("e/busy/file"), "").unwrap();
        let dir = Dir::open(&path).unwrap();
        assert!(is(&remove_children(&dir).unwrap_err(), Errno::EBUSY));
        assert!(!path.join("a").exists() && !path.join("e/f").exists() && path.join("e/busy").exists());
        std::fs::remove_file(path.join("e/busy/file")).unwrap();
        remove_children(&dir).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_nest_too_deep_for_paths_is_walked_and_removed() {
        let path = super::super::tests::scratch("deep");
        let dir = Dir::open(&path).unwrap();
        let name = "x".repeat(200);
        let mut at = open_at(&dir, ".").unwrap();
        for _ in 0..50 {
            nix::sys::stat::mkdirat(&at, name.as_str(), Mode::S_IRWXU).unwrap();
            at = open_at(&at, &name).unwrap();
        }
        assert_eq!(processes(&dir).unwrap(), Vec::<i32>::new());
        remove_children(&dir).unwrap();
        std::fs::remove_dir(path).unwrap();
    }
}
