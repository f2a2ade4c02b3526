//! Blobs of artifacts, of other platforms, and of layers that are here unpacked: streamed and verified like layers, but
//! kept packed.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::{LAYERS_AT_ONCE, Pull};
use crate::content::BlobWriter;
use crate::manifest::Descriptor;
use crate::progress::Counters;
use crate::registry::Sources;
use crate::store::{Held, Key};
use crate::{Error, Kind, Phase, blocking};

/// Pieces that wait between the network and the disk.
const PIECES_MAX: usize = 4;

impl Pull {
    /// Keep all of these, several at once. The first failure ends the others.
    pub(super) async fn keep_all(
        &self,
        registry: Option<&Sources>,
        blobs: Vec<Descriptor>,
        counters: Vec<Arc<Counters>>,
    ) -> Result<Vec<Arc<Held>>, Error> {
        let Some(registry) = registry else {
            return Ok(Vec::new());
        };
        let jobs = blobs
            .into_iter()
            .zip(counters)
            .map(|(blob, counters)| async move { self.keep(registry, &blob, &counters).await });
        stream::iter(jobs)
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Keep one blob, from whichever server sends it right.
    pub(super) async fn keep(
        &self,
        registry: &Sources,
        blob: &Descriptor,
        counters: &Arc<Counters>,
    ) -> Result<Arc<Held>, Error> {
        loop {
            match self.or_cancelled(self.keep_blob(registry, blob, counters)).await {
                Err(error) if error.kind() == Kind::Invalid && registry.doubt(&blob.digest, &error) => {}
                kept => return kept,
            }
        }
    }

    async fn keep_blob(
        &self,
        registry: &Sources,
        blob: &Descriptor,
        counters: &Arc<Counters>,
    ) -> Result<Arc<Held>, Error> {
        if let Some(here) = self.blob_here(&blob.digest).await? {
            let size = here
                .path()
                .metadata()
                .map_err(|e| Error::io("look at", here.path(), e))?
                .len();
            check_size(size, blob)?;
            counters.enter(Phase::Present);
            return Ok(here);
        }
        let _download = self.download().await?;
        counters.enter(Phase::Downloading);
        let (sink, source) = mpsc::channel::<Bytes>(PIECES_MAX);
        let (store, descriptor) = (Arc::clone(&self.shared.store), blob.clone());
        let writing = blocking(move || {
            let writer = write_verified(store.blob_writer()?, source, &descriptor)?;
            store.publish(&Key::Blob(descriptor.digest), writer.finish())
        });
        let feed = async {
            // Moved in, so that the writer sees the stream's end when this ends.
            let sink = sink;
            registry.stream_blob(blob, &sink, counters).await
        };
        let (delivery, written) = tokio::join!(feed, writing);
        // A writer that stopped taking bytes knows why.
        let held = match (delivery, written) {
            (Err(delivery), Err(Error::Digest { .. } | Error::Layer { .. })) => return Err(delivery),
            (delivery, written) => {
                let held = written?;
                delivery?;
                held
            }
        };
        counters.enter(Phase::Verified);
        Ok(held)
    }
}

/// Write what comes; its length and digest have to be those of its descriptor.
fn write_verified(
    mut writer: BlobWriter,
    mut source: mpsc::Receiver<Bytes>,
    descriptor: &Descriptor,
) -> Result<BlobWriter, Error> {
    let mut hasher = descriptor.digest.hasher();
    let mut taken = 0;
    while let Some(bytes) = source.blocking_recv() {
        taken += bytes.len() as u64;
        if taken > descriptor.size {
            break;
        }
        hasher.update(&bytes);
        writer.write(&bytes)?;
    }
    check_size(taken, descriptor)?;
    let actual = hasher.finish();
    if actual != descriptor.digest {
        return Err(Error::Digest {
            what: "blob",
            expected: descriptor.digest.to_string(),
            actual: actual.to_string(),
        });
    }
    Ok(writer)
}

fn check_size(size: u64, descriptor: &Descriptor) -> Result<(), Error> {
    if size == descriptor.size {
        return Ok(());
    }
    Err(Error::Layer {
        layer: descriptor.digest.to_string(),
        rule: format!("it is not {} bytes long, as its manifest says", descriptor.size),
    })
}
