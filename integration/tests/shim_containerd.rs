//! The shim under containerd itself, driven with `ctr`: what containerd's users do, and what happens to live containers
//! when containerd or a shim dies. Skipped by nobody: containerd is a Debian package that the set-up installs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use integration::{Done, Sandbox, binary, busybox_rootfs, eventually, run};

/// A containerd of the test's own, with our shim and runtime first in its PATH.
struct Containerd {
    folder: PathBuf,
    namespace: String,
    process: Child,
}

impl Containerd {
    #[track_caller]
    fn start(sandbox: &Sandbox) -> Self {
        let folder = sandbox.path().to_owned();
        let programs = folder.join("programs");
        if !programs.exists() {
            fs::create_dir(&programs).expect("make a folder");
            symlink(binary("shim"), programs.join("containerd-shim-berth-v1")).expect("link the shim");
            fs::create_dir(folder.join("rootfs")).expect("make a folder");
            busybox_rootfs(&folder.join("rootfs"));
            let config = format!(
                "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
                 \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.zfs\", \
                 \"io.containerd.snapshotter.v1.aufs\", \"io.containerd.internal.v1.opt\"]\n\
                 [grpc]\naddress = \"{0}/c.sock\"\n[ttrpc]\naddress = \"{0}/c.sock.ttrpc\"\n",
                folder.display()
            );
            fs::write(folder.join("config.toml"), config).expect("write the config");
        }
        let process = Self::spawn(&folder);
        // The name of the namespace is a part of the cgroup's path, by which leaks are found.
        let this = Self {
            folder,
            namespace: sandbox.id().to_owned(),
            process,
        };
        this.ready();
        this
    }

    fn spawn(folder: &std::path::Path) -> Child {
        let path = std::env::var("PATH").unwrap_or_default();
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("containerd.log"));
        Command::new("containerd")
            .arg("-c")
            .arg(folder.join("config.toml"))
            .env("PATH", format!("{}:{path}", folder.join("programs").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("open the log"))
            .spawn()
            .expect("start containerd")
    }

    fn ready(&self) {
        eventually("containerd answers", || {
            (self.ctr(&["version"]).code == 0).then_some(())
        });
    }

    #[track_caller]
    fn ctr(&self, arguments: &[&str]) -> Done {
        let mut command = Command::new("ctr");
        command
            .arg("-a")
            .arg(self.folder.join("c.sock"))
            .args(["-n", &self.namespace])
            .args(arguments);
        run(&mut command)
    }

    #[track_caller]
    fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Done {
        let rootfs = self.folder.join("rootfs").display().to_string();
        let mut arguments = vec!["run", "--runtime", "io.containerd.berth.v1"];
        arguments.extend(flags);
        arguments.extend(["--rootfs", &rootfs, id]);
        arguments.extend(command);
        self.ctr(&arguments)
    }

    /// The status that `ctr task ls` shows.
    fn status(&self, id: &str) -> Option<String> {
        let list = self.ctr(&["task", "ls"]).ok();
        let line = list
            .lines()
            .find(|line| line.split_whitespace().next() == Some(id))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    #[track_caller]
    fn wait_for(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.status(id).as_deref() == Some(status)).then_some(())
        });
    }

    fn shim_pid(&self, id: &str) -> i32 {
        let bundle = self
            .folder
            .join("state/io.containerd.runtime.v2.task")
            .join(&self.namespace)
            .join(id);
        fs::read_to_string(bundle.join("shim.pid"))
            .expect("read shim.pid")
            .parse()
            .expect("a pid")
    }

    fn kill(&mut self) {
        self.process.kill().expect("kill containerd");
        self.process.wait().expect("wait for containerd");
    }

    #[track_caller]
    fn remove(&self, id: &str) {
        self.ctr(&["task", "rm", "-f", id]).ok();
        self.ctr(&["container", "rm", id]).ok();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // containerd names a container's group after its namespace and leaves that group empty.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.namespace));
        }
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{}", self.namespace));
    }
}

fn send(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signal");
}

#[test]
fn run_gives_output_and_exit_code_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::start(&sandbox);
    let done = containerd.run(
        &["--rm"],
        "c1",
        &["/bin/sh", "-c", "echo out; echo err >&2; exit 3"],
    );
    assert_eq!((done.code, done.stdout.as_str()), (3, "out\n"), "{done}");
    assert!(done.stderr.contains("err"), "{done}");
    let done = containerd.run(&["--rm"], "c2", &["/no/such/program"]);
    assert!(done.refused().contains("/no/such/program"));
    let bundles = sandbox
        .path()
        .join("state/io.containerd.runtime.v2.task")
        .join(sandbox.id());
    assert_eq!(fs::read_dir(bundles).expect("read the bundles").count(), 0);
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn exec_pause_ps_metrics_and_kill_work() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::start(&sandbox);
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.wait_for("c1", "RUNNING");
    let done = containerd.ctr(&[
        "task",
        "exec",
        "--exec-id",
        "e1",
        "c1",
        "/bin/sh",
        "-c",
        "echo inside; exit 7",
    ]);
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
    let containerd = Containerd::start(&sandbox);
    let log = fs::File::create(sandbox.path().join("events")).expect("make a file");
    let mut listener = Command::new("ctr")
        .arg("-a")
        .arg(sandbox.path().join("c.sock"))
        .args(["-n", sandbox.id(), "events"])
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
    containerd
        .ctr(&["task", "exec", "--exec-id", "e1", "c1", "/bin/true"])
        .ok();
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
    let mut containerd = Containerd::start(&sandbox);
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
    let bundle = sandbox
        .path()
        .join("state/io.containerd.runtime.v2.task")
        .join(sandbox.id())
        .join("ends");
    eventually("the exit is on disk", || {
        bundle.join("exit.json").exists().then_some(())
    });
    let containerd = Containerd::start(&sandbox);
    containerd.wait_for("stays", "RUNNING");
    containerd.wait_for("ends", "STOPPED");
    let removed = containerd.ctr(&["task", "rm", "ends"]);
    assert!(removed.stderr.contains("exit code 9"), "{removed}");
    let done = containerd.ctr(&["task", "exec", "--exec-id", "e1", "stays", "/bin/echo", "again"]);
    assert_eq!(done.ok(), "again\n");
    containerd.remove("stays");
    containerd.ctr(&["container", "rm", "ends"]).ok();
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn a_killed_shim_is_noticed_and_its_container_removed() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::start(&sandbox);
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.run(&["-d"], "c2", &["/bin/sleep", "1000"]).ok();
    containerd.wait_for("c1", "RUNNING");
    send(containerd.shim_pid("c1"), nix::sys::signal::SIGKILL);
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
    let containerd = Containerd::start(&sandbox);
    containerd.run(&["-d"], "c1", &["/bin/sleep", "1000"]).ok();
    containerd.wait_for("c1", "RUNNING");
    send(containerd.shim_pid("c1"), nix::sys::signal::SIGTERM);
    let done = containerd.ctr(&["task", "exec", "--exec-id", "e1", "c1", "/bin/echo", "alive"]);
    assert_eq!(done.ok(), "alive\n");
    containerd.remove("c1");
}
