//! What a layer is unpacked into: a folder ([`super::tree`]) or an EROFS image ([`super::image`]).
//!
//! The rules that need to know only the entry are kept before it comes here ([`super::place`]). What a sink makes of
//! entries one after another has to be the same in each: later ones take the place of earlier ones, paths may go
//! through links of their own layer that stay in it, parents without an entry are implied.

use std::io;

use super::Problem;
use crate::archive::Entry;

pub(super) trait Sink {
    /// Make a folder, or give the one that is there the looks of the entry.
    fn directory(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem>;

    /// Make a file of what `read` gives, until that is nothing.
    fn file(
        &mut self,
        path: &[&[u8]],
        entry: &Entry,
        read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<(), Problem>;

    fn symlink(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem>;

    /// Make a device or a fifo.
    fn node(&mut self, path: &[&[u8]], entry: &Entry) -> Result<(), Problem>;

    /// Make a link to a file of this layer or, if it has none there, of those below.
    fn hard_link(&mut self, path: &[&[u8]], target: &[&[u8]]) -> Result<(), Problem>;

    /// Hide `name` of this folder in the layers below. What this layer itself has there stays.
    fn whiteout(&mut self, parents: &[&[u8]], name: &[u8]) -> Result<(), Problem>;

    /// Hide all of this folder in the layers below.
    fn opaque(&mut self, path: &[&[u8]]) -> Result<(), Problem>;

    /// Take away what an entry before has made in the root.
    fn remove_from_root(&mut self, name: &[u8]) -> Result<(), Problem>;
}
