//! The files of an archive, kept as scratch while it is read, to be looked up by name afterwards.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use super::refuse;
use crate::Error;
use crate::archive::{Archive, Entry, Failure, Kind};
use crate::content::Scratch;
use crate::digest::{Digest, quote};
use crate::inflate::{Format, Inflated, sniff};
use crate::local::HashedBlob;
use crate::manifest::{Compression, DOCUMENT_BYTES_MAX, LAYER_BYTES_MAX};
use crate::store::{Held, Key, Store};
use crate::unpack::Limits;

/// Headers in the archive, extensions included: a thousand images of many layers have fewer.
const ENTRIES_MAX: u64 = 50_000;
const NAME_BYTES_MAX: usize = 1024;
/// Links to links: archives of docker's have one.
const LINKS_MAX: usize = 8;

/// What an archive has under its names.
pub(super) struct Files {
    store: Arc<Store>,
    members: HashMap<String, Member>,
}

enum Member {
    File(Kept),
    /// The name that it stands for.
    Link(String),
}

/// A file of the archive.
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) size: u64,
    place: RefCell<Place>,
}

/// Files are moved into the store when an image turns out to need them.
enum Place {
    Scratch(Scratch),
    Blob(Arc<Held>),
    /// Only while it is moved.
    Moving,
}

impl Files {
    /// Read an archive, plain or compressed, to its end.
    pub(super) fn read(store: &Arc<Store>, stream: impl Read) -> Result<Files, Error> {
        let limits = Limits::default();
        let (format, stream) = sniff(stream).map_err(Error::Input)?;
        let stream = Inflated::new(stream, format, &limits).map_err(Error::Input)?;
        let mut archive = Archive::new(stream, ENTRIES_MAX);
        let mut files = Files {
            store: Arc::clone(store),
            members: HashMap::new(),
        };
        let mut left = limits.content_bytes;
        while let Some(entry) = archive.next().map_err(broken)? {
            left = left.checked_sub(entry.size).ok_or_else(|| {
                refuse(format!(
                    "its files are larger than {} bytes",
                    limits.content_bytes
                ))
            })?;
            files.take(&entry, &mut archive)?;
        }
        // A client that is cut off here must not pass for one that has sent all.
        archive.drain().map_err(Error::Input)?;
        Ok(files)
    }

    fn take(&mut self, entry: &Entry, archive: &mut Archive<impl Read>) -> Result<(), Error> {
        let named = |rule: String| {
            refuse(format!(
                "entry {}: {rule}",
                quote(&String::from_utf8_lossy(&entry.path))
            ))
        };
        let name = normal(&entry.path, "").map_err(named)?;
        let member = match entry.kind {
            Kind::Directory => return Ok(()),
            Kind::File if entry.extents.is_some() => {
                return Err(named("files with holes have no place in it".into()));
            }
            Kind::File => Member::File(self.keep(&name, entry, archive)?),
            Kind::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Member::Link(normal(&entry.link, folder).map_err(named)?)
            }
            Kind::HardLink => Member::Link(normal(&entry.link, "").map_err(named)?),
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                return Err(named("devices and fifos have no place in it".into()));
            }
        };
        if name.is_empty() {
            return Err(named("its root can only be a folder".into()));
        }
        // Readers differ in which of two they take.
        if self.members.insert(name, member).is_some() {
            return Err(named("it is there twice".into()));
        }
        Ok(())
    }

    /// Write one file down, and check it against the digest that its name tells.
    fn keep(&self, name: &str, entry: &Entry, archive: &mut Archive<impl Read>) -> Result<Kept, Error> {
        if entry.size > LAYER_BYTES_MAX {
            return Err(refuse(format!(
                "entry {}: its {} bytes are more than {LAYER_BYTES_MAX}",
                quote(name),
                entry.size
            )));
        }
        let told = told_digest(name);
        let hasher = told.as_ref().map_or_else(Digest::sha256_hasher, Digest::hasher);
        let mut blob = HashedBlob::create(&self.store, hasher)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let got = archive.read_data(&mut buffer).map_err(Error::Input)?;
            if got == 0 {
                break;
            }
            if let Err(error) = blob.write_all(&buffer[..got]) {
                return Err(blob.failure().unwrap_or(Error::Input(error)));
            }
        }
        let (scratch, digest, size) = blob.finish();
        match told {
            Some(told) if told != digest => Err(Error::Digest {
                what: "blob",
                expected: told.to_string(),
                actual: digest.to_string(),
            }),
            _ => Ok(Kept {
                digest,
                size,
                place: RefCell::new(Place::Scratch(scratch)),
            }),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// The file of this name, through links of the archive's own.
    pub(super) fn find(&self, name: &str) -> Result<&Kept, Error> {
        let missing = || refuse(format!("{} is not in it", quote(name)));
        let mut at =
            normal(name.as_bytes(), "").map_err(|rule| refuse(format!("{}: {rule}", quote(name))))?;
        for _ in 0..LINKS_MAX {
            match self.members.get(&at).ok_or_else(missing)? {
                Member::File(kept) => return Ok(kept),
                Member::Link(target) => at.clone_from(target),
            }
        }
        Err(refuse(format!(
            "{} is a link to links without an end",
            quote(name)
        )))
    }

    /// The content of a manifest, index, config or the like.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let kept = self.find(name)?;
        if kept.size > DOCUMENT_BYTES_MAX {
            return Err(refuse(format!(
                "{}: its {} bytes are more than {DOCUMENT_BYTES_MAX}",
                quote(name),
                kept.size
            )));
        }
        let path = kept.path();
        std::fs::read(&path).map_err(|e| Error::io("read", &path, e))
    }

    /// The file as a blob of the store, which it stays only as part of an image.
    pub(super) fn blob(&self, kept: &Kept) -> Result<Arc<Held>, Error> {
        let mut place = kept.place.borrow_mut();
        let held = match std::mem::replace(&mut *place, Place::Moving) {
            Place::Scratch(scratch) => self.store.publish(&Key::Blob(kept.digest.clone()), scratch)?,
            Place::Blob(held) => held,
            Place::Moving => return Err(refuse("a file of it was lost on its way into the store")),
        };
        *place = Place::Blob(Arc::clone(&held));
        Ok(held)
    }
}

