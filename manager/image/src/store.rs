//! The store's files, and who needs them at this moment.
//!
//! ```text
//! <root>/images.db                 metadata, see database.rs
//! <root>/lock                      held by the one process that uses the store
//! <root>/blobs/<algorithm>/<hex>   manifests, configs and compressed layers, by digest
//! <root>/s/<number>                one unpacked layer each; short, as an overlay mount lists many of them
//! <root>/s/0                       an empty layer, for images that have none
//! <root>/containers/<id>/          a container's upper and work folders
//! <root>/tmp/                      what is being made or being removed
//! ```
//! A blob or layer is either named by the database, or [`Held`] by a running pull, or garbage. A pull holds all that
//! it uses and makes; committing the image makes the database name them. Dropping the last hold of something that
//! the database does not name removes it. So a failed pull leaves nothing, a removal never takes what a pull
//! relies on, and no scan is needed to tell what is garbage.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rusqlite::Connection;

use crate::Error;
use crate::content::{BlobWriter, Scratch};
use crate::database::{self, ImageRow, NameRow};
use crate::digest::Digest;

/// The number of the empty layer.
pub(crate) const EMPTY_LAYER: u64 = 0;

pub(crate) struct Store {
    root: PathBuf,
    /// Open since before the first write, so that syncfs tells of write-back errors since then.
    lock: File,
    database: Mutex<Connection>,
    /// Locked before `database` where both are.
    held: Mutex<HashMap<Key, Weak<Held>>>,
    next_number: AtomicU64,
}

/// What a hold is on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Blob(Digest),
    /// By chainID.
    Layer(Digest),
}

/// A hold on a blob or an unpacked layer: as long as it lives, the files stay.
pub(crate) struct Held {
    store: Arc<Store>,
    key: Key,
    path: PathBuf,
    /// The folder's number; 0 for a blob.
    number: u64,
    /// Whether the database names it.
    kept: AtomicBool,
}

impl Held {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = lock(&self.store.held);
        // Another hold may have taken the entry between the last reference's end and here.
        let is_own_entry = held
            .get(&self.key)
            .is_some_and(|entry| std::ptr::eq(entry.as_ptr(), self));
        if is_own_entry {
            held.remove(&self.key);
        }
        // A layer's folder is nobody else's; a blob's file is the other hold's if there is one.
        let is_own_file = is_own_entry || self.number != 0;
        let doomed = (is_own_file && !self.kept.load(Ordering::Relaxed)).then(|| self.store.doom(&self.path));
        drop(held);
        drop(doomed);
    }
}

/// All that one image consists of, ready to be committed.
pub(crate) struct Parts {
    pub(crate) row: ImageRow,
    /// What points to it from now on, if anything does.
    pub(crate) name: Option<(String, NameRow)>,
    /// Base first.
    pub(crate) layers: Vec<Arc<Held>>,
    pub(crate) blobs: Vec<Arc<Held>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-changed by a panic: maps are changed last, and a dropped transaction rolls back.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Take the store over from whoever used it before; see [`crate::reconcile`] for what is put right.
    pub(crate) fn new(root: PathBuf, lock: File, database: Connection, next_number: u64) -> Store {
        Store {
            root,
            lock,
            database: Mutex::new(database),
            held: Mutex::new(HashMap::new()),
            next_number: AtomicU64::new(next_number),
        }
    }

