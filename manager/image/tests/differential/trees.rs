//! Random trees of all that a layer may have, and a look at every attribute.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::fixture::made;

const OBJECTS_A_TREE: usize = 60;

/// What one object of a tree is, all but its name: kind, mode, owner, device, time, links, attributes, content.
type Looks = (
    u32,
    (u32, u32),
    u64,
    (i64, i64),
    Vec<PathBuf>,
    BTreeMap<Vec<u8>, Vec<u8>>,
    Vec<u8>,
);

/// A name that no other object of its folder has: short, long, with spaces, newlines, or no UTF-8.
pub(super) fn name(random: &mut fastrand::Rng, number: usize) -> Vec<u8> {
    let mut name = match random.u8(0..6) {
        0 => vec![b'n'; random.usize(90..200)],
        1 => b"with space\nand line".to_vec(),
        2 => vec![0xff, 0xc3, b'\\'],
        3 => "ünïcödé".into(),
        _ => vec![b'f'],
    };
    name.extend(number.to_string().bytes());
    name
}

/// Fill `root` with objects of every kind that a layer may have.
pub(super) fn grow(root: &Path, random: &mut fastrand::Rng) {
    let mut folders = vec![root.to_owned()];
    let mut files = Vec::new();
    let mut all = vec![root.to_owned()];
    for number in 0..OBJECTS_A_TREE {
        let folder = folders[random.usize(..folders.len())].clone();
        let path = folder.join(OsStr::from_bytes(&name(random, number)));
        match random.u8(0..10) {
            0..3 => {
                std::fs::create_dir(&path).unwrap();
                folders.push(path.clone());
            }
            3 => symlink(format!("target{number}"), &path).unwrap(),
            4 => symlink("/absolute/".to_owned() + &"t".repeat(random.usize(..150)), &path).unwrap(),
            5 if !files.is_empty() => {
                let target: &PathBuf = &files[random.usize(..files.len())];
                std::fs::hard_link(target, &path).unwrap();
                continue;
            }
            6 => {
                let kinds = [FileType::Fifo, FileType::CharacterDevice, FileType::BlockDevice];
                let kind = kinds[random.usize(..3)];
                let device = rustix::fs::makedev(random.u32(1..300), random.u32(..70_000));
                rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR, device).unwrap();
            }
            _ => {
                let length = [0, 1, 511, 512, 513, 70_000][random.usize(..6)];
                std::fs::write(&path, made::noise(length, random.u64(..))).unwrap();
                if random.bool() {
                    // Holes, for `tar --sparse`.
                    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                    file.set_len(length as u64 + random.u64(..1 << 20)).unwrap();
                }
                files.push(path.clone());
            }
        }
        all.push(path);
    }
    // Folders last, deepest first: making things in them changes their times.
    for path in all.iter().rev() {
        dress(path, random);
    }
}

/// Owner, attributes, mode and times.
pub(super) fn dress(path: &Path, random: &mut fastrand::Rng) {
    let metadata = path.symlink_metadata().unwrap();
    let is_link = metadata.is_symlink();
    std::os::unix::fs::lchown(path, Some(random.u32(..100_000)), Some(random.u32(..5_000_000))).unwrap();
    if metadata.is_file() && random.u8(..4) == 0 {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::lsetxattr(path, "security.capability", &capability, XattrFlags::empty()).unwrap();
    }
    if (metadata.is_file() || metadata.is_dir()) && random.bool() {
        // Not empty: Go, and so umoci, takes an empty record for one that is taken back.
        let value = made::noise(random.usize(1..40), random.u64(..));
        rustix::fs::lsetxattr(path, "user.random", &value, XattrFlags::empty()).unwrap();
    }
    if !is_link {
        let mode = random.u32(..0o10000);
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
    }
    let time = Timespec {
        tv_sec: random.i64(-1_000_000_000..4_000_000_000),
        tv_nsec: random.i64(0..1_000_000_000),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything below `root`, by path.
fn look(root: &Path) -> BTreeMap<PathBuf, Looks> {
    let mut found = BTreeMap::new();
    let mut by_inode: BTreeMap<(u64, u64), Vec<PathBuf>> = BTreeMap::new();
    // That of a mounted image is a link.
    let mut waiting = vec![root.join(".")];
    while let Some(path) = waiting.pop() {
        let metadata = path
            .symlink_metadata()
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let own = path.strip_prefix(root).unwrap().to_owned();
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            std::fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            std::fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            waiting.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            by_inode
                .entry((metadata.dev(), metadata.ino()))
                .or_default()
                .push(own.clone());
        }
        let is_device = kind.is_char_device() || kind.is_block_device();
        let device = if is_device { metadata.rdev() } else { 0 };
        let looks = (
            metadata.mode(),
            (metadata.uid(), metadata.gid()),
            device,
            (metadata.mtime(), metadata.mtime_nsec()),
            Vec::new(),
            xattrs(&path),
            content,
        );
        found.insert(own, looks);
    }
    for mut names in by_inode.into_values() {
        names.sort();
        for name in &names {
            found.get_mut(name).unwrap().4.clone_from(&names);
        }
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

pub(super) fn assert_same(what: &str, expected: &Path, actual: &Path) {
    let (expected, actual) = (look(expected), look(actual));
    let names = |tree: &BTreeMap<PathBuf, Looks>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&expected), names(&actual), "{what}");
    for (path, looks) in &expected {
        let (mut looks, mut ours) = (looks.clone(), actual[path].clone());
        let is_same_content = looks.6 == ours.6;
        assert!(is_same_content, "{what}: content of {}", path.display());
        (looks.6, ours.6) = (Vec::new(), Vec::new());
        assert_eq!(looks, ours, "{what}: {}", path.display());
    }
}
