//! Starts by the restart policy, what keeps a container down, and updates.

use crate::failpoints::die_at;
use crate::{Witness, assert_no_strays, entries, inspect, is_alive, remove};
use integration::{Manager, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An end, the record of it, the start that follows and the record of that: wherever it is cut off, the next manager
/// goes on with it.
#[test]
fn a_restart_by_policy_goes_on_with_the_next_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for point in [
        "exit.told",
        "store.before-commit",
        "store.after-commit",
        "exit.recorded",
        "policy.due",
        "start.created",
        "store.before-commit:2",
        "store.after-commit:2",
    ] {
        println!("{point}");
        let run = ["run", "-d", "--restart", "on-failure:1", "--name", "one", &image];
        manager.ctl(&[&run[..], &["sleep", "1000"]].concat()).ok();
        let pid = inspect(&manager, "one")["pid"].as_i64().expect("a pid") as i32;
        die_at(&mut manager, point, |_| {
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("end the process");
        });
        let again = eventually("it runs again", || {
            let found = inspect(&manager, "one");
            (found["state"] == "running").then_some(found)
        });
        assert_eq!(
            (&again["restartCount"], &again["exit"]["code"]),
            (&1.into(), &137.into())
        );
        assert_no_strays(&manager);
        remove(&manager, "one");
    }
}

#[test]
fn a_stop_between_two_runs_is_on_record_or_has_not_begun() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for held in [true, false] {
        let run = ["run", "-d", "--restart", "on-failure", "--name", "one", &image];
        manager.ctl(&[&run[..], &["false"]].concat()).ok();
        // Pauses begin anew with a manager; after five of them one is long enough to be met.
        let await_pause = |manager: &Manager| {
            let so_far = inspect(manager, "one")["restartCount"].as_u64().expect("a count");
            eventually("it is between two runs", || {
                let found = inspect(manager, "one");
                let count = found["restartCount"].as_u64().expect("a count");
                (found["state"] == "restarting" && count >= so_far + 5).then_some(())
            });
        };
        await_pause(&manager);
        if held {
            die_at(&mut manager, "stop.held", |manager| {
                await_pause(manager);
                manager.ctl(&["stop", "one"]).refused();
            });
            assert_eq!(inspect(&manager, "one")["state"], "exited");
        } else {
            manager.kill();
            manager.start_again();
            await_pause(&manager);
            manager.ctl(&["stop", "one"]).ok();
            manager.kill();
            manager.start_again();
            assert_eq!(inspect(&manager, "one")["state"], "exited");
        }
        remove(&manager, "one");
    }
}

/// The kernel and the record agree, whichever they have.
#[test]
fn an_update_is_carried_out_or_has_not_begun() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (point, on_record) in [
        ("store.before-commit", false),
        ("store.after-commit", true),
        ("update.recorded", true),
        ("update.applied", true),
        ("store.before-commit:2", true),
    ] {
        println!("{point}");
        let run = ["run", "-d", "--pids-limit", "50", "--name", "one", &image];
        manager.ctl(&[&run[..], &["sleep", "1000"]].concat()).ok();
        die_at(&mut manager, point, |manager| {
            manager.ctl(&["update", "--pids-limit", "60", "one"]).refused();
        });
        let limit = if on_record { 60 } else { 50 };
        let found = inspect(&manager, "one");
        assert_eq!(
            (&found["state"], &found["request"]["pidsLimit"]),
            (&"running".into(), &limit.into())
        );
        let id = found["id"].as_str().expect("an id");
        let groups = ["pids/berth", "berth", "unified/berth"]
            .map(|group| format!("/sys/fs/cgroup/{group}/{id}/pids.max"));
        let mut kernels = groups
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok());
        assert_eq!(kernels.next().expect("a limit").trim(), limit.to_string());
        remove(&manager, "one");
    }
}

/// The process of a container that was called with these arguments.
fn process(id: &str, arguments: &str) -> Option<u32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| {
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        read("cgroup").contains(id) && read("cmdline").trim_end_matches('\0').replace('\0', " ") == arguments
    })
}

#[test]
fn a_probe_does_not_outlive_its_manager_for_long() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    manager.kill();
    manager.set_failpoint(Some("health.probing"));
    manager.start_again();
    let check = ["--health-cmd", "exec sleep 4321", "--health-interval", "300ms"];
    let run = ["run", "-d", "--name", "one"];
    manager.ctl(&[&run[..], &check, &[&image, "sleep", "1000"]].concat());
    manager.await_end();
    manager.set_failpoint(None);
    let id = {
        let bundles = entries(&manager.state().join("bundles"));
        let is_probed = |id: &&String| process(id, "sleep 4321").is_some();
        bundles.iter().find(is_probed).expect("a probe runs").clone()
    };
    let probe = process(&id, "sleep 4321").expect("a probe runs");
    manager.start_again();
    eventually("the probe is ended", || (!is_alive(&probe.into())).then_some(()));
    assert_eq!(inspect(&manager, "one")["state"], "running");
    witness.assert_whole(&manager);
    remove(&manager, "one");
}