    pub(crate) fn database(&self) -> MutexGuard<'_, Connection> {
        lock(&self.database)
    }

    fn fresh_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn fresh_scratch(&self) -> PathBuf {
        self.root.join("tmp").join(self.fresh_number().to_string())
    }

    pub(crate) fn layer_path(&self, number: u64) -> PathBuf {
        self.root.join("s").join(number.to_string())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm_name())
            .join(digest.hex())
    }

    pub(crate) fn container_path(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Where all scratch lies.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn scratch_root(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// An empty folder that goes away with its value.
    pub(crate) fn scratch_folder(&self) -> Result<Scratch, Error> {
        Scratch::folder(self.fresh_scratch())
    }

    pub(crate) fn blob_writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::create(self.fresh_scratch())
    }

    /// Take something out of sight at once; its content goes when the value is dropped.
    pub(crate) fn doom(&self, path: &Path) -> Scratch {
        let place = self.fresh_scratch();
        if let Err(e) = std::fs::rename(path, &place)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), error = %e, "could not take away");
        }
        Scratch::doomed(place)
    }

    /// Make everything written so far durable, file data and names alike.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        rustix::fs::syncfs(self.lock.as_fd()).map_err(|e| Error::io("sync the file system of", &self.root, e))
    }

    /// A hold on what is already here.
    pub(crate) fn hold(self: &Arc<Self>, key: &Key) -> Result<Option<Arc<Held>>, Error> {
        self.hold_locked(&mut lock(&self.held), key)
    }

    fn hold_locked(
        self: &Arc<Self>,
        held: &mut HashMap<Key, Weak<Held>>,
        key: &Key,
    ) -> Result<Option<Arc<Held>>, Error> {
        if let Some(live) = held.get(key).and_then(Weak::upgrade) {
            return Ok(Some(live));
        }
        let (path, number) = match key {
            Key::Layer(chain_id) => match database::layer_number(&self.database(), &chain_id.to_string())? {
                Some(number) => (self.layer_path(number), number),
                None => return Ok(None),
            },
            Key::Blob(digest) if database::has_blob(&self.database(), &digest.to_string())? => {
                (self.blob_path(digest), 0)
            }
            Key::Blob(_) => return Ok(None),
        };
        if !path.exists() {
            // Somebody else deleted it. A pull that needs it makes it anew.
            tracing::warn!(path = %path.display(), "the image store has lost a file");
            return Ok(None);
        }
        Ok(Some(self.insert(held, key, path, number, true)))
    }

    fn insert(
        self: &Arc<Self>,
        held: &mut HashMap<Key, Weak<Held>>,
        key: &Key,
        path: PathBuf,
        number: u64,
        kept: bool,
    ) -> Arc<Held> {
        let kept = AtomicBool::new(kept);
        let new = Arc::new(Held {
            store: Arc::clone(self),
            key: key.clone(),
            path,
            number,
            kept,
        });
        held.insert(key.clone(), Arc::downgrade(&new));
        new
    }

    /// Move what was made and verified to its place. If another pull was first, its work is taken.
    pub(crate) fn publish(self: &Arc<Self>, key: &Key, made: Scratch) -> Result<Arc<Held>, Error> {
        let mut held = lock(&self.held);
        if let Some(live) = self.hold_locked(&mut held, key)? {
            drop(held);
            drop(made);
            return Ok(live);
        }
        let (path, number) = match key {
            Key::Blob(digest) => (self.blob_path(digest), 0),
            Key::Layer(_) => {
                let number = self.fresh_number();
                (self.layer_path(number), number)
            }
        };
        made.publish(&path)?;
        failpoint::reach("pull.published");
        Ok(self.insert(&mut held, key, path, number, false))
    }

    /// Keep a small blob that is in memory.
    pub(crate) fn keep_bytes(self: &Arc<Self>, digest: &Digest, content: &[u8]) -> Result<Arc<Held>, Error> {
        let key = Key::Blob(digest.clone());
        if let Some(live) = self.hold(&key)? {
            return Ok(live);
        }
        let mut writer = self.blob_writer()?;
        writer.write(content)?;
        self.publish(&key, writer.finish())
    }

    /// Make an image ready: all its parts durable first, then the one transaction that names them.
    pub(crate) fn commit(&self, parts: &Parts) -> Result<(), Error> {
        self.sync()?;
        failpoint::reach("pull.synced");
        let _held = lock(&self.held);
        let mut connection = self.database();
        let transaction = database::write(&mut connection)?;
        let name_of = |held: &Arc<Held>| match &held.key {
            Key::Blob(digest) | Key::Layer(digest) => digest.to_string(),
        };
        let layers: Vec<(String, u64)> = parts.layers.iter().map(|l| (name_of(l), l.number)).collect();
        let blobs: Vec<String> = parts.blobs.iter().map(name_of).collect();
        database::insert_image(&transaction, &parts.row, parts.name.as_ref(), &layers, &blobs)?;
        transaction.commit().map_err(database::doing("commit an image"))?;
        failpoint::reach("pull.recorded");
        for held in parts.layers.iter().chain(&parts.blobs) {
            held.kept.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Run `change` in one transaction, then remove what no image needs any more.
    ///
    /// The files leave their places before this returns; their removal is done by dropping the result, outside of
    /// all locks.
    pub(crate) fn change_and_collect<T>(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, Error>,
    ) -> Result<(T, Vec<Scratch>), Error> {
        // Dropped after the locks: a last reference's drop takes the lock itself.
        let mut in_use = Vec::new();
        let mut doomed = Vec::new();
        let held = lock(&self.held);
        let mut connection = self.database();
        let transaction = database::write(&mut connection)?;
        let result = change(&transaction)?;
        let garbage = database::collect_garbage(&transaction)?;
        transaction
            .commit()
            .map_err(database::doing("commit a removal"))?;
        failpoint::reach("rmi.recorded");
        drop(connection);
        let layers = garbage
            .layers
            .into_iter()
            .map(|(chain, number)| (chain, self.layer_path(number), true));
        let blobs = garbage
            .blobs
            .into_iter()
            .map(|digest| (digest, PathBuf::new(), false));
        for (digest, path, is_layer) in layers.chain(blobs) {
            let Ok(digest) = Digest::parse(&digest) else {
                continue;
            };
            let path = if is_layer { path } else { self.blob_path(&digest) };
            let key = if is_layer {
                Key::Layer(digest)
            } else {
                Key::Blob(digest)
            };
            match held.get(&key).and_then(Weak::upgrade) {
                // A pull relies on it: either its commit keeps it again, or its end removes it.
                Some(live) => {
                    live.kept.store(false, Ordering::Relaxed);
                    in_use.push(live);
                }
                None => doomed.push(self.doom(&path)),
            }
        }
        drop(held);
        drop(in_use);
        Ok((result, doomed))
    }
}
