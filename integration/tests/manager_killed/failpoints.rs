//! The manager ends at each of its failpoints, in the middle of an operation, and is started again.

use crate::archives::{COMMIT, IMPORT, LOAD};
use crate::volumes::{COPY_UP, CREATE_VOLUME, CREATE_WITH, REMOVE_VOLUME};
use crate::{Witness, assert_no_strays, entries, find, inspect, remove, spawn_unattended};
use integration::{Image, Layer, Manager, Sandbox};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A failpoint, and whether what was asked for is on record when it is reached.
pub(crate) type Point = (&'static str, bool);

const CREATE: &[Point] = &[
    ("lease.recorded", false),
    ("create.leased", false),
    ("create.prepared", false),
    ("store.before-commit", false),
    ("store.after-commit", true),
    ("create.recorded", true),
];
const START: &[Point] = &[
    ("start.cgroup-noted", false),
    ("bundle.made", false),
    ("start.files-written", false),
    ("start.shim-launched", false),
    ("start.created", false),
    ("start.network-connected", false),
    ("start.names-served", false),
    ("start.ports-published", false),
    ("start.process-started", false),
    ("store.before-commit", false),
    ("store.after-commit", true),
    ("start.recorded", true),
];
/// Of an exit there is nothing that could be lost: the shim has it.
const EXIT: &[&str] = &[
    "exit.told",
    "exit.released",
    "store.before-commit",
    "store.after-commit",
    "exit.recorded",
];
const REMOVE: &[Point] = &[
    ("store.before-commit", false),
    ("store.after-commit", true),
    ("remove.recorded", true),
    ("release.recorded", true),
];
/// Removing a running container ends it first.
const REMOVE_RUNNING: &[Point] = &[
    ("exit.told", false),
    ("exit.released", false),
    ("exit.recorded", false),
    ("store.before-commit:2", false),
    ("store.after-commit:2", true),
    ("remove.recorded", true),
];
const RENAME: &[Point] = &[
    ("store.before-commit", false),
    ("store.after-commit", true),
    ("rename.recorded", true),
];
const PULL: &[Point] = &[
    ("pull.planned", false),
    ("pull.layer-made", false),
    ("pull.published", false),
    ("pull.published:3", false),
    ("pull.synced", false),
    ("pull.recorded", true),
];
/// In the other tests of this binary, in `manager_networks`, `manager_sublinks`, `manager_cni`, in `manager_plugins`, and the last one in `manager_trust`.
const ELSEWHERE: &[&str] = &[
    "network.recorded",
    "network.made",
    "network.forgotten",
    "connect.recorded",
    "disconnect.recorded",
    "disconnect.unlinked",
    "cni.pinned",
    "cni.recorded",
    "cni.added",
    "cni.attached",
    "cni.deleted",
    "sublink.made",
    "sublink.named",
    "plugin.mount-recorded",
    "plugin.mounted",
    "plugin.unmount-recorded",
    "plugin.unmounted",
    "plugin.removed",
    "rmi.recorded",
    "reconcile.settled",
    "restart.ended",
    "pause.asked",
    "end.cleaned",
    "tag.changed",
    "prune.changed",
    "reaper.removed",
    "migrate.changed",
    "trust.recorded",
    "policy.due",
    "stop.held",
    "kill.recorded",
    "update.recorded",
    "update.applied",
    "health.probing",
];

#[track_caller]
fn refused(manager: &Manager, args: &[&str]) {
    manager.ctl(args).refused();
}

#[test]
fn a_create_is_there_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let create = ["create", "--name", "one", &image, "echo", "made"];
    for (point, on_record) in CREATE {
        println!("{point}");
        manager.die_at(point, |manager| refused(manager, &create));
        assert_no_strays(&manager);
        witness.assert_unharmed(&manager);
        assert_eq!(find(&manager, "one").is_some(), *on_record);
        if !on_record {
            manager.ctl(&create).ok();
        }
        assert_eq!(manager.ctl(&["start", "-a", "one"]).ok(), "made\n");
        remove(&manager, "one");
    }
    witness.assert_whole(&manager);
}

#[test]
fn a_start_is_on_record_or_has_left_nothing() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    for (point, on_record) in START {
        println!("{point}");
        manager
            .ctl(&["create", "--name", "one", &image, "sleep", "1000"])
            .ok();
        manager.die_at(point, |manager| refused(manager, &["start", "one"]));
        assert_no_strays(&manager);
        witness.assert_unharmed(&manager);
        let state = if *on_record { "running" } else { "created" };
        assert_eq!(inspect(&manager, "one")["state"], state);
        manager.ctl(&["start", "one"]).ok();
        assert_eq!(manager.ctl(&["exec", "one", "echo", "hello"]).ok(), "hello\n");
        remove(&manager, "one");
    }
    witness.assert_whole(&manager);
}

