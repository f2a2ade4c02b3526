//! A disk that fails under the page cache: writes are taken, and turn out to be lost when they are to be made durable.
//! Needs root, for a loop mount over a file in a tmpfs that is too small for it.

mod fixture;

use std::path::PathBuf;
use std::process::Command;

use fixture::made::{self, Entry, Made, Packing};
use fixture::run;
use fixture::scripted::{Server, good};
use image::{Image, Images, Kind, PullOptions};

const DISK_BYTES: u64 = 96 << 20;
/// Room for an empty ext4 and a small image.
const BACKED_BYTES: u64 = 24 << 20;

/// An ext4 whose device fails beyond the first writes, until [`FailingDisk::mend`].
struct FailingDisk {
    folder: tempfile::TempDir,
}

impl FailingDisk {
    fn new(mkfs_options: &[&str]) -> FailingDisk {
        let disk = FailingDisk {
            folder: tempfile::tempdir().unwrap(),
        };
        let backing = disk.folder.path().join("backing");
        std::fs::create_dir(&backing).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={BACKED_BYTES}"), "backing"])
            .arg(&backing));
        let file = backing.join("disk");
        std::fs::File::create(&file).unwrap().set_len(DISK_BYTES).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").args(mkfs_options).arg(&file));
        disk.mount();
        disk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn mount(&self) {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(self.folder.path().join("backing/disk"))
            .arg(self.path()));
    }

    fn give_room(&self) {
        run(Command::new("mount")
            .args(["-o", &format!("remount,size={}", 2 * DISK_BYTES)])
            .arg(self.folder.path().join("backing")));
    }

    /// Take the disk away, give its device room, repair what its failure has left, and bring it back.
    fn mend(&self) {
        // What the store did in the background when it was dropped has its files open for a moment more.
        let is_unmounted = || {
            let ended = Command::new("umount").arg(self.path()).output();
            ended.unwrap().status.success()
        };
        let begun = std::time::Instant::now();
        while !is_unmounted() {
            assert!(begun.elapsed().as_secs() < 30, "the disk is in use");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let backing = self.folder.path().join("backing");
        self.give_room();
        let repaired = Command::new("e2fsck")
            .arg("-fy")
            .arg(backing.join("disk"))
            .output()
            .unwrap();
        assert!(
            repaired.status.code().is_some_and(|code| code <= 1),
            "{repaired:?}"
        );
        self.mount();
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        // Also ends mounts that never came to be; the loop device goes with its mount.
        let _ = Command::new("umount").arg(self.path()).status();
        let _ = Command::new("umount")
            .arg(self.folder.path().join("backing"))
            .status();
    }
}

async fn pull(images: &Images, image: Made) -> Result<Image, image::Error> {
    let registry = Server::with(image);
    let reference = registry.reference();
    let pulled = images.pull(&reference, PullOptions::default(), &|_| {});
    Ok(fixture::image_of(pulled.await?))
}

fn ids(images: &Images) -> Vec<String> {
    images
        .list()
        .unwrap()
        .into_iter()
        .map(|kept| kept.id().to_owned())
        .collect()
}

fn image_of(bytes: usize, seed: u64) -> Made {
    let contents = made::noise(bytes, seed);
    made::image(&[made::layer(
        &made::tar(&[Entry::File("contents", &contents)]),
        Packing::Gzip,
    )])
}

fn noise_in_two_layers(bytes: usize, seed: u64) -> Made {
    let contents = made::noise(bytes, seed);
    let layer = |name, contents| made::layer(&made::tar(&[Entry::File(name, contents)]), Packing::Gzip);
    made::image(&[layer("contents", &contents), layer("last", b"small")])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failing_disk_has_lost_is_never_called_ready() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it makes mounts, for which it has to be root");
        return;
    }
    let disk = FailingDisk::new(&[]);
    let root = disk.path().join("store");
    let images = Images::open(&root).await.unwrap();
    let small = pull(&images, image_of(1 << 20, 1)).await.unwrap();

    let error = pull(&images, image_of(32 << 20, 2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal, "{error}");
    let source = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let told = format!("{error}: {source}");
    assert!(
        [
            "Input/output error",
            "disk I/O error",
            "No space left",
            "Read-only file system"
        ]
        .iter()
        .any(|reason| told.contains(reason)),
        "{told}"
    );
    assert_eq!(ids(&images), [&*small.id]);
    drop(images);

    disk.mend();
    let images = Images::open(&root).await.unwrap();
    assert_eq!(ids(&images), [&*small.id]);
    let rootfs = images.prepare(&small, "container").unwrap();
    assert!(std::fs::read(rootfs.lower[0].join("contents")).unwrap() == made::noise(1 << 20, 1));
    pull(&images, image_of(32 << 20, 2)).await.unwrap();
}

/// The kernel tells of a lost write once. Whose it was, it does not say: another pull is told, and the disk is well again
/// when the one that has lost something asks.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_pull_was_told_of_is_not_called_ready() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it makes mounts, for which it has to be root");
        return;
    }
    // A journal that fails makes the file system read-only, and all is told again and again.
    let disk = FailingDisk::new(&["-O", "^has_journal"]);
    let root = disk.path().join("store");
    let images = Images::open(&root).await.unwrap();
    let (large, small) = (noise_in_two_layers(32 << 20, 3), image_of(1 << 10, 4));
    let (top, last_layer) = (large.top.clone(), large.layers[1].clone());
    let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
    let script_gate = std::sync::Arc::clone(&gate);
    let registry = Server::start(move |request, _| {
        if request.path.ends_with(&last_layer) {
            script_gate.wait();
        }
        good(request, &large)
    });
    let unready = {
        let (images, reference) = (images.clone(), registry.reference());
        tokio::spawn(async move { images.pull(&reference, PullOptions::default(), &|_| {}).await })
    };
    fixture::eventually("the first layer is unpacked", || {
        let layers = std::fs::read_dir(root.join("s")).unwrap().flatten();
        layers
            .filter_map(|layer| layer.path().join("contents").metadata().ok())
            .any(|file| file.len() == 32 << 20)
    })
    .await;
    pull(&images, small).await.unwrap_err();
    disk.give_room();
    tokio::task::spawn_blocking(move || gate.wait()).await.unwrap();
    let error = unready.await.unwrap().unwrap_err();

    assert!(error.to_string().contains("Input/output error"), "{error}");
    assert!(ids(&images).is_empty(), "{top}");
}
