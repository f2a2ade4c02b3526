//! The container's log, written by the shim itself so that no line depends on another process being alive.
//!
//! One JSON object a line for each chunk read, or 16 KiB of it: `{"log":…,"stream":…,"time":…}`, Docker's json-file
//! format. A chunk that is no valid UTF-8 by itself has `"log64"` in place of `"log"`, so every byte survives. Files
//! rotate by size: `log.json` becomes `log.json.1` and so on. When the disk is full the container runs on; what could
//! not be kept is counted, told in the shim's log, and told in the container's log as soon as that takes lines again.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use crate::{shim_log, timestamp};

/// Where Docker splits a line too.
const ENTRY_BYTES_MAX: usize = 16 << 10;

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
}

impl LogSettings {
    pub const SIZE_BYTES_MIN: u64 = 4096;
    pub const FILES_MAX: u32 = 1000;
}

#[derive(Debug)]
pub struct LogFile {
    settings: LogSettings,
    file: File,
    size_bytes: u64,
    /// Bytes of the container's output that were lost since writing last worked.
    lost_bytes: u64,
    line: Vec<u8>,
}

impl LogFile {
    pub fn open(settings: &LogSettings) -> io::Result<Self> {
        let (file, size_bytes) = open(&settings.path)?;
        Ok(Self {
            settings: settings.clone(),
            file,
            size_bytes,
            lost_bytes: 0,
            line: Vec::new(),
        })
    }

    /// Adds entries. Never fails: see the module's text for a full disk.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) {
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
        if self.lost_bytes > 0 {
            let notice = format!("[shim: {} bytes of output are missing here]\n", self.lost_bytes);
            encode(&mut self.line, Stream::Stderr, notice.as_bytes(), now);
            if self.write_line().is_err() {
                self.lost_bytes += chunk.len() as u64;
                return;
            }
            shim_log::warn(format_args!(
                "{}: writing works again, {} bytes were lost",
                self.name(),
                self.lost_bytes
            ));
            self.lost_bytes = 0;
        }
        encode(&mut self.line, stream, chunk, now);
        if let Err(error) = self.write_line() {
            shim_log::warn(format_args!("{}: {error}; output is being lost", self.name()));
            self.lost_bytes += chunk.len() as u64;
        }
    }

    fn name(&self) -> String {
        self.settings.path.display().to_string()
    }

    /// Writes the encoded line whole or not at all.
    fn write_line(&mut self) -> io::Result<()> {
        let length = self.line.len() as u64;
        if self
            .settings
            .size_bytes_max
            .is_some_and(|max| self.size_bytes > 0 && self.size_bytes + length > max)
        {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(&self.line) {
            // A half line would make a reader stumble over the next one.
            self.file.set_len(self.size_bytes)?;
            return Err(error);
        }
        self.size_bytes += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.settings.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let missing_is_fine = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let oldest = self.settings.files_max - 1;
        for number in (1..oldest).rev() {
            missing_is_fine(std::fs::rename(numbered(number), numbered(number + 1)))?;
        }
        if oldest == 0 {
            missing_is_fine(std::fs::remove_file(&self.settings.path))?;
        } else {
            missing_is_fine(std::fs::rename(&self.settings.path, numbered(1)))?;
        }
        (self.file, self.size_bytes) = open(&self.settings.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
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

fn encode(line: &mut Vec<u8>, stream: Stream, chunk: &[u8], at: SystemTime) {
    line.clear();
    // Writing into memory does not fail.
    if let Ok(text) = std::str::from_utf8(chunk) {
        line.extend_from_slice(b"{\"log\":");
        let _ = serde_json::to_writer(&mut *line, text);
    } else {
        line.extend_from_slice(b"{\"log64\":\"");
        base64(line, chunk);
        line.push(b'"');
    }
    let _ = writeln!(
        line,
        ",\"stream\":\"{}\",\"time\":\"{}\"}}",
        stream.name(),
        timestamp::rfc3339(at)
    );
}

/// RFC 4648 with padding.
fn base64(output: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4usize {
            if index <= group.len() {
                output.push(ALPHABET[(bits >> (18 - 6 * index) & 63) as usize]);
            } else {
                output.push(b'=');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &Path, size_bytes_max: Option<u64>, files_max: u32) -> LogSettings {
        LogSettings {
            path: folder.join("log.json"),
            size_bytes_max,
            files_max,
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
    fn base64_pads_as_the_standard_says() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            let mut output = Vec::new();
            base64(&mut output, plain.as_bytes());
            assert_eq!(String::from_utf8(output).unwrap(), coded);
        }
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
}
