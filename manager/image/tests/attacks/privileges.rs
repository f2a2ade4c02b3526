//! What a layer may bring: devices, setuid files and attributes; and how much.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::fixture::raw::header;

/// moby CVE-2021-41091, containerd CVE-2021-41103: what others may run, or open, from a layer.
#[tokio::test(flavor = "multi_thread")]
async fn setuid_files_and_devices_of_a_layer_are_out_of_reach_for_other_users() {
    let place = Place::new().await;
    let layer = tar()
        .folder("./", 0o777)
        .raw(b'0', b"root-shell", b"", b"#!", 0o6755)
        .device(b'4', "usr/share/disk", 8, 0);
    let rootfs = is_unpacked(&place, layer).await;
    let layer = &rootfs.lower[0];
    let shell = layer.join("root-shell").metadata().unwrap();
    assert_eq!(shell.mode() & 0o7777, 0o6755);
    let disk = layer.join("usr/share/disk").metadata().unwrap();
    assert_eq!(disk.rdev(), rustix::fs::makedev(8, 0));
    for own in [layer, &rootfs.upper] {
        // The store's root itself is a folder that the test has made.
        let is_closed = own
            .ancestors()
            .take_while(|path| *path != place.root())
            .any(|path| path.metadata().unwrap().permissions().mode().trailing_zeros() >= 6);
        assert!(is_closed, "every user may enter {}", own.display());
    }
    are_refused(vec![
        (
            "overlayfs's whiteout",
            tar().device(b'3', "a", 0, 0),
            "a",
            "mark of a whiteout",
        ),
        (
            "a number that is none",
            tar().device(b'3', "a", 1 << 12, 0),
            "a",
            "larger than Linux has",
        ),
        (
            "the root",
            tar().device(b'4', ".", 8, 0),
            ".",
            "only be a directory",
        ),
        (
            "a whiteout",
            tar().device(b'3', ".wh.a", 1, 3),
            ".wh.a",
            "regular file",
        ),
    ])
    .await;
}

/// tar CVE-2023-39804; overlayfs CVE-2021-3847 and CVE-2023-0386 for its own attributes.
#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_are_too_many_or_overlayfss_own() {
    let with = |key: &str, value: &[u8]| {
        tar()
            .pax(&format!("SCHILY.xattr.{key}"), value)
            .folder("d", 0o755)
    };
    let names: Vec<String> = (0..20_000).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    let long = format!("user.{}", "n".repeat(300));
    let mut attacks = vec![
        (
            "many bytes",
            with("user.a", &vec![7; 100_000]),
            "d",
            "more than 65536",
        ),
        (
            "many names",
            tar().pax_records(&many).file("a", ""),
            "",
            "more than 1000",
        ),
        ("a long name", with(&long, b""), "d", "longer than 255"),
        (
            "a huge header",
            with("user.a", &vec![7; 2 << 20]),
            "",
            "longer than 1048576",
        ),
        ("no name", with("", b"x"), "", "cannot be"),
        ("a NUL", with("user.a\0b", b"x"), "", "cannot be"),
        ("a space of no kernel", with("os2.a", b"x"), "d", "no name space"),
    ];
    for key in [
        "opaque",
        "redirect",
        "metacopy",
        "origin",
        "whiteout",
        "overlay.opaque",
    ] {
        for space in ["trusted", "user"] {
            let name = format!("{space}.overlay.{key}");
            attacks.push(("overlayfs's", with(&name, b"y"), "d", "belongs to overlayfs"));
        }
    }
    are_refused(attacks).await;
}

/// moby CVE-2017-14992, containerd CVE-2023-25153. The bounds of entries, folders and ratio are tested beside the
/// code, with smaller numbers.
#[tokio::test(flavor = "multi_thread")]
async fn floods_and_bombs() {
    let gzip = |bytes: &[u8]| made::layer(bytes, Packing::Gzip).packed;
    let large = header(b'0', b"a", b"", 300 << 30, 0o644);
    let hole = tar()
        .raw(b'S', b"a", b"", b"", 0o644)
        .edit_last(|block| block[483..495].copy_from_slice(&[0x80, 0, 0, 0, 0x70, 0, 0, 0, 0, 0, 0, 0]));
    are_refused(vec![
        (
            "a bomb in a layer in a layer",
            Tar(gzip(&gzip(&vec![0; 16 << 20]))),
            "",
            "not a tar archive",
        ),
        (
            "300 GiB",
            tar().block(&large).bytes(&[7; 4096]),
            "a",
            "larger than",
        ),
        ("a hole of exabytes", hole, "a", "larger than"),
    ])
    .await;
}
