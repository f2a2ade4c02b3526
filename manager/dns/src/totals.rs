//! How many questions there were, of all containers together, since this process began.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) static QUESTIONS: AtomicU64 = AtomicU64::new(0);
pub(crate) static FORWARDED: AtomicU64 = AtomicU64::new(0);
pub(crate) static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Numbers of questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// All that were questions.
    pub questions: u64,
    /// Those of them that servers of the outside were asked.
    pub forwarded: u64,
    /// Those of them that were not answered, as too many were under way.
    pub refused: u64,
}

/// How many questions there were, since this process began.
pub fn totals() -> Totals {
    Totals {
        questions: QUESTIONS.load(Relaxed),
        forwarded: FORWARDED.load(Relaxed),
        refused: REFUSED.load(Relaxed),
    }
}

pub(crate) fn count(total: &AtomicU64) {
    total.fetch_add(1, Relaxed);
}
