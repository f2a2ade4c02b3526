//! The manager as a service of systemd's, with cgroup v2 alone: with the units that Berth ships. These tests run where
//! systemd is process 1 (hack/vm-tests boots such machines); elsewhere they say why they do not.

use integration::{Sandbox, binary, busybox_rootfs, eventually, run};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const SERVICE: &str = include_str!("../../manager/daemon/systemd/berth.service");
const SOCKET: &str = include_str!("../../manager/daemon/systemd/berth.socket");

/// Where the units expect the programs.
const PROGRAMS: &str = "/usr/local/bin";

fn is_systemd_here() -> bool {
    let here =
        Path::new("/run/systemd/system").is_dir() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !here {
        println!("skipped: needs systemd as process 1, and cgroup v2 alone (hack/vm-tests has both)");
    }
    here
}

#[track_caller]
fn systemctl(args: &[&str]) -> String {
    run(Command::new("systemctl").args(args)).ok()
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit])
        .trim()
        .to_owned()
}

#[track_caller]
fn ctl(args: &[&str]) -> String {
    run(Command::new("managerctl").args(args)).ok()
}

#[track_caller]
fn inspect(name: &str) -> Value {
    let mut all: Value = serde_json::from_str(&ctl(&["inspect", name])).expect("JSON");
    all[0].take()
}

fn in_group(id: &str, file: &str) -> String {
    let path = Path::new("/sys/fs/cgroup/berth").join(id).join(file);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        .trim()
        .to_owned()
}

/// Berth as an administrator installs it, until the end of the test.
struct Installed;

impl Installed {
    fn new() -> Installed {
        for name in ["manager", "managerctl", "shim", "runtime", "init"] {
            let place = Path::new(PROGRAMS).join(name);
            fs::copy(binary(name), &place).expect("install a program");
        }
        fs::write("/etc/systemd/system/berth.service", SERVICE).expect("install a unit");
        fs::write("/etc/systemd/system/berth.socket", SOCKET).expect("install a unit");
        systemctl(&["daemon-reload"]);
        systemctl(&["enable", "--now", "berth.socket"]);
        Installed
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        for args in [
            ["disable", "--now", "berth.socket"],
            ["kill", "--signal=KILL", "berth.service"],
            ["disable", "--now", "berth.service"],
        ] {
            let _ = Command::new("systemctl").args(args).status();
        }
    }
}

#[test]
fn systemd_starts_it_on_demand_and_containers_outlive_it() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let _installed = Installed::new();
    assert_eq!(property("berth.service", "ActiveState"), "inactive");
    // The first request starts it.
    ctl(&["version"]);
    assert_eq!(property("berth.service", "ActiveState"), "active");

    let archive = sandbox.path().join("box.tar");
    let rootfs = sandbox.path().join("rootfs");
    busybox_rootfs(&rootfs);
    run(Command::new("tar")
        .arg("-C")
        .arg(rootfs)
        .arg("-cf")
        .arg(&archive)
        .arg("."))
    .ok();
    ctl(&["import", archive.to_str().expect("a path"), "box:1"]);
    let ran = run(Command::new("managerctl").args(["run", "--rm", "box:1", "sh", "-c", "echo out; exit 7"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "out\n"), "{}", ran.stderr);

    let first = ctl(&["run", "--rm", "--init", "box:1", "cat", "/proc/1/cmdline"]);
    assert!(first.contains("docker-init"), "{first}");

    // Limits, and what is counted, in cgroup v2.
    let held = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20; exec sleep 100000";
    let start = [
        "run",
        "-d",
        "--name",
        "long",
        "-m",
        "64m",
        "--pids-limit",
        "50",
        "box:1",
        "sh",
        "-c",
        held,
    ];
    let id = ctl(&start).trim().to_owned();
    assert_eq!(in_group(&id, "memory.max"), (64 << 20).to_string());
    ctl(&["update", "-m", "96m", "--cpus", "0.5", "long"]);
    assert_eq!(in_group(&id, "memory.max"), (96 << 20).to_string());
    assert_eq!(in_group(&id, "cpu.max"), "50000 100000");
    eventually("what it holds is counted", || {
        let told = ctl(&["stats", "--no-stream", "--format", "json", "long"]);
        let told: Value = serde_json::from_str(&told).ok()?;
        let (memory, limit) = (told["memoryBytes"].as_u64()?, told["memoryLimitBytes"].as_u64()?);
        (memory > 20 << 20 && limit == 96 << 20).then_some(())
    });

    // Killed, it is started again by systemd; stopped, by the next request. The container notices nothing.
    let pid = inspect("long")["pid"].clone();
    let first = property("berth.service", "MainPID");
    systemctl(&["kill", "--signal=KILL", "--kill-who=main", "berth.service"]);
    eventually("systemd has started it again", || {
        let now = property("berth.service", "MainPID");
        (now != first && now != "0" && property("berth.service", "ActiveState") == "active").then_some(())
    });
    assert_eq!(inspect("long")["pid"], pid);
    systemctl(&["stop", "berth.service"]);
    assert_eq!(property("berth.service", "Result"), "success");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(ctl(&["exec", "long", "echo", "here"]), "here\n");
    assert_eq!(inspect("long")["pid"], pid);
    systemctl(&["restart", "berth.service"]);
    ctl(&["rm", "-f", "long"]);
    assert!(!Path::new("/sys/fs/cgroup/berth").join(&id).exists());
    ctl(&["rmi", "box:1"]);
}
