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
use crate::container::State;
use crate::engine::{Engine, Inner};
use crate::lifecycle::Handle;
use crate::member::has_cgroup;
use crate::shim::Shim;

/// The containers that are paused for commits.
#[derive(Default)]
pub(crate) struct Pauses(Mutex<PausesState>);

#[derive(Default)]
struct PausesState {
    /// Whoever is at pausing a container, or waits for that.
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    paused: HashMap<String, Shim>,
    /// The manager is about to exit: nothing is paused any more, as nobody would be left to let it run on.
    closed: bool,
}

impl Pauses {
    fn state(&self) -> std::sync::MutexGuard<'_, PausesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pauses of a container come one after the other, whoever asks for them: the first to end would let it run on under
/// the others.
pub(crate) struct Turn {
    engine: Arc<Inner>,
    id: String,
    _guard: OwnedMutexGuard<()>,
}

impl Turn {
    pub(crate) async fn wait(engine: &Arc<Inner>, id: &str) -> Turn {
        let turn = Arc::clone(engine.pauses.state().turns.entry(id.to_owned()).or_default());
        Turn {
            engine: Arc::clone(engine),
            id: id.to_owned(),
            _guard: turn.lock_owned().await,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.engine.pauses.state();
        // Two are ours: the map's, and that of the guard in our hands.
        if state
            .turns
            .get(&self.id)
            .is_some_and(|turn| Arc::strong_count(turn) <= 2)
        {
            state.turns.remove(&self.id);
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

/// A container whose processes stand still for a moment.
pub(super) struct Paused {
    /// None: they do not run, or somebody else has paused them.
    shim: Option<Shim>,
    turn: Turn,
}

impl Paused {
    pub(super) async fn begin(engine: &Arc<Inner>, handle: &Handle) -> Result<Paused, Error> {
        let turn = Turn::wait(engine, &handle.id).await;
        let snapshot = handle.snapshot();
        let runs = snapshot.container.state == State::Running;
        if runs && !has_cgroup(snapshot.container.pid, &handle.id) {
            tracing::warn!(
                id = handle.id,
                "it is read while it runs: without a cgroup it can't be paused"
            );
            return Ok(Paused { shim: None, turn });
        }
        let Some(shim) = snapshot.shim.filter(|_| runs) else {
            return Ok(Paused { shim: None, turn });
        };
        let marker = marker(engine, &turn.id);
        // Known before it is asked for: a shutdown meanwhile finds it.
        let closed = {
            let mut state = engine.pauses.state();
            if !state.closed {
                state.paused.insert(turn.id.clone(), shim.clone());
            }
            state.closed
        };
        let begun = async {
            if closed {
                return Err(Error::ShuttingDown);
            }
            fs::write(&marker, []).map_err(Error::file("write", &marker))?;
            let asked = shim.pause().await;
            if let Err(error) = &asked {
                // After a timeout it may still be about to happen: only a refusal is final.
                let_run(&shim, &turn.id, &marker, is_not_paused(error)).await;
            }
            asked
        };
        if let Err(error) = begun.await {
            engine.pauses.state().paused.remove(&turn.id);
            return Err(error);
        }
        failpoint::reach("commit.paused");
        let shim = Some(shim);
        Ok(Paused { shim, turn })
    }

    pub(super) async fn end(self) {
        let Some(shim) = self.shim else { return };
        let (engine, id) = (&self.turn.engine, &self.turn.id);
        let_run(&shim, id, &marker(engine, id), true).await;
        engine.pauses.state().paused.remove(id);
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
pub(crate) fn is_not_paused(error: &Error) -> bool {
    let Error::Runtime { why, .. } = error else {
        return false;
    };
    why.contains("not paused") || why.contains("not running")
}

fn marker(engine: &Inner, id: &str) -> PathBuf {
    engine.config.bundle(id).join("paused")
}

/// Whatever a commit has left, nobody is to let the container run on for it.
pub(crate) fn forget_interrupted(engine: &Inner, id: &str) {
    let _ = fs::remove_file(marker(engine, id));
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
