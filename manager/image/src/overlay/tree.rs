//! All that an overlay shows, one after the other: for the export of a container as a tar stream, and for copies of
//! single folders.

use std::io::{self, Write};

use rustix::fs::FileType;
use tokio_util::sync::CancellationToken;

use super::data::{Data, gone};
use super::links::Links;
use super::names::{NAMES_BYTES_MAX, Names};
use super::{Failure, Folder, Layers, OpenFolder, is_of_kernel};
use crate::archive::Entry;
use crate::pack::Packer;

/// Write the whole merged tree as a tar stream. Hard links are kept; what disappears meanwhile is left out.
pub(crate) fn export<W: Write>(
    layers: &Layers,
    cancelled: &CancellationToken,
    stream: W,
) -> Result<W, Failure> {
    let mut packer = Packer::new(stream);
    let mut put = |entry: &Entry, data: Data| packer.append(entry, data);
    walk(layers, layers.root(), cancelled, &mut put)?;
    packer.finish().map_err(|e| (Vec::new(), e))
}

/// Give all of a folder to `put`: itself, and what is in it, depth first, a folder before what is in it.
pub(crate) fn walk(
    layers: &Layers,
    from: Folder,
    cancelled: &CancellationToken,
    put: &mut dyn FnMut(&Entry, Data) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut walk = Walk {
        layers,
        cancelled,
        put,
        links: Links::default(),
    };
    let mut levels: Vec<Level> = Vec::from_iter(walk.begin(from, NAMES_BYTES_MAX)?);
    while let Some(level) = levels.last_mut() {
        if let Some(folder) = walk.go_on(level)? {
            let held: usize = levels.iter().map(|level| level.names.bytes()).sum();
            levels.extend(walk.begin(folder, NAMES_BYTES_MAX - held)?);
        } else {
            levels.pop();
        }
    }
    Ok(())
}

/// A folder on the way down.
struct Level {
    folder: Folder,
    names: Names,
    /// Not while the walk is further down: there may be more levels than a process may have descriptors.
    open: Option<OpenFolder>,
}

struct Walk<'a> {
    layers: &'a Layers,
    cancelled: &'a CancellationToken,
    put: &'a mut dyn FnMut(&Entry, Data) -> io::Result<()>,
    links: Links,
}

impl Walk<'_> {
    /// Give a folder's own entry, and list it.
    fn begin(&mut self, folder: Folder, names_bytes_max: usize) -> Result<Option<Level>, Failure> {
        let here = |e| (folder.path.clone(), e);
        if self.cancelled.is_cancelled() {
            return Err(here(gone()));
        }
        let open = self.layers.enter(&folder).map_err(here)?;
        let (Some(top), Some(looks)) = (open.top(), self.layers.looks(&open, &folder.path).map_err(here)?)
        else {
            return Ok(None);
        };
        (self.put)(&looks, Data::none()).map_err(here)?;
        let names = if self.layers.is_live && is_of_kernel(top) {
            Names::default()
        } else {
            open.names(None, names_bytes_max).map_err(here)?
        };
        Ok(Some(Level {
            folder,
            names,
            open: Some(open),
        }))
    }

    /// Give what is in a folder, up to the next folder in it, which is given.
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
            let Some(mut object) = self.layers.item(&found, &name, &path).map_err(here)? else {
                continue;
            };
            self.links.note(&mut object).map_err(here)?;
            let data = if self.layers.is_live {
                object.open_whole(self.cancelled)
            } else {
                object.open(self.cancelled)
            }
            .map_err(here)?;
            (self.put)(&object.entry, data).map_err(here)?;
        }
        Ok(None)
    }
}
