//! Restart policies, health, and statistics.

use proto::v1;
use serde::Serialize;

use super::{rfc3339, unless_zero};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RestartPolicy {
    name: String,
    maximum_retry_count: u32,
}

impl From<&v1::RestartPolicy> for RestartPolicy {
    fn from(policy: &v1::RestartPolicy) -> Self {
        Self {
            name: policy.name.clone(),
            maximum_retry_count: policy.maximum_retry_count,
        }
    }
}

/// What is null is docker's default.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Healthcheck {
    test: Vec<String>,
    interval_nanos: Option<i64>,
    timeout_nanos: Option<i64>,
    start_period_nanos: Option<i64>,
    start_interval_nanos: Option<i64>,
    retries: Option<u32>,
}

impl From<&v1::Healthcheck> for Healthcheck {
    fn from(check: &v1::Healthcheck) -> Self {
        Self {
            test: check.test.clone(),
            interval_nanos: unless_zero(check.interval_nanos),
            timeout_nanos: unless_zero(check.timeout_nanos),
            start_period_nanos: unless_zero(check.start_period_nanos),
            start_interval_nanos: unless_zero(check.start_interval_nanos),
            retries: unless_zero(check.retries),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    status: String,
    failing_streak: u32,
    /// The last five, oldest first; not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<Probe>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    start: String,
    end: String,
    exit_code: i32,
    output: String,
}

impl From<&v1::Health> for Health {
    fn from(health: &v1::Health) -> Self {
        let probe = |probe: &v1::health::Probe| Probe {
            start: rfc3339(probe.started_unix_nanos),
            end: rfc3339(probe.ended_unix_nanos),
            exit_code: probe.exit_code,
            output: probe.output.clone(),
        };
        Self {
            status: health.status.clone(),
            failing_streak: health.failing_streak,
            log: health.log.iter().map(probe).collect(),
        }
    }
}

/// All but the names is null of one that does not run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    id: String,
    name: String,
    cpu_percent: Option<f64>,
    cpu_nanos: Option<u64>,
    memory_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    memory_percent: Option<f64>,
    received_bytes: Option<u64>,
    sent_bytes: Option<u64>,
    read_bytes: Option<u64>,
    written_bytes: Option<u64>,
    pids: Option<u64>,
}

impl From<&v1::stats_response::Container> for Stats {
    fn from(container: &v1::stats_response::Container) -> Self {
        let usage = container.usage.as_ref();
        Self {
            id: container.id.clone(),
            name: container.name.clone(),
            cpu_percent: usage.map(|_| container.cpu_percent),
            cpu_nanos: usage.map(|usage| usage.cpu_nanos),
            memory_bytes: usage.map(|usage| usage.memory_bytes),
            memory_limit_bytes: usage.map(|usage| usage.memory_limit_bytes),
            memory_percent: usage.map(memory_percent),
            received_bytes: usage.map(|usage| usage.received_bytes),
            sent_bytes: usage.map(|usage| usage.sent_bytes),
            read_bytes: usage.map(|usage| usage.read_bytes),
            written_bytes: usage.map(|usage| usage.written_bytes),
            pids: usage.map(|usage| usage.pids),
        }
    }
}

/// Of its limit.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn memory_percent(usage: &v1::stats_response::Usage) -> f64 {
    match usage.memory_limit_bytes {
        0 => 0.0,
        limit => usage.memory_bytes as f64 / limit as f64 * 100.0,
    }
}
