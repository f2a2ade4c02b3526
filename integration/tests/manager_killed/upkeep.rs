//! Starts by the restart policy, what keeps a container down, and updates.

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
        manager.die_at(point, |_| {
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
            manager.die_at("stop.held", |manager| {
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

/// The answer to a signal that asks for the end comes before the end does.
#[test]
fn an_end_that_somebody_asked_for_lasts_whoever_sees_it() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shared = sandbox.path().join("shared");
    std::fs::create_dir(&shared).expect("make a folder to share");
    let volume = format!("{}:/shared", shared.display());
    let script = "trap 'until [ -e /shared/go ]; do usleep 10000; done; exit 7' TERM; touch /shared/ready
                  while :; do usleep 10000; done";
    for (when, ended_under) in [("before", "none"), ("after", "none"), ("after", "the next")] {
        println!("{when} {ended_under}");
        let run = [
            "run",
            "-d",
            "--restart",
            "unless-stopped",
            "--name",
            "one",
            "-v",
            &volume,
        ];
        manager
            .ctl(&[&run[..], &[&image, "sh", "-c", script]].concat())
            .ok();
        eventually("its trap is set", || shared.join("ready").exists().then_some(()));
        let pid = inspect(&manager, "one")["pid"].as_i64().expect("a pid") as i32;
        if when == "before" {
            // It is on record, and the signal was not sent: somebody else's end lasts.
            manager.die_at("kill.recorded", |manager| {
                manager.ctl(&["kill", "-s", "TERM", "one"]).refused();
            });
            assert_eq!(inspect(&manager, "one")["state"], "running");
            kill(Pid::from_raw(pid), Signal::SIGTERM).expect("end it");
        } else {
            manager.ctl(&["kill", "-s", "TERM", "one"]).ok();
            manager.kill();
        }
        if ended_under == "the next" {
            manager.start_again();
        }
        std::fs::write(shared.join("go"), "").expect("let it end");
        eventually("it ends", || (!is_alive(&pid.into())).then_some(()));
        if when == "after" && ended_under == "none" {
            manager.start_again();
        }
        let found = eventually("its end is known", || {
            Some(inspect(&manager, "one")).filter(|found| found["state"] != "running")
        });
        assert_eq!(
            (&found["state"], &found["exit"]["code"]),
            (&"exited".into(), &7.into())
        );
        remove(&manager, "one");
        for name in ["go", "ready"] {
            std::fs::remove_file(shared.join(name)).expect("take the sign away");
        }
    }
}

/// What a policy starts finds volumes and ports as they should be.
#[test]
fn nothing_is_started_by_policy_before_all_is_put_right() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shared = sandbox.path().join("shared");
    std::fs::create_dir(&shared).expect("make a folder to share");
    let volume = format!("{}:/shared", shared.display());
    let runs = || std::fs::read_to_string(shared.join("runs")).map_or(0, |text| text.lines().count());
    let run = [
        "run",
        "-d",
        "--restart",
        "always",
        "--name",
        "one",
        "-v",
        &volume,
        &image,
    ];
    let script = "echo begun >> /shared/runs; exec sleep 1000";
    manager.ctl(&[&run[..], &["sh", "-c", script]].concat()).ok();
    eventually("it runs", || (runs() == 1).then_some(()));
    let pid = inspect(&manager, "one")["pid"].as_i64().expect("a pid") as i32;
    manager.kill();
    let standing = sandbox.path().join("standing");
    std::fs::write(&standing, "").expect("make the sign");
    manager.set_failpoint(Some(&format!("reconcile.settled@{}", standing.display())));
    manager.begin_again();
    manager.await_pause();
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("end the process");
    // Five times as long as the pause of its policy.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(runs(), 1, "it was started before the manager was ready");
    std::fs::remove_file(&standing).expect("take the sign away");
    eventually("it runs again", || (runs() == 2).then_some(()));
    manager.await_answer();
    manager.set_failpoint(None);
    remove(&manager, "one");
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
        manager.die_at(point, |manager| {
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

/// A limit that was there and is not asked for any more goes, too.
#[test]
fn a_limit_taken_away_is_gone_with_the_next_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for point in ["update.recorded", "update.applied"] {
        println!("{point}");
        let run = ["run", "-d", "--name", "one", "--pids-limit", "50"];
        manager.ctl(&[&run[..], &[&image, "sleep", "1000"]].concat()).ok();
        manager.die_at(point, |manager| {
            let update = ["update", "--pids-limit", "-1", "one"];
            manager.ctl(&update).refused();
        });
        let id = inspect(&manager, "one")["id"].as_str().expect("an id").to_owned();
        let places = ["pids/berth", "berth", "unified/berth"]
            .map(|parent| format!("/sys/fs/cgroup/{parent}/{id}/pids.max"));
        let limit = places.iter().find_map(|path| std::fs::read_to_string(path).ok());
        assert_eq!(limit.expect("a limit").trim(), "max");
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
