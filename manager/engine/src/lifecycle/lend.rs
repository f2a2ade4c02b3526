//! A container whose files somebody is at: it neither starts nor goes meanwhile. Who copies is as fast as its client,
//! who may do nothing at all: others who want the container wait for one that does something, and no longer.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Command, Handle, Owner, policy};
use crate::Error;

/// While somebody else wants the container, a client may do nothing for this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The owner of a container waits until this is dropped, or the copy is cut off.
pub(crate) struct Loan(#[expect(dead_code, reason = "its end is what counts")] oneshot::Sender<()>);

/// How a copy gets on, and how it is told to end.
#[derive(Clone)]
pub(crate) struct Pace {
    /// Told by whoever lends; the copy gives back what it has at once.
    pub(crate) cut: CancellationToken,
    /// Goes up when waiting for the client begins, and when it ends: odd while the client is waited for.
    waits: Arc<AtomicU64>,
}

impl Pace {
    /// A copy that has yet to begin, and may have to wait for others' clients to do so.
    pub(crate) fn new(cut: CancellationToken) -> Pace {
        Pace {
            cut,
            waits: Arc::new(AtomicU64::new(1)),
        }
    }

    /// It has its turn.
    pub(crate) fn begun(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// The client's end of an archive: how long it is waited for is seen.
    pub(crate) fn watch<T>(&self, archive: T) -> Watched<T> {
        Watched {
            archive,
            pace: self.clone(),
        }
    }

    /// Returns when a client has been waited for all of the patience.
    async fn stalled(&self) {
        let mut before = self.waits.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(PATIENCE).await;
            let now = self.waits.load(Ordering::Relaxed);
            if now == before && now % 2 == 1 {
                return;
            }
            before = now;
        }
    }
}

/// See [`Pace::watch`].
pub(crate) struct Watched<T> {
    archive: T,
    pace: Pace,
}

impl<T> Watched<T> {
    fn wait<R>(&mut self, wait: impl FnOnce(&mut T) -> R) -> R {
        self.pace.waits.fetch_add(1, Ordering::Relaxed);
        let done = wait(&mut self.archive);
        self.pace.waits.fetch_add(1, Ordering::Relaxed);
        done
    }
}

impl<T: Read> Read for Watched<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(|archive| archive.read(buffer))
    }
}

impl<T: Write> Write for Watched<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(|archive| archive.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait(Write::flush)
    }
}

impl Handle {
    /// Keep the container as it is, if it does not run. None: it runs.
    pub(crate) async fn borrow(&self, pace: Pace) -> Result<Option<Loan>, Error> {
        self.ask(|reply| Command::Lend { pace, reply }).await
    }
}

impl Owner {
    /// Stand still until the loan is back. Gives the command that came meanwhile, and is to be carried out next.
    pub(super) async fn lend(
        &mut self,
        pace: &Pace,
        to: oneshot::Sender<Option<Loan>>,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Option<Command> {
        if self.container.is_running() {
            // Who asked may have gone.
            let _ = to.send(None);
            return None;
        }
        let (loan, mut given_back) = oneshot::channel();
        if to.send(Some(Loan(loan))).is_err() {
            return None;
        }
        let mut wanted = None;
        loop {
            let is_due = self.due.is_some_and(|due| due <= Instant::now());
            let is_wanted = wanted.is_some() || is_due || self.unrecorded.is_some();
            tokio::select! {
                // It is dropped, and nothing is ever sent.
                _ = &mut given_back => return wanted,
                command = inbox.recv(), if wanted.is_none() => match command {
                    // It starts nothing, and is why a container that comes back stays down.
                    Some(Command::Hold(reply)) => drop(reply.send(self.hold().await)),
                    Some(command) => {
                        if let Command::Remove { force: true, .. } = command {
                            pace.cut.cancel();
                        }
                        wanted = Some(command);
                    }
                    None => {
                        pace.cut.cancel();
                        let _ = given_back.await;
                        return None;
                    }
                },
                () = policy::until(self.due), if !is_due => {}
                () = pace.stalled(), if is_wanted && !pace.cut.is_cancelled() => pace.cut.cancel(),
            }
        }
    }
}
