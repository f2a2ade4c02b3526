//! A new layer in the making: a tar stream goes in, a compressed blob with both of its digests comes out.
//!
//! The blob is gzip. A layer that is made here is mostly pushed somewhere, and gzip is what every registry's client
//! has always taken; kept plain it would be compressed at each push, and be three times as large meanwhile.

use std::io::{self, Write};
use std::sync::Arc;

use flate2::write::GzEncoder;

use super::{HashedBlob, LocalLayer};
use crate::Error;
use crate::digest::{Digest, Hasher};
use crate::manifest::Compression;
use crate::store::Store;

/// On two cores, the levels above cost more time than they save in most networks.
const LEVEL: flate2::Compression = flate2::Compression::fast();

/// A layer's tar stream is written into this.
pub(crate) struct LayerWriter {
    encoder: GzEncoder<HashedBlob>,
    diff_id: Hasher,
}

impl LayerWriter {
    pub(crate) fn create(store: &Store) -> Result<LayerWriter, Error> {
        Ok(LayerWriter {
            encoder: GzEncoder::new(HashedBlob::create(store, Digest::sha256_hasher())?, LEVEL),
            diff_id: Digest::sha256_hasher(),
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
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