impl Kept {
    /// How a layer is packed, by its first bytes.
    pub(super) fn compression(&self) -> Result<Compression, Error> {
        let path = self.path();
        let file = std::fs::File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        match sniff(file).map_err(|e| Error::io("read", &path, e))? {
            (Format::Layer(compression), _) => Ok(compression),
            (Format::Xz | Format::Bzip2, _) => Err(refuse(format!(
                "layer {}: it is compressed with xz or bzip2, which no layer of an image can be",
                self.digest
            ))),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        match &*self.place.borrow() {
            Place::Scratch(scratch) => scratch.path().to_owned(),
            Place::Blob(held) => held.path().to_owned(),
            Place::Moving => std::path::PathBuf::new(),
        }
    }
}

/// The digest that a file's name says it has: `blobs/sha256/<hex>`, or `<hex>.json` as docker names configs.
fn told_digest(name: &str) -> Option<Digest> {
    if let Some((algorithm, hex)) = name.strip_prefix("blobs/").and_then(|rest| rest.split_once('/')) {
        return Digest::parse(&format!("{algorithm}:{hex}")).ok();
    }
    Digest::parse(&format!("sha256:{}", name.strip_suffix(".json")?)).ok()
}

/// A path from the archive's root, `folder` being where it begins. It may climb, but not above the root.
fn normal(path: &[u8], folder: &str) -> Result<String, String> {
    if path.len() > NAME_BYTES_MAX {
        return Err(format!("a name in it is longer than {NAME_BYTES_MAX} bytes"));
    }
    let path = std::str::from_utf8(path).map_err(|_| "a name in it is not UTF-8".to_owned())?;
    if path.starts_with('/') {
        return Err("a path in it is absolute".into());
    }
    let mut components: Vec<&str> = folder.split('/').filter(|c| !c.is_empty()).collect();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop().ok_or("it leads out of the archive")?;
            }
            name => components.push(name),
        }
    }
    Ok(components.join("/"))
}

fn broken(failure: Failure) -> Error {
    match failure {
        Failure::Rule(None, rule) => refuse(rule),
        Failure::Rule(Some(entry), rule) => refuse(format!(
            "entry {}: {rule}",
            quote(&String::from_utf8_lossy(&entry))
        )),
        Failure::Read(error) => Error::Input(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_meant_from_the_root_and_stay_below_it() {
        for (path, folder, name) in [
            ("./a/b", "", "a/b"),
            ("a//b/", "", "a/b"),
            ("../b/layer.tar", "a", "b/layer.tar"),
            ("layer.tar", "a", "a/layer.tar"),
        ] {
            assert_eq!(normal(path.as_bytes(), folder).unwrap(), name);
        }
        for (path, folder) in [("..", ""), ("../../x", "a"), ("/etc/passwd", ""), ("/", "a")] {
            assert!(normal(path.as_bytes(), folder).is_err(), "{path}");
        }
        assert!(normal(b"\xff", "").is_err());
    }

    #[test]
    fn names_tell_digests() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::of(b"");
        assert_eq!(told_digest(&format!("blobs/sha256/{hex}")), Some(digest.clone()));
        assert_eq!(told_digest(&format!("{hex}.json")), Some(digest));
        assert_eq!(told_digest(&format!("{hex}/json")), None);
        assert_eq!(told_digest("manifest.json"), None);
    }
}
