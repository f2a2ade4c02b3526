//! One layer's tar into one folder or image that an overlay mount can use as a lower layer.
//!
//! The order of an entry's life: its name is checked, its parent is opened beneath the layer's root, what stood in
//! its place goes, it is made, and then owner, xattrs, mode and time follow in the order that keeps them. Times of
//! folders come last. What is written never leaves the root: see [`tree`].

mod adopt;
mod below;
mod copy;
mod image;
mod later;
mod lazy;
mod name;
mod sink;
mod tally;
mod tree;
mod xattr;

pub use adopt::copy_looks;
pub(crate) use adopt::undated;
pub(crate) use below::modified;
pub(crate) use copy::Copy;
pub(crate) use name::{components, join, split};
pub(crate) use tally::Tally;
pub(crate) use tree::{beneath, is_whiteout, times};

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use crate::archive::{Archive, Entry, Failure as ArchiveFailure, Kind};
use image::Image;
use lazy::Lazy;
use name::Role;
use sink::Sink;
use tree::Tree;

/// The most that one layer may have.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Headers in the archive, extensions included.
    pub(crate) entries: u64,
    /// Bytes of all files together.
    pub(crate) content_bytes: u64,
    /// Bytes that the layer may inflate to whatever its own size, …
    pub(crate) inflated_free_bytes: u64,
    /// … and how many times its own size beyond them. More is a bomb: gzip can reach 1000, zstd 20,000.
    pub(crate) inflation_ratio: u64,
    /// Bytes of all extended attributes of one entry.
    pub(crate) xattr_bytes: usize,
    /// Bytes of memory for what is remembered to the layer's end: whiteouts, links to layers below, and folders that
    /// have no entry, of which an entry of some hundred bytes can imply hundreds.
    pub(crate) remembered_bytes: usize,
    /// Bytes of memory that all names, links and attributes take while an EROFS image is made: those of two to three
    /// million entries.
    pub(crate) tree_bytes: usize,
}

impl Limits {
    /// Refuse what inflates too far for the compressed bytes that it took.
    pub(crate) fn check_ratio(&self, inflated: u64, packed: u64) -> Result<(), String> {
        let ratio = self.inflation_ratio;
        if inflated > self.inflated_free_bytes && inflated / ratio > packed {
            return Err(format!(
                "it inflates to more than {ratio} times its own size: this is a decompression bomb"
            ));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4_000_000,
            content_bytes: 256 << 30,
            inflated_free_bytes: 2 << 30,
            inflation_ratio: 200,
            xattr_bytes: 64 << 10,
            remembered_bytes: 12 << 20,
            tree_bytes: 512 << 20,
        }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The archive or an entry breaks a rule.
    Rule { entry: Option<Vec<u8>>, rule: String },
    /// The kernel refused.
    System {
        entry: Vec<u8>,
        action: &'static str,
        source: std::io::Error,
    },
    /// The stream below failed; whoever feeds it knows why.
    Read(std::io::Error),
}

impl From<ArchiveFailure> for Failure {
    fn from(failure: ArchiveFailure) -> Failure {
        match failure {
            ArchiveFailure::Rule(entry, rule) => Failure::Rule { entry, rule },
            ArchiveFailure::Read(e) => Failure::Read(e),
        }
    }
}

/// What a layer needs of those below it: see [`adopt`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Implied {
    /// Folders that the archive has files in but no entry for. They take their looks from the layers below.
    folders: Vec<Vec<u8>>,
    /// Files that it has only hard links to. They are copies of the files of the layers below.
    files: Vec<Borrowed>,
    /// Whiteouts. They stay where there is something to hide.
    whiteouts: Vec<Vec<u8>>,
}

