//! What becomes of a container after its creation: restarts, names, and what clients wait for.

use integration::{Manager, Sandbox, eventually, finish};
use serde_json::Value;
use std::process::{Child, Stdio};

fn inspect(manager: &Manager, container: &str) -> Value {
    let all: Value = serde_json::from_str(&manager.ctl(&["inspect", container]).ok()).expect("JSON");
    all[0].clone()
}

fn spawn(manager: &Manager, args: &[&str]) -> Child {
    manager
        .ctl_command(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a client")
}

#[test]
fn a_restart_is_one_end_and_one_start() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "trap 'echo asked; exit 3' USR1; echo begun; while :; do sleep 0.1; done";
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sh", "-c", script])
        .ok();
    let first = inspect(&manager, "one");
    assert_eq!(
        manager.ctl(&["restart", "-s", "USR1", "-t", "60", "one"]).ok(),
        "one\n"
    );
    let second = inspect(&manager, "one");
    assert_eq!(second["state"], "running");
    assert_eq!(second["exit"]["code"], 3);
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!(first["address"], second["address"]);
    eventually("the second run has begun", || {
        let begun = manager.ctl(&["logs", "one"]).ok().matches("begun").count();
        (begun == 2).then_some(())
    });
    // One that does not listen is killed.
    manager.ctl(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(inspect(&manager, "one")["exit"]["code"], 137);
    // One that does not run is started.
    manager.ctl(&["stop", "-t", "0", "one"]).ok();
    manager.ctl(&["restart", "one"]).ok();
    assert_eq!(inspect(&manager, "one")["state"], "running");
}

#[test]
fn one_that_removes_itself_stays_at_a_restart_and_goes_at_its_end() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--rm", "--name", "one", &image, "sleep", "1000"])
        .ok();
    manager.ctl(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(inspect(&manager, "one")["state"], "running");
    let removed = spawn(&manager, &["wait", "--condition", "removed", "one"]);
    manager.ctl(&["kill", "one"]).ok();
    assert_eq!(finish(removed, "wait".into()).ok(), "137\n");
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn a_new_name_counts_at_once_and_is_nobody_elses() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--name", "old", &image, "sleep", "1000"])
        .ok();
    manager.ctl(&["create", "--name", "other", &image, "true"]).ok();
    let taken = manager.ctl(&["rename", "old", "other"]).refused();
    assert!(taken.contains("other") && taken.contains("in use"), "{taken}");
    let bad = manager.ctl(&["rename", "old", "-x/y"]).refused();
    assert!(bad.contains("name"), "{bad}");
    manager.ctl(&["rename", "old", "new"]).ok();
    let gone = manager.ctl(&["inspect", "old"]).refused();
    assert!(gone.contains("old"), "{gone}");
    assert_eq!(manager.ctl(&["exec", "new", "echo", "here"]).ok(), "here\n");
    manager.kill();
    manager.start_again();
    assert_eq!(manager.ctl(&["exec", "new", "echo", "still"]).ok(), "still\n");
    // The old name is free.
    manager.ctl(&["rename", "other", "old"]).ok();
}

#[test]
fn clients_wait_for_the_end_that_they_mean() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "trap 'exit 4' TERM; while :; do sleep 0.1; done";
    manager
        .ctl(&["create", "--name", "one", &image, "sh", "-c", script])
        .ok();
    let mut next = spawn(&manager, &["wait", "--condition", "next-exit", "one"]);
    assert_eq!(manager.ctl(&["wait", "one"]).ok(), "0\n", "it does not run");
    manager.ctl(&["start", "one"]).ok();
    let this = spawn(&manager, &["wait", "one"]);
    let of_now = spawn(&manager, &["wait", "--condition", "next-exit", "one"]);
    assert!(next.try_wait().expect("look at a client").is_none());
    manager.ctl(&["stop", "-t", "60", "one"]).ok();
    for client in [next, this, of_now] {
        assert_eq!(finish(client, "wait".into()).ok(), "4\n");
    }
}
