//! The container's first process, from clone to `execve`: our code in the container's namespaces. It has one
//! thread, a copy of everything that the runtime has planned, and a channel back; it can't be looked into by the
//! container (it is not dumpable), and dies with the runtime until its pid is on record.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sched::CloneFlags;
use nix::sys::signal::SigSet;
use nix::unistd::{sethostname, setsid};

use crate::cgroup;
use crate::channel::{Channel, Message};
use crate::create::{Options, Plans, cgroup_context, hook_state};
use crate::error::{Context, Error, Result};
use crate::gate;
use crate::hooks::{self, Kind};
use crate::log;
use crate::memory_policy::MemoryPolicy;
use crate::mounts;
use crate::namespaces::{self, Joined};
use crate::phases;
use crate::process::Located;
use crate::procfs::Procfs;
use crate::standard_streams;
use crate::state::Status;
use crate::sys::fd::{close_later, close_spent};
use crate::sys::network::loopback_up;
use crate::sys::process as own;
use crate::sys::scheduling::reset_affinity;
use crate::terminal::{Terminal, hand_over};

/// What init inherits.
pub(crate) struct Init<'a> {
    pub(crate) plans: &'a Plans,
    pub(crate) options: &'a Options<'a>,
    pub(crate) sources: mounts::Sources,
    /// The cgroups that exist already.
    pub(crate) groups: cgroup::Paths,
    /// Namespaces to join.
    pub(crate) joined: Vec<Joined>,
    pub(crate) channel: Channel,
    /// The host's procfs, where something is to be written there: neither the image nor a namespace that is joined can
    /// have put another in its place.
    pub(crate) proc: Option<Procfs>,
    pub(crate) gate: Option<OwnedFd>,
    /// Who gets the terminal.
    pub(crate) console: Option<UnixStream>,
}