impl Implied {
    /// Where in the layers below lies what this layer has at `path`; `None` if it is its own.
    pub(crate) fn source_of<'a>(&'a self, path: &'a [u8]) -> Option<&'a [u8]> {
        let of_links = self
            .files
            .iter()
            .find(|file| file.names.iter().any(|name| name == path));
        let is_here = |paths: &[Vec<u8>]| paths.iter().any(|other| other == path);
        of_links
            .map(|file| file.target.as_slice())
            .or_else(|| (is_here(&self.folders) || is_here(&self.whiteouts)).then_some(path))
    }
}

/// A file of a lower layer, wanted by hard links.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Borrowed {
    target: Vec<u8>,
    inode: u64,
    /// Where it was made or linked to; later entries may have replaced some.
    names: Vec<Vec<u8>>,
}

/// Set attributes on an open file or folder.
pub(crate) fn set_xattrs(object: BorrowedFd<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> std::io::Result<()> {
    xattr::set_open(object, xattrs).map_err(|problem| match problem {
        Problem::System(_, error) | Problem::Read(error) => error,
        Problem::Rule(rule) => std::io::Error::other(rule),
    })
}

/// What a layer is kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    #[default]
    Folder,
    /// An EROFS image in a file.
    Erofs,
}

/// A layer that was unpacked, and is not complete yet.
#[derive(Debug)]
pub(crate) struct Unpacked {
    rest: Rest,
    /// Of all files together; those that a hard link names again count once.
    pub(crate) content_bytes: u64,
}

#[derive(Debug)]
enum Rest {
    Folder(Implied),
    Erofs(Box<Image>),
}

/// Unpack `stream`, to its last byte, into the empty folder `place`, or into a file that is made there.
pub(crate) fn unpack(
    stream: impl Read,
    place: &Path,
    form: Form,
    limits: &Limits,
) -> Result<Unpacked, Failure> {
    let failed = |action| {
        move |source| Failure::System {
            entry: b"/".to_vec(),
            action,
            source,
        }
    };
    match form {
        Form::Folder => {
            let opened = Tree::open(place, limits.remembered_bytes);
            let mut tree = opened.map_err(failed("open the layer's root"))?;
            let content_bytes = fill(stream, &mut tree, limits)?;
            Ok(Unpacked {
                rest: Rest::Folder(tree.finish()?),
                content_bytes,
            })
        }
        Form::Erofs => {
            let created = Image::create(place, limits.tree_bytes);
            let mut image = created.map_err(failed("make the image of"))?;
            let content_bytes = fill(stream, &mut image, limits)?;
            Ok(Unpacked {
                rest: Rest::Erofs(Box::new(image)),
                content_bytes,
            })
        }
    }
}

impl Unpacked {
    /// What a folder needs of the layers below.
    pub(crate) fn implied(&self) -> Option<&Implied> {
        match &self.rest {
            Rest::Folder(implied) => Some(implied),
            Rest::Erofs(_) => None,
        }
    }

    /// Complete the layer at `place` from the layers below, top layer first. Returns the bytes of its files, which may
    /// be `bytes_max` at most: an entry of no size can name a file of any. `uuid` is for an image.
    pub(crate) fn adopt(
        self,
        place: &Path,
        below: &[OwnedFd],
        bytes_max: u64,
        uuid: [u8; 16],
    ) -> Result<u64, Failure> {
        let bytes_max = bytes_max.saturating_sub(self.content_bytes);
        let copied = match self.rest {
            Rest::Folder(implied) => adopt::adopt(place, &implied, below, bytes_max)?,
            Rest::Erofs(image) => image.adopt(below, bytes_max, uuid)?,
        };
        Ok(self.content_bytes + copied)
    }
}

/// Put all entries of a stream into a sink, and tell how many bytes the files have.
fn fill(stream: impl Read, sink: &mut impl Sink, limits: &Limits) -> Result<u64, Failure> {
    let mut archive = Archive::new(stream, limits.entries);
    let mut tally = Tally::new(limits);
    let mut lazy = Lazy::default();
    while let Some(entry) = archive.next()? {
        let named = |problem: Problem| problem.named(&entry.path);
        tally.add(&entry).map_err(|rule| named(Problem::Rule(rule)))?;
        lazy.see(&entry);
        place(sink, &mut archive, &entry).map_err(named)?;
    }
    archive.drain().map_err(Failure::Read)?;
    lazy.remove_marks(sink)?;
    Ok(tally.content_bytes)
}

