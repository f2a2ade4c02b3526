//! Starts by the restart policy: the pause after an end, the start that follows, and what keeps a container down.
//! During the pause the container counts as up, as with docker: it is listed, waited for, and has to be stopped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Owner;
use crate::container::{Exit, State};
use crate::restart::{self, Next};
use crate::{Error, run};

/// Wait for the moment; for ever, if there is none.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Owner {
    /// What follows this end: decided once, then put on record with it.
    pub(super) fn next(&self, exit: Exit) -> Next {
        let container = &self.container;
        if self.stays {
            // The start that follows is the restart's own.
            return Next::Rest { by_hand: false };
        }
        restart::next(container, exit, self.held.get() >= container.runs)
    }

    /// The state after an end, and the moment of the next start.
    pub(super) fn arrange(&mut self, exit: Exit, next: Next) {
        let container = Arc::make_mut(&mut self.container);
        container.follow(next);
        if next == Next::Restart {
            let ran = exit.at_unix_nanos.saturating_sub(container.started_unix_nanos);
            let pause = self
                .back_off
                .after(Duration::from_nanos(u64::try_from(ran).unwrap_or(0)));
            self.due = Some(Instant::now() + pause);
        }
    }

    /// At the manager's start: begin with no pause.
    pub(super) fn come_back(&mut self) {
        if self.container.state == State::Restarting {
            self.due = Some(Instant::now());
        }
    }

    /// The pause is over.
    pub(super) async fn start_by_policy(&mut self) {
        self.due = None;
        // After a reboot they are many.
        let engine = Arc::clone(&self.engine);
        let _turn = engine.starts.acquire().await;
        failpoint::reach("policy.due");
        let Err(error) = self.begin(run::By::Policy).await else {
            return;
        };
        let container = Arc::make_mut(&mut self.container);
        tracing::warn!(id = container.id, %error, "not started again");
        // A machine may be short of something for a while: that counts as a run that failed at once.
        let failed = Exit {
            code: 1,
            at_unix_nanos: container.started_unix_nanos,
            oom_killed: false,
        };
        let next = restart::next(&self.container, failed, false);
        self.arrange(failed, next);
        let recorded = self.engine.store.restart_failed(&self.container.id, next).await;
        if let Err(error) = recorded {
            tracing::warn!(id = self.container.id, %error, "a failed start is not on record");
        }
        self.publish();
    }

    /// It was to be started again, and stays down: on record when this returns. Nothing happens if it is not between
    /// two runs.
    pub(super) async fn hold(&mut self) -> Result<(), Error> {
        if self.container.state != State::Restarting {
            return Ok(());
        }
        // Its end may not be on record yet, and that would say that it comes back.
        self.unrecorded = self
            .unrecorded
            .map(|(exit, _)| (exit, Next::Rest { by_hand: true }));
        self.record_end().await?;
        self.engine.store.held(&self.container.id).await?;
        failpoint::reach("stop.held");
        self.due = None;
        let container = Arc::make_mut(&mut self.container);
        container.state = State::Exited;
        container.stopped_by_hand = true;
        self.publish();
        Ok(())
    }
}
