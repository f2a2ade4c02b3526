//! Files with holes, in which nothing is stored: only their data goes into an archive, with a map of where it lies.
//! Source: GNU tar manual, "Storing Sparse Files", format 1.0, which the manager reads.

use std::fmt::Write as _;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use tar::{EntryType, Header};

use super::pack::Exactly;

const BLOCK: usize = 512;
/// `st_blocks` counts in these.
const STAT_BLOCK_BYTES: u64 = 512;
/// A map of more stretches is not worth its place: such a file goes whole.
const EXTENTS_MAX: usize = 10_000;

/// Where the data of a file lies, as offsets and lengths; None: it is to go whole.
pub(super) fn extents(file: &File, found: &Metadata) -> Option<Vec<(u64, u64)>> {
    let end = found.len();
    if found.blocks() * STAT_BLOCK_BYTES >= end {
        return None;
    }
    let mut extents = Vec::new();
    let mut at = 0;
    while at < end {
        let begins = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(begins) if begins < end => begins,
            // The rest is a hole.
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            // The file system does not tell.
            Err(_) => return None,
        };
        let ends = rustix::fs::seek(file, SeekFrom::Hole(begins)).ok()?.min(end);
        if extents.len() == EXTENTS_MAX || ends <= begins {
            return None;
        }
        extents.push((begins, ends - begins));
        at = ends;
    }
    Some(extents)
}

/// Add a file of `whole` bytes, of which only `extents` are stored.
pub(super) fn append(
    builder: &mut tar::Builder<impl Write>,
    file: &mut File,
    name: &Path,
    mut header: Header,
    whole: u64,
    extents: &[(u64, u64)],
) -> io::Result<()> {
    let mut records = Vec::new();
    record(&mut records, "GNU.sparse.major", b"1");
    record(&mut records, "GNU.sparse.minor", b"0");
    record(&mut records, "GNU.sparse.name", name.as_os_str().as_bytes());
    record(&mut records, "GNU.sparse.realsize", whole.to_string().as_bytes());
    let mut extended = Header::new_ustar();
    extended.set_entry_type(EntryType::XHeader);
    extended.set_path("PaxHeaders/sparse")?;
    extended.set_mode(0o644);
    extended.set_size(records.len() as u64);
    extended.set_cksum();
    builder.append(&extended, records.as_slice())?;

    let mut map = format!("{}\n", extents.len());
    for (offset, length) in extents {
        // A string takes it.
        let _ = write!(map, "{offset}\n{length}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    let stored: u64 = extents.iter().map(|(_, length)| length).sum();
    header.set_entry_type(EntryType::Regular);
    header.set_path("GNUSparseFile.0/file")?;
    header.set_size(map.len() as u64 + stored);
    header.set_cksum();
    let data = Extents {
        file,
        rest: extents,
        left: 0,
    };
    builder.append(&header, map.as_slice().chain(data))
}

/// `LENGTH KEY=VALUE\n`, in which the length counts itself: pax(1), "pax Extended Header".
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut digits = 1;
    while (rest + digits).to_string().len() != digits {
        digits += 1;
    }
    records.extend_from_slice(format!("{} {key}=", rest + digits).as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The data of a file, one stretch after the other.
struct Extents<'a> {
    file: &'a mut File,
    rest: &'a [(u64, u64)],
    /// Of the current stretch.
    left: u64,
}

impl Read for Extents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let Some((&(offset, length), rest)) = self.rest.split_first() else {
                return Ok(0);
            };
            self.file.seek(io::SeekFrom::Start(offset))?;
            self.rest = rest;
            self.left = length;
        }
        let got = Exactly::new(self.file, self.left).read(buffer)?;
        self.left -= got as u64;
        Ok(got)
    }
}
