//! Tar archives through gRPC: messages of a stream on this side, a reader or writer for the engine's thread on the
//! other. Neither holds more than a few messages.

use std::future::Future;
use std::io::{self, Read, Write};

use engine::Error;
use image::{ChangeKind, FileChange, Platform};
use proto::v1;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use crate::status::status;
use crate::stop::Stopping;

/// Messages that wait on either way.
const MESSAGES_MAX: usize = 4;
const CHUNK_BYTES: usize = 256 << 10;

/// A message that brings a part of an archive.
pub(crate) trait Part: Send + 'static {
    /// None: a message that has no place here.
    fn data(self) -> Option<Vec<u8>>;
}

impl Part for v1::LoadInput {
    fn data(self) -> Option<Vec<u8>> {
        match self.kind? {
            v1::load_input::Kind::Start(_) => None,
            v1::load_input::Kind::Data(data) => Some(data),
        }
    }
}

impl Part for v1::ImportInput {
    fn data(self) -> Option<Vec<u8>> {
        match self.kind? {
            v1::import_input::Kind::Start(_) => None,
            v1::import_input::Kind::Data(data) => Some(data),
        }
    }
}

impl Part for v1::CopyInput {
    fn data(self) -> Option<Vec<u8>> {
        match self.kind? {
            v1::copy_input::Kind::Start(_) => None,
            v1::copy_input::Kind::Data(data) => Some(data),
        }
    }
}

/// What a client sends, for a thread to read. A client that goes away before its archive's end is an error there,
/// and so is the manager's stop. Nothing is taken before the thread asks: it may have to wait for its turn.
/// `cut` ends it as well.
pub(crate) fn receive<M: Part>(
    mut messages: Streaming<M>,
    stopping: &Stopping,
    cut: CancellationToken,
) -> Receiver {
    let (sender, parts) = mpsc::channel(MESSAGES_MAX);
    let (begin, turn) = oneshot::channel();
    let mut stopping = stopping.clone();
    tokio::spawn(
        async move {
            if turn.await.is_err() {
                return;
            }
            loop {
                let message = tokio::select! {
                    message = messages.message() => message,
                    stops = stopping.status() => Err(stops),
                    () = cut.cancelled() => Err(Status::aborted("the copy was at a standstill")),
                    () = sender.closed() => return,
                };
                let part = match message {
                    Ok(Some(message)) => match message.data() {
                        Some(data) => Ok(data),
                        None => Err(io::Error::other("a message of it is not `data`")),
                    },
                    Ok(None) => return,
                    Err(status) => Err(io::Error::other(format!("it was cut off: {}", status.message()))),
                };
                let is_last = part.is_err();
                if sender.send(part).await.is_err() || is_last {
                    return;
                }
            }
        }
        .in_current_span(),
    );
    Receiver {
        begin: Some(begin),
        parts,
        current: io::Cursor::default(),
    }
}

/// The reading end of an archive that comes in.
pub(crate) struct Receiver {
    begin: Option<oneshot::Sender<()>>,
    parts: mpsc::Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(begin) = self.begin.take() {
            let _ = begin.send(());
        }
        loop {
            let got = self.current.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            match self.parts.blocking_recv() {
                Some(part) => self.current = io::Cursor::new(part?),
                None => return Ok(0),
            }
        }
    }
}

/// What a thread writes, for a client to take. When the client has gone, writing fails, and the work is given up.
pub(crate) fn send<M: Send + 'static, F>(
    work: impl FnOnce(Messages<M>) -> F,
) -> impl Stream<Item = Result<M, Status>> + Send + 'static
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
    let sent = work(Messages {
        sender: messages.clone(),
        manager: Handle::current(),
        cut: CancellationToken::new(),
    });
    tokio::spawn(
        async move {
            let sent = tokio::select! {
                sent = sent => sent,
                () = messages.closed() => return,
            };
            if let Err(error) = sent {
                let _ = messages.send(Err(status(error))).await;
            }
        }
        .in_current_span(),
    );
    ReceiverStream::new(receiver)
}

/// Where a thread puts what is to be sent.
pub(crate) struct Messages<M> {
    sender: mpsc::Sender<Result<M, Status>>,
    manager: Handle,
    /// A client that takes nothing is waited for no longer.
    pub(crate) cut: CancellationToken,
}

impl<M> Messages<M> {
    fn put(&self, message: M) -> io::Result<()> {
        let broken = |why| Err(io::Error::new(io::ErrorKind::BrokenPipe, why));
        self.manager.block_on(async {
            tokio::select! {
                sent = self.sender.send(Ok(message)) => sent.or_else(|_| broken("the client has gone away")),
                () = self.cut.cancelled() => broken("the client takes nothing"),
            }
        })
    }
}

/// The writing end of an archive that goes out. What is written last needs a flush.
pub(crate) struct Sender {
    chunks: Messages<v1::Chunk>,
    buffer: Vec<u8>,
}

impl Sender {
    pub(crate) fn new(chunks: Messages<v1::Chunk>) -> Sender {
        Sender {
            chunks,
            buffer: Vec::with_capacity(CHUNK_BYTES),
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.chunks.put(v1::Chunk { data })
    }
}

/// Changes of files on their way out, many in a message. What comes last goes when this is dropped.
pub(crate) struct Changes {
    messages: Messages<v1::DiffResponse>,
    waiting: Vec<v1::diff_response::Change>,
    bytes: usize,
}

impl Changes {
    pub(crate) fn new(messages: Messages<v1::DiffResponse>) -> Changes {
        Changes {
            messages,
            waiting: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn put(&mut self, one: FileChange) -> io::Result<()> {
        self.bytes += one.path.len() + size_of::<v1::diff_response::Change>();
        self.waiting.push(change(one));
        if self.bytes < CHUNK_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bytes = 0;
        let changes = std::mem::take(&mut self.waiting);
        self.messages.put(v1::DiffResponse { changes })
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            // A client that has gone misses nothing.
            let _ = self.flush();
        }
    }
}

/// A platform as clients write it; empty is none.
pub(crate) fn platform(text: &str) -> Result<Option<Platform>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let platform = text.parse::<Platform>();
    platform.map(Some).map_err(|error| status(error.into()))
}

fn change(change: FileChange) -> v1::diff_response::Change {
    let kind = match change.kind {
        ChangeKind::Added => v1::diff_response::Kind::Added,
        ChangeKind::Changed => v1::diff_response::Kind::Changed,
        ChangeKind::Deleted => v1::diff_response::Kind::Deleted,
    };
    v1::diff_response::Change {
        kind: kind.into(),
        path: change.path,
    }
}
