//! Layers as attackers and careless tools write them, one case a line; and that honest ones come out right.
//!
//! Whiteouts, devices and owners need root; cases that do are left out for other users.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::*;

#[path = "../../tests/fixture/raw.rs"]
mod raw;
use raw::Tar;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(tar: &Tar, root: &Path) -> Result<Implied, Failure> {
    let limits = Limits {
        entries: 1000,
        content_bytes: 1 << 20,
        xattr_bytes: 1000,
        remembered_bytes: 5000,
        ..Limits::default()
    };
    match unpack(tar.0.as_slice(), root, Form::Folder, &limits)?.rest {
        Rest::Folder(implied) => Ok(implied),
        Rest::Erofs(_) => unreachable!("it was to be a folder"),
    }
}

/// Complete a folder from those below it, top one first.
fn adopt(top: &Path, implied: &Implied, below: &[&Path], bytes_max: u64) -> Result<u64, Failure> {
    let below: Vec<OwnedFd> = below
        .iter()
        .map(|folder| std::fs::File::open(folder).unwrap().into())
        .collect();
    adopt::adopt(top, implied, &below, bytes_max)
}

/// Where layers are unpacked, with something beside it that must never change.
fn place() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(folder.path().join("outside"), "untouched").unwrap();
    (folder, root)
}

#[test]
fn more_than_a_layer_may_have_is_refused() {
    let t = Tar::default;
    let many = (0..1001).fold(t(), |tar, i| tar.file(&format!("f{i}"), ""));
    for (tar, part) in [
        (many, "more than 1000 entries"),
        (
            t().raw(b'0', b"a", b"", &vec![0; (1 << 20) + 1], 0o644),
            "larger than",
        ),
        (t().file(&("d/".repeat(200) + "f"), ""), "more than 5000 bytes"),
        (
            t().pax("SCHILY.xattr.user.a", &[7; 2000]).file("a", ""),
            "more than 1000",
        ),
    ] {
        let (_folder, root) = place();
        match run(&tar, &root) {
            Err(Failure::Rule { rule, .. }) => assert!(rule.contains(part), "wanted {part:?}, got: {rule}"),
            other => panic!("{part}: {other:?}"),
        }
    }
}

#[test]
fn an_honest_layer_comes_out_as_it_was_packed() {
    let (_folder, root) = place();
    let long = "n".repeat(120);
    let tar = Tar::default()
        .folder("./", 0o711)
        .folder("d/", 0o2750)
        .file("./d/file", "content")
        .link("d/link", "/d/file")
        .symlink("d/symlink", "/absolute/is/fine")
        .symlink("up", "d/../d")
        .file("up/through", "a link of its own")
        .raw(b'0', long.as_bytes(), b"", b"", 0o4711)
        .raw(b'6', b"fifo", b"", b"", 0o600)
        .pax("mtime", b"12.5")
        .file("old", "")
        .pax("SCHILY.xattr.user.key", b"va\0lue")
        .file("attributes", "");
    let implied = run(&tar, &root).unwrap();
    assert_eq!(implied, Implied::default());
    let at = |path: &str| root.join(path).symlink_metadata().unwrap();
    assert_eq!(at(".").mode() & 0o7777, 0o711);
    assert_eq!(
        (at("d").mode() & 0o7777, at("d").mtime()),
        (0o2750, 1_000_000_000)
    );
    assert_eq!(std::fs::read(root.join("d/file")).unwrap(), b"content");
    assert_eq!(
        (at("d/file").ino(), at("d/file").nlink()),
        (at("d/link").ino(), 2)
    );
    assert_eq!(
        std::fs::read_link(root.join("d/symlink")).unwrap(),
        Path::new("/absolute/is/fine")
    );
    assert_eq!(at("d/symlink").mtime(), 1_000_000_000);
    assert!(root.join("d/through").exists());
    assert_eq!(at(&long).mode() & 0o7777, 0o4711);
    assert!(at("fifo").file_type().is_fifo());
    assert_eq!((at("old").mtime(), at("old").mtime_nsec()), (12, 500_000_000));
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(root.join("attributes"), "user.key", &mut value).unwrap();
    assert_eq!(&value[..length], b"va\0lue");
}

