use super::*;

fn ustar(kind: u8, name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    *header.as_bytes()
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = ustar(kind, "ext", content.len() as u64).to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut archive = Archive::new(bytes, 100);
    let mut entries = Vec::new();
    loop {
        match archive.next() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return Ok(entries),
            Err(Failure::Rule(_, rule)) => return Err(rule),
            Err(Failure::Read(e)) => return Err(e.to_string()),
        }
    }
}

#[test]
fn a_pax_size_is_for_what_the_header_has_no_room_for() {
    let sized = |pax: &[u8], size| [extension(b'x', pax), ustar(b'0', "a", size).to_vec()].concat();
    assert_eq!(
        read(&[sized(b"10 size=5\n", 5), vec![b'x'; BLOCK]].concat()).unwrap()[0].size,
        5
    );
    let mut archive = sized(b"19 size=8589934592\n", 0);
    archive.extend_from_slice(&[b'x'; BLOCK]);
    let error = read(&archive).unwrap_err();
    assert!(error.contains("inside an entry"), "8 GiB are skipped: {error}");
    let error = read(&[sized(b"10 size=5\n", 0), vec![b'x'; BLOCK]].concat()).unwrap_err();
    assert!(
        error.contains("0 in the header and 5 in the PAX record"),
        "{error}"
    );
}

#[test]
fn gnu_long_names_and_links_are_joined_to_their_entry() {
    let name = "n/".repeat(200);
    let mut bytes = extension(b'L', format!("{name}\0").as_bytes());
    bytes.extend(extension(b'K', b"target\0"));
    bytes.extend_from_slice(&ustar(b'2', "cut", 0));
    let entries = read(&bytes).unwrap();
    assert_eq!(entries[0].path, name.as_bytes());
    assert_eq!(entries[0].link, b"target");
}

#[test]
fn archives_that_readers_disagree_about_are_refused() {
    let pax = extension(b'x', b"10 path=x\n".as_slice());
    let mut broken_sum = ustar(b'0', "a", 0).to_vec();
    broken_sum[0] = b'b';
    let mut negative = tar::Header::new_gnu();
    negative.as_mut_bytes()[124..136].fill(0xff);
    negative.set_cksum();
    let mut huge_uid = tar::Header::new_gnu();
    huge_uid.set_uid(u64::from(u32::MAX));
    huge_uid.set_size(0);
    huge_uid.set_cksum();
    for (bytes, part) in [
        (broken_sum, "checksum"),
        (negative.as_bytes().to_vec(), "negative"),
        (huge_uid.as_bytes().to_vec(), "uid"),
        ([pax.clone(), pax.clone()].concat(), "more than one PAX"),
        (
            [pax.clone(), extension(b'L', b"y"), ustar(b'0', "a", 0).to_vec()].concat(),
            "both a PAX",
        ),
        (pax.clone(), "ends between"),
        (extension(b'g', b"10 path=x\n"), "global"),
        (ustar(b'x', "ext", 2 << 20).to_vec(), "longer than"),
        (ustar(b'D', "a", 0).to_vec(), "type 'D'"),
        (ustar(b'5', "a", 10).to_vec(), "not a regular file"),
        (ustar(b'1', "a", 10).to_vec(), "not a regular file"),
        ([[0; BLOCK], ustar(b'0', "a", 0)].concat(), "single zero block"),
        (ustar(b'0', "a", 0)[..100].to_vec(), "inside a header"),
        (
            [ustar(b'0', "a", 600).to_vec(), vec![0; 512]].concat(),
            "inside an entry",
        ),
        (ustar(b'0', "a", 0).repeat(101), "more than 100"),
        (
            [extension(b'L', b"a\0b"), ustar(b'0', "a", 0).to_vec()].concat(),
            "NUL",
        ),
    ] {
        let error = read(&bytes).unwrap_err();
        assert!(error.contains(part), "wanted {part:?}: {error}");
    }
}

#[test]
fn an_archive_may_end_with_or_without_zero_blocks() {
    let entry = ustar(b'0', "a", 0);
    assert_eq!(read(&entry).unwrap().len(), 1);
    assert_eq!(read(&[entry, [0; BLOCK]].concat()).unwrap().len(), 1);
    assert_eq!(
        read(&[entry, [0; BLOCK], [0; BLOCK], [7; BLOCK]].concat())
            .unwrap()
            .len(),
        1
    );
    assert_eq!(read(b"").unwrap().len(), 0);
    // Of the last block of an entry only what fills it up may be missing.
    let entry = ustar(b'0', "a", 5);
    assert_eq!(read(&[&entry, &b"hello"[..]].concat()).unwrap().len(), 1);
    assert!(read(&[&entry, &b"hell"[..]].concat()).is_err());
}

#[test]
fn base_256_numbers_may_be_negative() {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[136..148].fill(0xff);
    header.set_size(0);
    header.set_uid(3_000_000);
    header.set_cksum();
    let entries = read(header.as_bytes()).unwrap();
    assert_eq!((entries[0].modified.seconds, entries[0].uid), (-1, 3_000_000));
}
