//! The two directions of attach and exec.

use engine::{Error, Input, Output};
use proto::v1;
use proto::v1::attach_output::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use crate::status::status;
use crate::translate;

/// An input message of attach or exec, after the first.
pub(crate) trait InputMessage: Send + 'static {
    /// None: a message that has no place here.
    fn input(self) -> Option<Input>;
}

impl InputMessage for v1::AttachInput {
    fn input(self) -> Option<Input> {
        match self.kind? {
            v1::attach_input::Kind::Start(_) => None,
            v1::attach_input::Kind::Stdin(bytes) => Some(Input::Stdin(bytes)),
            v1::attach_input::Kind::Resize(size) => Some(resize(size)),
            v1::attach_input::Kind::CloseStdin(close) => close.then_some(Input::CloseStdin),
        }
    }
}

impl InputMessage for v1::ExecInput {
    fn input(self) -> Option<Input> {
        match self.kind? {
            v1::exec_input::Kind::Start(_) => None,
            v1::exec_input::Kind::Stdin(bytes) => Some(Input::Stdin(bytes)),
            v1::exec_input::Kind::Resize(size) => Some(resize(size)),
            v1::exec_input::Kind::CloseStdin(close) => close.then_some(Input::CloseStdin),
        }
    }
}

fn resize(size: v1::WindowSize) -> Input {
    Input::Resize {
        columns: size.columns,
        rows: size.rows,
    }
}

/// Pass the client's messages on, until it has no more or nobody takes them.
pub(crate) fn feed<M: InputMessage>(mut messages: Streaming<M>, inputs: mpsc::Sender<Input>) {
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = messages.message() => message,
                () = inputs.closed() => return,
            };
            // An end and an error are the same here: the client sends no more.
            let Ok(Some(message)) = message else { return };
            if let Some(input) = message.input()
                && inputs.send(input).await.is_err()
            {
                return;
            }
        }
    });
}

/// `attached`, then all outputs.
pub(crate) fn outputs(
    attached: v1::Attached,
    outputs: mpsc::Receiver<Result<Output, Error>>,
) -> impl Stream<Item = Result<v1::AttachOutput, Status>> + Send + 'static {
    let first = tokio_stream::once(Ok(message(Kind::Attached(attached))));
    let rest = ReceiverStream::new(outputs).map(|output| {
        let kind = match output.map_err(status)? {
            Output::Stdout(bytes) => Kind::Stdout(bytes),
            Output::Stderr(bytes) => Kind::Stderr(bytes),
            Output::Exit(exit) => Kind::Exit(translate::exit(exit)),
        };
        Ok(message(kind))
    });
    first.chain(rest)
}

fn message(kind: Kind) -> v1::AttachOutput {
    v1::AttachOutput { kind: Some(kind) }
}
