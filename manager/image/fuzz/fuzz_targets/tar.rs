//! A layer's tar, unpacked into a folder. Nothing beside that folder may change, no device may appear that no header
//! asks for, and what overlayfs is told by extended attributes is ours to say.
#![no_main]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use image_fuzz::with_checksums;

image_fuzz::target!(content: &[u8] => {
    let content = with_checksums(content);
    let folder = image_fuzz::folder();
    let [root, again, canary] = ["root", "again", "canary"].map(|name| folder.path().join(name));
    for own in [&root, &again, &canary] {
        fs::create_dir(own).expect("make a folder");
    }
    fs::write(canary.join("file"), "untouched").expect("write a file");
    let before = looks(&canary);

    image::fuzzing::tar(&content, &root, &again);

    assert_eq!(fs::read_dir(folder.path()).expect("list the folder").count(), 3, "something is beside the root");
    assert_eq!(looks(&canary), before, "the layer changed what is beside its root");
    let mut devices = HashSet::new();
    walk(&root, &mut devices);
    // Where a header has its type, and so at most so many.
    let asked_for = content.chunks_exact(512).filter(|block| matches!(block[156], b'3' | b'4')).count();
    assert!(devices.len() <= asked_for, "a device that no header asks for");
});

/// All that a link, a chmod, a chown or a write would change of a folder with a file.
fn looks(canary: &Path) -> (String, Vec<[i64; 6]>) {
    let of = |path: PathBuf| {
        let of = path
            .symlink_metadata()
            .expect("what is beside the root is still there");
        [
            of.mode().into(),
            of.uid().into(),
            of.gid().into(),
            of.nlink() as i64,
            of.ctime(),
            of.ctime_nsec(),
        ]
    };
    let content = fs::read_to_string(canary.join("file")).expect("read the file beside the root");
    (content, vec![of(canary.to_owned()), of(canary.join("file"))])
}

/// Gather the inodes of devices below a folder, and look at the attributes of all that is there.
fn walk(folder: &Path, devices: &mut HashSet<u64>) {
    // With the root's own before them, names may be longer than a path can be.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("list the layer").path();
        let Ok(of) = path.symlink_metadata() else { continue };
        let kind = of.file_type();
        let is_whiteout = kind.is_char_device() && of.rdev() == 0;
        if (kind.is_char_device() || kind.is_block_device()) && !is_whiteout {
            devices.insert(of.ino());
        }
        let mut names = vec![0; 64 << 10];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).expect("list the attributes");
        for name in names[..length].split(|byte| *byte == 0) {
            let is_ours = name == b"trusted.overlay.opaque" && of.is_dir();
            assert!(
                is_ours || !name.starts_with(b"trusted.overlay."),
                "the layer set an overlay's attribute"
            );
        }
        if of.is_dir() {
            walk(&path, devices);
        }
    }
}
