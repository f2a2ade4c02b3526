//! What the store keeps, for whom, and what it lets go: names, leases, shared layers, and a process that died.

mod fixture;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};

use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::{Reply, Server, good};
use fixture::{Place, eventually, left_over};
use image::{Images, Kind};

fn layer(name: &str) -> made::Layer {
    made::layer(
        &made::tar(&[Entry::Folder("./", 0o711), Entry::File(name, name.as_bytes())]),
        Packing::Gzip,
    )
}

/// Two images over one base.
fn relatives() -> (Made, Made) {
    let base = layer("base");
    (
        made::image(&[base.clone(), layer("a")]),
        made::image(&[base, layer("b")]),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_share_layers_keep_them_until_the_last_goes() {
    let (a, b) = relatives();
    let (server_a, server_b) = (Server::with(a.clone()), Server::with(b.clone()));
    let place = Place::new().await;
    place.pull(&server_a.reference()).await.unwrap();
    place.pull(&server_b.reference()).await.unwrap();
    assert_eq!(server_b.count("GET", &b.layers[0]), 0, "the base is here");
    let folders = || std::fs::read_dir(place.root().join("s")).unwrap().count();
    assert_eq!(folders(), 4);
    let removed = place.images.remove(&server_a.reference(), false).unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec![server_a.reference()], vec![a.id])
    );
    assert_eq!(folders(), 3);
    let image = place.images.get(&b.id).unwrap();
    let rootfs = place.images.prepare(&image, "c").unwrap();
    assert_eq!(std::fs::read(rootfs.lower[1].join("base")).unwrap(), b"base");
    place.images.release("c").unwrap();
    place.images.remove(&b.id, false).unwrap();
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_use_loses_at_most_its_names() {
    let server = Server::with(relatives().0);
    let place = Place::new().await;
    let images = &place.images;
    let pulled = place.pull(&server.reference()).await.unwrap();
    images.prepare(&pulled, "first").unwrap();
    images.prepare(&pulled, "second").unwrap();
    assert_eq!(images.leases().unwrap(), ["first", "second"]);
    for name in [&server.reference(), &pulled.id] {
        let error = images.remove(name, false).unwrap_err();
        assert_eq!(error.kind(), Kind::InUse);
        assert!(error.to_string().contains("container first"), "{error}");
    }
    let removed = images.remove(&server.reference(), true).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    images.rootfs("first").unwrap();
    images.release("first").unwrap();
    images.release("first").unwrap();
    images.release("second").unwrap();
    assert_eq!(images.remove(&pulled.id, false).unwrap().deleted, [pulled.id]);
    assert!(place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_of_several_goes_alone() {
    let server = Server::with(relatives().0);
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let by_digest = format!("127.0.0.1:{}/app@{}", server.port, pulled.manifest_digest);
    place.pull(&by_digest).await.unwrap();
    place.images.prepare(&pulled, "c").unwrap();
    let error = place.images.remove(&pulled.id, false).unwrap_err();
    assert!(error.to_string().contains("several names"), "{error}");
    let removed = place.images.remove(&server.reference(), false).unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec![server.reference()], vec![])
    );
    assert_eq!(place.images.get(&by_digest).unwrap().names, [by_digest]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_by_name_and_by_the_beginning_of_their_id() {
    let server = Server::with(relatives().0);
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let hex = pulled.id.strip_prefix("sha256:").unwrap();
    for text in [
        &server.reference(),
        &pulled.id,
        hex,
        &hex[..12],
        &hex[..4],
        &pulled.id[..15],
    ] {
        assert_eq!(place.images.get(text).unwrap().id, pulled.id, "{text}");
    }
    let wrong = if hex.starts_with('0') { "1" } else { "0" };
    for text in ["debian", wrong, "sha256:", "sha256:zz", &"f".repeat(64)] {
        assert_eq!(
            place.images.get(text).unwrap_err().kind(),
            Kind::NotFound,
            "{text}"
        );
    }
    assert_eq!(place.images.get("A/../b").unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_folders_of_its_own_once() {
    let server = Server::with(relatives().0);
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let rootfs = place.images.prepare(&pulled, "c").unwrap();
    assert_eq!(
        rootfs.upper.metadata().unwrap().mode() & 0o7777,
        0o711,
        "the root looks like the image's"
    );
    assert_eq!(place.images.rootfs("c").unwrap(), rootfs);
    assert_eq!(
        place.images.prepare(&pulled, "c").unwrap_err().kind(),
        Kind::InUse
    );
    assert_eq!(
        place.images.prepare(&pulled, "../c").unwrap_err().kind(),
        Kind::Invalid
    );
    std::fs::write(rootfs.upper.join("written"), "x").unwrap();
    place.images.release("c").unwrap();
    assert!(!rootfs.upper.exists());
    assert_eq!(place.images.rootfs("c").unwrap_err().kind(), Kind::NotFound);
    place.images.remove(&pulled.id, false).unwrap();
    assert_eq!(
        place.images.prepare(&pulled, "c").unwrap_err().kind(),
        Kind::NotFound
    );
    assert!(place.images.leases().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_finds_what_was_ready_and_nothing_else() {
    let server = Server::with(relatives().0);
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let rootfs = place.images.prepare(&pulled, "kept").unwrap();
    std::fs::write(rootfs.upper.join("written"), "x").unwrap();
    let folder = place.close();
    let root = folder.path();
    for stray in ["tmp/7", "s/900", "containers/orphan/upper", "blobs/sha256/half"] {
        std::fs::create_dir_all(root.join(stray).join("deep")).unwrap();
    }
    let before = left_over(root).len();
    let images = Images::open(root).await.unwrap();
    assert_eq!(left_over(root).len(), before - 4, "the four strays are gone");
    assert_eq!(images.get(&server.reference()).unwrap().id, pulled.id);
    assert_eq!(images.leases().unwrap(), ["kept"]);
    assert_eq!(
        std::fs::read(images.rootfs("kept").unwrap().upper.join("written")).unwrap(),
        b"x"
    );
    let error = Images::open(root).await.err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_somebody_deleted_is_made_again() {
    let server = Server::with(relatives().0);
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    for entry in std::fs::read_dir(place.root().join("s")).unwrap().flatten() {
        if entry.file_name() != "0" {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    place.pull(&server.reference()).await.unwrap();
    let rootfs = place.images.prepare(&pulled, "c").unwrap();
    assert_eq!(std::fs::read(rootfs.lower[1].join("base")).unwrap(), b"base");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_overlay_mounts_cannot_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a:b", "a,b", "a\\b"] {
        let error = Images::open(&folder.path().join(name)).await.err().unwrap();
        assert!(error.to_string().contains("overlay"), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Mounted by the kernel, the layers look as the image's author saw them. Needs root.
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_shows_layers_as_one_tree() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let base = made::tar(&[
        Entry::Folder("./", 0o755),
        Entry::Folder("tmp/", 0o1777),
        Entry::Folder("d/", 0o755),
        Entry::File("d/old", b""),
        Entry::Folder("whole/", 0o755),
        Entry::File("whole/old", b""),
        Entry::Folder("again/", 0o755),
        Entry::File("again/old", b""),
        Entry::File("changed", b"before"),
    ]);
    let top = made::tar(&[
        Entry::File("tmp/new", b""),
        Entry::File("d/.wh.old", b""),
        Entry::Folder("whole/", 0o755),
        Entry::File("whole/.wh..wh..opq", b""),
        Entry::File("whole/new", b""),
        Entry::File(".wh.again", b""),
        Entry::Folder("again/", 0o755),
        Entry::File("again/new", b""),
        Entry::File("changed", b"after"),
    ]);
    let image = made::image(&[
        made::layer(&base, Packing::Gzip),
        made::layer(&top, Packing::Zstd),
    ]);
    let server = Server::with(image);
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let rootfs = place.images.prepare(&pulled, "c").unwrap();
    let target = place.root().join("mounted");
    std::fs::create_dir(&target).unwrap();
    // In a mount namespace of its own, so that nothing stays mounted whatever happens.
    let look = "mount -t overlay overlay -o \"$1\" \"$2\" && cd \"$2\" && echo x > written \
        && find . -mindepth 1 | sort && stat -c %a tmp && cat changed";
    let options = rootfs.overlay_options().join(",");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-ec", look, "look", &options])
        .arg(&target)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let tree = "./again\n./again/new\n./changed\n./d\n./tmp\n./tmp/new\n./whole\n./whole/new\n./written\n";
    assert_eq!(
        text,
        format!("{tree}1777\nafter"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(rootfs.upper.join("written").exists());
    place.images.release("c").unwrap();
}

/// The process that the next test kills. Alone it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle() {
    let Some(root) = std::env::var_os("STORE_ROOT").map(PathBuf::from) else {
        return;
    };
    let images = Images::open(&root).await.unwrap();
    let reference = std::env::var("STORE_REFERENCE").unwrap();
    images
        .pull(&reference, image::PullOptions::default(), &|_| {})
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_process_was_killed_comes_back_clean() {
    let (ready, half) = relatives();
    let ready_server = Server::with(ready);
    let offered = half.clone();
    let half_server = Server::start(move |request, _| match good(request, &offered) {
        Reply::Answer(code, headers, body) if request.path.ends_with(offered.layers[1].as_str()) => {
            Reply::Stall(code, headers, body, 20)
        }
        reply => reply,
    });
    let place = Place::new().await;
    place.pull(&ready_server.reference()).await.unwrap();
    let before = place.left_over();
    let folder = place.close();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_in_the_middle"])
        .env("STORE_ROOT", folder.path())
        .env("STORE_REFERENCE", half_server.reference())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the layer is being unpacked", || {
        half_server.count("GET", &half.layers[1]) == 1
    })
    .await;
    eventually("its folder is there", || {
        left_over(folder.path()).len() > before.len()
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    let images = Images::open(folder.path()).await.unwrap();
    let mut after = left_over(folder.path());
    let mut before = before;
    before.sort();
    after.sort();
    assert_eq!(after, before);
    assert_eq!(images.list().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_goes_while_its_registry_is_asked_for_it_is_pulled_again() {
    let (image, _) = relatives();
    let (offered, images) = (image.clone(), Arc::new(OnceLock::<Images>::new()));
    let doomed = Arc::clone(&images);
    let server = Server::start(move |request, _| {
        if let (true, Some(images)) = (request.method == "HEAD", doomed.get()) {
            images.remove(&offered.id, true).unwrap();
        }
        good(request, &offered)
    });
    let place = Place::new().await;
    place.pull(&server.reference()).await.unwrap();
    images.set(place.images.clone()).ok();
    let again = place.pull(&server.reference()).await.unwrap();
    assert_eq!((again.id, server.count("HEAD", "/manifests/v1")), (image.id, 1));
    assert_eq!(again.names, [server.reference()]);
    assert_eq!(
        server.count("GET", &image.layers[0]),
        1,
        "what the first pull unpacked was held"
    );
}
