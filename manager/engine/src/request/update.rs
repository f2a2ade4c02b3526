//! What of a container can be changed after its creation.

use super::{CreateRequest, RestartPolicy};
use crate::Error;

/// Changes to a container. What is None stays as it is; so does, as with docker, what is 0 or empty, but for the limit of
/// processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    pub memory_bytes: Option<i64>,
    /// Thousandths of a CPU.
    pub cpu_quota_millis: Option<i64>,
    /// 0 or -1: no limit.
    pub pids_limit: Option<i64>,
    /// Memory and swap together; -1: as much swap as the machine has.
    pub memory_swap_bytes: Option<i64>,
    /// What it keeps when the machine's memory is short.
    pub memory_reservation_bytes: Option<i64>,
    /// Weight against other groups.
    pub cpu_shares: Option<u64>,
    /// Over which a quota is counted.
    pub cpu_period_micros: Option<u64>,
    /// CPU time in a period; -1: no limit.
    pub cpu_quota_micros: Option<i64>,
    /// Over which real-time is counted.
    pub cpu_rt_period_micros: Option<u64>,
    /// Real-time in a period.
    pub cpu_rt_runtime_micros: Option<i64>,
    /// `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, written alike.
    pub cpuset_mems: Option<String>,
    /// 10 to 1000.
    pub blkio_weight: Option<u32>,
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
        set(&mut changed.memory_bytes, self.memory_bytes.as_ref());
        set(&mut changed.cpu_quota_millis, self.cpu_quota_millis.as_ref());
        if let Some(limit) = self.pids_limit {
            changed.pids_limit = limit;
        }
        let resources = &mut changed.resources;
        set(&mut resources.memory_swap_bytes, self.memory_swap_bytes.as_ref());
        set(
            &mut resources.memory_reservation_bytes,
            self.memory_reservation_bytes.as_ref(),
        );
        set(&mut resources.cpu_shares, self.cpu_shares.as_ref());
        set(&mut resources.cpu_period_micros, self.cpu_period_micros.as_ref());
        set(&mut resources.cpu_quota_micros, self.cpu_quota_micros.as_ref());
        set(
            &mut resources.cpu_rt_period_micros,
            self.cpu_rt_period_micros.as_ref(),
        );
        set(
            &mut resources.cpu_rt_runtime_micros,
            self.cpu_rt_runtime_micros.as_ref(),
        );
        set(&mut resources.cpuset_cpus, self.cpuset_cpus.as_ref());
        set(&mut resources.cpuset_mems, self.cpuset_mems.as_ref());
        set(&mut resources.blkio_weight, self.blkio_weight.as_ref());
        if let Some(policy) = self.restart {
            changed.restart = policy;
        }
        changed.validate()?;
        Ok(changed)
    }
}

fn set<T: Clone + Default + PartialEq>(field: &mut T, wanted: Option<&T>) {
    if let Some(wanted) = wanted.filter(|wanted| **wanted != T::default()) {
        field.clone_from(wanted);
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
        let zeros = UpdateRequest {
            memory_bytes: Some(0),
            cpu_quota_millis: Some(0),
            pids_limit: Some(0),
            cpuset_cpus: Some(String::new()),
            ..UpdateRequest::default()
        };
        let changed = zeros.applied_to(&request).unwrap();
        assert_eq!((changed.memory_bytes, changed.pids_limit), (64 << 20, 0));
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
