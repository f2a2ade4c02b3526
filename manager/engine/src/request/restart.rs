//! What is to follow a container's end: docker's restart policies.

use serde::{Deserialize, Serialize};

use crate::Error;

/// Whether a container is started again when it has ended by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It stays down.
    #[default]
    No,
    /// When it ended with another exit code than 0, so often at most in a row; 0: without a limit.
    OnFailure(u32),
    /// Whenever it ended, and when the manager starts.
    Always,
    /// As `Always`, but not when the manager starts and the container was stopped by hand before.
    UnlessStopped,
}

impl RestartPolicy {
    /// Read docker's name of a policy; empty is `no`.
    pub fn parse(name: &str, maximum_retry_count: u32) -> Result<RestartPolicy, Error> {
        let policy = match name {
            "" | "no" => RestartPolicy::No,
            "on-failure" => return Ok(RestartPolicy::OnFailure(maximum_retry_count)),
            "always" => RestartPolicy::Always,
            "unless-stopped" => RestartPolicy::UnlessStopped,
            other => {
                let rule = format!(
                    "{other:?} is no restart policy: use one of no, always, unless-stopped, on-failure"
                );
                return Err(Error::invalid("restart", rule));
            }
        };
        if maximum_retry_count == 0 {
            return Ok(policy);
        }
        let rule = "a maximum of retries goes with on-failure only";
        Err(Error::invalid("restart", rule))
    }

    /// Docker's name of it.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure(_) => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }

    /// How often in a row it is tried, for `on-failure`; 0: without a limit.
    pub fn maximum_retry_count(self) -> u32 {
        match self {
            RestartPolicy::OnFailure(count) => count,
            _ => 0,
        }
    }

    /// One that removes itself at its end cannot be started again.
    pub(super) fn check(self, auto_remove: bool) -> Result<(), Error> {
        if auto_remove && self != RestartPolicy::No {
            let rule = "a container that removes itself (--rm) cannot have a restart policy";
            return Err(Error::invalid("restart", rule));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_dockers_name_and_only_one_has_a_count() {
        for name in ["no", "always", "unless-stopped", "on-failure"] {
            assert_eq!(RestartPolicy::parse(name, 0).unwrap().name(), name);
        }
        assert_eq!(RestartPolicy::parse("", 0).unwrap(), RestartPolicy::No);
        let thrice = RestartPolicy::parse("on-failure", 3).unwrap();
        assert_eq!(thrice.maximum_retry_count(), 3);
        for (name, count) in [("always", 1), ("no", 2), ("sometimes", 0)] {
            assert!(RestartPolicy::parse(name, count).is_err(), "{name}:{count}");
        }
        assert!(thrice.check(true).is_err() && RestartPolicy::No.check(true).is_ok());
    }
}
