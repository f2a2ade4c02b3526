//! `log.json` becomes `log.json.1`, that becomes `log.json.2` and so on; the oldest is deleted. A rotated file may have
//! been packed by somebody else, and then has `.gz` behind its number.
//!
//! Each step is one rename, from the oldest to the newest: whoever dies in between leaves a gap in the numbers, which the
//! next rotation fills, and no line is lost or there twice. Two locks keep others out. The folder's (flock) is held by
//! whoever renames files in it. A reader has a lock on the file in which it is, and only files before that are deleted:
//! while the only way to make room is to delete what somebody still reads, the current file grows. Who reads for clients
//! gives up on one that takes nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::{LogFile, open};
use crate::{failpoint, shim_log, sys};

/// How much a file grows, at least, before a rotation that could not be done is tried again.
const PATIENCE_BYTES_MIN: u64 = 64 << 10;
/// Below a rotated file's number.
const SUFFIXES: [&str; 2] = ["", ".gz"];

impl LogFile {
    /// Begins a new file. What prevents that loses no output.
    pub(super) fn rotate_or_postpone(&mut self, size_bytes_max: u64) {
        match self.rotate() {
            Ok(true) => {
                (self.postponed_to_bytes, self.rotation_failed) = (0, false);
                return;
            }
            Ok(false) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.rotation_failed, true) {
                    shim_log::warn(format_args!("rotate {}: {error}; it grows on", self.name()));
                }
            }
        }
        self.postponed_to_bytes = self.size_bytes + (size_bytes_max / 4).max(PATIENCE_BYTES_MIN);
    }

    /// False: somebody reads what would have to go, or renames files just now.
    fn rotate(&mut self) -> io::Result<bool> {
        let path = self.settings.path.clone();
        let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
        if !sys::try_lock_folder(&folder)? {
            return Ok(false);
        }
        // Before anything is deleted or moved: on a full disk this is what does not work.
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        let (file, size_bytes) = open(&fresh)?;
        let made = self.make_room(&path).and_then(|has_room| {
            if has_room {
                std::fs::rename(&fresh, &path)?;
                failpoint::reach("log.begun");
            }
            Ok(has_room)
        });
        if let Ok(true) = made {
            (self.file, self.size_bytes) = (file, size_bytes);
            self.has_rotated = has_rotated(&path);
        } else {
            let _ = std::fs::remove_file(&fresh);
        }
        made
    }

    /// Move all files on by one, so that the current one's place is free or may be taken.
    fn make_room(&self, path: &Path) -> io::Result<bool> {
        let last = last_number(path);
        let mut rotated_max = self.settings.files_max - 1;
        let surplus = (rotated_max.max(1)..=last).rev();
        for number in surplus {
            if !remove_unread(path, number)? {
                return Ok(false);
            }
        }
        failpoint::reach("log.oldest-removed");
        if rotated_max == 0 {
            if sys::try_lock(&self.file)? {
                // Nobody can begin to read it any more.
                return Ok(true);
            }
            // A reader is in the only file, and is given time to come to its end.
            rotated_max = 1;
        }
        for number in (1..=last.min(rotated_max - 1)).rev() {
            let [plain, packed] = SUFFIXES.map(|suffix| numbered(path, number, suffix));
            if plain.symlink_metadata().is_ok() {
                // Whoever packed it has been killed before it was removed: it is the same once more.
                missing_is_fine(std::fs::remove_file(packed))?;
            }
            for suffix in SUFFIXES {
                missing_is_fine(std::fs::rename(
                    numbered(path, number, suffix),
                    numbered(path, number + 1, suffix),
                ))?;
            }
            failpoint::reach("log.moved-up");
        }
        missing_is_fine(std::fs::rename(path, numbered(path, 1, "")))?;
        failpoint::reach("log.renamed");
        Ok(true)
    }
}

fn numbered(path: &Path, number: u32, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{number}{suffix}"));
    PathBuf::from(name)
}

/// The last number before the first gap.
fn last_number(path: &Path) -> u32 {
    let is_there = |number: &u32| {
        let exists = |suffix: &&str| numbered(path, *number, suffix).symlink_metadata().is_ok();
        SUFFIXES.iter().any(exists)
    };
    (1..u32::MAX).take_while(is_there).last().unwrap_or(0)
}

pub(super) fn has_rotated(path: &Path) -> bool {
    last_number(path) > 0
}

/// Whether somebody is in one of the rotated files.
pub(super) fn is_read(path: &Path) -> bool {
    let files =
        (1..=last_number(path)).flat_map(|number| SUFFIXES.map(|suffix| numbered(path, number, suffix)));
    let mut opened = files.filter_map(|path| for_lock(&path).ok());
    opened.any(|file| !sys::try_lock(&file).unwrap_or(false))
}

fn for_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// False: somebody is reading it.
fn remove_unread(path: &Path, number: u32) -> io::Result<bool> {
    for suffix in SUFFIXES {
        let path = numbered(path, number, suffix);
        let file = match for_lock(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if !sys::try_lock(&file)? {
            return Ok(false);
        }
        // The lock lasts until here, so that nobody has begun to read meanwhile.
        missing_is_fine(std::fs::remove_file(&path))?;
    }
    Ok(true)
}

/// All rotated files that nobody reads, as far as they can be.
pub(super) fn remove_rotated(path: &Path) {
    for number in (1..=last_number(path)).rev() {
        let _ = remove_unread(path, number);
    }
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
