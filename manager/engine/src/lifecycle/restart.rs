//! One end and one start, with nothing in between: other commands wait until both are done.

use std::time::Duration;

use super::Owner;
use crate::Error;
use crate::container::State;

impl Owner {
    /// End the run, by `signal` or the one the container was made with and after `grace` by SIGKILL, and begin another.
    pub(super) async fn restart(&mut self, signal: Option<u32>, grace: Duration) -> Result<(), Error> {
        // As with docker: that one removes itself at its end is not meant for this end.
        self.stays = true;
        let mut ended = Ok(());
        if self.container.is_running() {
            ended = self.end_run(signal, grace).await;
        }
        if ended.is_ok() {
            ended = self.record_end().await;
        }
        self.stays = false;
        ended?;
        failpoint::reach("restart.ended");
        self.begin_or_forget().await?;
        self.tell("restart", &[]);
        Ok(())
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
