//! The manager as a service of systemd's, with cgroup v2 alone: with the units that Berth ships. These tests run where
//! systemd is process 1 (hack/vm-tests boots such machines); elsewhere they say why they do not.

use integration::{Sandbox, binary, busybox_rootfs, eventually, run};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// There is one service of this name on a machine: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Berth as an administrator installs it, until the end of the test.
struct Installed(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

impl Installed {
    fn new() -> Installed {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        for name in ["manager", "managerctl", "shim", "runtime", "init"] {
            let place = Path::new(PROGRAMS).join(name);
            fs::copy(binary(name), &place).expect("install a program");
        }
        fs::write("/etc/systemd/system/berth.service", SERVICE).expect("install a unit");
        fs::write("/etc/systemd/system/berth.socket", SOCKET).expect("install a unit");
        systemctl(&["daemon-reload"]);
        systemctl(&["enable", "--now", "berth.socket"]);
        Installed(turn)
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

/// Make the image box:1.
fn import(sandbox: &Sandbox) {
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

    import(&sandbox);
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

#[test]
fn a_reload_of_the_service_reads_the_configuration_again() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let _installed = Installed::new();
    import(&sandbox);
    fs::create_dir_all("/etc/berth").expect("make a folder");
    let file = Path::new("/etc/berth/manager.toml");
    fs::write(file, "default-shm-size = '8m'\n").expect("write the configuration");
    systemctl(&["reload", "berth.service"]);
    eventually("the configuration holds", || {
        let told = ctl(&["info", "--format", "json"]);
        told.contains("/etc/berth/manager.toml").then_some(())
    });
    let seen = ctl(&[
        "run",
        "--rm",
        "--network",
        "none",
        "box:1",
        "df",
        "-k",
        "/dev/shm",
    ]);
    assert!(seen.contains("8192"), "{seen}");
    fs::remove_file(file).expect("remove the configuration");
    ctl(&["rmi", "box:1"]);
}

/// Puts the wall clock back where it would be.
struct Clock {
    right: i64,
    began: Instant,
}

impl Clock {
    fn new() -> Clock {
        let now = run(Command::new("date").arg("+%s")).ok();
        Clock {
            right: now.trim().parse().expect("a number"),
            began: Instant::now(),
        }
    }

    /// So many days from where it should be.
    fn jump(&self, days: i64) {
        let now = self.right + self.began.elapsed().as_secs() as i64 + days * 86_400;
        run(Command::new("date").args(["-s", &format!("@{now}")])).ok();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.jump(0);
    }
}

/// Health checks, back-off, a stop's grace, `logs --since` and events go on as if nothing had been.
#[test]
fn nothing_waits_for_a_clock_that_jumps() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let _installed = Installed::new();
    import(&sandbox);
    let clock = Clock::new();
    for days in [-1, 1] {
        clock.jump(0);
        let health = [
            "--health-cmd",
            "false",
            "--health-interval",
            "1s",
            "--health-retries",
            "2",
        ];
        let ill = [
            "run",
            "-d",
            "--name",
            "ailing",
            "--network",
            "none",
            "--health-start-period",
            "3s",
        ];
        ctl(&[&ill[..], &health, &["box:1", "sleep", "1000"]].concat());
        let again = [
            "run",
            "-d",
            "--name",
            "again",
            "--network",
            "none",
            "--restart",
            "always",
            "box:1",
        ];
        ctl(&[&again[..], &["sh", "-c", "echo tick; sleep 0.2"]].concat());
        let deaf = ["run", "-d", "--name", "deaf", "--network", "none", "box:1"];
        ctl(&[
            &deaf[..],
            &["sh", "-c", "trap : TERM; while :; do sleep 0.1; done"],
        ]
        .concat());
        let stopping = Command::new("managerctl")
            .args(["stop", "-t", "4", "deaf"])
            .spawn();
        let (mut stopping, asked) = (stopping.expect("begin to stop"), Instant::now());
        clock.jump(days);

        let restarts = || inspect("again")["restartCount"].as_u64().unwrap_or(0);
        let before = restarts();
        eventually("it is started again", || (restarts() > before + 1).then_some(()));
        eventually("it falls ill", || {
            (inspect("ailing")["health"]["status"] == "unhealthy").then_some(())
        });
        assert!(stopping.wait().expect("the stop").success());
        let took = asked.elapsed();
        assert!(took >= Duration::from_secs(4), "{days} days: {took:?}");
        assert!(took < Duration::from_secs(40), "{days} days: {took:?}");
        // What is written and told now is of now.
        eventually("it ticks again", || {
            let seen = ctl(&["logs", "--since", "20s", "again"]);
            seen.contains("tick").then_some(())
        });
        let events = ctl(&[
            "events",
            "--since",
            "60s",
            "--until",
            "0s",
            "--filter",
            "container=again",
        ]);
        assert!(events.contains("start"), "{days} days: {events}");
        ctl(&["rm", "-f", "ailing", "again", "deaf"]);
    }
    drop(clock);
    ctl(&["rmi", "box:1"]);
}
