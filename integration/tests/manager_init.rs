//! `--init`: a small first process before the program of a container.

use integration::{Image, Layer, Manager, Sandbox, binary, eventually};
use std::fs;

/// What a container is given of it.
const SIZE_MAX_BYTES: u64 = 100 << 10;

#[test]
fn the_init_is_small_and_needs_nothing() {
    let length = fs::metadata(binary("init")).expect("the init").len();
    assert!(length < SIZE_MAX_BYTES, "{length} bytes");
}

#[test]
fn an_init_ends_as_its_program_does() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let code = |script: &str| {
        let run = manager.ctl(&["run", "--rm", "--init", &image, "sh", "-c", script]);
        run.code
    };
    assert_eq!(code("true"), 0);
    assert_eq!(code("exit 42"), 42);
    assert_eq!(code("kill -USR1 $$"), 128 + 10);
    assert_eq!(code("kill -9 $$"), 128 + 9);
    let lost = manager.ctl(&["run", "--rm", "--init", &image, "/no/such/program"]);
    assert_eq!(lost.code, 127);
    assert!(
        lost.stderr.contains("/no/such/program: No such file"),
        "{}",
        lost.stderr
    );
    let folder = manager.ctl(&["run", "--rm", "--init", &image, "/etc"]);
    assert_eq!(folder.code, 126);
    // It is what it says, and cannot be changed.
    let script =
        "tr '\\0' ' ' < /proc/1/cmdline; (echo x >> /sbin/docker-init) 2>/dev/null && echo chan\"\"ged; true";
    let told = manager
        .ctl(&["run", "--rm", "--init", "--read-only", &image, "sh", "-c", script])
        .ok();
    assert!(told.starts_with("/sbin/docker-init -- sh -c"), "{told}");
    assert!(!told.contains("changed"), "{told}");
    // Nothing of it belongs to the container.
    manager
        .ctl(&["run", "--name", "one", "--init", &image, "true"])
        .ok();
    assert_eq!(manager.ctl(&["diff", "one"]).ok(), "");
    assert_eq!(manager.inspect("one")["command"], serde_json::json!(["true"]));
    assert_eq!(manager.inspect("one")["request"]["init"], true);
}

#[test]
fn an_init_sends_signals_on_and_leaves_no_zombies() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // The program itself never waits for anybody.
    let script = "trap 'echo got TERM; exit 7' TERM; trap 'echo got HUP' HUP; echo ready
                  while :; do usleep 10000; done";
    let run = ["run", "-d", "--name", "one", "--init", "--user", "65534", &image];
    manager.ctl(&[&run[..], &["sh", "-c", script]].concat()).ok();
    let said = |words: &str| {
        eventually(words, || {
            manager.ctl(&["logs", "one"]).ok().contains(words).then_some(())
        });
    };
    said("ready");
    for _ in 0..20 {
        manager
            .ctl(&["exec", "one", "sh", "-c", "(usleep 1000; true) & exec true"])
            .ok();
    }
    eventually("no zombie is left", || {
        let states = manager
            .ctl(&["exec", "one", "sh", "-c", "grep -h '^State' /proc/[0-9]*/status"])
            .ok();
        (!states.contains("zombie")).then_some(())
    });
    manager.ctl(&["kill", "-s", "HUP", "one"]).ok();
    said("got HUP");
    manager.kill();
    manager.start_again();
    manager.ctl(&["stop", "one"]).ok();
    let found = manager.inspect("one");
    assert_eq!(found["exit"]["code"], 7);
    assert!(manager.ctl(&["logs", "one"]).ok().contains("got TERM"));
}

#[test]
fn a_terminal_interrupts_the_program_and_an_image_needs_no_sbin() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do usleep 10000; done";
    let mut terminal = manager.ctl_on_terminal(&["run", "--rm", "-it", "--init", &image, "sh", "-c", script]);
    terminal.expect("ready");
    terminal.send("\x03");
    terminal.expect("interrupted");
    assert_eq!(terminal.exit_code(), 3);
    // A file system with a program and nothing else.
    let bare = Image::new(vec![Layer::from_files(&[("place", "")])]);
    let bare = manager.registry().push(&bare, "bare:1");
    manager.ctl(&["pull", &bare]).ok();
    let program = format!("{}:/program", binary("init").display());
    let told = manager.ctl(&[
        "run", "--rm", "--init", "-v", &program, &bare, "/program", "--", "/program",
    ]);
    assert!(told.stderr.contains("usage: docker-init"), "{}", told.stderr);
    assert_eq!(told.code, 1);
}

#[test]
fn an_init_that_is_not_there_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.kill();
    manager.set_options(&["--init-path", "/no/such/init"]);
    manager.start_again();
    let refused = manager.ctl(&["create", "--init", &image, "true"]).refused();
    assert!(
        refused.contains("/no/such/init is not there") && refused.contains("--init-path"),
        "{refused}"
    );
    manager.ctl(&["run", "--rm", &image, "true"]).ok();
}
