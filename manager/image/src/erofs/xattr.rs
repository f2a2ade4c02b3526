//! Extended attributes as the format has them: a number for each name space, and what follows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Before the attributes of an inode.
pub(super) const HEADER_BYTES: usize = 12;

const USER: u8 = 1;
const ACCESS_ACL: u8 = 2;
const DEFAULT_ACL: u8 = 3;
const TRUSTED: u8 = 4;
const SECURITY: u8 = 6;

const ACCESS_ACL_NAME: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL_NAME: &[u8] = b"system.posix_acl_default";
/// overlayfs's mark of a folder that shows nothing of the layers below.
const OPAQUE: (u8, &[u8]) = (TRUSTED, b"overlay.opaque");

/// All attributes of an inode, by name space and rest of the name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Xattrs(BTreeMap<(u8, Vec<u8>), Vec<u8>>);

impl Xattrs {
    /// Set one attribute, or drop it if the format has no such name space.
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        let key = match name {
            ACCESS_ACL_NAME => (ACCESS_ACL, Vec::new()),
            DEFAULT_ACL_NAME => (DEFAULT_ACL, Vec::new()),
            _ => {
                let spaces: [(&[u8], u8); 3] =
                    [(b"user.", USER), (b"trusted.", TRUSTED), (b"security.", SECURITY)];
                let found = spaces
                    .into_iter()
                    .find_map(|(prefix, space)| Some((space, name.strip_prefix(prefix)?.to_vec())));
                let Some(key) = found else { return };
                key
            }
        };
        self.0.insert(key, value.to_vec());
    }

    pub(crate) fn set_opaque(&mut self) {
        self.0.insert((OPAQUE.0, OPAQUE.1.to_vec()), b"y".to_vec());
    }

    pub(crate) fn is_opaque(&self) -> bool {
        self.0.contains_key(&(OPAQUE.0, OPAQUE.1.to_vec()))
    }

    pub(crate) fn take_access_acl(&mut self) -> Option<Vec<u8>> {
        self.0.remove(&(ACCESS_ACL, Vec::new()))
    }

    pub(crate) fn take_default_acl(&mut self) -> Option<Vec<u8>> {
        self.0.remove(&(DEFAULT_ACL, Vec::new()))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0
            .iter()
            .map(|((_, name), value)| 100 + name.len() + value.len())
            .sum()
    }

    /// How long [`Xattrs::encode`] is.
    pub(super) fn encoded_bytes(&self) -> usize {
        let one = |((_, name), value): (&(u8, Vec<u8>), &Vec<u8>)| {
            (4 + name.len() + value.len()).next_multiple_of(4)
        };
        match self.0.len() {
            0 => 0,
            _ => HEADER_BYTES + self.0.iter().map(one).sum::<usize>(),
        }
    }

    /// As they stand behind the inode; nothing if there are none.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        if self.0.is_empty() {
            return bytes;
        }
        bytes.resize(HEADER_BYTES, 0);
        for ((space, name), value) in &self.0 {
            bytes.extend([name.len() as u8, *space]);
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(name);
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

/// The different sets of attributes of a tree: few, where there are any at all.
#[derive(Debug)]
pub(super) struct Sets {
    sets: Vec<Arc<Xattrs>>,
    numbers: HashMap<Arc<Xattrs>, u32>,
}

impl Sets {
    pub(super) fn new() -> Sets {
        let none = Arc::new(Xattrs::default());
        Sets {
            sets: vec![Arc::clone(&none)],
            numbers: HashMap::from([(none, 0)]),
        }
    }

    /// The number of a set, and how many bytes of memory it takes if it is new.
    pub(super) fn number(&mut self, xattrs: Xattrs) -> (u32, usize) {
        if let Some(number) = self.numbers.get(&xattrs) {
            return (*number, 0);
        }
        let number = self.sets.len() as u32;
        let bytes = xattrs.memory_bytes();
        let set = Arc::new(xattrs);
        self.sets.push(Arc::clone(&set));
        self.numbers.insert(set, number);
        (number, bytes)
    }

    pub(super) fn get(&self, number: u32) -> &Xattrs {
        &self.sets[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_sorted_and_padded_behind_a_header() {
        let mut xattrs = Xattrs::default();
        assert_eq!((xattrs.encode(), xattrs.encoded_bytes()), (Vec::new(), 0));
        xattrs.set(b"security.ab", b"cde");
        xattrs.set(b"user.x", b"");
        xattrs.set(b"system.unknown", b"dropped");
        let encoded = xattrs.encode();
        assert_eq!(encoded[..12], [0; 12]);
        assert_eq!(encoded[12..], *b"\x01\x01\0\0x\0\0\0\x02\x06\x03\0abcde\0\0\0");
        assert_eq!(encoded.len(), xattrs.encoded_bytes());
    }
}