fn place<R: Read>(sink: &mut impl Sink, archive: &mut Archive<R>, entry: &Entry) -> Result<(), Problem> {
    let path = name::components(&entry.path)?;
    match name::role(&path)? {
        Role::Skipped => Ok(()),
        // aufs, where the format comes from, made its marks as hard links of one file.
        _ if name::is_mark(&path) && !matches!(entry.kind, Kind::File | Kind::HardLink) => {
            Err(Problem::Rule("a whiteout has to be a regular file".into()))
        }
        Role::Whiteout(hidden) => sink.whiteout(&path[..path.len() - 1], hidden),
        Role::Opaque => sink.opaque(&path[..path.len() - 1]),
        Role::Entry => match entry.kind {
            Kind::Directory => sink.directory(&path, entry),
            _ if path.is_empty() => Err(Problem::Rule("the layer's root can only be a directory".into())),
            Kind::File => sink.file(&path, entry, |buffer| archive.read_data(buffer)),
            Kind::HardLink => {
                let target = name::components(&entry.link)?;
                if path == target {
                    return Err(Problem::Rule("it is a hard link to itself".into()));
                }
                sink.hard_link(&path, &target)
            }
            Kind::Symlink => {
                name::check_symlink(&path, &entry.link)?;
                sink.symlink(&path, entry)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                check_device(entry)?;
                sink.node(&path, entry)
            }
        },
    }
}

fn check_device(entry: &Entry) -> Result<(), String> {
    // This is what overlayfs takes for a whiteout.
    if entry.kind == Kind::CharDevice && entry.device == (0, 0) {
        return Err("character device 0:0 is overlayfs's mark of a whiteout".into());
    }
    if entry.device.0 >= 1 << 12 || entry.device.1 >= 1 << 20 {
        return Err("its device number is larger than Linux has".into());
    }
    Ok(())
}

/// A failure that does not know its entry yet.
#[derive(Debug)]
enum Problem {
    Rule(String),
    System(&'static str, std::io::Error),
    Read(std::io::Error),
}

impl Problem {
    fn named(self, entry: &[u8]) -> Failure {
        match self {
            Problem::Rule(rule) => Failure::Rule {
                entry: Some(entry.to_vec()),
                rule,
            },
            Problem::System(action, source) => Failure::System {
                entry: entry.to_vec(),
                action,
                source,
            },
            Problem::Read(e) => Failure::Read(e),
        }
    }
}

impl From<String> for Problem {
    fn from(rule: String) -> Problem {
        Problem::Rule(rule)
    }
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::name::{MARK, Role, check_symlink, components, role};

    /// A path that is taken stays below the root and reads back as the same, a whiteout hides one name, and the target
    /// of a link that is taken leads nowhere above the root.
    pub(crate) fn names(path: &[u8], target: &[u8]) {
        let Ok(path) = components(path) else { return };
        let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/');
        assert!(path.iter().all(|name| is_name(name)));
        let joined = [b"./", path.join(&b'/').as_slice()].concat();
        assert_eq!(components(&joined).as_ref(), Ok(&path));
        if let Ok(Role::Whiteout(hidden)) = role(&path) {
            assert!(is_name(hidden));
            assert_eq!(path.last().copied(), Some([MARK, hidden].concat().as_slice()));
        }
        if check_symlink(&path, target).is_ok() {
            let mut at = match target.first() {
                Some(b'/') => Vec::new(),
                _ => path[..path.len().saturating_sub(1)].to_vec(),
            };
            for name in target.split(|byte| *byte == b'/') {
                match name {
                    b"" | b"." => {}
                    b".." => assert!(at.pop().is_some(), "a link leads above the root"),
                    name => at.push(name),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
