//! The pass of one layer: bytes in as they arrive, a verified folder and blob out.
//!
//! Three threads share the work, as one core cannot inflate and make files as fast as a network delivers: the first
//! hashes the compressed bytes and keeps them as a blob, the second inflates, the third hashes the inflated bytes and
//! unpacks the tar. All are fed through small bounded queues. Memory does not grow with the layer.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use bytes::Bytes;

use crate::Error;
use crate::content::BlobWriter;
use crate::digest::{Digest, Hasher};
use crate::inflate::window::Inflating;
use crate::manifest::{Compression, Layer};
use crate::progress::Counters;
use crate::store::Held;
use crate::unpack::{self, Failure, Form, Limits, Unpacked, unpack};
use crate::write_back::WriteBack;

/// Inflated bytes handed over at once, and how many such pieces may wait.
const PIECE_BYTES: usize = 128 << 10;
const PIECES_MAX: usize = 8;
/// Pieces as they came that may wait to be inflated.
const PACKED_PIECES_MAX: usize = 4;
/// What is read at once of a blob that is here.
const FILE_PIECE_BYTES: usize = 64 << 10;

/// What one pass needs to know.
pub(crate) struct Pass {
    pub(crate) layer: Layer,
    pub(crate) diff_id: Digest,
    /// An empty folder to unpack into, or where an image is to be made.
    pub(crate) place: PathBuf,
    pub(crate) form: Form,
    pub(crate) limits: Limits,
    /// Hears of what is written, if that is to stay.
    pub(crate) write_back: Option<WriteBack>,
    pub(crate) counters: Arc<Counters>,
}

impl Pass {
    /// Run the pass on this thread and two more. `source` gives the compressed bytes; `blob` keeps them, if it is
    /// not here already. Nothing that was made is to be used unless this returns `Ok`.
    pub(crate) fn run(
        &self,
        source: tokio::sync::mpsc::Receiver<Bytes>,
        blob: Option<&mut BlobWriter>,
    ) -> Result<Unpacked, Error> {
        let (packed, inflater_in) = sync_channel(PACKED_PIECES_MAX);
        let (pieces, unpacker_in) = sync_channel(PIECES_MAX);
        let (used, recycled) = channel();
        let refused = &AtomicBool::new(false);
        let threads = std::thread::scope(|scope| {
            let unpacker = self.spawn(scope, "layer-unpack", || self.unpack(unpacker_in, used))?;
            let inflater = self.spawn(scope, "layer-inflate", move || {
                let inflated = self.inflate(&inflater_in, &pieces, &recycled);
                // Before the first thread can see that nobody takes its pieces any more.
                refused.store(matches!(inflated, Err(Stop::Unpacker)), Ordering::Release);
                inflated
            })?;
            let kept = self.keep(source, blob, packed, refused);
            Ok((kept, inflater.join(), unpacker.join()))
        });
        let (kept, inflated, unpacked) = threads?;
        let panicked = || self.broken("a thread that unpacks it panicked");
        let unpacked = unpacked.unwrap_or_else(|_| Err(panicked()));
        // Bytes damaged on their way are told from a bad layer.
        kept?;
        match (
            inflated.unwrap_or_else(|_| Err(Stop::Error(panicked()))),
            unpacked,
        ) {
            // The unpacker stopped taking bytes: it knows why.
            (Err(Stop::Unpacker) | Ok(()), Err(error)) | (Err(Stop::Error(error)), _) => Err(error),
            (Err(Stop::Unpacker), Ok(_)) => Err(self.broken("the unpacking thread ended early")),
            (Ok(()), Ok(unpacked)) => Ok(unpacked),
        }
    }

    fn spawn<'scope, T: Send + 'scope>(
        &self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        name: &str,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> Result<std::thread::ScopedJoinHandle<'scope, T>, Error> {
        std::thread::Builder::new()
            .name(name.into())
            .spawn_scoped(scope, work)
            .map_err(|e| Error::io("start a thread for", &self.place, e))
    }

    fn wrote(&self, bytes: usize) {
        if let Some(write_back) = &self.write_back {
            write_back.wrote(bytes as u64);
        }
    }

    fn digest(&self) -> String {
        self.layer.descriptor.digest.to_string()
    }

    fn broken(&self, rule: impl Into<String>) -> Error {
        Error::Layer {
            layer: self.digest(),
            rule: rule.into(),
        }
    }

