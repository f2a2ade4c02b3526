//! A full disk, and a database that cannot be written: nothing that was told is forgotten, and what is removed
//! makes room.

use integration::{Manager, Sandbox, eventually, run};
use nix::sys::statvfs::statvfs;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small ext4 that is mounted until the value goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    #[track_caller]
    fn at(file: &Path, mount_point: &Path) -> Self {
        fs::File::create(file)
            .and_then(|file| file.set_len(64 << 20))
            .expect("make the disk");
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(file)).ok();
        fs::create_dir_all(mount_point).expect("make the mount point");
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(file)
            .arg(mount_point))
        .ok();
        Self(mount_point.to_owned())
    }

    /// Take all that is free.
    fn fill(&self, filler: &Path) {
        let mut file = fs::File::create(filler).expect("make the filler");
        for piece in [1 << 20, 4096, 1] {
            while file
                .write_all(&vec![1; piece])
                .and_then(|()| file.sync_data())
                .is_ok()
            {}
        }
        assert!(self.free_bytes() < 4096);
    }

    fn free_bytes(&self) -> u64 {
        let found = statvfs(&self.0).expect("look at the disk");
        found.blocks_available() * found.fragment_size()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

const ENDS_WITH_7: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";

#[track_caller]
fn start_teller(manager: &Manager, image: &str) {
    // A policy that would start it again, were it forgotten that somebody has ended it.
    let run = [
        "run",
        "-d",
        "--restart",
        "unless-stopped",
        "--name",
        "teller",
        image,
    ];
    manager.ctl(&[&run[..], &["sh", "-c", ENDS_WITH_7]].concat()).ok();
    eventually("its trap is set", || {
        manager
            .ctl(&["logs", "teller"])
            .ok()
            .contains("ready")
            .then_some(())
    });
}

#[test]
fn a_full_disk_forgets_no_exit_and_is_freed_by_a_removal() {
    let sandbox = Sandbox::new();
    let disk = SmallDisk::at(&sandbox.path().join("disk"), &sandbox.path().join("manager/lib"));
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let ballast = manager.root().join("ballast");
    assert!(ballast.exists(), "no space is set aside");
    manager
        .ctl(&["run", "-d", "--name", "other", &image, "sleep", "1000"])
        .ok();
    start_teller(&manager, &image);
    // Whatever is freed is taken at once.
    let fill = "while :; do dd if=/dev/zero bs=4k >>/full 2>/dev/null; sleep 0.05; done";
    manager
        .ctl(&["run", "-d", "--name", "filler", &image, "sh", "-c", fill])
        .ok();
    eventually("the disk is full", || (disk.free_bytes() < 4096).then_some(()));

    manager.ctl(&["stop", "teller"]).ok();
    assert_eq!(manager.ctl(&["wait", "teller"]).ok(), "7\n");
    manager.kill();
    manager.start_again();
    let told = manager.inspect("teller");
    assert_eq!(
        (&told["state"], &told["exit"]["code"]),
        (&"exited".into(), &7.into())
    );
    assert_eq!(manager.ctl(&["exec", "other", "echo", "alive"]).ok(), "alive\n");

    manager.ctl(&["rm", "-f", "filler"]).ok();
    eventually("the space is back", || {
        (disk.free_bytes() > 20 << 20).then_some(())
    });
    assert_eq!(
        manager.ctl(&["run", "--rm", &image, "echo", "again"]).ok(),
        "again\n"
    );
    assert!(ballast.exists(), "no space is set aside any more");
    assert_eq!(manager.ctl(&["exec", "other", "echo", "alive"]).ok(), "alive\n");
}

#[test]
fn images_can_be_removed_from_a_disk_without_a_free_block() {
    let sandbox = Sandbox::new();
    let disk = SmallDisk::at(&sandbox.path().join("disk"), &sandbox.path().join("manager/lib"));
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for name in ["one:1", "two:1"] {
        manager
            .ctl(&["create", "--name", "made", &image, "touch", name])
            .ok();
        manager.ctl(&["commit", "made", name]).ok();
        manager.ctl(&["rm", "made"]).ok();
    }
    manager.ctl(&["lease", "create", "--id", "kept", "two:1"]).ok();
    let filler = sandbox.path().join("manager/lib/filler");
    for removal in [&["rmi", "one:1"][..], &["image", "prune", "--all", "--force"]] {
        // The database begins a new log, for which there is no room then.
        manager.stop();
        manager.start_again();
        assert!(manager.root().join("ballast").exists(), "no space is set aside");
        disk.fill(&filler);
        if removal[0] == "image" {
            manager.ctl(&["lease", "rm", "kept"]).ok();
        }
        assert!(manager.ctl(removal).ok().contains("Deleted: sha256:"));
        fs::remove_file(&filler).expect("make room");
    }
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
}

/// A database that nobody can write to, until the value goes: ext4 refuses what would change an immutable file, by whom
/// ever it was opened before.
struct Unwritable(PathBuf);

impl Unwritable {
    #[track_caller]
    fn at(root: &Path) -> Self {
        let journal = root.join("engine.db-wal");
        run(Command::new("chattr").arg("+i").arg(&journal)).ok();
        Self(journal)
    }
}

impl Drop for Unwritable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
fn an_exit_that_cannot_be_recorded_is_kept_and_recorded_later() {
    let sandbox = Sandbox::new();
    let _disk = SmallDisk::at(&sandbox.path().join("disk"), &sandbox.path().join("manager/lib"));
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    start_teller(&manager, &image);
    let id = manager.ctl(&["ps", "-q", "--no-trunc"]).ok();
    let bundle = manager.state().join("bundles").join(id.trim());
    let held = Unwritable::at(&manager.root());
    let refused = manager.ctl(&["stop", "teller"]).refused();
    assert!(refused.contains("could not be put on record"), "{refused}");
    eventually("the record fails", || {
        manager.log().contains("an exit is not on record").then_some(())
    });
    assert!(bundle.join("exit.json").exists(), "the exit is nowhere on disk");
    assert_eq!(manager.ctl(&["wait", "teller"]).ok(), "7\n");
    drop(held);
    eventually("the exit is on record", || (!bundle.exists()).then_some(()));
    manager.kill();
    manager.start_again();
    let told = manager.inspect("teller");
    assert_eq!(
        (&told["state"], &told["exit"]["code"]),
        (&"exited".into(), &7.into())
    );
}

/// A restart is no stop: what it could not begin again comes back by its policy, or goes as it was to go.
#[test]
fn a_restart_that_fails_leaves_nobody_down_for_ever() {
    let sandbox = Sandbox::new();
    let _disk = SmallDisk::at(&sandbox.path().join("disk"), &sandbox.path().join("manager/lib"));
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (name, flags) in [("stays", &["--restart", "always"][..]), ("goes", &["--rm"])] {
        let run = [&["run", "-d", "--name", name], flags, &[&image, "sleep", "1000"]].concat();
        manager.ctl(&run).ok();
    }
    let held = Unwritable::at(&manager.root());
    for name in ["stays", "goes"] {
        manager.ctl(&["restart", "-t", "0", name]).refused();
    }
    drop(held);
    eventually("it runs again", || {
        (manager.inspect("stays")["state"] == "running").then_some(())
    });
    eventually("it has removed itself", || {
        let ids = manager.ctl(&["ps", "-a", "-q"]).ok();
        (ids.lines().count() == 1).then_some(())
    });
}

#[test]
fn an_image_that_does_not_fit_fails_whole_and_frees_what_it_took() {
    let sandbox = Sandbox::new();
    let disk = SmallDisk::at(&sandbox.path().join("disk"), &sandbox.path().join("manager/lib"));
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let fill = "dd if=/dev/urandom of=/heavy bs=1M count=18 2>/dev/null";
    manager
        .ctl(&["run", "--name", "heavy", &image, "sh", "-c", fill])
        .ok();
    let path = |name: &str| sandbox.path().join(name).to_str().expect("a path").to_owned();
    let (rootfs, saved) = (path("heavy.tar"), path("saved.tar"));
    manager.ctl(&["export", "-o", &rootfs, "heavy"]).ok();
    // There is room for a blob, and not for what is in it beside it.
    let fails_whole = |arguments: &[&str]| {
        let before = disk.free_bytes();
        let error = manager.ctl(arguments).refused();
        assert!(error.contains("No space left on device"), "{error}");
        eventually("the space is back", || {
            (disk.free_bytes() + (1 << 20) > before).then_some(())
        });
        assert_eq!(manager.ctl(&["images", "-q"]).ok().lines().count(), 1);
    };
    fails_whole(&["commit", "heavy", "made:1"]);
    fails_whole(&["import", &rootfs, "made:1"]);

    manager.ctl(&["rm", "heavy"]).ok();
    manager.ctl(&["import", &rootfs, "made:1"]).ok();
    manager.ctl(&["save", "-o", &saved, "made:1"]).ok();
    manager.ctl(&["rmi", "made:1"]).ok();
    manager
        .ctl(&["run", "--name", "heavy", &image, "sh", "-c", fill])
        .ok();
    fails_whole(&["load", "-i", &saved]);
    manager.ctl(&["rm", "heavy"]).ok();
    manager.ctl(&["load", "-i", &saved]).ok();
}
