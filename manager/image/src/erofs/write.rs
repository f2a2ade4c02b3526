//! The tree behind the content, and the superblock before it: in two passes, as folders name inodes by their places.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::FileType;

use super::format::{self, Dirent, INODE_BYTES, Inode, Layout, SLOT_BYTES, SUPERBLOCK_OFFSET, Superblock};
use super::tree::{Id, ROOT, Tree, What};
use super::{BLOCK_BYTES, Content};

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Nothing is at the very beginning: readers of folders take inode 0 for none.
const FIRST_SLOT: u64 = 2;
/// A last part longer than this gets a block rather than the rest of one left empty.
const INLINE_BYTES_MAX: usize = BLOCK_BYTES / 2;

/// Complete the image: `uuid` is its file system's.
pub(crate) fn write(mut tree: Tree, content: Content, uuid: [u8; 16]) -> io::Result<File> {
    let (file, metadata) = content.into_parts();
    let plan = Plan::of(&mut tree)?;
    let inode_blocks = plan.end.div_ceil(BLOCK);
    let blocks = metadata + inode_blocks + plan.blocks;
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let superblock = Superblock {
        root: FIRST_SLOT as u16,
        inodes: plan.order.len() as u64,
        blocks: u32::try_from(blocks).map_err(too_large)?,
        metadata: u32::try_from(metadata).map_err(too_large)?,
        uuid,
    };
    let mut writer = Writer {
        tree: &tree,
        file,
        offset: 0,
        first_block: (metadata + inode_blocks) as u32,
    };
    for id in &plan.order {
        writer.inode(*id)?;
    }
    writer.pad_to(inode_blocks * BLOCK)?;
    for id in &plan.with_blocks {
        writer.blocks(*id)?;
    }
    let file = writer.file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.write_all_at(&superblock.encode(), SUPERBLOCK_OFFSET)?;
    Ok(file)
}

/// What is behind an inode's attributes or in blocks.
struct Data {
    /// In full blocks, or with a last part that goes into one.
    blocks: u64,
    /// The last part.
    tail: usize,
}

fn data(tree: &Tree, id: Id) -> Data {
    match &tree.get(id).what {
        What::Folder(_) => {
            let (counts, tail) = format::split(names(tree, id).into_iter().map(|(name, _)| name));
            Data {
                blocks: counts.len() as u64,
                tail,
            }
        }
        What::Symlink(target) => Data {
            blocks: 1,
            tail: target.len(),
        },
        _ => Data { blocks: 0, tail: 0 },
    }
}

/// The names in a folder, itself and its parent among them, sorted.
fn names(tree: &Tree, id: Id) -> Vec<(&[u8], Id)> {
    let Some(folder) = tree.folder(id) else {
        return Vec::new();
    };
    let mut names: Vec<(&[u8], Id)> = folder
        .names
        .iter()
        .map(|(name, id)| (&**name, tree.resolve(*id)))
        .collect();
    names.extend([(b".".as_slice(), id), (b"..".as_slice(), folder.parent)]);
    names.sort_unstable();
    names
}

/// Where everything goes.
struct Plan {
    /// All inodes that have names: a folder, then at some time its content in a row.
    order: Vec<Id>,
    /// The end of the inodes, in bytes from the first.
    end: u64,
    /// Of folders and links, behind the inodes.
    blocks: u64,
    /// Those that have some there, in that order: few.
    with_blocks: Vec<Id>,
}

impl Plan {
    fn of(tree: &mut Tree) -> io::Result<Plan> {
        let mut plan = Plan {
            order: vec![ROOT],
            end: FIRST_SLOT * SLOT_BYTES as u64,
            blocks: 0,
            with_blocks: Vec::new(),
        };
        let mut is_placed = vec![false; tree.count()];
        let mut next = 0;
        while let Some(&id) = plan.order.get(next) {
            plan.place(tree, id)?;
            if let Some(folder) = tree.folder(id) {
                for child in folder.names.values().map(|child| tree.resolve(*child)) {
                    if !std::mem::replace(&mut is_placed[child as usize], true) {
                        plan.order.push(child);
                    }
                }
            }
            next += 1;
        }
        Ok(plan)
    }

