//! The process's own stdin, stdout and stderr, moved by threads of their own.
//!
//! A read of a terminal or a write to a stalled pipe can block for ever, and making them non-blocking would
//! change them for every process that shares them. So each blocks a thread, and never the event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tokio::sync::{mpsc, oneshot};

use crate::failure::{Failure, Result};

const READ_BYTES_MAX: usize = 32 << 10;
/// Chunks that may wait on either side.
const QUEUE_LENGTH: usize = 16;

/// Which of a container's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Reads stdin until its end. The channel closes then.
pub(crate) fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    // Never joined: when the process exits, the read is simply forgotten.
    thread::spawn(move || {
        let stdin = io::stdin();
        let mut buffer = vec![0; READ_BYTES_MAX];
        while let Ok(length @ 1..) = read(stdin.as_fd(), &mut buffer) {
            if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Writes a chunk whole, blocking.
pub(crate) fn write(stream: Stream, data: &[u8]) -> Result<()> {
    let written = match stream {
        Stream::Stdout => write_all(io::stdout().as_fd(), data),
        Stream::Stderr => write_all(io::stderr().as_fd(), data),
    };
    written.map_err(|error| Failure::write(stream.name(), &error))
}

/// Writes chunks to stdout and stderr in the order in which they come.
pub(crate) struct Writer {
    chunks: mpsc::Sender<(Stream, Vec<u8>)>,
    result: oneshot::Receiver<Result<()>>,
}

/// Room for one chunk in a [`Writer`]'s queue.
pub(crate) type Room<'a> = mpsc::Permit<'a, (Stream, Vec<u8>)>;

impl Writer {
    pub(crate) fn start() -> Self {
        let (chunks, mut queue) = mpsc::channel::<(Stream, Vec<u8>)>(QUEUE_LENGTH);
        let (told, result) = oneshot::channel();
        thread::spawn(move || {
            let mut written = Ok(());
            while written.is_ok() {
                let Some((stream, data)) = queue.blocking_recv() else {
                    break;
                };
                written = write(stream, &data);
            }
            // Close the queue before the result is there, so that whoever finds it closed finds the result.
            drop(queue);
            let _ = told.send(written);
        });
        Self { chunks, result }
    }

    /// Waits until there is room for one more chunk; `None` when a write has failed ([`Writer::finish`] has why).
    pub(crate) async fn room(&self) -> Option<Room<'_>> {
        self.chunks.reserve().await.ok()
    }

    /// Waits until all chunks are written, or one could not be.
    pub(crate) async fn finish(self) -> Result<()> {
        drop(self.chunks);
        self.result
            .await
            .unwrap_or_else(|_| Err(Failure::new("the thread that writes output has panicked")))
    }
}

fn read(fd: BorrowedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::IN)?,
            result => return Ok(result?),
        }
    }
}

fn write_all(fd: BorrowedFd, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::write(fd, data) {
            Ok(length) => data = &data[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Somebody else made the shared file non-blocking.
fn wait(fd: BorrowedFd, what: PollFlags) -> io::Result<()> {
    match rustix::event::poll(&mut [PollFd::new(&fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
