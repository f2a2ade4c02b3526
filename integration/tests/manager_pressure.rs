//! What takes all that it can get: a fork bomb, a host without process ids, clients by the hundred that never read. It
//! gets no more than its own part, and the others go on.

use integration::{Manager, Sandbox, eventually, run};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const CLIENTS: usize = 1000;
const DEAF: usize = 40;

#[track_caller]
fn assert_it_works(manager: &Manager, image: &str) {
    let ran = manager.ctl(&[
        "run",
        "--rm",
        "--network",
        "none",
        image,
        "sh",
        "-c",
        "echo on; exit 3",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (3, "on\n"), "{ran}");
}

#[test]
fn a_fork_bomb_ends_with_its_container() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // Each of them starts others as long as it can, and those who can't are started again.
    let bomb = "for i in 1 2 3 4 5 6 7 8; do \
        sh -c 'while :; do sh -c \"while :; do sleep 100 & done\"; sleep 0.1; done' 2>/dev/null & done; exec sleep 100000";
    let start = [
        "run",
        "-d",
        "--name",
        "bomb",
        "--pids-limit",
        "60",
        "--cpus",
        "0.3",
        "--network",
        "none",
        &image,
        "sh",
        "-c",
        bomb,
    ];
    manager.ctl(&start).ok();
    eventually("it has all that it may have", || {
        let told = manager
            .ctl(&["stats", "--no-stream", "--format", "json", "bomb"])
            .stdout;
        let told: serde_json::Value = serde_json::from_str(&told).ok()?;
        (told["pids"].as_u64()? >= 50).then_some(())
    });
    assert_it_works(&manager, &image);
    // No process can be added to it, which is said; all of them can be ended.
    manager.ctl(&["stop", "-t", "1", "bomb"]).ok();
    assert_eq!(manager.inspect("bomb")["exit"]["code"], 137);
    manager.ctl(&["rm", "bomb"]).ok();
}

/// A group of cgroup v1 or v2 with a limit of processes, until the end of the test.
struct Crowd(PathBuf);

impl Crowd {
    fn around(sandbox: &Sandbox, pid: u32) -> Option<Crowd> {
        let hierarchy = PathBuf::from("/sys/fs/cgroup/pids");
        if !hierarchy.is_dir() {
            println!("skipped: needs cgroup v1's hierarchy of process ids");
            return None;
        }
        let group = Crowd(hierarchy.join(format!("{}-crowd", sandbox.id())));
        fs::create_dir(&group.0).expect("make a group");
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).expect("move the manager");
        Some(group)
    }

    fn allow(&self, processes: &str) {
        fs::write(self.0.join("pids.max"), processes).expect("set the limit");
    }

    fn count(&self) -> u64 {
        let count = fs::read_to_string(self.0.join("pids.current")).expect("read the count");
        count.trim().parse().expect("a number")
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.0.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            let _ = fs::write("/sys/fs/cgroup/pids/cgroup.procs", pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn without_process_ids_a_run_fails_whole_and_the_next_one_works() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let Some(crowd) = Crowd::around(&sandbox, manager.pid()) else {
        return;
    };
    manager
        .ctl(&["run", "-d", "--name", "before", &image, "sleep", "1000"])
        .ok();
    // From not even one to some more than a start needs, each moment of it is hit.
    let mut refused = 0;
    for more in 0..12 {
        crowd.allow(&(crowd.count() + more).to_string());
        let ran = manager.ctl(&["run", "--rm", &image, "true"]);
        if ran.code != 0 {
            refused += 1;
            assert!(
                ran.stderr.contains("Resource temporarily unavailable") || ran.stderr.contains("processes"),
                "{ran}"
            );
        }
        // What goes wrong for one is no matter of the others.
        assert_eq!(manager.inspect("before")["state"], "running");
    }
    assert!(refused > 0, "no limit was felt");
    crowd.allow("max");
    eventually("nothing of the failed ones is left", || {
        (manager.ctl(&["ps", "-aq"]).ok().lines().count() == 1).then_some(())
    });
    assert_it_works(&manager, &image);
    manager.ctl(&["rm", "-f", "before"]).ok();
}

/// A client that follows something and reads none of it.
fn deaf(manager: &Manager, args: &[&str]) -> Child {
    let mut command = manager.ctl_command(args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().expect("start a client")
}

#[test]
fn a_thousand_clients_that_want_nothing_and_some_that_never_read_stop_nobody() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("read the limit of files");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096).min(hard), hard).expect("raise it");
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let idle: Vec<UnixStream> = (0..CLIENTS)
        .map(|number| {
            UnixStream::connect(manager.socket()).unwrap_or_else(|error| panic!("client {number}: {error}"))
        })
        .collect();
    assert_it_works(&manager, &image);

    // Each of these has more to read than any pipe holds.
    let much =
        "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done";
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "talks",
            "--cpus",
            "0.2",
            "--network",
            "none",
            &image,
            "sh",
            "-c",
            much,
        ])
        .ok();
    let ((), peak) = manager.peak_bytes(|| {
        let mut clients: Vec<Child> = (0..DEAF)
            .map(|number| match number % 4 {
                0 => deaf(&manager, &["logs", "-f", "talks"]),
                1 => deaf(&manager, &["attach", "--no-stdin", "talks"]),
                2 => deaf(&manager, &["events"]),
                _ => deaf(&manager, &["stats", "--format", "json"]),
            })
            .collect();
        // What is told to them, over and over.
        for _ in 0..30 {
            assert_it_works(&manager, &image);
        }
        for client in &mut clients {
            client.kill().expect("end a client");
            client.wait().expect("wait for a client");
        }
    });
    // The container was not held up by those who did not read it.
    let log = manager.ctl(&["logs", "--tail", "1", "talks"]).ok();
    let written = || {
        let files = format!("cat '{0}'/containers/*/log* | wc -c", manager.root().display());
        run(Command::new("sh").args(["-c", &files])).ok()
    };
    let before = written();
    eventually("it still talks", || (written() != before).then_some(()));
    assert!(log.starts_with("0123456789"), "{log}");
    assert!(peak < 100 << 20, "{} MB for clients that do not read", peak >> 20);
    manager.ctl(&["rm", "-f", "talks"]).ok();
    drop(idle);
}
