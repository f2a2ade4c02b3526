//! The names and looks of a layer in memory, until they are written behind the content.
//!
//! An entry takes some 150 bytes and its name: 72 for the inode, as much again at most for room to grow, the rest for
//! its place in its folder. Those of a layer of 100,000 files are 15 MB.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::FileType;

use super::xattr::{Sets, Xattrs};
use crate::archive::Time;

/// What an entry counts for against the bound of a tree, beside its name.
const ENTRY_BYTES: usize = 160;
/// As many links may be followed in one look-up as the kernel follows (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// What all trees of this process may take together: the layers of an image wait for those below them.
const ALL_BYTES_MAX: usize = 1 << 30;
static ALL_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The number of an inode.
pub(crate) type Id = u32;
pub(crate) const ROOT: Id = 0;

/// Owner, mode, time and attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Looks {
    pub(crate) modified: Time,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// See [`Tree::set_xattrs`].
    pub(crate) xattrs: u32,
    /// Without the file type.
    pub(crate) mode: u16,
}

/// What an inode is, and what only that has.
#[derive(Debug)]
pub(crate) enum What {
    Folder(Box<Folder>),
    File {
        block: u32,
        size: u64,
    },
    Symlink(Box<[u8]>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    /// All its names are names of another one.
    Same(Id),
}

#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) names: BTreeMap<Box<[u8]>, Id>,
    pub(crate) parent: Id,
    /// In its parent.
    name: Box<[u8]>,
    /// The archive has no entry for it.
    pub(crate) is_implied: bool,
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) looks: Looks,
    pub(crate) what: What,
    /// How many names it has.
    pub(crate) links: u32,
    /// Where it is written, and where its blocks are; see [`super::write()`].
    pub(super) slot: u32,
    pub(super) block: u32,
    pub(super) is_inline: bool,
}

#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    xattrs: Sets,
    bytes: usize,
    bytes_max: usize,
}

/// A link on the way leads out of the layer, or there are too many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeadsOut;

impl Inode {
    pub(crate) fn kind(&self) -> FileType {
        match self.what {
            What::Folder(_) => FileType::Directory,
            What::File { .. } => FileType::RegularFile,
            What::Symlink(_) => FileType::Symlink,
            What::CharDevice(..) => FileType::CharacterDevice,
            What::BlockDevice(..) => FileType::BlockDevice,
            What::Fifo => FileType::Fifo,
            What::Same(_) => FileType::Unknown,
        }
    }

    pub(crate) fn is_whiteout(&self) -> bool {
        matches!(self.what, What::CharDevice(0, 0))
    }
}

impl Tree {
    /// A root without an entry. All may take so many bytes of memory.
    pub(crate) fn new(bytes_max: usize) -> Tree {
        let mut tree = Tree {
            inodes: Vec::new(),
            xattrs: Sets::new(),
            bytes: 0,
            bytes_max,
        };
        tree.inodes.push(Inode {
            looks: Looks {
                mode: 0o755,
                ..Looks::default()
            },
            what: What::Folder(Box::new(Folder::new(ROOT, b"", true))),
            links: 1,
            slot: 0,
            block: 0,
            is_inline: false,
        });
        tree
    }

