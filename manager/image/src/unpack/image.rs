//! The EROFS image that a layer becomes: names and looks in memory, content in the image's file as it comes.
//!
//! Whatever a file system does by itself when a folder is filled is done here in words, so that both sinks make the same
//! of a layer. What has no time of its own (folders that are implied, and whiteouts) has none of the clock's either: a
//! layer over the same layers is always the same image.

use std::collections::BTreeMap;
use std::io::{self, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::below::{self, Copies, Source};
use super::name::join;
use super::sink::Sink;
use super::tree::{COPY_BUFFER_BYTES, copy};
use super::{Failure, Problem, name, xattr};
use crate::archive::{Entry, Kind};
use crate::erofs::{Acl, Content, Folder, Id, LeadsOut, Looks, ROOT, Tree, What, Xattrs, write};

#[derive(Debug)]
pub(crate) struct Image {
    tree: Tree,
    content: Content,
    /// Files of lower layers that hard links of this one have brought up.
    borrowed: BTreeMap<Id, Borrowed>,
    buffer: Vec<u8>,
}

/// A file of a lower layer. Until its content is copied it is an empty one.
#[derive(Debug)]
struct Borrowed {
    target: Vec<u8>,
    /// The first that is linked to it.
    link: Vec<u8>,
}

fn system(action: &'static str) -> impl Fn(io::Error) -> Problem {
    move |e| Problem::System(action, e)
}

impl From<LeadsOut> for Problem {
    fn from(_: LeadsOut) -> Problem {
        Problem::Rule(name::LEADS_OUT.into())
    }
}

impl Image {
    /// Make the file `place`. The tree may take so many bytes of memory.
    pub(super) fn create(place: &Path, tree_bytes_max: usize) -> io::Result<Image> {
        Ok(Image {
            tree: Tree::new(tree_bytes_max),
            content: Content::create(place)?,
            borrowed: BTreeMap::new(),
            buffer: vec![0; COPY_BUFFER_BYTES],
        })
    }

    /// Complete it from the layers below, top layer first, and write what is not written yet. Returns the bytes of the
    /// files copied; see [`super::adopt`] for the rules.
    pub(super) fn adopt(mut self, below: &[OwnedFd], bytes_max: u64, uuid: [u8; 16]) -> Result<u64, Failure> {
        let mut copies = Copies::new(bytes_max);
        for (id, file) in std::mem::take(&mut self.borrowed) {
            self.fill(id, &file, below, &mut copies)?;
        }
        // A folder before what is in it.
        let mut folders = vec![(ROOT, Vec::new())];
        while let Some((id, path)) = folders.pop() {
            self.adopt_folder(id, &path, below)
                .map_err(|problem| problem.named(&path))?;
            folders.extend(self.complete_names(id, &path, below)?);
        }
        let written = write(self.tree, self.content, uuid).map_err(system("write the image of"));
        written.map_err(|problem| problem.named(b"/"))?;
        Ok(copies.bytes)
    }

    /// Take away whiteouts that hide nothing, and give the folders of a folder.
    fn complete_names(
        &mut self,
        id: Id,
        path: &[u8],
        below: &[OwnedFd],
    ) -> Result<Vec<(Id, Vec<u8>)>, Failure> {
        let (mut folders, mut idle) = (Vec::new(), Vec::new());
        for (name, child) in self.tree.folder(id).into_iter().flat_map(|folder| &folder.names) {
            let inode = self.tree.get(*child);
            if let What::Folder(_) = inode.what {
                folders.push((*child, join(path, name)));
            } else if inode.is_whiteout() && !self.hides_something(&join(path, name), below)? {
                idle.push(name.clone());
            }
        }
        for name in idle {
            self.tree.remove(id, &name);
        }
        Ok(folders)
    }

    fn hides_something(&self, path: &[u8], below: &[OwnedFd]) -> Result<bool, Failure> {
        if self.is_hidden(path) {
            return Ok(false);
        }
        let found = below::find_file(below, path);
        let found = found.map_err(below::system(path, "look at what is hidden by"))?;
        Ok(found.is_some())
    }

    /// Whether a folder above a path hides what the layers below have there.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let (parents, _) = name::split(path);
        let mut at = ROOT;
        for name in parents.split(|b| *b == b'/') {
            match self.tree.find(at, name) {
                Some(id) if self.tree.folder(id).is_some() => at = id,
                _ => return false,
            }
            if self.tree.xattrs(at).is_opaque() {
                return true;
            }
        }
        false
    }

    fn adopt_folder(&mut self, id: Id, path: &[u8], below: &[OwnedFd]) -> Result<(), Problem> {
        let is_implied = self.tree.folder(id).is_some_and(|folder| folder.is_implied);
        if !is_implied || self.is_hidden(path) {
            return Ok(());
        }
        let model = below::find_folder(below, path).map_err(system("copy the attributes of"))?;
        match model {
            Some(model) => self.copy_looks(&model, id),
            None => Ok(()),
        }
    }

    fn copy_looks(&mut self, model: &OwnedFd, id: Id) -> Result<(), Problem> {
        let failed = system("copy the attributes of");
        let status = rustix::fs::fstat(model).map_err(|e| failed(e.into()))?;
        let mut xattrs = self.tree.xattrs(id).clone();
        for (name, value) in xattr::read(model.as_fd()).map_err(failed)? {
            xattrs.set(&name, &value);
        }
        self.tree.get_mut(id).looks = Looks {
            modified: below::modified(&status),
            uid: status.st_uid,
            gid: status.st_gid,
            mode: (status.st_mode & 0o7777) as u16,
            ..Looks::default()
        };
        Ok(self.tree.set_xattrs(id, xattrs)?)
    }

    /// Make the empty file that stands for a lower layer's a copy of it.
    fn fill(
        &mut self,
        id: Id,
        file: &Borrowed,
        below: &[OwnedFd],
        copies: &mut Copies<Id>,
    ) -> Result<(), Failure> {
        if self.tree.get(id).links == 0 {
            // Later entries have replaced all its names.
            return Ok(());
        }
        let hidden = self.is_hidden(&file.target);
        let (model, status) = match copies.find(&file.link, &file.target, hidden, below)? {
            Source::Copied(copy) => {
                self.tree.merge(id, copy);
                return Ok(());
            }
            Source::Below(model, status) => (model, status),
        };
        let size = below::size_of(&status);
        let failed = below::system(&file.link, "copy the link target of");
        let begin = self.content.offset();
        below::copy_data(&model, self.content.writer(), begin, size).map_err(&failed)?;
        let block = self.content.end_file(size, true).map_err(failed)?;
        self.tree.get_mut(id).what = What::File { block, size };
        self.copy_looks(&model.into(), id)
            .map_err(|problem| problem.named(&file.link))?;
        copies.made.insert(below::identity(&status), id);
        Ok(())
    }

    /// The folder at a path; it and its parents are made where the archive had no entry for them.
    fn folder(&mut self, path: &[&[u8]]) -> Result<Id, Problem> {
        if let Some(folder) = self.tree.walk(path)? {
            return Ok(folder);
        }
        let Some((name, parents)) = path.split_last() else {
            return Ok(ROOT);
        };
        let parent = self.folder(parents)?;
        match self.tree.find(parent, name).map(|id| self.tree.get(id)) {
            Some(inode) if matches!(inode.what, What::Symlink(_)) => Err(LeadsOut.into()),
            Some(inode) if !inode.is_whiteout() => {
                Err(name::not_a_folder(&join(&self.tree.path_of(parent), name)).into())
            }
            _ => self.make_folder(parent, name),
        }
    }

    /// Make a folder, or keep the one that is there. One that takes the place of something else hides what lies below,
    /// as that did.
    fn make_folder(&mut self, parent: Id, name: &[u8]) -> Result<Id, Problem> {
        let before = self.tree.find(parent, name);
        if let Some(id) = before
            && self.tree.folder(id).is_some()
        {
            return Ok(id);
        }
        let takes_a_place = before.is_some();
        self.tree.remove(parent, name);
        let above = &self.tree.get(parent).looks;
        let looks = Looks {
            mode: 0o755,
            // As in a folder whose group is handed down (setgid).
            gid: if above.mode & 0o2000 == 0 { 0 } else { above.gid },
            ..Looks::default()
        };
        let folder = Folder::new(parent, name, !takes_a_place);
        let id = self
            .tree
            .add(parent, name, looks, What::Folder(Box::new(folder)))?;
        if takes_a_place {
            self.set_opaque(id)?;
        }
        Ok(id)
    }

    fn set_opaque(&mut self, id: Id) -> Result<(), Problem> {
        let mut xattrs = self.tree.xattrs(id).clone();
        xattrs.set_opaque();
        Ok(self.tree.set_xattrs(id, xattrs)?)
    }

    /// The parent and the name of an entry that is to be made.
    fn place<'p>(&mut self, path: &[&'p [u8]]) -> Result<(Id, &'p [u8]), Problem> {
        let (name, parents) = path
            .split_last()
            .ok_or_else(|| Problem::Rule("it has no name".into()))?;
        Ok((self.folder(parents)?, name))
    }

    /// Make an entry in the place of an earlier one.
    fn make(&mut self, path: &[&[u8]], entry: &Entry, what: What) -> Result<(), Problem> {
        let (parent, name) = self.place(path)?;
        self.tree.remove(parent, name);
        let (looks, xattrs) = dress(entry, Xattrs::default())?;
        let id = self.tree.add(parent, name, looks, what)?;
        Ok(self.tree.set_xattrs(id, xattrs)?)
    }

    /// Bring a file of a layer below up into this one, as overlayfs does when a link to it is made. The layers below
    /// may not be there yet: for now the file is an empty one.
    fn borrow(&mut self, target: &[&[u8]], link: &[&[u8]]) -> Result<Id, Problem> {
        let (parent, name) = self.place(target)?;
        let empty = What::File { block: 0, size: 0 };
        let id = self.tree.add(parent, name, Looks::default(), empty)?;
        let file = Borrowed {
            target: join(&self.tree.path_of(parent), name),
            link: link.join(&b'/'),
        };
        self.tree.charge(file.target.len() + file.link.len())?;
        self.borrowed.insert(id, file);
        Ok(id)
    }
}

