//! The names in a folder, sorted, in as little memory as they can have: a container may make millions.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::Dir;

/// Of all folders from the root down to where a walk is.
pub(super) const NAMES_BYTES_MAX: usize = 32 << 20;

/// Names still to come.
#[derive(Default)]
pub(crate) struct Names {
    /// Each ends with a NUL.
    bytes: Vec<u8>,
    /// Where each begins; the next one is the last.
    starts: Vec<u32>,
}

impl Names {
    /// All names in any of some folders, each once.
    pub(super) fn read<'a>(
        folders: impl Iterator<Item = BorrowedFd<'a>>,
        bytes_max: usize,
    ) -> io::Result<Names> {
        let mut names = Names::default();
        for folder in folders {
            for entry in Dir::read_from(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    names.push(name.to_bytes_with_nul(), bytes_max)?;
                }
            }
        }
        let Names { bytes, starts } = &mut names;
        starts.sort_unstable_by(|a, b| at(bytes, *b).cmp(at(bytes, *a)));
        starts.dedup_by(|a, b| at(bytes, *a) == at(bytes, *b));
        Ok(names)
    }

    fn push(&mut self, name: &[u8], bytes_max: usize) -> io::Result<()> {
        let start = u32::try_from(self.bytes.len()).ok();
        let start = start.filter(|_| self.bytes() + name.len() + size_of::<u32>() <= bytes_max);
        let start = start.ok_or_else(|| {
            io::Error::other(format!(
                "the names in it and in the folders above it have more than {NAMES_BYTES_MAX} bytes"
            ))
        })?;
        self.bytes.extend_from_slice(name);
        self.starts.push(start);
        Ok(())
    }

    /// What they take, whether they have come already or not.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.starts.len() * size_of::<u32>()
    }
}

impl Iterator for Names {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let start = self.starts.pop()?;
        Some(at(&self.bytes, start).to_vec())
    }
}

fn at(bytes: &[u8], start: u32) -> &[u8] {
    let rest = &bytes[start as usize..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    &rest[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn names_of_several_folders_come_once_and_in_order() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (folder, name) in [(&one, "b"), (&one, "a-b"), (&two, "a"), (&two, "b")] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let open = |folder: &tempfile::TempDir| std::fs::File::open(folder.path()).unwrap();
        let folders = [open(&one), open(&two)];
        let read = |bytes_max| Names::read(folders.iter().map(AsFd::as_fd), bytes_max);
        let names: Vec<Vec<u8>> = read(NAMES_BYTES_MAX).unwrap().collect();
        assert_eq!(names, [b"a".to_vec(), b"a-b".to_vec(), b"b".to_vec()]);
        assert!(read(20).is_err(), "more than they may take");
    }
}
