//! Foreign clients: containerd 2, dockerd and podman as hack/peers has fetched them, and buildkitd and crictl as
//! hack/peers-go has built them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::process::eventually;
use crate::sandbox::Sandbox;

/// Namespaces in which a test's foreign clients and daemons live together: mounts with the peers' own programs and
/// libraries as /usr, and a network with loopback alone. All other paths, and the cgroups, are the machine's.
///
/// When they end, nothing may be mounted below the sandbox in them.
pub struct Peers {
    /// Holds the namespaces while it waits for the end of its input, and so ends with the test at the latest.
    holder: Child,
    scratch: PathBuf,
}

impl Peers {
    /// Where hack/peers has put them: `BERTH_PEERS`, or the newest suite that is there.
    pub fn folder() -> Option<PathBuf> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
        let named = std::env::var_os("BERTH_PEERS").map(PathBuf::from);
        let suites = ["sid", "trixie"].map(|suite| target.join(suite));
        let mut folders = named.into_iter().chain(suites);
        folders.find(|folder| folder.join("enter").is_file())
    }

    /// Enter their namespaces; nothing, and a word on why, when they were never fetched.
    #[track_caller]
    pub fn start(sandbox: &Sandbox) -> Option<Self> {
        let Some(folder) = Self::folder() else {
            println!("skipped: there are no foreign clients (hack/peers fetches them)");
            return None;
        };
        let mut command = Command::new("unshare");
        command.arg("--net").arg(folder.join("enter"));
        Some(Self::hold(sandbox, command))
    }

    /// The programs that hack/peers-go has built; nothing, and a word on why, when it never did.
    pub fn built() -> Option<PathBuf> {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/go");
        if !programs.join("made-by").is_file() {
            println!("skipped: there are no buildkitd and crictl (hack/peers-go builds them)");
            return None;
        }
        Some(programs)
    }

    /// Namespaces for what [`Peers::built`] gives, which needs no libraries; /usr stays the machine's.
    #[track_caller]
    pub fn start_without_suite(sandbox: &Sandbox) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount"]);
        Self::hold(sandbox, command)
    }

    /// Run `command`, which makes the namespaces, with what keeps them.
    #[track_caller]
    fn hold(sandbox: &Sandbox, mut command: Command) -> Self {
        let holder = command
            .args(["sh", "-c", "ip link set lo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("start unshare (package util-linux)");
        let mut this = Self {
            holder,
            scratch: sandbox.path().to_owned(),
        };
        let name = format!("/proc/{}/comm", this.holder.id());
        eventually("the peers' namespaces are there", || {
            let ended = this.holder.try_wait().expect("look at the holder");
            assert!(ended.is_none(), "entering the peers' namespaces: {ended:?}");
            fs::read_to_string(&name)
                .is_ok_and(|name| name == "cat\n")
                .then_some(())
        });
        this
    }

    /// A program in their namespaces, theirs if they have one of that name.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--mount", "--net", "--"])
            .arg(program);
        command
    }

    /// The same as a normal user, who is in one more group too.
    pub fn command_as(&self, user: u32, group: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={user}"))
            .arg(format!("--groups={user},{group}"))
            .arg("--")
            .arg(program);
        command
    }

    /// What is mounted below the sandbox in their namespace, which the sandbox itself can't see.
    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.holder.id()));
        let table = table.expect("read the peers' mounts");
        let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below = targets.filter(|target| Path::new(target).starts_with(&self.scratch));
        below.map(str::to_owned).collect()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let left = self.mounts();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        assert!(
            std::thread::panicking() || left.is_empty(),
            "left mounted in the peers' namespace:\n{}",
            left.join("\n")
        );
    }
}