#[test]
fn a_folder_that_is_named_through_a_link_is_the_same_folder() {
    let (_folder, root) = place();
    let folder = |tar: Tar, name, mode, time: &[u8]| tar.pax("mtime", time).folder(name, mode);
    let tar = Tar::default().folder("./", 0o755).folder("d/", 0o755);
    let tar = tar.symlink("up", "d").folder("d/deep/", 0o755);
    let tar = tar.symlink("down", "up/deep");
    let tar = folder(tar, "up/a/", 0o750, b"7");
    let tar = folder(tar, "down/b/", 0o700, b"8.5").file("down/b/file", "");
    // The last entry is the one that counts, whatever name it has.
    let tar = folder(folder(tar, "up/c/", 0o700, b"9"), "d/c/", 0o711, b"10");
    let tar = folder(folder(tar, "d/e/", 0o711, b"11"), "up/e/", 0o700, b"12");
    let tar = tar.file("up/a/file", "").file("up/implied/file", "");
    let implied = run(&tar, &root).unwrap();
    assert_eq!(implied.folders, [b"d/implied"]);
    for (path, mode, time) in [
        ("d", 0o755, (1_000_000_000, 0)),
        ("d/a", 0o750, (7, 0)),
        ("d/deep/b", 0o700, (8, 500_000_000)),
        ("d/c", 0o711, (10, 0)),
        ("d/e", 0o700, (12, 0)),
    ] {
        let looks = root.join(path).symlink_metadata().unwrap();
        assert_eq!(looks.mode() & 0o7777, mode, "{path}");
        assert_eq!((looks.mtime(), looks.mtime_nsec()), time, "{path}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !is_root() {
        return;
    }
    let (_folder, root) = place();
    let tar = Tar::default()
        .file("a", "old")
        .file("a", "new")
        .folder("b", 0o755)
        .file("b/inner", "")
        .file("b", "now a file")
        .symlink("c", "/etc")
        .folder("c", 0o755)
        .file("c/inner", "not in /etc");
    run(&tar, &root).unwrap();
    assert_eq!(std::fs::read(root.join("a")).unwrap(), b"new");
    assert_eq!(std::fs::read(root.join("b")).unwrap(), b"now a file");
    assert!(root.join("c").symlink_metadata().unwrap().is_dir());
    assert!(root.join("c/inner").exists());
}

#[test]
fn writing_to_a_name_that_is_a_symlink_replaces_the_link() {
    let (folder, root) = place();
    let tar = Tar::default()
        .symlink("a", folder.path().join("outside").to_str().unwrap())
        .file("a", "inside");
    run(&tar, &root).unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.path().join("outside")).unwrap(),
        "untouched"
    );
    assert_eq!(std::fs::read(root.join("a")).unwrap(), b"inside");
}

