//! Where the last lines of a log begin: found from its end, so that a long log costs no more than a short one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::follow::{FILES_MAX, open, path};
use super::record;

const BLOCK_BYTES: u64 = 64 << 10;
/// As for reading forward: longer lines are none of ours.
const LINE_MAX_BYTES: usize = 256 << 10;

/// The file in which the last `lines` lines (more than 0) begin, placed at its record, and how many bytes of
/// that record come before them.
pub(super) fn find(folder: &Path, lines: u64) -> std::io::Result<(Option<File>, usize)> {
    let mut search = Search {
        newlines_left: lines,
        begun: false,
    };
    let mut found = None;
    for age in 0..FILES_MAX {
        let Some(mut file) = open(&path(folder, age))? else {
            break;
        };
        if let Some((offset, skip_bytes)) = search.in_file(&mut file)? {
            file.seek(SeekFrom::Start(offset))?;
            return Ok((Some(file), skip_bytes));
        }
        file.seek(SeekFrom::Start(0))?;
        found = Some(file);
    }
    Ok((found, 0))
}

struct Search {
    /// Ends of lines still to be passed.
    newlines_left: u64,
    /// The very last byte has been seen.
    begun: bool,
}

impl Search {
    /// Walk the file's records backwards. The offset of the record in which the search ends, and where in it.
    fn in_file(&mut self, file: &mut File) -> std::io::Result<Option<(u64, usize)>> {
        let mut start = file.metadata()?.len();
        // What was read and belongs to a line that begins before `start`.
        let mut carried: Vec<u8> = Vec::new();
        while start > 0 {
            let length = start.min(BLOCK_BYTES);
            start -= length;
            file.seek(SeekFrom::Start(start))?;
            let mut block = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact(&mut block)?;
            block.append(&mut carried);
            let mut end = block.len();
            while let Some(newline) = block[..end].iter().rposition(|&byte| byte == b'\n') {
                let offset = start + newline as u64 + 1;
                if let Some(skip_bytes) = self.in_line(&block[newline + 1..end]) {
                    return Ok(Some((offset, skip_bytes)));
                }
                end = newline;
            }
            if start == 0 {
                return Ok(self.in_line(&block[..end]).map(|skip_bytes| (0, skip_bytes)));
            }
            block.truncate(end);
            if block.len() <= LINE_MAX_BYTES {
                carried = block;
            }
        }
        Ok(None)
    }

    fn in_line(&mut self, line: &[u8]) -> Option<usize> {
        let record = record::parse(line)?;
        if record.data.is_empty() {
            return None;
        }
        // The last line may or may not have its end yet; an end that is there does not begin another line.
        if !std::mem::replace(&mut self.begun, true) && record.data.ends_with(b"\n") {
            self.newlines_left = self.newlines_left.saturating_add(1);
        }
        for at in record
            .data
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at)
        {
            self.newlines_left -= 1;
            if self.newlines_left == 0 {
                return Some(at + 1);
            }
        }
        None
    }
}
