//! Archives in which two readers see different entries.

use super::*;
use crate::fixture::raw::{BLOCK, header, records};

/// tokio-tar CVE-2025-62518 (`TARmageddon`), tar-rs CVE-2026-33055, astral-tokio-tar GHSA-3cv2-h65g-fgmm and
/// GHSA-fp55-jw48-c537.
#[tokio::test(flavor = "multi_thread")]
async fn pax_records_that_other_readers_do_not_see() {
    let inner = tar().file("smuggled", "x").0;
    let size = inner.len().to_string();
    let sized = |own: u64, pax: &[u8]| {
        let outer = header(b'0', b"outer", b"", own, 0o644);
        tar().pax("size", pax).block(&outer).bytes(&inner)
    };
    let pax = |content: &[u8]| tar().raw(b'x', b"pax", b"", content, 0).file("a", "");
    let both = |key: &str| {
        tar()
            .pax(key, b"8")
            .raw(b'L', b"l", b"", b"long", 0)
            .file("a", "")
    };
    let twice = records(&[("path", b"seen"), ("path", b"unpacked")]);
    let global = tar().raw(b'g', b"g", b"", &records(&[("size", b"9")]), 0);
    let mixed = "both a PAX header and a GNU";
    are_refused(vec![
        (
            "a size over none",
            sized(0, size.as_bytes()),
            "outer",
            "0 in the header",
        ),
        (
            "none over a size",
            sized(inner.len() as u64, b"0"),
            "outer",
            "0 in the PAX",
        ),
        (
            "two headers",
            tar().pax("uid", b"1").pax("uid", b"2"),
            "",
            "more than one",
        ),
        ("a record twice", pax(&twice), "", "there twice"),
        ("two ways of names", both("uid"), "", mixed),
        ("a size that meets a name", both("size"), "", mixed),
        ("a size for all", global.file("a", ""), "", "global PAX header"),
        (
            "an empty name",
            tar().pax("path", b"").file("a", ""),
            "",
            "name is empty",
        ),
        ("a record over the end", pax(b"99 path=b\n"), "", "malformed"),
        ("a record without an end", pax(b"9 path=ab"), "", "malformed"),
        (
            "a header of nothing",
            tar().file("a", "").pax("path", b"b"),
            "",
            "ends between",
        ),
    ])
    .await;
}

/// Fields that are numbers, types and paths for one reader and not for another.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_other_readers_see_differently() {
    let inner = tar().file("smuggled", "x").0;
    let field = |start: usize, value: &[u8]| {
        tar()
            .file("a", "")
            .edit_last(|block| block[start..start + value.len()].copy_from_slice(value))
    };
    let typed = |kind: u8| tar().raw(kind, b"a", b"t", b"", 0);
    let with_data = |kind: u8| tar().file("t", "").raw(kind, b"a", b"t", &inner, 0o755);
    let prefix = field(257, b"ustar\0\0\0").edit_last(|block| block[345..348].copy_from_slice(b"dir"));
    let mut damaged = tar().file("a", "");
    damaged.0[0] ^= 1;
    are_refused(vec![
        (
            "digits behind a NUL",
            field(124, b"0\x00000000100\0"),
            "",
            "octal",
        ),
        ("a NUL before digits", field(124, b"\x0000000001000"), "", "octal"),
        ("a decimal size", field(124, b"00000000009\0"), "", "octal"),
        ("a negative size", field(124, &[0xff; 12]), "", "negative"),
        ("a prefix of no version", prefix, "", "not the version"),
        (
            "a file, or a folder",
            tar().file("a/", ""),
            "a/",
            "ends as a folder's",
        ),
        ("data of a folder", with_data(b'5'), "a", "bytes of data"),
        ("data of a link", with_data(b'2'), "a", "bytes of data"),
        ("data of a hard link", with_data(b'1'), "a", "bytes of data"),
        ("a dump folder", typed(b'D'), "a", "type 'D'"),
        ("a file of many volumes", typed(b'M'), "a", "type 'M'"),
        ("a volume label", typed(b'V'), "a", "type 'V'"),
        ("Solaris's PAX header", typed(b'X'), "a", "type 'X'"),
        ("a socket of some pax", typed(b's'), "a", "type 's'"),
        (
            "entries after half an end",
            tar().file("a", "").block(&[0; BLOCK]).file("b", ""),
            "",
            "single zero block",
        ),
        ("a damaged header", damaged, "", "checksum"),
        (
            "half a header",
            tar().file("a", "").cut(300),
            "",
            "inside a header",
        ),
        (
            "half a file",
            tar().file("a", &"x".repeat(2000)).cut(1024),
            "",
            "inside an entry",
        ),
    ])
    .await;
}

