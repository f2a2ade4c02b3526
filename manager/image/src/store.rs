//! The store's files, and who needs them at this moment.
//!
//! ```text
//! <root>/images.db                 metadata, see database.rs
//! <root>/lock                      held by the one process that uses the store
//! <root>/blobs/<algorithm>/<hex>   manifests, configs and compressed layers, by digest
//! <root>/s/<number>                one unpacked layer each, a folder or an EROFS image; short, as an overlay mount lists
//!                                  many of them
//! <root>/s/0                       an empty layer, for images that have none
//! <root>/containers/<id>/          a container's upper and work folders
//! <root>/tmp/                      what is being made
//! <root>/trash/                    what is being removed, see reaper.rs
//! ```
//! A blob or layer is either named by the database, or [`Held`] by a running pull, push, save or the like, or garbage.
//! Each of those holds all that it uses and makes; committing makes the database name it. Dropping the last hold of
//! something that the database does not name removes it. So a failed pull leaves nothing, a removal never takes what
//! somebody relies on, and no scan is needed to tell what is garbage.

mod view;

pub(crate) use view::{Sought, View};

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::content::{BlobWriter, Scratch, ScratchPath, ScratchPaths};
use crate::database::{self, ContentRow, ImageRow, LayerRow, NameRow};
use crate::digest::Digest;
use crate::layers::Mounts;
use crate::links::{self, Linked};
use crate::manifest::DOCUMENT_BYTES_MAX;
use crate::reaper::Reaper;
use crate::unpack::Form;
use crate::write_back::WriteBack;
use crate::{Error, Layers};

/// Beyond it a removal is of more files than anybody should wait for.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
/// The number of the empty layer.
pub(crate) const EMPTY_LAYER: u64 = 0;

pub(crate) struct Store {
    root: PathBuf,
    /// Open since before the first write, so that syncfs tells of write-back errors since then. Held while it is asked.
    lock: Mutex<File>,
    /// Counts how often it has told of one.
    write_back: WriteBack,
    database: Mutex<Connection>,
    /// Locked before `database` where both are.
    held: Mutex<HashMap<Key, Weak<Held>>>,
    next_number: AtomicU64,
    scratch: ScratchPaths,
    reaper: Reaper,
    mounts: Mounts,
    form: Form,
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
    /// Of a layer's files, if they were unpacked just now.
    unpacked_bytes: Option<u64>,
    /// See [`Scratch::losses_before`].
    losses_before: u64,
    /// Whether the database names it. Changed only under the lock of `held`, with the database.
    kept: AtomicBool,
}

impl Held {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The root folder of a layer, see [`Store::layer_folder`].
    pub(crate) fn layer_folder(&self) -> Result<PathBuf, Error> {
        self.store.layer_folder(self.number)
    }

    pub(crate) fn open_layer(&self) -> Result<OwnedFd, Error> {
        let folder = self.layer_folder()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&folder, flags, Mode::empty()).map_err(|e| Error::io("open", &folder, e))
    }

    /// Of a blob; of a layer its chainID.
    pub(crate) fn digest(&self) -> &Digest {
        match &self.key {
            Key::Blob(digest) | Key::Layer(digest) => digest,
        }
    }
}

impl Held {
    fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
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
        let doomed = (is_own_file && !self.is_kept()).then(|| {
            self.store.mounts.forget(self.number);
            self.store.take_away(&self.path)
        });
        drop(held);
        drop(doomed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It waits for whoever has the lock, and removes files.
        crate::blocking_here(|| self.end());
    }
}

