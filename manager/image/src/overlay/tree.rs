//! All that an overlay shows, as a tar stream: the export of a container.

use std::collections::hash_map::{self, HashMap};
use std::io::{self, Write};

use rustix::fs::FileType;

use super::{Item, Layers, entry, item};
use crate::archive::Kind;
use crate::pack::Packer;

/// Write the whole merged tree. Hard links are kept; what disappears meanwhile is left out.
pub(crate) fn export<W: Write>(layers: &Layers, stream: W) -> Result<W, (Vec<u8>, io::Error)> {
    let mut packer = Packer::new(stream);
    let mut links = Links::default();
    // Depth first, a folder before what is in it.
    let mut folders = vec![layers.root()];
    while let Some(folder) = folders.pop() {
        let here = |e: io::Error| (folder.path.clone(), e);
        let open = layers.enter(&folder).map_err(here)?;
        let Some(top) = open.top() else { continue };
        let looks = entry::folder(top, folder.path.clone()).map_err(here)?;
        packer.append(&looks, io::empty()).map_err(here)?;
        let mut below = Vec::new();
        for name in open.names().map_err(here)? {
            let path = folder.join(&name);
            let there = |e: io::Error| (path.clone(), e);
            let Some(found) = open.find(&name).map_err(there)? else {
                continue;
            };
            if FileType::from_raw_mode(found.status.st_mode) == FileType::Directory {
                below.push(super::Folder {
                    path,
                    layers: found.layers,
                });
                continue;
            }
            let Some(mut object) = item(found.parent, &name, &path).map_err(there)? else {
                continue;
            };
            links.note(&mut object);
            match object.file {
                // A hard link has no data of its own: its size is 0.
                Some(file) => packer.append(&object.entry, file),
                None => packer.append(&object.entry, io::empty()),
            }
            .map_err(there)?;
        }
        folders.extend(below.into_iter().rev());
    }
    packer.finish().map_err(|e| (Vec::new(), e))
}

/// The first name of each object that has several.
#[derive(Default)]
pub(super) struct Links(HashMap<(u64, u64), Vec<u8>>);

impl Links {
    /// Make an item a hard link if its object is in the archive already.
    pub(super) fn note(&mut self, item: &mut Item) {
        if item.link_count < 2 {
            return;
        }
        let entry = &mut item.entry;
        match self.0.entry(item.inode) {
            hash_map::Entry::Vacant(first) => {
                first.insert(entry.path.clone());
            }
            hash_map::Entry::Occupied(first) => {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first.get());
                entry.size = 0;
                entry.xattrs.clear();
            }
        }
    }
}
