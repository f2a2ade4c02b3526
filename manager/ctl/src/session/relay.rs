//! The loop of a session: stdin and sizes to the manager, output from it, signals either way.

use std::collections::VecDeque;
use std::time::Duration;

use proto::v1::attach_output::Kind as OutputKind;
use proto::v1::{AttachOutput, StartContainerRequest, WindowSize};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{End, Input, Options, Session};
use crate::client::Client;
use crate::detach::Detector;
use crate::failure::{Failure, Result};
use crate::signals::{self, Signal};
use crate::stdio::{self, Stream, Writer};
use crate::terminal;

/// How long a person who detaches waits for the manager to take what was typed just before.
const LAST_INPUT_PATIENCE: Duration = Duration::from_millis(200);

/// Relays, then sees to it that all output is written.
pub(super) async fn until_end<M: From<Input>>(
    session: Session<M>,
    options: Options,
    mut caught: mpsc::UnboundedReceiver<Signal>,
) -> Result<End> {
    let mut writer = None;
    let end = relay(session, options, &mut caught, &mut writer).await;
    let Some(writer) = writer else {
        return end.map(|end| end.unwrap_or(End::Detached));
    };
    // The last output may wait for a stalled reader, and the person may lose patience with it.
    let impatience = async {
        loop {
            match caught.recv().await {
                Some(signal) if signals::ENDING.contains(&signal) => return signal,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    };
    let written = tokio::select! {
        written = writer.finish() => written,
        signal = impatience => Err(Failure::quiet(signal.exit_code())),
    };
    match end? {
        Some(end) => written.map(|()| end),
        // The relay stopped because of the writer, which knows why.
        None => Err(written
            .err()
            .unwrap_or_else(|| Failure::new("write output: the writer stopped"))),
    }
}

/// `None`: output can't be written any more.
async fn relay<M: From<Input>>(
    session: Session<M>,
    options: Options,
    caught: &mut mpsc::UnboundedReceiver<Signal>,
    writer: &mut Option<Writer>,
) -> Result<Option<End>> {
    let Session {
        client,
        inputs,
        mut outputs,
        tty,
        ..
    } = session;
    let only_input = options.shows_nothing();
    let mut keyboard = Keyboard::new(tty, &options);
    let mut signals = SignalRelay {
        container: options.signals_to,
        early: Vec::new(),
        pass_on: None,
    };
    let starting = start(&client, options.start);
    tokio::pin!(starting);
    let mut started = false;
    let mut unwritten: Option<(Stream, Vec<u8>)> = None;
    let mut exit = None;
    loop {
        // A reply to `start` that is outstanding is waited for even after the exit: to leave would cancel it.
        if started && unwritten.is_none() && exit.is_some() {
            return Ok(exit);
        }
        tokio::select! {
            result = &mut starting, if !started => {
                result?;
                started = true;
                signals.begin(&client);
            }
            output = outputs.message(), if unwritten.is_none() && exit.is_none() => {
                let kind = match output {
                    Ok(Some(AttachOutput { kind })) => kind,
                    // The container takes no more.
                    Ok(None) if only_input => {
                        if !started {
                            starting.await?;
                        }
                        return Ok(Some(End::Detached));
                    }
                    ended => {
                        if !started {
                            // Why the start did not work says more than that the session is over.
                            starting.await?;
                        }
                        return Err(match ended {
                            Err(status) => client.failure(&status),
                            Ok(_) => Failure::new("the manager ended the session before it knew of an exit"),
                        });
                    }
                };
                match kind {
                    Some(OutputKind::Stdout(_)) if options.without_stdout => {}
                    Some(OutputKind::Stderr(_)) if options.without_stderr => {}
                    Some(OutputKind::Stdout(data)) => unwritten = Some((Stream::Stdout, data)),
                    Some(OutputKind::Stderr(data)) => unwritten = Some((Stream::Stderr, data)),
                    Some(OutputKind::Exit(how)) => exit = Some(End::Exited(how)),
                    Some(OutputKind::Attached(_)) | None => {}
                }
            }
            room = room(writer), if unwritten.is_some() => match (room, unwritten.take()) {
                (Some(room), Some(chunk)) => room.send(chunk),
                _ => return Ok(None),
            },
            room = inputs.reserve(), if !keyboard.pending.is_empty() => match room {
                Ok(room) => {
                    if let Some(input) = keyboard.pending.pop_front() {
                        room.send(input.into());
                    }
                }
                // The manager takes no more input, and is about to say why.
                Err(_) => keyboard.unplug(),
            },
            typed = keyboard.read(), if keyboard.is_read() => {
                let is_end = typed.is_none();
                if keyboard.typed(typed) || (is_end && only_input) {
                    break;
                }
            }
            Some(signal) = caught.recv() => {
                if signal == signals::WINCH {
                    keyboard.resized(terminal::window_size());
                } else if tty {
                    return Err(Failure::quiet(signal.exit_code()));
                } else {
                    signals.relay(signal);
                }
            }
        }
    }
    if !started {
        starting.await?;
    }
    let handed_over = hand_over(keyboard.pending, inputs, &mut outputs);
    if !only_input {
        let _ = tokio::time::timeout(LAST_INPUT_PATIENCE, handed_over).await;
        return Ok(Some(End::Detached));
    }
    // Whatever the container makes of its input: all of it is the container's.
    tokio::pin!(handed_over);
    loop {
        tokio::select! {
            () = &mut handed_over => return Ok(Some(End::Detached)),
            Some(signal) = caught.recv() => signals.relay(signal),
        }
    }
}

async fn start(client: &Client, container: Option<String>) -> Result<()> {
    let Some(container) = container else { return Ok(()) };
    let reply = client
        .containers()
        .start(StartContainerRequest { container })
        .await;
    reply
        .map(|_| ())
        .map_err(|status| client.failure(&status).of_command())
}

/// A thread is only started for a process that says something.
async fn room(writer: &mut Option<Writer>) -> Option<stdio::Room<'_>> {
    writer.get_or_insert_with(Writer::start).room().await
}

/// Sends the last inputs of a person who detaches, and waits until the manager has taken all.
async fn hand_over<M: From<Input>>(
    pending: VecDeque<Input>,
    inputs: mpsc::Sender<M>,
    outputs: &mut Streaming<AttachOutput>,
) {
    if pending.is_empty() {
        return;
    }
    for input in pending {
        if inputs.send(input.into()).await.is_err() {
            return;
        }
    }
    // The end of our half of the stream, which the manager reads after all input. Where nothing else is to come, it
    // answers by its own.
    drop(inputs);
    while let Ok(Some(_)) = outputs.message().await {}
}

/// Everything that goes to the process: what is typed or piped in, and sizes.
struct Keyboard {
    /// `None`: not relayed, or at its end.
    stdin: Option<mpsc::Receiver<Vec<u8>>>,
    /// Only where the process has a terminal.
    detector: Option<Detector>,
    /// What waits for room in the connection.
    pending: VecDeque<Input>,
    tty: bool,
}

impl Keyboard {
    fn new(tty: bool, options: &Options) -> Self {
        let now = terminal::window_size().filter(|_| tty);
        Self {
            stdin: options.stdin.then(stdio::read_stdin),
            detector: tty.then(|| Detector::new(options.detach_keys.clone())),
            pending: first_sizes(options.window, now, options.repaint),
            tty,
        }
    }

    /// More is read only when the connection took what was read before.
    fn is_read(&self) -> bool {
        self.stdin.is_some() && self.pending.is_empty()
    }

    async fn read(&mut self) -> Option<Vec<u8>> {
        match &mut self.stdin {
            Some(stdin) => stdin.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what was read, `None` at the end. True: the person wants to leave.
    fn typed(&mut self, data: Option<Vec<u8>>) -> bool {
        let Some(data) = data else {
            self.stdin = None;
            // The end of input on a terminal is a key (^D); a terminal that is gone is not one.
            if !self.tty {
                self.pending.push_back(Input::CloseStdin);
            }
            return false;
        };
        let (passed, detached) = match &mut self.detector {
            Some(detector) => detector.feed(&data),
            None => (data, false),
        };
        if !passed.is_empty() {
            self.pending.push_back(Input::Stdin(passed));
        }
        detached
    }

    fn resized(&mut self, size: Option<WindowSize>) {
        if let Some(size) = size.filter(|_| self.tty) {
            self.pending.retain(|input| !matches!(input, Input::Resize(_)));
            self.pending.push_back(Input::Resize(size));
        }
    }

    fn unplug(&mut self) {
        self.stdin = None;
        self.pending.clear();
        self.tty = false;
    }
}

/// The sizes to tell when a session begins. A program repaints itself when its size changes, so for `repaint` it
/// does, for a moment.
fn first_sizes(known: Option<WindowSize>, now: Option<WindowSize>, repaint: bool) -> VecDeque<Input> {
    let Some(now) = now.filter(|_| now != known) else {
        return VecDeque::new();
    };
    let other = WindowSize {
        rows: now.rows + 1,
        ..now
    };
    let sizes = if repaint { vec![other, now] } else { vec![now] };
    sizes.into_iter().map(Input::Resize).collect()
}

/// Passes signals on, once the container is started; those that come earlier wait.
struct SignalRelay {
    container: Option<String>,
    early: Vec<Signal>,
    pass_on: Option<mpsc::UnboundedSender<Signal>>,
}

impl SignalRelay {
    fn begin(&mut self, client: &Client) {
        let Some(container) = self.container.take() else {
            return;
        };
        let queue = signals::pass_on(client, container);
        for signal in self.early.drain(..) {
            let _ = queue.send(signal);
        }
        self.pass_on = Some(queue);
    }

    fn relay(&mut self, signal: Signal) {
        match &self.pass_on {
            Some(queue) => {
                let _ = queue.send(signal);
            }
            None => self.early.push(signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: WindowSize = WindowSize {
        columns: 80,
        rows: 24,
    };

    fn keyboard(tty: bool) -> Keyboard {
        let (_, stdin) = mpsc::channel(1);
        let detector = tty.then(|| Detector::new(crate::detach::DetachKeys::default()));
        Keyboard {
            stdin: Some(stdin),
            detector,
            pending: VecDeque::new(),
            tty,
        }
    }

    #[test]
    fn the_end_of_a_pipe_closes_stdin_and_the_end_of_a_terminal_does_not() {
        let (mut pipe, mut terminal) = (keyboard(false), keyboard(true));
        assert!(!pipe.typed(None) && !terminal.typed(None));
        assert_eq!(pipe.pending, [Input::CloseStdin]);
        assert_eq!(terminal.pending, []);
        assert!(pipe.stdin.is_none() && terminal.stdin.is_none());
    }

    #[test]
    fn detach_keys_are_plain_bytes_in_a_pipe() {
        let mut pipe = keyboard(false);
        assert!(!pipe.typed(Some(b"\x10\x11".to_vec())));
        assert_eq!(pipe.pending, [Input::Stdin(b"\x10\x11".to_vec())]);
        assert!(keyboard(true).typed(Some(b"\x10\x11".to_vec())));
    }

    #[test]
    fn only_the_latest_size_waits() {
        let mut keyboard = keyboard(true);
        keyboard.resized(Some(SIZE));
        keyboard.resized(None);
        keyboard.resized(Some(WindowSize { rows: 50, ..SIZE }));
        assert_eq!(keyboard.pending, [Input::Resize(WindowSize { rows: 50, ..SIZE })]);
    }

    #[test]
    fn a_size_that_is_known_is_not_told_again() {
        assert_eq!(first_sizes(Some(SIZE), Some(SIZE), false), []);
        assert_eq!(first_sizes(None, None, true), []);
        assert_eq!(first_sizes(None, Some(SIZE), false), [Input::Resize(SIZE)]);
        let taller = WindowSize { rows: 25, ..SIZE };
        assert_eq!(
            first_sizes(None, Some(SIZE), true),
            [Input::Resize(taller), Input::Resize(SIZE)]
        );
    }
}