/// All that one image consists of, ready to be committed.
pub(crate) struct Parts {
    pub(crate) row: ImageRow,
    /// What points to it from now on, if anything does.
    pub(crate) name: Option<(String, NameRow)>,
    /// Base first.
    pub(crate) layers: Vec<Arc<Held>>,
    /// The target, the manifest, and what they point to; what nothing points to stays with the image all the same.
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
            write_back: WriteBack::new(root.clone()),
            root,
            lock: Mutex::new(lock),
            database: Mutex::new(database),
            held: Mutex::new(HashMap::new()),
            next_number: AtomicU64::new(next_number),
            scratch: ScratchPaths::default(),
            reaper: Reaper::new(),
            mounts: Mounts::default(),
            form: Form::default(),
        }
    }

    /// Choose what new layers are kept as.
    pub(crate) fn choose_form(&mut self, layers: Layers) -> Result<(), Error> {
        let scratch = Scratch::at(self.fresh_scratch(), 0);
        self.form = layers.form(scratch.path())?;
        Ok(())
    }

    pub(crate) fn database(&self) -> MutexGuard<'_, Connection> {
        lock(&self.database)
    }

    fn fresh_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    fn fresh_scratch(&self) -> ScratchPath {
        let path = self.root.join("tmp").join(self.fresh_number().to_string());
        self.scratch.claim(path)
    }

    pub(crate) fn layer_path(&self, number: u64) -> PathBuf {
        self.root.join("s").join(number.to_string())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm_name())
            .join(digest.hex())
    }

    pub(crate) fn container_path(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Who hears of what is written for images.
    pub(crate) fn write_back(&self) -> WriteBack {
        self.write_back.clone()
    }

    /// What new layers are kept as.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Where a layer can be made; it goes away with its value.
    pub(crate) fn scratch_layer(&self, form: Form) -> Result<Scratch, Error> {
        let place = self.fresh_scratch();
        match form {
            Form::Folder => Scratch::folder(place, self.losses()),
            Form::Erofs => Ok(Scratch::at(place, self.losses())),
        }
    }

    /// The root folder of a layer: a path for this and other processes, until the layer is removed or this process
    /// ends.
    pub(crate) fn layer_folder(&self, number: u64) -> Result<PathBuf, Error> {
        let path = self.layer_path(number);
        self.mounts
            .folder(number, &path)
            .map_err(|e| Error::io("open the layer at", &path, e))
    }

    pub(crate) fn blob_writer(&self) -> Result<BlobWriter, Error> {
        BlobWriter::create(self.fresh_scratch(), self.losses())
    }

    /// Take something out of sight at once; its content goes when the value is dropped.
    fn take_away(&self, path: &Path) -> Scratch {
        let place = self.fresh_scratch();
        move_away(path, place.as_ref());
        Scratch::at(place, 0)
    }

    /// Take something out of sight at once; its content goes in the background, even if this process ends.
    pub(crate) fn doom(&self, path: &Path) {
        let place = self.root.join("trash").join(self.fresh_number().to_string());
        if move_away(path, &place) {
            self.reaper.remove(place);
        }
    }

    /// On a full disk: wait for the space of what was removed so far.
    pub(crate) fn settle_removals(&self) {
        self.reaper.settle(SETTLE_PATIENCE);
    }

    /// Go on with removals that a process before this one did not finish.
    pub(crate) fn resume_removals(&self) -> Result<(), Error> {
        let trash = self.root.join("trash");
        let list = std::fs::read_dir(&trash).map_err(|e| Error::io("list", &trash, e))?;
        for entry in list {
            self.reaper
                .remove(entry.map_err(|e| Error::io("list", &trash, e))?.path());
        }
        Ok(())
    }

    fn losses(&self) -> u64 {
        self.write_back.losses()
    }

    fn lost(&self, error: Errno) -> Error {
        Error::io("sync the file system of", &self.root, error)
    }

    /// Make everything written so far durable, file data and names alike; or else it was lost.
    ///
    /// The kernel tells of a write that it has lost once, and not whose it was: all that was begun before it told
    /// counts as lost, whoever asks. So this gives how many losses there have been, and what is durable is only what
    /// was begun with as many. Source: the kernel's Documentation/core-api/errseq.rst.
    fn sync(&self) -> Result<u64, Error> {
        let file = lock(&self.lock);
        rustix::fs::syncfs(&*file).map_err(|e| {
            self.write_back.count_loss();
            self.lost(e)
        })?;
        // What another thread was told of while this one asked may be of what this one calls durable.
        Ok(self.write_back.losses_by_now())
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
        // What is not durable and may be lost is of no use to who asks now.
        let live = held.get(key).and_then(Weak::upgrade);
        let usable = live.filter(|live| live.is_kept() || live.losses_before == self.losses());
        if let Some(live) = usable {
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
        let new = Held {
            store: Arc::clone(self),
            key: key.clone(),
            path,
            number,
            unpacked_bytes: None,
            losses_before: self.losses(),
            kept: AtomicBool::new(true),
        };
        Ok(Some(insert(held, new)))
    }

    /// Move what was made and verified to its place. If another pull was first, its work is taken.
    pub(crate) fn publish(self: &Arc<Self>, key: &Key, made: Scratch) -> Result<Arc<Held>, Error> {
        self.publish_sized(key, made, None)
    }

    /// Like [`Store::publish`], for a layer whose files are so many bytes.
    pub(crate) fn publish_sized(
        self: &Arc<Self>,
        key: &Key,
        made: Scratch,
        unpacked_bytes: Option<u64>,
    ) -> Result<Arc<Held>, Error> {
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
        let losses_before = made.losses_before();
        made.publish(&path)?;
        failpoint::reach("pull.published");
        let new = Held {
            store: Arc::clone(self),
            key: key.clone(),
            path,
            number,
            unpacked_bytes,
            losses_before,
            kept: AtomicBool::new(false),
        };
        Ok(insert(&mut held, new))
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

    /// The bytes of a document that is here.
    pub(crate) fn document(self: &Arc<Self>, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let held = self.hold(&Key::Blob(digest.clone()))?;
        held.map(|held| read_document(held.path())).transpose()
    }

    /// Holds on all content that `digest` needs and that is here, itself first.
    pub(crate) fn hold_contents(
        self: &Arc<Self>,
        digest: &Digest,
    ) -> Result<Vec<(ContentRow, Arc<Held>)>, Error> {
        // Declared before the lock, so that on an error they are dropped after it: a hold's end takes the lock itself.
        let mut contents = Vec::new();
        // One lock over both, so that nothing is removed in between.
        let mut held = lock(&self.held);
        let rows = database::contents_of(&self.database(), &digest.to_string())?;
        for row in rows {
            if let Ok(digest) = Digest::parse(&row.digest)
                && let Some(hold) = self.hold_locked(&mut held, &Key::Blob(digest))?
            {
                contents.push((row, hold));
            }
        }
        Ok(contents)
    }

    /// Make an image ready: all its parts durable first, then the one transaction that names them.
    pub(crate) fn commit(&self, parts: &Parts) -> Result<(), Error> {
        self.commit_with(parts, |_| Ok(()))
    }

    /// `also` adds to that transaction what else has to be true of the image from then on.
    pub(crate) fn commit_with(
        &self,
        parts: &Parts,
        also: impl FnOnce(&Transaction<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let layers: Vec<LayerRow> = parts
            .layers
            .iter()
            .map(|held| LayerRow {
                chain_id: held.digest().to_string(),
                number: held.number,
                unpacked_bytes: held.unpacked_bytes,
            })
            .collect();
        let (row, name) = (&parts.row, parts.name.as_ref());
        let target = name.map_or(&row.manifest_digest, |(_, name)| &name.target_digest);
        let (contents, others) = describe(&[target, &row.manifest_digest], &parts.blobs)?;
        let held: Vec<&Arc<Held>> = parts.layers.iter().chain(&parts.blobs).collect();
        self.keep(&held, &contents, |transaction| {
            database::insert_image(transaction, row, target, &layers)?;
            insert_others(transaction, &row.id, &others)?;
            if let Some((name, to)) = name {
                database::put_name(transaction, name, target, Some(&row.id), &to.platform)?;
            }
            also(transaction)
        })
    }

    /// Give an image that is here more content, and record in the same transaction what it is.
    pub(crate) fn add_blobs(
        &self,
        image_id: &str,
        blobs: &[Arc<Held>],
        record: impl FnOnce(&Transaction<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let blobs: Vec<&Arc<Held>> = blobs.iter().collect();
        self.keep(&blobs, &[], |transaction| {
            insert_others(transaction, image_id, &blobs)?;
            record(transaction)
        })
    }

    /// Make all that was written durable, and in one transaction record `contents` and do `change`; the database names
    /// all of `parts` then.
    fn keep(
        &self,
        parts: &[&Arc<Held>],
        contents: &[Described<'_>],
        change: impl FnOnce(&Transaction<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let losses = self.sync()?;
        if parts
            .iter()
            .any(|part| !part.is_kept() && part.losses_before != losses)
        {
            // Another commit was told, and it may be of these.
            return Err(self.lost(Errno::IO));
        }
        failpoint::reach("pull.synced");
        let _held = lock(&self.held);
        let mut connection = self.database();
        let transaction = database::write(&mut connection)?;
        for content in contents {
            database::insert_content(
                &transaction,
                &content.held.digest().to_string(),
                &content.media_type,
                Some(content.size_bytes),
                &content.links,
            )?;
        }
        change(&transaction)?;
        transaction.commit().map_err(database::doing("commit an image"))?;
        failpoint::reach("pull.recorded");
        // Before the lock is given up: a removal may come next, and takes it back.
        for part in parts {
            part.kept.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Run `change` in one transaction, then remove what no image needs any more.
    ///
    /// The files leave their places before this returns, and are removed in the background. Gives how many bytes
    /// that frees, too. On a full disk `change` runs again once the space of earlier removals is there.
    pub(crate) fn change_and_collect<T>(
        &self,
        change: impl Fn(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<(T, u64), Error> {
        match self.try_change_and_collect(&change) {
            Err(error) if error.is_disk_full() => {
                self.settle_removals();
                self.try_change_and_collect(&change)
            }
            result => result,
        }
    }

    fn try_change_and_collect<T>(
        &self,
        change: impl Fn(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<(T, u64), Error> {
        // Dropped after the locks: a last reference's drop takes the lock itself.
        let mut in_use = Vec::new();
        let held = lock(&self.held);
        let mut connection = self.database();
        let transaction = database::write(&mut connection)?;
        database::delete_expired_leases(&transaction)?;
        let result = change(&transaction)?;
        let garbage = database::collect_garbage(&transaction)?;
        transaction
            .commit()
            .map_err(database::doing("commit a removal"))?;
        failpoint::reach("rmi.recorded");
        drop(connection);
        let blobs = garbage.blobs.into_iter().map(|digest| (digest, 0));
        for (digest, number) in garbage.layers.into_iter().chain(blobs) {
            let Ok(digest) = Digest::parse(&digest) else {
                continue;
            };
            let (key, path) = match number {
                0 => (Key::Blob(digest.clone()), self.blob_path(&digest)),
                _ => (Key::Layer(digest), self.layer_path(number)),
            };
            if let Some(live) = held.get(&key).and_then(Weak::upgrade) {
                // A pull relies on it: either its commit keeps it again, or its end removes it.
                live.kept.store(false, Ordering::Relaxed);
                in_use.push(live);
            } else {
                self.mounts.forget(number);
                self.doom(&path);
            }
        }
        drop(held);
        drop(in_use);
        Ok((result, garbage.bytes))
    }
}

fn insert(held: &mut HashMap<Key, Weak<Held>>, new: Held) -> Arc<Held> {
    let new = Arc::new(new);
    held.insert(new.key.clone(), Arc::downgrade(&new));
    new
}

/// Content to be recorded.
struct Described<'a> {
    held: &'a Arc<Held>,
    media_type: String,
    size_bytes: u64,
    links: Vec<links::Link>,
}

/// Follow the links from `roots` through `blobs`: what is reached is what its pointer says. Gives what is not
/// reached, too.
fn describe<'a>(
    roots: &[&str],
    blobs: &'a [Arc<Held>],
) -> Result<(Vec<Described<'a>>, Vec<&'a Arc<Held>>), Error> {
    let mut left: HashMap<String, &Arc<Held>> = blobs.iter().map(|b| (b.digest().to_string(), b)).collect();
    let mut waiting: Vec<(String, String)> = roots
        .iter()
        .map(|root| ((*root).to_owned(), String::new()))
        .collect();
    let mut described = Vec::new();
    while let Some((digest, media_type)) = waiting.pop() {
        // Seen before, or not among what is kept here: recorded already, or of a platform that nobody wants.
        let Some(held) = left.remove(&digest) else {
            continue;
        };
        let path = held.path();
        let metadata = path.metadata().map_err(|e| Error::io("look at", path, e))?;
        let document = if media_type.is_empty() || links::is_document(&media_type) {
            links::read(&read_document(path)?).map_err(|rule| Error::Document {
                what: "manifest",
                digest,
                rule,
            })?
        } else {
            let links = Vec::new();
            Linked { media_type, links }
        };
        let targets = document.links.iter().map(|link| &link.target);
        waiting.extend(targets.map(|target| (target.digest.to_string(), target.media_type.clone())));
        described.push(Described {
            held,
            media_type: document.media_type,
            size_bytes: metadata.len(),
            links: document.links,
        });
    }
    Ok((described, left.into_values().collect()))
}

/// Record content that no document of the image points to.
fn insert_others(transaction: &Transaction<'_>, image_id: &str, others: &[&Arc<Held>]) -> Result<(), Error> {
    let mut digests = Vec::with_capacity(others.len());
    for held in others {
        let size = held
            .path()
            .metadata()
            .map_err(|e| Error::io("look at", held.path(), e))?
            .len();
        digests.push(held.digest().to_string());
        database::insert_content(transaction, &held.digest().to_string(), "", Some(size), &[])?;
    }
    database::insert_blobs(transaction, image_id, &digests).map_err(database::doing("store content"))
}

fn read_document(path: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|e| Error::io("read", path, e))?;
    Ok(content)
}

/// Whether there was something.
fn move_away(path: &Path, place: &Path) -> bool {
    match std::fs::rename(path, place) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => {
            tracing::warn!(path = %path.display(), error = %e, "could not take away");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> Arc<Store> {
        crate::reconcile::open(folder.path(), Layers::default()).unwrap()
    }

    #[test]
    fn a_hold_that_ends_on_a_thread_of_tasks_keeps_no_task_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let held = store.keep_bytes(&Digest::of(b"content"), b"content").unwrap();
        let path = held.path().to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build();
        let runtime = runtime.unwrap();
        let (told, tell) = std::sync::mpsc::channel();
        let busy = lock(&store.held);
        let ended = runtime.spawn(async move { drop(held) });
        runtime.spawn(async move { told.send(()) });
        tell.recv_timeout(Duration::from_mins(1)).unwrap();
        assert!(path.exists());
        drop(busy);
        runtime.block_on(ended).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn all_that_was_begun_before_a_loss_was_told_of_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let digest = Digest::of(b"content");
        let add = |part: &Arc<Held>| store.add_blobs("image", std::slice::from_ref(part), |_| Ok(()));
        let part = store.keep_bytes(&digest, b"content").unwrap();
        // Another commit's syncfs fails.
        store.write_back.count_loss();
        let error = add(&part).unwrap_err().to_string();
        assert!(error.contains("Input/output error"), "{error}");
        // Who comes now does not get it, even while it is there.
        let again = store.keep_bytes(&digest, b"content").unwrap();
        assert!(!Arc::ptr_eq(&part, &again));
        drop(part);
        assert!(again.path().exists());
    }
}
