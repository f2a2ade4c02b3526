//! A client at a container's standard streams. Output comes from the log, from the moment of attaching on;
//! input goes by the fifo that the shim reads.

use tokio::sync::{mpsc, watch};

use crate::container::State;
use crate::engine::Engine;
use crate::input::{self, INPUT_QUEUE_MAX, Input, OUTPUT_QUEUE_MAX, Output};
use crate::lifecycle::Snapshot;
use crate::logs::{Claim, Follower, Position, Stream};
use crate::signals::{ended, not_paused, not_running};
use crate::{Error, bundle};

/// What to attach.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    /// Id, name, or prefix of an id.
    pub container: String,
    /// Standard input too.
    pub stdin: bool,
    /// First what the container has written so far.
    pub replay: bool,
    /// Deliver nothing: the output ends when the client's input has, and all of it is the container's.
    pub without_output: bool,
}

/// An attached client's ends. Dropping both detaches.
pub struct Attachment {
    /// The process has a terminal.
    pub tty: bool,
    /// What it writes; the last one is its exit.
    pub output: mpsc::Receiver<Result<Output, Error>>,
    /// What the client sends.
    pub input: mpsc::Sender<Input>,
}

impl Engine {
    /// Attach to the present run of a container, or to its next one if it is not running. What it writes after
    /// this has returned is delivered whole and in order, then its exit. If the container removes itself, that
    /// has happened when the exit comes.
    pub async fn attach(&self, request: AttachRequest) -> Result<Attachment, Error> {
        let handle = self.0.containers.find(&request.container)?;
        let snapshot = handle.snapshot();
        not_paused("attach to", &snapshot)?;
        if snapshot.container.state == State::Restarting {
            return Err(not_running("attach to", &snapshot));
        }
        let created = &snapshot.container.request;
        let run = snapshot.container.runs + u64::from(!snapshot.container.is_running());
        let from = if request.replay {
            Position::Start
        } else {
            Position::End
        };
        let plan = created.logging.plan()?.file;
        let reading = handle.logs.reading();
        let follower = if request.without_output {
            None
        } else {
            Some(Follower::open(reading, &self.0.log_watcher, from, plan, Claim::Output).await?)
        };

        let (sender, output) = mpsc::channel(OUTPUT_QUEUE_MAX);
        let (input, inputs) = mpsc::channel(INPUT_QUEUE_MAX);
        let fifo = (request.stdin && created.open_stdin)
            .then(|| bundle::stdin(&self.0.config.bundle(&snapshot.container.id)));
        let close_at_end = created.stdin_once && !created.tty;
        let (state, mut started, client) = (handle.watch(), handle.watch(), sender.clone());
        let until_all_is_fed = request.without_output.then(|| sender.clone());
        tokio::spawn(async move {
            let running = started.wait_for(|snapshot| snapshot.shim.is_some() || snapshot.has_ended(run));
            let shim = tokio::select! {
                snapshot = running => snapshot.ok().and_then(|snapshot| snapshot.shim.clone()),
                () = client.closed() => None,
            };
            drop(client);
            let Some(shim) = shim else { return };
            tokio::select! {
                () = input::forward(inputs, &shim, "", fifo.as_deref(), close_at_end) => {}
                _ = ended(&mut started, run) => {}
            }
            drop(until_all_is_fed);
        });
        if let Some(follower) = follower {
            tokio::spawn(deliver(follower, state, run, sender));
        }
        Ok(Attachment {
            tty: created.tty,
            output,
            input,
        })
    }
}

async fn deliver(
    mut follower: Follower,
    mut state: watch::Receiver<Snapshot>,
    run: u64,
    sender: mpsc::Sender<Result<Output, Error>>,
) {
    let mut over = false;
    loop {
        let records = match follower.read().await {
            Ok(records) => records,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
        let at_the_end = records.is_empty();
        for record in records {
            let bytes = record.data.len();
            let output = match record.stream {
                Stream::Stdout => Output::Stdout(record.data),
                Stream::Stderr => Output::Stderr(record.data),
            };
            if !follower.send(&sender, Ok(output), bytes).await {
                return;
            }
        }
        if !at_the_end {
            continue;
        }
        if over {
            break;
        }
        // The log is whole when an exit is known, so one more pass to its end after that misses nothing.
        tokio::select! {
            () = follower.changed() => {}
            _ = ended(&mut state, run) => over = true,
            () = sender.closed() => return,
        }
    }
    // The folder of a container that has removed itself goes with its last reader.
    drop(follower);
    let last = state.borrow().container.clone();
    if last.runs >= run
        && let Some(exit) = last.exit
    {
        let _ = sender.send(Ok(Output::Exit(exit))).await;
    }
}
