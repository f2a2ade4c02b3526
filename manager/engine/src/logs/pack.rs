//! Packing rotated files, where a container's options ask for it. Not the shim's work: it would keep the container's
//! output waiting, and take memory in each shim. What is rotated while no manager is there is packed by the next one.
//!
//! A packed file is made beside its place, synced, and renamed, then the plain one is removed. Who dies in between leaves
//! both, of which the plain one counts.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::files::{self, Still};
use crate::Error;
use crate::sys::{self, InotifyFd};

/// Somebody reads the plain file: later, then.
const RETRY: Duration = Duration::from_secs(10);
const TEMPORARY: &str = "packing.gz";

/// Packs the rotated files of those folders that it is told of.
#[derive(Clone)]
pub(crate) struct Packer(Arc<Shared>);

struct Shared {
    inotify: AsyncFd<InotifyFd>,
    state: Mutex<State>,
    due: Notify,
}

#[derive(Default)]
struct State {
    folders: HashMap<WatchDescriptor, PathBuf>,
    due: HashSet<PathBuf>,
    /// Due again when somebody has had time to read on.
    later: HashSet<PathBuf>,
}

impl Packer {
    /// Must be called inside a runtime, in which the working task then lives.
    pub(crate) fn new() -> Result<Packer, Error> {
        let path = Path::new("inotify");
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|error| Error::file("open", path)(error.into()))?;
        let shared = Arc::new(Shared {
            inotify: sys::wait_on(inotify).map_err(Error::file("watch", path))?,
            state: Mutex::default(),
            due: Notify::new(),
        });
        tokio::spawn(listen(Arc::clone(&shared)));
        tokio::spawn(work(Arc::clone(&shared)));
        Ok(Packer(shared))
    }

    /// Pack what is rotated in a folder, and what will be until the folder goes.
    pub(crate) fn watch(&self, folder: &Path) {
        // Of renames alone: an event for each write would cost more than the packing.
        let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        match self.0.inotify.get_ref().0.add_watch(folder, flags) {
            Ok(descriptor) => {
                self.0
                    .with(|state| state.folders.insert(descriptor, folder.to_owned()));
                self.0.is_due(folder.to_owned());
            }
            // It is being made, or gone.
            Err(Errno::ENOENT) => {}
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "rotated files of this log are not packed (fs.inotify.max_user_watches may be too low)");
            }
        }
    }
}

impl Shared {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_due(&self, folder: PathBuf) {
        self.with(|state| state.due.insert(folder));
        self.due.notify_one();
    }
}

async fn listen(shared: Arc<Shared>) {
    loop {
        let Ok(mut ready) = shared.inotify.readable().await else {
            return;
        };
        match shared.inotify.get_ref().0.read_events() {
            Ok(events) => {
                for event in events {
                    let changed: Vec<PathBuf> = shared.with(|state| {
                        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                            return state.folders.values().cloned().collect();
                        }
                        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                            state.folders.remove(&event.wd);
                            return Vec::new();
                        }
                        state.folders.get(&event.wd).cloned().into_iter().collect()
                    });
                    // The name by which a file is rotated first, and not those of later renames or of packed files.
                    let first = files::path(Path::new(""), 1);
                    let is_rotation = event.name.as_deref().is_none_or(|name| name == first.as_os_str());
                    if is_rotation {
                        for folder in changed {
                            shared.is_due(folder);
                        }
                    }
                }
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "reading inotify; rotated logs are not packed any more");
                return;
            }
        }
    }
}

/// One file at a time: nobody waits for it.
async fn work(shared: Arc<Shared>) {
    loop {
        shared.due.notified().await;
        while let Some(folder) = shared.with(|state| {
            let folder = state.due.iter().next().cloned();
            folder.inspect(|folder| {
                state.due.remove(folder);
            })
        }) {
            let packing = folder.clone();
            let packed = tokio::task::spawn_blocking(move || pack(&packing)).await;
            match packed {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => again_later(&shared, folder),
                // A long search for the last lines keeps the files where they are.
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => again_later(&shared, folder),
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(Err(error)) => {
                    tracing::warn!(folder = %folder.display(), %error, "rotated files are not packed");
                }
                // The process ends.
                Err(_) => return,
            }
        }
    }
}

