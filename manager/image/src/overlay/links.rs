//! Hard links: which objects of several names an archive has already.

use std::collections::hash_map::{Entry, HashMap};
use std::io;

use super::Item;
use crate::archive::Kind;

/// Of the first names of objects of which more names may come.
const BYTES_MAX: usize = 32 << 20;
/// What one takes beside its name, about.
const OBJECT_BYTES: usize = 64;

/// The first name of each object that has more to come.
#[derive(Default)]
pub(super) struct Links {
    first: HashMap<(u64, u64), First>,
    bytes: usize,
}

struct First {
    path: Vec<u8>,
    more: u64,
}

impl Links {
    /// Make an item a hard link if its object is in the archive already.
    pub(super) fn note(&mut self, item: &mut Item) -> io::Result<()> {
        if item.link_count < 2 {
            return Ok(());
        }
        let entry = &mut item.entry;
        match self.first.entry(item.inode) {
            Entry::Vacant(place) => {
                self.bytes += entry.path.len() + OBJECT_BYTES;
                if self.bytes > BYTES_MAX {
                    return Err(io::Error::other(format!(
                        "there are too many files with several names (the first names of those that are not complete have more than {BYTES_MAX} bytes)"
                    )));
                }
                place.insert(First {
                    path: entry.path.clone(),
                    more: item.link_count - 1,
                });
            }
            Entry::Occupied(mut place) => {
                let first = place.get_mut();
                entry.kind = Kind::HardLink;
                entry.link.clone_from(&first.path);
                entry.size = 0;
                entry.xattrs.clear();
                first.more -= 1;
                if first.more == 0 {
                    self.bytes -= first.path.len() + OBJECT_BYTES;
                    place.remove();
                }
            }
        }
        Ok(())
    }
}
