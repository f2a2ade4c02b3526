//! Layers as attackers write them, a class of known holes each: those that unpackers of containers and tar readers
//! have had. Each is refused, or does nothing outside of its layer; the one error names the layer, the entry and the
//! rule, and nothing of the image stays.

#[path = "../fixture/mod.rs"]
mod fixture;
mod links;
mod names;
mod privileges;
mod readers;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fixture::Place;
use fixture::made::{self, Packing};
use fixture::raw::Tar;
use fixture::scripted::Server;
use image::{Error, Image, Kind, Rootfs};

/// What is wrong with a layer, its entry as the error names it (or nothing), and a part of the rule.
type Attack<'a> = (&'a str, Tar, &'a str, &'a str);

fn tar() -> Tar {
    Tar::default()
}

async fn pull(place: &Place, tar: &Tar) -> (Result<Image, Error>, String) {
    let image = made::image(&[made::layer(&tar.0, Packing::Gzip)]);
    let digest = image.layers[0].clone();
    let server = Server::with(image);
    (place.pull(&server.reference()).await, digest)
}

/// Pull each as the only layer of an image, into stores of each form, and look at the error and at what is left.
async fn are_refused(attacks: Vec<Attack<'_>>) {
    let places = Place::of_each_form().await;
    for (name, tar, entry, rule) in attacks {
        for place in &places {
            is_refused(place, name, &tar, entry, rule).await;
        }
    }
}

async fn is_refused(place: &Place, name: &str, tar: &Tar, entry: &str, rule: &str) {
    let (pulled, digest) = pull(place, tar).await;
    let error = pulled.err().unwrap_or_else(|| panic!("{name}: was pulled"));
    assert_eq!(error.kind(), Kind::Invalid, "{name}: {error}");
    let text = error.to_string();
    assert!(text.contains(&digest), "{name} does not name its layer: {text}");
    assert!(text.contains(rule), "{name} should say {rule:?}: {text}");
    if !entry.is_empty() {
        let named = format!("entry {entry:?}");
        assert!(text.contains(&named), "{name} should name {named}: {text}");
    }
    assert!(!text.contains(char::is_control), "{name}: {text:?}");
    assert_eq!(place.left_over(), Vec::<std::path::PathBuf>::new(), "{name}");
}

/// Pull it as the only layer of an image, and give a container's root file system of it.
async fn is_unpacked(place: &Place, tar: Tar) -> Rootfs {
    let image = pull(place, &tar).await.0.unwrap();
    place.images.prepare(&image, "container").unwrap()
}

/// A folder of the host with a file that no layer may touch.
fn host() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "untouched").unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

fn assert_untouched(host: &Path) {
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "untouched");
    let file = host.join("file").metadata().unwrap();
    assert_eq!((file.nlink(), file.mode() & 0o7777), (1, 0o644));
    assert_eq!(std::fs::read_dir(host).unwrap().count(), 1);
}
