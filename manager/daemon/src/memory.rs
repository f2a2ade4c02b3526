//! Memory that a busy time needed goes back to the system afterwards: the allocator would keep what is free between
//! what is in use, and a manager is idle for most of its life.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

use crate::sys;

/// How often the work of this process is looked at.
const PERIOD: Duration = Duration::from_secs(5);
/// Who worked for less than this in a period is idle.
const IDLE_MAX: Duration = Duration::from_millis(20);

/// After each busy time, once it is over, give free memory back. Never returns.
pub(crate) async fn give_back_when_idle() {
    let metrics = Handle::current().metrics();
    let mut before = worked(&metrics);
    // The start has been busy.
    let mut was_busy = true;
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = worked(&metrics);
        let is_busy = now.saturating_sub(before) > IDLE_MAX;
        if was_busy && !is_busy {
            let _ = tokio::task::spawn_blocking(sys::give_memory_back).await;
        }
        (before, was_busy) = (now, is_busy);
    }
}

fn worked(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers())
        .map(|worker| metrics.worker_total_busy_duration(worker))
        .sum()
}
