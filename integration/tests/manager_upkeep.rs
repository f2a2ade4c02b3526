//! What keeps containers up: restart policies, at ends, by hand, and over restarts of the manager and the machine.

use integration::{Manager, Sandbox, binary, eventually, finish, run};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn pid(value: &Value) -> Pid {
    let pid = value.as_i64().expect("a pid");
    Pid::from_raw(i32::try_from(pid).expect("a pid"))
}

/// Its main process ends, and nobody has asked for that.
fn end(manager: &Manager, container: &str) {
    kill(pid(&manager.inspect(container)["pid"]), Signal::SIGKILL).expect("end the process");
}

#[track_caller]
fn await_state(manager: &Manager, container: &str, state: &str) -> Value {
    eventually(&format!("{container} is {state}"), || {
        let found = manager.inspect(container);
        (found["state"] == state).then_some(found)
    })
}

/// A container that is between two runs, with a pause before it that is long enough to look.
#[track_caller]
fn between_runs(manager: &Manager, image: &str, name: &str) {
    let run = ["run", "-d", "--restart", "always", "--name", name, image];
    manager
        .ctl(&[&run[..], &["sh", "-c", "echo ran; exit 1"]].concat())
        .ok();
    eventually("it restarts for the sixth time", || {
        let found = manager.inspect(name);
        (found["state"] == "restarting" && found["restartCount"].as_u64() >= Some(6)).then_some(())
    });
}

#[test]
fn on_failure_is_tried_so_often_with_growing_pauses() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let begun = Instant::now();
    let run = ["run", "-d", "--restart", "on-failure:3", "--name", "one", &image];
    manager
        .ctl(&[&run[..], &["sh", "-c", "echo ran; exit 3"]].concat())
        .ok();
    let ended = eventually("it is given up", || {
        let found = manager.inspect("one");
        (found["state"] == "exited" && found["restartCount"] == 3).then_some(found)
    });
    assert!(begun.elapsed() >= Duration::from_millis(100 + 200 + 400));
    assert_eq!(ended["exit"]["code"], 3);
    let policy = serde_json::json!({"name": "on-failure", "maximumRetryCount": 3});
    assert_eq!(ended["request"]["restart"], policy);
    assert_eq!(manager.ctl(&["logs", "one"]).ok(), "ran\n".repeat(4));
    // An end without a failure is none.
    let run = [
        "run",
        "-d",
        "--restart",
        "on-failure",
        "--name",
        "two",
        &image,
        "true",
    ];
    manager.ctl(&run).ok();
    let ended = await_state(&manager, "two", "exited");
    assert_eq!(ended["restartCount"], 0);
    // By hand it begins anew.
    manager.ctl(&["start", "one"]).ok();
    eventually("it is given up once more", || {
        let ran = manager.ctl(&["logs", "one"]).ok();
        (ran == "ran\n".repeat(8) && manager.inspect("one")["state"] == "exited").then_some(())
    });
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (flags, reason) in [
        (&["--restart", "sometimes"][..], "no restart policy"),
        (&["--restart", "always:3"], "on-failure only"),
        (&["--restart", "on-failure:x"], "no number of times"),
        (&["--restart", "always", "--rm"], "removes itself"),
    ] {
        let refused = manager.ctl(&[&["create"], flags, &[&image]].concat()).refused();
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn what_is_ended_by_hand_stays_down_and_what_ends_otherwise_does_not() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let trap = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    let run = ["run", "-d", "--restart", "always", "--name", "one", &image];
    manager.ctl(&[&run[..], &["sh", "-c", trap]].concat()).ok();
    let address = manager.inspect("one")["address"].clone();
    end(&manager, "one");
    let again = eventually("it runs again", || {
        let found = manager.inspect("one");
        (found["state"] == "running" && found["restartCount"] == 1).then_some(found)
    });
    assert_eq!(
        (&again["address"], &again["exit"]["code"]),
        (&address, &137.into())
    );
    for by_hand in [
        &["stop", "-t", "60", "one"][..],
        &["kill", "one"],
        &["kill", "-s", "TERM", "one"],
    ] {
        manager.ctl(by_hand).ok();
        let ended = await_state(&manager, "one", "exited");
        assert!(
            ended["exit"]["code"] == 0 || ended["exit"]["code"] == 137,
            "{ended}"
        );
        manager.ctl(&["start", "one"]).ok();
        assert_eq!(manager.inspect("one")["restartCount"], 0);
    }
    // A restart is no end.
    manager.ctl(&["restart", "-t", "60", "one"]).ok();
    assert_eq!(manager.inspect("one")["state"], "running");
    end(&manager, "one");
    eventually("it runs again", || {
        let found = manager.inspect("one");
        (found["state"] == "running" && found["restartCount"] == 1).then_some(())
    });
}

