//! The owners of one object, between what the host has on disk and what the container's processes see: its user and
//! group, those in its access control lists, and whose root its capabilities are of.
//!
//! Sources: `user_namespaces(7)`, `capabilities(7)` ("Namespaced file capabilities"), and the kernel's
//! `include/uapi/linux/posix_acl_xattr.h`.

use std::io;

use super::{IdMap, NOBODY, Owners};
use crate::archive::Entry;

const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
const LIST_HEADER_BYTES: usize = 4;
const LIST_LINE_BYTES: usize = 8;
/// `ACL_USER` and `ACL_GROUP`, the lines that name somebody.
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;

const CAPABILITIES: &[u8] = b"security.capability";
/// The highest byte of the first number; the lowest one holds a flag.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
/// With the root that they are of, at the end.
const REVISION_3: u32 = 0x0300_0000;
const REVISION_2_BYTES: usize = 20;
const REVISION_3_BYTES: usize = 24;

impl Owners {
    /// Give `entry`, which is as the host sees it, the owners that the container sees.
    pub(crate) fn seen(&self, entry: &mut Entry) {
        let seen = |map: &IdMap, id| Some(map.to_container(id).unwrap_or(NOBODY));
        // None of these is ever without an id.
        let _ = self.shift(entry, &seen, &|root| self.uids.to_container(root));
    }

    /// Give `entry`, which is as the container sees it, the owners that the host has to write.
    pub(crate) fn placed(&self, entry: &mut Entry) -> io::Result<()> {
        self.shift(entry, &IdMap::to_host, &|root| self.uids.to_host(root))
            .map_err(|id| {
                io::Error::other(format!(
                    "it belongs to the id {id}, which the container's user namespace lacks (users {}, groups {})",
                    self.uids, self.gids
                ))
            })
    }

    fn shift(
        &self,
        entry: &mut Entry,
        id: &dyn Fn(&IdMap, u32) -> Option<u32>,
        root: &dyn Fn(u32) -> Option<u32>,
    ) -> Result<(), u32> {
        entry.uid = id(&self.uids, entry.uid).ok_or(entry.uid)?;
        entry.gid = id(&self.gids, entry.gid).ok_or(entry.gid)?;
        for (name, value) in &mut entry.xattrs {
            if LISTS.contains(&name.as_slice()) {
                self.shift_list(value, id)?;
            } else if name == CAPABILITIES {
                shift_capabilities(value, root);
            }
        }
        Ok(())
    }

    /// One that is broken stays as it is: the kernel says so when it is set.
    fn shift_list(&self, value: &mut [u8], id: &dyn Fn(&IdMap, u32) -> Option<u32>) -> Result<(), u32> {
        let lines = value.get_mut(LIST_HEADER_BYTES..).unwrap_or_default();
        for [tag, tag2, _, _, of @ ..] in lines.as_chunks_mut::<LIST_LINE_BYTES>().0 {
            let map = match u16::from_le_bytes([*tag, *tag2]) {
                USER => &self.uids,
                GROUP => &self.gids,
                _ => continue,
            };
            let before = u32::from_le_bytes(*of);
            *of = id(map, before).ok_or(before)?.to_le_bytes();
        }
        Ok(())
    }
}

/// Those of the second revision are of the root that has id 0 where they are read.
fn shift_capabilities(value: &mut Vec<u8>, root: &dyn Fn(u32) -> Option<u32>) {
    let Some(&magic) = value.first_chunk::<4>() else {
        return;
    };
    let magic = u32::from_le_bytes(magic);
    let before = match (magic & REVISION_MASK, value.len()) {
        (REVISION_2, REVISION_2_BYTES) => 0,
        (REVISION_3, REVISION_3_BYTES) => value
            .last_chunk::<4>()
            .map_or(0, |root| u32::from_le_bytes(*root)),
        _ => return,
    };
    let Some(root) = root(before) else {
        // Another namespace's root: they mean nothing in this one, and stay so.
        return;
    };
    let revision = if root == 0 { REVISION_2 } else { REVISION_3 };
    let magic = magic & !REVISION_MASK | revision;
    value.truncate(REVISION_2_BYTES);
    value[..4].copy_from_slice(&magic.to_le_bytes());
    if root != 0 {
        value.extend_from_slice(&root.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        Owners {
            uids: "0:100000:1000".parse().unwrap(),
            gids: "0:200000:1000".parse().unwrap(),
        }
    }

    fn list(lines: &[(u16, u32)]) -> Vec<u8> {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, id) in lines {
            value.extend(tag.to_le_bytes());
            value.extend([6, 0]);
            value.extend(id.to_le_bytes());
        }
        value
    }

    fn capabilities(root: Option<u32>) -> Vec<u8> {
        let revision = if root.is_some() { REVISION_3 } else { REVISION_2 };
        let mut value = (revision | 1).to_le_bytes().to_vec();
        value.extend([7; 16]);
        value.extend(root.into_iter().flat_map(u32::to_le_bytes));
        value
    }

    fn entry(ids: (u32, u32), listed: [u32; 2], root: Option<u32>) -> Entry {
        let lines = [(1, u32::MAX), (USER, listed[0]), (GROUP, listed[1])];
        Entry {
            uid: ids.0,
            gid: ids.1,
            xattrs: vec![
                (LISTS[0].to_vec(), list(&lines)),
                (CAPABILITIES.to_vec(), capabilities(root)),
                (b"user.other".to_vec(), list(&lines)),
            ],
            ..Entry::plain(b"a", 0)
        }
    }

    #[test]
    fn owners_in_all_places_go_to_the_host_and_come_back() {
        let of_container = entry((5, 6), [7, 8], None);
        let mut there = entry((5, 6), [7, 8], None);
        owners().placed(&mut there).unwrap();
        let expected = entry((100_005, 200_006), [100_007, 200_008], Some(100_000));
        assert_eq!((there.uid, there.gid), (expected.uid, expected.gid));
        assert_eq!(there.xattrs[..2], expected.xattrs[..2]);
        assert_eq!(there.xattrs[2], of_container.xattrs[2]);
        owners().seen(&mut there);
        assert_eq!((there.uid, there.gid), (5, 6));
        assert_eq!(there.xattrs, of_container.xattrs);
    }

    #[test]
    fn who_is_not_in_the_namespace_is_nobody_there_and_cannot_be_brought_in() {
        let mut host = entry((0, 0), [0, 0], None);
        owners().seen(&mut host);
        assert_eq!((host.uid, host.gid), (NOBODY, NOBODY));
        assert_eq!(host.xattrs[1].1, capabilities(None), "they are the host's root's");
        for (ids, listed, lacking) in [
            ((1000, 0), [0, 0], "1000"),
            ((0, 1001), [0, 0], "1001"),
            ((0, 0), [0, 1002], "1002"),
        ] {
            let refused = owners().placed(&mut entry(ids, listed, None)).unwrap_err();
            assert!(refused.to_string().contains(lacking), "{refused}");
        }
    }

    #[test]
    fn what_is_broken_stays_as_it_is() {
        for value in [&b""[..], b"\x02", b"\x02\0\0\0\x02", b"\x02\0\0\x02abc", &[9; 24]] {
            let mut entry = Entry::plain(b"a", 0);
            entry.xattrs = vec![
                (LISTS[1].to_vec(), value.get(..5).unwrap_or(value).to_vec()),
                (CAPABILITIES.to_vec(), value.to_vec()),
            ];
            let before = entry.xattrs.clone();
            owners().placed(&mut entry).unwrap();
            owners().seen(&mut entry);
            assert_eq!(entry.xattrs, before);
        }
    }
}
