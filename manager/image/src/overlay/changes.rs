//! What the top layer of an overlay changes in the layers below it: for a diff, and as the layer of a commit.

use std::collections::BTreeSet;
use std::io;

use rustix::fs::{FileType, Stat};
use tokio_util::sync::CancellationToken;

use super::data::gone;
use super::links::Links;
use super::names::{NAMES_BYTES_MAX, Names};
use super::{Failure, Folder, Item, Layers, OpenFolder};
use crate::archive::Entry;

/// One difference. Parents come before what is in them.
pub(crate) enum Change {
    /// Is there now, and was not or was something else (`existed`), or has other looks or content.
    Put { item: Item, existed: bool },
    /// A folder hides all that was in it before. Comes after its `Put`.
    Opaque { path: Vec<u8> },
    /// Is not there any more. `hidden`: an opaque folder above it says so already.
    Deleted { path: Vec<u8>, hidden: bool },
}

/// A folder of the top layer on its way.
#[derive(Clone)]
struct Visit {
    /// In the top layer.
    folder: Folder,
    /// The same path in the layers below.
    below: Folder,
    /// Whether the layers below have anything there, a folder or not.
    existed: bool,
    /// A folder above is opaque: nothing of the layers below shows.
    hidden: bool,
}

/// A folder on the way down.
struct Level {
    /// Here, `hidden` is said of what is in the folder.
    at: Visit,
    names: Names,
    /// The folder in the top layer and in those below; not while the walk is further down, as there may be more levels
    /// than a process may have descriptors.
    open: Option<(OpenFolder, OpenFolder)>,
    /// It has not changed itself: told when something in it has.
    waiting: Option<Change>,
}

/// Tell `visit` each change, in an order in which a tar can have them: depth first, a folder before what is in it, and
/// the names in a folder sorted.
///
/// `mount_points` are the paths that the runtime makes in the top layer, to mount things on them: they are left out
/// where nothing else was done there.
pub(crate) fn changes(
    layers: &Layers,
    mount_points: &BTreeSet<Vec<u8>>,
    cancelled: &CancellationToken,
    visit: &mut dyn FnMut(Change) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut walk = Walk {
        layers,
        mount_points,
        cancelled,
        links: Links::default(),
        visit,
    };
    let root = layers.root();
    let first = Visit {
        folder: Folder {
            layers: vec![0],
            ..root.clone()
        },
        below: Folder {
            layers: root.layers[1..].to_vec(),
            ..root
        },
        existed: true,
        hidden: false,
    };
    let mut levels = Vec::new();
    walk.begin(&mut levels, first)?;
    while !levels.is_empty() {
        match walk.go_on(&mut levels)? {
            Some(visit) => walk.begin(&mut levels, visit)?,
            None => drop(levels.pop()),
        }
    }
    Ok(())
}

struct Walk<'a> {
    layers: &'a Layers,
    mount_points: &'a BTreeSet<Vec<u8>>,
    cancelled: &'a CancellationToken,
    links: Links,
    visit: &'a mut dyn FnMut(Change) -> io::Result<()>,
}

