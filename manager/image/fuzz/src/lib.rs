//! What the targets share: memory that stays in proportion to the input, and tars that a fuzzer can change.

use std::borrow::Cow;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a parser may take whatever its input: buffers, and the one megabyte that an extension header may announce.
const BYTES_FREE: usize = 4 << 20;
/// … and for each byte of its input. A JSON array of zeros takes 32 bytes for two, and twice that while it grows.
const BYTES_PER_BYTE: usize = 64;

const BLOCK: usize = 512;

/// A target whose input is of type `$kind`, and which takes no more memory than its input may.
#[macro_export]
macro_rules! target {
    ($input:ident: $kind:ty => $call:expr) => {
        libfuzzer_sys::fuzz_target!(|$input: $kind| $crate::bounded($input.len(), || $call));
    };
}

/// Run `parse` on an input of so many bytes.
pub fn bounded(input_bytes: usize, parse: impl FnOnce()) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    parse();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        taken <= BYTES_FREE + BYTES_PER_BYTE * input_bytes,
        "{input_bytes} bytes of input took {taken} bytes of memory"
    );
}

/// The input with the checksum of each header put right, which a fuzzer does not find. Headers of the oldest format,
/// without `ustar` in them, are left as they are.
pub fn with_checksums(content: &[u8]) -> Cow<'_, [u8]> {
    let mut content = Cow::Borrowed(content);
    for start in (0..content.len() / BLOCK * BLOCK).step_by(BLOCK) {
        if &content[start + 257..start + 262] != b"ustar" {
            continue;
        }
        let header = &mut content.to_mut()[start..start + BLOCK];
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    content
}

/// A folder in memory, where neither a disk nor its syncs are waited for.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("make a folder in /dev/shm")
}
