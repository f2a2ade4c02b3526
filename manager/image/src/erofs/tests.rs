//! Images as the kernel mounts them and as erofs-utils judges them.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::archive::Time;

/// How many files the folders have: one has some blocks of them.
fn files_in(folder: usize) -> usize {
    if folder == 299 { 3000 } else { folder * 7 % 100 }
}

/// A tree with all that makes the layout hard: folders of many blocks, links and attributes of all lengths.
fn grow(path: &Path) {
    let mut content = Content::create(path).unwrap();
    let mut tree = Tree::new(usize::MAX);
    let looks = Looks {
        modified: Time {
            seconds: -5,
            nanoseconds: 999_999_999,
        },
        uid: 100_000,
        gid: 4_000_000_000,
        mode: 0o4751,
        ..Looks::default()
    };
    for number in 0..300_usize {
        let folder = tree
            .add(
                ROOT,
                format!("folder-{number}").as_bytes(),
                looks,
                What::Folder(Box::new(Folder::new(ROOT, b"", false))),
            )
            .unwrap();
        let mut xattrs = Xattrs::default();
        xattrs.set(b"user.long", &vec![b'x'; number * 37 % 5000]);
        tree.set_xattrs(folder, xattrs).unwrap();
        let target = vec![b't'; 1 + number * 101 % 4095];
        tree.add(folder, b"link", looks, What::Symlink(target.into()))
            .unwrap();
        for file in 0..files_in(number) {
            tree.add(
                folder,
                format!("{file:0width$}", width = 1 + file % 250).as_bytes(),
                looks,
                What::Fifo,
            )
            .unwrap();
        }
    }
    for size in [0, 1, 4095, 4096, 4097, 3 << 20] {
        content.writer().write_all(&vec![b'c'; size]).unwrap();
        let block = content.end_file(size as u64, false).unwrap();
        let file = tree
            .add(
                ROOT,
                format!("size-{size}").as_bytes(),
                looks,
                What::File {
                    block,
                    size: size as u64,
                },
            )
            .unwrap();
        tree.link(ROOT, format!("again-{size}").as_bytes(), file).unwrap();
    }
    tree.add(ROOT, b"!before the dot", looks, What::CharDevice(0, 0))
        .unwrap();
    tree.add(ROOT, b"null", looks, What::BlockDevice(4095, 1_048_575))
        .unwrap();
    write(tree, content, [7; 16]).unwrap();
}

#[test]
fn the_same_tree_is_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let images = ["a", "b"].map(|name| folder.path().join(name));
    for image in &images {
        grow(image);
    }
    let [a, b] = images.map(|image| std::fs::read(image).unwrap());
    assert!(a == b);
    assert_eq!(a.len() % BLOCK_BYTES, 0);
}

#[test]
fn fsck_finds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    grow(&image);
    let mut fsck = Command::new("fsck.erofs");
    let output = fsck.arg("--extract").arg(&image).output();
    let output = output.expect("erofs-utils are installed by hack/setup");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_kernel_shows_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    if let Err(e) = probe(&folder.path().join("probe")) {
        eprintln!("skipped: {e}");
        return;
    }
    grow(&image);
    let mount = mount(&image).unwrap();
    let root = path_of(&mount);
    for number in 0..300_usize {
        let folder = root.join(format!("folder-{number}"));
        let names = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.count(), 1 + files_in(number));
        for file in 0..files_in(number) {
            let fifo = folder.join(format!("{file:0width$}", width = 1 + file % 250));
            assert_eq!(fifo.symlink_metadata().unwrap().mode(), 0o014_751);
        }
        let target = std::fs::read_link(folder.join("link")).unwrap();
        assert_eq!(target.as_os_str().len(), 1 + number * 101 % 4095);
        let mut value = vec![0; 5000];
        let length = rustix::fs::getxattr(&folder, "user.long", &mut value).unwrap();
        assert_eq!(value[..length], vec![b'x'; number * 37 % 5000]);
    }
    for size in [0, 1, 4095, 4096, 4097, 3 << 20] {
        let paths = ["size", "again"].map(|name| root.join(format!("{name}-{size}")));
        assert!(std::fs::read(&paths[0]).unwrap() == vec![b'c'; size]);
        let [one, other] = paths.map(|path| path.metadata().unwrap());
        assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
        assert_eq!((one.uid(), one.gid()), (100_000, 4_000_000_000));
        assert_eq!((one.mtime(), one.mtime_nsec()), (-5, 999_999_999));
    }
    let device = root.join("null").metadata().unwrap().rdev();
    assert_eq!(device, rustix::fs::makedev(4095, 1_048_575));
    assert_eq!(root.join("!before the dot").metadata().unwrap().rdev(), 0);
    assert_eq!(root.metadata().unwrap().nlink(), 302);
}
