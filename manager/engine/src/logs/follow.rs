//! Reading a log from some place on, across rotation, and waiting for more.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::record::{self, Record};
use super::watch::{Subscription, Watcher};
use super::{FILE_NAME, Reading, reading, tail};
use crate::Error;

const BLOCK_BYTES: usize = 64 << 10;
/// A chunk of 16 KiB, each byte escaped as six, and the rest of the line; what is longer was not written by us.
const LINE_MAX_BYTES: usize = 256 << 10;
/// Rotated files that are looked for.
pub(super) const FILES_MAX: u32 = 1000;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// With the oldest that is kept.
    Start,
    /// With what is written from now on.
    End,
    /// So many lines before the end.
    LastLines(u64),
}

/// A reader of one container's log.
pub(crate) struct Follower {
    cursor: Option<Cursor>,
    changes: Subscription,
    reading: Reading,
}

impl Follower {
    pub(crate) async fn open(
        reading_: Reading,
        watcher: &Watcher,
        from: Position,
    ) -> Result<Follower, Error> {
        // First the watch, then the look: what is written in between is seen twice rather than never.
        let changes = watcher.subscribe(reading_.path())?;
        let folder = reading_.path().to_owned();
        let cursor = reading(folder.clone(), move || Cursor::open(folder, from)).await?;
        Ok(Follower {
            cursor: Some(cursor),
            changes,
            reading: reading_,
        })
    }

    /// The next records; none at the present end.
    pub(crate) async fn read(&mut self) -> Result<VecDeque<Record>, Error> {
        let Some(mut cursor) = self.cursor.take() else {
            return Ok(VecDeque::new());
        };
        self.changes.seen();
        let (cursor, records) = reading(self.reading.path().to_owned(), move || {
            let records = cursor.read()?;
            Ok((cursor, records))
        })
        .await?;
        self.cursor = Some(cursor);
        Ok(records)
    }

    /// Return when something may have been written since the last `read` began.
    pub(crate) async fn changed(&mut self) {
        self.changes.changed().await;
    }
}

/// A place in the files of a log.
pub(super) struct Cursor {
    folder: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// Bytes of the next record that were not asked for.
    skip_bytes: usize,
    block: Vec<u8>,
}

impl Cursor {
    pub(super) fn open(folder: PathBuf, from: Position) -> std::io::Result<Cursor> {
        let (file, skip_bytes) = match from {
            Position::Start => (oldest(&folder)?, 0),
            Position::End | Position::LastLines(0) => (newest_at_end(&folder)?, 0),
            Position::LastLines(lines) => tail::find(&folder, lines)?,
        };
        Ok(Cursor {
            folder,
            file,
            partial: Vec::new(),
            skip_bytes,
            block: vec![0; BLOCK_BYTES],
        })
    }

    pub(super) fn read(&mut self) -> std::io::Result<VecDeque<Record>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = oldest(&self.folder)?;
                if self.file.is_none() {
                    return Ok(VecDeque::new());
                }
                continue;
            };
            let mut length = file.read(&mut self.block)?;
            if length == 0 {
                let Some(next) = successor(&self.folder, file)? else {
                    return Ok(VecDeque::new());
                };
                // Its last lines may have come between the read and the rotation.
                length = file.read(&mut self.block)?;
                if length == 0 {
                    self.file = Some(next);
                    self.partial.clear();
                    continue;
                }
            }
            let records = self.take(length);
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    fn take(&mut self, length: usize) -> VecDeque<Record> {
        let mut records = VecDeque::new();
        let mut rest = &self.block[..length];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = if self.partial.is_empty() {
                record::parse(&rest[..end])
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                let parsed = record::parse(&self.partial);
                self.partial.clear();
                parsed
            };
            rest = &rest[end + 1..];
            let Some(mut record) = line else { continue };
            let skipped = std::mem::take(&mut self.skip_bytes).min(record.data.len());
            record.data.drain(..skipped);
            if !record.data.is_empty() {
                records.push_back(record);
            }
        }
        if self.partial.len() + rest.len() <= LINE_MAX_BYTES {
            self.partial.extend_from_slice(rest);
        }
        records
    }
}

/// The name of a log file by its age: 0 is the newest.
pub(super) fn path(folder: &Path, age: u32) -> PathBuf {
    match age {
        0 => folder.join(FILE_NAME),
        age => folder.join(format!("{FILE_NAME}.{age}")),
    }
}

