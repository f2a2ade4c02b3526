//! A normal user's manager where systemd has a manager for that user: containers' cgroups are in a scope that it hands
//! down. This test runs where systemd is process 1 with cgroup v2 alone (hack/vm-tests boots such machines); elsewhere it
//! says why it does not.

use integration::{Done, Sandbox, binary, busybox_rootfs, eventually, run};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const SERVICE: &str = include_str!("../../manager/daemon/systemd/berth-user.service");
/// The user of hack/vm/image.
const USER: u32 = 1000;
const HOME: &str = "/home/rootless";
/// Where the unit expects the programs.
const PROGRAMS: &str = "/usr/local/bin";
const DROP_IN: &str = "/etc/systemd/system/user@.service.d/delegate.conf";

/// A user that systemd has a manager for, without a login.
struct User {
    /// Where its sockets are.
    runtime: String,
}

impl User {
    fn new() -> Option<Self> {
        let here = Path::new("/run/systemd/system").is_dir()
            && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
            && Path::new(HOME).is_dir();
        if !here {
            println!(
                "skipped: needs systemd as process 1, cgroup v2 alone, and its user (hack/vm-tests has them)"
            );
            return None;
        }
        for name in ["manager", "managerctl", "shim", "runtime", "init"] {
            fs::copy(binary(name), Path::new(PROGRAMS).join(name)).expect("install a program");
        }
        fs::create_dir_all("/etc/systemd/user").expect("make a folder");
        fs::write("/etc/systemd/user/berth.service", SERVICE).expect("install a unit");
        // The kernel loads none of them for a user.
        for module in [
            "tun",
            "overlay",
            "bridge",
            "veth",
            "nf_tables",
            "nft_chain_nat",
            "nft_masq",
        ] {
            run(Command::new("modprobe").arg(module)).ok();
        }
        run(Command::new("loginctl").args(["enable-linger", "rootless"])).ok();
        let user = Self {
            runtime: format!("/run/user/{USER}"),
        };
        user.await_systemd();
        Some(user)
    }

    fn await_systemd(&self) {
        eventually("the user's systemd answers", || {
            (self.systemctl(&["is-system-running", "--wait"]).stdout.trim() == "running").then_some(())
        });
    }

    /// A program of the user's, outside of what the user's systemd has started.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        command.args([&uid, &gid, "--clear-groups", "--inh-caps=-all", "--", program]);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", HOME)
            .env("XDG_RUNTIME_DIR", &self.runtime)
            .current_dir(HOME);
        command
    }

    fn systemctl(&self, args: &[&str]) -> Done {
        run(self.command("systemctl").arg("--user").args(args))
    }

    fn property(&self, name: &str) -> String {
        let value = self.systemctl(&["show", "--value", "-p", name, "berth.service"]);
        value.ok().trim().to_owned()
    }

    fn ctl(&self, args: &[&str]) -> Done {
        run(self.command("managerctl").args(args))
    }

    /// `run` without a network, which needs none of what slirp4netns does.
    fn run(&self, args: &[&str]) -> Done {
        self.ctl(&[&["run", "--network", "none"][..], args].concat())
    }

    fn inspect(&self, name: &str) -> Value {
        let text = self.ctl(&["inspect", name]).ok();
        let mut all: Value = serde_json::from_str(&text).expect("JSON");
        all[0].take()
    }

    /// The group of a container that runs.
    fn group(&self, name: &str) -> PathBuf {
        let pid = self.inspect(name)["pid"].to_string();
        group_of(&pid)
    }

    fn import(&self, sandbox: &Sandbox) {
        let (archive, rootfs) = (Path::new("/tmp/box.tar"), sandbox.path().join("rootfs"));
        busybox_rootfs(&rootfs);
        let mut tar = Command::new("tar");
        run(tar.arg("-C").arg(rootfs).arg("-cf").arg(archive).arg(".")).ok();
        self.ctl(&["import", "/tmp/box.tar", "box:1"]).ok();
        fs::remove_file(archive).expect("remove the archive");
    }

    /// A manager that a login session starts.
    fn start_by_hand(&self) -> Child {
        let mut manager = self.command("manager");
        let log = fs::File::create("/tmp/manager.log").expect("make a log");
        manager.stdin(Stdio::null()).stderr(log);
        let child = manager.spawn().expect("start a manager");
        self.await_answer();
        child
    }

    fn await_answer(&self) {
        eventually("the manager answers", || {
            (self.ctl(&["ps"]).code == 0).then_some(())
        });
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = run(Command::new("journalctl").args(["-b", "--no-pager", "-n", "60"]));
            eprintln!("--- journal\n{}", said.stdout);
            eprintln!(
                "--- manager\n{}",
                fs::read_to_string("/tmp/manager.log").unwrap_or_default()
            );
        }
        // With all that it has started.
        let _ = Command::new("loginctl")
            .args(["disable-linger", "rootless"])
            .status();
        let _ = Command::new("systemctl")
            .args(["stop", &format!("user@{USER}.service")])
            .status();
        let _ = fs::remove_file(DROP_IN);
    }
}

fn group_of(pid: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("look at a process");
    let group = text.trim().strip_prefix("0::/").expect("cgroup v2");
    Path::new("/sys/fs/cgroup").join(group)
}

fn read(group: &Path, file: &str) -> String {
    let path = group.join(file);
    let text = fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        .trim()
        .to_owned()
}

