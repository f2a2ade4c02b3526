//! A session: this process's terminal or pipes, joined to those of a process in a container.
//!
//! `run`, `start -a`, `attach` and `exec` all end up here. Whatever comes is relayed in one loop that never
//! blocks (`session/relay.rs`): a stalled reader of our output stops only the output, so that signals still get through.

mod relay;

use proto::v1::attach_input::Kind as AttachKind;
use proto::v1::attach_output::Kind as OutputKind;
use proto::v1::exec_input::Kind as ExecKind;
use proto::v1::{AttachInput, AttachOutput, AttachStart, ExecInput, ExecStart, Exit, WindowSize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::detach::DetachKeys;
use crate::failure::{Failure, Result};
use crate::signals::{self, Signal};
use crate::stdio::{self, Stream};
use crate::terminal::{self, RawMode};

/// Inputs that may wait for the connection.
const INPUT_QUEUE_LENGTH: usize = 8;

/// What a client says after its first message, whichever stream it is for.
#[derive(Debug, PartialEq)]
pub(crate) enum Input {
    Stdin(Vec<u8>),
    Resize(WindowSize),
    CloseStdin,
}

impl From<Input> for AttachInput {
    fn from(input: Input) -> Self {
        let kind = match input {
            Input::Stdin(data) => AttachKind::Stdin(data),
            Input::Resize(size) => AttachKind::Resize(size),
            Input::CloseStdin => AttachKind::CloseStdin(true),
        };
        Self { kind: Some(kind) }
    }
}

impl From<Input> for ExecInput {
    fn from(input: Input) -> Self {
        let kind = match input {
            Input::Stdin(data) => ExecKind::Stdin(data),
            Input::Resize(size) => ExecKind::Resize(size),
            Input::CloseStdin => ExecKind::CloseStdin(true),
        };
        Self { kind: Some(kind) }
    }
}

/// An open session, at the point where the manager has said `attached`.
pub(crate) struct Session<M> {
    client: Client,
    inputs: mpsc::Sender<M>,
    outputs: Streaming<AttachOutput>,
    /// The process has a terminal.
    tty: bool,
}

/// How this side wants the session to be.
#[derive(Default)]
pub(crate) struct Options {
    /// Relay stdin.
    pub(crate) stdin: bool,
    /// Drop what comes on stdout, and that of a terminal.
    pub(crate) without_stdout: bool,
    /// Drop what comes on stderr.
    pub(crate) without_stderr: bool,
    pub(crate) detach_keys: DetachKeys,
    /// The window size that the manager knows already.
    pub(crate) window: Option<WindowSize>,
    /// Make a program that is in the container already paint itself anew.
    pub(crate) repaint: bool,
    /// The container that signals are passed on to, when there is no terminal to type them at.
    pub(crate) signals_to: Option<String>,
    /// The container to start, once everything that it could write will be seen.
    pub(crate) start: Option<String>,
}

impl Options {
    /// Only input is relayed, and at its end the session is over.
    pub(crate) fn shows_nothing(&self) -> bool {
        self.without_stdout && self.without_stderr
    }
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    Exited(Exit),
    Detached,
}

impl End {
    /// The exit code that this process hands on.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            // What wait(2) reports has eight bits.
            Self::Exited(exit) => exit.code as u8,
            Self::Detached => 0,
        }
    }
}

impl Session<AttachInput> {
    pub(crate) async fn attach(client: &Client, start: AttachStart) -> Result<Self> {
        let (inputs, queue) = mpsc::channel(INPUT_QUEUE_LENGTH);
        let first = AttachInput {
            kind: Some(AttachKind::Start(start)),
        };
        let _ = inputs.try_send(first); // An empty queue has room.
        let reply = client.containers().attach(ReceiverStream::new(queue)).await;
        Self::attached(client, inputs, reply).await
    }
}

impl Session<ExecInput> {
    pub(crate) async fn exec(client: &Client, start: ExecStart) -> Result<Self> {
        let (inputs, queue) = mpsc::channel(INPUT_QUEUE_LENGTH);
        let first = ExecInput {
            kind: Some(ExecKind::Start(start)),
        };
        let _ = inputs.try_send(first); // An empty queue has room.
        let reply = client.containers().exec(ReceiverStream::new(queue)).await;
        Self::attached(client, inputs, reply).await
    }
}

impl<M: From<Input>> Session<M> {
    async fn attached(
        client: &Client,
        inputs: mpsc::Sender<M>,
        reply: std::result::Result<tonic::Response<Streaming<AttachOutput>>, Status>,
    ) -> Result<Self> {
        let mut outputs = reply.map_err(|status| client.failure(&status))?.into_inner();
        let first = outputs
            .message()
            .await
            .map_err(|status| client.failure(&status))?;
        let Some(AttachOutput {
            kind: Some(OutputKind::Attached(attached)),
        }) = first
        else {
            return Err(Failure::new("the manager's first answer was not `attached`"));
        };
        let client = client.clone();
        Ok(Self {
            client,
            inputs,
            outputs,
            tty: attached.tty,
        })
    }

    /// Relays until the process has ended and all its output is written, or the person detaches.
    pub(crate) async fn relay(self, options: Options) -> Result<End> {
        let typed_at = options.stdin && self.tty && terminal::stdin_is_terminal();
        let shown_on = self.tty && terminal::stdout_is_terminal();
        let watched: &[&[Signal]] = match &options.signals_to {
            // Signals that would end this process must not leave a changed terminal behind.
            _ if typed_at || shown_on => &[signals::ENDING, &[signals::WINCH]],
            _ if self.tty => &[&[signals::WINCH]],
            Some(_) => &[signals::PASSED_ON],
            None => &[],
        };
        let caught = signals::catch(watched)?;
        let raw = if typed_at || shown_on {
            Some(RawMode::enter(typed_at)?)
        } else {
            None
        };
        let end = relay::until_end(self, options, caught).await;
        drop(raw);
        if typed_at && matches!(end, Ok(End::Detached)) {
            // The shell's prompt should not follow whatever the container's line was.
            stdio::write(Stream::Stdout, b"\n")?;
        }
        end
    }
}