impl Walk<'_> {
    /// Tell what has changed in a folder's own looks, and list it. One that has gone meanwhile is left out.
    fn begin(&mut self, levels: &mut Vec<Level>, mut at: Visit) -> Result<(), Failure> {
        let path = at.folder.path.clone();
        let here = |e| (path.clone(), e);
        if self.cancelled.is_cancelled() {
            return Err(here(gone()));
        }
        let (open, below) = self.enter(&at).map_err(here)?;
        let Some(looks) = self.layers.looks(&open, &path).map_err(here)? else {
            return Ok(());
        };
        // What an opaque folder above hides is not there before: an unpacked layer needs each folder named anew.
        let before = if at.hidden {
            None
        } else {
            self.layers.looks(&below, &path).map_err(here)?
        };
        let is_opaque = before.is_some() && open.is_opaque();
        at.hidden |= is_opaque;
        let quiet = self.is_quiet(&path, &looks, before.as_ref(), at.existed);
        let waiting = Some(Change::Put {
            item: Item::of_folder(looks),
            existed: at.existed,
        });
        // Only an opaque folder hides names without naming them.
        let hides = at.hidden.then_some(&below);
        let held: usize = levels.iter().map(|level| level.names.bytes()).sum();
        let names = open.names(hides, NAMES_BYTES_MAX - held).map_err(here)?;
        levels.push(Level {
            at,
            names,
            open: Some((open, below)),
            waiting,
        });
        if !quiet || is_opaque {
            self.flush(levels).map_err(here)?;
        }
        if is_opaque {
            let path = path.clone();
            (self.visit)(Change::Opaque { path }).map_err(here)?;
        }
        Ok(())
    }

    /// Tell what has changed in the folder that was reached, up to the next folder in it, which is given.
    fn go_on(&mut self, levels: &mut [Level]) -> Result<Option<Visit>, Failure> {
        let Some(level) = levels.last_mut() else {
            return Ok(None);
        };
        let at = level.at.clone();
        let (open, below) = match level.open.take() {
            Some(open) => open,
            None => self.enter(&at).map_err(|e| (at.folder.path.clone(), e))?,
        };
        let mut names = std::mem::take(&mut level.names);
        for name in &mut names {
            let path = at.folder.join(&name)?;
            let next = self.name(levels, &name, &path, (&open, &below), at.hidden);
            if let Some(next) = next.map_err(|e| (path, e))? {
                if let Some(level) = levels.last_mut() {
                    level.names = names;
                }
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    fn enter(&self, at: &Visit) -> io::Result<(OpenFolder, OpenFolder)> {
        Ok((self.layers.enter(&at.folder)?, self.layers.enter(&at.below)?))
    }

    /// Whether a folder says nothing new by itself.
    fn is_quiet(&self, path: &[u8], now: &Entry, before: Option<&Entry>, existed: bool) -> bool {
        let holds_mount_points = || {
            let prefix = if path.is_empty() {
                Vec::new()
            } else {
                [path, b"/"].concat()
            };
            self.mount_points.iter().any(|mount| mount.starts_with(&prefix))
        };
        match before {
            Some(before) => {
                let same = (now.mode, now.uid, now.gid, &now.xattrs)
                    == (before.mode, before.uid, before.gid, &before.xattrs);
                // Making a mount point in it changes its time. Nor has the root any that were its image's.
                same && (now.modified == before.modified || path.is_empty() || holds_mount_points())
            }
            None => path.is_empty() || (!existed && holds_mount_points()),
        }
    }

    /// Tell what became of one name; a folder is given, to be visited later.
    fn name(
        &mut self,
        levels: &mut [Level],
        name: &[u8],
        path: &[u8],
        (open, below): (&OpenFolder, &OpenFolder),
        hidden: bool,
    ) -> io::Result<Option<Visit>> {
        let before = below.find(name)?;
        let existed = before.is_some();
        let Some(found) = open.find(name)? else {
            // What is neither there nor hidden has gone since the folder was listed.
            if existed && (hidden || open.has_whiteout(name)?) {
                self.flush(levels)?;
                let path = path.to_vec();
                (self.visit)(Change::Deleted { path, hidden })?;
            }
            return Ok(None);
        };
        let is_mount_point = !existed && self.mount_points.contains(path);
        if FileType::from_raw_mode(found.status.st_mode) == FileType::Directory {
            let folder = Folder {
                path: path.to_vec(),
                layers: found.layers,
            };
            if is_mount_point && self.layers.enter(&folder)?.is_empty()? {
                return Ok(None);
            }
            let below = Folder {
                path: path.to_vec(),
                layers: before.map(|before| before.layers).unwrap_or_default(),
            };
            return Ok(Some(Visit {
                folder,
                below,
                existed,
                hidden,
            }));
        }
        if is_mount_point && is_empty_file(&found.status) {
            return Ok(None);
        }
        if let Some(mut item) = self.layers.item(&found, name, path)? {
            self.links.note(&mut item)?;
            self.flush(levels)?;
            (self.visit)(Change::Put { item, existed })?;
        }
        Ok(None)
    }

    /// Tell of the folders above what is told next.
    fn flush(&mut self, levels: &mut [Level]) -> io::Result<()> {
        for level in levels {
            if let Some(change) = level.waiting.take() {
                (self.visit)(change)?;
            }
        }
        Ok(())
    }
}

fn is_empty_file(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && status.st_size == 0
}
