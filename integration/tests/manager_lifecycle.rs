//! What becomes of a container after its creation: restarts, pauses, names, processes, prunes, and what
//! clients wait for.

use integration::{Manager, Sandbox, eventually, finish};
use serde_json::Value;
use std::io::Write;
use std::process::{Child, Stdio};

fn spawn(manager: &Manager, args: &[&str]) -> Child {
    spawn_with(manager, args, "")
}

/// A client that somebody answers.
fn spawn_with(manager: &Manager, args: &[&str], answer: &str) -> Child {
    let mut client = manager
        .ctl_command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a client");
    let mut stdin = client.stdin.take().expect("its input");
    stdin.write_all(answer.as_bytes()).expect("answer");
    client
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
    let first = manager.inspect("one");
    assert_eq!(
        manager.ctl(&["restart", "-s", "USR1", "-t", "60", "one"]).ok(),
        "one\n"
    );
    let second = manager.inspect("one");
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
    assert_eq!(manager.inspect("one")["exit"]["code"], 137);
    // One that does not run is started.
    manager.ctl(&["stop", "-t", "0", "one"]).ok();
    manager.ctl(&["restart", "one"]).ok();
    assert_eq!(manager.inspect("one")["state"], "running");
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
    assert_eq!(manager.inspect("one")["state"], "running");
    let mut removed = spawn(&manager, &["wait", "--condition", "removed", "one"]);
    // It does not end before its request is there, or it would be told that there is no such container.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(removed.try_wait().expect("look at a client").is_none());
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
    let same = manager.ctl(&["rename", "old", "old"]).refused();
    assert!(same.contains("already"), "{same}");
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
    let mut clients = [next, this, of_now];
    // One whose request came late waits for the next end, which is as good.
    eventually("all have been told", || {
        let told = |client: &mut Child| client.try_wait().expect("look at a client").is_some();
        if clients.iter_mut().all(told) {
            return Some(());
        }
        manager.ctl(&["start", "one"]).ok();
        manager.ctl(&["stop", "-t", "60", "one"]).ok();
        None
    });
    for client in clients {
        assert_eq!(finish(client, "wait".into()).ok(), "4\n");
    }
}

/// Counts in its log.
const COUNTER: &str = "trap 'exit 5' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";

fn lines(manager: &Manager) -> usize {
    manager.ctl(&["logs", "one"]).ok().lines().count()
}

/// The processes of a paused container are there, and none of them does anything.
fn stands_still(manager: &Manager) -> bool {
    let pid = manager.inspect("one")["pid"].to_string();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("read its stat");
        let fields: Vec<String> = stat.split(' ').map(str::to_owned).collect();
        fields[13..17].join(" ")
    };
    let before = (lines(manager), ticks());
    std::thread::sleep(std::time::Duration::from_millis(300));
    before == (lines(manager), ticks())
}

#[test]
fn a_paused_container_stands_still_until_it_is_let_on() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run = ["run", "-d", "--name", "one", &image, "sh", "-c", COUNTER];
    manager.ctl(&run).ok();
    let early = manager.ctl(&["unpause", "one"]).refused();
    assert!(early.contains("it is not paused"), "{early}");
    eventually("it counts", || (lines(&manager) > 3).then_some(()));

    assert_eq!(manager.ctl(&["pause", "one"]).ok(), "one\n");
    assert!(stands_still(&manager));
    assert_eq!(manager.inspect("one")["state"], "paused");
    assert!(manager.ctl(&["ps"]).ok().contains("(Paused)"));
    for (args, reason) in [
        (&["pause", "one"][..], "paused already"),
        (&["exec", "one", "true"], "unpause it first"),
        (&["attach", "one"], "unpause one"),
        (&["start", "one"], "unpause it"),
        (&["rm", "one"], "it is paused"),
    ] {
        let refused = manager.ctl(args).refused();
        assert!(refused.contains(reason), "{args:?}: {refused}");
    }
    // What stands still anyway is not let on by the end of a commit.
    manager.ctl(&["commit", "one", "still:1"]).ok();
    manager.kill();
    manager.start_again();
    assert_eq!(manager.inspect("one")["state"], "paused");
    assert!(stands_still(&manager));

    manager.ctl(&["unpause", "one"]).ok();
    let so_far = lines(&manager);
    eventually("it counts on", || (lines(&manager) > so_far).then_some(()));
    manager.ctl(&["stop", "-t", "0", "one"]).ok();
    let ended = manager.ctl(&["pause", "one"]).refused();
    assert!(ended.contains("not running"), "{ended}");
}

