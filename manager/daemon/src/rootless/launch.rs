//! Makes a user's namespaces, and what brings packets in and out of them.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, pause, pipe, setsid};

use super::record::{Process, Record};
use super::resolver::RESOLV_CONF;
use super::user::{Subordinate, subordinate};
use super::{HOLD, become_root};

const NETWORK: &str = "slirp4netns";
/// More than this it can't take.
const MTU: &str = "65520";
/// What it answers for: it asks the host's servers.
const NAME_SERVER: &str = "nameserver 10.0.2.3\n";
/// slirp4netns is ready in a few milliseconds.
const NETWORK_PATIENCE: Duration = Duration::from_secs(15);

/// Where it takes orders to publish ports.
pub(super) fn api_socket(runtime: &Path) -> PathBuf {
    runtime.join("slirp4netns.sock")
}

/// Make all of it, leave a record in `runtime`, and end.
pub(super) fn launch(runtime: &Path) -> anyhow::Result<()> {
    setsid().context("leave the session")?;
    umask(Mode::from_bits_truncate(0o077));
    if let Some(Record { holder, network }) = Record::read(runtime)
        && holder.is_alive()
        && !network.is_alive()
    {
        // Containers are in there: they get a network again, and not namespaces without them a manager.
        let lives = pipe_of(&holder)?;
        let network = Process::of(start_network(holder.pid, &lives, runtime)?)?;
        return Record { holder, network }.write(runtime);
    }
    let mut holder = Holder::start()?;
    let made = holder.prepare(runtime);
    if made.is_err() {
        holder.end();
    }
    made
}

/// The other end of the one pipe that the holder has.
fn pipe_of(holder: &Process) -> anyhow::Result<OwnedFd> {
    let folder = format!("/proc/{}/fd", holder.pid);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("read {folder}"))?;
    let is_pipe =
        |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"));
    let pipe = entries.flatten().map(|entry| entry.path()).find(is_pipe);
    let pipe = pipe.with_context(|| format!("{folder} has no pipe in it"))?;
    Ok(File::open(&pipe)
        .with_context(|| format!("open {}", pipe.display()))?
        .into())
}

/// The end to read from, and the one that programs started now inherit.
fn pipe_to_child() -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let (own, inherited) = pipe()?;
    fcntl(&own, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok((own, inherited))
}

struct Holder {
    child: Child,
    /// Closed from the other side when it ends.
    lives: OwnedFd,
    answers: std::process::ChildStdout,
    orders: std::process::ChildStdin,
}

impl Holder {
    fn start() -> anyhow::Result<Self> {
        // Nobody writes to the end that the holder has.
        let (lives, held) = pipe_to_child()?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("manager")
            .arg(HOLD)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the process that holds the namespaces")?;
        drop(held);
        let (answers, orders) = (child.stdout.take(), child.stdin.take());
        Ok(Self {
            child,
            lives,
            answers: answers.context("no pipe from the holder")?,
            orders: orders.context("no pipe to the holder")?,
        })
    }

    fn prepare(&mut self, runtime: &Path) -> anyhow::Result<()> {
        self.await_answer()?;
        let pid = self.child.id();
        map("newuidmap", pid, geteuid().as_raw(), "/etc/subuid")?;
        map("newgidmap", pid, getegid().as_raw(), "/etc/subgid")?;
        let resolv_conf = super::resolver::own(runtime);
        std::fs::write(&resolv_conf, NAME_SERVER)
            .with_context(|| format!("write {}", resolv_conf.display()))?;
        let text = resolv_conf
            .to_str()
            .context("the state folder's name is not UTF-8")?;
        self.order(text)?;
        self.await_answer()?;
        let network = start_network(pid, &self.lives, runtime)?;
        let record = Record {
            holder: Process::of(pid)?,
            network: Process::of(network)?,
        };
        record.write(runtime)?;
        self.order("stay")
    }

    fn order(&mut self, what: &str) -> anyhow::Result<()> {
        writeln!(self.orders, "{what}").context("tell the holder what to do")
    }

