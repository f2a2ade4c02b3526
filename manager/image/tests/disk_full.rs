//! A disk that is full: the pull fails whole and gives back what it took. Needs root, for a small loop mount.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::left_over;
use fixture::made::{self, Entry, Packing};
use fixture::run;
use fixture::scripted::Server;
use image::{Images, Kind, PullOptions};

/// A small ext4, mounted until the value goes.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new(mkfs_options: &[&str]) -> SmallDisk {
        let folder = tempfile::tempdir().unwrap();
        let disk = SmallDisk { folder };
        let file = disk.folder.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(24 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").args(mkfs_options).arg(&file));
        std::fs::create_dir(disk.path()).unwrap();
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&file)
            .arg(disk.path()));
        disk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also ends a mount that never came to be; the loop device goes with it.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

fn free(path: &Path) -> (u64, u64) {
    let status = rustix::fs::statvfs(path).unwrap();
    (status.f_bfree * status.f_frsize, status.f_ffree)
}

async fn refused_then_fine(disk: &SmallDisk, too_much: made::Made) {
    let root = disk.path().join("store");
    let images = Images::open(&root).await.unwrap();
    let too_much = Server::with(too_much);
    let before = free(&root);
    let pull = async |reference: &str| images.pull(reference, PullOptions::default(), &|_| {}).await;
    let error = pull(&too_much.reference()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal, "{error}");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert!(left_over(&root).is_empty());
    // ext4 frees after the fact, when its journal commits.
    rustix::fs::syncfs(std::fs::File::open(&root).unwrap()).unwrap();
    let after = free(&root);
    assert!(
        after.0 + (1 << 20) > before.0 && after.1 >= before.1,
        "{before:?} then {after:?}"
    );
    let fits = made::image(&[made::layer(
        &made::tar(&[Entry::File("a", b"small")]),
        Packing::Gzip,
    )]);
    let fits = Server::with(fits);
    let image = fixture::image_of(pull(&fits.reference()).await.unwrap());
    images.prepare(&image, "c").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_larger_than_the_disk_leaves_it_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::new(&[]);
    let contents = made::noise(16 << 20, 9);
    let layer = |name| made::layer(&made::tar(&[Entry::File(name, &contents)]), Packing::Gzip);
    refused_then_fine(&disk, made::image(&[layer("a"), layer("b")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_files_than_the_disk_has_inodes_leave_it_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::new(&["-N", "200"]);
    let names: Vec<String> = (0..400).map(|i| format!("file{i}")).collect();
    let entries: Vec<Entry> = names.iter().map(|name| Entry::File(name, b"")).collect();
    refused_then_fine(
        &disk,
        made::image(&[made::layer(&made::tar(&entries), Packing::Zstd)]),
    )
    .await;
}
