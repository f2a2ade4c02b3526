//! Containers that have namespaces of other containers.

use integration::{Manager, Sandbox, eventually};
use std::fs;

/// Which namespace of a kind a container's first process is in.
fn namespace(manager: &Manager, container: &str, kind: &str) -> String {
    let pid = manager.inspect(container)["pid"].to_string();
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("the container runs");
    link.to_string_lossy().into_owned()
}

fn run(manager: &Manager, name: &str, flags: &[&str], image: &str) {
    let args = [&["run", "-d", "--name", name], flags, &[image, "sleep", "1000"]].concat();
    manager.ctl(&args).ok();
}

fn sh(manager: &Manager, container: &str, script: &str) -> String {
    manager.ctl(&["exec", container, "sh", "-c", script]).ok()
}

#[test]
fn a_network_is_had_with_its_addresses_and_files() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    run(
        &manager,
        "owner",
        &["--hostname", "web", "--add-host", "other:192.0.2.7"],
        &image,
    );
    run(&manager, "guest", &["--network", "container:owner"], &image);
    // And of one that has it from another.
    let owner = manager.inspect("owner")["id"].as_str().expect("an id").to_owned();
    run(&manager, "third", &["--network", "container:guest"], &image);
    for guest in ["guest", "third"] {
        assert_eq!(
            namespace(&manager, guest, "net"),
            namespace(&manager, "owner", "net")
        );
        for kind in ["pid", "ipc", "uts", "mnt"] {
            assert_ne!(
                namespace(&manager, guest, kind),
                namespace(&manager, "owner", kind),
                "{kind}"
            );
        }
        assert_eq!(sh(&manager, guest, "hostname; echo $HOSTNAME"), "web\nweb\n");
        for file in ["hosts", "resolv.conf", "hostname"] {
            let script = format!("cat /etc/{file}");
            assert_eq!(
                sh(&manager, guest, &script),
                sh(&manager, "owner", &script),
                "{file}"
            );
        }
    }
    assert!(sh(&manager, "guest", "cat /etc/hosts").contains("192.0.2.7\tother"));
    assert_eq!(
        manager.inspect("guest")["request"]["network"],
        format!("container:{owner}")
    );
    // What one writes there, the other reads.
    sh(&manager, "owner", "echo '192.0.2.9 late' >> /etc/hosts");
    assert!(sh(&manager, "guest", "cat /etc/hosts").contains("late"));
    // It is known by id, whatever its name, and after the manager's death.
    manager.ctl(&["rename", "owner", "renamed"]).ok();
    manager.kill();
    manager.start_again();
    manager.ctl(&["restart", "-t", "0", "guest"]).ok();
    assert_eq!(
        namespace(&manager, "guest", "net"),
        namespace(&manager, "renamed", "net")
    );
    // The end of the owner is not that of its guests, which can't begin again before it does.
    manager.ctl(&["stop", "-t", "0", "renamed"]).ok();
    assert_eq!(manager.inspect("guest")["state"], "running");
    let refused = manager.ctl(&["restart", "-t", "0", "guest"]).refused();
    assert!(
        refused.contains("cannot join the network namespace of renamed") && refused.contains("not running"),
        "{refused}"
    );
    manager.ctl(&["start", "renamed"]).ok();
    manager.ctl(&["start", "guest"]).ok();
    assert_eq!(
        namespace(&manager, "guest", "net"),
        namespace(&manager, "renamed", "net")
    );
    manager.ctl(&["rm", "-f", "renamed"]).ok();
    manager.ctl(&["stop", "-t", "0", "guest"]).ok();
    manager.ctl(&["start", "guest"]).refused();
}

