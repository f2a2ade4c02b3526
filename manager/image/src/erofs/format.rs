//! The structures of the format, as bytes. All numbers are little-endian.

use rustix::fs::FileType;

use super::{BLOCK_BYTES, Looks};

/// Where in block 0 the superblock is.
pub(super) const SUPERBLOCK_OFFSET: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
const FEATURE_CHECKSUM: u32 = 1;
/// Times are those of last change.
const FEATURE_MTIME: u32 = 2;

/// Of an inode with 32-bit owners and a time of its own ("extended").
pub(super) const INODE_BYTES: usize = 64;
const EXTENDED: u16 = 1;
/// Inodes are numbered by where they are: by 32 bytes, from the first block of metadata.
pub(super) const SLOT_BYTES: usize = 32;
/// Of an entry of a folder without its name.
pub(super) const ENTRY_BYTES: usize = 12;

/// How the data of an inode is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In blocks.
    Plain = 0,
    /// In blocks, but for the last part, which is behind the inode.
    Inline = 2,
}

pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    /// Of the whole image.
    pub(super) blocks: u32,
    /// The first block of metadata.
    pub(super) metadata: u32,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// Block 0 from the superblock on.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_BYTES - SUPERBLOCK_OFFSET as usize];
        let mut put =
            |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        put(0, &MAGIC.to_le_bytes());
        put(8, &(FEATURE_CHECKSUM | FEATURE_MTIME).to_le_bytes());
        put(12, &[BLOCK_BYTES.ilog2() as u8]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.metadata.to_le_bytes());
        put(48, &self.uuid);
        let checksum = crc32c(&bytes);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// CRC-32C as the kernel computes it, without the last inversion.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
        }
        crc
    })
}

/// What an inode says beside its looks.
pub(super) struct Inode<'a> {
    pub(super) looks: &'a Looks,
    pub(super) kind: FileType,
    pub(super) layout: Layout,
    /// In the encoding of [`super::Xattrs::encode`].
    pub(super) xattr_bytes: usize,
    pub(super) size: u64,
    /// The first block of data, or the number of a device.
    pub(super) place: u32,
    /// For programs that know only 32 bits.
    pub(super) number: u32,
    pub(super) links: u32,
}

impl Inode<'_> {
    pub(super) fn encode(&self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        let mut put =
            |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
        let mode = self.kind.as_raw_mode() as u16 | self.looks.mode;
        put(0, &(EXTENDED | (self.layout as u16) << 1).to_le_bytes());
        put(2, &xattr_count(self.xattr_bytes).to_le_bytes());
        put(4, &mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.place.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.looks.uid.to_le_bytes());
        put(28, &self.looks.gid.to_le_bytes());
        put(32, &self.looks.modified.seconds.to_le_bytes());
        put(40, &self.looks.modified.nanoseconds.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        bytes
    }
}

/// The length of attributes is given in words behind their header, which counts as one.
fn xattr_count(bytes: usize) -> u16 {
    match bytes {
        0 => 0,
        _ => ((bytes - super::xattr::HEADER_BYTES) / 4 + 1) as u16,
    }
}

/// A device's number, as in `new_encode_dev` of the kernel.
pub(super) fn device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | major << 8 | (minor & !0xff) << 12
}

/// One name in a folder.
pub(super) struct Dirent<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u64,
    pub(super) kind: FileType,
}

/// How many of these names, one after another, fit into each block of a folder; and the bytes of the last block.
pub(super) fn split<'a>(names: impl Iterator<Item = &'a [u8]>) -> (Vec<usize>, usize) {
    let (mut counts, mut bytes) = (vec![0], 0);
    for name in names {
        let more = ENTRY_BYTES + name.len();
        if bytes + more > BLOCK_BYTES {
            counts.push(0);
            bytes = 0;
        }
        if let Some(count) = counts.last_mut() {
            *count += 1;
        }
        bytes += more;
    }
    (counts, bytes)
}

/// One block of a folder: its entries, then their names.
pub(super) fn dirents(entries: &[Dirent<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_BYTES);
    let mut name_offset = entries.len() * ENTRY_BYTES;
    for entry in entries {
        bytes.extend(entry.inode.to_le_bytes());
        bytes.extend((name_offset as u16).to_le_bytes());
        bytes.extend([type_number(entry.kind), 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        bytes.extend(entry.name);
    }
    bytes
}

/// The kernel's `FT_*`.
fn type_number(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => 1,
        FileType::Directory => 2,
        FileType::CharacterDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32C, before its last inversion.
        assert_eq!(crc32c(b"123456789"), !0xe306_9283);
    }

    #[test]
    fn devices_have_their_minor_in_two_parts() {
        assert_eq!(device((1, 3)), 0x103);
        assert_eq!(device((0xfff, 0xf_ffff)), u32::MAX);
        assert_eq!(device((8, 0x1_23ff)), 0x1230_08ff);
    }

    #[test]
    fn names_are_split_where_a_block_is_full() {
        let name = [b'n'; 244];
        let names = |count| std::iter::repeat_n(name.as_slice(), count);
        assert_eq!(split(names(1)), (vec![1], 256));
        assert_eq!(split(names(16)), (vec![16], 4096));
        assert_eq!(split(names(33)), (vec![16, 16, 1], 256));
    }
}
