//! `exec`: one more process in a running container, from `setns` to `execve`.

mod request;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::SigSet;
use nix::unistd::{chroot, fchdir, setsid};

use crate::capabilities;
use crate::cgroup;
use crate::channel::{Channel, Message};
use crate::create::write_pid_file;
use crate::error::{Context, Error, Result};
use crate::foreground;
use crate::id::Id;
use crate::init::ExitOnUnwind;
use crate::intel_rdt::IntelRdt;
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::{NEWTIME, Namespaces};
use crate::newborn::Newborn;
use crate::notify;
use crate::process::{Located, ProcessPlan, set_oom_score_adj};
use crate::procfs::Procfs;
use crate::protect;
use crate::seccomp;
use crate::standard_streams;
use crate::state::{Container, Init, Status};
use crate::sys::clone::{Side, clone3};
use crate::sys::process as own;
use crate::terminal::{self, Terminal, hand_over};

pub(crate) use request::Request;
use request::{check_terminal, may_trace, wanted_process};

/// Runs a process. Returns its exit code, or 0 when detached.
pub(crate) fn exec(root: &Path, id: &Id, request: &Request) -> Result<i32> {
    let container = Container::load(root, id)?;
    let Some(init) = container.init()? else {
        return Err(Error::Refused("cannot exec in a stopped container".into()));
    };
    match container.status_of(Some(&init))? {
        Status::Paused if !request.ignore_paused => {
            let text = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(Error::Refused(text.into()));
        }
        Status::Creating | Status::Stopped => {
            return Err(Error::Refused(
                "cannot exec in a container that is not running".into(),
            ));
        }
        _ => {}
    }
    let spec = container.spec()?;
    let process = wanted_process(&spec, request)?;
    let linux = spec.linux().as_ref();
    let mut plan = ProcessPlan::from_spec(&process, &spec)?;
    for name in &request.capabilities {
        let bit = capabilities::bit(&name.to_ascii_uppercase());
        plan.capabilities
            .add(bit.ok_or_else(|| Error::Refused(format!("--cap {name}: unknown capability")))?);
    }
    check_terminal(&plan, request)?;
    let namespaces = Namespaces::from_spec(&spec)?;
    let mut flags = namespaces.kinds();
    // Or it could not be restored again: CRIU refuses processes of several time namespaces.
    flags.set(NEWTIME, flags.contains(NEWTIME) || container.record.restored);
    let user_namespace = namespaces.has(CloneFlags::CLONE_NEWUSER);
    if plan.has_label() || !user_namespace && may_trace(&spec)? {
        protect::ensure()?;
    }
    let filter = linux.and_then(|linux| linux.seccomp().as_ref());
    let needs_proc = plan.has_label() || !namespaces.has(CloneFlags::CLONE_NEWNS);
    let joining = Joining {
        container: &container,
        init: &init,
        groups: container.record.cgroups.below(&request.cgroups)?,
        memory_policy: linux.map(MemoryPolicy::from_spec).transpose()?.flatten(),
        intel_rdt: IntelRdt::from_spec(linux, id.as_str())?,
        flags,
        user_namespace,
        seccomp: filter.map(seccomp::Filter::from_spec).transpose()?,
        console: request
            .console_socket
            .as_deref()
            .map(terminal::connect)
            .transpose()?,
        proc: needs_proc.then(Procfs::of_host).transpose()?,
        plan,
    };
    if !request.detach {
        own::block_signals().context(|| "block signals".into())?;
    }
    joining.join(request)
}

/// Everything that the process needs on its way in.
struct Joining<'a> {
    container: &'a Container,
    init: &'a Init,
    /// The container's cgroups, or those below that were asked for.
    groups: cgroup::Paths,
    memory_policy: Option<MemoryPolicy>,
    intel_rdt: Option<IntelRdt>,
    /// The kinds of namespaces that the container does not share with us.
    flags: CloneFlags,
    user_namespace: bool,
    seccomp: Option<seccomp::Filter>,
    console: Option<UnixStream>,
    /// Our own procfs, where something is to be written to it or seen in it.
    proc: Option<Procfs>,
    plan: ProcessPlan,
}

