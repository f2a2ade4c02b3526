//! Writing a tar stream, in the form that [`crate::archive`] reads: a plain header for each entry, and before it a
//! PAX header for what does not fit one (long names, large numbers, parts of seconds, extended attributes).
//!
//! Never GNU's own headers: who writes both makes archives that readers see in different ways. Large holes of files
//! are in the PAX form that GNU tar writes and Go's, Python's and libarchive's readers know. Sources: POSIX.1-2017 pax,
//! "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "PAX Format, Version 1.0".

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::archive::{Entry, Extent, Kind, Time};

const BLOCK: u64 = 512;
/// What eleven and seven octal digits hold.
const LONG_NUMBER_MAX: u64 = 0o777_7777_7777;
const SHORT_NUMBER_MAX: u32 = 0o777_7777;
/// `name` and `linkname` of a header.
const NAME_BYTES_MAX: usize = 100;

/// A tar stream in the making.
pub(crate) struct Packer<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(stream: W) -> Packer<W> {
        Packer {
            stream,
            buffer: vec![0; 64 << 10],
        }
    }

    /// Add an entry with the data of a regular file.
    ///
    /// Exactly as much is written as the entry's size or extents say, as a header promises it before it is read: a file
    /// that has grown since is cut, one that has shrunk is filled with zeros. Of a file with extents, `data` is what is
    /// in them, one after the other.
    pub(crate) fn append(&mut self, entry: &Entry, mut data: impl Read) -> io::Result<()> {
        let map = entry
            .extents
            .as_ref()
            .map(|extents| sparse_map(extents, entry.size));
        let map = map.unwrap_or_default();
        let data_bytes = match &entry.extents {
            Some(extents) => extents.iter().map(|extent| extent.length).sum(),
            None => entry.size,
        };
        let stored_bytes = map.len() as u64 + data_bytes;
        let records = records(entry, stored_bytes)?;
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            put(&mut header.as_old_mut().name, b"PaxHeader");
            header.set_cksum();
            self.stream.write_all(header.as_bytes())?;
            self.stream.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.stream.write_all(header(entry, stored_bytes).as_bytes())?;
        self.stream.write_all(&map)?;
        let mut left = data_bytes;
        while left > 0 {
            let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = match data.read(&mut self.buffer[..want]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                got => got?,
            };
            if got == 0 {
                io::copy(&mut io::repeat(0).take(left), &mut self.stream)?;
                break;
            }
            self.stream.write_all(&self.buffer[..got])?;
            left -= got as u64;
        }
        self.pad(stored_bytes)
    }

    /// A small regular file that is in memory.
    pub(crate) fn append_document(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.append(&Entry::plain(path.as_bytes(), content.len() as u64), content)
    }

    /// The stream below, to ask it why it failed.
    pub(crate) fn stream_mut(&mut self) -> &mut W {
        &mut self.stream
    }

    /// End the archive: two blocks of zeros.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.stream.write_all(&[0; 2 * BLOCK as usize])?;
        self.stream.flush()?;
        Ok(self.stream)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = size.next_multiple_of(BLOCK) - size;
        self.stream.write_all(&[0; BLOCK as usize][..rest as usize])
    }
}

impl Entry {
    /// The same entry of a tree whose root is called `name`. Its own path may be that of the root (`./`, or empty).
    pub(crate) fn named_below(&self, name: &[u8]) -> Entry {
        let below = |path: &[u8]| match path {
            b"" => name.to_vec(),
            b"./" => [name, b"/"].concat(),
            path => [name, b"/", path].concat(),
        };
        let is_link = self.kind == Kind::HardLink;
        Entry {
            path: below(&self.path),
            link: if is_link {
                below(&self.link)
            } else {
                self.link.clone()
            },
            extents: self.extents.clone(),
            xattrs: self.xattrs.clone(),
            ..*self
        }
    }

