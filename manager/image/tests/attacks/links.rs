//! Entries that lead out of their layer through links, and names that change what they are.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::*;

/// moby CVE-2014-9356, umoci CVE-2021-29136, tar CVE-2025-45582, tar-rs CVE-2021-38511, Python CVE-2025-4517,
/// astral-tokio-tar CVE-2025-59825.
#[tokio::test(flavor = "multi_thread")]
async fn entries_through_symbolic_links() {
    let (folder, out) = host();
    let through = "symbolic link";
    let beside = format!("{out}-beside");
    let s = || tar().symlink("s", &out);
    // Written out this way is longer than PATH_MAX, where realpath(3) gives up.
    let long = "d".repeat(247);
    let chain = (0..40)
        .fold(tar().folder(&long, 0o755), |tar, i| {
            tar.symlink(&format!("{long}/{i}"), &format!("../{long}"))
        })
        .symlink("escape", &out);
    are_refused(vec![
        ("the root", tar().symlink(".", &out), ".", "only be a directory"),
        (
            "a relative one",
            tar().symlink("d/s", "../../x"),
            "d/s",
            "leads out",
        ),
        ("a file", s().file("s/file", "x"), "s/file", through),
        ("a folder", s().folder("s/x", 0o777), "s/x", through),
        ("a link", s().symlink("s/x", "y"), "s/x", through),
        ("a device", s().device(b'3', "s/x", 1, 3), "s/x", through),
        ("a whiteout", s().file("s/.wh.file", ""), "s/.wh.file", through),
        (
            "an opaque mark",
            s().file("s/.wh..wh..opq", ""),
            "s/.wh..wh..opq",
            through,
        ),
        (
            "two links",
            s().symlink("a", "s").file("a/x", "x"),
            "a/x",
            through,
        ),
        ("a loop", tar().symlink("s", "s").file("s/x", "x"), "s/x", through),
        (
            "a name that begins as the root's",
            tar().symlink("s", &beside).file("s/x", "x"),
            "s/x",
            through,
        ),
        ("a long way", chain.file("escape/x", "x"), "escape/x", through),
    ])
    .await;
    assert_untouched(folder.path());
    assert!(!Path::new(&beside).exists());
}

/// node-tar CVE-2021-37701, tar-rs CVE-2026-33056, libarchive CVE-2021-31566, containerd CVE-2021-32760.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_entry_replaces_a_link_and_does_not_follow_it() {
    let (folder, out) = host();
    let file = format!("{out}/file");
    let place = Place::new().await;
    let layer = tar()
        .symlink("file", &file)
        .raw(b'0', b"file", b"", b"inside", 0o4777)
        .symlink("folder", &out)
        .folder("folder", 0o777)
        .file("folder/file", "inside")
        .symlink("fifo", &file)
        .raw(b'6', b"fifo", b"", b"", 0o666)
        .symlink("node", &file)
        .device(b'3', "node", 1, 3)
        .pax_records(&[("SCHILY.xattr.trusted.a", b"b"), ("uid", b"7")])
        .symlink("owned", &file)
        // Both names of one link, then a file in the place of one.
        .symlink("one", &file)
        .link("two", "one")
        .file("two", "inside");
    let rootfs = is_unpacked(&place, layer).await;
    assert_untouched(folder.path());
    let at = |path: &str| rootfs.lower[0].join(path);
    for path in ["file", "folder/file", "two"] {
        assert_eq!(std::fs::read_to_string(at(path)).unwrap(), "inside", "{path}");
    }
    assert_eq!(at("owned").symlink_metadata().unwrap().uid(), 7);
    assert!(at("one").symlink_metadata().unwrap().is_symlink());
}

