//! A new layer in the making: a tar stream goes in, a compressed blob with both of its digests comes out.
//!
//! The blob is gzip. A layer that is made here is mostly pushed somewhere, and gzip is what every registry's client
//! has always taken; kept plain it would be compressed at each push, and be three times as large meanwhile.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::GzEncoder;

use super::LocalLayer;
use crate::Error;
use crate::content::{BlobWriter, Scratch};
use crate::digest::{Digest, Hasher};
use crate::manifest::{Compression, Descriptor, Layer};
use crate::store::{Key, Store};
use crate::unpack::Limits;

/// On two cores, the levels above cost more time than they save in most networks.
const LEVEL: flate2::Compression = flate2::Compression::fast();

/// A layer's tar stream is written into this.
pub(crate) struct LayerWriter {
    encoder: GzEncoder<HashedBlob>,
    diff_id: Hasher,
    bytes: u64,
    limits: Limits,
}

impl LayerWriter {
    pub(crate) fn create(store: &Store) -> Result<LayerWriter, Error> {
        Ok(LayerWriter {
            encoder: GzEncoder::new(HashedBlob::create(store, Digest::sha256_hasher())?, LEVEL),
            diff_id: Digest::sha256_hasher(),
            bytes: 0,
            limits: Limits::default(),
        })
    }

    /// Why a write failed, if it was this side's fault.
    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.encoder.get_mut().failure()
    }

    pub(crate) fn finish(mut self, store: &Arc<Store>) -> Result<LocalLayer, Error> {
        if let Err(error) = self.encoder.try_finish() {
            return Err(self.failure().unwrap_or(Error::Input(error)));
        }
        let blob = self.encoder.finish().map_err(Error::Input)?;
        blob.into_layer(store, Compression::Gzip, self.diff_id.finish())
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.diff_id.update(&bytes[..written]);
        self.bytes += written as u64;
        // Nobody would unpack it again, and we neither.
        self.limits
            .check_ratio(self.bytes, self.encoder.get_ref().bytes)
            .map_err(io::Error::other)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob while it is written, hashed on the way.
pub(crate) struct HashedBlob {
    writer: BlobWriter,
    hasher: Hasher,
    bytes: u64,
    /// Why a write failed: passing through `io::Error` would lose it.
    failure: Option<Error>,
}

impl HashedBlob {
    pub(crate) fn create(store: &Store, hasher: Hasher) -> Result<HashedBlob, Error> {
        Ok(HashedBlob {
            writer: store.blob_writer()?,
            hasher,
            bytes: 0,
            failure: None,
        })
    }

    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// The file, its digest and its size.
    pub(crate) fn finish(self) -> (Scratch, Digest, u64) {
        (self.writer.finish(), self.hasher.finish(), self.bytes)
    }

    /// Keep it as the blob of a layer.
    pub(crate) fn into_layer(
        self,
        store: &Arc<Store>,
        compression: Compression,
        diff_id: Digest,
    ) -> Result<LocalLayer, Error> {
        let (scratch, digest, size) = self.finish();
        let blob = store.publish(&Key::Blob(digest.clone()), scratch)?;
        Ok(LocalLayer {
            layer: Layer::new(digest, size, compression),
            diff_id,
            blob,
        })
    }
}

impl Write for HashedBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.writer.write(bytes) {
            let words = error.to_string();
            self.failure = Some(error);
            return Err(io::Error::other(words));
        }
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Layer {
    /// A layer that has no descriptor yet.
    pub(crate) fn new(digest: Digest, size: u64, compression: Compression) -> Layer {
        let media_type = compression.media_type().to_owned();
        Layer {
            descriptor: Descriptor {
                media_type,
                digest,
                size,
                urls: Vec::new(),
                data: None,
            },
            compression,
        }
    }
}
