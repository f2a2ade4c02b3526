//! Doors to what reads archives: in memory, into a folder, into a store.

use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::Images;
use crate::archive::{Archive, Entry, Failure, Kind};
use crate::digest::Digest;
use crate::inflate::window::{Inflating, LARGE_LOG};
use crate::overlay::{self, Layers};
use crate::pack::Packer;
use crate::unpack::{Form, Limits, unpack};

/// Between the parts of the input of [`documents`]: ASCII's record separator, which no JSON has.
const SEPARATOR: u8 = 0x1e;

/// A zstd stream, taken frame by frame: it inflates to what zstd itself makes of it.
pub fn zstd(content: &[u8]) {
    let read = |stream: &mut dyn Read| {
        let mut inflated = Vec::new();
        stream.take(1 << 20).read_to_end(&mut inflated).map(|_| inflated)
    };
    let ours = Inflating::new(content).and_then(|mut stream| read(&mut stream));
    let theirs = zstd::stream::read::Decoder::with_buffer(content).and_then(|mut stream| {
        stream.window_log_max(LARGE_LOG)?;
        read(&mut stream)
    });
    assert_eq!(ours.ok(), theirs.ok());
}

/// The records of a PAX header.
pub fn pax(content: &[u8]) {
    crate::archive::fuzzing::pax(content);
}

/// A tar stream, in memory: an entry that is taken is the same when it is packed and read again.
pub fn entries(content: &[u8]) {
    let mut archive = Archive::new(content, 1000);
    while let Ok(Some(entry)) = archive.next() {
        let data = Data(&mut archive);
        // What is stored of a file with holes is not the file; one that is longer than the input is filled up; and a
        // header has no room for a device number that Linux does not have either.
        if entry.extents.is_some()
            || entry.size > content.len() as u64
            || entry.device.0.max(entry.device.1) >= 1 << 20
        {
            continue;
        }
        let mut packer = Packer::new(Vec::new());
        packer
            .append(&entry, data)
            .expect("what can be read can be packed");
        let stream = packer.finish().expect("memory takes all");
        let again = Archive::new(stream.as_slice(), 2).next();
        assert_same(&entry, again);
    }
}

/// The data of the current entry, to where it ends or breaks off.
struct Data<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.0.read_data(buffer).unwrap_or(0))
    }
}

fn assert_same(entry: &Entry, again: Result<Option<Entry>, Failure>) {
    let again = again
        .expect("what was packed can be read")
        .expect("what was packed is there");
    // Other kinds have a target that means nothing.
    let is_link = matches!(entry.kind, Kind::HardLink | Kind::Symlink);
    assert!(!is_link || again.link == entry.link);
    let shown = |entry: &Entry| {
        let Entry {
            path,
            kind,
            size,
            mode,
            uid,
            gid,
            modified,
            device,
            xattrs,
            ..
        } = entry;
        format!("{path:?} {kind:?} {size} {mode} {uid} {gid} {modified:?} {device:?} {xattrs:?}")
    };
    assert_eq!(shown(&again), shown(entry));
}

/// A layer's tar, unpacked into the empty folder `root`. What was unpacked can be exported, and what that gives can be
/// unpacked into the empty folder `again`, from where it is exported as the same.
pub fn tar(content: &[u8], root: &Path, again: &Path) {
    let limits = Limits {
        entries: 1000,
        content_bytes: 1 << 20,
        ..Limits::default()
    };
    // As an image, too: there no kernel looks at what is made before it is mounted.
    let image = root.with_extension("erofs");
    let _ = unpack(content, &image, Form::Erofs, &limits)
        .and_then(|unpacked| unpacked.adopt(&image, &[], u64::MAX, [0; 16]));
    let _ = std::fs::remove_file(&image);
    let Ok(unpacked) = unpack(content, root, Form::Folder, &limits) else {
        return;
    };
    assert!(unpacked.content_bytes <= limits.content_bytes);
    let exported = export(root);
    // An export has more headers than a layer: folders that had none, and long names for what was reached by links.
    let more = Limits {
        entries: 10_000,
        content_bytes: 1 << 30,
        ..limits
    };
    if let Err(failure) = unpack(exported.as_slice(), again, Form::Folder, &more) {
        panic!("an exported tree is refused: {failure:?}");
    }
    assert!(export(again) == exported, "a tree changes by an export");
}

fn export(root: &Path) -> Vec<u8> {
    let layers = Layers::open([root], None).expect("open the layer");
    overlay::export(&layers, &CancellationToken::new(), Vec::new()).expect("export the layer")
}

/// An archive of images, loaded into a store that lives as long as the process; `root` is where its first call makes
/// it. What is refused leaves nothing, nor does what was loaded and then removed.
pub fn archive(content: &[u8], root: &Path) {
    static IMAGES: OnceLock<(Images, usize)> = OnceLock::new();
    let (images, empty) = IMAGES.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let opened = runtime.expect("a runtime").block_on(Images::open(root));
        (opened.expect("open a store"), stored(root))
    });
    for kept in images.load(content, None).unwrap_or_default() {
        images.remove(kept.id(), true).expect("remove what was loaded");
    }
    images.settle_removals();
    assert_eq!(stored(root), *empty, "an archive left something");
}

/// How many files and folders a store has.
fn stored(root: &Path) -> usize {
    let folders = ["blobs/sha256", "blobs/sha512", "s", "tmp", "trash"];
    let entries = folders.map(|folder| std::fs::read_dir(root.join(folder)).into_iter().flatten().count());
    entries.iter().sum()
}

/// Documents, as the archive of images that they make: the first part is what tells the images of the archive, by its
/// first byte as a layout, a docker archive or one of before docker 1.10; the others are blobs. `@1@` in a part stands
/// for the digest of the first blob, and `#1#` for its size: no fuzzer guesses those.
pub fn documents(content: &[u8], root: &Path) {
    let Some((kind, content)) = content.split_first() else {
        return;
    };
    let mut parts: Vec<Vec<u8>> = content
        .split(|b| *b == SEPARATOR)
        .take(10)
        .map(<[u8]>::to_vec)
        .collect();
    // The last first, as digests are of what is done.
    for at in (0..parts.len()).rev() {
        for later in at + 1..parts.len() {
            let (digest, size) = (
                Digest::of(&parts[later]).to_string(),
                parts[later].len().to_string(),
            );
            let part = replace(&parts[at], format!("@{later}@").as_bytes(), digest.as_bytes());
            parts[at] = replace(&part, format!("#{later}#").as_bytes(), size.as_bytes());
        }
    }
    let mut packer = Packer::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        packer.append_document(path, content).expect("memory takes all");
    };
    match kind {
        b'd' => add("manifest.json", &parts[0]),
        b'r' => add("repositories", &parts[0]),
        _ => {
            add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
            add("index.json", &parts[0]);
        }
    }
    for (number, part) in parts.iter().enumerate().skip(1) {
        if *kind == b'r' {
            add(&format!("{number}/json"), part);
            add(
                &format!("{number}/layer.tar"),
                parts.get(number + 1).unwrap_or(part),
            );
        } else {
            add(&format!("blobs/sha256/{}", Digest::of(part).hex()), part);
        }
    }
    archive(&packer.finish().expect("memory takes all"), root);
}

fn replace(content: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut rest = content;
    let mut replaced = Vec::new();
    while let Some(position) = rest.windows(from.len()).position(|part| part == from) {
        replaced.extend_from_slice(&rest[..position]);
        replaced.extend_from_slice(to);
        rest = &rest[position + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}
