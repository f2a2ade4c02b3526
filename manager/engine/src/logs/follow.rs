//! Reading a log from some place on, across rotation, and waiting for more.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::files::{self, BLOCK_BYTES, LogFile, Next};
use super::pace::{Claim, Pace};
use super::record::{Record, Stream};
use super::splitter::Splitter;
use super::watch::{Subscription, Watcher};
use super::{Reading, reading, tail};
use crate::Error;
use crate::request::FilePlan;

/// While a client takes nothing, it is looked at what it holds up each time this has passed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// With the oldest that is kept.
    Start,
    /// With the file in which the first line of this time or later is, in nanoseconds since 1970.
    Since(i64),
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
    pace: Pace,
    /// The last read found nothing.
    has_waited: bool,
    /// The log stays when nobody reads it.
    kept: bool,
    /// `None`: the log never rotates, and so nothing is held up.
    size_bytes_max: Option<u64>,
}

impl Follower {
    /// A log that is not kept without a reader is from when this returns.
    pub(crate) async fn open(
        reading_: Reading,
        watcher: &Watcher,
        from: Position,
        plan: FilePlan,
        claim: Claim,
    ) -> Result<Follower, Error> {
        // First the watch, then the look: what is written in between is seen twice rather than never.
        let changes = watcher.subscribe(reading_.path())?;
        let folder = reading_.path().to_owned();
        let cursor = reading(folder.clone(), move || {
            if !plan.kept {
                files::make(&folder)?;
                return Cursor::open(folder, Position::End);
            }
            Cursor::open(folder, from)
        })
        .await?;
        Ok(Follower {
            cursor: Some(cursor),
            changes,
            reading: reading_,
            pace: Pace::new(claim, Instant::now()),
            has_waited: false,
            kept: plan.kept,
            size_bytes_max: plan.size_bytes_max,
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
        // What it did before it had all there was is no measure, nor is the time that it waited for more.
        if records.is_empty() || self.has_waited {
            self.pace.caught_up(Instant::now());
        }
        self.has_waited = records.is_empty();
        if !records.is_empty() {
            self.let_go_if_due();
        }
        Ok(records)
    }

    /// Return when something may have been written since the last `read` began.
    pub(crate) async fn changed(&mut self) {
        self.changes.changed().await;
    }

    /// Hand something of so many bytes to a client; whether it still is there.
    pub(crate) async fn send<T>(&mut self, client: &mpsc::Sender<T>, message: T, bytes: usize) -> bool {
        loop {
            match tokio::time::timeout(PATIENCE, client.reserve()).await {
                Ok(Ok(room)) => {
                    room.send(message);
                    self.pace.took(bytes);
                    return true;
                }
                Ok(Err(_)) => return false,
                Err(_) => self.let_go_if_due(),
            }
        }
    }

    /// If the log has grown too much for its sake, the client is told what it will miss.
    fn let_go_if_due(&mut self) {
        if let Some(size_bytes_max) = self.size_bytes_max
            && let Some(file) = self.cursor.as_ref().and_then(|cursor| cursor.file.as_ref())
            && let Ok(newest) = std::fs::metadata(files::path(self.reading.path(), 0))
            // What nobody keeps is there only for who reads it: with no one at the newest file all else would be lost.
            && (self.kept || file.identity().is_ok_and(|identity| identity != (newest.dev(), newest.ino())))
            && self
                .pace
                .is_over(newest.len().saturating_sub(size_bytes_max), Instant::now())
        {
            file.let_go();
        }
    }
}

/// A place in the files of a log.
pub(super) struct Cursor {
    folder: PathBuf,
    file: Option<LogFile>,
    lines: Splitter,
    /// Bytes of the next record that were not asked for.
    skip_bytes: usize,
    /// Ends of lines before what was asked for.
    skip_newlines: u64,
    /// The time of the last record; what was read already is not told again after a loss.
    last_unix_nanos: i64,
    skip_until_unix_nanos: Option<i64>,
    block: Vec<u8>,
}

impl Cursor {
    pub(super) fn open(folder: PathBuf, from: Position) -> std::io::Result<Cursor> {
        let start = match from {
            Position::Start => files::oldest(&folder, i64::MIN)?.into(),
            Position::Since(unix_nanos) => files::oldest(&folder, unix_nanos)?.into(),
            Position::End | Position::LastLines(0) => files::newest_at_end(&folder)?.into(),
            Position::LastLines(lines) => tail::find(&folder, lines)?,
        };
        let tail::Start {
            file,
            skip_bytes,
            skip_newlines,
        } = start;
        Ok(Cursor {
            folder,
            file,
            lines: Splitter::default(),
            skip_bytes,
            skip_newlines,
            last_unix_nanos: i64::MIN,
            skip_until_unix_nanos: None,
            block: vec![0; BLOCK_BYTES],
        })
    }

    pub(super) fn read(&mut self) -> std::io::Result<VecDeque<Record>> {
        loop {
            let Some(file) = &mut self.file else {
                self.file = files::oldest(&self.folder, i64::MIN)?;
                if self.file.is_none() {
                    return Ok(VecDeque::new());
                }
                continue;
            };
            let mut length = read(file, &mut self.block, &self.folder);
            let mut records = VecDeque::new();
            if length == 0 {
                let (next, is_lost) = match files::after(&self.folder, file)? {
                    Next::Nothing => {
                        // What a long line has made of it.
                        self.block.truncate(BLOCK_BYTES);
                        self.block.shrink_to_fit();
                        return Ok(VecDeque::new());
                    }
                    Next::File(next) => (next, false),
                    Next::Lost(next) => (next, true),
                };
                // Its last lines may have come between the read and the rotation.
                length = read(file, &mut self.block, &self.folder);
                if length == 0 {
                    self.file = Some(next);
                    self.lines = Splitter::default();
                    if is_lost {
                        self.skip_until_unix_nanos = Some(self.last_unix_nanos);
                        records.push_back(missing(self.last_unix_nanos));
                        return Ok(records);
                    }
                    continue;
                }
            }
            self.take(length, &mut records);
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    fn take(&mut self, length: usize, records: &mut VecDeque<Record>) {
        let Cursor {
            lines,
            block,
            skip_bytes,
            skip_newlines,
            last_unix_nanos,
            skip_until_unix_nanos,
            ..
        } = self;
        lines.feed(&block[..length], |mut record| {
            if skip_until_unix_nanos.is_some_and(|until| record.at_unix_nanos <= until) {
                return;
            }
            *skip_until_unix_nanos = None;
            let skipped = std::mem::take(skip_bytes).min(record.data.len());
            record.data.drain(..skipped);
            if *skip_newlines > 0 {
                skip_lines(&mut record.data, skip_newlines);
            }
            if !record.data.is_empty() {
                *last_unix_nanos = record.at_unix_nanos;
                records.push_back(record);
            }
        });
    }
}

fn skip_lines(data: &mut Vec<u8>, newlines: &mut u64) {
    let mut ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut skipped = None;
    while *newlines > 0 {
        let Some((at, _)) = ends.next() else {
            data.clear();
            return;
        };
        skipped = Some(at + 1);
        *newlines -= 1;
    }
    if let Some(skipped) = skipped {
        data.drain(..skipped);
    }
}

/// A packed file that is broken ends where it is.
fn read(file: &mut LogFile, block: &mut Vec<u8>, folder: &Path) -> usize {
    loop {
        match file.read_on(block) {
            Ok(length) => return length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "a part of the log cannot be read");
                return 0;
            }
        }
    }
}

/// In the place of what a reader was too slow for.
fn missing(at_unix_nanos: i64) -> Record {
    Record {
        stream: Stream::Stderr,
        data: b"[manager: the client was too slow, and output is missing here]\n".to_vec(),
        at_unix_nanos,
        attributes: None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::files::path;

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

    #[test]
    fn a_line_that_was_taken_back_for_want_of_room_is_not_told_and_what_comes_in_its_place_is() {
        let folder = tempfile::tempdir().unwrap();
        let log = path(folder.path(), 0);
        write(&log, &["a\n"]);
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        let whole = file.metadata().unwrap().len();
        let mut cursor = Cursor::open(folder.path().to_owned(), Position::Start).unwrap();
        file.write_all(br#"{"log":"lost lost"#).unwrap();
        assert_eq!(all(&mut cursor), "a\n");
        file.set_len(whole).unwrap();
        assert_eq!(all(&mut cursor), "");
        write(&log, &["b\n", "c\n"]);
        assert_eq!(all(&mut cursor), "b\nc\n");
        // Its end is not there yet.
        file.write_all(br#"{"log":"d\n","stream":"#).unwrap();
        assert_eq!(all(&mut cursor), "");
        file.write_all(b"\"stdout\",\"time\":\"2026-01-01T00:00:00Z\"}\n")
            .unwrap();
        assert_eq!(all(&mut cursor), "d\n");
        let huge = "é".repeat(100_000) + "\n";
        write(&log, &[&huge, "e\n"]);
        assert_eq!(all(&mut cursor), huge + "e\n");
    }

    /// A log of random records in files of random sizes, some of them packed, beside the same in one file.
    fn random_logs(seed: u64) -> (tempfile::TempDir, tempfile::TempDir) {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = u32::try_from(random(6)).unwrap() + 1;
        for number in (0..files).rev() {
            let records: Vec<String> = (0..random(300))
                .map(|_| {
                    let lines = random(4);
                    let mut text = String::new();
                    for line in 0..lines {
                        let width = usize::try_from(random(60)).unwrap();
                        text += &[line.to_string(), "é".repeat(width), "\n".to_owned()].concat();
                    }
                    if random(3) == 0 {
                        text.push_str("no end");
                    }
                    text
                })
                .collect();
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            write(&path(whole.path(), 0), &records);
            // A gap in the numbers, as a shim that was killed leaves it.
            let number = number + u32::from(number > 1);
            let file = path(parts.path(), number);
            write(&file, &records);
            if number > 0 && random(2) == 0 {
                let packed = File::create(files::packed_path(parts.path(), number)).unwrap();
                let mut encoder = GzEncoder::new(packed, Compression::fast());
                encoder.write_all(&std::fs::read(&file).unwrap()).unwrap();
                encoder.finish().unwrap();
                std::fs::remove_file(file).unwrap();
            }
        }
        (whole, parts)
    }

    #[test]
    fn many_files_packed_or_not_read_as_one() {
        for seed in 1..40 {
            let (whole, parts) = random_logs(seed);
            for position in [0, 1, 2, 3, 10, 100, 500, 5000]
                .map(Position::LastLines)
                .into_iter()
                .chain([Position::Start, Position::End])
            {
                let mut cursors =
                    [&whole, &parts].map(|folder| Cursor::open(folder.path().to_owned(), position).unwrap());
                let [expected, found] = cursors.each_mut().map(all);
                assert_eq!(found, expected, "seed {seed}, {position:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_read_is_held_and_the_next_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let (log, older) = (path(folder.path(), 0), path(folder.path(), 1));
        write(&log, &["a\n"]);
        let is_unread = |path: &Path| {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            files::is_unread(&file).unwrap()
        };
        let mut cursor = Cursor::open(folder.path().to_owned(), Position::Start).unwrap();
        assert!(!is_unread(&log));
        std::fs::rename(&log, &older).unwrap();
        write(&log, &["b\n"]);
        assert!(!is_unread(&older));
        assert_eq!(all(&mut cursor), "a\nb\n");
        assert!(is_unread(&older));
        assert!(!is_unread(&log));
        cursor.file.as_ref().unwrap().let_go();
        assert!(is_unread(&log));
    }

    #[test]
    fn what_was_lost_is_told_and_nothing_is_told_twice() {
        let folder = tempfile::tempdir().unwrap();
        let log = path(folder.path(), 0);
        write(&log, &["a\n"]);
        let mut cursor = Cursor::open(folder.path().to_owned(), Position::Start).unwrap();
        assert_eq!(all(&mut cursor), "a\n");
        std::fs::remove_file(&log).unwrap();
        let later = r#"{"log":"c\n","stream":"stdout","time":"2026-01-01T00:00:01Z"}"#;
        write(&log, &["a\n"]);
        let mut file = OpenOptions::new().append(true).open(&log).unwrap();
        writeln!(file, "{later}").unwrap();
        let text = all(&mut cursor);
        assert!(text.starts_with("[manager: the client was too slow"), "{text}");
        assert!(text.ends_with("here]\nc\n"), "{text}");
    }
}
