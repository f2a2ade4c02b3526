//! Trees and layers made at random, unpacked by us and by others: every attribute has to be the same. `BERTH_SEED`
//! repeats a run.

#[path = "../fixture/mod.rs"]
mod fixture;
mod layers;
mod trees;

use std::process::Command;

use fixture::Place;
use fixture::made::{self, Packing};
use fixture::scripted::Server;
use trees::{assert_same, grow};

const TREES: usize = 6;

fn seed() -> u64 {
    let seed = std::env::var("BERTH_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BERTH_SEED={seed}");
    seed
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Let erofs-utils read all layers that are images.
fn check_images(places: &[Place]) {
    let layers = places
        .iter()
        .flat_map(|place| std::fs::read_dir(place.root().join("s")).unwrap());
    let layers = layers.map(|layer| layer.unwrap().path());
    for image in layers.filter(|layer| layer.is_file()) {
        run(Command::new("fsck.erofs").arg("--extract").arg(&image));
    }
}

/// GNU tar's ways to write what ustar has no room for, and holes.
const FORMATS: [&[&str]; 5] = [
    &["--format=posix"],
    &["--format=posix", "--sparse"],
    &["--format=posix", "--sparse", "--sparse-version=0.0"],
    &["--format=posix", "--sparse", "--sparse-version=0.1"],
    &["--format=gnu", "--sparse"],
];

#[tokio::test(flavor = "multi_thread")]
async fn random_trees_come_out_as_gnu_tar_and_umoci_unpack_them() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: owners and devices need root");
        return;
    }
    let mut random = fastrand::Rng::with_seed(seed());
    let places = Place::of_each_form().await;
    for number in 0..TREES {
        let folder = tempfile::tempdir().unwrap();
        let [tree, by_tar, archive] = ["tree", "by-tar", "a.tar"].map(|name| folder.path().join(name));
        std::fs::create_dir(&tree).unwrap();
        std::fs::create_dir(&by_tar).unwrap();
        grow(&tree, &mut random);
        let format = FORMATS[number % FORMATS.len()];
        let mut pack = Command::new("tar");
        pack.args(format).args(["--xattrs", "--xattrs-include=*", "-cf"]);
        run(pack.arg(&archive).arg("-C").arg(&tree).arg("."));
        let mut unpack = Command::new("tar");
        unpack.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
        run(unpack.arg(&archive).arg("-C").arg(&by_tar));

        let packing = [Packing::Gzip, Packing::Zstd, Packing::Plain][number % 3];
        let image = made::image(&[made::layer(&std::fs::read(&archive).unwrap(), packing)]);
        let server = Server::with(image.clone());
        let mut ours = Vec::new();
        for place in &places {
            let pulled = place.pull(&server.reference()).await.unwrap();
            let rootfs = place.images.prepare(&pulled, &format!("c{number}")).unwrap();
            let layer = rootfs.lower[0].clone();
            let what = format!("tree {number} in {} beside GNU tar, {format:?}", layer.display());
            assert_same(&what, &by_tar, &layer);
            ours.push(layer);
        }

        // umoci's reader of tar knows the formats, but not GNU's base-256 times, nor zstd.
        if format[0] == "--format=posix" && !matches!(packing, Packing::Zstd) {
            let [layout, bundle] = ["layout", "bundle"].map(|name| folder.path().join(name));
            image.write_layout(&layout, "v1");
            let tagged = format!("{}:v1", layout.display());
            run(Command::new("umoci")
                .args(["unpack", "--image", &tagged])
                .arg(&bundle));
            let what = format!("tree {number} beside umoci, {format:?}");
            for layer in ours {
                assert_same(&what, &bundle.join("rootfs"), &layer);
            }
        }
    }
    check_images(&places);
}