    fn place(&mut self, tree: &mut Tree, id: Id) -> io::Result<()> {
        let Data { blocks, tail } = data(tree, id);
        let head = INODE_BYTES + tree.xattrs(id).encoded_bytes();
        let is_link = tree.get(id).kind() == FileType::Symlink;
        // The kernel wants the inode in one block, a last part in one block, and for a link both in the same.
        let fits_at = |start: u64| {
            let (inode_end, tail_start) = (start % BLOCK + INODE_BYTES as u64, start % BLOCK + head as u64);
            let room = if is_link { tail_start } else { tail_start % BLOCK };
            inode_end <= BLOCK && (tail == 0 || room + tail as u64 <= BLOCK)
        };
        let here = self.end.next_multiple_of(SLOT_BYTES as u64);
        let next_block = here.next_multiple_of(BLOCK);
        let (start, is_inline) = if blocks > 0 && fits_at(here) {
            (here, true)
        } else if blocks > 0 && tail <= INLINE_BYTES_MAX && fits_at(next_block) {
            (next_block, true)
        } else if here % BLOCK + INODE_BYTES as u64 > BLOCK {
            (next_block, false)
        } else {
            (here, false)
        };
        self.end = start + (head + if is_inline { tail } else { 0 }) as u64;
        let own_blocks = blocks - u64::from(is_inline);
        let slot = u32::try_from(start / SLOT_BYTES as u64).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let inode = tree.get_mut(id);
        inode.slot = slot;
        inode.is_inline = is_inline;
        inode.block = self.blocks as u32;
        self.blocks += own_blocks;
        if own_blocks > 0 {
            self.with_blocks.push(id);
        }
        Ok(())
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    file: BufWriter<File>,
    /// In bytes, from the first block of metadata.
    offset: u64,
    /// Behind the inodes.
    first_block: u32,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        let padding = (offset - self.offset) as usize;
        self.put(&[0; BLOCK_BYTES][..padding])
    }

    /// One inode with its attributes and what is behind it.
    fn inode(&mut self, id: Id) -> io::Result<()> {
        let inode = self.tree.get(id);
        let blocks = match inode.what {
            What::Folder(_) => self.folder_blocks(id),
            _ => Vec::new(),
        };
        let (size, place) = match &inode.what {
            What::Folder(_) => {
                let size: usize = blocks.iter().map(Vec::len).sum();
                (size as u64, self.first_block + inode.block)
            }
            What::File { block, size } => (*size, *block),
            What::Symlink(target) => (target.len() as u64, self.first_block + inode.block),
            What::CharDevice(major, minor) | What::BlockDevice(major, minor) => {
                (0, format::device((*major, *minor)))
            }
            What::Fifo | What::Same(_) => (0, 0),
        };
        let xattrs = self.tree.xattrs(id).encode();
        let encoded = Inode {
            looks: &inode.looks,
            kind: inode.kind(),
            layout: if inode.is_inline {
                Layout::Inline
            } else {
                Layout::Plain
            },
            xattr_bytes: xattrs.len(),
            size,
            place,
            number: inode.slot,
            links: self.links(id),
        };
        self.pad_to(u64::from(inode.slot) * SLOT_BYTES as u64)?;
        self.put(&encoded.encode())?;
        self.put(&xattrs)?;
        match &inode.what {
            _ if !inode.is_inline => Ok(()),
            What::Symlink(target) => self.put(target),
            _ => self.put(blocks.last().map_or(&[], Vec::as_slice)),
        }
    }

    /// What of a folder or link is in blocks of its own.
    fn blocks(&mut self, id: Id) -> io::Result<()> {
        let inode = self.tree.get(id);
        let mut blocks = match &inode.what {
            What::Symlink(target) => vec![target.to_vec()],
            What::Folder(_) => self.folder_blocks(id),
            _ => Vec::new(),
        };
        if inode.is_inline {
            blocks.pop();
        }
        for mut block in blocks {
            block.resize(BLOCK_BYTES, 0);
            self.put(&block)?;
        }
        Ok(())
    }

    /// The entries of a folder; all blocks but the last are full.
    fn folder_blocks(&self, id: Id) -> Vec<Vec<u8>> {
        let names = names(self.tree, id);
        let entries: Vec<Dirent<'_>> = names
            .into_iter()
            .map(|(name, id)| Dirent {
                name,
                inode: self.tree.get(id).slot.into(),
                kind: self.tree.get(id).kind(),
            })
            .collect();
        let (counts, _) = format::split(entries.iter().map(|entry| entry.name));
        let mut left = entries.as_slice();
        let mut blocks = Vec::new();
        for count in counts {
            let (here, rest) = left.split_at(count);
            let mut block = format::dirents(here);
            if !rest.is_empty() {
                block.resize(BLOCK_BYTES, 0);
            }
            blocks.push(block);
            left = rest;
        }
        blocks
    }

    /// How many names an inode has: of a folder, its own, `.`, and the `..` of those in it.
    fn links(&self, id: Id) -> u32 {
        match self.tree.folder(id) {
            Some(folder) => {
                let below = folder
                    .names
                    .values()
                    .filter(|id| self.tree.folder(**id).is_some());
                2 + below.count() as u32
            }
            None => self.tree.get(id).links,
        }
    }
}