/// Open a file, if it is there.
pub(super) fn open(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn oldest(folder: &Path) -> std::io::Result<Option<File>> {
    let mut found = open(&path(folder, 0))?;
    for age in 1..FILES_MAX {
        match open(&path(folder, age))? {
            Some(older) => found = Some(older),
            None => break,
        }
    }
    Ok(found)
}

fn newest_at_end(folder: &Path) -> std::io::Result<Option<File>> {
    let file = open(&path(folder, 0))?;
    if let Some(mut file) = file.as_ref() {
        file.seek(SeekFrom::End(0))?;
    }
    Ok(file)
}

/// The file that was begun after `file`; None while that is the newest.
fn successor(folder: &Path, file: &File) -> std::io::Result<Option<File>> {
    let own = identity(&file.metadata()?);
    let mut newer = None;
    for age in 0..FILES_MAX {
        let Some(candidate) = open(&path(folder, age))? else {
            break;
        };
        if identity(&candidate.metadata()?) == own {
            return Ok(newer);
        }
        newer = Some(candidate);
    }
    // Rotated away altogether: go on with the oldest that is left.
    Ok(newer)
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write;

    use super::*;

    fn write(path: &Path, texts: &[&str]) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        for text in texts {
            let text = serde_json::to_string(text).unwrap();
            writeln!(
                file,
                r#"{{"log":{text},"stream":"stdout","time":"2026-01-01T00:00:00Z"}}"#
            )
            .unwrap();
        }
    }

    fn all(cursor: &mut Cursor) -> String {
        let mut text = String::new();
        loop {
            let records = cursor.read().unwrap();
            if records.is_empty() {
                return text;
            }
            for record in records {
                text.push_str(std::str::from_utf8(&record.data).unwrap());
            }
        }
    }

    #[test]
    fn a_log_is_read_from_its_oldest_file_on_and_across_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let log = path(folder.path(), 0);
        let mut early = Cursor::open(folder.path().to_owned(), Position::Start).unwrap();
        assert_eq!(all(&mut early), "");
        write(&log, &["a\n", "b\n"]);
        assert_eq!(all(&mut early), "a\nb\n");
        write(&log, &["c\n"]);
        std::fs::rename(&log, path(folder.path(), 1)).unwrap();
        write(&log, &["d\n"]);
        std::fs::rename(path(folder.path(), 1), path(folder.path(), 2)).unwrap();
        std::fs::rename(&log, path(folder.path(), 1)).unwrap();
        write(&log, &["e\n"]);
        assert_eq!(all(&mut early), "c\nd\ne\n");
        let mut late = Cursor::open(folder.path().to_owned(), Position::Start).unwrap();
        assert_eq!(all(&mut late), "a\nb\nc\nd\ne\n");
    }

    #[test]
    fn from_the_end_only_what_comes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = path(folder.path(), 0);
        write(&log, &["old\n"]);
        let mut cursor = Cursor::open(folder.path().to_owned(), Position::End).unwrap();
        assert_eq!(all(&mut cursor), "");
        write(&log, &["new\n"]);
        assert_eq!(all(&mut cursor), "new\n");
    }

    #[test]
    fn the_last_lines_are_counted_in_what_was_written_not_in_chunks() {
        let folder = tempfile::tempdir().unwrap();
        write(&path(folder.path(), 1), &["1\n2\n", "3\n"]);
        write(&path(folder.path(), 0), &["4\n5", "\n6\n7\n", "8"]);
        let tail =
            |lines| all(&mut Cursor::open(folder.path().to_owned(), Position::LastLines(lines)).unwrap());
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "8");
        assert_eq!(tail(2), "7\n8");
        assert_eq!(tail(4), "5\n6\n7\n8");
        assert_eq!(tail(6), "3\n4\n5\n6\n7\n8");
        assert_eq!(tail(8), "1\n2\n3\n4\n5\n6\n7\n8");
        assert_eq!(tail(99), "1\n2\n3\n4\n5\n6\n7\n8");
    }

    #[test]
    fn the_last_lines_of_a_long_log_need_several_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..5000)
            .map(|number| format!("line {number} {}\n", "x".repeat(50)))
            .collect();
        write(
            &path(folder.path(), 0),
            &lines.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        for count in [1, 10, 1000, 4999] {
            let mut cursor = Cursor::open(folder.path().to_owned(), Position::LastLines(count)).unwrap();
            assert_eq!(
                all(&mut cursor),
                lines[5000 - usize::try_from(count).unwrap()..].concat()
            );
        }
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let log = path(folder.path(), 0);
        write(&log, &["a\n"]);
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(b"{\"log\":\"ha\n").unwrap();
        write(&log, &["b\n"]);
        let mut cursor = Cursor::open(folder.path().to_owned(), Position::Start).unwrap();
        assert_eq!(all(&mut cursor), "a\nb\n");
    }
}
