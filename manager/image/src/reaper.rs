//! Removal of what is already out of sight, one after the other on a thread that gives way to all others.
//!
//! A layer may have a hundred thousand files. Who asks for its removal has to wait for a rename; who asks for
//! anything else at that time waits for nothing. What a process does not get done, the next one that opens the store
//! finds in `trash`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::removal::remove;

/// The lowest priority that a thread can have; its disk requests follow it.
const NICE: i32 = 19;

pub(crate) struct Reaper {
    queue: Sender<Job>,
    is_ending: Arc<AtomicBool>,
}

enum Job {
    Remove(PathBuf),
    /// All before this is removed.
    Tell(Sender<()>),
}

impl Reaper {
    pub(crate) fn new() -> Reaper {
        let (queue, jobs) = channel();
        let is_ending = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&is_ending);
        let thread = std::thread::Builder::new()
            .name("image-reaper".into())
            .spawn(move || run(&jobs, &ending));
        if let Err(e) = &thread {
            tracing::warn!(error = %e, "cannot start a thread: what is removed stays in trash until the next start");
        }
        Reaper { queue, is_ending }
    }

    /// Remove a file or folder, later.
    pub(crate) fn remove(&self, path: PathBuf) {
        // Without a thread it waits for the next open of the store.
        let _ = self.queue.send(Job::Remove(path));
    }

    /// Wait until all that was to be removed so far is gone, for who needs its space; not longer than `patience`.
    pub(crate) fn settle(&self, patience: Duration) {
        let (tell, told) = channel();
        let _ = self.queue.send(Job::Tell(tell));
        let _ = told.recv_timeout(patience);
    }
}

impl Drop for Reaper {
    /// Nobody waits for the thread, which ends after what it is at: two that remove the same do no harm.
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }
}

/// Let this thread give way to all others, and those that it starts.
pub(crate) fn give_way() {
    if let Err(e) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(error = %e, "work that can wait runs at normal priority");
    }
}

fn run(jobs: &Receiver<Job>, is_ending: &AtomicBool) {
    give_way();
    for job in jobs {
        let path = match job {
            Job::Remove(path) => path,
            Job::Tell(tell) => {
                // Who has asked may have lost patience.
                let _ = tell.send(());
                continue;
            }
        };
        for child in children(&path).into_iter().chain([path]) {
            if is_ending.load(Ordering::Relaxed) {
                return;
            }
            if let Err(e) = remove(&child) {
                // The next open of the store tries again.
                tracing::warn!(path = %child.display(), error = %e, "could not remove");
            }
        }
        failpoint::reach("reaper.removed");
    }
}

/// A folder goes child by child, so that an end need not wait for all of it.
fn children(path: &Path) -> Vec<PathBuf> {
    let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let list = is_folder.then(|| std::fs::read_dir(path));
    let entries = list.into_iter().flatten().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
