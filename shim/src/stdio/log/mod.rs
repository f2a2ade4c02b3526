//! The container's log, written by the shim itself so that no line depends on another process being alive.
//!
//! One JSON object a line for each chunk read, or 16 KiB of it: `{"log":…,"stream":…,"time":…}`, Docker's json-file
//! format. A chunk that is no valid UTF-8 by itself has `"log64"` in place of `"log"`, so every byte survives. Files
//! rotate by size (`rotation.rs`). When the disk is full the container runs on; what could not be kept is counted, told
//! in the shim's log, and told in the container's log as soon as that takes lines again.
//!
//! A log that is not kept is written only while somebody reads it, which readers show by a lock on the file.

mod encoding;
mod rotation;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use crate::{shim_log, sys};
use encoding::encode;

/// Where Docker splits a line too.
pub(super) const ENTRY_BYTES_MAX: usize = 16 << 10;

/// stdout and stderr share one file.
pub type Shared = Rc<RefCell<LogFile>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    pub path: PathBuf,
    /// Rotate before a file gets longer; `None` for never.
    pub size_bytes_max: Option<u64>,
    /// Files kept, the current one included.
    pub files_max: u32,
    /// A JSON object that each record has as `attrs`; empty for none.
    pub attributes: String,
    /// False: written only while somebody reads.
    pub kept: bool,
}

impl LogSettings {
    pub const FILES_MAX: u32 = 1000;

    /// A log in one file that never rotates.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            size_bytes_max: None,
            files_max: 1,
            attributes: String::new(),
            kept: true,
        }
    }
}

#[derive(Debug)]
pub struct LogFile {
    settings: LogSettings,
    file: File,
    size_bytes: u64,
    /// A rotation could not be done; the next try is when the file has this size.
    postponed_to_bytes: u64,
    /// Why, if that was told already.
    rotation_failed: bool,
    /// There are files before the current one.
    has_rotated: bool,
    /// Bytes of the container's output that were lost since writing last worked.
    lost_bytes: u64,
    line: Vec<u8>,
}

impl LogFile {
    pub fn open(settings: &LogSettings) -> io::Result<Self> {
        let (file, size_bytes) = open(&settings.path)?;
        let mut log = Self {
            settings: settings.clone(),
            file,
            size_bytes,
            postponed_to_bytes: 0,
            rotation_failed: false,
            has_rotated: rotation::has_rotated(&settings.path),
            lost_bytes: 0,
            line: Vec::new(),
        };
        log.end_torn_line();
        Ok(log)
    }

    /// A shim that was killed while it wrote has left the beginning of a line, which the next one must not continue.
    fn end_torn_line(&mut self) {
        let mut last = [b'\n'];
        if self.size_bytes > 0
            && let Ok(1) = self.file.read_at(&mut last, self.size_bytes - 1)
            && last != [b'\n']
            && self.file.write_all(b"\n").is_ok()
        {
            self.size_bytes += 1;
        }
    }

