//! The data of a file, without its holes.
//!
//! A hole costs a container nothing, and reading one takes as long as reading data: a file of a petabyte would keep
//! the manager busy for days, and the container paused. So large holes are told by their places, as GNU tar does;
//! small ones are written as zeros, which every reader of archives understands.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::archive::Extent;

/// A smaller hole is data: zeros compress well.
const HOLE_BYTES_MIN: u64 = 1 << 20;
/// Half of what [`crate::archive`] reads. With holes of this size, such a file has 32 GiB.
const EXTENTS_MAX: usize = 32 << 10;

/// What an archive stores of a file: its stretches of data, one after the other.
pub(crate) struct Data {
    file: Option<File>,
    extents: std::vec::IntoIter<Extent>,
    /// The rest of the one that is being read.
    current: Extent,
    cancelled: CancellationToken,
}

impl Data {
    /// Of what has none.
    pub(super) fn none() -> Data {
        Data {
            file: None,
            extents: Vec::new().into_iter(),
            current: Extent { offset: 0, length: 0 },
            cancelled: CancellationToken::new(),
        }
    }

    /// `extents` is what [`extents`] has found, in a file of `size` bytes.
    pub(super) fn of(
        file: File,
        size: u64,
        extents: Option<&Vec<Extent>>,
        cancelled: &CancellationToken,
    ) -> Data {
        let whole = || {
            vec![Extent {
                offset: 0,
                length: size,
            }]
        };
        Data {
            file: Some(file),
            extents: extents.cloned().unwrap_or_else(whole).into_iter(),
            cancelled: cancelled.clone(),
            ..Data::none()
        }
    }
}

impl Read for Data {
    /// A file that has shrunk since it was looked at ends in zeros.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.is_cancelled() {
            return Err(gone());
        }
        while self.current.length == 0 {
            match self.extents.next() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
        let want = buffer
            .len()
            .min(usize::try_from(self.current.length).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..want];
        let got = match &self.file {
            Some(file) => file.read_at(buffer, self.current.offset)?,
            None => 0,
        };
        let got = if got == 0 {
            buffer.fill(0);
            want
        } else {
            got
        };
        self.current.offset += got as u64;
        self.current.length -= got as u64;
        Ok(got)
    }
}

/// What reading ends with when nobody waits for it any more.
pub(super) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "nobody waits for it any more")
}

/// The stretches of data in a file with large holes; `None` for one without.
pub(super) fn extents(file: &File, size: u64) -> io::Result<Option<Vec<Extent>>> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(offset) = seek(file, SeekFrom::Data(at))?.filter(|offset| *offset < size) else {
            break;
        };
        let end = seek(file, SeekFrom::Hole(offset))?.unwrap_or(size).min(size);
        add(&mut extents, offset, end)?;
        at = end.max(offset + 1);
    }
    let end = extents.last().map_or(0, |last| last.offset + last.length);
    if size - end < HOLE_BYTES_MIN {
        // The last stretch, or all of a small file.
        add(&mut extents, end, size)?;
    }
    let is_whole = matches!(extents.as_slice(), [only] if only.offset == 0 && only.length == size);
    Ok((!is_whole).then_some(extents))
}

/// Add what lies from `offset` to `end` to the stretches before it; the last one grows if there is no large hole between.
fn add(extents: &mut Vec<Extent>, offset: u64, end: u64) -> io::Result<()> {
    let before = extents.last().map_or(0, |last| last.offset + last.length);
    if offset - before >= HOLE_BYTES_MIN {
        if extents.len() == EXTENTS_MAX {
            return Err(io::Error::other(format!(
                "it has more than {EXTENTS_MAX} large holes: copy it to a file without any (cp --sparse=never)"
            )));
        }
        extents.push(Extent {
            offset,
            length: end - offset,
        });
    } else if let Some(last) = extents.last_mut() {
        last.length = end - last.offset;
    } else {
        extents.push(Extent {
            offset: 0,
            length: end,
        });
    }
    Ok(())
}

/// `None`: there is no more of that up to the file's end. What knows no holes has data everywhere.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match (rustix::fs::seek(file, to), to) {
        (Ok(offset), _) => Ok(Some(offset)),
        (Err(Errno::INVAL | Errno::OPNOTSUPP), SeekFrom::Data(at)) => Ok(Some(at)),
        (Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP), _) => Ok(None),
        (Err(e), _) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const MEGABYTE: u64 = 1 << 20;

    /// A file with a byte at each of some places.
    fn file(size: u64, places: &[u64]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        for place in places {
            file.write_all_at(b"x", *place).unwrap();
        }
        file
    }

    fn stored(file: File, size: u64) -> (u64, Vec<u8>) {
        let found = extents(&file, size).unwrap();
        let mut content = Vec::new();
        let mut data = Data::of(file, size, found.as_ref(), &CancellationToken::new());
        data.read_to_end(&mut content).unwrap();
        let told = found.iter().flatten().map(|extent| extent.length).sum();
        (told, content)
    }

    #[test]
    fn large_holes_are_left_out_and_small_ones_are_data() {
        let (told, content) = stored(file(100 * MEGABYTE, &[50 * MEGABYTE]), 100 * MEGABYTE);
        assert_eq!(told, content.len() as u64);
        assert!(content.len() < 1 << 20 && content.contains(&b'x'), "{told}");
        for (size, places) in [
            (300_000, &[][..]),
            (4_000_000, &[500_000, 1_500_000, 2_500_000, 3_400_000]),
        ] {
            let (told, content) = stored(file(size, places), size);
            assert_eq!((told, content.len() as u64), (0, size));
        }
        let (told, content) = stored(file(1 << 43, &[]), 1 << 43);
        assert_eq!((told, content.len()), (0, 0), "nothing but a hole");
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_ends_in_zeros() {
        let mut shrunk = tempfile::tempfile().unwrap();
        shrunk.write_all(b"abc").unwrap();
        assert_eq!(stored(shrunk, 5).1, b"abc\0\0");
    }

    #[test]
    fn reading_ends_when_nobody_waits() {
        let cancelled = CancellationToken::new();
        let mut data = Data::of(file(1 << 30, &[]), 1 << 30, None, &cancelled);
        assert_eq!(data.read(&mut [0; 10]).unwrap(), 10);
        cancelled.cancel();
        assert!(data.read(&mut [0; 10]).is_err());
    }
}
