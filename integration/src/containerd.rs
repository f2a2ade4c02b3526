//! A containerd of the test's own, driven with `ctr`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bundle::busybox_rootfs;
use crate::image::Image;
use crate::peers::Peers;
use crate::process::{Done, binary, eventually, run};
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;

/// A containerd whose folders lie in the sandbox, and a rootfs with busybox for its containers.
pub struct Containerd {
    folder: PathBuf,
    namespace: String,
    process: Child,
    /// How `ctr run` names the shim and the runtime.
    runtime: Vec<String>,
    peers: Option<Peers>,
}

impl Containerd {
    /// The machine's containerd, with our shim (and our runtime below it).
    #[track_caller]
    pub fn with_our_shim(sandbox: &Sandbox) -> Self {
        Self::start_with_our_shim(sandbox, None)
    }

    /// The peers' containerd with our shim (and our runtime below it). Ours stands in the place of the peers' shim too,
    /// since `ctr` knows the flags of runc's options for that name alone.
    #[track_caller]
    pub fn newer_with_our_shim(sandbox: &Sandbox, peers: Peers) -> Self {
        Self::start_with_our_shim(sandbox, Some(peers))
    }

    #[track_caller]
    fn start_with_our_shim(sandbox: &Sandbox, peers: Option<Peers>) -> Self {
        let programs = sandbox.path().join("programs");
        if !programs.exists() {
            fs::create_dir(&programs).expect("make a folder");
            for name in ["containerd-shim-berth-v1", "containerd-shim-runc-v2"] {
                symlink(binary("shim"), programs.join(name)).expect("link the shim");
            }
        }
        sandbox.owns(&Path::new("/run/berth/runtime").join(sandbox.id()));
        let runtime = ["--runtime", "io.containerd.berth.v1"];
        Self::start(sandbox, runtime.map(str::to_owned).into(), peers)
    }

    /// The peers' containerd and its own shim, with our runtime in runc's place.
    #[track_caller]
    pub fn with_our_runtime(sandbox: &Sandbox, peers: Peers) -> Self {
        let root = sandbox.path().join("runc");
        sandbox.owns(&root.join(sandbox.id()));
        let runtime = vec![
            "--runc-binary".to_owned(),
            binary("runtime").display().to_string(),
            "--runc-root".to_owned(),
            root.display().to_string(),
        ];
        Self::start(sandbox, runtime, Some(peers))
    }

    #[track_caller]
    fn start(sandbox: &Sandbox, runtime: Vec<String>, peers: Option<Peers>) -> Self {
        let folder = sandbox.path().to_owned();
        if !folder.join("rootfs").exists() {
            fs::create_dir(folder.join("rootfs")).expect("make a folder");
            busybox_rootfs(&folder.join("rootfs"));
            // Without what looks for, or makes, things elsewhere on the machine.
            let config = format!(
                "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
                 \"io.containerd.cri.v1.runtime\", \"io.containerd.nri.v1.nri\", \
                 \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
                 \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\", \
                 \"io.containerd.internal.v1.opt\"]\n\
                 [grpc]\naddress = \"{0}/c.sock\"\n[ttrpc]\naddress = \"{0}/c.sock.ttrpc\"\n",
                folder.display()
            );
            fs::write(folder.join("config.toml"), config).expect("write the config");
        }
        let process = spawn(&folder, peers.as_ref());
        let this = Self {
            folder,
            // The name of the namespace is a part of the cgroup's path, by which leaks are found.
            namespace: sandbox.id().to_owned(),
            process,
            runtime,
            peers,
        };
        this.ready();
        this
    }

    #[track_caller]
    fn ready(&self) {
        eventually("containerd answers", || {
            (self.ctr(&["version"]).code == 0).then_some(())
        });
    }