/// Once at a time for a folder, however often it is rotated meanwhile.
fn again_later(shared: &Arc<Shared>, folder: PathBuf) {
    if !shared.with(|state| state.later.insert(folder.clone())) {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(RETRY).await;
        shared.with(|state| state.later.remove(&folder));
        shared.is_due(folder);
    });
}

/// Pack all rotated files of a folder that nobody reads. False: there are others.
fn pack(folder: &Path) -> io::Result<bool> {
    let mut done = HashSet::new();
    let mut all_packed = true;
    loop {
        // Numbers change meanwhile, files do not.
        let next = {
            let _still = Still::shared(folder)?;
            let rotated = files::numbers(folder)?.into_iter().filter(|number| *number > 0);
            // The oldest first, as it is the first to go.
            let mut opened = rotated
                .rev()
                .filter_map(|number| open(&files::path(folder, number)).ok());
            opened.find(|file| identity(file).is_ok_and(|identity| !done.contains(&identity)))
        };
        let Some(file) = next else {
            return Ok(all_packed);
        };
        done.insert(identity(&file)?);
        // Before the work, and again when its result is put in place.
        if !files::seems_unread(&file)? {
            all_packed = false;
            continue;
        }
        let packed = write_packed(folder, &file).and_then(|()| put_in_place(folder, &file));
        if !matches!(packed, Ok(true)) {
            let _ = std::fs::remove_file(folder.join(TEMPORARY));
        }
        all_packed &= packed?;
    }
}

/// For writing too, which the lock needs.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn write_packed(folder: &Path, mut plain: &File) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    let temporary = options.open(folder.join(TEMPORARY))?;
    let mut encoder = GzEncoder::new(temporary, Compression::fast());
    io::copy(&mut plain, &mut encoder)?;
    encoder.flush()?;
    let temporary = encoder.finish()?;
    // By its time it is known which files a question for later lines can leave out.
    temporary.set_modified(plain.metadata()?.modified()?)?;
    temporary.sync_all()
}

fn put_in_place(folder: &Path, plain: &File) -> io::Result<bool> {
    let _still = Still::exclusive(folder)?;
    if !files::is_unread(plain)? {
        return Ok(false);
    }
    let own = identity(plain)?;
    for number in files::numbers(folder)?.into_iter().filter(|number| *number > 0) {
        let path = files::path(folder, number);
        let is_it = std::fs::metadata(&path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == own);
        if is_it {
            std::fs::rename(folder.join(TEMPORARY), files::packed_path(folder, number))?;
            std::fs::remove_file(&path)?;
            return Ok(true);
        }
    }
    // Deleted as the oldest meanwhile.
    std::fs::remove_file(folder.join(TEMPORARY))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn rotated_files_are_packed_when_nobody_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["log.json", "log.json.1", "log.json.3"] {
            std::fs::write(at(name), name.repeat(1000)).unwrap();
        }
        let reader = files::open(folder.path(), 3).unwrap();
        // Which would be an error if it were needed for a file that somebody reads.
        std::fs::rename(at("log.json.1"), at("aside")).unwrap();
        std::fs::create_dir(at(TEMPORARY)).unwrap();
        assert!(!pack(folder.path()).unwrap());
        std::fs::remove_dir(at(TEMPORARY)).unwrap();
        std::fs::rename(at("aside"), at("log.json.1")).unwrap();
        assert!(!pack(folder.path()).unwrap());
        assert!(at("log.json.3").exists() && at("log.json.1.gz").exists());
        drop(reader);
        assert!(pack(folder.path()).unwrap());
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log.json", "log.json.1.gz", "log.json.3.gz"]);
        let mut text = String::new();
        let mut packed = files::open(folder.path(), 3).unwrap().unwrap();
        packed.read_to_string(&mut text).unwrap();
        assert_eq!(text, "log.json.3".repeat(1000));
    }
}
