//! What containers wrote: files that the shims write, read here. So output needs no manager to be kept, and a
//! client that reads slowly holds nobody up. As with docker's json-file by default, a log grows without
//! bound: a limit would drop output that nobody agreed to lose. It goes with its container.

mod files;
mod follow;
mod pace;
pub(crate) mod pack;
mod record;
mod splitter;
pub(crate) mod syslog;
mod tail;
pub(crate) mod target;
pub(crate) mod watch;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::Error;
use crate::container::now_unix_nanos;
use crate::engine::{Engine, blocking};

pub(crate) use follow::{Follower, Position};
pub(crate) use pace::Claim;
pub use record::{Record, Stream};

/// The newest file of a container's log; older ones have `.1`, `.2`, … behind it.
pub(crate) const FILE_NAME: &str = "log.json";

/// Records that may wait for a client. Each is 16 KiB at most.
const QUEUE_MAX: usize = 8;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogsRequest {
    /// Id, name, or prefix of an id.
    pub container: String,
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only what was written at this time or later, in nanoseconds since 1970.
    pub since_unix_nanos: i64,
    /// Only what was written until this time, in nanoseconds since 1970; 0: all.
    pub until_unix_nanos: i64,
}

impl Engine {
    /// What a container wrote, in order. Bounded: a reader that stops stops the reading, nothing else.
    pub async fn logs(&self, request: LogsRequest) -> Result<mpsc::Receiver<Result<Record, Error>>, Error> {
        let handle = self.0.containers.find(&request.container)?;
        let container = handle.snapshot().container;
        let plan = container.request.logging.plan()?.file;
        if !plan.kept {
            let why = "configured logging driver does not support reading";
            return Err(Error::wrong_state("read the logs of", &container, why));
        }
        let from = match request.tail_lines {
            Some(lines) => Position::LastLines(lines),
            None => Position::Since(request.since_unix_nanos),
        };
        let mut state = handle.watch();
        let run = handle.snapshot().container.runs;
        let reading = handle.logs.reading();
        let mut follower = Follower::open(reading, &self.0.log_watcher, from, plan, Claim::Log).await?;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(async move {
            let mut ended = !request.follow;
            let until = match request.until_unix_nanos {
                0 => i64::MAX,
                until => until,
            };
            loop {
                let records = match follower.read().await {
                    Ok(records) => records,
                    Err(error) => {
                        let _ = sender.send(Err(error)).await;
                        return;
                    }
                };
                let at_the_end = records.is_empty();
                for record in records
                    .into_iter()
                    .filter(|record| record.at_unix_nanos >= request.since_unix_nanos)
                {
                    let bytes = record.data.len();
                    if record.at_unix_nanos > until || !follower.send(&sender, Ok(record), bytes).await {
                        return;
                    }
                }
                if at_the_end && ended {
                    return;
                }
                if at_the_end {
                    tokio::select! {
                        () = follower.changed() => {}
                        _ = state.wait_for(|snapshot| snapshot.has_ended(run)) => ended = true,
                        () = clock_says(until) => ended = true,
                        () = sender.closed() => return,
                    }
                }
            }
        });
        Ok(receiver)
    }
}

/// Returns when it is later than that.
async fn clock_says(unix_nanos: i64) {
    if let Ok(left) = u64::try_from(unix_nanos.saturating_sub(now_unix_nanos())) {
        tokio::time::sleep(Duration::from_nanos(left)).await;
    }
}

/// The folder of a container's log. It goes with the container, but not under a reader's hands.
pub(crate) struct LogFolder {
    path: PathBuf,
    use_: Mutex<Use>,
}

#[derive(Default)]
struct Use {
    readers: usize,
    removed: bool,
}

/// Somebody reads in a log folder, as long as this lives.
pub(crate) struct Reading(Arc<LogFolder>);

impl LogFolder {
    pub(crate) fn new(path: PathBuf) -> LogFolder {
        LogFolder {
            path,
            use_: Mutex::default(),
        }
    }

    pub(crate) fn reading(self: &Arc<Self>) -> Reading {
        self.with_use(|use_| use_.readers += 1);
        Reading(Arc::clone(self))
    }

    /// Remove the folder now, or when its last reader leaves.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let unread = self.with_use(|use_| {
            use_.removed = true;
            use_.readers == 0
        });
        if unread { self.remove_files() } else { Ok(()) }
    }

    fn remove_files(&self) -> Result<(), Error> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::file("remove", &self.path)(error))
            }
            _ => Ok(()),
        }
    }

    fn with_use<T>(&self, change: impl FnOnce(&mut Use) -> T) -> T {
        change(&mut self.use_.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Reading {
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let last_of_removed = self.0.with_use(|use_| {
            use_.readers -= 1;
            use_.readers == 0 && use_.removed
        });
        if last_of_removed && let Err(error) = self.0.remove_files() {
            tracing::warn!(%error, "left behind, until the next start of the manager");
        }
    }
}

/// Reading a file waits for the disk, so it is done where it holds nobody up.
async fn reading<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    blocking(move || work().map_err(Error::file("read the log in", &path))).await
}
