//! Finding a folder by a path that may go through links, as a process in the container would.

use std::io;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::{Folder, Layers};

/// As many links may be followed as the kernel follows (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// The folder at `path`, from the root of the layers, which no link leads out of. None: there is nothing, or no folder.
pub(crate) fn folder(layers: &Layers, path: &[u8]) -> io::Result<Option<Folder>> {
    // What is left to walk, next name last; and the folders that were walked through.
    let mut left = names(path);
    let mut walked = vec![layers.root()];
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == b".." {
            if walked.len() > 1 {
                walked.pop();
            }
            continue;
        }
        let Some(here) = walked.last() else {
            return Ok(None);
        };
        let open = layers.enter(here)?;
        let Some(found) = open.find(&name)? else {
            return Ok(None);
        };
        match FileType::from_raw_mode(found.status.st_mode) {
            FileType::Directory => {
                let path = here.join(&name).map_err(|(_, error)| error)?;
                let layers = found.layers;
                walked.push(Folder { path, layers });
            }
            FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(found.parent, name.as_slice(), Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    walked.truncate(1);
                }
                left.extend(names(&target));
            }
            _ => return Ok(None),
        }
    }
    Ok(walked.pop())
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    let mut names: Vec<Vec<u8>> = names
        .filter(|name| !matches!(*name, b"" | b"."))
        .map(<[u8]>::to_vec)
        .collect();
    names.reverse();
    names
}