    /// First thread: compressed bytes are counted, hashed and kept. Even when they can't be inflated, unless the
    /// unpacker has `refused` the layer: nobody needs the rest then.
    fn keep(
        &self,
        mut source: tokio::sync::mpsc::Receiver<Bytes>,
        mut blob: Option<&mut BlobWriter>,
        packed: SyncSender<Bytes>,
        refused: &AtomicBool,
    ) -> Result<(), Error> {
        let descriptor = &self.layer.descriptor;
        let (mut taken, size) = (0, descriptor.size);
        let mut hasher = descriptor.digest.hasher();
        let mut packed = Some(packed);
        while let Some(bytes) = source.blocking_recv() {
            taken += bytes.len() as u64;
            if taken > size {
                return Err(self.broken(format!(
                    "it is longer than the {size} bytes that its manifest says"
                )));
            }
            hasher.update(&bytes);
            if let Some(blob) = &mut blob {
                blob.write(&bytes)?;
                self.wrote(bytes.len());
            }
            if let Some(inflater) = &packed
                && inflater.send(bytes).is_err()
            {
                if refused.load(Ordering::Acquire) {
                    return Ok(());
                }
                packed = None;
            }
        }
        if taken < size {
            return Err(self.broken(format!("it ended after {taken} of {size} bytes")));
        }
        let actual = hasher.finish();
        if actual != descriptor.digest {
            return Err(Error::Digest {
                what: "layer",
                expected: self.digest(),
                actual: actual.to_string(),
            });
        }
        Ok(())
    }

    /// Second thread: compressed bytes to inflated ones.
    fn inflate(
        &self,
        source: &Receiver<Bytes>,
        pieces: &SyncSender<Vec<u8>>,
        recycled: &Receiver<Vec<u8>>,
    ) -> Result<(), Stop> {
        let mut packed = Packed {
            source,
            current: Bytes::new(),
            taken: 0,
        };
        match self.layer.compression {
            Compression::Plain => self.pump(&mut packed, pieces, recycled),
            // Parallel compressors and eStargz write many members in one file.
            Compression::Gzip => self.pump(
                &mut flate2::read::MultiGzDecoder::new(&mut packed),
                pieces,
                recycled,
            ),
            Compression::Zstd => Inflating::new(io::BufReader::new(&mut packed))
                .map_err(|e| Stop::Error(self.broken(format!("zstd: {e}"))))
                .and_then(|mut decoder| self.pump(&mut decoder, pieces, recycled)),
        }
    }

