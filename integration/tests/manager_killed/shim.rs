//! The shim of a container is killed: the container does not go on unwatched, its end is told, and what it had is
//! removed, whether a manager is there or not.

use crate::{Witness, assert_no_strays, cgroups, inspect, is_alive, remove};
use integration::{Manager, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;

#[track_caller]
fn kill_shim(manager: &Manager, container: &Value) {
    let id = container["id"].as_str().expect("an id");
    let path = manager.state().join("bundles").join(id).join("shim.pid");
    let pid = fs::read_to_string(&path).expect("read the shim's pid");
    let pid = pid.trim().parse().expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill the shim");
}

/// It is told to have been killed, nothing of it is left, and it can be started again.
#[track_caller]
fn assert_ended(manager: &Manager, before: &Value) {
    let ended = inspect(manager, "lost");
    assert_eq!(
        (&ended["state"], &ended["exit"]["code"]),
        (&"exited".into(), &137.into()),
        "{ended}"
    );
    assert!(!is_alive(&before["pid"]), "its process goes on");
    assert_eq!(cgroups(before["id"].as_str().expect("an id")), [""; 0]);
    assert_no_strays(manager);
    assert_eq!(manager.ctl(&["logs", "lost"]).ok(), "written\n");
    manager.ctl(&["start", "lost"]).ok();
    assert_eq!(manager.ctl(&["exec", "lost", "echo", "hello"]).ok(), "hello\n");
    remove(manager, "lost");
}

#[track_caller]
fn run_lost(manager: &Manager, image: &str) -> Value {
    let script = "echo written; while :; do sleep 1000; done";
    manager
        .ctl(&["run", "-d", "--name", "lost", image, "sh", "-c", script])
        .ok();
    eventually("it has written", || {
        (manager.ctl(&["logs", "lost"]).ok() == "written\n").then_some(())
    });
    inspect(manager, "lost")
}

#[test]
fn a_container_ends_with_its_shim() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);

    let container = run_lost(&manager, &image);
    kill_shim(&manager, &container);
    assert_eq!(manager.ctl(&["wait", "lost"]).ok(), "137\n");
    let error = inspect(&manager, "lost")["error"].clone();
    assert!(
        error.as_str().is_some_and(|error| error.contains("shim")),
        "{error}"
    );
    assert_ended(&manager, &container);

    let container = run_lost(&manager, &image);
    manager.die_at("end.cleaned", |manager| {
        kill_shim(manager, &container);
    });
    assert_ended(&manager, &container);

    let container = run_lost(&manager, &image);
    manager.kill();
    kill_shim(&manager, &container);
    manager.start_again();
    assert_ended(&manager, &container);
    witness.assert_whole(&manager);
}

#[test]
fn an_exec_whose_shim_dies_before_it_tells_the_exit_has_its_status_all_the_same() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.kill();
    manager.set_failpoint(Some("shim:exit.recorded"));
    manager.start_again();
    let container = run_lost(&manager, &image);
    let exec = manager.ctl(&["exec", "lost", "sh", "-c", "exit 7"]);
    assert_eq!(exec.code, 7, "{exec}");
    manager.kill();
    manager.set_failpoint(None);
    manager.start_again();
    assert_ended(&manager, &container);
}
