//! Names that lead out of the layer, cannot be, or write to the terminal of whoever reads the error.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::*;

/// moby CVE-2014-6407, tar CVE-2016-6321, Python CVE-2007-4559.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_out_of_the_layer() {
    let gnu = tar().raw(b'L', b"l", b"", b"../x\0", 0).file("a", "");
    are_refused(vec![
        ("a file above the root", tar().file("../x", "x"), "../x", "`..`"),
        (
            "a detour",
            tar().file("a/b/../../../x", "x"),
            "a/b/../../../x",
            "`..`",
        ),
        ("a folder above the root", tar().folder("..", 0o755), "..", "`..`"),
        (
            "a PAX name",
            tar().pax("path", b"../x").file("a", ""),
            "../x",
            "`..`",
        ),
        ("a GNU name", gnu, "../x", "`..`"),
        (
            "a whiteout of the parent",
            tar().file("a/.wh...", ""),
            "a/.wh...",
            "name what it hides",
        ),
        ("no name", tar().file("", "x"), "", "name is empty"),
        (
            "the root as a file",
            tar().file(".", ""),
            ".",
            "only be a directory",
        ),
    ])
    .await;
    let place = Place::new().await;
    let rootfs = is_unpacked(&place, tar().file("/etc/passwd", "the layer's")).await;
    let inside = rootfs.lower[0].join("etc/passwd");
    assert_eq!(std::fs::read_to_string(inside).unwrap(), "the layer's");
}

/// Go CVE-2022-2879, and errors that a terminal obeys.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_and_names_that_only_look_bad() {
    let deep = "d/".repeat(300) + "f";
    let long = ["n".repeat(200).as_str(); 21].join("/");
    let wide = "w".repeat(256);
    let escape = "\u{1b}]0;owned\u{7}\nlayer sha256:0000: all is well/../x";
    let gnu = |name: &[u8]| tar().raw(b'L', b"l", b"", name, 0).file("a", "");
    are_refused(vec![
        (
            "a NUL by PAX",
            tar().pax("path", b"a\0b").file("a", ""),
            "a\0b",
            "NUL",
        ),
        ("a NUL by GNU", gnu(b"a\0b"), "a\0b", "NUL"),
        (
            "a NUL in a target",
            tar().pax("linkpath", b"a\0b").symlink("s", "a"),
            "s",
            "NUL",
        ),
        (
            "a long component",
            tar().file(&wide, ""),
            &wide,
            "longer than 255",
        ),
        ("a long path", tar().file(&long, ""), "", "longer than 4095"),
        ("a deep path", tar().file(&deep, ""), "", "deeper than 256"),
        (
            "a long target",
            tar().symlink("s", &"t".repeat(5000)),
            "s",
            "5000 bytes",
        ),
        ("an empty target", tar().symlink("s", ""), "s", "0 bytes"),
        (
            "a name of megabytes",
            gnu(&vec![b'n'; 2 << 20]),
            "",
            "longer than 1048576",
        ),
        ("a name for the terminal", tar().file(escape, ""), escape, "`..`"),
        (
            "a whiteout of nothing",
            tar().file(".wh.", ""),
            ".wh.",
            "name what it hides",
        ),
        (
            "a reserved mark",
            tar().file(".wh..wh.x", ""),
            ".wh..wh.x",
            "reserved",
        ),
        (
            "a file in a mark",
            tar().file(".wh.a/b", ""),
            ".wh.a/b",
            "beneath a whiteout",
        ),
        (
            "a mark that is a link",
            tar().symlink(".wh.a", "b"),
            ".wh.a",
            "regular file",
        ),
        (
            "a file in a file",
            tar().file("a", "").file("a/b", ""),
            "a/b",
            "not a folder",
        ),
    ])
    .await;
    let place = Place::new().await;
    let strange: [&[u8]; 4] = [b"new\nline", b"\xff\xfe", b"-rf", b"\\..\\x"];
    let all = strange
        .iter()
        .fold(tar(), |tar, name| tar.raw(b'0', name, b"", b"x", 0o644));
    let rootfs = is_unpacked(&place, all).await;
    for name in strange {
        let path = rootfs.lower[0].join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read(&path).unwrap(), b"x", "{}", path.display());
    }
}
