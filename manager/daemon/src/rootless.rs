//! A manager that a user without root's rights starts: it works in namespaces in which that user is root.
//!
//! ```text
//! the user's session                          namespaces (user, mount, network)
//!   manager ─ makes or finds them ─ setns ───►  manager, shims, containers, bridges
//!   slirp4netns ◄──── packets to the outside ── tap0
//!                                               holder, which only keeps them alive
//! ```
//!
//! The namespaces outlive each manager, as the containers in them do: the next manager finds the holder by its record
//! and goes in. Sources: `user_namespaces(7)`, `newuidmap(1)`, `slirp4netns(1)`.

mod groups;
mod launch;
mod record;
mod resolver;
mod user;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use engine::Groups;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use crate::options::{Options, ROOT, STATE};
use record::{Process, Record};
pub(crate) use resolver::keep_name_server;

/// What this program does when its first argument says so.
const LAUNCH: &str = "launch-namespaces";
const HOLD: &str = "hold-namespaces";
/// What the manager inside is told by [`enter`].
const NETWORK_SOCKET: &str = "BERTH_NETWORK_SOCKET";
const CGROUP: &str = "BERTH_CGROUP";
const NO_CGROUP: &str = "BERTH_NO_CGROUP";

/// Do what this process was started for, if it is not a manager but one of its helpers.
pub(crate) fn helper() -> Option<anyhow::Result<()>> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next()?.to_str()? {
        LAUNCH => Some(launch::launch(Path::new(&arguments.next()?))),
        HOLD => Some(launch::hold()),
        _ => None,
    }
}

/// Go into the namespaces and start over there, if this process is not root. Returns if it is. `options` are those of
/// this start, for which the user may have named folders.
pub(crate) fn enter(options: &Options) -> anyhow::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let folders = Folders::of_user(options)?;
    let runtime = folders.state.clone();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&runtime)
        .with_context(|| format!("make the folder {}", runtime.display()))?;
    let (holder, group) = {
        let one_at_a_time = lock(&runtime)?;
        let record = match Record::read(&runtime).filter(Record::is_whole) {
            Some(record) => record,
            // Nobody holds them, or nobody brings packets in and out.
            None => launch_from_outside(&runtime, &one_at_a_time)?,
        };
        (record.holder, groups::handed_down(&record))
    };
    let folder = std::env::current_dir().context("find the working directory")?;
    join(&holder).with_context(|| format!("enter the namespaces that process {} holds", holder.pid))?;
    // The mount namespace has the same folders, but a process enters it at its root.
    std::env::set_current_dir(&folder).with_context(|| format!("go back to {}", folder.display()))?;
    let error = Command::new("/proc/self/exe")
        .arg0(
            std::env::args_os()
                .next()
                .unwrap_or_else(|| OsString::from("manager")),
        )
        .args(std::env::args_os().skip(1))
        .env("BERTH_ROOT", &folders.root)
        .env("BERTH_STATE", &folders.state)
        .env(NETWORK_SOCKET, launch::api_socket(&runtime))
        .env_remove(CGROUP)
        .env_remove(NO_CGROUP)
        .env(
            if group.is_ok() { CGROUP } else { NO_CGROUP },
            group.unwrap_or_else(|error| format!("{error:#}")),
        )
        .exec();
    Err(error).context("start again inside the namespaces")
}

/// Who opens ports of the host for a manager that has gone in.
pub(crate) fn network_socket() -> Option<PathBuf> {
    std::env::var_os(NETWORK_SOCKET).map(PathBuf::from)
}

/// Where containers of this manager get their cgroups.
pub(crate) fn groups() -> Groups {
    if network_socket().is_none() {
        return Groups::Machine;
    }
    match (std::env::var(CGROUP), std::env::var(NO_CGROUP)) {
        (Ok(group), _) => Groups::HandedDown(group),
        (_, Ok(why)) => Groups::Nowhere(why),
        _ => Groups::Nowhere("none was looked for".to_owned()),
    }
}

/// A variable of the environment that is not empty.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Where a user's programs are configured; None: this manager is root's.
pub(crate) fn configuration() -> Option<PathBuf> {
    if geteuid().is_root() && network_socket().is_none() {
        return None;
    }
    let own = set("XDG_CONFIG_HOME").map(PathBuf::from);
    own.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))
}

/// Where a user's manager keeps what is its.
struct Folders {
    root: PathBuf,
    state: PathBuf,
}

impl Folders {
    fn of_user(options: &Options) -> anyhow::Result<Self> {
        // Those that hold for root are what nobody has named.
        let named = |folder: &Path, of_root: &str| {
            let named = Some(folder).filter(|folder| *folder != Path::new(of_root));
            named.map(std::path::absolute).transpose()
        };
        let (root, state) = (named(&options.root, ROOT)?, named(&options.state, STATE)?);
        let root = match (root, set("XDG_DATA_HOME"), set("HOME")) {
            (Some(root), _, _) => root,
            (None, Some(data), _) => Path::new(&data).join("berth"),
            (None, None, Some(home)) => Path::new(&home).join(".local/share/berth"),
            (None, None, None) => bail!("find a place for images: HOME is not set, and no --root is given"),
        };
        let state = match (state, set("XDG_RUNTIME_DIR")) {
            (Some(state), _) => state,
            (None, Some(runtime)) => Path::new(&runtime).join("berth"),
            (None, None) => bail!(
                "find a place for sockets: XDG_RUNTIME_DIR is not set; a login makes /run/user/{}, and --state names \
                 another folder that only you can write",
                geteuid()
            ),
        };
        Ok(Self { root, state })
    }
}

fn lock(folder: &Path) -> anyhow::Result<Flock<File>> {
    let path = folder.join("namespaces.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("lock {}", path.display()))
}

/// By a process of its own: what it leaves running is then nobody's child who does not wait for it. It has the lock too,
/// as its standard input: if this process is killed, the next manager waits until that one has ended.
fn launch_from_outside(runtime: &Path, lock: &File) -> anyhow::Result<Record> {
    let lock = lock.try_clone().context("share the lock")?;
    let status = Command::new("/proc/self/exe")
        .arg0("manager")
        .arg(LAUNCH)
        .arg(runtime)
        .stdin(lock)
        .status()
        .context("start the making of namespaces")?;
    if !status.success() {
        bail!("a manager without root's rights needs namespaces of its own, and they could not be made");
    }
    let record = Record::read(runtime).filter(Record::is_whole);
    record.context("the namespaces that were just made are gone")
}

fn join(holder: &Process) -> anyhow::Result<()> {
    let open = |name: &str| {
        let path = format!("/proc/{}/ns/{name}", holder.pid);
        File::open(&path).with_context(|| format!("open {path}"))
    };
    // All are opened before: inside, /proc may belong to somebody else.
    let (user, network, mounts) = (open("user")?, open("net")?, open("mnt")?);
    if !holder.is_alive() {
        bail!("it has just ended");
    }
    setns(user, CloneFlags::CLONE_NEWUSER).context("enter the user namespace")?;
    setns(network, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("enter the mount namespace")?;
    become_root()
}

/// Of the user namespace.
fn become_root() -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[]).context("drop the user's groups")?;
    setresgid(gid, gid, gid).context("take the group 0 of the namespace")?;
    setresuid(uid, uid, uid).context("take the user 0 of the namespace")
}
