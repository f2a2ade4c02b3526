//! A disk that fails under the page cache: writes are taken, and turn out to be lost when they are to be made durable.
//! Needs root, for a loop mount over a file in a tmpfs that is too small for it.

mod fixture;

use std::path::PathBuf;
use std::process::Command;

use fixture::made::{self, Entry, Made, Packing};
use fixture::run;
use fixture::scripted::Server;
use image::{Image, Images, Kind, PullOptions};

const DISK_BYTES: u64 = 96 << 20;
/// Room for an empty ext4 and a small image.
const BACKED_BYTES: u64 = 24 << 20;

/// An ext4 whose device fails beyond the first writes, until [`FailingDisk::mend`].
struct FailingDisk {
    folder: tempfile::TempDir,
}

impl FailingDisk {
    fn new() -> FailingDisk {
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
        run(Command::new("mkfs.ext4").arg("-q").arg(&file));
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

    /// Take the disk away, give its device room, repair what its failure has left, and bring it back.
    fn mend(&self) {
        run(Command::new("umount").arg(self.path()));
        let backing = self.folder.path().join("backing");
        run(Command::new("mount")
            .args(["-o", &format!("remount,size={}", 2 * DISK_BYTES)])
            .arg(&backing));
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
    images
        .pull(&registry.reference(), PullOptions::default(), &|_| {})
        .await
}

fn ids(images: &Images) -> Vec<String> {
    images.list().unwrap().into_iter().map(|image| image.id).collect()
}

fn image_of(bytes: usize, seed: u64) -> Made {
    let contents = made::noise(bytes, seed);
    made::image(&[made::layer(
        &made::tar(&[Entry::File("contents", &contents)]),
        Packing::Gzip,
    )])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failing_disk_has_lost_is_never_called_ready() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it makes mounts, for which it has to be root");
        return;
    }
    let disk = FailingDisk::new();
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
