//! Streams that people hand in, compressed or not: the first bytes tell.
//!
//! Bounded like a layer: what inflates to far more than it is, is refused as a bomb before it fills anything.

pub(crate) mod window;

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use liblzma::stream as xz;

use crate::manifest::Compression;
use crate::unpack::Limits;

const MAGIC_BYTES: usize = 6;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: &[u8] = b"BZh";
/// What `xz -9` needs: a dictionary of 64 MiB and some.
const XZ_MEMORY_BYTES_MAX: u64 = 66 << 20;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// As layers can be.
    Layer(Compression),
    /// As docker takes archives, but no media type of layers names it.
    Xz,
    /// The same.
    Bzip2,
}

/// What was read to tell the format, then the rest.
pub(crate) type Stream<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Tell a stream's compression by its first bytes.
pub(crate) fn sniff<R: Read>(mut stream: R) -> io::Result<(Format, Stream<R>)> {
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    (&mut stream).take(MAGIC_BYTES as u64).read_to_end(&mut first)?;
    let known = [
        (GZIP, Format::Layer(Compression::Gzip)),
        (ZSTD, Format::Layer(Compression::Zstd)),
        (XZ, Format::Xz),
        (BZIP2, Format::Bzip2),
    ];
    let format = known.iter().find(|(magic, _)| first.starts_with(magic));
    let format = format.map_or(Format::Layer(Compression::Plain), |(_, format)| *format);
    Ok((format, io::Cursor::new(first).chain(stream)))
}

/// The uncompressed content of a stream.
pub(crate) struct Inflated<'a> {
    stream: Box<dyn Read + 'a>,
    taken: Rc<Cell<u64>>,
    given: u64,
    limits: Limits,
}

impl<'a> Inflated<'a> {
    pub(crate) fn new(stream: impl Read + 'a, format: Format, limits: &Limits) -> io::Result<Inflated<'a>> {
        let taken = Rc::new(Cell::new(0));
        let counted = Counted {
            stream,
            taken: Rc::clone(&taken),
        };
        let stream: Box<dyn Read + 'a> = match format {
            Format::Layer(Compression::Plain) => Box::new(counted),
            Format::Layer(Compression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(counted)),
            Format::Layer(Compression::Zstd) => {
                Box::new(window::Inflating::new(io::BufReader::new(counted))?)
            }
            Format::Xz => {
                let decoder = xz::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, xz::CONCATENATED)?;
                Box::new(liblzma::read::XzDecoder::new_stream(counted, decoder))
            }
            Format::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(counted)),
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
        let (format, stream) = sniff(packed)?;
        let mut content = Vec::new();
        Inflated::new(stream, format, limits)?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(content: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(content: &[u8], dictionary_bytes: u32) -> Vec<u8> {
        let mut options = xz::LzmaOptions::new_preset(1).unwrap();
        options.dict_size(dictionary_bytes);
        let mut filters = xz::Filters::new();
        filters.lzma2(&options);
        let stream = xz::Stream::new_stream_encoder(&filters, xz::Check::Crc64).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
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
            bzip2(b"text"),
            // As xz -9 makes it.
            xz(b"text", 64 << 20),
        ] {
            assert_eq!(inflate(&packed, &limits).unwrap(), b"text");
        }
        assert_eq!(inflate(b"", &limits).unwrap(), b"");
    }

    #[test]
    fn streams_one_after_the_other_are_one() {
        let limits = Limits::default();
        for pack in [gzip, bzip2, |content: &[u8]| xz(content, 1 << 20)] {
            let two = [pack(b"te"), pack(b"xt")].concat();
            assert_eq!(inflate(&two, &limits).unwrap(), b"text");
            let cut = &two[..two.len() - 3];
            assert!(inflate(cut, &limits).is_err(), "one that is cut off is none");
        }
    }

    #[test]
    fn xz_gets_as_much_memory_as_its_own_program_asks_for() {
        let error = inflate(&xz(b"text", 512 << 20), &Limits::default()).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }

    #[test]
    fn a_bomb_is_refused() {
        let limits = Limits {
            inflated_free_bytes: 1 << 16,
            inflation_ratio: 100,
            ..Limits::default()
        };
        let zeros = vec![0; 4 << 20];
        for packed in [gzip(&zeros), bzip2(&zeros), xz(&zeros, 1 << 20)] {
            let error = inflate(&packed, &limits).unwrap_err().to_string();
            assert!(error.contains("bomb"), "{error}");
        }
    }
}
