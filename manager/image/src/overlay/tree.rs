//! All that an overlay shows, as a tar stream: the export of a container.

use std::io::Write;

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::data::{Data, gone};
use super::links::Links;
use super::names::{NAMES_BYTES_MAX, Names};
use super::{Failure, Folder, Layers, OpenFolder, entry, item};
use crate::pack::Packer;

/// Write the whole merged tree. Hard links are kept; what disappears meanwhile is left out.
pub(crate) fn export<W: Write>(
    layers: &Layers,
    cancelled: &CancellationToken,
    stream: W,
) -> Result<W, Failure> {
    let mut export = Export {
        layers,
        cancelled,
        packer: Packer::new(stream),
        links: Links::default(),
    };
    // Depth first, a folder before what is in it.
    let mut levels: Vec<Level> = Vec::from_iter(export.begin(layers.root(), NAMES_BYTES_MAX)?);
    while let Some(level) = levels.last_mut() {
        if let Some(folder) = export.go_on(level)? {
            let held: usize = levels.iter().map(|level| level.names.bytes()).sum();
            levels.extend(export.begin(folder, NAMES_BYTES_MAX - held)?);
        } else {
            levels.pop();
        }
    }
    export.packer.finish().map_err(|e| (Vec::new(), e))
}

/// A folder on the way down.
struct Level {
    folder: Folder,
    names: Names,
    /// Not while the walk is further down: there may be more levels than a process may have descriptors.
    open: Option<OpenFolder>,
}

struct Export<'a, W> {
    layers: &'a Layers,
    cancelled: &'a CancellationToken,
    packer: Packer<W>,
    links: Links,
}

impl<W: Write> Export<'_, W> {
    /// Write a folder's own entry, and list it.
    fn begin(&mut self, folder: Folder, names_bytes_max: usize) -> Result<Option<Level>, Failure> {
        let here = |e| (folder.path.clone(), e);
        if self.cancelled.is_cancelled() {
            return Err(here(gone()));
        }
        let open = self.layers.enter(&folder).map_err(here)?;
        let Some(top) = open.top() else { return Ok(None) };
        let looks = entry::folder(top, folder.path.clone()).map_err(here)?;
        self.packer.append(&looks, Data::none()).map_err(here)?;
        let names = open.names(None, names_bytes_max).map_err(here)?;
        Ok(Some(Level {
            folder,
            names,
            open: Some(open),
        }))
    }

    /// Write what is in a folder, up to the next folder in it, which is given.
    fn go_on(&mut self, level: &mut Level) -> Result<Option<Folder>, Failure> {
        let open = match level.open.take() {
            Some(open) => open,
            None => self
                .layers
                .enter(&level.folder)
                .map_err(|e| (level.folder.path.clone(), e))?,
        };
        for name in &mut level.names {
            let path = level.folder.join(&name)?;
            let here = |e| (path.clone(), e);
            let Some(found) = open.find(&name).map_err(here)? else {
                continue;
            };
            if FileType::from_raw_mode(found.status.st_mode) == FileType::Directory {
                let layers = found.layers;
                return Ok(Some(Folder { path, layers }));
            }
            let Some(mut object) = item(found.parent, &name, &path).map_err(here)? else {
                continue;
            };
            self.links.note(&mut object).map_err(here)?;
            let data = object.open(self.cancelled).map_err(here)?;
            self.packer.append(&object.entry, data).map_err(here)?;
        }
        Ok(None)
    }
}
