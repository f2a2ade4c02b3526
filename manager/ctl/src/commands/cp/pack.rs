//! A tree of this machine as an archive, made by a thread with a pipe to it. Others may change the files meanwhile:
//! what an entry promises in its header is what follows it, or the archive has no end.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use tar::{EntryType, Header};

use super::holes;
use crate::failure::{Failure, Result};
use crate::output::clean;

/// For a call a folder, as deep as paths may be (`PATH_MAX`): room for that is taken only when it is needed.
const STACK_BYTES: usize = 64 << 20;

/// An archive of what is at `path`, in which it is called `name`.
pub(super) fn pack(path: String, name: String) -> Result<Packing> {
    let (reader, writer) = io::pipe().map_err(|error| Failure::new(format!("make a pipe: {error}")))?;
    let packing = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || write(&path, &name, writer))
        .map_err(|error| Failure::new(format!("start a thread: {error}")))?;
    Ok(Packing {
        reader,
        packing: Some(packing),
    })
}

fn write(path: &str, name: &str, writer: PipeWriter) -> io::Result<()> {
    let mut packer = Packer {
        builder: tar::Builder::new(io::BufWriter::new(writer)),
        seen: HashMap::new(),
    };
    let follows = path.ends_with('/') || path.ends_with("/.");
    let path = Path::new(path);
    let found = if follows {
        fs::metadata(path)
    } else {
        fs::symlink_metadata(path)
    };
    packer.add(path, Path::new(name), &found.map_err(|error| at(path, &error))?)?;
    packer.builder.into_inner()?.flush()
}

/// An error of a file, with its name.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

struct Packer {
    builder: tar::Builder<io::BufWriter<PipeWriter>>,
    /// Files with several names, by device and inode, and the name that each has in the archive.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl Packer {
    fn add(&mut self, path: &Path, name: &Path, found: &Metadata) -> io::Result<()> {
        let kind = found.file_type();
        if kind.is_dir() {
            return self.folder(path, name, found);
        }
        if kind.is_file() {
            return self.file(path, name);
        }
        if kind.is_socket() {
            eprintln!(
                "managerctl: {}: is a socket, which archives have no place for: left out",
                clean(&path.to_string_lossy())
            );
            return Ok(());
        }
        let mut header = header(found);
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|error| at(path, &error))?;
            header.set_entry_type(EntryType::Symlink);
            return self
                .builder
                .append_link(&mut header, name, target)
                .map_err(|error| at(path, &error));
        }
        header.set_entry_type(match kind {
            kind if kind.is_fifo() => EntryType::Fifo,
            kind if kind.is_char_device() => EntryType::Char,
            _ => EntryType::Block,
        });
        let device = found.rdev();
        header.set_device_major(rustix::fs::major(device))?;
        header.set_device_minor(rustix::fs::minor(device))?;
        self.builder
            .append_data(&mut header, name, io::empty())
            .map_err(|error| at(path, &error))
    }

    fn folder(&mut self, path: &Path, name: &Path, found: &Metadata) -> io::Result<()> {
        let mut header = header(found);
        header.set_entry_type(EntryType::Directory);
        self.builder
            .append_data(&mut header, name, io::empty())
            .map_err(|error| at(path, &error))?;
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(|error| at(path, &error))? {
            let path = entry.path();
            match fs::symlink_metadata(&path) {
                Ok(found) => self.add(&path, &name.join(entry.file_name()), &found)?,
                // It has gone since the folder was read, as from a copy that began a moment later.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path, &error)),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let (mut file, found) = open(path).map_err(|error| at(path, &error))?;
        let mut header = header(&found);
        if found.nlink() > 1 {
            let key = (found.dev(), found.ino());
            if let Some(first) = self.seen.get(&key) {
                header.set_entry_type(EntryType::Link);
                return self
                    .builder
                    .append_link(&mut header, name, first)
                    .map_err(|error| at(path, &error));
            }
            self.seen.insert(key, name.to_owned());
        }
        if let Some(extents) = holes::extents(&file, &found) {
            let whole = found.len();
            return holes::append(&mut self.builder, &mut file, name, header, whole, &extents)
                .map_err(|error| at(path, &error));
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(found.len());
        let content = Exactly::new(&mut file, found.len());
        self.builder
            .append_data(&mut header, name, content)
            .map_err(|error| at(path, &error))
    }
}

/// What was a file a moment ago is opened as nothing else: neither through a link, nor waiting at a pipe.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("became something else while it was copied"));
    }
    Ok((file, found))
}

/// Owner, mode and time of what was found; no size.
fn header(found: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(found);
    header.set_size(0);
    header
}

/// So many bytes of a file: no more should it grow meanwhile, and an error should it become shorter.
pub(super) struct Exactly<'a> {
    file: &'a mut File,
    left: u64,
}

impl<'a> Exactly<'a> {
    pub(super) fn new(file: &'a mut File, bytes: u64) -> Self {
        Self { file, left: bytes }
    }
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.take(self.left).read(buffer)?;
        if got == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "became shorter while it was copied: copy it again, or while nobody writes to it",
            ));
        }
        self.left -= got as u64;
        Ok(got)
    }
}

/// The reading end of an archive in the making. Its end is one only if all of it could be made.
pub(super) struct Packing {
    reader: PipeReader,
    packing: Option<JoinHandle<io::Result<()>>>,
}

impl Read for Packing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(buffer)?;
        if got == 0
            && !buffer.is_empty()
            && let Some(packing) = self.packing.take()
        {
            super::joined(packing)?;
        }
        Ok(got)
    }
}

/// A reader whose bytes are counted.
pub(super) fn counted(source: Box<dyn Read + Send>) -> (Counted, Count) {
    let count = Count::default();
    let counted = Counted {
        source,
        count: count.clone(),
    };
    (counted, count)
}

pub(super) struct Counted {
    source: Box<dyn Read + Send>,
    count: Count,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buffer)?;
        self.count.0.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Count(Arc<AtomicU64>);

impl Count {
    pub(super) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(packed: &[u8]) -> Vec<(String, u64)> {
        let mut archive = tar::Archive::new(packed);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.size())
            })
            .collect()
    }

    #[test]
    fn a_file_that_changes_its_length_ends_the_archive_or_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7; 3000]).unwrap();
        let (mut file, found) = open(&path).unwrap();
        // It grows: as many bytes as it had.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&[8; 3000])
            .unwrap();
        let mut got = Vec::new();
        Exactly::new(&mut file, found.len())
            .read_to_end(&mut got)
            .unwrap();
        assert_eq!(got, [7; 3000]);
        // It shrinks.
        let (mut file, found) = open(&path).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(10)
            .unwrap();
        let error = Exactly::new(&mut file, found.len())
            .read_to_end(&mut Vec::new())
            .unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
    }

    #[test]
    fn links_stay_links_and_sockets_stay_behind() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "content").unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        std::os::unix::fs::symlink("a", at("c")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("d")).unwrap();
        let mut packed = Vec::new();
        let path = folder.path().to_string_lossy().into_owned();
        pack(path, "top".to_owned())
            .unwrap()
            .read_to_end(&mut packed)
            .unwrap();
        let mut found = names(&packed);
        found.sort();
        let sizes: u64 = found.iter().map(|(_, size)| size).sum();
        let found: Vec<_> = found.iter().map(|(name, _)| name.trim_end_matches('/')).collect();
        assert_eq!(found, ["top", "top/a", "top/b", "top/c"]);
        assert_eq!(sizes, 7, "the content is there once");
    }
}
