//! What has to wait until nothing more is made in a folder: its time, and its default ACL, which new objects inherit.
//!
//! It waits in a file without a name, as a layer may have millions of folders, and memory must not grow with it.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, OFlags};

use crate::archive::Time;

const BUFFER_BYTES: usize = 64 << 10;

/// The looks of one folder.
pub(super) struct Looks {
    pub(super) path: Vec<u8>,
    pub(super) modified: Time,
    pub(super) default_acl: Option<Vec<u8>>,
}

/// Those of all folders, in the order of their entries: of two for one folder the later one holds.
pub(super) struct Later {
    file: BufWriter<File>,
    count: u64,
    has_acls: bool,
}

impl Later {
    /// In the file system of `folder`.
    pub(super) fn new(folder: &OwnedFd) -> io::Result<Later> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o600))
            // Some file systems have none without a name.
            .or_else(|_| rustix::fs::memfd_create("folders", MemfdFlags::CLOEXEC))?;
        Ok(Later {
            file: BufWriter::with_capacity(BUFFER_BYTES, file.into()),
            count: 0,
            has_acls: false,
        })
    }

    pub(super) fn add(&mut self, path: &[u8], modified: Time, default_acl: Option<&[u8]>) -> io::Result<()> {
        self.count += 1;
        self.has_acls |= default_acl.is_some();
        self.file.write_all(&modified.seconds.to_ne_bytes())?;
        self.file.write_all(&modified.nanoseconds.to_ne_bytes())?;
        self.file.write_all(&[default_acl.is_some().into()])?;
        for bytes in [path, default_acl.unwrap_or_default()] {
            // The archive has bounded both.
            self.file.write_all(&(bytes.len() as u32).to_ne_bytes())?;
            self.file.write_all(bytes)?;
        }
        Ok(())
    }

    /// Whether any folder of the layer has, or has had, a default ACL.
    pub(super) fn has_acls(&self) -> bool {
        self.has_acls
    }

    /// All that was added.
    pub(super) fn read(self) -> io::Result<impl Iterator<Item = io::Result<Looks>>> {
        let mut file = self.file.into_inner()?;
        file.rewind()?;
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok((0..self.count).map(move |_| looks(&mut file)))
    }
}

fn looks(file: &mut impl Read) -> io::Result<Looks> {
    let modified = Time {
        seconds: i64::from_ne_bytes(array(file)?),
        nanoseconds: u32::from_ne_bytes(array(file)?),
    };
    let [has_acl] = array(file)?;
    let (path, acl) = (bytes(file)?, bytes(file)?);
    Ok(Looks {
        path,
        modified,
        default_acl: (has_acl != 0).then_some(acl),
    })
}

fn array<const N: usize>(file: &mut impl Read) -> io::Result<[u8; N]> {
    let mut array = [0; N];
    file.read_exact(&mut array)?;
    Ok(array)
}

fn bytes(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; u32::from_ne_bytes(array(file)?) as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
