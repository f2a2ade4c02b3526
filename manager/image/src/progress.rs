//! How far each layer of a pull is. Written by the threads that do the work, read by whoever shows it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{LayerProgress, Phase};

/// The counters of one layer.
pub(crate) struct Counters {
    digest: String,
    total_bytes: u64,
    downloaded_bytes: AtomicU64,
    unpacked_bytes: AtomicU64,
    phase: Mutex<Phase>,
}

impl Counters {
    pub(crate) fn new(digest: String, total_bytes: u64) -> Counters {
        Counters {
            digest,
            total_bytes,
            downloaded_bytes: AtomicU64::new(0),
            unpacked_bytes: AtomicU64::new(0),
            phase: Mutex::new(Phase::Waiting),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        *self
            .phase
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = phase;
    }

    pub(crate) fn set_downloaded(&self, bytes: u64) {
        self.downloaded_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_unpacked(&self, bytes: u64) {
        self.unpacked_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> LayerProgress {
        LayerProgress {
            digest: self.digest.clone(),
            phase: *self
                .phase
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
            downloaded_bytes: self.downloaded_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes,
            unpacked_bytes: self.unpacked_bytes.load(Ordering::Relaxed),
        }
    }
}
