//! The check of the store, beyond what a client of the manager sees of it.

mod fixture;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fixture::Place;
use fixture::made::{self, Entry, Packing};
use fixture::scripted::Server;
use image::{AuditEvent, Error, Finding, Images};

/// Findings as `file PATH` or the like, and the reasons of what was not checked.
fn check(images: &Images, names: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut found, mut not) = (Vec::new(), Vec::new());
    let checked = images.audit(names, &mut |event| {
        match event {
            AuditEvent::Progress(_) => {}
            AuditEvent::Finding(Finding::File { path, .. }) => {
                found.push(format!("file {}", String::from_utf8_lossy(&path)));
            }
            AuditEvent::Finding(other) => found.push(format!("{}: {}", other.kind(), other.what())),
            AuditEvent::NotChecked { reason, .. } => not.push(reason),
        }
        true
    });
    checked.unwrap();
    (found, not)
}

fn folder_with(root: &Path, file: &str) -> PathBuf {
    let layers = fs::read_dir(root.join("s")).unwrap();
    let mut layers = layers.map(|layer| layer.unwrap().path());
    layers.find(|layer| layer.join(file).exists()).unwrap()
}

/// A layer that takes a folder's looks, a file and the sense of a whiteout from the one below.
fn image() -> made::Made {
    let lower = made::tar(&[
        Entry::Folder("./", 0o755),
        Entry::Folder("d", 0o700),
        Entry::File("d/file", b"contents"),
        Entry::File("hidden", b""),
        Entry::File("only-below", b""),
    ]);
    let upper = made::tar(&[
        Entry::File("d/own", b""),
        Entry::HardLink("link", "d/file"),
        Entry::File(".wh.hidden", b""),
    ]);
    made::image(&[
        made::layer(&lower, Packing::Gzip),
        made::layer(&upper, Packing::Zstd),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_below_is_not_told_of_the_layers_above() {
    let server = Server::with(image());
    let place = Place::new().await;
    place.pull(&server.reference()).await.unwrap();
    assert_eq!(check(&place.images, &[]), (vec![], vec![]));
    let folder = place.close();
    let images = Images::open(folder.path()).await.unwrap();
    let lower = folder_with(folder.path(), "only-below");
    fs::set_permissions(lower.join("d"), fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(lower.join("d/file"), "longer contents").unwrap();
    fs::remove_file(lower.join("hidden")).unwrap();
    let (found, not) = check(&images, &[]);
    assert_eq!(found, ["file ", "file d", "file hidden", "file d/file"]);
    assert!(not.is_empty(), "{not:?}");
    // What the upper layer has itself is told as ever.
    fs::write(folder_with(folder.path(), "d/own").join("d/own"), "x").unwrap();
    assert_eq!(check(&images, &[]).0.last().unwrap(), "file d/own");
    fs::remove_file(lower.join("d/file")).unwrap();
    let (found, not) = check(&images, &[]);
    assert!(found.iter().all(|line| line.starts_with("file ")), "{found:?}");
    assert!(
        not.len() == 1 && not[0].starts_with("a layer below it differs: "),
        "{not:?}"
    );
    fs::remove_dir_all(lower).unwrap();
    let (found, not) = check(&images, &[]);
    assert_eq!(found, ["layer: it is not there"]);
    assert_eq!(not, ["a layer below it is not there"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_ends_when_nobody_listens() {
    let server = Server::with(image());
    let place = Place::new().await;
    place.pull(&server.reference()).await.unwrap();
    let whole = place.left_over();
    let mut told = 0;
    let ended = place.images.audit(&[], &mut |_| {
        told += 1;
        told < 3
    });
    assert!(matches!(ended, Err(Error::CheckCancelled)), "{ended:?}");
    assert_eq!((told, place.left_over()), (3, whole));
}
