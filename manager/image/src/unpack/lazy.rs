//! What eStargz adds to a layer for those who fetch it file by file: an index as the last entry, and a landmark at
//! the end of what to fetch first. Neither is a file of the image.
//!
//! They are told by the tar alone, never by annotations: images with and without them share the snapshot of a diffID.
//! zstd:chunked keeps its index in frames that decoders skip. Source: stargz-snapshotter, docs/estargz.md.

use super::sink::Sink;
use super::{Failure, name};
use crate::archive::{Entry, Kind};

const INDEX: &[u8] = b"stargz.index.json";
const LANDMARKS: [&[u8]; 2] = [b".prefetch.landmark", b".no.prefetch.landmark"];
/// A landmark has one byte.
const LANDMARK_BYTES: u64 = 1;

/// The marks that were seen so far.
#[derive(Default)]
pub(super) struct Lazy {
    ends_with_index: bool,
    landmark: Option<&'static [u8]>,
}

impl Lazy {
    pub(super) fn see(&mut self, entry: &Entry) {
        let named = |mark: &[u8]| {
            entry.path.ends_with(mark) && name::components(&entry.path).is_ok_and(|path| path == [mark])
        };
        self.ends_with_index = entry.kind == Kind::File && named(INDEX);
        if let Some(landmark) = LANDMARKS.into_iter().find(|landmark| named(landmark)) {
            let is_mark = entry.kind == Kind::File && entry.size == LANDMARK_BYTES;
            self.landmark = is_mark.then_some(landmark);
        }
    }

    /// After the last entry.
    pub(super) fn remove_marks(&self, tree: &mut impl Sink) -> Result<(), Failure> {
        let index = self.ends_with_index.then_some(INDEX);
        for mark in index.into_iter().chain(self.landmark) {
            tree.remove_from_root(mark)
                .map_err(|problem| problem.named(mark))?;
        }
        Ok(())
    }
}