#[test]
fn a_container_has_its_old_name_or_its_new_one() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (point, on_record) in RENAME {
        println!("{point}");
        manager
            .ctl(&["run", "-d", "--name", "old", &image, "sleep", "1000"])
            .ok();
        manager.die_at(point, |manager| {
            refused(manager, &["rename", "old", "new"]);
        });
        let (name, free) = if *on_record {
            ("new", "old")
        } else {
            ("old", "new")
        };
        assert_eq!(inspect(&manager, name)["state"], "running");
        manager.ctl(&["create", "--name", free, &image, "true"]).ok();
        remove(&manager, "old");
        remove(&manager, "new");
    }
}

#[test]
fn a_restart_that_was_cut_off_has_ended_the_run_and_begun_none() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for name in ["stays", "goes"] {
        let rm = if name == "goes" { "--rm" } else { "--label=a" };
        manager
            .ctl(&["run", "-d", rm, "--name", name, &image, "sleep", "1000"])
            .ok();
        manager.die_at("restart.ended", |manager| {
            refused(manager, &["restart", "-t", "0", name]);
        });
        assert_no_strays(&manager);
    }
    assert_eq!(inspect(&manager, "stays")["exit"]["code"], 137);
    manager.ctl(&["start", "stays"]).ok();
    assert!(find(&manager, "goes").is_none());
}

/// The kernel knows that it stands still, and nobody else has to.
#[test]
fn a_pause_that_was_cut_off_is_one() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"])
        .ok();
    for (command, state) in [("pause", "paused"), ("unpause", "running")] {
        manager.die_at("pause.asked", |manager| {
            refused(manager, &[command, "one"]);
        });
        assert_eq!(inspect(&manager, "one")["state"], state);
    }
    assert_eq!(manager.ctl(&["exec", "one", "echo", "here"]).ok(), "here\n");
    remove(&manager, "one");
}

#[test]
fn an_exit_is_known_to_the_next_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make a folder to share");
    let volume = format!("{}:/shared", shared.display());
    let script = "echo begin; until [ -e /shared/go ]; do usleep 10000; done; echo end; exit 7";
    for (point, removes_itself) in EXIT.iter().flat_map(|point| [(point, false), (point, true)]) {
        println!("{point} {removes_itself}");
        let mut args = vec!["run", "-d", "--name", "one", "-v", &volume];
        if removes_itself {
            args.push("--rm");
        }
        args.extend([image.as_str(), "sh", "-c", script]);
        manager.ctl(&args).ok();
        let go = shared.join("go");
        manager.die_at(point, |_| {
            fs::write(&go, "").expect("tell it to end");
        });
        assert_no_strays(&manager);
        witness.assert_unharmed(&manager);
        if removes_itself {
            assert!(find(&manager, "one").is_none());
        } else {
            let found = inspect(&manager, "one");
            assert_eq!(
                (&found["state"], &found["exit"]["code"]),
                (&"exited".into(), &7.into())
            );
            assert_eq!(manager.ctl(&["logs", "one"]).ok(), "begin\nend\n");
            manager.ctl(&["start", "one"]).ok();
            assert_eq!(manager.ctl(&["wait", "one"]).ok(), "7\n");
            remove(&manager, "one");
        }
        fs::remove_file(&go).expect("take the sign away");
    }
    witness.assert_whole(&manager);
}

#[test]
fn a_removal_is_whole_or_has_not_begun() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let cases = REMOVE.iter().map(|point| (point, false));
    for ((point, on_record), running) in cases.chain(REMOVE_RUNNING.iter().map(|point| (point, true))) {
        println!("{point} {running}");
        let verb: &[&str] = if running { &["run", "-d"] } else { &["create"] };
        manager
            .ctl(&[verb, &["--name", "one", &image, "sleep", "1000"]].concat())
            .ok();
        manager.die_at(point, |manager| {
            refused(manager, &["rm", "-f", "one"]);
        });
        assert_no_strays(&manager);
        witness.assert_unharmed(&manager);
        assert_eq!(find(&manager, "one").is_none(), *on_record);
        if !on_record {
            let found = inspect(&manager, "one");
            let expected = if running { Value::from(137) } else { Value::Null };
            assert_eq!(found["exit"]["code"], expected, "{found}");
            remove(&manager, "one");
        }
    }
    witness.assert_whole(&manager);
}

/// The blobs and layers that are in the store.
pub(crate) fn stored(manager: &Manager) -> BTreeSet<String> {
    let images = manager.root().join("images");
    [entries(&images.join("blobs/sha256")), entries(&images.join("s"))]
        .into_iter()
        .flatten()
        .collect()
}

/// An image that shares a layer with busybox's, and is only at the registry.
fn push_other(manager: &Manager) -> String {
    let other = Image::busybox().with_layer(Layer::from_files(&[("motd", "hello\n")]));
    manager.registry().push(&other, "other:1")
}

