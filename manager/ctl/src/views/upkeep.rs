//! Restart policies, and health.

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
    /// The last five, oldest first.
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
