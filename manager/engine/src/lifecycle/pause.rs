//! Processes that stand still, and run on. Whether they do is known to the container's shim: nothing of it is on record.

use std::sync::Arc;

use super::Owner;
use crate::Error;
use crate::commit::{forget_interrupted, is_not_paused};
use crate::container::State;

impl Owner {
    /// Stop all processes where they are.
    pub(super) async fn pause(&mut self) -> Result<(), Error> {
        match self.container.state {
            State::Running => self.stand(State::Paused, "pause").await,
            State::Paused => Err(self.wrong_state("pause", "it is paused already")),
            State::Restarting => Err(self.wrong_state("pause", "it is restarting; wait until it runs")),
            _ => Err(self.wrong_state("pause", "it is not running")),
        }
    }

    /// Let them run on. Asked of the shim in any case: a pause that a manager before this one has begun may have come
    /// about after this one asked.
    pub(super) async fn unpause(&mut self) -> Result<(), Error> {
        self.stand(State::Running, "unpause").await
    }

    async fn stand(&mut self, state: State, action: &'static str) -> Result<(), Error> {
        let Some(shim) = self.shim.clone() else {
            return Err(self.wrong_state(action, "it is not running"));
        };
        let paused = state == State::Paused;
        let asked = if paused {
            shim.pause().await
        } else {
            shim.resume().await
        };
        failpoint::reach("pause.asked");
        match asked {
            Ok(()) => {}
            // Somebody has let it run on by the runtime itself, or it never stood still.
            Err(error) if !paused && is_not_paused(&error) => {
                if self.container.state == State::Running {
                    return Err(self.wrong_state(action, "it is not paused"));
                }
            }
            // After a timeout it may have come about all the same.
            Err(error) => {
                if shim.is_paused().await.ok().flatten() != Some(paused) {
                    return Err(error);
                }
            }
        }
        if paused {
            // That of a commit before: this pause is to last.
            forget_interrupted(&self.engine, &self.container.id);
        }
        Arc::make_mut(&mut self.container).state = state;
        self.probe();
        self.publish();
        self.tell(action, &[]);
        Ok(())
    }

    pub(super) fn wrong_state(&self, action: &'static str, why: &str) -> Error {
        Error::wrong_state(action, &self.container, why)
    }
}
