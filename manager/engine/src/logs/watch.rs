//! Waking those who follow logs: one inotify instance for all, because the kernel allows a user only so many.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::Error;
use crate::sys::{self, InotifyFd};

/// Watches folders for what is written in them.
pub(crate) struct Watcher(Arc<Shared>);

struct Shared {
    inotify: AsyncFd<InotifyFd>,
    folders: Mutex<HashMap<WatchDescriptor, Folder>>,
}

struct Folder {
    changes: watch::Sender<()>,
    subscribers: usize,
}

/// A subscriber to one folder.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    descriptor: WatchDescriptor,
    changes: watch::Receiver<()>,
}

impl Watcher {
    /// Must be called inside a runtime, in which the reading task then lives.
    pub(crate) fn new() -> Result<Watcher, Error> {
        let path = Path::new("inotify");
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|error| Error::file("open", path)(error.into()))?;
        let inotify = sys::wait_on(inotify).map_err(Error::file("watch", path))?;
        let shared = Arc::new(Shared {
            inotify,
            folders: Mutex::default(),
        });
        tokio::spawn(deliver(Arc::clone(&shared)));
        Ok(Watcher(shared))
    }

    pub(crate) fn subscribe(&self, folder: &Path) -> Result<Subscription, Error> {
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        // Held over the call, so that a watch that is just being given up is not joined.
        let mut folders = self.0.locked();
        let descriptor = self
            .0
            .inotify
            .get_ref()
            .0
            .add_watch(folder, flags)
            .map_err(|error| {
                Error::file("watch (fs.inotify.max_user_watches may be too low)", folder)(error.into())
            })?;
        let entry = folders.entry(descriptor).or_insert_with(|| Folder {
            changes: watch::channel(()).0,
            subscribers: 0,
        });
        entry.subscribers += 1;
        let changes = entry.changes.subscribe();
        drop(folders);
        Ok(Subscription {
            shared: Arc::clone(&self.0),
            descriptor,
            changes,
        })
    }
}

impl Shared {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<WatchDescriptor, Folder>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscription {
    /// Take note of all changes up to now.
    pub(crate) fn seen(&mut self) {
        self.changes.borrow_and_update();
    }

    /// Return when there is a change that was not noted.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut folders = self.shared.locked();
        let Some(folder) = folders.get_mut(&self.descriptor) else {
            return;
        };
        folder.subscribers -= 1;
        if folder.subscribers == 0 {
            folders.remove(&self.descriptor);
            // Fails when the folder is gone, and the watch with it.
            let _ = self.shared.inotify.get_ref().0.rm_watch(self.descriptor);
        }
    }
}

async fn deliver(shared: Arc<Shared>) {
    loop {
        let Ok(mut ready) = shared.inotify.readable().await else {
            return;
        };
        match shared.inotify.get_ref().0.read_events() {
            Ok(events) => {
                let folders = shared.locked();
                for event in events {
                    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                        folders.values().for_each(|folder| {
                            let _ = folder.changes.send(());
                        });
                    } else if let Some(folder) = folders.get(&event.wd) {
                        let _ = folder.changes.send(());
                    }
                }
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "reading inotify; logs are not followed any more");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_follow_a_folder_are_woken() {
        let folder = tempfile::tempdir().unwrap();
        let watcher = Watcher::new().unwrap();
        let mut one = watcher.subscribe(folder.path()).unwrap();
        let mut two = watcher.subscribe(folder.path()).unwrap();
        std::fs::write(folder.path().join("log.json"), "x").unwrap();
        one.changed().await;
        two.changed().await;
        drop(two);
        one.seen();
        std::fs::write(folder.path().join("log.json"), "y").unwrap();
        one.changed().await;
        drop(one);
        assert!(watcher.0.locked().is_empty());
    }
}