    pub(crate) fn get(&self, id: Id) -> &Inode {
        &self.inodes[id as usize]
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> &mut Inode {
        &mut self.inodes[id as usize]
    }

    pub(crate) fn folder(&self, id: Id) -> Option<&Folder> {
        match &self.get(id).what {
            What::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    pub(crate) fn folder_mut(&mut self, id: Id) -> Option<&mut Folder> {
        match &mut self.get_mut(id).what {
            What::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// What is called `name` in a folder.
    pub(crate) fn find(&self, folder: Id, name: &[u8]) -> Option<Id> {
        self.folder(folder)?.names.get(name).copied()
    }

    pub(crate) fn xattrs(&self, id: Id) -> &Xattrs {
        self.xattrs.get(self.get(id).looks.xattrs)
    }

    pub(crate) fn set_xattrs(&mut self, id: Id, xattrs: Xattrs) -> Result<(), String> {
        let (number, bytes) = self.xattrs.number(xattrs);
        self.charge(bytes)?;
        self.get_mut(id).looks.xattrs = number;
        Ok(())
    }

    /// Make an inode with one name, which must be free.
    pub(crate) fn add(&mut self, folder: Id, name: &[u8], looks: Looks, what: What) -> Result<Id, String> {
        let link_bytes = match &what {
            What::Symlink(target) => target.len(),
            _ => 0,
        };
        self.charge(ENTRY_BYTES + link_bytes)?;
        let id = self.inodes.len() as Id;
        self.inodes.push(Inode {
            looks,
            what,
            links: 0,
            slot: 0,
            block: 0,
            is_inline: false,
        });
        self.link(folder, name, id)?;
        Ok(id)
    }

    /// Give an inode a name, which must be free.
    pub(crate) fn link(&mut self, folder: Id, name: &[u8], id: Id) -> Result<(), String> {
        self.charge(ENTRY_BYTES / 2 + name.len())?;
        self.get_mut(id).links += 1;
        if let Some(folder) = self.folder_mut(folder) {
            folder.names.insert(name.into(), id);
        }
        Ok(())
    }

    /// Take a name away, and all that is beneath it.
    pub(crate) fn remove(&mut self, folder: Id, name: &[u8]) {
        let removed = self
            .folder_mut(folder)
            .and_then(|folder| folder.names.remove(name));
        let mut left: Vec<Id> = removed.into_iter().collect();
        while let Some(id) = left.pop() {
            let inode = self.get_mut(id);
            inode.links -= 1;
            if let What::Folder(folder) = &mut inode.what {
                left.extend(std::mem::take(&mut folder.names).into_values());
            }
        }
    }

    /// The folder at a path, through such links as stay in the layer; the last component is followed, too.
    pub(crate) fn walk(&self, path: &[&[u8]]) -> Result<Option<Id>, LeadsOut> {
        let mut at = ROOT;
        let mut left: Vec<&[u8]> = path.iter().rev().copied().collect();
        let mut links = 0;
        while let Some(name) = left.pop() {
            let Some(folder) = self.folder(at) else {
                return Ok(None);
            };
            match name {
                b"" | b"." => continue,
                b".." if at == ROOT => return Err(LeadsOut),
                b".." => {
                    at = folder.parent;
                    continue;
                }
                _ => {}
            }
            let Some(next) = folder.names.get(name) else {
                return Ok(None);
            };
            match &self.get(*next).what {
                What::Folder(_) => at = *next,
                What::Symlink(target) => {
                    links += 1;
                    if links > LINKS_MAX || target.starts_with(b"/") {
                        return Err(LeadsOut);
                    }
                    left.extend(target.split(|b| *b == b'/').rev());
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Where in the layer a folder is, from its root.
    pub(crate) fn path_of(&self, folder: Id) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = folder;
        while at != ROOT
            && let Some(folder) = self.folder(at)
        {
            names.push(&folder.name);
            at = folder.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Make all names of an inode names of `other`.
    pub(crate) fn merge(&mut self, id: Id, other: Id) {
        let links = self.get(id).links;
        self.get_mut(id).what = What::Same(other);
        self.get_mut(other).links += links;
    }

    /// The inode that stands for this one.
    pub(super) fn resolve(&self, mut id: Id) -> Id {
        while let What::Same(other) = self.get(id).what {
            id = other;
        }
        id
    }

    pub(super) fn count(&self) -> usize {
        self.inodes.len()
    }

    /// Count memory that is taken for the tree.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes;
        let all = ALL_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (max, of) = match self.bytes {
            own if own > self.bytes_max => (self.bytes_max, "the layer"),
            _ if all > ALL_BYTES_MAX => (ALL_BYTES_MAX, "all layers in the making"),
            _ => return Ok(()),
        };
        Err(format!(
            "the names and attributes of {of} take more than {max} bytes of memory"
        ))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        ALL_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Folder {
    pub(crate) fn new(parent: Id, name: &[u8], is_implied: bool) -> Folder {
        Folder {
            names: BTreeMap::new(),
            parent,
            name: name.into(),
            is_implied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(parent: Id) -> What {
        What::Folder(Box::new(Folder::new(parent, b"", false)))
    }

    #[test]
    fn an_inode_takes_as_much_memory_as_is_said() {
        assert_eq!(size_of::<Inode>(), 72);
    }

    #[test]
    fn links_are_followed_inside_and_never_out() {
        let mut tree = Tree::new(1 << 20);
        let looks = Looks::default();
        let a = tree.add(ROOT, b"a", looks, folder(ROOT)).unwrap();
        let b = tree.add(a, b"b", looks, folder(a)).unwrap();
        for (name, target) in [
            ("in", "../a/./b"),
            ("out", "../../a"),
            ("root", "/a"),
            ("loop", "loop"),
            ("gone", "x"),
        ] {
            tree.add(a, name.as_bytes(), looks, What::Symlink(target.as_bytes().into()))
                .unwrap();
        }
        let walk = |path: &str| tree.walk(&path.split('/').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(walk("a/in"), Ok(Some(b)));
        assert_eq!(walk("a/in/../b"), Ok(Some(b)));
        for path in ["a/out", "a/root", "a/loop"] {
            assert_eq!(walk(path), Err(LeadsOut), "{path}");
        }
        assert_eq!(walk("a/gone"), Ok(None));
    }

    #[test]
    fn what_is_removed_has_no_names_left() {
        let mut tree = Tree::new(1 << 20);
        let looks = Looks::default();
        let a = tree.add(ROOT, b"a", looks, folder(ROOT)).unwrap();
        let file = tree
            .add(a, b"f", looks, What::File { block: 1, size: 1 })
            .unwrap();
        tree.link(ROOT, b"g", file).unwrap();
        tree.remove(ROOT, b"a");
        assert_eq!((tree.get(a).links, tree.get(file).links), (0, 1));
        assert_eq!(tree.find(ROOT, b"g"), Some(file));
    }

    #[test]
    fn memory_is_bounded() {
        let mut tree = Tree::new(1000);
        let looks = Looks::default();
        let mut add = |name: &str| tree.add(ROOT, name.as_bytes(), looks, What::Fifo);
        add("a").unwrap();
        assert!((0..10).any(|n| add(&n.to_string()).is_err()));
    }
}