    /// Adds entries. Never fails: see the module's text for a full disk.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) {
        if !self.settings.kept && self.drop_unread() {
            return;
        }
        let now = SystemTime::now();
        for chunk in bytes.chunks(ENTRY_BYTES_MAX) {
            self.append_entry(stream, chunk, now);
        }
    }

    /// Nothing comes at the moment: an idle shim holds no memory for it.
    pub fn rest(&mut self) {
        self.line = Vec::new();
    }

    fn append_entry(&mut self, stream: Stream, chunk: &[u8], now: SystemTime) {
        self.line.clear();
        let attributes = &self.settings.attributes;
        if self.lost_bytes > 0 {
            // In one write with what follows: alone it might still find room, again and again.
            let notice = format!("[shim: {} bytes of output are missing here]\n", self.lost_bytes);
            encode(&mut self.line, Stream::Stderr, notice.as_bytes(), attributes, now);
        }
        encode(&mut self.line, stream, chunk, attributes, now);
        match self.write_line() {
            Ok(()) => {
                let lost_bytes = std::mem::take(&mut self.lost_bytes);
                if lost_bytes > 0 {
                    shim_log::warn(format_args!(
                        "{}: writing works again, {lost_bytes} bytes were lost",
                        self.name()
                    ));
                }
            }
            Err(error) => {
                if self.lost_bytes == 0 {
                    shim_log::warn(format_args!("{}: {error}; output is being lost", self.name()));
                }
                self.lost_bytes += chunk.len() as u64;
            }
        }
    }

    fn name(&self) -> String {
        self.settings.path.display().to_string()
    }

    /// Writes what is encoded whole or not at all.
    fn write_line(&mut self) -> io::Result<()> {
        let length = self.line.len() as u64;
        if let Some(max) = self.settings.size_bytes_max
            && self.size_bytes > 0
            && self.size_bytes + length > max.max(self.postponed_to_bytes)
        {
            self.rotate_or_postpone(max);
        }
        if self.lost_bytes > 0 {
            // A whole notice that is taken back with the line behind it would have been read meanwhile.
            sys::reserve(&self.file, self.size_bytes, length)?;
        }
        if let Err(error) = self.file.write_all(&self.line) {
            // A half line would make a reader stumble over the next one.
            self.file.set_len(self.size_bytes)?;
            return Err(error);
        }
        self.size_bytes += length;
        Ok(())
    }

    /// Whether nobody reads. Then what is still there of an earlier reading goes.
    fn drop_unread(&mut self) -> bool {
        // While the lock is there nobody begins to read.
        if !sys::try_lock(&self.file).unwrap_or(false) {
            return false;
        }
        // Who is still in an earlier file comes to this one.
        let is_read = self.has_rotated && rotation::is_read(&self.settings.path);
        if !is_read && (self.size_bytes > 0 || self.has_rotated) && self.file.set_len(0).is_ok() {
            self.size_bytes = 0;
            rotation::remove_rotated(&self.settings.path);
            self.has_rotated = rotation::has_rotated(&self.settings.path);
        }
        let _ = sys::unlock(&self.file);
        !is_read
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    // Reading is for the last byte, and writing for the lock.
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    Ok((file, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path, size_bytes_max: Option<u64>, files_max: u32) -> LogSettings {
        LogSettings {
            size_bytes_max,
            files_max,
            ..LogSettings::new(folder.join("log.json"))
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn text_and_bytes_survive() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), None, 1);
        let mut log = LogFile::open(&settings).unwrap();
        log.append(Stream::Stdout, "grüße \"x\"\n".as_bytes());
        log.append(Stream::Stderr, &[0xff, 0, b'a', b'\n']);
        let lines = lines(&settings.path);
        assert_eq!(lines[0]["log"], "grüße \"x\"\n");
        assert_eq!(lines[0]["stream"], "stdout");
        assert_eq!(lines[1]["log64"], "/wBhCg==");
        assert_eq!(lines[1]["stream"], "stderr");
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn files_rotate_by_size_and_count() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Some(4096), 3);
        let mut log = LogFile::open(&settings).unwrap();
        for number in 0..400 {
            log.append(Stream::Stdout, format!("line {number:050}\n").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["log.json", "log.json.1", "log.json.2"]);
        assert!(settings.path.metadata().unwrap().len() <= 4096);
        assert_eq!(
            lines(&settings.path).last().unwrap()["log"],
            format!("line {:050}\n", 399)
        );
    }

    #[test]
    fn one_file_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Some(4096), 1);
        let mut log = LogFile::open(&settings).unwrap();
        for _ in 0..200 {
            log.append(Stream::Stdout, &[b'x'; 100]);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(settings.path.metadata().unwrap().len() <= 4096);
    }

    #[test]
    fn a_full_device_loses_nothing_silently() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), None, 1);
        let mut log = LogFile::open(&settings).unwrap();
        log.append(Stream::Stdout, b"before\n");
        let good = std::mem::replace(
            &mut log.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        log.append(Stream::Stdout, b"lost\n");
        log.append(Stream::Stdout, b"too\n");
        assert_eq!(log.lost_bytes, 9);
        log.file = good;
        log.append(Stream::Stdout, b"after\n");
        let lines = lines(&settings.path);
        assert_eq!(lines.len(), 3);
        assert!(lines[1]["log"].as_str().unwrap().contains("9 bytes"));
        assert_eq!(lines[2]["log"], "after\n");
    }

    fn fill(log: &mut LogFile, lines: usize) {
        for _ in 0..lines {
            log.append(Stream::Stdout, &[b'x'; 1000]);
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_line_that_a_killed_shim_left_torn_is_not_continued() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), None, 1);
        std::fs::write(&settings.path, "{\"log\":\"ha").unwrap();
        let mut log = LogFile::open(&settings).unwrap();
        log.append(Stream::Stdout, b"whole\n");
        let text = std::fs::read_to_string(&settings.path).unwrap();
        let (torn, whole) = text.split_once('\n').unwrap();
        assert_eq!(torn, "{\"log\":\"ha");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(whole).unwrap()["log"],
            "whole\n"
        );
    }

    #[test]
    fn what_somebody_reads_is_not_deleted() {
        for files_max in [1, 3] {
            let folder = tempfile::tempdir().unwrap();
            let settings = settings(folder.path(), Some(10_000), files_max);
            let mut log = LogFile::open(&settings).unwrap();
            fill(&mut log, 1);
            let reader = File::open(&settings.path).unwrap();
            assert!(sys::try_lock_shared(&reader).unwrap());
            fill(&mut log, 1000);
            let kept: u64 = names(folder.path())
                .iter()
                .map(|name| folder.path().join(name).metadata().unwrap().len())
                .sum();
            assert!(kept > 1_000_000, "{files_max} files: {kept} bytes");
            drop(reader);
            fill(&mut log, 1000);
            assert_eq!(names(folder.path()).len(), files_max as usize);
            assert!(settings.path.metadata().unwrap().len() <= 10_000);
        }
    }

    #[test]
    fn a_gap_that_a_killed_shim_left_is_filled_and_packed_files_move_too() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Some(10_000), 5);
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("log.json.1.gz"), "1").unwrap();
        std::fs::write(at("log.json.3"), "3").unwrap();
        let mut log = LogFile::open(&settings).unwrap();
        fill(&mut log, 11);
        assert_eq!(
            names(folder.path()),
            ["log.json", "log.json.1", "log.json.2.gz", "log.json.3"]
        );
        assert_eq!(std::fs::read_to_string(at("log.json.2.gz")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(at("log.json.3")).unwrap(), "3");
        fill(&mut log, 20);
        assert_eq!(
            names(folder.path()),
            [
                "log.json",
                "log.json.1",
                "log.json.2",
                "log.json.3",
                "log.json.4.gz"
            ]
        );
    }

    #[test]
    fn a_log_that_is_not_kept_has_what_was_written_while_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            kept: false,
            ..settings(folder.path(), None, 1)
        };
        let mut log = LogFile::open(&settings).unwrap();
        log.append(Stream::Stdout, b"unread\n");
        assert_eq!(settings.path.metadata().unwrap().len(), 0);
        let reader = File::open(&settings.path).unwrap();
        assert!(sys::try_lock_shared(&reader).unwrap());
        log.append(Stream::Stdout, b"read\n");
        assert_eq!(lines(&settings.path)[0]["log"], "read\n");
        drop(reader);
        log.append(Stream::Stdout, b"unread\n");
        assert_eq!(settings.path.metadata().unwrap().len(), 0);
    }

    #[test]
    fn who_reads_an_earlier_file_of_a_log_that_is_not_kept_gets_the_next_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            kept: false,
            ..settings(folder.path(), Some(10_000), 1)
        };
        let mut log = LogFile::open(&settings).unwrap();
        let reader = File::open(&settings.path).unwrap();
        assert!(sys::try_lock_shared(&reader).unwrap());
        fill(&mut log, 30);
        let all: usize = names(folder.path())
            .iter()
            .map(|name| lines(&folder.path().join(name)).len())
            .sum();
        assert_eq!(all, 30);
        drop(reader);
        log.append(Stream::Stdout, b"unread\n");
        assert_eq!(names(folder.path()), ["log.json"]);
        assert_eq!(settings.path.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_rotation_that_cannot_be_done_deletes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Some(10_000), 2);
        let mut log = LogFile::open(&settings).unwrap();
        fill(&mut log, 15);
        let before = lines(&folder.path().join("log.json.1")).len();
        let in_the_way = folder.path().join("log.json.new");
        std::fs::create_dir(&in_the_way).unwrap();
        fill(&mut log, 300);
        let rotated = lines(&folder.path().join("log.json.1")).len();
        assert_eq!((rotated, rotated + lines(&settings.path).len()), (before, 315));
        std::fs::remove_dir(in_the_way).unwrap();
        fill(&mut log, 300);
        assert!(settings.path.metadata().unwrap().len() <= 10_000);
    }

    #[test]
    fn a_file_that_is_there_twice_is_moved_once() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), Some(10_000), 5);
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("log.json.1"), "1").unwrap();
        std::fs::write(at("log.json.1.gz"), "1").unwrap();
        let mut log = LogFile::open(&settings).unwrap();
        fill(&mut log, 11);
        assert_eq!(names(folder.path()), ["log.json", "log.json.1", "log.json.2"]);
    }

    #[test]
    fn each_record_has_the_attributes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            attributes: r#"{"tag":"web"}"#.to_owned(),
            ..settings(folder.path(), None, 1)
        };
        let mut log = LogFile::open(&settings).unwrap();
        log.append(Stream::Stdout, b"a\n");
        assert_eq!(lines(&settings.path)[0]["attrs"]["tag"], "web");
    }
}