    fn pump(
        &self,
        from: &mut dyn PackedRead,
        pieces: &SyncSender<Vec<u8>>,
        recycled: &Receiver<Vec<u8>>,
    ) -> Result<(), Stop> {
        let mut total = 0u64;
        loop {
            let mut piece = recycled.try_recv().unwrap_or_default();
            piece.resize(PIECE_BYTES, 0);
            let mut filled = 0;
            while filled < PIECE_BYTES {
                match from.read(&mut piece[filled..]) {
                    Ok(0) => break,
                    Ok(got) => filled += got,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Stop::Error(self.broken(self.decoder_rule(&e)))),
                }
            }
            if filled == 0 {
                return Ok(());
            }
            piece.truncate(filled);
            total += filled as u64;
            self.limits
                .check_ratio(total, from.taken())
                .map_err(|rule| Stop::Error(self.broken(rule)))?;
            pieces.send(piece).map_err(|_| Stop::Unpacker)?;
        }
    }

    fn decoder_rule(&self, error: &io::Error) -> String {
        let media_type = &self.layer.descriptor.media_type;
        format!("its content is not what its media type {media_type} says: {error}")
    }

    /// Third thread: inflated bytes to files.
    fn unpack(&self, pieces: Receiver<Vec<u8>>, used: Sender<Vec<u8>>) -> Result<Unpacked, Error> {
        let mut stream = Inflated {
            pieces,
            used,
            current: Vec::new(),
            position: 0,
            hasher: self.diff_id.hasher(),
            pass: self,
        };
        let unpacked = unpack(&mut stream, &self.place, self.form, &self.limits)
            .map_err(|f| explain(f, &self.digest()))?;
        let actual = stream.hasher.finish();
        if actual != self.diff_id {
            return Err(Error::Digest {
                what: "unpacked layer",
                expected: self.diff_id.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(unpacked)
    }
}

/// Give a pass the blob that is here already, until it takes no more.
pub(crate) fn feed_file(
    path: &Path,
    sink: &tokio::sync::mpsc::Sender<Bytes>,
    counters: &Counters,
) -> Result<(), Error> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut sent = 0;
    loop {
        let mut piece = vec![0; FILE_PIECE_BYTES];
        let got = file.read(&mut piece).map_err(|e| Error::io("read", path, e))?;
        piece.truncate(got);
        sent += got as u64;
        counters.set_downloaded(sent);
        // The pass may have refused the layer by now; it says why.
        if got == 0 || sink.blocking_send(piece.into()).is_err() {
            return Ok(());
        }
    }
}

/// Complete what a pass has unpacked at `place` from the layers below it, base first. The bytes of all its files.
pub(crate) fn complete(
    place: &Path,
    unpacked: Unpacked,
    below: &[Arc<Held>],
    layer: &Layer,
    diff_id: &Digest,
) -> Result<u64, Error> {
    let below: Vec<OwnedFd> = below
        .iter()
        .rev()
        .map(|held| held.open_layer())
        .collect::<Result<_, _>>()?;
    unpacked
        .adopt(place, &below, Limits::default().content_bytes, diff_id.uuid())
        .map_err(|failure| explain(failure, &layer.descriptor.digest.to_string()))
}

/// Why the inflating thread stopped.
enum Stop {
    Unpacker,
    Error(Error),
}

/// A failure in unpacking or completing a layer, with the layer's digest.
fn explain(failure: unpack::Failure, layer: &str) -> Error {
    let layer = layer.to_owned();
    let shown = |entry: Vec<u8>| String::from_utf8_lossy(&entry).chars().take(300).collect();
    match failure {
        Failure::Rule {
            entry: Some(entry),
            rule,
        } => Error::Entry {
            layer,
            entry: shown(entry),
            rule,
        },
        Failure::Rule { entry: None, rule } => Error::Layer { layer, rule },
        Failure::System {
            entry,
            action,
            source,
        } => Error::Unpack {
            layer,
            entry: shown(entry),
            action,
            source,
        },
        Failure::Read(e) => Error::Layer {
            layer,
            rule: e.to_string(),
        },
    }
}

/// A reader over compressed bytes that knows how many were taken, even beneath a decoder.
trait PackedRead: Read {
    fn taken(&self) -> u64;
}

/// The compressed bytes, counted while they are read.
struct Packed<'a> {
    source: &'a Receiver<Bytes>,
    current: Bytes,
    taken: u64,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            // Whether this is the end or an early one, the first thread knows.
            let Ok(bytes) = self.source.recv() else {
                return Ok(0);
            };
            self.taken += bytes.len() as u64;
            self.current = bytes;
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

impl PackedRead for Packed<'_> {
    fn taken(&self) -> u64 {
        self.taken
    }
}

impl PackedRead for flate2::read::MultiGzDecoder<&mut Packed<'_>> {
    fn taken(&self) -> u64 {
        self.get_ref().taken
    }
}

impl PackedRead for Inflating<io::BufReader<&mut Packed<'_>>> {
    fn taken(&self) -> u64 {
        self.get_ref().get_ref().taken
    }
}

