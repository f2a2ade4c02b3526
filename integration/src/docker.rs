//! dockerd with our runtime, in the peers' namespaces.

use crate::bundle::busybox_rootfs;
use crate::peers::Peers;
use crate::process::{Done, binary, eventually, run};
use crate::sandbox::Sandbox;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A dockerd with its folders in the sandbox, its bridge and rules in the peers' network namespace, and its containers'
/// cgroups below one that has the sandbox's name.
pub struct Docker {
    daemon: Child,
    folder: PathBuf,
    group: String,
    peers: Peers,
}

impl Docker {
    /// A dockerd that has an image `box` of busybox, or nothing when hack/peers has fetched none.
    #[track_caller]
    pub fn start(sandbox: &Sandbox) -> Option<Self> {
        Some(Self::start_with(sandbox, Peers::start(sandbox)?, &json!({})))
    }

    /// The same with its own runtime, as the judge of what docker does; its containers outlive it.
    #[track_caller]
    pub fn start_with_runc(sandbox: &Sandbox) -> Option<Self> {
        let more = json!({"default-runtime": "runc", "live-restore": true});
        Some(Self::start_with(sandbox, Peers::start(sandbox)?, &more))
    }

    /// The same, with more of daemon.json.
    #[track_caller]
    pub fn start_with(sandbox: &Sandbox, peers: Peers, more: &Value) -> Self {
        let folder = sandbox.path().join("docker");
        fs::create_dir(&folder).expect("make dockerd's folder");
        let mut config = json!({
            "data-root": folder.join("data"), "exec-root": folder.join("run"), "pidfile": folder.join("pid"),
            "hosts": [format!("unix://{}", folder.join("sock").display())], "log-level": "error",
            "cgroup-parent": format!("/{}", sandbox.id()),
            "runtimes": {"berth": {"path": binary("runtime")}}, "default-runtime": "berth",
        });
        let more = more.as_object().expect("an object").clone();
        config.as_object_mut().expect("an object").extend(more);
        fs::write(folder.join("daemon.json"), config.to_string()).expect("write daemon.json");
        sandbox.owns(&folder.join("run/runtime-berth/moby"));
        let mut docker = Self {
            daemon: spawn(&peers, &folder),
            folder,
            group: sandbox.id().to_owned(),
            peers,
        };
        docker.ready();
        docker.import();
        docker
    }

    #[track_caller]
    fn ready(&mut self) {
        eventually("dockerd answers", || {
            let early = self.daemon.try_wait().expect("look at dockerd");
            assert!(early.is_none(), "dockerd ended: {early:?}\n{}", self.log());
            (self.call(&["version"]).code == 0).then_some(())
        });
    }

    fn import(&self) {
        let rootfs = self.folder.join("rootfs");
        fs::create_dir(&rootfs).expect("make a folder");
        busybox_rootfs(&rootfs);
        let archive = self.folder.join("rootfs.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).expect("make an archive"));
        tar.follow_symlinks(false);
        tar.append_dir_all(".", &rootfs)
            .and_then(|()| tar.finish())
            .expect("archive the rootfs");
        self.call(&["import", archive.to_str().expect("a path"), "box"])
            .ok();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.peers.command("docker");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.folder.join("sock").display()))
            .args(arguments)
            .env("DOCKER_CONFIG", self.folder.join("client"));
        command
    }

    /// A program in its namespaces.
    pub fn inside(&self, program: &str) -> Command {
        self.peers.command(program)
    }

    /// kill -9, and nothing else.
    ///
    /// # Panics
    /// When it can't be killed.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("kill dockerd");
        self.daemon.wait().expect("wait for dockerd");
    }

    /// Start a dockerd where one was killed.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start_again(&mut self) {
        // Its containerd is killed with it, but the next dockerd takes even a zombie for a living one, and waits for its end.
        fs::remove_file(self.folder.join("run/containerd/containerd.pid")).expect("forget the containerd");
        self.daemon = spawn(&self.peers, &self.folder);
        self.ready();
    }

    /// `docker ARGS`, to its end.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Done {
        run(&mut self.command(arguments))
    }

    /// `docker run --rm FLAGS box /bin/sh -c SCRIPT`.
    #[track_caller]
    pub fn sh(&self, flags: &[&str], script: &str) -> Done {
        self.call(&[&["run", "--rm"], flags, &["box", "/bin/sh", "-c", script]].concat())
    }

    /// `docker run -d --name NAME FLAGS box /bin/sh -c SCRIPT`.
    #[track_caller]
    pub fn detach(&self, name: &str, flags: &[&str], script: &str) {
        self.call(
            &[
                &["run", "-d", "--name", name],
                flags,
                &["box", "/bin/sh", "-c", script],
            ]
            .concat(),
        )
        .ok();
    }

    /// `docker exec NAME /bin/sh -c SCRIPT`.
    #[track_caller]
    pub fn exec(&self, name: &str, script: &str) -> Done {
        self.call(&["exec", name, "/bin/sh", "-c", script])
    }

    /// One value of `docker inspect`, in Go's template language.
    #[track_caller]
    pub fn inspect(&self, name: &str, what: &str) -> String {
        self.call(&["inspect", "--format", &format!("{{{{{what}}}}}"), name])
            .ok()
            .trim()
            .to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, name: &str, what: &str, value: &str) {
        eventually(&format!("{what} of {name} is {value}"), || {
            (self.inspect(name, what) == value).then_some(())
        });
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- log of dockerd\n{}", self.log());
        }
        let ids = run(&mut self.command(&["ps", "-a", "-q"]));
        for id in ids.stdout.lines() {
            let _ = run(&mut self.command(&["rm", "-f", "-v", id]));
        }
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        eventually("dockerd ends at SIGTERM", || {
            self.daemon.try_wait().expect("look at dockerd")
        });
        // Its data-root, mounted onto itself, is unmounted by the dockerd that mounted it, or by none that was killed.
        let _ = run(self.peers.command("umount").arg(self.folder.join("data")));
        // The host's network namespace, which it holds once a container has had that.
        let _ = run(self
            .peers
            .command("umount")
            .arg(self.folder.join("run/netns/default")));
        // The parents of its containers' groups are dockerd's, which leaves them empty.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies
            .map(|entry| entry.path())
            .chain(["/sys/fs/cgroup".into()])
        {
            let _ = fs::remove_dir(hierarchy.join(&self.group).join("buildkit"));
            let _ = fs::remove_dir(hierarchy.join(&self.group));
        }
    }
}

fn spawn(peers: &Peers, folder: &Path) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("make dockerd's log");
    peers
        .command("dockerd")
        .arg("--config-file")
        .arg(folder.join("daemon.json"))
        // BuildKit inside dockerd has its own way to name what runs its steps.
        .env("DOCKER_BUILDKIT_RUNC_COMMAND", binary("runtime"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share the log"))
        .stderr(log)
        .spawn()
        .expect("start dockerd")
}
