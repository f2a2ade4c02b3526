//! EROFS images: a layer as one file that the kernel mounts, in the place of a folder with its files.
//!
//! ```text
//! block 0     superblock, written last
//! block 1…    content of files, in the order in which it came
//! then        inodes with their attributes; short links, and the last part of folders, lie behind their inode
//! then        what of folders and links is too long for that
//! ```
//! Content is appended as it streams in, while the tree of names is kept in memory ([`tree`]); [`write`] puts it behind
//! the content when it is complete. The same layer always gives the same bytes. No path of the machine is resolved for
//! what is in an image, and nothing of it can be changed by accident later. Source of the format: the kernel's
//! `fs/erofs/erofs_fs.h`, Documentation/filesystems/erofs.rst, and erofs.docs.kernel.org.

mod acl;
mod content;
mod format;
mod mount;
mod tree;
mod write;
mod xattr;

pub(crate) use acl::Acl;
pub(crate) use content::Content;
pub(crate) use mount::{mount, path_of, probe};
pub(crate) use tree::{Folder, Id, LeadsOut, Looks, ROOT, Tree, What};
pub(crate) use write::write;
pub(crate) use xattr::Xattrs;

/// The size that all kernels take; others depend on the size of their pages.
const BLOCK_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
