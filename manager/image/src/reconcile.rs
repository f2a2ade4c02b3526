//! Opening the store: its folders, its lock, and putting right what a process that died left half-done.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::FlockOperation;

use crate::database;
use crate::store::{EMPTY_LAYER, Store};
use crate::{Error, Layers};

/// How long a predecessor may take to end: it lets go of the lock only when its last thread is gone.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Open the store at `root`. Blocks, but not for as long as it takes to remove what is left over: that goes on behind.
pub(crate) fn open(root: &Path, layers: Layers) -> Result<Arc<Store>, Error> {
    let root = check_root(root)?;
    make_folder(&root)?;
    let lock = take_lock(&root)?;
    for folder in [
        "blobs",
        "blobs/sha256",
        "blobs/sha512",
        "s",
        "containers",
        "tmp",
        "trash",
    ] {
        make_folder(&root.join(folder))?;
    }
    let empty = root.join("s").join(EMPTY_LAYER.to_string());
    if !empty.exists() {
        std::fs::create_dir(&empty).map_err(|e| Error::io("make", &empty, e))?;
    }
    // It lends its mode to the root folders of containers, whatever umask this process has.
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| Error::io("change the mode of", &empty, e))?;
    let connection = database::open(&root)?;
    if let Err(error) = database::delete_expired_leases(&connection) {
        // A disk may be full: they hold nothing all the same.
        tracing::warn!(%error, "leases that have run out stay recorded");
    }
    let next_number = next_number(&root, &connection)?;
    let strangers = strangers(&root, &connection)?;
    let mut store = Store::new(root, lock, connection, next_number);
    for path in strangers {
        tracing::info!(path = %path.display(), "removing what an earlier process left half-done");
        store.doom(&path);
    }
    store.resume_removals()?;
    store.choose_form(layers)?;
    Ok(Arc::new(store))
}

/// The root's path ends up in overlay mount options, which give some marks a meaning.
fn check_root(root: &Path) -> Result<PathBuf, Error> {
    let root = std::path::absolute(root).map_err(|e| Error::io("find", root, e))?;
    match root.to_str() {
        Some(text) if !text.contains([':', ',', '\\', '"', '\n']) => Ok(root),
        _ => Err(Error::Store {
            path: root,
            rule: "its path has a colon, comma, backslash, quote or newline, or is not UTF-8: overlay mounts cannot take it".into(),
        }),
    }
}

fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io("make", path, e))
}

fn take_lock(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| Error::io("open", &path, e))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let rule = "another process uses it".into();
                return Err(Error::Store {
                    path: root.to_owned(),
                    rule,
                });
            }
            Err(e) => return Err(Error::io("lock", &path, e)),
        }
    }
}

/// The first number that neither a layer has nor what still waits to be removed.
fn next_number(root: &Path, connection: &Connection) -> Result<u64, Error> {
    let mut highest = database::layer_numbers(connection)?
        .into_iter()
        .max()
        .unwrap_or(EMPTY_LAYER);
    for path in entries(&root.join("trash"))? {
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        highest = highest.max(number.unwrap_or(EMPTY_LAYER));
    }
    Ok(highest + 1)
}

/// All files that the database does not name.
pub(crate) fn strangers(root: &Path, connection: &Connection) -> Result<Vec<PathBuf>, Error> {
    let set = |texts: Vec<String>| texts.into_iter().map(OsString::from).collect::<HashSet<_>>();
    let numbers = database::layer_numbers(connection)?;
    let mut layers = set(numbers.iter().map(u64::to_string).collect());
    layers.insert(EMPTY_LAYER.to_string().into());
    let mut strangers = all_but(&root.join("tmp"), &HashSet::new())?;
    strangers.extend(all_but(&root.join("s"), &layers)?);
    let blobs = database::blobs(connection)?;
    for algorithm in ["sha256", "sha512"] {
        let of_algorithm = blobs
            .iter()
            .filter_map(|d| Some(d.strip_prefix(algorithm)?.strip_prefix(':')?.to_owned()));
        strangers.extend(all_but(
            &root.join("blobs").join(algorithm),
            &set(of_algorithm.collect()),
        )?);
    }
    strangers.extend(all_but(
        &root.join("containers"),
        &set(database::leases(connection)?),
    )?);
    Ok(strangers)
}

fn all_but(folder: &Path, keep: &HashSet<OsString>) -> Result<Vec<PathBuf>, Error> {
    let mut paths = entries(folder)?;
    paths.retain(|path| path.file_name().is_some_and(|name| !keep.contains(name)));
    Ok(paths)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    std::fs::read_dir(folder)
        .and_then(|list| list.map(|entry| Ok(entry?.path())).collect())
        .map_err(|e| Error::io("list", folder, e))
}