impl Init<'_> {
    /// Lives the whole life of init. The runtime, or `start`, hears why when it ends. `groups` are the cgroups that it
    /// is in already.
    pub(crate) fn run(mut self, groups: Option<cgroup::Paths>) -> ! {
        let _guard = ExitOnUnwind;
        let mut listener = None;
        let error = match self.build(groups) {
            Ok(ready) => self.pass_gate(ready, &mut listener),
            Err(error) => error,
        };
        let _ = listener
            .as_ref()
            .unwrap_or(&self.channel)
            .send(&Message::Failed(error.to_string()));
        own::exit_now(1)
    }

    /// Enters the v1 cgroups, or waits to be moved by systemd. Returns where it is then.
    pub(crate) fn enter_groups(&self) -> Result<cgroup::Paths> {
        if !self.plans.cgroup.is_completed_later() {
            return Ok(self.groups.clone());
        }
        let Some(Message::Groups { joined, entries }) = self.channel.receive()? else {
            return Err(Error::Silent);
        };
        cgroup::enter(&entries)?;
        entries.into_iter().for_each(close_later);
        Ok(self.plans.cgroup.paths_of(&joined))
    }

    /// Joins the namespaces that exist already.
    pub(crate) fn join_namespaces(&self) -> Result<()> {
        namespaces::join_all(&self.joined)
    }

    /// Everything up to the point where only the gate is missing.
    fn build(&mut self, groups: Option<cgroup::Paths>) -> Result<Ready> {
        let (plans, spec) = (self.plans, &self.plans.bundle.spec);
        let has = |kind| plans.namespaces.has(kind);
        phases::reached("init.cloned");
        own::die_with_parent().context(|| "ask to die with the runtime".into())?;
        // The runtime makes the cgroups meanwhile: that and a network namespace are the longest parts of a start.
        if plans.namespaces.makes(CloneFlags::CLONE_NEWNET) {
            plans.namespaces.make_network()?;
            loopback_up().context(|| "bring up the loopback device".into())?;
        }
        phases::reached("init.network");
        let groups = groups.map_or_else(|| self.enter_groups(), Ok)?;
        // The CPUs that the runtime's caller was bound to, say by `taskset`, are not the container's.
        reset_affinity();
        phases::reached("init.groups");
        if plans.namespaces.makes(CloneFlags::CLONE_NEWUSER) {
            let Some(Message::Mapped) = self.channel.receive()? else {
                return Err(Error::Silent);
            };
        }
        if has(CloneFlags::CLONE_NEWUSER) {
            plans.process.own_namespace()?;
            // The change of user has cleared this.
            own::die_with_parent().context(|| "ask to die with the runtime".into())?;
        }
        own::set_dumpable(false).context(|| "make init not dumpable".into())?;
        plans.namespaces.make_cgroup()?;
        if !plans.namespaces.needs_intermediate() {
            self.join_namespaces()?;
        }
        setsid().context(|| "make a session".into())?;
        self.join_keyring()?;
        if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
            sethostname(name).context(|| format!("set hostname {name:?}"))?;
        }
        if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
            own::set_domain_name(name).context(|| format!("set domainname {name:?}"))?;
        }
        phases::reached("init.namespaces");
        let sources = std::mem::take(&mut self.sources);
        let context = mounts::Context {
            user_namespace: has(CloneFlags::CLONE_NEWUSER),
            without_namespace: (!has(CloneFlags::CLONE_NEWNS))
                .then(|| self.options.root.join(self.options.id.as_str())),
            sources,
            parent: Some(&self.channel),
            ..cgroup_context(&groups)
        };
        let rootfs = plans.mounts.build(&context)?;
        phases::reached("init.mounts");
        if plans.tells_of_mounts() {
            self.channel.send(&Message::Mounted)?;
        }

        let Some(Message::Continue(pid)) = self.channel.receive()? else {
            return Err(Error::Silent);
        };
        phases::reached("init.continue");
        own::outlive_parent().context(|| "ask to outlive the runtime".into())?;
        let as_creating = hook_state(spec, &self.options.id, Status::Creating, pid, &plans.bundle.dir);
        if !hooks::of(spec, Kind::CreateContainer).is_empty() {
            // Where they run, so that `./lib` is the container's.
            let rootfs = plans.bundle.rootfs();
            std::env::set_current_dir(&rootfs).context(|| format!("chdir to {}", rootfs.display()))?;
            hooks::run(spec, Kind::CreateContainer, &as_creating)?;
        }
        self.write_sysctls(&rootfs)?;
        rootfs.pivot(self.options.no_pivot)?;
        phases::reached("init.pivot");
        rootfs.make_folder(plans.process.working_directory())?;
        if plans.process.terminal {
            let terminal = Terminal::make(plans.process.console_size)?;
            rootfs.bind_console(terminal.peer.as_fd())?;
            terminal.take_over()?;
            self.hand_over_terminal(terminal)?;
        }
        rootfs.finish()?;
        standard_streams::take_null_from_container(false)?;
        // Closed later, the numbers of its sources would be those of other files.
        drop(context);
        match &self.gate {
            Some(gate) => {
                let optional = [self.proc.as_ref().map(AsFd::as_fd), log::file(), phases::file()];
                let needed = [gate.as_fd(), self.channel.as_fd()].into_iter();
                standard_streams::close_others(
                    &needed.chain(optional.into_iter().flatten()).collect::<Vec<_>>(),
                );
            }
            None => close_spent(),
        }
        phases::reached("init.masks");

        plans.process.label_next_exec(self.proc.as_ref())?;
        let stage = plans.process.make_trampoline()?;
        plans.process.prepare(true)?;
        if let Some(policy) = spec
            .linux()
            .as_ref()
            .map(MemoryPolicy::from_spec)
            .transpose()?
            .flatten()
        {
            policy.apply()?;
        }
        if plans.process.no_new_privileges {
            own::set_no_new_privileges().context(|| "set no_new_privs".into())?;
        } else {
            // Without no_new_privs a filter can only be loaded with the rights that we are about to give up.
            self.load_seccomp()?;
        }
        standard_streams::give_to(plans.process.uid())?;
        plans.process.become_user()?;
        let located = plans.process.locate()?;
        if plans.process.no_new_privileges && plans.seccomp_notifies() {
            self.load_seccomp()?;
        }
        phases::reached("init.identity");
        self.channel.send(&Message::Ready)?;
        Ok(Ready { located, stage, pid })
    }

    /// Waits to be let go, and executes the container's program. Returns only when that fails.
    fn pass_gate(&self, ready: Ready, listener: &mut Option<Channel>) -> Error {
        match self.wait_at_gate() {
            Ok(start) => *listener = start,
            Err(error) => return error,
        }
        if let Err(error) = self.plans.process.limit_files() {
            return error;
        }
        let spec = &self.plans.bundle.spec;
        let state = hook_state(
            spec,
            &self.options.id,
            Status::Created,
            ready.pid,
            &self.plans.bundle.dir,
        );
        own::default_signal(libc::SIGPIPE);
        if let Err(error) = SigSet::empty()
            .thread_set_mask()
            .context(|| "unblock signals".into())
        {
            return error;
        }
        let late = self.plans.process.no_new_privileges && !self.plans.seccomp_notifies();
        if late && let Err(error) = self.load_seccomp() {
            return error;
        }
        // They run in the container, in the place of the program: under its filter, and as runc has it with its
        // environment.
        let environment = ready.located.environment();
        if let Err(error) = hooks::run_with(spec, Kind::StartContainer, &state, &environment) {
            return error;
        }
        phases::reached("init.exec");
        ready.located.execute(ready.stage.as_ref())
    }

    /// The channel to `start`, or `None` where there is no gate and nothing to wait for.
    fn wait_at_gate(&self) -> Result<Option<Channel>> {
        let Some(gate) = &self.gate else { return Ok(None) };
        // The gate can be waited at once it is published.
        let Some(Message::Continue(_)) = self.channel.receive()? else {
            return Err(Error::Silent);
        };
        own::end_at_signals();
        gate::wait(gate).map(Some)
    }

    fn join_keyring(&self) -> Result<()> {
        if !self.options.new_keyring {
            return Ok(());
        }
        self.plans.process.label_next_keyring(self.proc.as_ref())?;
        let name = std::ffi::CString::new(format!("_ses.{}", self.options.id)).unwrap_or_default();
        match own::join_session_keyring(&name) {
            // A kernel without keyrings, or a quota or filter around us that forbids them: nothing to protect.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES)) => Ok(()),
            other => other.context(|| "join a new session keyring".into()),
        }
    }

    fn write_sysctls(&self, rootfs: &mounts::Rootfs<'_>) -> Result<()> {
        let linux = self.plans.bundle.spec.linux().as_ref();
        let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
        let (Some(proc), Some(sysctls)) = (&self.proc, sysctls.filter(|list| !list.is_empty())) else {
            return Ok(());
        };
        let own = Procfs::of_container(rootfs.as_fd());
        for (name, value) in sysctls {
            proc.write_sysctl(own.as_ref(), &format!("sys/{}", sysctl_path(name)), value)
                .context(|| format!("write {value:?} to sysctl {name}"))?;
        }
        own.map(OwnedFd::from).into_iter().for_each(close_later);
        Ok(())
    }

    fn hand_over_terminal(&self, terminal: Terminal) -> Result<()> {
        if self.console.is_none() {
            terminal.leave_newlines_alone()?;
        }
        match &self.console {
            Some(socket) => hand_over(socket, terminal.master.as_fd(), "/dev/pts/ptmx"),
            None => self.channel.send(&Message::Terminal(terminal.master)),
        }
    }

    fn load_seccomp(&self) -> Result<()> {
        let Some(filter) = &self.plans.seccomp else {
            return Ok(());
        };
        if let Some(fd) = filter.load()? {
            self.channel.send(&Message::SeccompNotify(fd))?;
            let Some(Message::Taken) = self.channel.receive()? else {
                return Err(Error::Silent);
            };
        }
        Ok(())
    }
}

impl mounts::Parent for Channel {
    fn map_owners(&self, index: usize, tree: &OwnedFd) -> Result<()> {
        let tree = tree
            .try_clone()
            .context(|| "duplicate the descriptor of a mount".into())?;
        self.send(&Message::MapOwners(index, tree))?;
        match self.receive()? {
            Some(Message::Mapped) => Ok(()),
            _ => Err(Error::Silent),
        }
    }

    fn open_source(&self, index: usize, root: OwnedFd) -> Result<OwnedFd> {
        self.send(&Message::OpenSource(index, root))?;
        match self.receive()? {
            Some(Message::Source(tree)) => Ok(tree),
            _ => Err(Error::Silent),
        }
    }
}

/// Keeps a panic from unwinding into the runtime's frames, of which init has a copy, and undoing its work.
pub(crate) struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        own::exit_now(101)
    }
}

/// Nothing is missing but the gate.
struct Ready {
    located: Located,
    stage: Option<OwnedFd>,
    pid: i32,
}

/// `net.ipv4.ip_forward` as a path. A name with slashes is one already (interfaces may have dots in their names).
fn sysctl_path(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    }
}
