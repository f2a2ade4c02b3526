//! Streams that people hand in, compressed or not: the first bytes tell.
//!
//! Bounded like a layer: what inflates to far more than it is, is refused as a bomb before it fills anything.

pub(crate) mod window;

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use crate::manifest::Compression;
use crate::unpack::Limits;

const MAGIC_BYTES: usize = 6;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Formats that docker takes and we do not: the program that unpacks each, for the error's hint.
const OTHERS: [(&[u8], &str, &str); 2] = [
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
];

/// What was read to tell the format, then the rest.
pub(crate) type Stream<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Tell a stream's compression by its first bytes. An error of kind `Unsupported` is about the format.
pub(crate) fn sniff<R: Read>(mut stream: R) -> io::Result<(Compression, Stream<R>)> {
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    (&mut stream).take(MAGIC_BYTES as u64).read_to_end(&mut first)?;
    for (magic, name, program) in OTHERS {
        if first.starts_with(magic) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is compressed with {name}, which is not taken here: pipe it through `{program}`"),
            ));
        }
    }
    let compression = if first.starts_with(GZIP) {
        Compression::Gzip
    } else if first.starts_with(ZSTD) {
        Compression::Zstd
    } else {
        Compression::Plain
    };
    Ok((compression, io::Cursor::new(first).chain(stream)))
}

/// The uncompressed content of a stream.
pub(crate) struct Inflated<'a> {
    stream: Box<dyn Read + 'a>,
    taken: Rc<Cell<u64>>,
    given: u64,
    limits: Limits,
}

impl<'a> Inflated<'a> {
    pub(crate) fn new(
        stream: impl Read + 'a,
        compression: Compression,
        limits: &Limits,
    ) -> io::Result<Inflated<'a>> {
        let taken = Rc::new(Cell::new(0));
        let counted = Counted {
            stream,
            taken: Rc::clone(&taken),
        };
        let stream: Box<dyn Read + 'a> = match compression {
            Compression::Plain => Box::new(counted),
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(counted)),
            Compression::Zstd => Box::new(window::Inflating::new(io::BufReader::new(counted))?),
        };
        Ok(Inflated {
            stream,
            taken,
            given: 0,
            limits: limits.clone(),
        })
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        self.given += got as u64;
        self.limits
            .check_ratio(self.given, self.taken.get())
            .map_err(io::Error::other)?;
        Ok(got)
    }
}

struct Counted<R> {
    stream: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        self.taken.set(self.taken.get() + got as u64);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn inflate(packed: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let (compression, stream) = sniff(packed)?;
        let mut content = Vec::new();
        Inflated::new(stream, compression, limits)?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let limits = Limits::default();
        for packed in [
            b"text".to_vec(),
            gzip(b"text"),
            zstd::encode_all(&b"text"[..], 1).unwrap(),
        ] {
            assert_eq!(inflate(&packed, &limits).unwrap(), b"text");
        }
        assert_eq!(inflate(b"", &limits).unwrap(), b"");
        for (packed, word) in [(&b"\xfd7zXZ\0..."[..], "xz -dc"), (b"BZh91AY", "bzip2 -dc")] {
            let error = inflate(packed, &limits).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let limits = Limits {
            inflated_free_bytes: 1 << 16,
            inflation_ratio: 100,
            ..Limits::default()
        };
        let error = inflate(&gzip(&vec![0; 4 << 20]), &limits)
            .unwrap_err()
            .to_string();
        assert!(error.contains("bomb"), "{error}");
    }
}
