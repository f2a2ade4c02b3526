//! An image of one layer from a tar archive of a root file system, as it comes in.
//!
//! The archive is kept as the layer's blob: as it is when it is compressed as layers can be, else in gzip. Its digests
//! are known only at its end, so it is unpacked then, from that blob, by the same pass as a pulled layer.

use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::digest::Digest;
use crate::inflate::{Format, Inflated, sniff};
use crate::local::{Description, HashedBlob, LayerWriter, LocalLayer, compose};
use crate::manifest::Compression;
use crate::store::Store;
use crate::unpack::Limits;
use crate::{Error, Image};

/// Read the archive to its end, and make the image.
pub(crate) fn import(
    store: &Arc<Store>,
    archive: impl Read,
    description: &Description,
) -> Result<Image, Error> {
    description.reference()?;
    let (format, archive) = sniff(archive).map_err(Error::Input)?;
    let layer = match format {
        Format::Layer(compression @ (Compression::Gzip | Compression::Zstd)) => {
            keep(store, archive, compression)?
        }
        Format::Layer(Compression::Plain) | Format::Xz | Format::Bzip2 => {
            let plain = Inflated::new(archive, format, &Limits::default()).map_err(Error::Input)?;
            pack(store, plain)?
        }
    };
    failpoint::reach("import.read");
    compose(store, None, Some(layer), description)
}

/// Compress an archive.
fn pack(store: &Arc<Store>, mut archive: impl Read) -> Result<LocalLayer, Error> {
    let mut writer = LayerWriter::create(store)?;
    if let Err(error) = io::copy(&mut archive, &mut writer) {
        return Err(writer.failure().unwrap_or(Error::Input(error)));
    }
    writer.finish(store)
}

/// Keep a compressed archive, and look into it for its diffID.
fn keep(store: &Arc<Store>, archive: impl Read, compression: Compression) -> Result<LocalLayer, Error> {
    let mut tee = Tee {
        stream: archive,
        copy: HashedBlob::create(store, Digest::sha256_hasher())?,
    };
    let mut read = || -> io::Result<Digest> {
        let mut hasher = Digest::sha256_hasher();
        let mut inflated = Inflated::new(&mut tee, Format::Layer(compression), &Limits::default())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match inflated.read(&mut buffer)? {
                0 => break,
                got => hasher.update(&buffer[..got]),
            }
        }
        drop(inflated);
        // What follows the compressed stream belongs to the blob too.
        io::copy(&mut tee, &mut io::sink())?;
        Ok(hasher.finish())
    };
    let diff_id = read();
    let diff_id = diff_id.map_err(|error| tee.copy.failure().unwrap_or(Error::Input(error)))?;
    tee.copy.into_layer(store, compression, diff_id)
}

/// A stream of which a copy is kept.
struct Tee<R> {
    stream: R,
    copy: HashedBlob,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        self.copy.write_all(&buffer[..got])?;
        Ok(got)
    }
}
