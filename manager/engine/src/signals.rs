//! Ending a container from outside, and waiting for its end.

use std::time::Duration;

use tokio::sync::watch;

use crate::container::{Container, Exit, State};
use crate::engine::{Engine, Inner};
use crate::lifecycle::{Handle, Snapshot};
use crate::request::RestartPolicy;
use crate::shim::Shim;
use crate::{Error, signal};

/// What a container gets to end by itself, unless the client says otherwise; docker's number.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A process that got SIGKILL is gone within this, or it hangs in the kernel.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// `kill` waits as long for the end, as docker does.
const KILLED_TIMEOUT: Duration = Duration::from_secs(10);
/// Between the end of a process and the moment at which all know of it.
const ENDING_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const SIGKILL: u32 = 9;

/// What a client waits for; docker's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It does not run: at once if it does not now.
    NotRunning,
    /// The run of now, or if there is none the next one, has ended.
    NextExit,
    /// It has been removed.
    Removed,
}

/// How long `container` has to end by itself, when nobody says.
fn patience(container: &Container) -> Duration {
    let own = container.request.stop_timeout_seconds;
    own.map_or(STOP_TIMEOUT, |seconds| Duration::from_secs(seconds.into()))
}

impl Engine {
    /// Ask a container to end, by `signal` or the one it was made with, and kill it after `timeout`. Returns
    /// when it has ended, and no restart policy starts it any more; at once when it is not running.
    pub async fn stop(&self, container: &str, timeout: Option<Duration>, signal: &str) -> Result<(), Error> {
        let handle = self.0.containers.find(container)?;
        let asked = asked(signal)?;
        loop {
            let before = handle.snapshot().container;
            let grace = timeout.unwrap_or_else(|| patience(&before));
            if before.state == State::Restarting {
                handle.hold().await?;
            }
            if end_run(&self.0, &handle, asked, grace).await? {
                self.0.events.tell(&handle.snapshot().container, "stop", &[]);
            }
            let after = handle.snapshot().container;
            // Its run had ended by itself a moment before, and the policy was faster.
            let escaped = after.is_up() && after.restarts > before.restarts;
            if !escaped {
                return lasts("stop", &handle.snapshot());
            }
        }
    }

    /// End a container as [`Engine::stop`] does, and start it again; one that is not running is only started.
    /// One that removes itself stays.
    pub async fn restart(
        &self,
        container: &str,
        timeout: Option<Duration>,
        signal: &str,
    ) -> Result<(), Error> {
        let handle = self.0.containers.find(container)?;
        handle
            .restart(
                asked(signal)?,
                timeout.unwrap_or_else(|| patience(&handle.snapshot().container)),
            )
            .await
    }

    /// Send a signal to the main process; KILL if none is named. After KILL, this returns when the container has
    /// ended, so that it can be started or removed then.
    pub async fn kill(&self, container: &str, signal: &str) -> Result<(), Error> {
        let number = asked(signal)?.unwrap_or(SIGKILL);
        let handle = self.0.containers.find(container)?;
        let snapshot = handle.snapshot();
        let not_running = || not_running("kill", &snapshot);
        // As with docker: whoever asks for the end means that it is to last.
        let is_for_good = number == SIGKILL || number == snapshot.container.stop_signal;
        if is_for_good && snapshot.container.state == State::Restarting {
            return handle.hold().await;
        }
        let shim = snapshot.shim.as_ref().ok_or_else(not_running)?;
        let (mut state, run) = (handle.watch(), snapshot.container.runs);
        // The answer does not wait for the end, so a manager that sees that has to know whose it was. As with docker, it
        // stays on record should the process heed no such signal.
        let restarts = snapshot.container.request.restart != RestartPolicy::No;
        if is_for_good && number != SIGKILL && restarts {
            self.0.store.ended_by_hand(&handle.id, run).await?;
            failpoint::reach("kill.recorded");
        }
        if is_for_good {
            handle.held.set(run);
        }
        if !send(shim, number, &mut state, run).await? {
            return Err(not_running());
        }
        tell_signal(&self.0, &snapshot.container, number);
        if number == snapshot.container.stop_signal {
            run_on(&handle, run).await;
        }
        if number == SIGKILL {
            tokio::time::timeout(KILLED_TIMEOUT, ended(&mut state, run))
                .await
                .map_err(|_| outlives_sigkill("kill", &snapshot.container, KILLED_TIMEOUT))?;
            return lasts("kill", &handle.snapshot());
        }
        Ok(())
    }

    /// Return when `until` is so, with the last exit then; None if it never ran. One that removes itself has been
    /// removed at the end of its run.
    pub async fn wait(&self, container: &str, until: Until) -> Result<Option<Exit>, Error> {
        let handle = self.0.containers.find(container)?;
        let mut state = handle.watch();
        let snapshot = handle.snapshot();
        let run = snapshot.container.runs;
        Ok(match until {
            // Between two runs, the end of the next one is meant, unless it stays down.
            Until::NotRunning | Until::NextExit if snapshot.container.state == State::Restarting => {
                let over = |now: &Snapshot| now.has_ended(run + 1) || now.gone || !now.container.is_up();
                let _ = state.wait_for(over).await;
                state.borrow().container.exit
            }
            Until::NotRunning => ended(&mut state, run).await,
            Until::NextExit if snapshot.container.is_running() => ended(&mut state, run).await,
            Until::NextExit => ended(&mut state, run + 1).await,
            Until::Removed => {
                let _ = state.wait_for(|snapshot| snapshot.gone).await;
                state.borrow().container.exit
            }
        })
    }