#[test]
fn whiteouts_become_what_overlayfs_understands() {
    if !is_root() {
        return;
    }
    let (_folder, root) = place();
    let tar = Tar::default()
        .folder("d", 0o755)
        .file("d/.wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file(".wh.remade", "")
        .folder("remade", 0o700)
        .file("remade/x", "")
        .folder("first", 0o700)
        .file(".wh.first", "")
        .file(".wh.implied", "")
        .file("implied/x", "")
        .file("stays", "")
        .file(".wh.stays", "")
        .file(".wh..wh.plnk/1.2", "")
        .link(".wh.linked", ".wh..wh.aufs");
    let implied = run(&tar, &root).unwrap();
    let is_whiteout = |path: &str| {
        let metadata = root.join(path).symlink_metadata().unwrap();
        metadata.file_type().is_char_device() && metadata.rdev() == 0
    };
    let is_opaque = |path: &str| {
        let mut value = [0; 4];
        rustix::fs::getxattr(root.join(path), "trusted.overlay.opaque", &mut value)
            .is_ok_and(|n| value[..n] == *b"y")
    };
    assert!(is_whiteout("d/gone") && is_whiteout("linked"));
    assert!(is_opaque("d") && is_opaque("remade") && is_opaque("first") && is_opaque("implied"));
    assert!(root.join("stays").symlink_metadata().unwrap().is_file());
    assert!(!root.join(".wh..wh.plnk").exists() && !root.join("d/.wh.gone").exists());
    assert_eq!(
        implied.folders,
        [Vec::<u8>::new()],
        "a folder in a whiteout's place takes nothing from below"
    );
}

#[test]
fn folders_without_an_entry_look_like_those_below() {
    if !is_root() {
        return;
    }
    let (folder, top) = place();
    let layer = |name: &str, tar: Tar| {
        let root = folder.path().join(name);
        std::fs::create_dir(&root).unwrap();
        (run(&tar, &root).unwrap(), root)
    };
    let (_, base) = layer(
        "base",
        Tar::default()
            .folder("./", 0o750)
            .folder("tmp", 0o1777)
            .folder("a", 0o700)
            .folder("a/b", 0o711),
    );
    let (_, middle) = layer("middle", Tar::default().folder("./", 0o705).file(".wh.a", ""));
    let implied = run(&Tar::default().file("tmp/x", "").file("a/b/c", ""), &top).unwrap();
    assert_eq!(implied.folders.len(), 4, "{implied:?}");
    adopt(&top, &implied, &[&middle, &base], u64::MAX).unwrap();
    let mode = |path: &str| top.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode("."), 0o705);
    assert_eq!(mode("tmp"), 0o1777);
    assert_eq!(top.join("tmp").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(mode("a"), 0o755, "the layer between hides what is below");
    assert_eq!(mode("a/b"), 0o755);
}

#[test]
fn a_whiteout_stays_only_where_it_hides_something() {
    if !is_root() {
        return;
    }
    let (folder, top) = place();
    let base = folder.path().join("base");
    std::fs::create_dir(&base).unwrap();
    let tar = ["a/hidden", "opaque/hidden", "b"];
    let tar = tar.iter().fold(Tar::default(), |tar, path| tar.file(path, ""));
    run(&tar, &base).unwrap();
    let mut tar = Tar::default().folder("new/", 0o755).folder("opaque/", 0o755);
    for path in [
        "a/.wh.hidden",
        "a/.wh.nothing",
        "opaque/.wh.hidden",
        "opaque/.wh..wh..opq",
        "new/.wh.nothing",
        "b/.wh.within",
        ".wh.nothing",
    ] {
        tar = tar.file(path, "");
    }
    let implied = run(&tar, &top).unwrap();
    adopt(&top, &implied, &[&base], u64::MAX).unwrap();
    let names = |path: &str| {
        let names = std::fs::read_dir(top.join(path)).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["a", "b", "new", "opaque"]);
    assert_eq!(names("a"), ["hidden"]);
    for path in ["b", "new", "opaque"] {
        assert!(names(path).is_empty(), "{path}");
    }
    for path in ["new", "opaque"] {
        let looks = top.join(path).symlink_metadata().unwrap();
        assert_eq!(looks.mtime(), 1_000_000_000, "{path}");
    }
}

#[test]
fn of_two_entries_for_a_folder_the_later_one_holds() {
    if !is_root() {
        return;
    }
    let (_folder, root) = place();
    let permissions = |tag: u8, bits: u8| [tag, 0, bits, 0, 0xff, 0xff, 0xff, 0xff];
    let acl = [
        &[2, 0, 0, 0][..],
        &permissions(1, 7),
        &permissions(4, 5),
        &permissions(0x20, 5),
    ]
    .concat();
    let default_acl = "SCHILY.xattr.system.posix_acl_default";
    let tar = Tar::default()
        .pax(default_acl, &acl)
        .folder("lost", 0o755)
        .pax("mtime", b"7")
        .folder("lost", 0o755)
        .folder("kept", 0o755)
        .pax(default_acl, &acl)
        .folder("kept", 0o755)
        .file("lost/file", "")
        .file("kept/file", "");
    run(&tar, &root).unwrap();
    assert_eq!(root.join("lost").metadata().unwrap().mtime(), 7);
    let mut value = [0; 64];
    let mut has_acl = |path: &str, name: &str| match rustix::fs::getxattr(root.join(path), name, &mut value) {
        Ok(length) => length > 0,
        Err(rustix::io::Errno::NODATA) => false,
        Err(e) => panic!("{path}: {e}"),
    };
    assert!(has_acl("kept", "system.posix_acl_default"));
    assert!(!has_acl("lost", "system.posix_acl_default"));
    assert!(
        !has_acl("kept/file", "system.posix_acl_access"),
        "an ACL was inherited"
    );
}

#[test]
fn owners_devices_and_capabilities_survive() {
    if !is_root() {
        return;
    }
    let (_folder, root) = place();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::default()
        .pax_records(&[
            ("uid", b"1234"),
            ("SCHILY.xattr.security.capability", &capability),
        ])
        .raw(b'0', b"ping", b"", b"", 0o4755)
        .device(b'3', "null", 1, 3);
    run(&tar, &root).unwrap();
    let ping = root.join("ping").metadata().unwrap();
    assert_eq!((ping.uid(), ping.mode() & 0o7777), (1234, 0o4755));
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(root.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
    let null = root.join("null").metadata().unwrap();
    assert_eq!(
        (null.rdev(), null.mode() & 0o777),
        (rustix::fs::makedev(1, 3), 0o666)
    );
}

#[test]
fn hard_links_to_a_lower_layers_file_bring_it_up() {
    if !is_root() {
        return;
    }
    let (folder, top) = place();
    let base = folder.path().join("base");
    std::fs::create_dir(&base).unwrap();
    let below = Tar::default()
        .folder("bin", 0o711)
        .pax("SCHILY.xattr.user.key", b"value")
        .raw(b'0', b"bin/tool", b"", b"content", 0o4755)
        .file("bin/gone", "")
        .symlink("bin/link", "tool");
    run(&below, &base).unwrap();
    let tar = Tar::default()
        .link("first", "bin/tool")
        .link("second", "bin/tool")
        .link("third", "first")
        .file("second", "a file of its own")
        .link("late", "bin/gone")
        .file("bin/.wh.gone", "");
    adopt(&top, &run(&tar, &top).unwrap(), &[&base], u64::MAX).unwrap();
    let at = |path: &str| top.join(path).symlink_metadata().unwrap();
    for path in ["bin/tool", "first", "third"] {
        assert_eq!(std::fs::read(top.join(path)).unwrap(), b"content", "{path}");
        assert_eq!(
            (at(path).ino(), at(path).mode() & 0o7777),
            (at("first").ino(), 0o4755)
        );
    }
    assert_eq!(at("first").mtime(), 1_000_000_000);
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(top.join("third"), "user.key", &mut value).unwrap();
    assert_eq!(&value[..length], b"value");
    assert_eq!(std::fs::read(top.join("second")).unwrap(), b"a file of its own");
    assert_eq!(at("bin").mode() & 0o7777, 0o711);
    assert!(at("late").is_file() && at("bin/gone").file_type().is_char_device());
    for target in ["bin/link", "bin/none"] {
        let (_folder, root) = place();
        let implied = run(&Tar::default().link("a", target), &root).unwrap();
        match adopt(&root, &implied, &[&base], u64::MAX) {
            Err(Failure::Rule { entry, rule }) => {
                assert_eq!(entry.unwrap(), b"a");
                assert!(rule.contains(target), "{rule}");
            }
            other => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn what_estargz_adds_for_lazy_pulls_is_no_file_of_the_image() {
    let seen = |tar: Tar| {
        let (_folder, root) = place();
        run(&tar, &root).unwrap();
        let names = std::fs::read_dir(&root).unwrap();
        let mut names: Vec<_> = names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let index = r#"{"version": 1, "entries": []}"#;
    for landmark in [".prefetch.landmark", "./.no.prefetch.landmark"] {
        let tar = Tar::default().file("a", "").file(landmark, "\u{f}");
        assert_eq!(seen(tar.file("stargz.index.json", index)), ["a"]);
    }
    // Somebody's own files of the same names.
    let own = Tar::default()
        .file("stargz.index.json", index)
        .file(".prefetch.landmark", "more than a byte")
        .file("b", "");
    assert_eq!(seen(own), [".prefetch.landmark", "b", "stargz.index.json"]);
}

#[test]
fn links_to_what_is_below_are_within_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (base, top) = (folder.path().join("base"), folder.path().join("top"));
    std::fs::create_dir(&base).unwrap();
    std::fs::create_dir(&top).unwrap();
    std::fs::write(base.join("large"), [1; 100]).unwrap();
    let file = Borrowed {
        target: b"large".to_vec(),
        inode: 0,
        names: vec![b"large".to_vec(), b"link".to_vec()],
    };
    std::fs::write(top.join("large"), "").unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&top.join("large").metadata().unwrap());
    let implied = Implied {
        files: vec![Borrowed { inode, ..file }],
        ..Implied::default()
    };
    match adopt(&top, &implied, &[&base], 99) {
        Err(Failure::Rule { rule, .. }) => assert!(rule.contains("larger"), "{rule}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        top.join("large").metadata().unwrap().len(),
        0,
        "refused before it is copied"
    );
    assert_eq!(adopt(&top, &implied, &[&base], 100).unwrap(), 100);
}
