//! One layer of a pull: found, or made by one pass and put in its place above those below it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use super::{Pull, removed_on_a_blocking_thread};
use crate::content::{BlobWriter, Scratch};
use crate::digest::Digest;
use crate::layer::{Pass, complete, feed_file};
use crate::manifest::{self, Layer};
use crate::progress::Counters;
use crate::registry::Sources;
use crate::store::{Held, Key};
use crate::unpack::{Limits, Unpacked};
use crate::{Error, Kind, Phase, blocking};

/// Pieces of a layer that wait between the network and its first thread.
const PIECES_MAX: usize = 4;

/// One layer in its place.
pub(super) struct Placed {
    pub(super) layer: Arc<Held>,
    pub(super) blob: Option<Arc<Held>>,
}

/// The layers below, base first, handed up when they are in their places.
pub(super) type Below = Vec<Arc<Held>>;

/// One layer of a pull.
pub(super) struct LayerJob<'a> {
    pub(super) pull: &'a Pull,
    /// `None`: its blob has to be here.
    pub(super) registry: Option<&'a Sources>,
    pub(super) layer: Layer,
    pub(super) diff_id: Digest,
    pub(super) chain_id: Digest,
    pub(super) counters: Arc<Counters>,
}

impl LayerJob<'_> {
    pub(super) async fn run(
        &self,
        permits: &Semaphore,
        below: oneshot::Receiver<Below>,
        above: oneshot::Sender<Below>,
    ) -> Result<Placed, Error> {
        let lock = self.pull.shared.lock_of(&self.chain_id);
        let _making = self.wait_for_turn(&lock).await?;
        let (placed, mut below) = if let Some(mut placed) = self.here().await? {
            match self
                .registry
                .filter(|_| placed.blob.is_none() && !self.is_foreign())
            {
                // Unpacked from a blob of another compression, say. This image is to be saved and pushed with its own.
                Some(registry) => {
                    let _permit = self.permit(permits).await?;
                    let blob = self.pull.keep(registry, &self.layer.descriptor, &self.counters);
                    placed.blob = Some(blob.await?);
                }
                None => self.counters.enter(Phase::Present),
            }
            (placed, self.wait_for(below).await?)
        } else {
            let made = {
                let _permit = self.permit(permits).await?;
                loop {
                    match self.make().await {
                        // What a mirror has sent wrong, another server may send right.
                        Err(error)
                            if error.kind() == Kind::Invalid
                                && self.registry.is_some_and(|registry| {
                                    registry.doubt(&self.layer.descriptor.digest, &error)
                                }) => {}
                        made => break made?,
                    }
                }
            };
            // The permit is free again: waiting for the layers below must not keep them from running.
            self.counters.enter(Phase::Verifying);
            failpoint::reach("pull.layer-made");
            match self.wait_for(below).await {
                Ok(below) => self.place(made, below).await?,
                Err(e) => return Err(removed_on_a_blocking_thread(made, e).await),
            }
        };
        below.push(Arc::clone(&placed.layer));
        // Nobody is above the top layer.
        let _ = above.send(below);
        Ok(placed)
    }

    async fn permit<'permits>(
        &self,
        permits: &'permits Semaphore,
    ) -> Result<SemaphorePermit<'permits>, Error> {
        let permit = async { permits.acquire().await.map_err(|_| self.cancelled()) };
        self.pull.or_cancelled(permit).await
    }

    /// Whether registries need not have it.
    fn is_foreign(&self) -> bool {
        manifest::is_foreign(&self.layer.descriptor.media_type)
    }

    /// Wait while another pull makes this layer. `None`: that takes too long, and this one goes on beside it. Whoever
    /// is ready first gives the layer its place, and the other's work is dropped.
    async fn wait_for_turn<'lock>(
        &self,
        lock: &'lock tokio::sync::Mutex<()>,
    ) -> Result<Option<tokio::sync::MutexGuard<'lock, ()>>, Error> {
        let patience = self.pull.shared.config.share_timeout;
        self.pull
            .or_cancelled(async { Ok(tokio::time::timeout(patience, lock.lock()).await.ok()) })
            .await
    }

    fn cancelled(&self) -> Error {
        Error::Cancelled(self.pull.reference.to_string())
    }

    async fn wait_for(&self, below: oneshot::Receiver<Below>) -> Result<Below, Error> {
        self.pull
            .or_cancelled(async { below.await.map_err(|_| self.cancelled()) })
            .await
    }

    /// The layer, if it was made before.
    async fn here(&self) -> Result<Option<Placed>, Error> {
        let store = Arc::clone(&self.pull.shared.store);
        let (chain_id, digest) = (self.chain_id.clone(), self.layer.descriptor.digest.clone());
        blocking(move || {
            let Some(layer) = store.hold(&Key::Layer(chain_id))? else {
                return Ok(None);
            };
            Ok(Some(Placed {
                layer,
                blob: store.hold(&Key::Blob(digest))?,
            }))
        })
        .await
    }

    /// Download, verify and unpack in one pass, or unpack the blob that is here.
    async fn make(&self) -> Result<Made, Error> {
        let store = Arc::clone(&self.pull.shared.store);
        let digest = self.layer.descriptor.digest.clone();
        let held = blocking({
            let store = Arc::clone(&store);
            move || store.hold(&Key::Blob(digest))
        })
        .await?;
        // A file keeps nobody waiting.
        let _download = match held {
            None => Some(self.pull.download().await?),
            Some(_) => None,
        };
        self.counters.enter(Phase::Downloading);
        let (sink, source) = mpsc::channel::<Bytes>(PIECES_MAX);
        let (layer, diff_id) = (self.layer.clone(), self.diff_id.clone());
        let (counters, old_blob) = (Arc::clone(&self.counters), held.clone());
        let pass = blocking(move || {
            let form = store.form();
            let scratch = store.scratch_layer(form)?;
            let mut new_blob = if old_blob.is_none() {
                Some(store.blob_writer()?)
            } else {
                None
            };
            let pass = Pass {
                layer,
                diff_id,
                place: scratch.path().to_owned(),
                form,
                limits: Limits::default(),
                write_back: Some(store.write_back()),
                counters,
            };
            let unpacked = pass.run(source, new_blob.as_mut())?;
            Ok(Made {
                scratch,
                unpacked,
                new_blob: new_blob.map(BlobWriter::finish),
                old_blob,
            })
        });
        let feed = async {
            // Moved in, so that the pass sees the stream's end when this ends.
            let sink = sink;
            match held {
                None => {
                    let registry = self
                        .registry
                        .ok_or_else(|| Error::NotHere(self.layer.descriptor.digest.to_string()))?;
                    let stream = registry.stream_blob(&self.layer.descriptor, &sink, &self.counters);
                    self.pull.or_cancelled(stream).await
                }
                Some(blob) => {
                    let counters = Arc::clone(&self.counters);
                    let file = blocking(move || feed_file(blob.path(), &sink, &counters));
                    // Ends soon when the pass does: its receiver is gone then.
                    file.await
                }
            }
        };
        let (delivery, made) = tokio::join!(feed, pass);
        delivery?;
        made
    }

    /// Give the made layer its place, once those below it are in theirs.
    async fn place(&self, made: Made, below: Below) -> Result<(Placed, Below), Error> {
        let store = Arc::clone(&self.pull.shared.store);
        let (chain_id, digest) = (self.chain_id.clone(), self.layer.descriptor.digest.clone());
        let (layer, diff_id) = (self.layer.clone(), self.diff_id.clone());
        let placed = blocking(move || {
            let bytes = complete(made.scratch.path(), made.unpacked, &below, &layer, &diff_id)?;
            let blob = match (made.new_blob, made.old_blob) {
                (Some(blob), _) => Some(store.publish(&Key::Blob(digest), blob)?),
                (None, old) => old,
            };
            let layer = store.publish_sized(&Key::Layer(chain_id), made.scratch, Some(bytes))?;
            Ok((Placed { layer, blob }, below))
        })
        .await?;
        self.counters.enter(Phase::Verified);
        Ok(placed)
    }
}

/// A layer that was verified and unpacked, not yet in its place.
struct Made {
    scratch: Scratch,
    unpacked: Unpacked,
    new_blob: Option<Scratch>,
    old_blob: Option<Arc<Held>>,
}
