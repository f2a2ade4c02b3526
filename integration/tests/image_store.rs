//! Images in the manager's store, by managerctl: names, filters, what they take of the disk, and their removal.

use integration::{Image, Manager, Sandbox, eventually};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use serde_json::Value;
use std::path::Path;

fn json(manager: &Manager, args: &[&str]) -> Value {
    let done = manager.ctl(args).ok();
    serde_json::from_str(&done).expect("JSON")
}

#[test]
fn a_name_moves_between_images_and_prune_takes_what_nobody_needs() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let reference = manager.busybox();
    manager.ctl(&["tag", &reference, "mine:1"]).ok();
    let images = json(
        &manager,
        &["images", "--format", "json", "--filter", "reference=mine"],
    );
    assert_eq!(
        images[0]["names"],
        serde_json::json!(["docker.io/library/mine:1"])
    );
    let inspected = json(&manager, &["image", "inspect", "mine:1"]);
    let repository = reference.rsplit_once(':').expect("it has a tag").0;
    let digest = inspected[0]["RepoDigests"][0].as_str().expect("it was pulled");
    assert!(digest.starts_with(&format!("{repository}@sha256:")), "{digest}");
    assert!(
        manager
            .ctl(&["images", "--digests"])
            .ok()
            .contains(digest.rsplit_once('@').expect("@").1)
    );

    manager.ctl(&["rmi", &reference]).ok();
    manager
        .ctl(&["run", "--rm", "--network", "none", "mine:1", "true"])
        .ok();
    let id = manager
        .ctl(&["create", "--network", "none", "mine:1", "true"])
        .ok();
    let pruned = manager.ctl(&["image", "prune", "--all", "--force"]).ok();
    assert!(!pruned.contains("Deleted"), "a container needs it: {pruned}");
    let refused = manager.ctl(&["rmi", "mine:1"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("in use by container"),
        "{refused:?}"
    );
    manager.ctl(&["rm", id.trim()]).ok();
    let pruned = manager.ctl(&["image", "prune", "--all"]).ok();
    assert!(
        pruned.contains("Deleted: sha256:") && pruned.contains("reclaimed"),
        "{pruned}"
    );
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
}

#[test]
fn disk_usage_and_history_tell_what_an_image_takes() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let reference = manager.busybox();
    let script = "dd if=/dev/zero of=/written bs=1000 count=500; echo logged";
    manager
        .ctl(&[
            "run",
            "--network",
            "none",
            "--name",
            "writer",
            &reference,
            "sh",
            "-c",
            script,
        ])
        .ok();
    let usage = json(&manager, &["system", "df", "--format", "json"]);
    let of_image = &usage["images"][0];
    let number = |value: &Value| value.as_u64().expect("a number");
    assert_eq!(
        (number(&of_image["containers"]), number(&of_image["sharedBytes"])),
        (1, 0)
    );
    assert_eq!(number(&of_image["uniqueBytes"]), number(&usage["layersBytes"]));
    assert!(number(&usage["layersBytes"]) > 100_000 && number(&usage["contentBytes"]) > 100_000);
    assert_eq!(
        number(&usage["reclaimableBytes"]),
        0,
        "a container needs the image"
    );
    let container = &usage["containers"][0];
    assert!(number(&container["upperBytes"]) >= 500_000 && number(&container["logBytes"]) > 0);
    let table = manager.ctl(&["system", "df", "-v"]).ok();
    assert!(table.contains("writer") && table.contains("UNIQUE"), "{table}");

    let history = json(&manager, &["history", "--format", "json", &reference]);
    let sizes: u64 = history
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| number(&step["sizeBytes"]))
        .sum();
    assert_eq!(sizes, number(&usage["layersBytes"]));
    manager.ctl(&["rm", "writer"]).ok();
}

#[test]
fn a_platform_that_is_not_here_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let reference = manager.registry().push(&Image::busybox(), "busybox:1");
    manager.ctl(&["pull", "--all-platforms", &reference]).ok();
    let refused = manager.ctl(&[
        "create",
        "--pull",
        "never",
        "--platform",
        "linux/s390x",
        &reference,
        "true",
    ]);
    assert!(
        refused.code != 0 && refused.stderr.contains("linux/s390x"),
        "{refused:?}"
    );
}

/// Nest folders below `root`, deeper than any path is long.
fn nest(root: &Path, depth: usize) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folder = open(root, flags, Mode::empty()).expect("open the root");
    for _ in 0..depth {
        mkdirat(&folder, "folder", Mode::S_IRWXU).expect("make a folder");
        folder = openat(&folder, "folder", flags, Mode::empty()).expect("open the folder");
    }
}

#[test]
fn a_container_that_nests_folders_too_deep_can_be_measured_and_removed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let id = manager
        .ctl(&["create", "--name", "deep", "--network", "none", &image, "true"])
        .ok();
    let containers = manager.root().join("images/containers");
    nest(&containers.join(id.trim()).join("upper"), 20_000);

    json(&manager, &["system", "df", "--format", "json"]);
    for (refused, why) in [
        (&["diff", "deep"][..], "longer than 4095 bytes"),
        (&["commit", "deep", "deep:1"], "deeper than 256 folders"),
        (&["export", "-o", "/dev/null", "deep"], "longer than 4095 bytes"),
    ] {
        let error = manager.ctl(refused).refused();
        assert!(error.contains(why) && error.len() < 1000, "{error}");
    }
    let pid = manager.pid();
    manager.ctl(&["rm", "deep"]).ok();
    eventually("its files are gone", || {
        let trash = std::fs::read_dir(manager.root().join("images/trash")).expect("list the trash");
        (trash.count() == 0).then_some(())
    });
    assert_eq!(
        manager
            .ctl(&["run", "--rm", "--network", "none", &image, "echo", "alive"])
            .ok(),
        "alive\n"
    );
    assert!(Path::new(&format!("/proc/{pid}")).exists());
}
