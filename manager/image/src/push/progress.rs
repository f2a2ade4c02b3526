//! How far each blob of a push is. Written by the upload, read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::plan::Content;

/// The state of one blob of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobProgress {
    /// Its digest.
    pub digest: String,
    /// What happens to it.
    pub phase: BlobPhase,
    /// Bytes that the connection has taken.
    pub uploaded_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What happens to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobPhase {
    /// Its turn has not come.
    Waiting,
    /// The registry is asked for it, and given it.
    Uploading,
    /// The registry has taken it.
    Done,
    /// The registry had it here.
    Present,
    /// The registry had it in another repository.
    Mounted,
}

/// The counters of one blob.
pub(super) struct Counters {
    digest: String,
    total_bytes: u64,
    uploaded_bytes: Arc<AtomicU64>,
    phase: Mutex<BlobPhase>,
}

impl Counters {
    pub(super) fn new(blob: &Content) -> Counters {
        Counters {
            digest: blob.digest.to_string(),
            total_bytes: blob.size,
            uploaded_bytes: Arc::default(),
            phase: Mutex::new(BlobPhase::Waiting),
        }
    }

    /// Where the upload counts.
    pub(super) fn uploaded(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.uploaded_bytes)
    }

    pub(super) fn enter(&self, phase: BlobPhase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    pub(super) fn read(&self) -> BlobProgress {
        BlobProgress {
            digest: self.digest.clone(),
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            uploaded_bytes: self.uploaded_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes,
        }
    }
}
