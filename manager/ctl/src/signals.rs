//! Signals that reach this process while it stands for a container: passed on to it, or a new window size, or
//! the end of the session.

use proto::v1::KillContainerRequest;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::failure::{Failure, Result};

/// One of the signals that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) number: i32,
    pub(crate) name: &'static str,
}

impl Signal {
    /// How a shell sees a process that this signal has ended.
    pub(crate) fn exit_code(self) -> u8 {
        128 + self.number as u8
    }
}

const HUP: Signal = Signal {
    number: 1,
    name: "SIGHUP",
};
const INT: Signal = Signal {
    number: 2,
    name: "SIGINT",
};
const QUIT: Signal = Signal {
    number: 3,
    name: "SIGQUIT",
};
const USR1: Signal = Signal {
    number: 10,
    name: "SIGUSR1",
};
const USR2: Signal = Signal {
    number: 12,
    name: "SIGUSR2",
};
const ALRM: Signal = Signal {
    number: 14,
    name: "SIGALRM",
};
const TERM: Signal = Signal {
    number: 15,
    name: "SIGTERM",
};
const CONT: Signal = Signal {
    number: 18,
    name: "SIGCONT",
};
/// The terminal has a new size.
pub(crate) const WINCH: Signal = Signal {
    number: 28,
    name: "SIGWINCH",
};

/// The signals that are passed on to a container. Numbers are Linux's on all architectures that Rust's `libc`
/// has no exception for but MIPS and SPARC, which Berth is not built for.
pub(crate) const PASSED_ON: &[Signal] = &[HUP, INT, QUIT, USR1, USR2, ALRM, TERM, CONT];
/// The signals on which a raw terminal has to be restored before the end.
pub(crate) const ENDING: &[Signal] = &[HUP, INT, QUIT, TERM];

/// Catches signals from now on, in place of what they do by themselves.
pub(crate) fn catch(signals: &[&'static [Signal]]) -> Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for &watched in signals.iter().copied().flatten() {
        let mut arrivals = signal(SignalKind::from_raw(watched.number))
            .map_err(|error| Failure::new(format!("catch {}: {error}", watched.name)))?;
        let sender = sender.clone();
        tokio::spawn(async move { while arrivals.recv().await.is_some() && sender.send(watched).is_ok() {} });
    }
    Ok(receiver)
}

/// Passes signals on to a container, one after the other. That it has just ended is no error: its exit comes by
/// another way.
pub(crate) fn pass_on(client: &Client, container: String) -> mpsc::UnboundedSender<Signal> {
    let (sender, mut queue) = mpsc::unbounded_channel::<Signal>();
    let mut containers = client.containers();
    tokio::spawn(async move {
        while let Some(signal) = queue.recv().await {
            let request = KillContainerRequest {
                container: container.clone(),
                signal: signal.name.to_owned(),
            };
            let _ = containers.kill(request).await;
        }
    });
    sender
}
