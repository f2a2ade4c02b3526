//! Layers as attackers and careless tools write them, one case a line; and that honest ones come out right.
//!
//! Whiteouts, devices and owners need root; cases that do are left out for other users.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::*;

/// Builds tar bytes without the checks of an honest writer.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: u8, name: &[u8], link: &str, content: &[u8], mode: u32) -> Tar {
        if name.len() > 100 {
            self = self.raw(b'L', b"long", "", name, 0);
        }
        let mut header = tar::Header::new_gnu();
        let cut = &name[..name.len().min(100)];
        header.as_mut_bytes()[..cut.len()].copy_from_slice(cut);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Tar {
        self.raw(b'0', name.as_bytes(), "", content.as_bytes(), 0o644)
    }

    fn folder(self, name: &str, mode: u32) -> Tar {
        self.raw(b'5', name.as_bytes(), "", b"", mode)
    }

    fn symlink(self, name: &str, target: &str) -> Tar {
        self.raw(b'2', name.as_bytes(), target, b"", 0o777)
    }

    fn link(self, name: &str, target: &str) -> Tar {
        self.raw(b'1', name.as_bytes(), target, b"", 0o644)
    }

    fn pax(self, key: &str, value: &[u8]) -> Tar {
        let mut length = key.len() + value.len() + 3;
        length += (length + 2).to_string().len();
        let record = [format!("{length} {key}=").as_bytes(), value, b"\n"].concat();
        assert_eq!(record.len(), length, "the length of a record counts itself");
        self.raw(b'x', b"pax", "", &record, 0)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(tar: &Tar, root: &Path) -> Result<Implied, Failure> {
    let limits = Limits {
        entries: 1000,
        content_bytes: 1 << 20,
        xattr_bytes: 1000,
        ..Limits::default()
    };
    unpack(tar.0.as_slice(), root, &limits).map(|unpacked| unpacked.implied)
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
fn hostile_layers_are_refused_and_touch_nothing_outside() {
    let t = Tar::default;
    let deep = "d/".repeat(300) + "f";
    let wide = "w".repeat(256);
    let many = (0..1001).fold(t(), |tar, i| tar.file(&format!("f{i}"), ""));
    let cases: Vec<(&str, Tar, &str)> = vec![
        ("a file above the root", t().file("../outside", "x"), "`..`"),
        (
            "a file above the root, later",
            t().file("a/b/../../../outside", "x"),
            "`..`",
        ),
        ("a folder above the root", t().folder("..", 0o755), "`..`"),
        (
            "a pax name above the root",
            t().pax("path", b"../outside").file("a", "x"),
            "`..`",
        ),
        (
            "a symlink above the root",
            t().symlink("a", "../outside"),
            "leads out",
        ),
        (
            "a symlink above the root from a folder",
            t().symlink("d/a", "../../outside"),
            "leads out",
        ),
        ("a hard link above the root", t().link("a", "../outside"), "`..`"),
        (
            "a hard link to what is not there",
            t().link("a", "/etc/passwd"),
            "not in this layer",
        ),
        ("a hard link to itself", t().link("a", "a"), "itself"),
        (
            "a hard link to a folder",
            t().folder("d", 0o755).link("a", "d"),
            "is a folder",
        ),
        ("a hard link to the root", t().link("a", "/"), "root"),
        (
            "a hard link through an absolute symlink",
            t().symlink("s", "/etc").link("a", "s/passwd"),
            "symbolic link",
        ),
        (
            "a file through an absolute symlink",
            t().symlink("s", "/tmp").file("s/x", "x"),
            "symbolic link",
        ),
        (
            "a folder through an absolute symlink",
            t().symlink("s", "/").folder("s/x", 0o755),
            "symbolic link",
        ),
        (
            "a whiteout through an absolute symlink",
            t().symlink("s", "/").file("s/.wh.etc", ""),
            "symbolic link",
        ),
        (
            "an opaque mark through a symlink",
            t().symlink("s", "/").file("s/.wh..wh..opq", ""),
            "symbolic link",
        ),
        (
            "a file through a loop",
            t().symlink("s", "s").file("s/x", "x"),
            "symbolic link",
        ),
        (
            "a chain of symlinks",
            t().symlink("a", "b").symlink("b", "/tmp").file("a/x", "x"),
            "symbolic link",
        ),
        (
            "a file beneath a file",
            t().file("a", "").file("a/b", ""),
            "not a folder",
        ),
        ("the root as a file", t().file("./", "x"), "not a regular file"),
        ("the root as a symlink", t().symlink(".", "/"), "root"),
        ("no name", t().file("", "x"), "name is empty"),
        (
            "a NUL in a pax name",
            t().pax("path", b"a\0b").file("a", ""),
            "NUL",
        ),
        ("a path that is too deep", t().file(&deep, ""), "deeper"),
        ("a name that is too long", t().file(&wide, ""), "longer than 255"),
        ("too many entries", many, "more than 1000 entries"),
        (
            "too large",
            t().raw(b'0', b"a", "", &vec![0; (1 << 20) + 1], 0o644),
            "larger than",
        ),
        (
            "too many attributes",
            t().pax("SCHILY.xattr.user.a", &[7; 2000]).file("a", ""),
            "more than 1000",
        ),
        (
            "an overlay mark",
            t().pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
                .folder("a", 0o755),
            "overlayfs",
        ),
        (
            "an overlay redirect",
            t().pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
                .folder("a", 0o755),
            "overlayfs",
        ),
        (
            "a whiteout of nothing",
            t().file(".wh.", ""),
            "name what it hides",
        ),
        (
            "a whiteout of the parent",
            t().file("a/.wh...", ""),
            "name what it hides",
        ),
        ("an unknown mark", t().file(".wh..wh.x", ""), "reserved"),
        (
            "a file in a whiteout",
            t().file(".wh.a/b", ""),
            "beneath a whiteout",
        ),
        (
            "a whiteout that is a symlink",
            t().symlink(".wh.a", "b"),
            "regular file",
        ),
        (
            "a whiteout that is a folder",
            t().folder(".wh.a", 0o755),
            "regular file",
        ),
        (
            "a device that means whiteout",
            t().raw(b'3', b"a", "", b"", 0o644),
            "0:0",
        ),
        ("a sparse file", t().raw(b'S', b"a", "", b"", 0o644), "sparse"),
        (
            "a file that ends early",
            Tar(t().file("a", &"x".repeat(2000)).0[..1024].to_vec()),
            "ends inside",
        ),
        ("no tar at all", Tar(vec![b'x'; 2048]), "checksum"),
    ];
    for (name, tar, part) in cases {
        let (folder, root) = place();
        let rule = match run(&tar, &root) {
            Err(Failure::Rule { rule, .. }) => rule,
            Err(Failure::Read(e)) => e.to_string(),
            other => panic!("{name}: {other:?}"),
        };
        assert!(rule.contains(part), "{name}: wanted {part:?}, got: {rule}");
        assert_eq!(
            std::fs::read_to_string(folder.path().join("outside")).unwrap(),
            "untouched",
            "{name}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "{name}");
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
        .raw(b'0', long.as_bytes(), "", b"", 0o4711)
        .raw(b'6', b"fifo", "", b"", 0o600)
        .pax("mtime", b"12.5")
        .file("old", "")
        .pax("SCHILY.xattr.user.key", b"va\0lue")
        .file("attributes", "");
    let implied = run(&tar, &root).unwrap();
    assert!(implied.is_empty(), "{implied:?}");
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
fn later_entries_replace_earlier_ones() {
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
        implied,
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
    assert_eq!(implied.len(), 4, "{implied:?}");
    adopt(&top, &implied, &[&middle, &base]).unwrap();
    let mode = |path: &str| top.join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode("."), 0o705);
    assert_eq!(mode("tmp"), 0o1777);
    assert_eq!(top.join("tmp").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(mode("a"), 0o755, "the layer between hides what is below");
    assert_eq!(mode("a/b"), 0o755);
}

#[test]
fn owners_devices_and_capabilities_survive() {
    if !is_root() {
        return;
    }
    let (_folder, root) = place();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut device = tar::Header::new_gnu();
    device.set_path("null").unwrap();
    device.set_entry_type(tar::EntryType::Char);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    device.set_size(0);
    device.set_mode(0o666);
    device.set_uid(0);
    device.set_gid(5);
    device.set_cksum();
    let mut tar = Tar::default().pax("uid", b"1234").pax_and_file(
        "SCHILY.xattr.security.capability",
        &capability,
        "ping",
    );
    tar.0.extend_from_slice(device.as_bytes());
    run(&tar, &root).unwrap();
    let ping = root.join("ping").metadata().unwrap();
    assert_eq!((ping.uid(), ping.mode() & 0o7777), (1234, 0o4755));
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(root.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], capability);
    let null = root.join("null").metadata().unwrap();
    assert_eq!(
        (null.rdev(), null.gid(), null.mode() & 0o777),
        (rustix::fs::makedev(1, 3), 5, 0o666)
    );
}

impl Tar {
    /// One PAX header with two records: the last one made, and this.
    fn pax_and_file(mut self, key: &str, value: &[u8], name: &str) -> Tar {
        let first_size =
            usize::from_str_radix(std::str::from_utf8(&self.0[124..135]).unwrap().trim(), 8).unwrap();
        let first = self.0[512..512 + first_size].to_vec();
        self.0.clear();
        let second = Tar::default().pax(key, value).0;
        let second_size =
            usize::from_str_radix(std::str::from_utf8(&second[124..135]).unwrap().trim(), 8).unwrap();
        let records = [&first, &second[512..512 + second_size]].concat();
        self.raw(b'x', b"pax", "", &records, 0)
            .raw(b'0', name.as_bytes(), "", b"", 0o4755)
    }
}