#[test]
fn a_pull_is_there_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let before = stored(&manager);
    let reference = push_other(&manager);
    for (point, on_record) in PULL {
        println!("{point}");
        manager.die_at(point, |manager| {
            refused(manager, &["pull", &reference]);
        });
        assert_no_strays(&manager);
        witness.assert_unharmed(&manager);
        assert_eq!(
            manager.ctl(&["images", "-q"]).ok().lines().count() == 2,
            *on_record
        );
        if !on_record {
            assert_eq!(stored(&manager), before);
            manager.ctl(&["pull", &reference]).ok();
        }
        let told = manager.ctl(&["run", "--rm", &reference, "cat", "/motd"]).ok();
        assert_eq!(told, "hello\n");
        if *point == PULL[0].0 {
            manager.die_at("rmi.recorded", |manager| {
                refused(manager, &["rmi", &reference]);
            });
        } else {
            manager.ctl(&["rmi", &reference]).ok();
        }
        assert_eq!(manager.ctl(&["images", "-q"]).ok().lines().count(), 1);
        assert_eq!(stored(&manager), before);
    }
    witness.assert_whole(&manager);
}

#[test]
fn a_tag_and_a_prune_have_not_begun_and_a_removal_goes_on() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let before = stored(&manager);
    let reference = push_other(&manager);
    manager.ctl(&["pull", &reference]).ok();
    let again = format!("{reference}-again");
    manager.die_at("tag.changed", |manager| {
        refused(manager, &["tag", &reference, &again]);
    });
    refused(&manager, &["image", "inspect", &again]);
    manager.die_at("prune.changed", |manager| {
        refused(manager, &["image", "prune", "--all", "--force"]);
    });
    manager.ctl(&["run", "--rm", &reference, "cat", "/motd"]).ok();
    let trash = manager.root().join("images/trash");
    let await_removals = || {
        integration::eventually("what was removed is gone", || {
            entries(&trash).is_empty().then_some(())
        });
    };
    // Else the next manager would end at the failpoint before it is asked.
    await_removals();
    // It may have been answered before the first of its files was gone, or not.
    manager.die_at("reaper.removed", |manager| {
        manager.ctl(&["rmi", &reference]);
    });
    refused(&manager, &["image", "inspect", &reference]);
    await_removals();
    assert_eq!(stored(&manager), before);
    witness.assert_whole(&manager);
}

#[test]
fn a_store_that_was_half_made_is_made_by_the_next_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    manager.kill();
    fs::remove_dir_all(manager.root().join("images")).expect("take the store away");
    let mut dying = spawn_unattended(&manager, "migrate.changed");
    integration::eventually("the manager ends at its failpoint", || {
        dying.try_wait().expect("look at the manager")
    });
    manager.start_again();
    let image = manager.busybox();
    manager.ctl(&["run", "--rm", &image, "true"]).ok();
}

#[test]
fn a_manager_that_dies_while_it_puts_things_right_leaves_that_to_the_next() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"])
        .ok();
    let pid = inspect(&manager, "one")["pid"].as_i64().expect("a pid") as i32;
    // A start that was not recorded, and an exit, for the next one to find.
    manager
        .ctl(&["create", "--name", "half", &image, "sleep", "1000"])
        .ok();
    manager.kill();
    manager.set_failpoint(Some("start.process-started"));
    manager.start_again();
    refused(&manager, &["start", "half"]);
    manager.await_end();
    manager.set_failpoint(None);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("end a container");
    for point in ["reconcile.settled", "end.cleaned"] {
        let mut dying = spawn_unattended(&manager, point);
        integration::eventually("the manager ends at its failpoint", || {
            dying.try_wait().expect("look at the manager")
        });
    }
    manager.start_again();
    assert_no_strays(&manager);
    let found = inspect(&manager, "one");
    assert_eq!(
        (&found["state"], &found["exit"]["code"]),
        (&"exited".into(), &137.into())
    );
    assert_eq!(inspect(&manager, "half")["state"], "created");
    manager.ctl(&["start", "half"]).ok();
    remove(&manager, "half");
    remove(&manager, "one");
    witness.assert_whole(&manager);
}

/// The failpoints in the manager's sources.
fn in_sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            in_sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("read a source");
            let calls = text.split("failpoint::reach(\"").skip(1);
            found.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
}

#[test]
fn no_failpoint_is_forgotten() {
    let mut found = BTreeSet::new();
    let manager = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manager");
    in_sources(&manager, &mut found);
    let tables = [
        CREATE,
        START,
        REMOVE,
        REMOVE_RUNNING,
        RENAME,
        PULL,
        LOAD,
        IMPORT,
        COMMIT,
        CREATE_VOLUME,
        REMOVE_VOLUME,
        CREATE_WITH,
        COPY_UP,
    ]
    .concat();
    let names = tables.iter().map(|(name, _)| name).chain(EXIT).chain(ELSEWHERE);
    let tested = names
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect();
    assert_eq!(found, tested);
}