    /// A container that is running, and its shim.
    pub(crate) fn running(&self, container: &str, action: &'static str) -> Result<(Snapshot, Shim), Error> {
        let snapshot = self.0.containers.find(container)?.snapshot();
        let shim = snapshot
            .shim
            .clone()
            .ok_or_else(|| not_running(action, &snapshot))?;
        Ok((snapshot, shim))
    }
}

/// Ask the run of now to end, if there is one, and kill it after `grace`. Whether it was there to be ended.
async fn end_run(
    engine: &Inner,
    handle: &Handle,
    asked: Option<u32>,
    grace: Duration,
) -> Result<bool, Error> {
    let mut state = handle.watch();
    let snapshot = handle.snapshot();
    let Some(shim) = &snapshot.shim else {
        return Ok(false);
    };
    let run = snapshot.container.runs;
    handle.held.set(run);
    let attempts = [
        (asked.unwrap_or(snapshot.container.stop_signal), grace),
        (SIGKILL, KILL_TIMEOUT),
    ];
    for (number, patience) in attempts {
        if !send(shim, number, &mut state, run).await? {
            return Ok(false);
        }
        tell_signal(engine, &snapshot.container, number);
        let _ = tokio::time::timeout(patience, run_on(handle, run)).await;
        let ended = tokio::time::timeout(patience, ended(&mut state, run)).await;
        if ended.is_ok() {
            return Ok(true);
        }
    }
    Err(outlives_sigkill("stop", &snapshot.container, KILL_TIMEOUT))
}

/// Whether an end by hand is what the next manager will find, where that decides about a start.
fn lasts(action: &'static str, snapshot: &Snapshot) -> Result<(), Error> {
    if !snapshot.is_unrecorded || snapshot.container.request.restart == RestartPolicy::No {
        return Ok(());
    }
    let why = "it has ended, but that could not be put on record yet: a manager that starts before it is may start \
               the container again";
    Err(Error::wrong_state(action, &snapshot.container, why))
}

fn tell_signal(engine: &Inner, container: &Container, number: u32) {
    engine
        .events
        .tell(container, "kill", &[("signal", number.to_string())]);
}

/// What is refused while a container's processes stand still, as they would never answer.
pub(crate) fn not_paused(action: &'static str, snapshot: &Snapshot) -> Result<(), Error> {
    if snapshot.container.state != State::Paused {
        return Ok(());
    }
    let why = "it is paused; unpause it first";
    Err(Error::wrong_state(action, &snapshot.container, why))
}

pub(crate) fn not_running(action: &'static str, snapshot: &Snapshot) -> Error {
    let why = match snapshot.container.state {
        State::Restarting => "it is restarting; wait until it runs",
        _ => "it is not running",
    };
    Error::wrong_state(action, &snapshot.container, why)
}

/// The number of a signal, if one is named.
fn asked(signal: &str) -> Result<Option<u32>, Error> {
    match signal {
        "" => Ok(None),
        name => signal::parse("signal", name).map(Some),
    }
}

pub(crate) fn outlives_sigkill(action: &'static str, container: &Container, waited: Duration) -> Error {
    let seconds = waited.as_secs();
    let why = format!("its process did not end within {seconds} seconds of SIGKILL");
    Error::wrong_state(action, container, why)
}

/// Only what runs can heed a signal that asks it to end. A kill needs no such help.
async fn run_on(handle: &Handle, run: u64) {
    if handle.snapshot().container.state == State::Paused
        && let Err(error) = handle.run_on(run).await
    {
        // Somebody else was faster, or it has ended.
        tracing::debug!(id = handle.id, %error, "a paused container that is to end");
    }
}

/// Send a signal to the process of run number `run`. False: the run was ending, and has ended now.
async fn send(
    shim: &Shim,
    number: u32,
    state: &mut watch::Receiver<Snapshot>,
    run: u64,
) -> Result<bool, Error> {
    match shim.kill("", number).await {
        Ok(()) => Ok(true),
        // The shim goes away a moment before the end is known to all.
        Err(error) => match tokio::time::timeout(ENDING_TIMEOUT, ended(state, run)).await {
            Ok(_) => Ok(false),
            Err(_) => Err(error),
        },
    }
}

/// Wait for the end of run number `run`, and return the exit on record then.
pub(crate) async fn ended(state: &mut watch::Receiver<Snapshot>, run: u64) -> Option<Exit> {
    // Fails when the owner is gone; its last word stays readable.
    let _ = state.wait_for(|snapshot| snapshot.has_ended(run)).await;
    state.borrow().container.exit
}
