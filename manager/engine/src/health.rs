//! Whether a container is well, as its probes tell: docker's rules. A probe is one more process in the container, run by
//! a task that lives as long as the run does; what it finds goes through the container's owner (`lifecycle/health.rs`).
//! Nothing of it is on record: with a manager it begins anew.

mod probe;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commit::Turn;
use crate::container::{Container, now_unix_nanos};
use crate::engine::Inner;
use crate::request::Healthcheck;
use crate::shim::Shim;

pub(crate) use probe::is_probe;

/// As many probes are kept.
const LOG_MAX: usize = 5;

/// What a container's probes have told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last probes, oldest first.
    pub log: VecDeque<Probe>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last probe was successful.
    Healthy,
    /// As many probes have failed as may.
    Unhealthy,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Its begin, in nanoseconds since 1970.
    pub started_unix_nanos: i64,
    /// Its end.
    pub ended_unix_nanos: i64,
    /// Its exit code; -1: it could not be run, or took too long.
    pub exit_code: i32,
    /// What it wrote, or why it could not.
    pub output: String,
}

impl HealthStatus {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }

    pub(crate) fn event(self) -> &'static str {
        match self {
            HealthStatus::Starting => "health_status: starting",
            HealthStatus::Healthy => "health_status: healthy",
            HealthStatus::Unhealthy => "health_status: unhealthy",
        }
    }
}

impl Health {
    /// What is known after one more probe.
    fn after(&self, probe: Probe, check: &Healthcheck, since_start: Duration) -> Health {
        let mut health = self.clone();
        if probe.exit_code == 0 {
            health.failing_streak = 0;
            health.status = HealthStatus::Healthy;
        } else {
            if self.status != HealthStatus::Starting || since_start >= check.start_period() {
                health.failing_streak = self.failing_streak.saturating_add(1);
            }
            if health.failing_streak >= check.retries() {
                health.status = HealthStatus::Unhealthy;
            }
        }
        health.log.push_back(probe);
        while health.log.len() > LOG_MAX {
            health.log.pop_front();
        }
        health
    }
}

fn since(start: i64, now: i64) -> Duration {
    Duration::from_nanos(u64::try_from(now.saturating_sub(start)).unwrap_or(0))
}

/// Probe the running `container` until `stopped`, and tell what comes of it.
pub(crate) async fn watch(
    engine: Arc<Inner>,
    container: Arc<Container>,
    shim: Shim,
    check: Healthcheck,
    reports: mpsc::Sender<(u64, Arc<Health>)>,
    stopped: CancellationToken,
) {
    let mut health = container.health.clone().unwrap_or_default();
    // By the monotonic clock from here on: a step back of the other would have failures pass for a beginner's.
    let age = since(container.started_unix_nanos, now_unix_nanos());
    let watched = Instant::now();
    let since_start = || age + watched.elapsed();
    loop {
        let is_new = health.status == HealthStatus::Starting && since_start() < check.start_period();
        let pause = if is_new {
            check.start_interval()
        } else {
            check.interval()
        };
        let turn = async {
            tokio::time::sleep(pause).await;
            // Not while a commit has the processes stand still: none would answer.
            drop(Turn::wait(&engine, &container.id).await);
        };
        tokio::select! {
            () = turn => {}
            () = stopped.cancelled() => return,
        }
        let began = since_start();
        let Some(probe) = probe::run(&engine, &container, &shim, &check, &stopped).await else {
            return;
        };
        engine.tally.probed(probe.exit_code);
        health = Arc::new(health.after(probe, &check, began));
        if reports.send((container.runs, Arc::clone(&health))).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(exit_code: i32, at_seconds: i64) -> Probe {
        Probe {
            started_unix_nanos: at_seconds * 1_000_000_000,
            ended_unix_nanos: at_seconds * 1_000_000_000,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn failures_count_after_the_start_period_or_once_it_was_well() {
        let check = Healthcheck {
            start_period_nanos: 10_000_000_000,
            retries: 2,
            ..Healthcheck::default()
        };
        let mut health = Health::default();
        let mut told = Vec::new();
        for (exit_code, at) in [(1, 1), (1, 2), (0, 3), (1, 4), (1, 5), (0, 6), (1, 20), (-1, 21)] {
            health = health.after(
                probe(exit_code, at),
                &check,
                Duration::from_secs(at.unsigned_abs()),
            );
            told.push((health.status.name(), health.failing_streak));
        }
        let expected = [
            ("starting", 0),
            ("starting", 0),
            ("healthy", 0),
            ("healthy", 1),
            ("unhealthy", 2),
            ("healthy", 0),
            ("healthy", 1),
            ("unhealthy", 2),
        ];
        assert_eq!(told, expected);
        assert_eq!(health.log.len(), LOG_MAX);
        assert_eq!(health.log.back(), Some(&probe(-1, 21)));
    }
}