impl Joining<'_> {
    /// The runtime's side.
    fn join(self, request: &Request) -> Result<i32> {
        let (entries, unified) = (self.groups.entries()?, self.groups.into_fd()?);
        let (ours, theirs) = Channel::pair()?;
        if self.user_namespace {
            self.plan.raise_limits()?;
        }
        // Born so: from its first moment in the PID namespace the container can't look into it.
        own::set_dumpable(false).context(|| "make the process not dumpable".into())?;
        // A PID namespace is entered by being born in it. With a user namespace of a rootless container that
        // right comes only from inside, so a process in between enters all of them first.
        if !self.user_namespace && self.flags.contains(CloneFlags::CLONE_NEWPID) {
            setns(self.init.as_fd(), CloneFlags::CLONE_NEWPID).context(|| "join the PID namespace".into())?;
        }
        let what = || "clone the process".into();
        let mut waits = false;
        let side = match clone3(0, unified.as_ref().map(AsFd::as_fd)) {
            // A user may not move processes from any group to any other, but the user's systemd may.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) && self.groups.can_admit() => {
                waits = true;
                clone3(0, None)
            }
            side => side,
        };
        let first = match side.context(what)? {
            Side::Child => {
                // Its copy of our end would keep it from hearing of our death.
                drop(ours);
                self.enter(&theirs, &entries, waits)
            }
            Side::Parent { pid, pidfd } => Newborn::new(pid, pidfd),
        };
        if waits {
            self.groups.admit(first.pid)?;
            ours.send(&Message::Admitted)?;
        }
        drop((theirs, entries, unified));
        let newborn = if self.user_namespace {
            let pid = match ours.receive()? {
                Some(Message::Pid(pid)) => pid,
                Some(Message::Failed(text)) => return Err(Error::Refused(text)),
                _ => return Err(Error::Silent),
            };
            let pidfd = own::pidfd_open(pid).context(|| format!("open process {pid}"))?;
            let newborn = Newborn::new(pid, pidfd);
            first.wait()?;
            ours.send(&Message::Admitted)?;
            newborn
        } else {
            first
        };
        let terminal = self.bring_up(request, &newborn, &ours)?;
        // Silence is the sound of execve.
        if let Some(Message::Failed(text)) = ours.receive()? {
            return Err(Error::Refused(text));
        }
        let pid = newborn.pid;
        let pidfd = newborn.keep()?;
        if request.detach {
            return Ok(0);
        }
        let exit = match &terminal {
            Some(master) => foreground::follow_terminal(pid, &pidfd, master)?,
            None => foreground::follow(pid, &pidfd)?,
        };
        Ok(exit.code())
    }

    /// What the runtime does for the process until it is ready.
    fn bring_up(&self, request: &Request, newborn: &Newborn, channel: &Channel) -> Result<Option<OwnedFd>> {
        if let Some(score) = self.plan.oom_score_adj {
            set_oom_score_adj(newborn.pid, score)?;
        }
        if let Some(intel_rdt) = &self.intel_rdt {
            intel_rdt.enter(newborn.pid)?;
        }
        let mut terminal = None;
        loop {
            match channel.receive()? {
                Some(Message::Ready) => break,
                Some(Message::Terminal(master)) => terminal = Some(master),
                Some(Message::SeccompNotify(fd)) => {
                    let mut state = self.container.hook_state(Status::Running);
                    state.pid = newborn.pid;
                    notify::tell_listener(&fd, self.seccomp.as_ref(), &state)?;
                    channel.send(&Message::Taken)?;
                }
                Some(Message::Failed(text)) => return Err(Error::Refused(text)),
                _ => return Err(Error::Silent),
            }
        }
        if let Some(path) = &request.pidfd_socket {
            hand_over(&terminal::connect(path)?, newborn.pidfd()?.as_fd(), "pidfd")?;
        }
        if let Some(path) = &request.pid_file {
            write_pid_file(path, newborn.pid)?;
        }
        Ok(terminal)
    }

    /// The process's side: into cgroups and namespaces.
    fn enter(&self, channel: &Channel, entries: &[OwnedFd], waits: bool) -> ! {
        let _guard = ExitOnUnwind;
        let enter = || {
            own::die_with_parent().context(|| "ask to die with the runtime".into())?;
            self.plan.scheduling().bind_initially()?;
            cgroup::enter(entries)?;
            if waits && !matches!(channel.receive()?, Some(Message::Admitted)) {
                return Err(Error::Silent);
            }
            self.plan.scheduling().bind_finally()?;
            let mut flags = self.flags;
            flags.set(
                CloneFlags::CLONE_NEWPID,
                self.user_namespace && flags.contains(CloneFlags::CLONE_NEWPID),
            );
            // Without a mount namespace to join, the container's root is only to be had from its process.
            let root = match &self.proc {
                Some(proc) if !flags.contains(CloneFlags::CLONE_NEWNS) => {
                    Some(proc.root_of(self.container.record.pid)?)
                }
                _ => None,
            };
            setns(self.init.as_fd(), flags).context(|| "join the container's namespaces".into())?;
            if let Some(root) = root {
                let what = || "chroot into the container's root".into();
                fchdir(root).context(what)?;
                chroot(".").context(what)?;
            }
            if !self.user_namespace {
                return Ok(());
            }
            self.plan.own_namespace()?;
            let what = || "clone the process".into();
            match clone3(CloneFlags::CLONE_PARENT.bits(), None).context(what)? {
                Side::Child => {
                    own::die_with_parent().context(|| "ask to die with the runtime".into())?;
                    // Both speak over one channel: nothing may come before the other has told this one's id.
                    match channel.receive()? {
                        Some(Message::Admitted) => Ok(()),
                        _ => Err(Error::Silent),
                    }
                }
                Side::Parent { pid, .. } => {
                    let sent = channel.send(&Message::Pid(pid));
                    own::exit_now(i32::from(sent.is_err()))
                }
            }
        };
        let ready = enter().and_then(|()| self.build(channel));
        let error = match ready {
            Ok((located, stage)) => self.execute(channel, located, stage.as_ref()),
            Err(error) => error,
        };
        let _ = channel.send(&Message::Failed(error.to_string()));
        own::exit_now(1)
    }

    /// In the container: everything but `execve`.
    fn build(&self, channel: &Channel) -> Result<(Located, Option<OwnedFd>)> {
        own::set_dumpable(false).context(|| "make the process not dumpable".into())?;
        setsid().context(|| "make a session".into())?;
        if self.container.record.new_keyring {
            let name =
                std::ffi::CString::new(format!("_ses.{}", self.container.record.id)).unwrap_or_default();
            // A container of a kernel without keyrings has none to join.
            let _ = own::join_session_keyring(&name);
        }
        if self.plan.terminal {
            let terminal = Terminal::make(self.plan.console_size)?;
            terminal.take_over()?;
            if self.console.is_none() {
                terminal.leave_newlines_alone()?;
            }
            match &self.console {
                Some(socket) => hand_over(socket, terminal.master.as_fd(), "/dev/pts/ptmx")?,
                None => channel.send(&Message::Terminal(terminal.master))?,
            }
        }
        standard_streams::take_null_from_container(true)?;
        self.plan.label_next_exec(self.proc.as_ref())?;
        let stage = self.plan.make_trampoline()?;
        self.plan.prepare(false)?;
        if let Some(policy) = &self.memory_policy {
            policy.apply()?;
        }
        if self.plan.no_new_privileges {
            own::set_no_new_privileges().context(|| "set no_new_privs".into())?;
        } else {
            self.load_seccomp(channel)?;
        }
        standard_streams::give_to(self.plan.uid())?;
        self.plan.become_user()?;
        let located = self.plan.locate()?;
        if self.plan.no_new_privileges && self.seccomp_notifies() {
            self.load_seccomp(channel)?;
        }
        channel.send(&Message::Ready)?;
        Ok((located, stage))
    }

    /// Returns only when it fails.
    fn execute(&self, channel: &Channel, located: Located, stage: Option<&OwnedFd>) -> Error {
        let go = || {
            own::outlive_parent().context(|| "ask to outlive the runtime".into())?;
            own::default_signal(libc::SIGPIPE);
            SigSet::empty()
                .thread_set_mask()
                .context(|| "unblock signals".into())?;
            if self.plan.no_new_privileges && !self.seccomp_notifies() {
                self.load_seccomp(channel)
            } else {
                Ok(())
            }
        };
        match go() {
            Ok(()) => located.execute(stage),
            Err(error) => error,
        }
    }

    /// The filter reports calls to a listener, who has to be told before the program starts.
    fn seccomp_notifies(&self) -> bool {
        self.seccomp.as_ref().is_some_and(seccomp::Filter::notifies)
    }

    fn load_seccomp(&self, channel: &Channel) -> Result<()> {
        let Some(filter) = &self.seccomp else {
            return Ok(());
        };
        if let Some(fd) = filter.load()? {
            channel.send(&Message::SeccompNotify(fd))?;
            let Some(Message::Taken) = channel.receive()? else {
                return Err(Error::Silent);
            };
        }
        Ok(())
    }
}
