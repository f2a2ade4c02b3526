//! What the entries of one layer come to, against what a layer may have.

use super::{Limits, name, xattr};
use crate::archive::{Entry, Kind};

/// Counts entries as they come.
pub(crate) struct Tally {
    limits: Limits,
    headers: u64,
    /// Of all files together, with their holes.
    pub(super) content_bytes: u64,
    xattr_bytes: u64,
}

impl Tally {
    pub(crate) fn new(limits: &Limits) -> Tally {
        Tally {
            limits: limits.clone(),
            headers: 0,
            content_bytes: 0,
            xattr_bytes: 0,
        }
    }

    /// Count the content of an entry that is to be unpacked.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), String> {
        self.content_bytes = self.content_bytes.saturating_add(entry.size);
        let values = entry.xattrs.iter().map(|(_, value)| value.len() as u64);
        self.xattr_bytes += values.sum::<u64>();
        if self.content_bytes.saturating_add(self.xattr_bytes) > self.limits.content_bytes {
            return Err(format!(
                "the layer's files are larger than {} bytes",
                self.limits.content_bytes
            ));
        }
        xattr::check(&entry.xattrs, self.limits.xattr_bytes)
    }

    /// Count an entry that is to be packed, and refuse what could not be unpacked again: before its data is read.
    pub(crate) fn foresee(&mut self, entry: &Entry) -> Result<(), String> {
        let path = name::components(&entry.path)?;
        if entry.kind == Kind::Symlink {
            name::check_symlink(&path, &entry.link)?;
        }
        // With that of its extensions, which nearly each has for the parts of a second in its time.
        self.headers += 2;
        if self.headers > self.limits.entries {
            return Err(format!("the layer has more than {} headers", self.limits.entries));
        }
        self.add(entry)
    }
}
