//! POSIX access control lists, which file systems that can be written check and keep in step with the mode when they are
//! set. Nobody does that for an image, and the kernel fails to open what has a broken one.
//!
//! Source: the kernel's `include/uapi/linux/posix_acl_xattr.h` and `fs/posix_acl.c`.

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A list that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Line>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// Read an attribute's value; one without lines is no list.
    pub(crate) fn parse(value: &[u8]) -> Result<Option<Acl>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        let broken = || "its access control list is broken".to_owned();
        let (version, rest) = value.split_first_chunk::<HEADER_BYTES>().ok_or_else(broken)?;
        let (lines, rest) = rest.as_chunks::<ENTRY_BYTES>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return Err(broken());
        }
        let lines: Vec<Line> = lines
            .iter()
            .map(|&[tag, tag2, permissions, permissions2, a, b, c, d]| Line {
                tag: u16::from_le_bytes([tag, tag2]),
                permissions: u16::from_le_bytes([permissions, permissions2]),
                id: u32::from_le_bytes([a, b, c, d]),
            })
            .collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let acl = Acl(lines);
        if acl.is_valid() {
            Ok(Some(acl))
        } else {
            Err(broken())
        }
    }

    /// The owner, users, the group, groups, a mask where there are users or groups, all others: in this order.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|line| line.tag == tag).count();
        let has_id = |line: &Line| matches!(line.tag, USER | GROUP);
        self.0.is_sorted_by_key(|line| line.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER]
                .into_iter()
                .all(|tag| count(tag) == 1)
            && count(MASK) <= 1
            && (count(MASK) == 1 || !self.0.iter().any(has_id))
            && self.0.iter().all(|line| {
                let is_known = matches!(line.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER);
                is_known && line.permissions <= 7 && (!has_id(line) || line.id != u32::MAX)
            })
    }

    /// Whether a mode can say the same.
    pub(crate) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The line that each digit of a mode is of.
    fn digits(&self) -> [(u16, u32); 3] {
        let group = if self.0.iter().any(|line| line.tag == MASK) {
            MASK
        } else {
            GROUP_OBJ
        };
        [(USER_OBJ, 6), (group, 3), (OTHER, 0)]
    }

    /// A mode, with the permissions of the list.
    pub(crate) fn apply_to(&self, mode: u16) -> u16 {
        let digit = |(tag, shift): (u16, u32)| {
            let line = self.0.iter().find(|line| line.tag == tag);
            line.map_or(0, |line| line.permissions << shift)
        };
        mode & !0o777 | self.digits().into_iter().map(digit).sum::<u16>()
    }

    /// The list, with the permissions of a mode.
    pub(crate) fn with_mode(mut self, mode: u16) -> Acl {
        for (tag, shift) in self.digits() {
            for line in self.0.iter_mut().filter(|line| line.tag == tag) {
                line.permissions = mode >> shift & 7;
            }
        }
        self
    }

    /// As an attribute's value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for line in &self.0 {
            bytes.extend(line.tag.to_le_bytes());
            bytes.extend(line.permissions.to_le_bytes());
            bytes.extend(line.id.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(lines: &[(u16, u16)]) -> Vec<u8> {
        let lines = lines.iter().map(|&(tag, permissions)| Line {
            tag,
            permissions,
            id: 7,
        });
        Acl(lines.collect()).encode()
    }

    #[test]
    fn lists_and_modes_follow_each_other() {
        let value = acl(&[(USER_OBJ, 7), (USER, 6), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 1)]);
        let list = Acl::parse(&value).unwrap().unwrap();
        assert_eq!(list.apply_to(0o4000), 0o4741);
        let other = list.with_mode(0o4620);
        assert_eq!(other.apply_to(0), 0o620);
        assert_eq!(
            other.encode(),
            acl(&[(USER_OBJ, 6), (USER, 6), (GROUP_OBJ, 5), (MASK, 2), (OTHER, 0)])
        );
        let short = Acl::parse(&acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)]))
            .unwrap()
            .unwrap();
        assert!(short.is_mode() && short.apply_to(0) == 0o751);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        assert_eq!(Acl::parse(b""), Ok(None));
        assert_eq!(Acl::parse(&acl(&[])), Ok(None));
        for bad in [
            b"\x03\0\0\0".to_vec(),
            b"\x02\0\0\0\x01".to_vec(),
            acl(&[(USER_OBJ, 7), (OTHER, 1)]),
            acl(&[(USER_OBJ, 8), (GROUP_OBJ, 5), (OTHER, 1)]),
            acl(&[(USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 5), (OTHER, 1)]),
            acl(&[(GROUP_OBJ, 5), (USER_OBJ, 7), (OTHER, 1)]),
        ] {
            assert!(Acl::parse(&bad).is_err(), "{bad:?}");
        }
    }
}
