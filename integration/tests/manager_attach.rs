//! Sessions with containers: attach, detach, exec, logs, and what becomes of them when the manager is killed.

use integration::{Manager, Sandbox, Terminal, eventually};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::process::Stdio;

const DETACH: &str = "\x10\x11";

#[track_caller]
fn is_alive(pid: &Value) -> bool {
    let pid = pid.as_i64().expect("a pid") as i32;
    kill(Pid::from_raw(pid), None).is_ok()
}

/// A shell in a container, ready to be typed at.
#[track_caller]
fn shell(manager: &Manager, image: &str, name: &str) -> Terminal {
    let mut terminal = manager.ctl_on_terminal(&["run", "-it", "--name", name, image, "sh"]);
    terminal.send("echo ready-$((40 + 2))\n");
    terminal.expect("ready-42");
    terminal
}

#[test]
fn detach_keys_leave_it_running_and_attach_returns_to_it() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let mut first = shell(&manager, &image, "left");
    first.send("secret=51\n");
    first.send("echo $((secret + 1))-is-set\n");
    first.expect("52-is-set");
    first.send(DETACH);
    assert_eq!(first.exit_code(), 0);
    assert_eq!(manager.inspect("left")["state"], "running");

    let mut second = manager.ctl_on_terminal(&["attach", "left"]);
    second.send("echo $((secret + 2))-still-set\n");
    second.expect("53-still-set");
    second.send("exit 9\n");
    assert_eq!(second.exit_code(), 9);
    let refused = manager.ctl(&["attach", "left"]).refused();
    assert!(refused.contains("left"), "{refused}");
}

#[test]
fn the_windows_size_reaches_the_container() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let mut terminal = shell(&manager, &image, "sized");
    terminal.send("stty size\n");
    terminal.expect("24 80");
    terminal.resize(100, 40);
    terminal.send("until [ \"$(stty size)\" = '40 100' ]; do usleep 10000; done; echo resized-$((1 + 1))\n");
    terminal.expect("resized-2");
    let mut exec = manager.ctl_on_terminal(&["exec", "-it", "sized", "sh"]);
    exec.send("stty size\n");
    exec.expect("24 80");
    exec.resize(90, 30);
    exec.send("until [ \"$(stty size)\" = '30 90' ]; do usleep 10000; done; echo resized-$((1 + 1))\n");
    exec.expect("resized-2");
    exec.send("exit\n");
    assert_eq!(exec.exit_code(), 0);
    terminal.send("exit\n");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn a_process_that_does_not_read_still_learns_of_the_windows_size() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "stty raw -echo; echo deaf; until [ \"$(stty size)\" = '40 100' ]; do usleep 10000; done; \
                  echo resized; head -c 300000 | tr -d x | wc -c";
    let mut terminal = manager.ctl_on_terminal(&["run", "-it", "--name", "deaf", &image, "sh", "-c", script]);
    terminal.expect("deaf");
    // More than all the buffers on the way hold.
    terminal.send(&"x".repeat(300_000));
    terminal.resize(100, 40);
    terminal.expect("resized");
    // And nothing of the input is lost.
    terminal.expect("0");
    assert_eq!(terminal.exit_code(), 0);
}

#[test]
fn exec_runs_one_more_process() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&[
            "run", "-d", "--name", "host", "-e", "A=1", &image, "sleep", "1000",
        ])
        .ok();
    let done = manager.ctl(&["exec", "host", "sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str(), done.code),
        ("out\n", "err\n", 4)
    );
    let script = "echo $A $B; pwd; id -un";
    let done = manager.ctl(&[
        "exec", "-e", "B=2", "-w", "/tmp", "-u", "alice", "host", "sh", "-c", script,
    ]);
    assert_eq!(done.ok(), "1 2\n/tmp\nalice\n");
    let missing = manager.ctl(&["exec", "host", "no-such-program"]);
    assert!(
        missing.code == 127 && missing.stderr.contains("no-such-program"),
        "{missing}"
    );

    manager
        .ctl(&["exec", "-d", "host", "sh", "-c", "echo done > /marker"])
        .ok();
    eventually("the command in the background has run", || {
        (manager.ctl(&["exec", "host", "cat", "/marker"]).stdout == "done\n").then_some(())
    });

    let input = sandbox.path().join("input");
    let text = "0123456789abcde\n".repeat(100_000);
    fs::write(&input, &text).expect("write the input");
    let mut command = manager.ctl_command(&["exec", "-i", "host", "cat"]);
    command.stdin(fs::File::open(&input).expect("open the input"));
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start managerctl");
    assert!(integration::finish(child, "exec -i cat".to_owned()).ok() == text);

    let mut terminal = manager.ctl_on_terminal(&["exec", "-it", "host", "sh"]);
    terminal.send("tty; echo inside-$((1 + 1))\n");
    terminal.expect("/dev/pts/");
    terminal.expect("inside-2");
    terminal.send("exit 6\n");
    assert_eq!(terminal.exit_code(), 6);
    assert_eq!(manager.inspect("host")["state"], "running");
}

