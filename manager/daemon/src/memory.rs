//! Memory that a busy time needed goes back to the system afterwards: the allocator would keep what is free between
//! what is in use, and a manager is idle for most of its life.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::Notify;

use crate::sys;

/// How often the work of this process is looked at, from when there is some until it is over. An idle manager is not
/// woken for it.
const PERIOD: Duration = Duration::from_millis(400);
/// Who worked for less than this in a period is idle.
const IDLE_MAX: Duration = Duration::from_millis(2);
/// What so little work has taken is not worth to be given back, and taken again by the next.
const WORK_MIN: Duration = Duration::from_millis(20);

/// The next work is to be told of.
static IDLE: AtomicBool = AtomicBool::new(false);
static WORK: Notify = Notify::const_new();

/// A thread of the runtime has something to do. To be called by each that had nothing.
pub(crate) fn work_begins() {
    if IDLE.load(Ordering::Relaxed) && IDLE.swap(false, Ordering::AcqRel) {
        WORK.notify_one();
    }
}

/// After each busy time, once it is over, give free memory back. Never returns.
pub(crate) async fn give_back_when_idle() {
    let metrics = Handle::current().metrics();
    // The start has been busy, if not here.
    let mut given_back_at = None;
    loop {
        let mut before = worked(&metrics);
        loop {
            tokio::time::sleep(PERIOD).await;
            let now = worked(&metrics);
            if now.saturating_sub(before) <= IDLE_MAX {
                break;
            }
            before = now;
        }
        let since = |at| worked(&metrics).saturating_sub(at);
        if given_back_at.is_none_or(|at| since(at) > WORK_MIN) {
            let _ = tokio::task::spawn_blocking(sys::give_memory_back).await;
            given_back_at = Some(worked(&metrics));
        }
        IDLE.store(true, Ordering::Release);
        WORK.notified().await;
    }
}

fn worked(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers())
        .map(|worker| metrics.worker_total_busy_duration(worker))
        .sum()
}