    /// A regular file of root's, without a time: the same content makes the same archive.
    pub(crate) fn plain(path: &[u8], size: u64) -> Entry {
        Entry {
            path: path.to_vec(),
            link: Vec::new(),
            kind: Kind::File,
            size,
            extents: None,
            mode: 0o644,
            uid: 0,
            gid: 0,
            modified: Time::default(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

/// What stands before the data of a file with holes: how many extents there are, and the place and length of each, in
/// decimal lines. The last one ends where the file does.
fn sparse_map(extents: &[Extent], size: u64) -> Vec<u8> {
    let end = Extent {
        offset: size,
        length: 0,
    };
    let is_complete = extents
        .last()
        .is_some_and(|last| last.offset + last.length == size);
    let all = extents.iter().chain((!is_complete).then_some(&end));
    let numbers = all.flat_map(|extent| [extent.offset, extent.length]);
    let count = extents.len() as u64 + u64::from(!is_complete);
    let lines = std::iter::once(count)
        .chain(numbers)
        .map(|number| format!("{number}\n"));
    let mut map = lines.collect::<String>().into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
    map
}

/// Where a reader that does not know of holes puts what is stored of such a file.
fn sparse_name(path: &[u8]) -> Vec<u8> {
    let name = path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], b"GNUSparseFile.0/", &path[name..]].concat()
}

fn header(entry: &Entry, stored_bytes: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        Kind::File => EntryType::Regular,
        Kind::HardLink => EntryType::Link,
        Kind::Symlink => EntryType::Symlink,
        Kind::CharDevice => EntryType::Char,
        Kind::BlockDevice => EntryType::Block,
        Kind::Directory => EntryType::Directory,
        Kind::Fifo => EntryType::Fifo,
    });
    match entry.extents {
        Some(_) => put(&mut header.as_old_mut().name, &sparse_name(&entry.path)),
        None => put(&mut header.as_old_mut().name, &entry.path),
    }
    put(&mut header.as_old_mut().linkname, &entry.link);
    header.set_mode(entry.mode);
    // What does not fit stands in the PAX header, which wins.
    header.set_uid(entry.uid.min(SHORT_NUMBER_MAX).into());
    header.set_gid(entry.gid.min(SHORT_NUMBER_MAX).into());
    header.set_size(stored_bytes.min(LONG_NUMBER_MAX));
    header.set_mtime(entry.modified.seconds.clamp(0, LONG_NUMBER_MAX.cast_signed()) as u64);
    // Fails only for formats other than ustar.
    let _ = header.set_device_major(entry.device.0);
    let _ = header.set_device_minor(entry.device.1);
    header.set_cksum();
    header
}

