//! The shim under containerd itself, driven with `ctr`: what containerd's users do, and what happens to live containers
//! when containerd or a shim dies. Skipped by nobody: containerd is a Debian package that the set-up installs.

use std::fs;
use std::process::Stdio;

use integration::{Containerd, Sandbox, eventually};

/// The process id that our shim has written into its bundle.
fn shim_pid(containerd: &Containerd, id: &str) -> i32 {
    let pid = fs::read_to_string(containerd.bundle(id).join("shim.pid")).expect("read shim.pid");
    pid.parse().expect("a pid")
}

fn send(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signal");
}

#[test]
fn run_gives_output_and_exit_code_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    let done = containerd.run(
        &["--rm"],
        "c1",
        &["/bin/sh", "-c", "echo out; echo err >&2; exit 3"],
    );
    assert_eq!((done.code, done.stdout.as_str()), (3, "out\n"), "{done}");
    assert!(done.stderr.contains("err"), "{done}");
    let done = containerd.run(&["--rm"], "c2", &["/no/such/program"]);
    assert!(done.refused().contains("/no/such/program"));
    assert_eq!(
        fs::read_dir(containerd.bundle(""))
            .expect("read the bundles")
            .count(),
        0
    );
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn exec_pause_ps_metrics_and_kill_work() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.wait_for("c1", "RUNNING");
    let done = containerd.exec(&[], "c1", &["/bin/sh", "-c", "echo inside; exit 7"]);
    assert_eq!((done.code, done.stdout.as_str()), (7, "inside\n"), "{done}");
    assert_eq!(containerd.ctr(&["task", "ps", "c1"]).ok().lines().count(), 2);
    assert!(containerd.ctr(&["task", "metrics", "c1"]).ok().contains("memory"));
    containerd.ctr(&["task", "pause", "c1"]).ok();
    assert_eq!(containerd.status("c1").as_deref(), Some("PAUSED"));
    containerd.ctr(&["task", "resume", "c1"]).ok();
    assert_eq!(containerd.status("c1").as_deref(), Some("RUNNING"));
    containerd.ctr(&["task", "kill", "-s", "KILL", "c1"]).ok();
    containerd.wait_for("c1", "STOPPED");
    containerd.remove("c1");
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn events_come_in_the_order_in_which_things_happen() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    let log = fs::File::create(sandbox.path().join("events")).expect("make a file");
    let mut listener = containerd
        .ctr_command(&["events"])
        .stdin(Stdio::null())
        .stdout(log)
        .spawn()
        .expect("start ctr events");
    let topics = || -> Vec<String> {
        let text = fs::read_to_string(sandbox.path().join("events")).unwrap_or_default();
        let topics = text
            .lines()
            .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        topics
            .filter_map(|topic| topic.strip_prefix("/tasks/"))
            .map(str::to_owned)
            .collect()
    };
    // Events before the listener is there are not replayed, so the first container may go unheard.
    let mut heard = 0;
    while heard == 0 {
        containerd.run(&["--rm"], "warm", &["/bin/true"]).ok();
        heard = topics().len();
    }
    eventually("the first container is gone", || {
        (topics().last()? == "delete").then_some(())
    });
    let before = topics().len();
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.exec(&[], "c1", &["/bin/true"]).ok();
    containerd.ctr(&["task", "kill", "-s", "KILL", "c1"]).ok();
    containerd.wait_for("c1", "STOPPED");
    containerd.remove("c1");
    let expected = [
        "create",
        "start",
        "exec-added",
        "exec-started",
        "exit",
        "exit",
        "delete",
    ];
    eventually("all events are heard", || {
        (topics().len() >= before + expected.len()).then_some(())
    });
    assert_eq!(topics()[before..], expected);
    listener.kill().expect("end ctr events");
    listener.wait().expect("wait for ctr events");
}

#[test]
fn containers_outlive_a_killed_containerd() {
    let sandbox = Sandbox::new();
    let mut containerd = Containerd::with_our_shim(&sandbox);
    containerd.run(&["-d"], "stays", &["/bin/sleep", "1000"]).ok();
    containerd
        .run(
            &["-d"],
            "ends",
            &[
                "/bin/sh",
                "-c",
                "while test ! -e /tmp/go; do sleep 0.05; done; exit 9",
            ],
        )
        .ok();
    containerd.wait_for("ends", "RUNNING");
    containerd.kill();
    // One ends while nobody is there to hear of it.
    fs::write(sandbox.path().join("rootfs/tmp/go"), "").expect("let it end");
    let bundle = containerd.bundle("ends");
    eventually("the exit is on disk", || {
        bundle.join("exit.json").exists().then_some(())
    });
    containerd.start_again();
    containerd.wait_for("stays", "RUNNING");
    containerd.wait_for("ends", "STOPPED");
    let removed = containerd.ctr(&["task", "rm", "ends"]);
    assert!(removed.stderr.contains("exit code 9"), "{removed}");
    let done = containerd.exec(&[], "stays", &["/bin/echo", "again"]);
    assert_eq!(done.ok(), "again\n");
    containerd.remove("stays");
    containerd.ctr(&["container", "rm", "ends"]).ok();
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn a_killed_shim_is_noticed_and_its_container_removed() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.run(&["-d"], "c2", &["/bin/sleep", "1000"]).ok();
    containerd.wait_for("c1", "RUNNING");
    send(shim_pid(&containerd, "c1"), nix::sys::signal::SIGKILL);
    eventually("containerd forgets the task", || {
        containerd.status("c1").is_none().then_some(())
    });
    assert_eq!(
        containerd.status("c2").as_deref(),
        Some("RUNNING"),
        "its neighbour is untouched"
    );
    containerd.ctr(&["container", "rm", "c1"]).ok();
    containerd.remove("c2");
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn sigterm_does_not_take_a_shim_from_its_container() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.wait_for("c1", "RUNNING");
    send(shim_pid(&containerd, "c1"), nix::sys::signal::SIGTERM);
    let done = containerd.exec(&[], "c1", &["/bin/echo", "alive"]);
    assert_eq!(done.ok(), "alive\n");
    containerd.remove("c1");
}