impl Sink for Image {
    fn directory(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        let id = match path.split_last() {
            None => ROOT,
            Some((name, parents)) => {
                let parent = self.folder(parents)?;
                self.make_folder(parent, name)?
            }
        };
        let mut before = self.tree.xattrs(id).clone();
        before.take_default_acl();
        let (looks, xattrs) = dress(entry, before)?;
        self.tree.get_mut(id).looks = looks;
        if let Some(folder) = self.tree.folder_mut(id) {
            folder.is_implied = false;
        }
        Ok(self.tree.set_xattrs(id, xattrs)?)
    }

    fn file(
        &mut self,
        path: &[&[u8]],
        entry: &Entry,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<(), Problem> {
        let begin = self.content.offset();
        let writer = self.content.writer();
        let size = match &entry.extents {
            None => copy(&mut read, writer, &mut self.buffer, u64::MAX)?,
            Some(extents) => {
                for extent in extents {
                    let start = io::SeekFrom::Start(begin + extent.offset);
                    writer.seek(start).map_err(system("write"))?;
                    copy(&mut read, writer, &mut self.buffer, extent.length)?;
                }
                entry.size
            }
        };
        let ended = self.content.end_file(size, entry.extents.is_some());
        let block = ended.map_err(system("write"))?;
        self.make(path, entry, What::File { block, size })
    }

    fn symlink(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        self.make(path, entry, What::Symlink(entry.link.as_slice().into()))
    }

    fn node(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        let (major, minor) = entry.device;
        let what = match entry.kind {
            Kind::CharDevice => What::CharDevice(major, minor),
            Kind::BlockDevice => What::BlockDevice(major, minor),
            _ => What::Fifo,
        };
        self.make(path, entry, what)
    }

    fn hard_link(&mut self, path: &[&[u8]], target: &[&[u8]]) -> Result<(), Problem> {
        let Some((target_name, target_parents)) = target.split_last() else {
            return Err(name::no_link_target(target, "is the layer's root").into());
        };
        let from = self.tree.walk(target_parents)?;
        let found = from.and_then(|from| self.tree.find(from, target_name));
        let id = match found.map(|id| (id, self.tree.get(id))) {
            Some((_, inode)) if inode.is_whiteout() => {
                return Err(name::no_link_target(target, "is hidden by a whiteout").into());
            }
            Some((_, inode)) if matches!(inode.what, What::Folder(_)) => {
                return Err(name::no_link_target(target, "is a folder").into());
            }
            Some((id, _)) => id,
            None => self.borrow(target, path)?,
        };
        let (parent, name) = self.place(path)?;
        self.tree.remove(parent, name);
        if self.tree.get(id).links == 0 {
            // It took the place of its own target.
            return Err(Problem::System("make", io::ErrorKind::NotFound.into()));
        }
        Ok(self.tree.link(parent, name, id)?)
    }

    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<(), Problem> {
        let parent = self.folder(parents)?;
        let found = self.tree.find(parent, name);
        match found {
            Some(id) if self.tree.folder(id).is_some() => return self.set_opaque(id),
            // What a link has brought up is still the lower layer's.
            Some(id) if self.borrowed.contains_key(&id) => self.tree.remove(parent, name),
            Some(_) => return Ok(()),
            None => {}
        }
        self.tree
            .add(parent, name, Looks::default(), What::CharDevice(0, 0))?;
        Ok(())
    }

    fn opaque(&mut self, path: &[&[u8]]) -> Result<(), Problem> {
        let folder = self.folder(path)?;
        self.set_opaque(folder)
    }

    fn remove_from_root(&mut self, name: &[u8]) -> Result<(), Problem> {
        self.tree.remove(ROOT, name);
        Ok(())
    }
}

/// The looks of an entry, and its attributes on top of those that were there, as Linux has them on what it is.
fn dress(entry: &Entry, mut xattrs: Xattrs) -> Result<(Looks, Xattrs), String> {
    let is_folder = entry.kind == Kind::Directory;
    for (name, value) in &entry.xattrs {
        // On other kinds Linux has none of these; some writers put them on every entry.
        let is_possible = match name.as_slice() {
            xattr::DEFAULT_ACL => is_folder,
            name if name.starts_with(b"user.") => is_folder || entry.kind == Kind::File,
            name if name.starts_with(b"system.") => entry.kind != Kind::Symlink,
            _ => true,
        };
        if is_possible {
            xattr::check_value(name, value)?;
            xattrs.set(name, value);
        }
    }
    let mut mode = match entry.kind {
        Kind::Symlink => 0o777,
        _ => entry.mode as u16,
    };
    if let Some(acl) = xattrs.take_default_acl()
        && let Some(acl) = Acl::parse(&acl)?
    {
        xattrs.set(xattr::DEFAULT_ACL, &acl.encode());
    }
    if let Some(acl) = xattrs.take_access_acl()
        && let Some(acl) = Acl::parse(&acl)?
    {
        // What comes later counts: of a folder the mode, of others the list.
        let acl = if is_folder { acl.with_mode(mode) } else { acl };
        mode = acl.apply_to(mode);
        if !acl.is_mode() {
            xattrs.set(xattr::ACCESS_ACL, &acl.encode());
        }
    }
    let looks = Looks {
        modified: entry.modified,
        uid: entry.uid,
        gid: entry.gid,
        mode,
        ..Looks::default()
    };
    Ok((looks, xattrs))
}