#[test]
fn containers_of_a_user_are_limited_counted_paused_and_killed_by_groups_that_systemd_hands_down() {
    let Some(user) = User::new() else { return };
    let sandbox = Sandbox::new();
    user.systemctl(&["start", "berth.service"]).ok();
    user.import(&sandbox);

    let held =
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>/dev/null; sleep 100000 & exec sleep 100000";
    let limits = ["-d", "--name", "long", "-m", "64m", "--pids-limit", "50"];
    user.run(&[&limits[..], &["box:1", "sh", "-c", held]].concat())
        .ok();
    let group = user.group("long");
    assert_eq!(read(&group, "memory.max"), (64 << 20).to_string());
    assert_eq!(read(&group, "pids.max"), "50");
    assert!(
        group
            .to_string_lossy()
            .contains(&format!("/user@{USER}.service/"))
    );
    user.ctl(&["update", "-m", "96m", "--pids-limit", "60", "long"])
        .ok();
    assert_eq!(read(&group, "memory.max"), (96 << 20).to_string());
    assert_eq!(read(&group, "pids.max"), "60");
    eventually("what it holds is counted", || {
        let told = user
            .ctl(&["stats", "--no-stream", "--format", "json", "long"])
            .ok();
        let told: Value = serde_json::from_str(&told).ok()?;
        let (memory, limit) = (told["memoryBytes"].as_u64()?, told["memoryLimitBytes"].as_u64()?);
        (memory > 20 << 20 && limit == 96 << 20 && told["pids"] == 2).then_some(())
    });
    let top = user.ctl(&["top", "long"]).ok();
    assert_eq!(top.lines().count(), 3, "what it has started is there too: {top}");
    user.ctl(&["pause", "long"]).ok();
    assert_eq!(read(&group, "cgroup.freeze"), "1");
    assert_eq!(user.inspect("long")["state"], "paused");
    user.ctl(&["unpause", "long"]).ok();
    assert_eq!(read(&group, "cgroup.freeze"), "0");

    // One that eats memory is killed by the kernel, alone, and that is told.
    user.run(&["--name", "eater", "-m", "16m", "box:1", "tail", "/dev/zero"]);
    assert_eq!(user.inspect("eater")["exit"]["oomKilled"], true);
    user.ctl(&["rm", "eater"]).ok();

    // Debian's user@.service hands down no processors.
    let offered = read(group.parent().expect("a scope"), "cgroup.controllers");
    assert!(!offered.contains("cpuset"), "{offered}");
    let error = user
        .run(&["--rm", "--cpuset-cpus", "0", "box:1", "true"])
        .refused();
    assert!(
        error.contains("controller cpuset") && error.contains("user@.service.d"),
        "{error}"
    );

    // Killed, it is started again, and finds its containers and their limits; new ones get theirs too.
    let pid = user.inspect("long")["pid"].clone();
    let first = user.property("MainPID");
    user.systemctl(&["kill", "--signal=KILL", "--kill-who=main", "berth.service"])
        .ok();
    eventually("systemd has started it again", || {
        let now = user.property("MainPID");
        (now != first && now != "0" && user.property("ActiveState") == "active").then_some(())
    });
    assert_eq!(user.inspect("long")["pid"], pid);
    let seen = user.run(&[
        "--rm",
        "-m",
        "32m",
        "--pids-limit",
        "9",
        "box:1",
        "cat",
        "/sys/fs/cgroup/memory.max",
    ]);
    assert_eq!(seen.ok().trim(), (32 << 20).to_string());

    // So does one that a login session starts, which systemd has elsewhere in the tree.
    user.systemctl(&["stop", "berth.service"]).ok();
    let mut manager = user.start_by_hand();
    assert_eq!(user.inspect("long")["pid"], pid);
    user.run(&[
        "-d",
        "--name",
        "other",
        "-m",
        "32m",
        "--cgroup-parent",
        "mine",
        "box:1",
        "sleep",
        "100000",
    ])
    .ok();
    let other = user.group("other");
    assert_eq!(read(&other, "memory.max"), (32 << 20).to_string());
    assert!(
        other.starts_with(group.parent().expect("a scope").join("mine")),
        "{}",
        other.display()
    );
    manager.kill().expect("kill the manager");
    manager.wait().expect("wait for the manager");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    user.systemctl(&["start", "berth.service"]).ok();
    user.ctl(&["rm", "-f", "other", "long"]).ok();
    for group in [&group, &other, other.parent().expect("a parent")] {
        assert!(!group.exists(), "{} is left", group.display());
    }

    // What the refusal says is right; and the end of all that the user runs is the end of containers.
    user.run(&["-d", "--name", "last", "box:1", "sleep", "100000"])
        .ok();
    fs::create_dir_all(Path::new(DROP_IN).parent().expect("a folder")).expect("make a folder");
    fs::write(DROP_IN, "[Service]\nDelegate=cpu cpuset io memory pids\n").expect("write the drop-in");
    run(Command::new("systemctl").arg("daemon-reload")).ok();
    run(Command::new("systemctl").args(["restart", &format!("user@{USER}.service")])).ok();
    user.await_systemd();
    user.systemctl(&["start", "berth.service"]).ok();
    assert_eq!(user.inspect("last")["state"], "exited");
    user.run(&[
        "-d",
        "--name",
        "next",
        "--cpuset-cpus",
        "0",
        "--cpus",
        "0.5",
        "box:1",
        "sleep",
        "100000",
    ])
    .ok();
    let group = user.group("next");
    assert_eq!(read(&group, "cpuset.cpus"), "0");
    assert_eq!(read(&group, "cpu.max"), "50000 100000");
    user.ctl(&["rm", "-f", "next", "last"]).ok();
    user.ctl(&["rmi", "box:1"]).ok();
}
