//! `run -a`: which of a container's streams are the client's, held against dockerd. And `run -q`.

use integration::{Docker, Done, Image, Manager, Sandbox, finish};
use std::io::Write;
use std::process::{Command, Stdio};

/// A program with this on stdin, to its end.
fn fed(mut command: Command, input: &[u8]) -> Done {
    let command = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("start a client");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A client that refuses reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    finish(child, "managerctl or docker, fed".to_owned())
}

const BOTH: &str = "echo out; echo err >&2; exit 3";

#[test]
fn only_the_streams_that_are_named_are_attached() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let docker = Docker::start_with_runc(&sandbox);
    // What docker says goes for both.
    for (flags, script) in [
        (&[][..], BOTH),
        (&["-a", "stdout"], BOTH),
        (&["-a", "STDERR"], BOTH),
        (&["-a", "stdout", "-a", "stderr"], BOTH),
        (&["-i", "-a", "stdout"], "cat; echo err >&2"),
        (&["-a", "stdin", "-a", "stdout"], "cat; echo out"),
        (&["-i", "-a", "stdin", "-a", "stderr"], "cat >&2; echo out"),
        (&["-d", "-a", "stdout"], BOTH),
        (&["-a", "stdlog"], BOTH),
    ] {
        let run = |image| [&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat();
        let ours = fed(manager.ctl_command(&run(&image)), b"typed\n");
        let Some(docker) = &docker else { continue };
        let theirs = fed(docker.command(&run("box")), b"typed\n");
        assert_eq!(ours.stdout, theirs.stdout, "{flags:?}\n{ours}\n{theirs}");
        // Neither script ends so.
        if [1, 125].contains(&theirs.code) {
            let ours = ours.refused();
            let words = [
                "cannot specify both --attach and --detach",
                "valid streams are STDIN, STDOUT and STDERR",
            ];
            assert!(
                words
                    .iter()
                    .any(|word| theirs.stderr.contains(word) && ours.contains(word)),
                "{ours}"
            );
        } else {
            assert_eq!(
                (ours.code, &ours.stderr),
                (theirs.code, &theirs.stderr),
                "{flags:?}"
            );
        }
    }
}

#[test]
fn with_stdin_alone_the_container_gets_all_of_it_and_goes_on() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // More than pipes hold on the way, for one who takes his time.
    let input = vec![b'x'; 3 << 20];
    let script = "sleep 2; wc -c; sleep 1000";
    let run = [
        "run", "-i", "-a", "stdin", "--name", "one", &image, "sh", "-c", script,
    ];
    let done = fed(manager.ctl_command(&run), &input);
    let id = done.ok();
    assert_eq!(id.trim(), manager.inspect("one")["id"]);
    integration::eventually("all has arrived", || {
        let logs = manager.ctl(&["logs", "one"]).ok();
        (logs.trim() == input.len().to_string()).then_some(())
    });
    assert_eq!(manager.inspect("one")["state"], "running");

    // How the container ends is nobody's to tell here.
    let run = [
        "run",
        "--rm",
        "-i",
        "-a",
        "stdin",
        &image,
        "sh",
        "-c",
        "cat; exit 3",
    ];
    assert_eq!(fed(manager.ctl_command(&run), b"typed\n").code, 0);
}

#[test]
fn a_quiet_pull_says_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.registry().push(&Image::busybox(), "quiet:1");
    let done = manager.ctl(&["run", "--rm", "-q", &image, "echo", "out"]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", ""));
    let done = manager.ctl(&["create", "--quiet", "--pull", "always", &image]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_ne!(manager.ctl(&["create", "--pull", "always", &image]).stderr, "");
}