    /// `ctr ARGS`, to its end.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Done {
        run(&mut self.ctr_command(arguments))
    }

    /// A `ctr` command line, to be spawned.
    pub fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut command = program("ctr", self.peers.as_ref());
        command
            .arg("-a")
            .arg(self.folder.join("c.sock"))
            .args(["-n", &self.namespace])
            .args(arguments);
        command
    }

    /// `ctr run FLAGS ID COMMAND` in the rootfs that all share, to its end.
    #[track_caller]
    pub fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Done {
        run(&mut self.run_command(flags, id, command))
    }

    /// `ctr run FLAGS ID COMMAND` in the rootfs that all share, to be spawned.
    pub fn run_command(&self, flags: &[&str], id: &str, command: &[&str]) -> Command {
        let rootfs = self.rootfs().display().to_string();
        self.run_over(&[flags, &["--rootfs", &rootfs]].concat(), id, command)
    }

    /// The same with other flags for the shim and the runtime.
    #[track_caller]
    pub fn run_with(&self, runtime: &[&str], flags: &[&str], id: &str, command: &[&str]) -> Done {
        let rootfs = self.rootfs().display().to_string();
        let mut whole = self.ctr_command(&["run", "--rootfs"]);
        whole.args(runtime).args(flags).args([&rootfs, id]).args(command);
        run(&mut whole)
    }

    /// `ctr run FLAGS ID COMMAND` in a snapshot of an image that was imported, to its end.
    #[track_caller]
    pub fn run_image(&self, flags: &[&str], image: &str, id: &str, command: &[&str]) -> Done {
        run(&mut self.run_over(&[flags, &[image]].concat(), id, command))
    }

    fn run_over(&self, flags: &[&str], id: &str, command: &[&str]) -> Command {
        let mut whole = self.ctr_command(&["run"]);
        whole.args(&self.runtime).args(flags).arg(id).args(command);
        whole
    }

    /// Import an image and unpack it; returns its name.
    #[track_caller]
    pub fn import(&self, image: &Image) -> String {
        let layout = tempfile::tempdir_in(&self.folder).expect("make a folder for the layout");
        image.write_layout(layout.path());
        let archive = self.folder.join("image.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).expect("make an archive"));
        tar.append_dir_all(".", layout.path())
            .and_then(|()| tar.finish())
            .expect("archive the layout");
        let path = archive.to_str().expect("a path");
        self.ctr(&["image", "import", "--base-name", "local", path]).ok();
        "local:image".to_owned()
    }

    /// `ctr task exec FLAGS ID COMMAND`, to its end.
    #[track_caller]
    pub fn exec(&self, flags: &[&str], id: &str, command: &[&str]) -> Done {
        run(&mut self.exec_command(flags, id, command))
    }

    /// `ctr task exec FLAGS ID COMMAND` on a pseudo-terminal.
    #[track_caller]
    pub fn exec_on_terminal(&self, id: &str, command: &[&str]) -> Terminal {
        Terminal::spawn(self.exec_command(&["-t"], id, command))
    }

    fn exec_command(&self, flags: &[&str], id: &str, command: &[&str]) -> Command {
        let mut whole = self.ctr_command(&["task", "exec", "--exec-id", "e1"]);
        whole.args(flags).arg(id).args(command);
        whole
    }

    /// A shell has a terminal, which follows the size of the caller's, and one beside it by exec has another.
    #[track_caller]
    pub fn assert_terminals_work(&self) {
        let mut run = Terminal::spawn(self.run_command(&["--rm", "-t"], "c1", &["/bin/sh"]));
        run.send("tty; echo ma''rk\n");
        let shown = run.expect("mark");
        assert!(shown.contains("/dev/pts/0"), "{shown}");
        // ctr sets the size after the start.
        run.send("until stty size | grep -x '24 80'; do :; done; echo si''zed\n");
        run.expect("sized");
        run.resize(100, 30);
        run.send("until stty size | grep -x '30 100'; do :; done; echo resi''zed\n");
        run.expect("resized");

        let mut exec = self.exec_on_terminal("c1", &["/bin/sh"]);
        exec.send("tty; echo ma''rk\n");
        let shown = exec.expect("mark");
        assert!(shown.contains("/dev/pts/1"), "{shown}");
        exec.send("exit 5\n");
        assert_eq!(exec.exit_code(), 5, "{}", exec.screen());
        run.send("exit 6\n");
        assert_eq!(run.exit_code(), 6, "{}", run.screen());
    }

    /// A counter in a container of this id goes on where it was saved, and runs on after that.
    #[track_caller]
    pub fn assert_a_task_is_saved_and_restored(&self, id: &str) {
        let image = self.import(&Image::busybox());
        let counts =
            "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; sleep 0.02; done";
        let count = || -> Option<u32> {
            let shown = self.exec(&[], id, &["/bin/cat", "/count"]);
            shown.stdout.trim().parse().ok()
        };
        self.run_image(&["-d", "--null-io"], &image, id, &["/bin/sh", "-c", counts])
            .ok();
        let saved = eventually("it counts", || count().filter(|count| *count > 5));
        let name = "local:saved";
        self.ctr(&["container", "checkpoint", "--image", "--rw", "--task", id, name])
            .ok();
        self.remove(id);
        self.ctr(&["container", "restore", "--rw", "--live", id, name])
            .ok();
        let first = eventually("it goes on", count);
        assert!(first >= saved, "{first} comes after {saved}");
        eventually("it counts on", || count().filter(|count| *count > first));
    }

    /// The rootfs that all its containers share.
    pub fn rootfs(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// A folder of the test's, for what its containers leave outside.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a task's bundle.
    pub fn bundle(&self, id: &str) -> PathBuf {
        let tasks = self.folder.join("state/io.containerd.runtime.v2.task");
        tasks.join(&self.namespace).join(id)
    }

    /// The process id and the status that `ctr task ls` shows.
    #[track_caller]
    pub fn task(&self, id: &str) -> Option<(i32, String)> {
        let list = self.ctr(&["task", "ls"]).ok();
        let mut tasks = list.lines().map(|line| line.split_whitespace());
        let mut words = tasks.find_map(|mut words| (words.next() == Some(id)).then_some(words))?;
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    }

    /// The status that `ctr task ls` shows.
    #[track_caller]
    pub fn status(&self, id: &str) -> Option<String> {
        self.task(id).map(|(_, status)| status)
    }

    /// Wait for a status of `ctr task ls`.
    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.status(id).as_deref() == Some(status)).then_some(())
        });
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// kill -9, and nothing else.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill containerd");
        self.process.wait().expect("wait for containerd");
    }

    /// Start a containerd over the same folders, after [`Containerd::kill`].
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.peers.as_ref());
        self.ready();
    }

    /// End a task if it runs, and remove it and its container.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        self.ctr(&["task", "rm", "-f", id]).ok();
        self.ctr(&["container", "rm", id]).ok();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default();
            eprintln!("--- log of containerd\n{log}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // containerd names a container's group after its namespace and leaves that group empty.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.namespace));
        }
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{}", self.namespace));
        let _ = fs::remove_dir(Path::new("/run/berth/runtime").join(&self.namespace));
    }
}

fn program(name: &str, peers: Option<&Peers>) -> Command {
    peers.map_or_else(|| Command::new(name), |peers| peers.command(name))
}

/// containerd looks for its shims in `PATH`: what the test has put into its folder `programs` comes first.
fn spawn(folder: &Path, peers: Option<&Peers>) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join("containerd.log"));
    program("containerd", peers)
        .args(["--log-level", "warn", "--config"])
        .arg(folder.join("config.toml"))
        .env("PATH", format!("{}:{path}", folder.join("programs").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("open the log"))
        .spawn()
        .expect("start containerd")
}
