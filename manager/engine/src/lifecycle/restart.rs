//! One end and one start, with nothing in between: other commands wait until both are done.

use std::time::Duration;

use super::Owner;
use crate::Error;
use crate::container::{Exit, State};
use crate::restart::{self, Next};

impl Owner {
    /// End the run, by `signal` or the one the container was made with and after `grace` by SIGKILL, and begin another.
    pub(super) async fn restart(&mut self, signal: Option<u32>, grace: Duration) -> Result<(), Error> {
        let run = self.container.is_running().then_some(self.container.runs);
        // As with docker: that one removes itself at its end is not meant for this end.
        self.stays = true;
        let mut ended = Ok(());
        if run.is_some() {
            ended = self.end_run(signal, grace).await;
        }
        if ended.is_ok() {
            ended = self.record_end().await;
        }
        self.stays = false;
        let started = match ended {
            Ok(()) => {
                failpoint::reach("restart.ended");
                self.begin_or_forget().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            if run.is_some() {
                self.fall_back().await;
            }
            return Err(error);
        }
        self.tell("restart", &[]);
        Ok(())
    }

    /// The run was ended and no other begun, which nobody wanted: what follows is what follows any end.
    async fn fall_back(&mut self) {
        let Some(exit) = self
            .container
            .exit
            .filter(|_| !self.gone && !self.container.is_running())
        else {
            return;
        };
        // As with any start that fails: it counts as a run that failed at once.
        let next = restart::next(&self.container, Exit { code: 1, ..exit }, false);
        if self.unrecorded.is_some() || next == Next::Removal {
            // It is tried until it works, as the disk may be full now.
            self.unrecorded = Some((exit, next));
        } else if next == Next::Restart
            && let Err(error) = self.engine.store.restart_failed(&self.container.id, next).await
        {
            tracing::warn!(id = self.container.id, %error, "that it is started again is not on record");
        }
        self.arrange(exit, next);
        self.publish();
    }

    async fn end_run(&mut self, signal: Option<u32>, grace: Duration) -> Result<(), Error> {
        if let Some(shim) = &self.shim {
            let number = signal.unwrap_or(self.container.stop_signal);
            if let Err(error) = shim.kill("", number).await {
                // It is ending already, or the shim is lost; either way the wait below ends soon.
                tracing::debug!(id = self.container.id, %error, "the signal of a restart");
            }
        }
        if self.container.state == State::Paused {
            // Only what runs can heed a signal. If it does not run on, it is killed below.
            let _ = self.unpause().await;
        }
        if self.see_out(grace).await {
            return Ok(());
        }
        self.kill("restart").await
    }
}
