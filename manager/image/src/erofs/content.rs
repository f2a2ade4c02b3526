//! The content of files, appended to the image as it comes.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use super::BLOCK_BYTES;

/// What is written at once: the content of many small files.
const BUFFER_BYTES: usize = 256 << 10;
/// Block numbers have 32 bits.
const BLOCKS_MAX: u64 = u32::MAX as u64;

/// An image while its files come in.
#[derive(Debug)]
pub(crate) struct Content {
    file: BufWriter<File>,
    /// The first block that nothing is in yet.
    end: u64,
}

impl Content {
    /// Make the file of an image that has nothing yet.
    pub(crate) fn create(path: &Path) -> io::Result<Content> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        let mut content = Content {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            end: 1,
        };
        content.file.seek(SeekFrom::Start(content.offset()))?;
        Ok(content)
    }

    /// Where the next file begins, in bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.end * BLOCK_BYTES as u64
    }

    /// For the content of the next file: it stands at [`Content::offset`].
    pub(crate) fn writer(&mut self) -> &mut BufWriter<File> {
        &mut self.file
    }

    /// End a file of this size, of which all was written in a row, or (`sparse`) some parts. The block it begins in.
    pub(crate) fn end_file(&mut self, size: u64, sparse: bool) -> io::Result<u32> {
        let block = self.end;
        self.end += size.div_ceil(BLOCK_BYTES as u64);
        if self.end > BLOCKS_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if sparse {
            self.file.seek(SeekFrom::Start(self.offset()))?;
        } else {
            let padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
            self.file.write_all(&[0; BLOCK_BYTES][..padding as usize])?;
        }
        Ok(if size == 0 { 0 } else { block as u32 })
    }

    /// The file, to go on behind the content; and the first block there.
    pub(super) fn into_parts(self) -> (BufWriter<File>, u64) {
        (self.file, self.end)
    }
}
