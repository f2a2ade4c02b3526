//! Files and folders in the making: they remove themselves unless they are published.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::removal::remove;

/// All paths below the store's `tmp` that somebody uses: what else lies there is left over.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScratchPaths(Arc<Mutex<HashSet<PathBuf>>>);

impl ScratchPaths {
    pub(crate) fn claim(&self, path: PathBuf) -> ScratchPath {
        self.lock().insert(path.clone());
        let all = self.clone();
        ScratchPath { path, all }
    }

    pub(crate) fn all(&self) -> HashSet<PathBuf> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(crate) struct ScratchPath {
    path: PathBuf,
    all: ScratchPaths,
}

impl AsRef<Path> for ScratchPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchPath {
    fn drop(&mut self) {
        self.all.lock().remove(&self.path);
    }
}

/// A path below the store's `tmp` that is deleted when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: ScratchPath,
    losses_before: u64,
}

impl Scratch {
    /// An empty folder. Of `losses_before` tells [`crate::store::Store::sync`].
    pub(crate) fn folder(path: ScratchPath, losses_before: u64) -> Result<Scratch, Error> {
        std::fs::create_dir(&path).map_err(|e| Error::io("make", path.as_ref(), e))?;
        Ok(Scratch { path, losses_before })
    }

    /// What is or will be at `path`.
    pub(crate) fn at(path: ScratchPath, losses_before: u64) -> Scratch {
        Scratch { path, losses_before }
    }

    /// How many losses the store knew of before the first byte was written here.
    pub(crate) fn losses_before(&self) -> u64 {
        self.losses_before
    }

    pub(crate) fn path(&self) -> &Path {
        self.path.as_ref()
    }

    /// Move it to its place, where it stays.
    pub(crate) fn publish(self, place: &Path) -> Result<(), Error> {
        std::fs::rename(self.path(), place).map_err(|e| Error::io("move into place", place, e))?;
        // Nothing is left at the old path for the drop to remove.
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = crate::blocking_here(|| remove(self.path())) {
            // The next open of the store tries again.
            tracing::warn!(path = %self.path().display(), error = %e, "could not remove a temporary file");
        }
    }
}

/// A blob while it is written.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    file: File,
    scratch: Scratch,
}

impl BlobWriter {
    pub(crate) fn create(path: ScratchPath, losses_before: u64) -> Result<BlobWriter, Error> {
        let file = File::create_new(&path).map_err(|e| Error::io("make", path.as_ref(), e))?;
        Ok(BlobWriter {
            file,
            scratch: Scratch { path, losses_before },
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io("write blob", self.scratch.path(), e))
    }

    /// The written file, to be published.
    pub(crate) fn finish(self) -> Scratch {
        self.scratch
    }
}
