//! A manager on a host of its own: a network namespace with a registry in it.

use crate::image::Image;
use crate::process::{Done, binary, eventually, run};
use crate::registry::{Registry, inside};
use crate::rootless::Rootless;
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The trust policy's file; without it the manager has none.
const POLICY: &str = "policy.json";

/// The built `manager`, with its folders in the sandbox and its links and rules in a network namespace that
/// goes with it; containers have names and cgroups that no other test has. All containers are removed at the end.
pub struct Manager {
    child: Child,
    registry: Option<Registry>,
    netns: PathBuf,
    /// The host's, where that is not the one that the manager works in.
    host: PathBuf,
    rootless: Option<Rootless>,
    name: String,
    folder: PathBuf,
    failpoint: Option<String>,
    layers: Option<String>,
    options: Vec<String>,
}

impl Manager {
    /// Start a registry and a manager, and wait until it answers.
    #[track_caller]
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, None, None)
    }

    /// The same with `--layers`, see [`Manager::set_layers`].
    #[track_caller]
    pub fn start_keeping(sandbox: &Sandbox, layers: &str) -> Self {
        Self::start_with(sandbox, None, Some(layers))
    }

    /// The same with a trust policy, to be found and changed at [`Manager::policy`].
    #[track_caller]
    pub fn start_under(sandbox: &Sandbox, policy: Option<&str>) -> Self {
        Self::start_with(sandbox, policy, None)
    }

    #[track_caller]
    fn start_with(sandbox: &Sandbox, policy: Option<&str>, layers: Option<&str>) -> Self {
        let name = format!("berth-{}", sandbox.id());
        run(Command::new("ip").args(["netns", "add", &name])).ok();
        let netns = Path::new("/run/netns").join(&name);
        run(Command::new("ip").args(["-n", &name, "link", "set", "lo", "up"])).ok();
        let folder = sandbox.path().join("manager");
        fs::create_dir_all(&folder).expect("make the manager's folder");
        let rootless = Rootless::asked_for(&folder);
        if let Some(policy) = policy {
            fs::write(folder.join(POLICY), policy).expect("write the trust policy");
        }
        let child = spawn(rootless.as_ref(), &netns, &folder, None, layers, &[]);
        let mut manager = Self {
            child,
            registry: None,
            host: netns.clone(),
            netns,
            rootless,
            name,
            folder,
            failpoint: None,
            layers: layers.map(str::to_owned),
            options: Vec::new(),
        };
        manager.await_answer();
        manager.go_inside();
        manager.registry = Some(Registry::start(sandbox, &manager.netns));
        manager
    }

    /// Look at the network of a user's manager in place of the host's.
    fn go_inside(&mut self) {
        let Some(rootless) = &self.rootless else { return };
        let holder = rootless.kept()[0].to_string();
        let name = format!("{}-user", self.name);
        run(Command::new("ip").args(["netns", "attach", &name, &holder])).ok();
        self.netns = Path::new("/run/netns").join(name);
    }

    /// Wait until the manager answers.
    #[track_caller]
    pub fn await_answer(&mut self) {
        eventually("the manager answers", || {
            let early = self.child.try_wait().expect("look at the manager");
            assert!(early.is_none(), "the manager ended: {early:?}\n{}", self.log());
            (run(&mut self.ctl_command(&["version"])).code == 0).then_some(())
        });
    }

    /// The registry on this host.
    ///
    /// # Panics
    /// After [`Manager::stop_registry`].
    pub fn registry(&self) -> &Registry {
        self.registry.as_ref().expect("the registry runs")
    }

    /// Take the registry away.
    pub fn stop_registry(&mut self) {
        self.registry = None;
    }

    /// Push busybox and pull it; returns its reference.
    #[track_caller]
    pub fn busybox(&self) -> String {
        let reference = self.registry().push(&Image::busybox(), "busybox:1");
        self.ctl(&["pull", &reference]).ok();
        reference
    }

    /// `managerctl ARGS`, to its end.
    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> Done {
        run(&mut self.ctl_command(args))
    }

    /// What `managerctl inspect` tells of a container.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        let text = self.ctl(&["inspect", "--type", "container", container]).ok();
        let mut all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].take()
    }

    /// A `managerctl` command line, to be spawned.
    pub fn ctl_command(&self, args: &[&str]) -> Command {
        let mut command = self.inside(&binary("managerctl").to_string_lossy());
        command.arg("--socket").arg(self.socket()).args(args);
        command
    }

    /// `managerctl ARGS` in the background, with nothing to read; its end and its words are for [`crate::finish`].
    ///
    /// # Panics
    /// When it can't be started.
    pub fn ctl_spawned(&self, args: &[&str]) -> Child {
        let mut command = self.ctl_command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a client")
    }

    /// `managerctl ARGS` on a pseudo-terminal.
    pub fn ctl_on_terminal(&self, args: &[&str]) -> Terminal {
        Terminal::spawn(self.ctl_command(args))
    }

    /// A program in the manager's network namespace.
    pub fn inside(&self, program: &str) -> Command {
        inside(&self.netns, program)
    }

    /// The gRPC socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/manager.sock")
    }

    /// `--trust-policy`, of a manager that was started with one.
    pub fn policy(&self) -> PathBuf {
        self.folder.join(POLICY)
    }

    /// `--root`.
    pub fn root(&self) -> PathBuf {
        self.folder.join("lib")
    }

    /// `--state`.
    pub fn state(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The process id of `manager` itself.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that `manager` itself has had resident while `work` ran, in bytes, and what the work gave.
    #[track_caller]
    pub fn peak_bytes<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        // Begin to count anew: proc_pid_clear_refs(5).
        fs::write(proc.join("clear_refs"), "5").expect("reset the peak");
        let result = work();
        let status = fs::read_to_string(proc.join("status")).expect("look at the manager");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.expect("a peak").trim().parse().expect("a number");
        (result, kilobytes << 10)
    }

    /// What the manager has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// kill -9, and nothing else.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the manager");
        self.child.wait().expect("wait for the manager");
    }

    /// The failpoint at which the next manager aborts, or with `shim:` before it, each shim that it starts; with `@` and
    /// a file behind it, that at which it stands still while the file is there.
    pub fn set_failpoint(&mut self, name: Option<&str>) {
        self.failpoint = name.map(str::to_owned);
    }

    /// What the next manager keeps new layers as (`folders`, `erofs` or `auto`); without it, what its environment says.
    pub fn set_layers(&mut self, form: &str) {
        self.layers = Some(form.to_owned());
    }

    /// What the next manager is told on its command line besides.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
    }

    /// Wait until the manager has ended by itself, at a failpoint.
    pub fn await_end(&mut self) {
        eventually("the manager ends at its failpoint", || {
            self.child.try_wait().expect("look at the manager")
        });
    }

    /// Start a manager over the same folders, and wait until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.begin_again();
        self.await_answer();
    }

    /// Start a manager over the same folders, which may take its time until it answers.
    #[track_caller]
    pub fn begin_again(&mut self) {
        let layers = self.layers.as_deref();
        let failpoint = self.failpoint.as_deref();
        let rootless = self.rootless.as_ref();
        self.child = spawn(
            rootless,
            &self.host,
            &self.folder,
            failpoint,
            layers,
            &self.options,
        );
    }

    /// Wait until it stands still at its failpoint.
    #[track_caller]
    pub fn await_pause(&self) {
        eventually("the manager stands still", || {
            self.log().contains("standing still").then_some(())
        });
    }

    /// SIGTERM, and wait for its end.
    #[track_caller]
    pub fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("signal the manager");
        eventually("the manager ends at SIGTERM", || {
            self.child.try_wait().expect("look at the manager")
        });
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("--- log of the manager\n{}", self.log());
            self.sweep();
            let _ = self.child.kill();
            let _ = self.child.wait();
        } else {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                self.failpoint = None;
                self.start_again();
            }
            let ids = self.ctl(&["ps", "-a", "-q", "--no-trunc"]).ok();
            for id in ids.lines() {
                self.ctl(&["rm", "-f", id]).ok();
                assert!(!cgroup_exists(id), "removing container {id} left its cgroup");
            }
            self.stop();
        }
        self.registry = None;
        if let Some(rootless) = &self.rootless {
            rootless.end();
            let inside = format!("{}-user", self.name);
            let _ = Command::new("ip").args(["netns", "del", &inside]).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

impl Manager {
    /// After a failed test: end what its containers run, so that the next test finds a clean machine.
    fn sweep(&mut self) {
        let _ = self.child.kill();
        if self.rootless.is_some() {
            return;
        }
        for entry in fs::read_dir(self.state().join("bundles"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let id = entry.file_name().to_string_lossy().into_owned();
            let mut delete = Command::new(binary("runtime"));
            delete
                .arg("--root")
                .arg(self.state().join("runtime/berth"))
                .args(["delete", "--force", &id]);
            let _ = delete.status();
        }
    }
}

/// Whether any hierarchy still has the group of a container.
fn cgroup_exists(container_id: &str) -> bool {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    hierarchies
        .chain(["/sys/fs/cgroup".into()])
        .any(|folder| folder.join("berth").join(container_id).exists())
}

fn spawn(
    rootless: Option<&Rootless>,
    netns: &Path,
    folder: &Path,
    failpoint: Option<&str>,
    layers: Option<&str>,
    options: &[String],
) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("make the manager's log");
    let program = |name: &str| match rootless {
        Some(rootless) => rootless.program(name),
        None => binary(name),
    };
    let mut command = match rootless {
        Some(rootless) => rootless.manager(netns),
        None => inside(netns, &program("manager").to_string_lossy()),
    };
    command
        .arg("--root")
        .arg(folder.join("lib"))
        .arg("--state")
        .arg(folder.join("run"));
    command
        .arg("--shim")
        .arg(program("shim"))
        .arg("--runtime")
        .arg(program("runtime"));
    if let Some(form) = layers {
        command.arg("--layers").arg(form);
    }
    command.args(options);
    if folder.join(POLICY).exists() {
        command.arg("--trust-policy").arg(folder.join(POLICY));
    }
    match failpoint.map(|name| name.strip_prefix("shim:").ok_or(name)) {
        Some(Ok(name)) => _ = command.env("BERTH_SHIM_FAILPOINT", name),
        Some(Err(name)) => _ = command.env("BERTH_FAILPOINT", name),
        None => {}
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share the log"))
        .stderr(log)
        .spawn()
        .expect("start the manager")
}
