//! Layers over layers: what the kernel shows of ours, mounted as a container's root, beside what umoci makes of them,
//! which applies one after the other to one folder. Whiteouts, opaque folders, folders without an entry of their own,
//! and files, links and folders in each other's place.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::fixture::Place;
use super::fixture::made::{self, Packing};
use super::fixture::scripted::Server;
use super::trees::{assert_same, dress, grow, name};
use super::{check_images, run, seed};

const IMAGES: usize = 4;
const CHANGES_A_LAYER: usize = 40;
const MARK: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// The paths that the layers so far show, and which of them are folders.
#[derive(Default)]
struct Shown(BTreeMap<PathBuf, bool>);

impl Shown {
    /// Put a layer's tree on top: its marks first, as they mean the layers below.
    fn apply(&mut self, layer: &Path) {
        let objects = objects(layer);
        for path in &objects {
            let Some(mark) = mark(path) else { continue };
            let folder = path.parent().unwrap();
            if *mark == OPAQUE.as_bytes()[MARK.len()..] {
                self.0
                    .retain(|below, _| below == folder || !below.starts_with(folder));
            } else {
                let hidden = folder.join(std::ffi::OsStr::from_bytes(mark));
                self.0.retain(|below, _| !below.starts_with(&hidden));
            }
        }
        for path in objects.into_iter().filter(|path| mark(path).is_none()) {
            let is_folder = layer.join(&path).symlink_metadata().unwrap().is_dir();
            if !is_folder {
                self.0.retain(|below, _| !below.starts_with(&path));
            }
            self.0.insert(path, is_folder);
        }
    }

    fn is_folder(&self, path: &Path) -> bool {
        self.0.get(path) == Some(&true)
    }
}

/// What a mark hides.
fn mark(path: &Path) -> Option<&[u8]> {
    path.file_name()?.as_bytes().strip_prefix(MARK.as_bytes())
}

/// All paths below `root`, itself (empty) first, parents before what is in them.
fn objects(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while next < found.len() {
        let path = root.join(&found[next]);
        if path.symlink_metadata().unwrap().is_dir() {
            let below = fs::read_dir(path).unwrap();
            let below: Vec<_> = below
                .map(|entry| found[next].join(entry.unwrap().file_name()))
                .collect();
            found.extend(below);
        }
        next += 1;
    }
    found
}

/// The folder of the layer that is at `path`, made where it is missing; none if the layer has something else there.
fn folder(layer: &Path, path: &Path) -> Option<PathBuf> {
    let mut at = layer.to_owned();
    for part in path {
        if at.join(marked(part)).exists() {
            return None;
        }
        at.push(part);
        match at.symlink_metadata() {
            Ok(status) if !status.is_dir() => return None,
            Ok(_) => {}
            Err(_) => fs::create_dir(&at).unwrap(),
        }
    }
    Some(at)
}

fn marked(name: &std::ffi::OsStr) -> std::ffi::OsString {
    let mut marked = std::ffi::OsString::from(MARK);
    marked.push(name);
    marked
}

/// Fill `layer` with changes of what is shown below it.
fn change(layer: &Path, below: &Shown, random: &mut fastrand::Rng) {
    let paths: Vec<&PathBuf> = below.0.keys().collect();
    for number in 0..CHANGES_A_LAYER {
        let path = paths[random.usize(..paths.len())];
        if random.u8(..3) == 0 {
            let Some(folder) = below.is_folder(path).then(|| folder(layer, path)).flatten() else {
                continue;
            };
            if random.u8(..4) == 0 && !path.as_os_str().is_empty() {
                fs::write(folder.join(OPAQUE), "").unwrap();
            } else {
                let name = name(random, 1000 + number);
                fs::write(folder.join(std::ffi::OsStr::from_bytes(&name)), "new").unwrap();
            }
            continue;
        }
        let Some(name) = path.file_name() else { continue };
        let Some(folder) = folder(layer, path.parent().unwrap()) else {
            continue;
        };
        let place = folder.join(name);
        // A whiteout beside what the same layer puts there is no honest layer's.
        if place.symlink_metadata().is_ok() || folder.join(marked(name)).exists() {
            continue;
        }
        match random.u8(..5) {
            0 | 1 => fs::write(folder.join(marked(name)), "").unwrap(),
            2 => fs::write(&place, "in its place").unwrap(),
            3 => std::os::unix::fs::symlink("elsewhere", &place).unwrap(),
            _ => {
                fs::create_dir(&place).unwrap();
                fs::write(place.join("within"), "").unwrap();
            }
        }
    }
    for path in objects(layer).iter().rev().filter(|path| mark(path).is_none()) {
        dress(&layer.join(path), random);
    }
}

