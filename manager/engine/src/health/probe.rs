//! One probe: a process of the check in the container, its output and its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Probe;
use crate::container::{Container, Exit, now_unix_nanos};
use crate::engine::Inner;
use crate::exec::{self, ExecRequest};
use crate::input::{OUTPUT_QUEUE_MAX, Output};
use crate::request::Healthcheck;
use crate::shim::Shim;
use crate::signals::SIGKILL;
use crate::{Error, names};

/// The ids of probes begin so: whoever finds one after its manager has died knows that nobody waits for it.
const PREFIX: &str = "health-";
/// As much of the output is kept.
const OUTPUT_MAX_BYTES: usize = 4096;
/// A probe that was killed is seen out so long.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether an exec with this id is a probe.
pub(crate) fn is_probe(exec_id: &str) -> bool {
    exec_id.starts_with(PREFIX)
}

/// Run one probe. None: `stopped` came first; what was begun is killed.
pub(super) async fn run(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    shim: &Shim,
    check: &Healthcheck,
    stopped: &CancellationToken,
) -> Option<Probe> {
    let started_unix_nanos = now_unix_nanos();
    let mut output = Vec::new();
    let told = ask(engine, container, shim, check, stopped, &mut output).await;
    let (exit_code, note) = match told {
        Ok(Outcome::Ended(exit)) => (i32::try_from(exit.code).unwrap_or(-1), String::new()),
        Ok(Outcome::Late) => {
            let late = format!("Health check exceeded timeout ({:?})", check.timeout());
            let colon = if output.is_empty() { "" } else { ": " };
            (-1, late + colon)
        }
        Ok(Outcome::Stopped) => return None,
        Err(_) if stopped.is_cancelled() => return None,
        Err(error) => (-1, error.to_string()),
    };
    Some(Probe {
        started_unix_nanos,
        ended_unix_nanos: now_unix_nanos(),
        exit_code,
        output: note + &String::from_utf8_lossy(&output),
    })
}

enum Outcome {
    Ended(Exit),
    /// It took too long, and was killed.
    Late,
    /// Nobody wants to know any more, and it was killed.
    Stopped,
}

async fn ask(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    shim: &Shim,
    check: &Healthcheck,
    stopped: &CancellationToken,
    output: &mut Vec<u8>,
) -> Result<Outcome, Error> {
    let exec_id = format!("{PREFIX}{}", names::random_id()?);
    let request = ExecRequest {
        container: container.id.clone(),
        args: check.args().unwrap_or_default(),
        ..ExecRequest::default()
    };
    let process = exec::begin(engine, container, shim, &exec_id, &request).await?;
    failpoint::reach("health.probing");
    let (sender, mut outputs) = mpsc::channel(OUTPUT_QUEUE_MAX);
    let (_, no_inputs) = mpsc::channel(1);
    // In a task of its own: it deletes the process in any case.
    tokio::spawn(process.tend(no_inputs, Some(sender)));
    let outcome = tokio::select! {
        exit = gather(&mut outputs, output) => return exit.map(Outcome::Ended),
        () = tokio::time::sleep(check.timeout()) => Outcome::Late,
        () = stopped.cancelled() => Outcome::Stopped,
    };
    shim.kill(&exec_id, SIGKILL).await?;
    let _ = tokio::time::timeout(KILL_TIMEOUT, gather(&mut outputs, output)).await;
    Ok(outcome)
}

/// Take what it writes, of which the beginning is kept, until it ends.
async fn gather(
    outputs: &mut mpsc::Receiver<Result<Output, Error>>,
    kept: &mut Vec<u8>,
) -> Result<Exit, Error> {
    loop {
        match outputs.recv().await.unwrap_or(Err(Error::ShuttingDown))? {
            Output::Stdout(bytes) | Output::Stderr(bytes) => {
                let room = OUTPUT_MAX_BYTES - kept.len();
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Output::Exit(exit) => return Ok(exit),
        }
    }
}
