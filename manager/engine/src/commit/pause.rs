//! Containers that stand still while they are read for a commit.
//!
//! A file in the bundle says that a container is paused: a manager that dies meanwhile leaves it, and the next one lets
//! the container run on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::Error;
use crate::engine::{Engine, Inner};
use crate::shim::Shim;

/// The containers that are paused for commits.
#[derive(Default)]
pub(crate) struct Pauses(Mutex<PausesState>);

#[derive(Default)]
struct PausesState {
    /// A container is paused by one commit at a time: the first to end would let it run on under the others.
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    paused: HashMap<String, Shim>,
    /// The manager is about to exit: nothing is paused any more, as nobody would be left to let it run on.
    closed: bool,
}

impl Pauses {
    fn state(&self) -> std::sync::MutexGuard<'_, PausesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(self.state().turns.entry(id.to_owned()).or_default());
        turn.lock_owned().await
    }

    fn forget(&self, id: &str) {
        let mut state = self.state();
        state.paused.remove(id);
        // Two are ours: the map's, and that of the guard in our hands.
        if state
            .turns
            .get(id)
            .is_some_and(|turn| Arc::strong_count(turn) <= 2)
        {
            state.turns.remove(id);
        }
    }
}

impl Engine {
    /// Let all containers run on that are paused for commits, and pause no more: the manager is about to exit.
    pub async fn end_pauses(&self) {
        let paused = {
            let mut state = self.0.pauses.state();
            state.closed = true;
            std::mem::take(&mut state.paused)
        };
        for (id, shim) in paused {
            let_run(&shim, &id, &marker(&self.0, &id), true).await;
        }
    }
}

/// A container whose processes are stopped for a moment.
pub(super) struct Paused {
    engine: Arc<Inner>,
    shim: Shim,
    id: String,
    _turn: OwnedMutexGuard<()>,
}

impl Paused {
    pub(super) async fn begin(engine: &Arc<Inner>, id: &str, shim: Shim) -> Result<Paused, Error> {
        let turn = engine.pauses.turn(id).await;
        let marker = marker(engine, id);
        let paused = Paused {
            engine: Arc::clone(engine),
            shim,
            id: id.to_owned(),
            _turn: turn,
        };
        // Known before it is asked for: a shutdown meanwhile finds it.
        let closed = {
            let mut state = engine.pauses.state();
            if !state.closed {
                state.paused.insert(id.to_owned(), paused.shim.clone());
            }
            state.closed
        };
        let begun = async {
            if closed {
                return Err(Error::ShuttingDown);
            }
            fs::write(&marker, []).map_err(Error::file("write", &marker))?;
            let asked = paused.shim.pause().await;
            if let Err(error) = &asked {
                // After a timeout it may still be about to happen: only a refusal is final.
                let_run(&paused.shim, id, &marker, is_not_paused(error)).await;
            }
            asked
        };
        if let Err(error) = begun.await {
            engine.pauses.forget(id);
            return Err(error);
        }
        failpoint::reach("commit.paused");
        Ok(paused)
    }

    pub(super) async fn end(self) {
        let_run(&self.shim, &self.id, &marker(&self.engine, &self.id), true).await;
        self.engine.pauses.forget(&self.id);
    }
}

/// Let a container run on. The marker stays for the next manager if that may have failed; `settled`: that it is not
/// paused now says that it will not be.
async fn let_run(shim: &Shim, id: &str, marker: &Path, settled: bool) {
    let runs = match shim.resume().await {
        Ok(()) => true,
        Err(error) => {
            // It has ended, mostly: a kill reaches a paused container too.
            tracing::warn!(id, %error, "could not let a container run on after its commit");
            settled && is_not_paused(&error)
        }
    };
    failpoint::reach("commit.resumed");
    if runs {
        // It goes with the bundle if that is gone.
        let _ = fs::remove_file(marker);
    }
}

/// Whether the runtime refused because no processes are there, or none that are paused.
fn is_not_paused(error: &Error) -> bool {
    let Error::Runtime { why, .. } = error else {
        return false;
    };
    why.contains("not paused") || why.contains("not running")
}

fn marker(engine: &Inner, id: &str) -> PathBuf {
    engine.config.bundle(id).join("paused")
}

/// Let a container run on that a manager before this one has paused for a commit.
pub(crate) async fn resume_interrupted(engine: &Inner, id: &str, shim: &Shim) {
    let marker = marker(engine, id);
    if marker.exists() {
        tracing::info!(id, "a manager has ended during its commit: letting it run on");
        // It may have died before it paused.
        let_run(shim, id, &marker, true).await;
    }
}
