//! Whether a container is started again by its policy, and when: docker's rules, as plain functions. The owner
//! (`lifecycle/policy.rs`) asks them at each end, and `reconcile` at the manager's start.

use std::time::Duration;

use crate::container::{Container, Exit, State};
use crate::request::RestartPolicy;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// A run that was this long was none of those that end as soon as they have begun.
const RAN_WELL: Duration = Duration::from_secs(10);

/// What follows an end. It goes on record with the exit, in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The container removes itself.
    Removal,
    /// It stays down, until somebody starts it.
    Rest {
        /// Somebody has stopped or killed it.
        by_hand: bool,
    },
    /// It is started again.
    Restart,
}

/// What follows the end of the container's run.
pub(crate) fn next(container: &Container, exit: Exit, by_hand: bool) -> Next {
    if container.request.auto_remove {
        return Next::Removal;
    }
    let restarts = match container.request.restart {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(count) => {
            exit.code != 0 && (count == 0 || container.restarts < u64::from(count))
        }
    };
    if restarts && !by_hand {
        Next::Restart
    } else {
        Next::Rest { by_hand }
    }
}

/// Whether one that rests is started when the manager starts. One that was never started waits for that.
pub(crate) fn comes_back(container: &Container) -> bool {
    let is_wanted = match container.request.restart {
        RestartPolicy::Always => true,
        RestartPolicy::UnlessStopped => !container.stopped_by_hand,
        RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
    };
    is_wanted && container.state == State::Exited
}

/// The pauses between the end of a run and the next start.
#[derive(Debug, Default)]
pub(crate) struct BackOff(Option<Duration>);

impl BackOff {
    /// The pause after a run that was `ran` long.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        let pause = match self.0 {
            Some(last) if ran < RAN_WELL => (last * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.0 = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::request::CreateRequest;
    use crate::store::tests::container;

    fn with(restart: RestartPolicy) -> Container {
        let mut container = container("a", "one");
        container.state = State::Exited;
        container.request = Arc::new(CreateRequest {
            restart,
            ..CreateRequest::default()
        });
        container
    }

    fn exit(code: u32) -> Exit {
        Exit {
            code,
            at_unix_nanos: 0,
            oom_killed: false,
        }
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut back_off = BackOff::default();
        let millis: Vec<_> = (0..12)
            .map(|_| back_off.after(Duration::ZERO).as_millis())
            .collect();
        assert_eq!(millis[..4], [100, 200, 400, 800]);
        assert_eq!(millis[9..], [51_200, 60_000, 60_000]);
        assert_eq!(back_off.after(RAN_WELL), PAUSE_MIN);
        assert_eq!(back_off.after(Duration::ZERO), PAUSE_MIN * 2);
    }

    #[test]
    fn policies_decide_as_dockers_do() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        let rests = Next::Rest { by_hand: false };
        for (policy, of_0, of_1) in [
            (No, rests, rests),
            (OnFailure(0), rests, Next::Restart),
            (Always, Next::Restart, Next::Restart),
            (UnlessStopped, Next::Restart, Next::Restart),
        ] {
            let container = with(policy);
            assert_eq!(next(&container, exit(0), false), of_0, "{policy:?}");
            assert_eq!(next(&container, exit(1), false), of_1, "{policy:?}");
            let by_hand = next(&container, exit(1), true);
            assert_eq!(by_hand, Next::Rest { by_hand: true }, "{policy:?}");
        }
    }

    #[test]
    fn failures_are_counted() {
        let mut container = with(RestartPolicy::OnFailure(2));
        let mut ends = 0;
        while next(&container, exit(1), false) == Next::Restart {
            container.restarts += 1;
            ends += 1;
        }
        assert_eq!(ends, 2);
    }

    #[test]
    fn with_the_manager_come_those_that_nobody_stopped() {
        let mut container = with(RestartPolicy::UnlessStopped);
        assert!(comes_back(&container));
        container.stopped_by_hand = true;
        assert!(!comes_back(&container));
        let mut always = with(RestartPolicy::Always);
        always.stopped_by_hand = true;
        assert!(comes_back(&always));
        always.state = State::Created;
        assert!(!comes_back(&always));
        assert!(!comes_back(&with(RestartPolicy::OnFailure(0))));
    }
}
