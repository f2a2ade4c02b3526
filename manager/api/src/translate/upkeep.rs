//! Restart policies, health checks, and updates.

use engine::{Error, Health, Healthcheck, Probe, RestartPolicy, UpdateRequest};
use proto::v1;

pub(super) fn restart(message: Option<v1::RestartPolicy>) -> Result<RestartPolicy, Error> {
    let message = message.unwrap_or_default();
    RestartPolicy::parse(&message.name, message.maximum_retry_count)
}

/// Unset for the policy that is none.
pub(super) fn restart_message(policy: RestartPolicy) -> Option<v1::RestartPolicy> {
    (policy != RestartPolicy::No).then(|| v1::RestartPolicy {
        name: policy.name().to_owned(),
        maximum_retry_count: policy.maximum_retry_count(),
    })
}

pub(super) fn healthcheck(message: v1::Healthcheck) -> Healthcheck {
    Healthcheck {
        test: message.test,
        interval_nanos: message.interval_nanos,
        timeout_nanos: message.timeout_nanos,
        start_period_nanos: message.start_period_nanos,
        start_interval_nanos: message.start_interval_nanos,
        retries: message.retries,
    }
}

pub(super) fn healthcheck_message(check: Healthcheck) -> v1::Healthcheck {
    v1::Healthcheck {
        test: check.test,
        interval_nanos: check.interval_nanos,
        timeout_nanos: check.timeout_nanos,
        start_period_nanos: check.start_period_nanos,
        start_interval_nanos: check.start_interval_nanos,
        retries: check.retries,
    }
}

pub(super) fn health(health: &Health) -> v1::Health {
    let probe = |probe: &Probe| v1::health::Probe {
        started_unix_nanos: probe.started_unix_nanos,
        ended_unix_nanos: probe.ended_unix_nanos,
        exit_code: probe.exit_code,
        output: probe.output.clone(),
    };
    v1::Health {
        status: health.status.name().to_owned(),
        failing_streak: health.failing_streak,
        log: health.log.iter().map(probe).collect(),
    }
}

/// The container, and what is to become of it.
pub(crate) fn update(message: v1::UpdateContainerRequest) -> Result<(String, UpdateRequest), Error> {
    let changes = UpdateRequest {
        memory_bytes: message.memory_bytes,
        cpu_quota_millis: message.cpu_quota_millis,
        pids_limit: message.pids_limit,
        memory_swap_bytes: message.memory_swap_bytes,
        memory_reservation_bytes: message.memory_reservation_bytes,
        cpu_shares: message.cpu_shares,
        cpu_period_micros: message.cpu_period_micros,
        cpu_quota_micros: message.cpu_quota_micros,
        cpu_rt_period_micros: message.cpu_rt_period_micros,
        cpu_rt_runtime_micros: message.cpu_rt_runtime_micros,
        cpuset_cpus: message.cpuset_cpus,
        cpuset_mems: message.cpuset_mems,
        blkio_weight: message.blkio_weight,
        restart: message.restart.map(|policy| restart(Some(policy))).transpose()?,
    };
    Ok((message.container, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_come_back_as_they_were_asked_for() {
        let message = v1::Healthcheck {
            test: vec!["CMD".to_owned(), "true".to_owned()],
            interval_nanos: 1,
            timeout_nanos: 2,
            start_period_nanos: 3,
            start_interval_nanos: 4,
            retries: 5,
        };
        assert_eq!(healthcheck_message(healthcheck(message.clone())), message);
    }

    #[test]
    fn policies_come_back_as_they_were_asked_for() {
        for (name, maximum_retry_count) in [("on-failure", 3), ("on-failure", 0), ("always", 0)] {
            let message = Some(v1::RestartPolicy {
                name: name.to_owned(),
                maximum_retry_count,
            });
            assert_eq!(restart_message(restart(message.clone()).unwrap()), message);
        }
        assert_eq!(restart_message(restart(None).unwrap()), None);
    }
}