/// The inflated bytes: hashed while they are read.
struct Inflated<'a> {
    pieces: Receiver<Vec<u8>>,
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hasher: Hasher,
    pass: &'a Pass,
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            let Ok(piece) = self.pieces.recv() else {
                return Ok(0);
            };
            self.hasher.update(&piece);
            self.pass.counters.add_unpacked(piece.len() as u64);
            self.pass.wrote(piece.len());
            // The other thread may be gone already; then nobody needs the buffer.
            let _ = self.used.send(std::mem::replace(&mut self.current, piece));
            self.position = 0;
        }
        let length = buffer.len().min(self.current.len() - self.position);
        buffer[..length].copy_from_slice(&self.current[self.position..self.position + length]);
        self.position += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::manifest::Descriptor;

    /// Run a pass over a layer that is all in the queue.
    fn run(packed: &[u8], compression: Compression, inflated: &[u8]) -> Result<Unpacked, Error> {
        let (digest, size) = (Digest::of(packed), packed.len() as u64);
        run_as(packed, packed.len(), (digest, size), compression, inflated)
    }

    /// Run a pass over what comes in pieces, whatever the manifest says of it.
    fn run_as(
        packed: &[u8],
        piece_bytes: usize,
        (digest, size): (Digest, u64),
        compression: Compression,
        inflated: &[u8],
    ) -> Result<Unpacked, Error> {
        let descriptor = Descriptor {
            media_type: "type".into(),
            digest,
            size,
            urls: Vec::new(),
            data: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let pass = Pass {
            layer: Layer {
                descriptor,
                compression,
            },
            diff_id: Digest::of(inflated),
            place: folder.path().to_owned(),
            form: Form::Folder,
            limits: Limits {
                inflated_free_bytes: 1 << 20,
                inflation_ratio: 100,
                ..Limits::default()
            },
            write_back: None,
            counters: Arc::new(Counters::new(String::new(), 0)),
        };
        let (sink, source) = tokio::sync::mpsc::channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for piece in packed.chunks(piece_bytes) {
                    if sink.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                        break;
                    }
                }
            });
            pass.run(source, None)
        })
    }

    fn random(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        std::iter::repeat_with(&mut next).take(length).collect()
    }

    fn archive(file: &[u8]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(file.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "file", file).unwrap();
        builder.into_inner().unwrap()
    }

    /// Bytes damaged on their way, or too few or too many, are told before what they do to a decoder.
    #[test]
    fn the_first_cause_is_told() {
        let content = archive(&random(1 << 20));
        let packed = gzip(&content);
        let (digest, size) = (Digest::of(&packed), packed.len() as u64);
        let told = |packed: &[u8], said: (Digest, u64), content: &[u8]| {
            let run = run_as(packed, 1024, said, Compression::Gzip, content);
            run.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let said = || (digest.clone(), size);
        assert_eq!(told(&packed, said(), &content), "");
        let mut damaged = packed.clone();
        damaged[packed.len() / 2] ^= 0xff;
        let error = told(&damaged, said(), &content);
        assert!(
            error.contains("digest") || error.contains(&digest.to_string()),
            "{error}"
        );
        assert!(!error.contains("media type"), "{error}");
        let error = told(&damaged, (Digest::of(&damaged), size), &content);
        assert!(
            error.contains("media type") || error.contains("unpacked"),
            "{error}"
        );
        let error = told(&packed[..packed.len() / 2], said(), &content);
        assert!(error.contains("it ended after"), "{error}");
        let error = told(&[&packed[..], b"more"].concat(), said(), &content);
        assert!(error.contains("longer than"), "{error}");
        // The unpacker refuses the first block; the rest is not waited for.
        let refused = gzip(&random(1 << 20));
        let error = told(&refused, (Digest::of(&refused), refused.len() as u64), b"");
        assert!(error.contains("header") || error.contains("checksum"), "{error}");
        let error = told(&packed, said(), b"something else");
        assert!(error.contains("unpacked layer"), "{error}");
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bombs_are_told_by_their_ratio() {
        // Zero blocks are the end of an empty archive, then padding.
        let (small, large) = (vec![0; 512 << 10], vec![0; 8 << 20]);
        run(&gzip(&small), Compression::Gzip, &small).unwrap();
        for (packed, compression) in [
            (gzip(&large), Compression::Gzip),
            (zstd::encode_all(large.as_slice(), 1).unwrap(), Compression::Zstd),
        ] {
            let error = run(&packed, compression, &large).unwrap_err().to_string();
            assert!(error.contains("bomb"), "{error}");
        }
    }

    #[test]
    fn a_stream_of_several_members_is_one_layer() {
        let content = vec![0; 4096];
        let gzips = [gzip(&content[..1000]), gzip(&content[1000..])].concat();
        run(&gzips, Compression::Gzip, &content).unwrap();
        let zstd = |part: &[u8]| zstd::encode_all(part, 1).unwrap();
        // A skippable frame between them, as zstd:chunked has.
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let frames = [zstd(&content[..1000]), skippable.to_vec(), zstd(&content[1000..])].concat();
        run(&frames, Compression::Zstd, &content).unwrap();
    }

    #[test]
    fn a_zstd_window_larger_than_our_memory_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        let error = run(&packed, Compression::Zstd, &vec![0; 1 << 20])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("media type") && error.contains("memory"),
            "{error}"
        );
    }
}
