//! Writing a tar stream, in the form that [`crate::archive`] reads: a plain header for each entry, and before it a
//! PAX header for what does not fit one (long names, large numbers, parts of seconds, extended attributes).
//!
//! Never GNU's extensions: who writes both makes archives that readers see in different ways. Source: POSIX.1-2017
//! pax, "ustar Interchange Format" and "pax Extended Header".

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::archive::{Entry, Kind, Time};

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
    /// Exactly `entry.size` bytes are written, as a header promises them before they are read: a file that has
    /// grown since is cut, one that has shrunk is filled with zeros.
    pub(crate) fn append(&mut self, entry: &Entry, mut data: impl Read) -> io::Result<()> {
        let records = records(entry)?;
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
        self.stream.write_all(header(entry).as_bytes())?;
        let mut left = entry.size;
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
        self.pad(entry.size)
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

fn header(entry: &Entry) -> Header {
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
    put(&mut header.as_old_mut().name, &entry.path);
    put(&mut header.as_old_mut().linkname, &entry.link);
    header.set_mode(entry.mode);
    // What does not fit stands in the PAX header, which wins.
    header.set_uid(entry.uid.min(SHORT_NUMBER_MAX).into());
    header.set_gid(entry.gid.min(SHORT_NUMBER_MAX).into());
    header.set_size(entry.size.min(LONG_NUMBER_MAX));
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
fn records(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut records, key, value);
    if entry.path.len() > NAME_BYTES_MAX {
        add(b"path", &entry.path);
    }
    if entry.link.len() > NAME_BYTES_MAX {
        add(b"linkpath", &entry.link);
    }
    if entry.size > LONG_NUMBER_MAX {
        add(b"size", entry.size.to_string().as_bytes());
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
