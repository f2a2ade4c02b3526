//! Processes that stand still, and run on. Whether they do is known to the kernel, and so to the shim: nothing of it is
//! on record.

use std::sync::Arc;

use super::Owner;
use crate::Error;
use crate::container::State;

impl Owner {
    /// Stop all processes where they are.
    pub(super) async fn pause(&mut self) -> Result<(), Error> {
        match self.container.state {
            State::Running => self.stand(State::Paused, "pause").await,
            State::Paused => Err(self.wrong_state("pause", "it is paused already")),
            _ => Err(self.wrong_state("pause", "it is not running")),
        }
    }

    /// Let them run on.
    pub(super) async fn unpause(&mut self) -> Result<(), Error> {
        match self.container.state {
            State::Paused => self.stand(State::Running, "unpause").await,
            _ => Err(self.wrong_state("unpause", "it is not paused")),
        }
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
        if let Err(error) = asked {
            // After a timeout it may have come about all the same.
            if shim.is_paused().await.ok() != Some(paused) {
                return Err(error);
            }
        }
        Arc::make_mut(&mut self.container).state = state;
        self.publish();
        self.tell(action, &[]);
        Ok(())
    }

    pub(super) fn wrong_state(&self, action: &'static str, why: &str) -> Error {
        Error::WrongState {
            action,
            container: self.container.name.clone(),
            why: why.to_owned(),
        }
    }
}
