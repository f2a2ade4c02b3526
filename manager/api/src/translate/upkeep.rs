//! Restart policies, and updates.

use engine::{Error, RestartPolicy, UpdateRequest};
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

/// The container, and what is to become of it.
pub(crate) fn update(message: v1::UpdateContainerRequest) -> Result<(String, UpdateRequest), Error> {
    let changes = UpdateRequest {
        memory_bytes: message.memory_bytes,
        cpu_quota_millis: message.cpu_quota_millis,
        pids_limit: message.pids_limit,
        restart: message.restart.map(|policy| restart(Some(policy))).transpose()?,
    };
    Ok((message.container, changes))
}

#[cfg(test)]
mod tests {
    use super::*;

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
