//! Where the last lines of a log begin: found from its end, so that a long log costs no more than a short one.
//!
//! The folder's lock is held from one file to the next and not while one is searched, which takes seconds for a packed
//! one: the shim would not rotate meanwhile. The file that is searched is held, and so all that came after it stay.

use std::io::Read;
use std::path::Path;

use super::files::{self, LINE_MAX_BYTES, LogFile};
use super::record;
use super::splitter::Splitter;

const BLOCK_BYTES: u64 = 64 << 10;

/// Where reading begins: a file at its place, and what of the records from there on is to be left out.
pub(super) struct Start {
    pub(super) file: Option<LogFile>,
    pub(super) skip_bytes: usize,
    pub(super) skip_newlines: u64,
}

impl From<Option<LogFile>> for Start {
    fn from(file: Option<LogFile>) -> Start {
        Start {
            file,
            skip_bytes: 0,
            skip_newlines: 0,
        }
    }
}

/// Where the last `lines` lines (more than 0) begin.
pub(super) fn find(folder: &Path, lines: u64) -> std::io::Result<Start> {
    let mut search = Search {
        newlines_left: lines,
        begun: false,
    };
    let mut next = files::newest(folder)?;
    let mut oldest = None;
    while let Some(mut file) = next {
        if file.is_packed() {
            if let Some(skip_newlines) = search.in_packed(&mut file) {
                file.seek(0)?;
                return Ok(Start {
                    skip_newlines,
                    ..Some(file).into()
                });
            }
        } else if let Some((offset, skip_bytes)) = search.in_file(&file)? {
            file.seek(offset)?;
            return Ok(Start {
                skip_bytes,
                ..Some(file).into()
            });
        }
        file.seek(0)?;
        next = files::before(folder, &file)?;
        oldest = Some(file);
    }
    Ok(oldest.into())
}

struct Search {
    /// Ends of lines still to be passed.
    newlines_left: u64,
    /// The very last byte has been seen.
    begun: bool,
}

impl Search {
    /// Walk the file's records backwards. The offset of the record in which the search ends, and where in it.
    fn in_file(&mut self, file: &LogFile) -> std::io::Result<Option<(u64, usize)>> {
        let mut start = file.len()?;
        // What was read and belongs to a line that begins before `start`.
        let mut carried: Vec<u8> = Vec::new();
        while start > 0 {
            let length = start.min(BLOCK_BYTES);
            start -= length;
            let mut block = vec![0; usize::try_from(length).unwrap_or(0)];
            if let Err(error) = file.read_exact_at(&mut block, start) {
                // The shim has taken back a line for which there was no room, and what came in its place is later.
                if error.kind() == std::io::ErrorKind::UnexpectedEof && start + length > file.len()? {
                    carried.clear();
                    continue;
                }
                return Err(error);
            }
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

    /// A packed file has to be read from its beginning, and so twice: here its lines are counted, so that no memory is
    /// needed for them. How many ends of lines come before what is searched for.
    fn in_packed(&mut self, file: &mut LogFile) -> Option<u64> {
        let (mut newlines, mut ends_a_line, mut is_empty) = (0u64, false, true);
        let mut lines = Splitter::default();
        let mut block = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or(0)];
        loop {
            let length = match file.read(&mut block) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // It ends here for those who read on, too.
                Err(_) => break,
            };
            lines.feed(&block[..length], |record| {
                if let Some(last) = record.data.last() {
                    (is_empty, ends_a_line) = (false, *last == b'\n');
                    newlines += record.data.split(|byte| *byte == b'\n').count() as u64 - 1;
                }
            });
        }
        if is_empty {
            return None;
        }
        if !std::mem::replace(&mut self.begun, true) && ends_a_line {
            self.newlines_left = self.newlines_left.saturating_add(1);
        }
        if let Some(before) = newlines.checked_sub(self.newlines_left) {
            return Some(before + 1);
        }
        self.newlines_left -= newlines;
        None
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn the_shim_may_rotate_while_a_packed_file_is_searched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        // Reading from it takes until this test ends it.
        let endless = files::packed_path(&path, 1);
        mkfifo(&endless, Mode::S_IRWXU).unwrap();
        let searching = std::thread::spawn(move || find(&path, 10).map(drop));
        let mut writer = File::options().write(true).open(&endless).unwrap();
        // The header of gzip is read when a file is opened.
        writer
            .write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
            .unwrap();
        files::Still::exclusive(folder.path()).unwrap();
        assert!(!searching.is_finished());
        drop(writer);
        let _ = searching.join().unwrap();
    }
}
