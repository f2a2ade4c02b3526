//! The whole of `create`, in the order that the kernel sees it. Everything is checked first; then each thing that
//! is made undoes itself until the container is complete.
//!
//! A `kill -9` of this process at any point leaves nothing alive that `delete --force` can't find: init dies with
//! us until its pid is on record, and goes on only after it is.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use oci_spec::runtime::{LinuxMemory, Spec};

use crate::bundle::Bundle;
use crate::cgroup;
use crate::channel::{Channel, Message};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::gate;
use crate::hooks::{self, Kind};
use crate::id::Id;
use crate::id_maps;
use crate::init::Init;
use crate::intel_rdt::{self, IntelRdt};
use crate::log;
use crate::mounts;
use crate::namespaces::Namespaces;
use crate::net_devices::NetDevices;
use crate::newborn::{Newborn, clone_init};
use crate::notify;
use crate::phases;
use crate::process::{ProcessPlan, set_oom_score_adj};
use crate::procfs::Procfs;
use crate::protect;
use crate::seccomp;
use crate::state::{Home, Record, Status, start_time_of};
use crate::sys::credentials::own_users;
use crate::sys::fd::close_spent;
use crate::sys::process::Exit;
use crate::terminal::{self, hand_over};

/// What the command line adds to the bundle.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    pub(crate) root: &'a Path,
    pub(crate) id: Id,
    pub(crate) bundle: PathBuf,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) cgroups: cgroup::Driver,
    /// The container waits at a gate for `start`, rather than for this process.
    pub(crate) gated: bool,
    /// This process relays the terminal, if there is one.
    pub(crate) foreground: bool,
}

/// Everything that config.json asks for, checked.
pub(crate) struct Plans {
    pub(crate) bundle: Bundle,
    pub(crate) namespaces: Namespaces,
    pub(crate) process: ProcessPlan,
    pub(crate) mounts: mounts::Plan,
    pub(crate) cgroup: cgroup::Plan,
    pub(crate) seccomp: Option<seccomp::Filter>,
    intel_rdt: Option<IntelRdt>,
}

impl Plans {
    /// The filter reports calls to a listener, who has to be told before the program starts.
    pub(crate) fn seccomp_notifies(&self) -> bool {
        self.seccomp.as_ref().is_some_and(seccomp::Filter::notifies)
    }

    /// The runtime has to hear when the mounts are made: hooks want to see them, or init needs help to make them.
    pub(crate) fn tells_of_mounts(&self) -> bool {
        let hooked = |kind| !hooks::of(&self.bundle.spec, kind).is_empty();
        hooked(Kind::Prestart) || hooked(Kind::CreateRuntime) || self.mounts.need_help()
    }

    /// There are sysctls or labels.
    fn writes_procfs(&self) -> bool {
        let linux = self.bundle.spec.linux().as_ref();
        let sysctls = linux.and_then(|linux| linux.sysctl().as_ref());
        sysctls.is_some_and(|list| !list.is_empty()) || self.process.has_label()
    }

    fn read(options: &Options<'_>) -> Result<Self> {
        let bundle = Bundle::open(&options.bundle)?;
        let spec = &bundle.spec;
        let linux = spec.linux().as_ref();
        let filter = linux.and_then(|linux| linux.seccomp().as_ref());
        let wanted = spec
            .process()
            .as_ref()
            .ok_or_else(|| Error::spec("process", "is required"))?;
        let process = ProcessPlan::from_spec(wanted, spec)?;
        check_terminal(&process, options)?;
        let namespaces = Namespaces::from_spec(spec)?;
        let watched =
            namespaces.joins(CloneFlags::CLONE_NEWPID) && !namespaces.has(CloneFlags::CLONE_NEWUSER);
        if process.has_label() || watched {
            protect::ensure()?;
        }
        Ok(Self {
            namespaces,
            process,
            mounts: mounts::Plan::from_spec(spec, &bundle.dir)?,
            cgroup: cgroup::Plan::from_spec(spec, options.id.as_str(), options.cgroups)?,
            seccomp: filter.map(seccomp::Filter::from_spec).transpose()?,
            intel_rdt: IntelRdt::from_spec(linux, options.id.as_str())?,
            bundle,
        })
    }
}

/// A terminal needs somebody who holds its master side.
fn check_terminal(process: &ProcessPlan, options: &Options<'_>) -> Result<()> {
    let text = match (process.terminal, &options.console_socket, options.foreground) {
        (true, None, false) => {
            "cannot allocate tty if the runtime will detach without setting console socket"
        }
        (false, Some(_), _) => "cannot use console socket if the process has no terminal",
        (true, Some(_), true) => "cannot use console socket if the runtime will not detach",
        _ => return Ok(()),
    };
    Err(Error::Refused(text.into()))
}

/// A container whose program waits to be executed.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) record: Record,
    pub(crate) spec: Spec,
    pub(crate) channel: Channel,
    pub(crate) pidfd: OwnedFd,
    /// The terminal's master side, when we relay it.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Makes a container. On an error nothing of it is left.
