//! The manager ends in the middle of a load, an import or a commit: the image is there whole or not at all.

use crate::failpoints::{Point, die_at, stored};
use crate::{Witness, assert_no_strays, inspect};
use integration::{Image, Layer, Manager, Sandbox, eventually};
use std::path::Path;

pub(crate) const LOAD: &[Point] = &[
    ("load.read", false),
    ("load.prepared", false),
    ("pull.published", false),
    ("pull.synced", false),
    ("pull.recorded", true),
];
pub(crate) const IMPORT: &[Point] = &[
    ("import.read", false),
    ("local.composed", false),
    ("pull.synced", false),
    ("pull.recorded", true),
];
pub(crate) const COMMIT: &[Point] = &[
    ("commit.paused", false),
    ("commit.packed", false),
    ("local.composed", false),
    ("pull.synced", false),
    ("pull.recorded", true),
];

fn path(sandbox: &Sandbox, name: &str) -> String {
    sandbox.path().join(name).to_str().expect("a path").to_owned()
}

/// Die at each point of an operation that makes an image called `made:1`, which prints /motd.
#[track_caller]
fn die_everywhere(manager: &mut Manager, points: &[Point], operation: &[&str], witness: &Witness) {
    let before = stored(manager);
    for (point, on_record) in points {
        println!("{point}");
        die_at(manager, point, |manager| {
            manager.ctl(operation).refused();
        });
        assert_no_strays(manager);
        witness.assert_unharmed(manager);
        let is_there = manager.ctl(&["inspect", "--type", "image", "made:1"]).code == 0;
        assert_eq!(is_there, *on_record);
        if !on_record {
            assert_eq!(stored(manager), before);
            manager.ctl(operation).ok();
        }
        let told = manager.ctl(&["run", "--rm", "made:1", "cat", "/motd"]).ok();
        assert_eq!(told, "hello\n");
        manager.ctl(&["rmi", "made:1"]).ok();
        assert_eq!(stored(manager), before);
    }
    witness.assert_whole(manager);
}

#[test]
fn a_load_is_there_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let base = manager.busybox();
    let witness = Witness::start(&manager, &base);
    let image = Image::busybox().with_layer(Layer::from_files(&[("motd", "hello\n")]));
    let archive = path(&sandbox, "made.tar");
    let layout = path(&sandbox, "layout");
    image.write_layout(Path::new(&layout));
    let named = format!("oci-archive:{archive}:docker.io/library/made:1");
    let copy = [
        "--insecure-policy",
        "copy",
        "-q",
        &format!("oci:{layout}:image"),
        &named,
    ];
    integration::run(std::process::Command::new("skopeo").args(copy)).ok();
    die_everywhere(&mut manager, LOAD, &["load", "-i", &archive], &witness);
}

#[test]
fn an_import_is_there_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let base = manager.busybox();
    let witness = Witness::start(&manager, &base);
    manager
        .ctl(&["run", "--name", "one", &base, "sh", "-c", "echo hello > /motd"])
        .ok();
    let archive = path(&sandbox, "rootfs.tar");
    manager.ctl(&["export", "-o", &archive, "one"]).ok();
    let import = ["import", "-c", "ENV PATH=/bin", &archive, "made:1"];
    die_everywhere(&mut manager, IMPORT, &import, &witness);
}

#[test]
fn a_commit_is_there_whole_or_not_at_all_and_its_container_runs_on() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let base = manager.busybox();
    let witness = Witness::start(&manager, &base);
    let script = "echo hello > /motd; while :; do i=$((i+1)); echo $i > /count; usleep 1000; done";
    manager
        .ctl(&["run", "-d", "--name", "one", &base, "sh", "-c", script])
        .ok();
    let count = |manager: &Manager| manager.ctl(&["exec", "one", "cat", "/count"]).ok();
    die_everywhere(&mut manager, COMMIT, &["commit", "one", "made:1"], &witness);
    let before = count(&manager);
    eventually("it counts on", || (count(&manager) != before).then_some(()));
    assert_eq!(inspect(&manager, "one")["state"], "running");
    manager.ctl(&["rm", "-f", "one"]).ok();
}
