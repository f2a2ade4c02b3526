//! The manager ends in the middle of a load, an import or a commit: the image is there whole or not at all.

use crate::failpoints::{Point, stored};
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
    ("commit.resumed", false),
    ("local.composed", false),
    ("pull.synced", false),
    ("pull.recorded", true),
];

fn path(sandbox: &Sandbox, name: &str) -> String {
    sandbox.path().join(name).to_str().expect("a path").to_owned()
}

/// Die at each point of an operation that makes an image called `made:1`, which prints /motd. `look` sees what else has
/// to be so afterwards.
#[track_caller]
fn die_everywhere(
    manager: &mut Manager,
    points: &[Point],
    operation: &[&str],
    witness: &Witness,
    look: impl Fn(&Manager),
) {
    let before = stored(manager);
    for (point, on_record) in points {
        println!("{point}");
        manager.die_at(point, |manager| {
            manager.ctl(operation).refused();
        });
        assert_no_strays(manager);
        witness.assert_unharmed(manager);
        look(manager);
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
    die_everywhere(&mut manager, LOAD, &["load", "-i", &archive], &witness, |_| ());
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
    die_everywhere(&mut manager, IMPORT, &import, &witness, |_| ());
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
    let counts_on = |manager: &Manager| {
        let count = || manager.ctl(&["exec", "one", "cat", "/count"]).ok();
        let before = count();
        eventually("it counts on", || (count() != before).then_some(()));
    };
    let commit = ["commit", "one", "made:1"];
    die_everywhere(&mut manager, COMMIT, &commit, &witness, counts_on);
    counts_on(&manager);
    assert_eq!(inspect(&manager, "one")["state"], "running");
    manager.ctl(&["rm", "-f", "one"]).ok();
}

#[test]
fn a_container_runs_on_when_its_files_are_packed_whatever_becomes_of_the_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // The count is seen from outside, as there is no manager to ask.
    let out = path(&sandbox, "out");
    std::fs::create_dir(&out).expect("make a folder");
    let script = "echo hello > /motd; while :; do i=$((i+1)); echo $i > /out/a; usleep 1000; done";
    let mount = format!("{out}:/out");
    let run = [
        "run", "-d", "--name", "one", "-v", &mount, &image, "sh", "-c", script,
    ];
    manager.ctl(&run).ok();
    let count = || std::fs::read_to_string(format!("{out}/a")).unwrap_or_default();
    eventually("it counts", || (!count().is_empty()).then_some(()));
    manager.kill();
    manager.set_failpoint(Some("local.composed"));
    manager.start_again();
    manager.ctl(&["commit", "one", "made:1"]).refused();
    manager.await_end();
    let before = count();
    eventually("it counts on", || (count() != before).then_some(()));
    manager.set_failpoint(None);
    manager.start_again();
    manager.ctl(&["rm", "-f", "one"]).ok();
}