pub(crate) fn create(options: &Options<'_>) -> Result<Created> {
    let plans = Plans::read(options)?;
    phases::reached("runtime.read");
    if plans.namespaces.has(CloneFlags::CLONE_NEWUSER) {
        plans.process.raise_limits()?;
    }
    let joined = plans.namespaces.open()?;
    let console = options
        .console_socket
        .as_deref()
        .map(terminal::connect)
        .transpose()?;

    let home = Home::create(options.root, &options.id)?;
    // From this copy, `delete` can find the groups of a container whose record was never written.
    home.write_config(&plans.bundle.config)?;
    phases::reached("runtime.state");
    let mut group = plans.cgroup.begin()?;
    // Without root's rights we can open no more than init can, and only init may make mounts, in its namespaces.
    let sources = if own_users().1 == 0 {
        plans.mounts.open_sources()?
    } else {
        plans.mounts.check_without_root()?;
        mounts::Sources::default()
    };
    let (ours, theirs) = Channel::pair()?;
    let gate = if options.gated { Some(gate::make()?) } else { None };

    let init = Init {
        plans: &plans,
        options,
        sources,
        groups: group.paths(),
        joined,
        channel: theirs,
        proc: plans.writes_procfs().then(Procfs::of_host).transpose()?,
        gate,
        console,
    };
    phases::reached("runtime.groups");
    let (newborn, gate, ours) = clone_init(init, &mut group, ours)?;
    phases::reached("runtime.clone");
    match bring_up(options, &plans, &home, &group, &newborn, &ours, gate.as_ref()) {
        Ok((record, terminal)) => {
            close_spent();
            let pidfd = newborn.keep()?;
            group.keep();
            home.keep();
            Ok(Created {
                record,
                spec: plans.bundle.spec,
                channel: ours,
                pidfd,
                terminal,
            })
        }
        Err(error) => {
            let pid = newborn.pid;
            // Init may be waiting for us: only when it is dead, what it has said is all that it will ever say.
            let exit = newborn.kill();
            intel_rdt::give_back(plans.intel_rdt.as_ref());
            let error = last_words(&ours, error, exit, &plans.bundle.spec);
            // createRuntime hooks may have run; what they made is theirs to take down.
            let state = hook_state(
                &plans.bundle.spec,
                &options.id,
                Status::Stopped,
                pid,
                &plans.bundle.dir,
            );
            if let Err(error) = hooks::run(&plans.bundle.spec, Kind::Poststop, &state) {
                log::warn(&error.to_string());
            }
            Err(error)
        }
    }
}