/// tar CVE-2018-20482, Go CVE-2025-58183.
#[tokio::test(flavor = "multi_thread")]
async fn maps_of_holes_that_lie() {
    let old = |extents: &[(u64, u64)], stored: usize| {
        tar()
            .block(&header(b'S', b"s", b"", stored as u64, 0o644))
            .edit_last(|block| {
                for (i, (offset, length)) in extents.iter().enumerate() {
                    let text = format!("{offset:011o}\0{length:011o}\0");
                    block[386 + i * 24..][..24].copy_from_slice(text.as_bytes());
                }
                block[483..495].copy_from_slice(b"00000000062\0");
            })
    };
    let more = |tar: Tar| tar.edit_last(|block| block[482] = 1);
    let new = |map: &[u8], stored: usize| {
        let one: [(&str, &[u8]); 3] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"50"),
        ];
        let file = header(b'0', b"s", b"", stored as u64, 0o644);
        tar().pax_records(&one).block(&file).bytes(map)
    };
    let pax = |list: &[(&str, &[u8])]| {
        let list: Vec<_> = list
            .iter()
            .map(|(key, value)| (format!("GNU.sparse.{key}"), *value))
            .collect();
        let list: Vec<_> = list.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        tar().pax_records(&list)
    };
    let mut block = [0; BLOCK];
    block[504] = 1;
    let endless = block.repeat(6000);
    let digits = vec![b'1'; 3 << 20];
    let order = "out of order or longer";
    let half = pax(&[("size", b"9"), ("map", b"0,1,2")]);
    are_refused(vec![
        (
            "data behind the end",
            old(&[(45, 10)], 10).bytes(&[7; 10]),
            "s",
            order,
        ),
        (
            "data over data",
            old(&[(0, 20), (10, 20)], 40).bytes(&[7; 40]),
            "s",
            order,
        ),
        (
            "less than is stored",
            old(&[(0, 5)], 40).bytes(&[7; 40]),
            "s",
            "5 bytes of data, but 40",
        ),
        (
            "a map without end",
            more(old(&[], 0)).bytes(&endless),
            "s",
            "holes",
        ),
        (
            "a map that is cut",
            more(old(&[(0, 1)], 1)),
            "s",
            "ends inside the map",
        ),
        (
            "a count without numbers",
            new(b"9999999\n", 512),
            "s",
            "more than",
        ),
        ("digits without end", new(&digits, digits.len()), "s", "no number"),
        (
            "a map that is all",
            new(b"3\n0\n", 512),
            "s",
            "longer than its data",
        ),
        ("a map of no number", new(b"1\n-1\n5\n", 517), "s", "no number"),
        ("half a map", half.file("s", ""), "s", "not complete"),
        (
            "a map twice",
            pax(&[("map", b"0,1"), ("map", b"0,1")]),
            "",
            "twice",
        ),
        (
            "a size twice",
            pax(&[("size", b"9"), ("realsize", b"8")]),
            "",
            "twice",
        ),
        (
            "offsets alone",
            pax(&[("offset", b"9"), ("offset", b"8")]),
            "",
            "out of order",
        ),
        (
            "a name alone",
            pax(&[("name", b"other")]).file("s", "x"),
            "other",
            "without its size",
        ),
        (
            "a format to come",
            pax(&[("major", b"2"), ("minor", b"0")]).file("s", ""),
            "s",
            "format",
        ),
        (
            "two formats",
            pax(&[("size", b"0")]).raw(b'S', b"s", b"", b"", 0),
            "s",
            "two formats",
        ),
        (
            "a folder",
            pax(&[("size", b"0")]).folder("s", 0o755),
            "s",
            "not a regular file",
        ),
    ])
    .await;
}