/// moby CVE-2014-6407, tar-rs CVE-2018-20990, node-tar CVE-2021-32803, podman CVE-2024-9676.
#[tokio::test(flavor = "multi_thread")]
async fn hard_links_to_what_is_not_the_layers() {
    let (folder, out) = host();
    let file = format!("{out}/file");
    let missing = "neither in this layer nor in those below";
    let opaque = tar().folder("d", 0o755).file("d/.wh..wh..opq", "");
    are_refused(vec![
        ("above the root", tar().link("a", "../../etc/passwd"), "a", "`..`"),
        ("an absolute one", tar().link("a", "/etc/passwd"), "a", missing),
        (
            "a host's file, then written to",
            tar().link("a", &file).file("a", "x"),
            "a",
            missing,
        ),
        (
            "through a link",
            tar().symlink("s", &out).link("a", "s/file"),
            "a",
            "symbolic link",
        ),
        ("itself", tar().link("a", "a"), "a", "itself"),
        ("the root", tar().link("a", "/"), "a", "root"),
        (
            "a folder",
            tar().folder("d", 0o755).link("a", "d"),
            "a",
            "is a folder",
        ),
        (
            "what is hidden",
            tar().file(".wh.gone", "").link("a", "gone"),
            "a",
            "hidden by a whiteout",
        ),
        (
            "what an opaque folder hides",
            opaque.link("a", "d/x"),
            "a",
            missing,
        ),
        ("no target", tar().link("a", ""), "a", "name is empty"),
    ])
    .await;
    assert_untouched(folder.path());
}

/// node-tar CVE-2021-37712, and others that remembered what an earlier entry was.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_change_what_they_are() {
    let place = Place::new().await;
    let (folder, out) = host();
    let layer = tar()
        .file("a", "file")
        .folder("a", 0o755)
        .file("a/b", "in the folder")
        .file("a", "file again")
        .folder("a", 0o711)
        .folder("c", 0o755)
        .file("c/d", "")
        // The folder was open; now its name leads out, and then it is a folder again.
        .symlink("c", &out)
        .folder("c", 0o700)
        .file("c/file", "inside")
        .file("same", "first")
        .link("first", "same")
        .file("same", "second");
    let rootfs = is_unpacked(&place, layer).await;
    assert_untouched(folder.path());
    let at = |path: &str| rootfs.lower[0].join(path);
    assert_eq!(std::fs::read_dir(at("a")).unwrap().count(), 0);
    assert_eq!(at("a").metadata().unwrap().mode() & 0o7777, 0o711);
    for (path, content) in [("c/file", "inside"), ("first", "first"), ("same", "second")] {
        assert_eq!(std::fs::read_to_string(at(path)).unwrap(), content, "{path}");
    }
    assert!(!at("c/d").exists());
    for name in ["a", "c"] {
        let mut value = [0; 4];
        let length = rustix::fs::getxattr(at(name), "trusted.overlay.opaque", &mut value).unwrap();
        assert_eq!(
            &value[..length],
            b"y",
            "what {name} was before had hidden the layers below"
        );
    }
}

/// A lower layer's file is copied once for all links to it, and its holes stay holes: a layer of some hundred bytes takes
/// no more than those below it hold.
#[tokio::test(flavor = "multi_thread")]
async fn links_to_large_files_below_take_no_space() {
    let size = (1u64 << 30).to_string();
    let map = format!("{size},0");
    let mut base = tar()
        .pax_records(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.name", b"a0"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"1"),
            ("GNU.sparse.map", map.as_bytes()),
        ])
        .file("x", "");
    let mut top = tar();
    for i in 1..4 {
        base = base.link(&format!("a{i}"), "a0");
        top = top.link(&format!("b{i}"), &format!("a{i}"));
    }
    let layers = [base, top].map(|tar| made::layer(&tar.bytes(&[0; 1024]).0, Packing::Gzip));
    let server = Server::with(made::image(&layers));
    let place = Place::new().await;
    let image = place.pull(&server.reference()).await.unwrap();
    let rootfs = place.images.prepare(&image, "container").unwrap();
    let of = |name: &str| rootfs.lower[0].join(name).metadata().unwrap();
    let first = of("a1");
    for name in ["a1", "a2", "a3", "b1", "b2", "b3"] {
        let file = of(name);
        assert_eq!((file.ino(), file.len()), (first.ino(), 1 << 30), "{name}");
        assert_eq!(file.blocks(), 0, "{name}: a hole is no data");
    }
}
