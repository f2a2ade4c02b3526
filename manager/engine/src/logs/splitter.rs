//! From blocks of a file to the records in its lines.

use super::files::LINE_MAX_BYTES;
use super::record::{self, Record};

#[derive(Default)]
pub(super) struct Splitter {
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Splitter {
    pub(super) fn feed(&mut self, block: &[u8], mut take: impl FnMut(Record)) {
        let mut rest = block;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let line = if self.partial.is_empty() {
                record::parse(&rest[..end])
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                let parsed = record::parse(&self.partial);
                self.partial.clear();
                parsed
            };
            rest = &rest[end + 1..];
            line.into_iter().for_each(&mut take);
        }
        if self.partial.len() + rest.len() <= LINE_MAX_BYTES {
            self.partial.extend_from_slice(rest);
        }
    }
}