#[test]
fn between_two_runs_it_counts_as_up() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    between_runs(&manager, &image, "one");
    assert!(manager.ctl(&["ps"]).ok().contains("Restarting (1) "));
    for (args, reason) in [
        (&["exec", "one", "true"][..], "restarting"),
        (&["attach", "one"], "restarting"),
        (&["pause", "one"], "restarting"),
        (&["rm", "one"], "restarting; stop it first"),
    ] {
        let refused = manager.ctl(args).refused();
        assert!(refused.contains(reason), "{args:?}: {refused}");
    }
    let again = manager.ctl(&["start", "-a", "one"]).refused();
    assert!(again.contains("one is restarting already"), "{again}");
    assert_eq!(
        manager.ctl(&["container", "prune", "-f"]).ok(),
        "Total reclaimed space: 0B\n"
    );
    // Of what is between two runs nothing follows.
    assert!(manager.ctl(&["logs", "-f", "one"]).ok().starts_with("ran\nran\n"));
    // Waiting means the end of the next run, or that there is none.
    assert_eq!(manager.ctl(&["wait", "one"]).ok(), "1\n");
    await_state(&manager, "one", "restarting");
    let wait = manager.ctl_spawned(&["wait", "one"]);
    manager.ctl(&["stop", "one"]).ok();
    assert_eq!(finish(wait, "wait".into()).ok(), "1\n");
    let stopped = manager.inspect("one");
    assert_eq!(
        (&stopped["state"], &stopped["exit"]["code"]),
        (&"exited".into(), &1.into())
    );
    manager.ctl(&["rm", "one"]).ok();
    between_runs(&manager, &image, "two");
    manager.ctl(&["kill", "two"]).ok();
    assert_eq!(manager.inspect("two")["state"], "exited");
    manager.ctl(&["start", "two"]).ok();
    manager.ctl(&["rm", "-f", "two"]).ok();
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

/// What a reboot leaves: files below the root, and nothing that runs.
fn reboot(manager: &mut Manager) {
    let containers: Value =
        serde_json::from_str(&manager.ctl(&["ps", "--format", "json"]).ok()).expect("JSON");
    manager.kill();
    for container in containers.as_array().expect("containers") {
        let id = container["id"].as_str().expect("an id");
        let bundle = manager.state().join("bundles").join(id);
        if let Ok(shim) = fs::read_to_string(bundle.join("shim.pid")) {
            let shim = Pid::from_raw(shim.trim().parse().expect("a pid"));
            kill(shim, Signal::SIGKILL).expect("end the shim");
        }
        let mut delete = Command::new(binary("runtime"));
        delete.arg("--root").arg(manager.state().join("runtime/berth"));
        run(delete.args(["delete", "--force", id]));
        let _ = umount2(&bundle.join("rootfs"), MntFlags::MNT_DETACH);
    }
    fs::remove_dir_all(manager.state()).expect("clear what goes with a reboot");
    manager.start_again();
}

