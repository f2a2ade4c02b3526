//! zstd streams by the window that they want: what a decoder has to remember of its output, as the writer chose it.
//!
//! Windows are most of the memory that a pull takes, so a large one is given to one stream at a time. Source: RFC 8878,
//! section 3.1.1.1, "Frame Header".

use std::io::{self, BufRead, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};
use zstd::zstd_safe::DParameter;

/// As a power of two, what every stream gets: 8 MiB, which is what `zstd -19` takes.
const SMALL_LOG: u32 = 23;
/// The largest that is accepted: 32 MiB, as of `zstd --ultra -20` and of the best compression of Go's writers.
pub(crate) const LARGE_LOG: u32 = 25;
/// Of a frame to skip; the first byte's last four bits are free.
const SKIPPED_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

static LARGE: Mutex<()> = Mutex::new(());

/// What a zstd stream inflates to, frame by frame.
pub(crate) struct Inflating<R> {
    stream: R,
    decoder: Decoder<'static>,
    is_between_frames: bool,
    has_begun: bool,
    /// The right to a large window, kept to the stream's end, as the decoder keeps its memory.
    turn: Option<MutexGuard<'static, ()>>,
}

impl<R: BufRead> Inflating<R> {
    pub(crate) fn new(stream: R) -> io::Result<Inflating<R>> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(SMALL_LOG))?;
        Ok(Inflating {
            stream,
            decoder,
            is_between_frames: true,
            has_begun: false,
            turn: None,
        })
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.stream
    }
}

impl<R: BufRead> Read for Inflating<R> {
    /// Waits at the first frame that wants a large window, while another stream has one.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.stream.fill_buf()?;
            let is_end = input.is_empty();
            if buffer.is_empty() || (is_end && self.is_between_frames && self.has_begun) {
                return Ok(0);
            }
            self.has_begun = true;
            if self.is_between_frames
                && self.turn.is_none()
                && window(input).is_none_or(|bytes| bytes > 1 << SMALL_LOG)
            {
                self.turn = Some(LARGE.lock().unwrap_or_else(PoisonError::into_inner));
                self.decoder.set_parameter(DParameter::WindowLogMax(LARGE_LOG))?;
            }
            let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(&mut *buffer));
            let wanted = self.decoder.run(&mut from, &mut to)?;
            let (taken, given) = (from.pos(), to.pos());
            self.stream.consume(taken);
            self.is_between_frames = wanted == 0;
            if given > 0 {
                return Ok(given);
            }
            if is_end && !self.is_between_frames {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it ends inside a frame",
                ));
            }
        }
    }
}

/// The window of a frame in bytes; `None` if not all of its header is here.
fn window(start: &[u8]) -> Option<u64> {
    if start.get(1..4) == Some(&SKIPPED_MAGIC) {
        return Some(0);
    }
    let header = start.strip_prefix(super::ZSTD)?;
    let descriptor = *header.first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *header.get(1)?;
        let base = 1u64 << (10 + u32::from(window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The content is its own window; the number of a dictionary stands before its size.
    let size_at = 1 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = 1usize << (descriptor >> 6);
    let mut size = [0; 8];
    size[..size_bytes].copy_from_slice(header.get(size_at..size_at + size_bytes)?);
    // Two bytes begin where one ends.
    let least = if size_bytes == 2 { 256 } else { 0 };
    Some(u64::from_le_bytes(size).saturating_add(least))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(content: &[u8], window_log: u32, tells_size: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        if tells_size {
            encoder.set_pledged_src_size(Some(content.len() as u64)).unwrap();
        }
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    const SKIPPED: [u8; 9] = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];

    /// With a buffer that cuts headers and blocks.
    fn inflate(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Inflating::new(io::BufReader::with_capacity(16, packed))?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn the_window_is_what_the_frame_header_says() {
        for log in [10, 17, 23, 25] {
            assert_eq!(window(&packed(b"abc", log, false)), Some(1 << log));
        }
        for size in [1usize, 255, 256, 257, 65_535, 65_792, 70_000] {
            let frame = packed(&vec![7; size], 20, true);
            assert_eq!(window(&frame), Some(size as u64), "{size}");
        }
        let frame = packed(b"abc", 20, false);
        assert_eq!(window(&frame[..5]), None);
        assert_eq!(window(&SKIPPED), Some(0));
    }

    #[test]
    fn frames_follow_each_other_and_have_an_end() {
        let frames = [
            packed(&[1; 1000], 23, false),
            SKIPPED.to_vec(),
            packed(&[2; 9], 20, true),
        ]
        .concat();
        assert_eq!(inflate(&frames).unwrap(), [vec![1; 1000], vec![2; 9]].concat());
        assert!(inflate(b"").is_err(), "nothing is no frame");
        for end in 1..frames.len() {
            let inflated = inflate(&frames[..end]);
            assert!(inflated.is_err() || inflated.unwrap().len() == 1000, "{end}");
        }
        assert!(inflate(&[&frames[..], b"garbage"].concat()).is_err());
    }

    #[test]
    fn the_first_frame_with_a_large_window_takes_the_turn() {
        let (small, large) = (packed(&[1; 100], 23, false), packed(&[2; 100], 24, false));
        let grown = [small, large].concat();
        let mut stream = Inflating::new(grown.as_slice()).unwrap();
        let mut content = [0; 100];
        stream.read_exact(&mut content).unwrap();
        assert!(stream.turn.is_none());
        stream.read_exact(&mut content).unwrap();
        assert_eq!(content, [2; 100]);
        assert!(stream.turn.is_some());
        assert_eq!(stream.read(&mut content).unwrap(), 0);
    }
}
