//! Restart policies.

use engine::{Error, RestartPolicy};
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
