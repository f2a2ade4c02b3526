//! What the top layer of an overlay changes in the layers below it: for a diff, and as the layer of a commit.

use std::collections::BTreeSet;
use std::io;

use rustix::fs::{FileType, Stat};

use super::tree::Links;
use super::{Folder, Item, Layers, OpenFolder, entry, item};
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

/// Tell `visit` each change, in an order in which a tar can have them.
///
/// `mount_points` are the paths that the runtime makes in the top layer, to mount things on them: they are left out
/// where nothing else was done there.
pub(crate) fn changes(
    layers: &Layers,
    mount_points: &BTreeSet<Vec<u8>>,
    visit: &mut dyn FnMut(Change) -> io::Result<()>,
) -> Result<(), (Vec<u8>, io::Error)> {
    let mut walk = Walk {
        layers,
        mount_points,
        links: Links::default(),
        waiting: Vec::new(),
        visit,
    };
    let root = layers.root();
    let mut visits = vec![Visit {
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
    }];
    while let Some(next) = visits.pop() {
        let children = walk.folder(&next)?;
        visits.extend(children.into_iter().rev());
    }
    Ok(())
}

struct Walk<'a> {
    layers: &'a Layers,
    mount_points: &'a BTreeSet<Vec<u8>>,
    links: Links,
    /// Folders above that have not changed themselves: told when something in them has.
    waiting: Vec<(Vec<u8>, Option<Change>)>,
    visit: &'a mut dyn FnMut(Change) -> io::Result<()>,
}

type Failure = (Vec<u8>, io::Error);

impl Walk<'_> {
    /// Tell what has changed in one folder, and give its folders.
    fn folder(&mut self, at: &Visit) -> Result<Vec<Visit>, Failure> {
        let here = |e: io::Error| (at.folder.path.clone(), e);
        let open = self.layers.enter(&at.folder).map_err(here)?;
        let below = self.layers.enter(&at.below).map_err(here)?;
        let Some(top) = open.top() else {
            return Ok(Vec::new());
        };
        self.waiting.retain(|(path, _)| is_above(path, &at.folder.path));
        let looks = entry::folder(top, at.folder.path.clone()).map_err(here)?;
        // What an opaque folder above hides is not there before: an unpacked layer needs each folder named anew.
        let before = below
            .top()
            .filter(|_| !at.hidden)
            .map(|folder| entry::folder(folder, at.folder.path.clone()))
            .transpose()
            .map_err(here)?;
        let is_opaque = before.is_some() && open.is_opaque();
        let quiet = self.is_quiet(&at.folder.path, &looks, before.as_ref(), at.existed);
        let put = Change::Put {
            item: Item::of_folder(looks),
            existed: at.existed,
        };
        self.waiting.push((at.folder.path.clone(), Some(put)));
        if !quiet || is_opaque {
            self.flush().map_err(here)?;
        }
        if is_opaque {
            let path = at.folder.path.clone();
            (self.visit)(Change::Opaque { path }).map_err(here)?;
        }
        let hidden = at.hidden || is_opaque;
        self.contents(at, &open, &below, hidden)
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

    /// What the top layer has in this folder, and what it hides.
    fn contents(
        &mut self,
        at: &Visit,
        open: &OpenFolder,
        below: &OpenFolder,
        hidden: bool,
    ) -> Result<Vec<Visit>, Failure> {
        let here = |e: io::Error| (at.folder.path.clone(), e);
        let mut names = open.names().map_err(here)?;
        if hidden {
            // Only an opaque folder hides names without naming them.
            names.append(&mut below.names().map_err(here)?);
        }
        let mut folders = Vec::new();
        for name in names {
            let path = at.folder.join(&name);
            match self.name(&name, &path, open, below, hidden) {
                Ok(None) => {}
                Ok(Some(visit)) => folders.push(visit),
                Err(e) => return Err((path, e)),
            }
        }
        Ok(folders)
    }

    /// Tell what became of one name; a folder is given, to be visited later.
    fn name(
        &mut self,
        name: &[u8],
        path: &[u8],
        open: &OpenFolder,
        below: &OpenFolder,
        hidden: bool,
    ) -> io::Result<Option<Visit>> {
        let before = below.find(name)?;
        let existed = before.is_some();
        let Some(found) = open.find(name)? else {
            // What is neither there nor hidden has gone since the folder was listed.
            if existed && (hidden || open.has_whiteout(name)?) {
                self.flush()?;
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
            if is_mount_point && self.layers.enter(&folder)?.names()?.is_empty() {
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
        if let Some(mut item) = item(found.parent, name, path)? {
            self.links.note(&mut item);
            self.flush()?;
            (self.visit)(Change::Put { item, existed })?;
        }
        Ok(None)
    }

    /// Tell of the folders above what is told next.
    fn flush(&mut self) -> io::Result<()> {
        for (_, waiting) in &mut self.waiting {
            if let Some(change) = waiting.take() {
                (self.visit)(change)?;
            }
        }
        Ok(())
    }
}

fn is_above(ancestor: &[u8], path: &[u8]) -> bool {
    ancestor.is_empty()
        || path
            .strip_prefix(ancestor)
            .is_some_and(|rest| rest.starts_with(b"/"))
}

fn is_empty_file(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile && status.st_size == 0
}