/// What we do for init, and what it tells us, until only the gate is between it and the container's program.
fn bring_up(
    options: &Options<'_>,
    plans: &Plans,
    home: &Home,
    group: &cgroup::Group,
    newborn: &Newborn,
    channel: &Channel,
    gate: Option<&OwnedFd>,
) -> Result<(Record, Option<OwnedFd>)> {
    let spec = &plans.bundle.spec;
    let pid = newborn.pid;
    if plans.namespaces.makes(CloneFlags::CLONE_NEWUSER) {
        let linux = spec
            .linux()
            .as_ref()
            .ok_or_else(|| Error::spec("linux", "is required"))?;
        id_maps::write(pid, linux)?;
        channel.send(&Message::Mapped)?;
    }
    group.limit()?;
    phases::reached("runtime.limits");
    if let Some(score) = plans.process.oom_score_adj {
        set_oom_score_adj(pid, score)?;
    }
    let mut record = record(options, plans, group, pid)?;
    home.write(&record)?;
    if let Some(linux) = spec.linux() {
        let devices = NetDevices::from_spec(linux, plans.namespaces.has(CloneFlags::CLONE_NEWNET))?;
        devices.move_to(&plans.namespaces.network_of(pid))?;
    }
    if let Some(intel_rdt) = &plans.intel_rdt {
        intel_rdt.apply(pid)?;
    }
    phases::reached("runtime.record");

    if plans.tells_of_mounts() {
        help_to_mount(plans, newborn, channel)?;
        let state = hook_state(spec, &options.id, Status::Creating, pid, &plans.bundle.dir);
        hooks::run(spec, Kind::Prestart, &state)?;
        hooks::run(spec, Kind::CreateRuntime, &state)?;
    }
    channel.send(&Message::Continue(pid))?;

    let mut terminal = None;
    loop {
        match channel.receive()? {
            Some(Message::Ready) => break,
            Some(Message::Terminal(master)) => terminal = Some(master),
            Some(Message::SeccompNotify(fd)) => {
                let state = hook_state(spec, &options.id, Status::Creating, pid, &plans.bundle.dir);
                notify::tell_listener(&fd, plans.seccomp.as_ref(), &state)?;
                channel.send(&Message::Taken)?;
            }
            Some(Message::Failed(text)) => return Err(Error::Refused(text)),
            _ => return Err(Error::Silent),
        }
    }
    phases::reached("runtime.ready");
    if let Some(path) = &options.pidfd_socket {
        hand_over(&terminal::connect(path)?, newborn.pidfd()?.as_fd(), "pidfd")?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    if let Some(gate) = gate {
        record.creating = false;
        home.write(&record)?;
        gate::publish(gate, home.path())?;
        channel.send(&Message::Continue(pid))?;
    }
    Ok((record, terminal))
}

/// What only we may do for the mounts, until init has made them all.
fn help_to_mount(plans: &Plans, newborn: &Newborn, channel: &Channel) -> Result<()> {
    loop {
        match channel.receive()? {
            Some(Message::MapOwners(index, tree)) => {
                plans.mounts.map_owners(index, tree.as_fd())?;
                channel.send(&Message::Mapped)?;
            }
            Some(Message::OpenSource(index, root)) => {
                let init = newborn.pidfd()?.as_fd();
                let tree = plans.mounts.open_for(init, index, root.as_fd())?;
                channel.send(&Message::Source(tree))?;
            }
            Some(Message::Mounted) => return Ok(()),
            Some(Message::Failed(text)) => return Err(Error::Refused(text)),
            _ => return Err(Error::Silent),
        }
    }
}

/// The error that init gave before it died is better than ours, that it is silent.
fn last_words(channel: &Channel, error: Error, exit: Option<Exit>, spec: &Spec) -> Error {
    let silent = match &error {
        Error::Silent => true,
        Error::Kernel { source, .. } => source.kind() == ErrorKind::BrokenPipe,
        _ => return error,
    };
    while let Ok(Some(message)) = channel.receive() {
        if let Message::Failed(text) = message {
            return Error::Refused(text);
        }
    }
    // A process that is ending by itself keeps the exit status that it has, whatever we send to it.
    if silent && exit.and_then(Exit::signal) == Some(libc::SIGKILL) {
        return Error::Killed(memory_hint(spec));
    }
    error
}

/// Out of memory is by far the most frequent reason for a foreign SIGKILL.
fn memory_hint(spec: &Spec) -> String {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let memory = resources.and_then(|resources| resources.memory().as_ref());
    match memory.and_then(LinuxMemory::limit) {
        Some(bytes) => format!("linux.resources.memory.limit, {bytes} bytes, may be too low for it"),
        None => "by the system for want of memory, or by somebody".into(),
    }
}

fn record(options: &Options<'_>, plans: &Plans, group: &cgroup::Group, pid: i32) -> Result<Record> {
    let spec = &plans.bundle.spec;
    let start_time = start_time_of(pid)?.ok_or(Error::Silent)?;
    Ok(Record {
        oci_version: spec.version().clone(),
        id: options.id.to_string(),
        pid,
        start_time,
        creating: true,
        bundle: plans.bundle.dir.clone(),
        rootfs: plans.bundle.rootfs(),
        created: clock::now().rfc3339_nanos(),
        owner: own_users().0,
        annotations: spec.annotations().clone().unwrap_or_default(),
        new_keyring: options.new_keyring,
        cgroups: group.paths(),
        own_pid_namespace: plans.namespaces.makes(CloneFlags::CLONE_NEWPID),
        restored: false,
    })
}

static NO_ANNOTATIONS: std::sync::LazyLock<HashMap<String, String>> = std::sync::LazyLock::new(HashMap::new);

/// The container's state as hooks read it while it is made.
pub(crate) fn hook_state<'a>(
    spec: &'a Spec,
    id: &'a Id,
    status: Status,
    pid: i32,
    bundle: &'a Path,
) -> hooks::State<'a> {
    hooks::State {
        oci_version: spec.version(),
        id: id.as_str(),
        status,
        pid,
        bundle,
        annotations: spec.annotations().as_ref().unwrap_or(&NO_ANNOTATIONS),
    }
}

/// Writes the pid as a whole or not at all.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&new, pid.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .context(|| format!("write pid file {}", path.display()))
}

/// What mounts of type cgroup show: the container's groups by the name of their hierarchy's folder.
pub(crate) fn cgroup_context(paths: &cgroup::Paths) -> mounts::Context<'static> {
    let named = paths.named();
    // Without rights to make groups there are none to tell it by.
    let unified = if named.is_empty() {
        statfs("/sys/fs/cgroup").is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
    } else {
        named.keys().all(String::is_empty)
    };
    let folder = |path: &PathBuf| {
        let below = path.strip_prefix("/sys/fs/cgroup").ok()?;
        Some(
            below
                .components()
                .next()?
                .as_os_str()
                .to_string_lossy()
                .into_owned(),
        )
    };
    let cgroups = named
        .into_values()
        .filter_map(|path| Some((folder(&path)?, path)))
        .collect();
    mounts::Context {
        unified,
        cgroups,
        ..mounts::Context::default()
    }
}
