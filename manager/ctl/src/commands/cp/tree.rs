//! This machine's side of a copy: a tree into an archive, and an archive into a tree. Each has a thread, and a pipe to it.

use std::io::{self, PipeReader, PipeWriter, Read, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::failure::{Failure, Result};

/// An archive of what is at `path`, in which it is called `name`.
pub(super) fn pack(path: String, name: String) -> Result<Packing> {
    let (reader, writer) = io::pipe().map_err(|error| Failure::new(format!("make a pipe: {error}")))?;
    let packing = std::thread::spawn(move || write(&path, &name, writer));
    Ok(Packing {
        reader,
        packing: Some(packing),
    })
}

fn write(path: &str, name: &str, writer: PipeWriter) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::new(writer));
    builder.follow_symlinks(false);
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    let path_of = Path::new(path);
    let is_folder =
        path_of.is_dir() && (!path_of.is_symlink() || path.ends_with('/') || path.ends_with("/."));
    if is_folder {
        builder.append_dir_all(name, path).map_err(named)?;
    } else {
        builder.append_path_with_name(path, name).map_err(named)?;
    }
    builder.into_inner()?.flush()
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
            joined(packing)?;
        }
        Ok(got)
    }
}

/// Where to write an archive that is to be unpacked in `folder`, and what became of it.
pub(super) fn unpack(folder: &str, keep_owners: bool) -> Result<(PipeWriter, Unpacking)> {
    if !Path::new(folder).is_dir() {
        return Err(Failure::new(format!("{folder}: no such directory")));
    }
    let (reader, writer) = io::pipe().map_err(|error| Failure::new(format!("make a pipe: {error}")))?;
    let folder = folder.to_owned();
    let unpacking = std::thread::spawn(move || {
        // It is a container's text: the library makes nothing outside of the folder, whatever links are in it.
        let mut archive = tar::Archive::new(io::BufReader::new(reader));
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(true);
        archive.set_preserve_ownerships(keep_owners);
        archive.unpack(folder)
    });
    Ok((writer, Unpacking(unpacking)))
}

pub(super) struct Unpacking(JoinHandle<io::Result<()>>);

impl Unpacking {
    /// Wait for its end; the writer has been dropped.
    pub(super) fn join(self) -> io::Result<()> {
        joined(self.0)
    }
}

fn joined(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread for it has ended")))
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