#[test]
fn a_paused_container_can_be_ended_in_every_way() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run = ["run", "-d", "--name", "one", &image, "sh", "-c", COUNTER];
    manager.ctl(&run).ok();
    for (end, code) in [
        (&["stop", "-t", "60", "one"][..], 5),
        (&["kill", "-s", "TERM", "one"], 5),
        (&["kill", "one"], 137),
        (&["restart", "-t", "60", "one"], 5),
    ] {
        manager.ctl(&["start", "one"]).ok();
        let seen = lines(&manager);
        eventually("it counts", || (lines(&manager) > seen + 3).then_some(()));
        manager.ctl(&["pause", "one"]).ok();
        manager.ctl(end).ok();
        if end[0] != "restart" {
            assert_eq!(manager.ctl(&["wait", "one"]).ok(), format!("{code}\n"), "{end:?}");
        }
        assert_eq!(manager.inspect("one")["exit"]["code"], code, "{end:?}");
    }
    manager.ctl(&["pause", "one"]).ok();
    manager.ctl(&["rm", "-f", "one"]).ok();
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn processes_are_shown_as_ps_shows_them() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // With a terminal and as another user: none of ps' own choice.
    manager
        .ctl(&[
            "run", "-d", "-t", "--user", "1234", "--name", "one", &image, "sleep", "1234",
        ])
        .ok();
    let pid = manager.inspect("one")["pid"].to_string();
    let shown = manager.ctl(&["top", "one"]).ok();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(
        lines[0].starts_with("UID") && lines[0].ends_with("CMD"),
        "{shown}"
    );
    assert!(
        lines[1].contains(&pid) && lines[1].ends_with("sleep 1234"),
        "{shown}"
    );

    let json = manager
        .ctl(&["--format", "json", "top", "one", "-o", "pid,args"])
        .ok();
    let told: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(told, serde_json::json!([{"PID": pid, "COMMAND": "sleep 1234"}]));
    let nameless = manager.ctl(&["top", "one", "-o", "args"]).refused();
    assert!(nameless.contains("PID"), "{nameless}");
    let unknown = manager.ctl(&["top", "one", "--nonsense"]).refused();
    assert!(unknown.contains("ps:"), "{unknown}");
    manager.ctl(&["kill", "one"]).ok();
    let ended = manager.ctl(&["top", "one"]).refused();
    assert!(ended.contains("not running"), "{ended}");
}

#[test]
fn a_prune_removes_what_does_not_run_and_was_meant() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let make = |name: &str, label: &str, command: &[&str]| {
        let run = ["run", "-d", "--name", name, "--label", label, &image];
        manager.ctl(&[&run[..], command].concat()).ok();
    };
    make("runs", "a=1", &["sleep", "1000"]);
    make("paused", "a=1", &["sleep", "1000"]);
    manager.ctl(&["pause", "paused"]).ok();
    make("kept", "keep", &["true"]);
    make(
        "wrote",
        "a=1",
        &["dd", "if=/dev/zero", "of=/file", "bs=1M", "count=3"],
    );
    manager.ctl(&["wait", "kept", "wrote"]).ok();
    manager.ctl(&["create", "--name", "new", &image, "true"]).ok();
    let wrote = manager.inspect("wrote")["id"].as_str().expect("an id").to_owned();

    let prune = |args: &[&str]| manager.ctl(&[&["container", "prune"], args].concat());
    assert_eq!(prune(&[]).ok(), "", "nobody has said yes");
    let unknown = prune(&["-f", "--filter", "colour=red"]).refused();
    assert!(
        unknown.contains("colour=red") && unknown.contains("until"),
        "{unknown}"
    );
    assert_eq!(
        prune(&["-f", "--filter", "until=1h"]).ok(),
        "Total reclaimed space: 0B\n"
    );
    let some = prune(&["-f", "--filter", "label=a"]).ok();
    assert!(
        some.starts_with(&format!("{wrote}\nTotal reclaimed space: 3.")),
        "{some}"
    );
    prune(&["-f", "--filter", "label!=keep"]).ok();
    let left = manager.ctl(&["ps", "-a"]).ok();
    assert!(
        ["runs", "paused", "kept"].iter().all(|name| left.contains(name)),
        "{left}"
    );
    assert!(!left.contains("new"), "{left}");
    let pruned = finish(
        spawn_with(&manager, &["container", "prune"], "y\n"),
        "prune".into(),
    )
    .ok();
    assert_eq!(pruned.lines().count(), 2, "{pruned}");
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok().lines().count(), 2);
}

/// A restart waits for an end as long as its client wants; nobody else has to.
#[test]
fn a_removal_does_not_wait_for_a_restart() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sh", "-c", deaf])
        .ok();
    eventually("it is deaf", || (lines(&manager) > 0).then_some(()));
    let mut restart = spawn(&manager, &["restart", "-t", "3000", "one"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(restart.try_wait().expect("look at a client").is_none());
    manager.ctl(&["rm", "-f", "one"]).ok();
    // The run that it has begun, if any, is over.
    let _ = finish(restart, "restart".into());
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}