#[test]
fn policies_hold_over_a_reboot_and_a_restart_of_the_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let make = |name: &str, policy: &str| {
        let run = [
            "run",
            "-d",
            "--restart",
            policy,
            "--name",
            name,
            &image,
            "sleep",
            "1000",
        ];
        manager.ctl(&run).ok();
    };
    for (name, policy) in [
        ("always", "always"),
        ("always-stopped", "always"),
        ("unless", "unless-stopped"),
        ("unless-stopped", "unless-stopped"),
        ("failure", "on-failure"),
        ("failure-stopped", "on-failure"),
        ("no", "no"),
    ] {
        make(name, policy);
    }
    manager
        .ctl(&[
            "create",
            "--restart",
            "always",
            "--name",
            "new",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    manager
        .ctl(&[
            "stop",
            "-t",
            "0",
            "always-stopped",
            "unless-stopped",
            "failure-stopped",
        ])
        .ok();
    let before = manager.inspect("always");
    for (restart, of_running) in [(true, "running"), (false, "exited")] {
        if restart {
            manager.kill();
            manager.start_again();
            assert_eq!(manager.inspect("always")["pid"], before["pid"]);
            await_state(&manager, "always-stopped", "running");
            manager.ctl(&["stop", "-t", "0", "always-stopped"]).ok();
        } else {
            reboot(&mut manager);
        }
        for name in ["always", "always-stopped", "unless", "failure"] {
            if restart && name == "always-stopped" {
                continue;
            }
            await_state(&manager, name, "running");
        }
        for (name, state) in [
            ("unless-stopped", "exited"),
            ("failure-stopped", "exited"),
            ("no", of_running),
            ("new", "created"),
        ] {
            assert_eq!(manager.inspect(name)["state"], state, "{name}");
        }
    }
    assert_eq!(manager.ctl(&["exec", "unless", "echo", "here"]).ok(), "here\n");
    assert!(
        Path::new("/proc")
            .join(manager.inspect("failure")["pid"].to_string())
            .exists()
    );
}

#[test]
fn a_start_that_does_not_work_is_tried_again() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let folder = sandbox.path().join("shared");
    let volume = format!("{}:/mnt", folder.join("inner").display());
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
    manager.ctl(&[&run[..], &["sleep", "1000"]].concat()).ok();
    // Its source can be no folder now.
    let aside = sandbox.path().join("aside");
    fs::rename(&folder, &aside).expect("take the source away");
    fs::write(&folder, "").expect("put a file in its place");
    end(&manager, "one");
    let failing = eventually("two starts have failed", || {
        let found = manager.inspect("one");
        (found["state"] == "restarting" && found["restartCount"].as_u64() >= Some(3)).then_some(found)
    });
    let why = failing["error"].as_str().expect("a reason");
    assert!(why.contains("shared"), "{why}");
    fs::remove_file(&folder).expect("take the file away");
    fs::rename(&aside, &folder).expect("bring the source back");
    let runs = await_state(&manager, "one", "running");
    assert_eq!(runs["error"], Value::Null);
    // A shim that is lost is an end, too.
    let id = runs["id"].as_str().expect("an id");
    let shim = manager.state().join("bundles").join(id).join("shim.pid");
    let shim = fs::read_to_string(shim).expect("read the shim's pid");
    kill(
        Pid::from_raw(shim.trim().parse().expect("a pid")),
        Signal::SIGKILL,
    )
    .expect("end the shim");
    eventually("it runs under another shim", || {
        let found = manager.inspect("one");
        (found["state"] == "running" && found["pid"] != runs["pid"]).then_some(())
    });
}

#[test]
fn a_client_in_the_foreground_sees_one_run() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run = ["run", "--restart", "on-failure:1", "--name", "one", &image];
    let done = manager.ctl(&[&run[..], &["sh", "-c", "echo ran; exit 3"]].concat());
    assert_eq!((done.code, done.stdout.as_str()), (3, "ran\n"), "{done}");
    eventually("it ran once more", || {
        (manager.ctl(&["logs", "one"]).ok() == "ran\nran\n").then_some(())
    });
    await_state(&manager, "one", "exited");
}