    /// It says why on stderr if it can't go on.
    fn await_answer(&mut self) -> anyhow::Result<()> {
        let read = self.answers.read_exact(&mut [0]);
        read.context("the process that holds the namespaces has given up")
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The namespaces' 0 is the user, and from 1 on they are the user's subordinate ids.
fn map(program: &str, pid: u32, id: u32, ranges: &str) -> anyhow::Result<()> {
    let Subordinate { first, count } = subordinate(Path::new(ranges), geteuid().as_raw())?;
    let numbers = [pid, 0, id, 1, 1, first, count].map(|number| number.to_string());
    let done = Command::new(program).args(&numbers).output().with_context(|| {
        format!("run {program}, which Debian and Ubuntu have in the package uidmap, Fedora in shadow-utils")
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!(
            "{program} {}: {}: {}",
            numbers.join(" "),
            done.status,
            said.trim()
        );
    }
    Ok(())
}

/// Returns its process id when packets flow. It ends when the holder does.
fn start_network(holder: u32, lives: &OwnedFd, runtime: &Path) -> anyhow::Result<u32> {
    let log = runtime.join("slirp4netns.log");
    let words = File::create(&log).with_context(|| format!("make {}", log.display()))?;
    let socket = api_socket(runtime);
    let _ = std::fs::remove_file(&socket);
    let (mut ready, tell) = UnixStream::pair().context("make a pair of sockets")?;
    ready.set_read_timeout(Some(NETWORK_PATIENCE))?;
    fcntl(&tell, FcntlArg::F_SETFD(FdFlag::empty()))?;
    fcntl(lives, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut network = Command::new(NETWORK)
        .args(["--configure", "--mtu", MTU, "--disable-host-loopback"])
        .args(["--enable-sandbox", "--enable-seccomp"])
        .arg("--api-socket")
        .arg(&socket)
        .arg(format!("--ready-fd={}", tell.as_raw_fd()))
        .arg(format!("--exit-fd={}", lives.as_raw_fd()))
        .args([&holder.to_string(), "tap0"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(words.try_clone()?)
        .stderr(words)
        .spawn()
        .with_context(|| {
            format!("run {NETWORK}, which brings containers' packets out; it is in a package of that name")
        })?;
    drop(tell);
    let mut word = [0];
    let read = ready.read(&mut word);
    if matches!(read, Ok(1)) {
        return Ok(network.id());
    }
    let _ = network.kill();
    let status = network.wait()?;
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    match read {
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(
            "{NETWORK} was not ready after {} seconds: {}",
            NETWORK_PATIENCE.as_secs(),
            said.trim()
        ),
        _ => bail!("{NETWORK} ended with {status}: {}", said.trim()),
    }
}

/// Be the process that the namespaces live by. What it is told comes by stdin, one line a step.
pub(super) fn hold() -> anyhow::Result<()> {
    // Each of them, so that what fails is named.
    unshare(CloneFlags::CLONE_NEWUSER).context(
        "make a user namespace: where that is for root alone, the sysctls kernel.unprivileged_userns_clone, \
         user.max_user_namespaces or kernel.apparmor_restrict_unprivileged_userns say so",
    )?;
    answer()?;
    let resolv_conf = order()?;
    become_root()?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("make a mount and a network namespace")?;
    // What the host mounts later is to be seen here, and nothing of here there.
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("separate the mounts")?;
    if Path::new(RESOLV_CONF).exists() {
        mount(Some(&*resolv_conf), RESOLV_CONF, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("mount {resolv_conf} on {RESOLV_CONF}"))?;
    }
    answer()?;
    if order()? != "stay" {
        return Ok(());
    }
    // Whoever reads its streams must not wait for them.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    drop(null);
    loop {
        pause();
    }
}

fn answer() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(b".")
        .and_then(|()| stdout.flush())
        .context("answer who started this")
}

fn order() -> anyhow::Result<String> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read what to do")?;
    if !line.ends_with('\n') {
        bail!("who started this has ended");
    }
    line.truncate(line.len() - 1);
    Ok(line)
}
