//! How far each layer of a pull is, and how progress is shown while a task works. Written by the threads that do the
//! work, read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{Error, LayerProgress, Phase, joined};

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Wait for the task that does the work, and meanwhile report each part of it whose state, as `read` tells it, has
/// changed since it was last shown. `given_up` is the error of a task that was cancelled.
pub(crate) async fn watch<T, P: Clone + PartialEq>(
    mut task: JoinHandle<Result<T, Error>>,
    read: impl Fn() -> Vec<P>,
    progress: &(dyn Fn(P) + Send + Sync),
    given_up: impl FnOnce() -> Error,
) -> Result<T, Error> {
    let mut shown: Vec<P> = Vec::new();
    let mut show = || {
        for (i, now) in read().into_iter().enumerate() {
            match shown.get_mut(i) {
                Some(before) if *before == now => continue,
                Some(before) => *before = now.clone(),
                None => shown.push(now.clone()),
            }
            progress(now);
        }
    };
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            result = &mut task => break result,
            _ = ticks.tick() => show(),
        }
    };
    show();
    joined(result, given_up)
}

/// The layers of a pull, once it knows them. Pulls of one image at once share it, and each shows it to its client.
#[derive(Default)]
pub(crate) struct Board(Mutex<Vec<Arc<Counters>>>);

impl Board {
    pub(crate) fn set(&self, layers: Vec<Arc<Counters>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = layers;
    }

    pub(crate) fn read(&self) -> Vec<LayerProgress> {
        let layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        layers.iter().map(|counters| counters.read()).collect()
    }

    /// Everything that was verified is durable now, and named.
    pub(crate) fn committed(&self) {
        for counters in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if counters.read().phase == Phase::Verified {
                counters.enter(Phase::Done);
            }
        }
    }
}

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
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
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
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            downloaded_bytes: self.downloaded_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes,
            unpacked_bytes: self.unpacked_bytes.load(Ordering::Relaxed),
        }
    }
}
