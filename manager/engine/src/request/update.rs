//! What of a container can be changed after its creation.

use super::{CreateRequest, RestartPolicy};
use crate::Error;

/// Changes to a container; what is None stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// 0: no limit.
    pub memory_bytes: Option<i64>,
    /// Thousandths of a CPU; 0: no limit.
    pub cpu_quota_millis: Option<i64>,
    /// 0: no limit.
    pub pids_limit: Option<i64>,
    /// From its next end on.
    pub restart: Option<RestartPolicy>,
}

impl UpdateRequest {
    /// What the container would have been asked to be, had it been made with these changes.
    pub(crate) fn applied_to(&self, request: &CreateRequest) -> Result<CreateRequest, Error> {
        if *self == UpdateRequest::default() {
            return Err(Error::invalid("update", "nothing is to be changed"));
        }
        let mut changed = request.clone();
        changed.memory_bytes = self.memory_bytes.unwrap_or(request.memory_bytes);
        changed.cpu_quota_millis = self.cpu_quota_millis.unwrap_or(request.cpu_quota_millis);
        changed.pids_limit = self.pids_limit.unwrap_or(request.pids_limit);
        changed.restart = self.restart.unwrap_or(request.restart);
        changed.validate()?;
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays_and_rules_hold() {
        let request = CreateRequest {
            image: "busybox".to_owned(),
            memory_bytes: 64 << 20,
            pids_limit: 9,
            auto_remove: true,
            ..CreateRequest::default()
        };
        let more = UpdateRequest {
            memory_bytes: Some(128 << 20),
            ..UpdateRequest::default()
        };
        let changed = more.applied_to(&request).unwrap();
        assert_eq!((changed.memory_bytes, changed.pids_limit), (128 << 20, 9));
        let refused = [
            UpdateRequest::default(),
            UpdateRequest {
                memory_bytes: Some(1),
                ..UpdateRequest::default()
            },
            UpdateRequest {
                restart: Some(RestartPolicy::Always),
                ..UpdateRequest::default()
            },
        ];
        for changes in refused {
            assert!(changes.applied_to(&request).is_err(), "{changes:?}");
        }
    }
}