/// As much of a name as a header has room for.
fn put(field: &mut [u8], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// The PAX records that an entry needs; empty for most.
fn records(entry: &Entry, stored_bytes: u64) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut records, key, value);
    if entry.extents.is_some() {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", &entry.path);
        add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
    } else if entry.path.len() > NAME_BYTES_MAX {
        add(b"path", &entry.path);
    }
    if entry.link.len() > NAME_BYTES_MAX {
        add(b"linkpath", &entry.link);
    }
    if stored_bytes > LONG_NUMBER_MAX {
        add(b"size", stored_bytes.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if id > SHORT_NUMBER_MAX {
            add(key, id.to_string().as_bytes());
        }
    }
    let Time { seconds, nanoseconds } = entry.modified;
    if nanoseconds > 0 || seconds < 0 || seconds > LONG_NUMBER_MAX.cast_signed() {
        add(b"mtime", decimal(entry.modified).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            return Err(io::Error::other(format!(
                "the name of its attribute {} has a `=`, which ends the names in a tar: no archive can have it",
                String::from_utf8_lossy(name)
            )));
        }
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    Ok(records)
}

/// Seconds with their fraction, which counts away from zero.
fn decimal(time: Time) -> String {
    let Time { seconds, nanoseconds } = time;
    let sign = if seconds < 0 { "-" } else { "" };
    let (whole, fraction) = match nanoseconds {
        1.. if seconds < 0 => ((seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        _ => (seconds.unsigned_abs(), nanoseconds),
    };
    format!("{sign}{whole}.{fraction:09}")
}

/// `length key=value\n`, where the length counts its own digits too.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;

    fn read_back(entry: &Entry, data: &[u8]) -> (Entry, Vec<u8>) {
        let mut packer = Packer::new(Vec::new());
        packer.append(entry, data).unwrap();
        let stream = packer.finish().unwrap();
        assert_eq!(stream.len() % 512, 0);
        let mut archive = Archive::new(stream.as_slice(), 10);
        let entry = archive.next().unwrap().unwrap();
        let mut content = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match archive.read_data(&mut buffer).unwrap() {
                0 => break,
                got => content.extend_from_slice(&buffer[..got]),
            }
        }
        assert!(archive.next().unwrap().is_none());
        (entry, content)
    }

    #[test]
    fn an_attribute_that_would_get_another_name_is_refused() {
        let entry = Entry {
            xattrs: vec![(b"user.a=b".to_vec(), b"c".to_vec())],
            ..Entry::plain(b"file", 0)
        };
        let error = Packer::new(Vec::new()).append(&entry, io::empty()).unwrap_err();
        assert!(error.to_string().contains("user.a=b"), "{error}");
    }

    #[test]
    fn all_of_an_entry_comes_back() {
        let long = [b"folder/".repeat(40), b"file".to_vec()].concat();
        let times = [
            (0, 0),
            (1_700_000_000, 1),
            (-1, 500_000_000),
            (-7, 0),
            (1 << 40, 9),
            (i64::MAX, 1),
            (i64::MIN, 0),
            (i64::MIN, 1),
        ];
        for (seconds, nanoseconds) in times {
            let entry = Entry {
                uid: 3_000_000,
                gid: 4_000_000_000,
                modified: Time { seconds, nanoseconds },
                xattrs: vec![(b"user.a".to_vec(), b"line\n=\0".to_vec())],
                ..Entry::plain(&long, 3)
            };
            let (read, content) = read_back(&entry, b"abc");
            assert_eq!(format!("{read:?}"), format!("{entry:?}"));
            assert_eq!(content, b"abc");
        }
        let link = Entry {
            kind: Kind::Symlink,
            link: b"a/".repeat(80),
            ..Entry::plain(b"short", 0)
        };
        assert_eq!(read_back(&link, b"").0.link, link.link);
    }

    #[test]
    fn holes_come_back_where_they_were() {
        let extent = |offset, length| Extent { offset, length };
        let path = [b"a/".repeat(60), b"sparse".to_vec()].concat();
        for (size, extents, data) in [
            (1 << 40, vec![extent(0, 3), extent(1 << 30, 2)], &b"abcde"[..]),
            (1 << 40, vec![extent((1 << 40) - 1, 1)], b"z"),
            (1 << 40, vec![], b""),
        ] {
            let entry = Entry {
                extents: Some(extents.clone()),
                ..Entry::plain(&path, size)
            };
            let (read, content) = read_back(&entry, data);
            assert_eq!((read.path.as_slice(), read.size), (path.as_slice(), size));
            let read: Vec<Extent> = read
                .extents
                .unwrap()
                .into_iter()
                .filter(|extent| extent.length > 0)
                .collect();
            assert_eq!((read, content), (extents, data.to_vec()));
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_keeps_the_size_of_its_header() {
        assert_eq!(read_back(&Entry::plain(b"grown", 3), b"abcdef").1, b"abc");
        assert_eq!(read_back(&Entry::plain(b"shrunk", 5), b"abc").1, b"abc\0\0");
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for bytes in [1, 85, 90, 91, 92, 93, 980, 985, 990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; bytes]);
            let digits = records.split(|b| *b == b' ').next().unwrap();
            let length: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
            assert_eq!(length, records.len(), "{bytes}");
        }
    }
}