#[test]
fn what_would_speak_for_anothers_network_is_refused() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    run(&manager, "owner", &[], &image);
    for (flags, reason) in [
        (&["--hostname", "x"][..], "hostname and the network mode"),
        (&["--dns", "192.0.2.1"], "dns and the network mode"),
        (
            &["--add-host", "a:192.0.2.1"],
            "custom host-to-IP mapping and the network mode",
        ),
        (
            &["-p", "80"],
            "port publishing and the container type network mode",
        ),
        (
            &["--expose", "80"],
            "port exposing and the container type network mode",
        ),
    ] {
        let args = [
            &["create", "--network", "container:owner"],
            flags,
            &[image.as_str(), "true"],
        ]
        .concat();
        let refused = manager.ctl(&args).refused();
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    for (flags, reason) in [
        (
            ["--network", "container:"],
            "invalid container format container:<name|id>",
        ),
        (["--network", "container:nobody"], "nobody"),
        (["--pid", "container:nobody"], "nobody"),
        (["--ipc", "container:owner"], "non-shareable IPC"),
        (["--uts", "container:owner"], "invalid mode"),
    ] {
        let refused = manager
            .ctl(&[&["run", "--rm"], &flags[..], &[image.as_str(), "true"]].concat())
            .refused();
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    manager
        .ctl(&[
            "create",
            "--name",
            "waits",
            "--pid",
            "container:owner",
            &image,
            "true",
        ])
        .ok();
    manager.ctl(&["stop", "-t", "0", "owner"]).ok();
    let refused = manager.ctl(&["start", "waits"]).refused();
    assert!(
        refused.contains("cannot join the pid namespace of owner: it is not running"),
        "{refused}"
    );
}

#[test]
fn processes_of_another_container_are_seen_and_end_with_it() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    run(&manager, "owner", &[], &image);
    // An init is another's here, as with docker.
    run(&manager, "guest", &["--init", "--pid", "container:owner"], &image);
    assert_eq!(
        namespace(&manager, "guest", "pid"),
        namespace(&manager, "owner", "pid")
    );
    let seen = sh(
        &manager,
        "guest",
        "tr '\\0' ' ' < /proc/1/cmdline; ps -o args | grep -c '^sleep 1000'",
    );
    assert_eq!(seen, "sleep 1000 2\n");
    // Its end is its own.
    manager.ctl(&["restart", "-t", "0", "guest"]).ok();
    assert_eq!(manager.inspect("owner")["state"], "running");
    manager.ctl(&["kill", "owner"]).ok();
    eventually("it ends with the first process of its namespace", || {
        (manager.inspect("guest")["state"] == "exited").then_some(())
    });
    assert_eq!(manager.inspect("guest")["exit"]["code"], 137);
}

#[test]
fn shared_memory_is_shared_by_those_who_say_so() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    run(
        &manager,
        "owner",
        &["--ipc", "shareable", "--shm-size", "1m"],
        &image,
    );
    run(&manager, "guest", &["--ipc", "container:owner"], &image);
    assert_eq!(
        namespace(&manager, "guest", "ipc"),
        namespace(&manager, "owner", "ipc")
    );
    sh(&manager, "owner", "echo shared > /dev/shm/file");
    assert_eq!(sh(&manager, "guest", "cat /dev/shm/file"), "shared\n");
    let mounts = sh(&manager, "guest", "grep ' /dev/shm ' /proc/mounts");
    assert!(
        mounts.contains("noexec") && mounts.contains("size=1024k"),
        "{mounts}"
    );
    manager.kill();
    manager.start_again();
    // It stays with the guest, and goes from the host with its owner.
    manager.ctl(&["rm", "-f", "owner"]).ok();
    assert_eq!(sh(&manager, "guest", "cat /dev/shm/file"), "shared\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    let state = manager.state().display().to_string();
    assert!(
        !mounts
            .lines()
            .any(|line| line.contains(&state) && line.contains("/shm ")),
        "{mounts}"
    );
    assert_eq!(sh(&manager, "guest", "df /dev/shm | wc -l"), "2\n");
    // None is of a private one.
    run(&manager, "alone", &[], &image);
    assert_eq!(sh(&manager, "alone", "ls /dev/shm"), "");
}