/// Whether a layer may leave the entry of a folder out, as many builders do: it is then as it was below.
fn needs_no_entry(layer: &Path, path: &Path, below: &Shown) -> bool {
    let is_hidden = path
        .ancestors()
        .skip(1)
        .any(|above| layer.join(above).join(OPAQUE).exists());
    below.is_folder(path) && !is_hidden && layer.join(path).is_dir()
}

/// Pack a layer by GNU tar, its entries in the order of its folders on disk.
fn pack(layer: &Path, below: &Shown, random: &mut fastrand::Rng) -> made::Layer {
    let mut list = Vec::new();
    for path in objects(layer) {
        if needs_no_entry(layer, &path, below) && random.bool() {
            continue;
        }
        list.extend([Path::new(".").join(path).as_os_str().as_bytes(), b"\0"].concat());
    }
    let mut tar = Command::new("tar")
        .args([
            "--format=posix",
            "--xattrs",
            "--xattrs-include=*",
            "-cf",
            "-",
            "-C",
        ])
        .arg(layer)
        .args(["--no-recursion", "--null", "--no-unquote", "-T", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut names = tar.stdin.take().unwrap();
    let writing = std::thread::spawn(move || names.write_all(&list).unwrap());
    let output = tar.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success());
    made::layer(&output.stdout, Packing::Gzip)
}

/// umoci does not put back the time of each folder that it has changed something in. Those that it has touched take
/// the time that `other` has; all others are compared.
fn take_times(by_umoci: &Path, other: &Path, unpacking: Range<SystemTime>) {
    for path in objects(by_umoci) {
        let status = by_umoci.join(&path).symlink_metadata().unwrap();
        if status.is_dir() && unpacking.contains(&status.modified().unwrap()) {
            let modified = other.join(&path).metadata().unwrap().modified().unwrap();
            let folder = fs::File::open(by_umoci.join(&path)).unwrap();
            folder.set_modified(modified).unwrap();
        }
    }
}

/// An overlay that is taken away again.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_layers_show_what_umoci_makes_of_them() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: owners, devices and mounts need root");
        return;
    }
    let mut random = fastrand::Rng::with_seed(seed());
    let places = Place::of_each_form().await;
    for number in 0..IMAGES {
        let place = &places[number % places.len()];
        let folder = tempfile::tempdir().unwrap();
        let mut shown = Shown::default();
        let mut packed = Vec::new();
        for layer in 0..3 {
            let tree = folder.path().join(format!("layer{layer}"));
            fs::create_dir(&tree).unwrap();
            if layer == 0 {
                grow(&tree, &mut random);
            } else {
                change(&tree, &shown, &mut random);
            }
            packed.push(pack(&tree, &shown, &mut random));
            shown.apply(&tree);
        }
        let image = made::image(&packed);
        let [layout, bundle, merged, exported] =
            ["layout", "bundle", "merged", "exported"].map(|name| folder.path().join(name));
        image.write_layout(&layout, "v1");
        let tagged = format!("{}:v1", layout.display());
        let started = SystemTime::now();
        run(Command::new("umoci")
            .args(["unpack", "--image", &tagged])
            .arg(&bundle));
        let by_umoci = bundle.join("rootfs");

        let server = Server::with(image);
        let pulled = place.pull(&server.reference()).await.unwrap();
        let container = format!("layers{number}");
        let rootfs = place.images.prepare(&pulled, &container).unwrap();
        fs::create_dir(&merged).unwrap();
        let options = rootfs.overlay_options().join(",");
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&merged));
        let mounted = Mounted(&merged);
        take_times(&by_umoci, &merged, started..SystemTime::now());
        assert_same(&format!("image {number} beside umoci"), &by_umoci, &merged);
        drop(mounted);

        let archive = folder.path().join("exported.tar");
        let stream = fs::File::create(&archive).unwrap();
        let nobody_leaves = tokio_util::sync::CancellationToken::new();
        place.images.export(&container, &nobody_leaves, stream).unwrap();
        fs::create_dir(&exported).unwrap();
        let mut unpack = Command::new("tar");
        unpack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
        run(unpack.arg(&archive).arg("-C").arg(&exported));
        assert_same(&format!("image {number} exported"), &by_umoci, &exported);
    }
    check_images(&places);
}
