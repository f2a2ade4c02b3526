//! Room set aside on the file system of the root. When that is full, even a removal cannot be put on record, and
//! nothing could ever be freed; so the ballast is thrown off then, and taken on again when there is room.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

/// Enough for the journal of many removals.
const SIZE_BYTES: i64 = 4 << 20;
/// It is not taken on while less is free than this many times its size.
const ROOM_FACTOR: u64 = 4;

#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    there: AtomicBool,
}

impl Ballast {
    pub(crate) fn at(path: PathBuf) -> Ballast {
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let there = AtomicBool::new(i64::try_from(length) == Ok(SIZE_BYTES));
        Ballast { path, there }
    }

    /// Take it on, unless it is there or room is short.
    pub(crate) fn keep(&self) {
        if self.there.load(Ordering::Relaxed) || !self.has_room() {
            return;
        }
        let made = File::create(&self.path).and_then(|file| Ok(posix_fallocate(&file, 0, SIZE_BYTES)?));
        match made {
            Ok(()) => self.there.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "no space is set aside");
                let _ = fs::remove_file(&self.path);
            }
        }
    }

    /// Throw it off. Whether there was any.
    pub(crate) fn throw_off(&self) -> bool {
        self.there.store(false, Ordering::Relaxed);
        let thrown = fs::remove_file(&self.path).is_ok();
        if thrown {
            tracing::warn!(path = %self.path.display(), "the disk is full; giving up the space set aside");
        }
        thrown
    }

    fn has_room(&self) -> bool {
        let Some(found) = self.path.parent().and_then(|folder| statvfs(folder).ok()) else {
            return false;
        };
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        free >= ROOM_FACTOR * SIZE_BYTES.unsigned_abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_takes_space_until_it_is_thrown_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ballast");
        let ballast = Ballast::at(path.clone());
        ballast.keep();
        assert_eq!(i64::try_from(fs::metadata(&path).unwrap().len()), Ok(SIZE_BYTES));
        assert!(fs::metadata(&path).unwrap().blocks() > 0);
        assert!(Ballast::at(path.clone()).throw_off());
        assert!(!path.exists());
        assert!(!ballast.throw_off());
        ballast.keep();
        assert!(path.exists());
    }
}