#[test]
fn logs_are_whole_and_follow() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make a folder to share");
    let volume = format!("{}:/shared", shared.display());
    let script = "echo first; until [ -e /shared/go ]; do usleep 10000; done; echo second >&2; echo third";
    manager
        .ctl(&[
            "run", "-d", "--name", "talker", "-v", &volume, &image, "sh", "-c", script,
        ])
        .ok();
    let mut follower = manager.ctl_on_terminal(&["logs", "-f", "talker"]);
    follower.expect("first");
    fs::write(shared.join("go"), "").expect("tell it to go on");
    follower.expect("second");
    follower.expect("third");
    assert_eq!(follower.exit_code(), 0, "a log that can't grow is not followed");
    assert_eq!(manager.ctl(&["wait", "talker"]).ok(), "0\n");
    let all = manager.ctl(&["logs", "talker"]);
    assert_eq!(
        (all.stdout.as_str(), all.stderr.as_str()),
        ("first\nthird\n", "second\n")
    );
    let tail = manager.ctl(&["logs", "--tail", "1", "talker"]);
    assert_eq!((tail.stdout.as_str(), tail.stderr.as_str()), ("third\n", ""));
    let stamped = manager.ctl(&["logs", "-t", "talker"]).ok();
    let line = stamped.lines().next().expect("a line");
    assert!(line.starts_with("20") && line.ends_with("Z first"), "{line}");
    let since = line.split(' ').next().expect("a time");
    assert_eq!(
        manager.ctl(&["logs", "--since", since, "talker"]).ok(),
        "first\nthird\n"
    );
    assert_eq!(
        manager
            .ctl(&["logs", "--since", "2100-01-01T00:00:00Z", "talker"])
            .ok(),
        ""
    );
}

#[test]
fn a_terminal_survives_the_managers_death() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let mut terminal = shell(&manager, &image, "survivor");
    terminal.send("before=1\n");
    terminal.send("echo before-$before\n");
    terminal.expect("before-1");
    let pid = manager.inspect("survivor")["pid"].clone();
    manager.kill();
    terminal.expect("the connection to the manager");
    assert_eq!(terminal.exit_code(), 125);
    assert!(is_alive(&pid), "the container ended with the manager");
    manager.start_again();
    let found = manager.inspect("survivor");
    assert_eq!((&found["state"], &found["pid"]), (&Value::from("running"), &pid));

    let mut again = manager.ctl_on_terminal(&["attach", "survivor"]);
    again.send("echo after-$before\n");
    again.expect("after-1");
    again.send("exit 8\n");
    assert_eq!(again.exit_code(), 8);
    let log = manager.ctl(&["logs", "survivor"]).ok();
    for text in ["ready-42", "before-1", "after-1"] {
        assert!(log.contains(text), "{text} is not in the log:\n{log}");
    }
}

#[test]
fn what_happens_while_there_is_no_manager_is_known_to_the_next() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make a folder to share");
    let volume = format!("{}:/shared", shared.display());
    // Writes all the time, and ends when it is told to, with nobody there to see it.
    let script = "i=0; until [ -e /shared/go ]; do echo line $i; i=$((i + 1)); usleep 1000; done; echo last $i; exit 9";
    manager
        .ctl(&[
            "run", "-d", "--name", "alone", "-v", &volume, &image, "sh", "-c", script,
        ])
        .ok();
    manager
        .ctl(&["run", "-d", "--name", "other", &image, "sleep", "1000"])
        .ok();
    manager
        .ctl(&[
            "run", "-d", "--rm", "--name", "passing", "-v", &volume, &image, "sh", "-c", script,
        ])
        .ok();
    eventually("it has written some lines", || {
        manager
            .ctl(&["logs", "alone"])
            .ok()
            .contains("line 20\n")
            .then_some(())
    });
    let alone = manager.inspect("alone")["pid"].clone();
    let passing = manager.inspect("passing")["pid"].clone();
    manager.kill();
    fs::write(shared.join("go"), "").expect("tell it to end");
    eventually("both have ended", || {
        (!is_alive(&alone) && !is_alive(&passing)).then_some(())
    });
    manager.start_again();

    // What the first answer says is so: nobody is told that a container runs which has ended.
    let found = manager.inspect("alone");
    assert_eq!(
        (&found["state"], &found["exit"]["code"]),
        (&Value::from("exited"), &Value::from(9))
    );
    let log = manager.ctl(&["logs", "alone"]).ok();
    let count = log.lines().count() - 1;
    let expected = (0..count)
        .map(|i| format!("line {i}"))
        .chain([format!("last {count}")]);
    assert!(
        count > 20 && log.lines().eq(expected),
        "the log has a hole:\n{log}"
    );
    assert_eq!(manager.inspect("other")["state"], "running");
    let table = manager.ctl(&["ps", "-a"]).ok();
    assert!(
        table.lines().count() == 3 && !table.contains("passing"),
        "the container that removes itself is still there:\n{table}"
    );
    // And all goes on as before.
    assert_eq!(manager.ctl(&["exec", "other", "echo", "hello"]).ok(), "hello\n");
    manager.ctl(&["start", "alone"]).ok();
    assert_eq!(manager.ctl(&["wait", "alone"]).ok(), "9\n");
}

#[test]
fn a_following_client_sees_the_manager_go_and_a_new_one_has_it_all() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i + 1)); usleep 1000; done; exit 4";
    manager
        .ctl(&["run", "-d", "--name", "counter", &image, "sh", "-c", script])
        .ok();
    let mut follower = manager.ctl_on_terminal(&["logs", "-f", "counter"]);
    follower.expect("line 50");
    manager.kill();
    assert_eq!(follower.exit_code(), 1);
    manager.start_again();
    assert_eq!(manager.ctl(&["wait", "counter"]).ok(), "4\n");
    let log = manager.ctl(&["logs", "counter"]).ok();
    assert!(
        log.lines().eq((0..2000).map(|i| format!("line {i}"))),
        "the log has a hole:\n{log}"
    );
}
