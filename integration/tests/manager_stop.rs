//! The manager's own stop and start: who waits is told, what cannot be is refused before anything is done, and
//! a start that was cut off leaves nothing.

use integration::{Manager, Sandbox, binary, eventually, finish, run};
use std::process::Stdio;

#[test]
fn at_a_stop_clients_that_wait_are_told_and_containers_run_on() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "long",
            &image,
            "sh",
            "-c",
            "echo ready; sleep 1000",
        ])
        .ok();
    let waiting: &[&[&str]] = &[
        &["logs", "-f", "long"],
        &["events"],
        &["wait", "long"],
        &["attach", "long"],
    ];
    let clients: Vec<_> = waiting
        .iter()
        .map(|args| {
            let mut client = manager.ctl_command(args);
            client
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            (client.spawn().expect("start a client"), args.join(" "))
        })
        .collect();
    // Each of them holds a connection to the socket, beside the listener.
    let socket = manager.socket().to_string_lossy().into_owned();
    eventually("all clients are connected", || {
        let table =
            std::fs::read_to_string(format!("/proc/{}/net/unix", manager.pid())).expect("read sockets");
        let connected = table.lines().filter(|line| line.ends_with(&socket)).count();
        (connected > waiting.len()).then_some(())
    });
    manager.stop();
    for (client, name) in clients {
        let done = finish(client, name);
        assert_ne!(done.code, 0, "{done}");
        // One that had only connected cannot know more.
        assert!(done.stderr.contains("manager"), "{done}");
    }
    manager.start_again();
    assert_eq!(manager.ctl(&["exec", "long", "echo", "alive"]).ok(), "alive\n");
}

#[test]
fn a_run_rm_that_was_cut_off_in_its_start_leaves_no_container() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["create", "--rm", "--name", "only-made", &image, "true"])
        .ok();
    manager.stop();
    manager.set_failpoint(Some("start.created"));
    manager.start_again();
    manager
        .ctl(&["run", "--rm", "--name", "cut", &image, "sleep", "1000"])
        .refused();
    manager.await_end();
    manager.set_failpoint(None);
    manager.start_again();
    let left = manager.ctl(&["ps", "-a", "-q", "--no-trunc"]).ok();
    assert_eq!(left.lines().count(), 1, "{left}");
    manager.ctl(&["rm", "only-made"]).ok();
}

#[test]
fn a_socket_path_that_is_too_long_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let state = sandbox.path().join("s".repeat(110));
    let mut manager = std::process::Command::new(binary("manager"));
    manager
        .arg("--root")
        .arg(sandbox.path().join("root"))
        .arg("--state")
        .arg(&state)
        .arg("--shim")
        .arg(binary("shim"));
    let done = run(&mut manager);
    assert_eq!(done.code, 1, "{done}");
    let refused = done.refused();
    assert!(
        refused.contains("--socket") && refused.lines().count() == 1,
        "{refused}"
    );
    assert!(!state.exists() && !sandbox.path().join("root").exists());
}
