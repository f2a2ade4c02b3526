//! `restore`: a container as `create` and `start` would leave it, with the processes of a checkpoint.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::criu::{self, Criu, INHERITED_FROM, Kind, Moment, Place};
use super::message::Message;
use super::options::Options;
use super::private_root::PrivateRoot;
use super::{DESCRIPTORS, external_mount, external_namespace, has_terminal, with_configuration};
use crate::bundle::{self, Bundle};
use crate::cgroup;
use crate::channel;
use crate::clock;
use crate::create::{cgroup_context, hook_state, write_pid_file};
use crate::delete::destroy_reaped;
use crate::error::{Context, Error, Result};
use crate::foreground;
use crate::hooks;
use crate::id::Id;
use crate::init::ExitOnUnwind;
use crate::log;
use crate::mounts;
use crate::namespaces::Namespaces;
use crate::newborn::Newborn;
use crate::state::{Container, Home, Record, Status, start_time_of};
use crate::sys::clone::{Side, clone3};
use crate::sys::network::loopback_up;
use crate::sys::process as own;
use crate::terminal::{self, hand_over};

const LOG: &str = "restore.log";

/// What the command line says beside [`Options`].
#[derive(Debug)]
pub(crate) struct Restore<'a> {
    pub(crate) root: &'a Path,
    pub(crate) id: Id,
    pub(crate) bundle: PathBuf,
    pub(crate) cgroups: cgroup::Driver,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) subreaper: bool,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// Brings a container back. Returns the exit code of its program, or 0 when detached.
pub(crate) fn restore(wanted: &Restore<'_>, options: &Options) -> Result<i32> {
    let program = criu::find(options.program.as_deref())?;
    let bundle = Bundle::open(&wanted.bundle)?;
    if has_terminal(&bundle.spec) && wanted.detach && wanted.console_socket.is_none() {
        let text = "cannot restore a terminal detached without --console-socket";
        return Err(Error::Refused(text.into()));
    }
    let namespaces = Namespaces::from_spec(&bundle.spec)?;
    if !namespaces.has(CloneFlags::CLONE_NEWNS) {
        return Err(Error::spec(
            "linux.namespaces",
            "CRIU can't restore a container without a mount namespace",
        ));
    }
    let plan = Plan {
        namespaces,
        mounts: mounts::Plan::from_spec(&bundle.spec, &bundle.dir)?,
        cgroup: cgroup::Plan::from_spec(&bundle.spec, wanted.id.as_str(), wanted.cgroups)?,
        console: wanted
            .console_socket
            .as_deref()
            .map(terminal::connect)
            .transpose()?,
        streams: bundle::parse_file(&options.images().join(DESCRIPTORS))?,
        program,
        bundle,
    };
    if !wanted.detach {
        own::block_signals().context(|| "block signals".into())?;
        if wanted.subreaper {
            own::become_subreaper().context(|| "become a subreaper".into())?;
        }
    }
    let Restored {
        container,
        pidfd,
        terminal,
    } = plan.carry_out(wanted, options)?;
    if wanted.detach {
        return Ok(0);
    }
    let pid = container.record.pid;
    let exit = match &terminal {
        Some(master) => foreground::follow_terminal(pid, &pidfd, master)?,
        None => foreground::follow(pid, &pidfd)?,
    };
    destroy_reaped(&container, &plan.bundle.spec)?;
    Ok(exit.code())
}

struct Plan {
    program: PathBuf,
    bundle: Bundle,
    namespaces: Namespaces,
    mounts: mounts::Plan,
    cgroup: cgroup::Plan,
    console: Option<UnixStream>,
    /// What the standard streams were.
    streams: Vec<String>,
}

struct Restored {
    container: Container,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

impl Plan {
    /// On an error nothing of the container is left.
    fn carry_out(&self, wanted: &Restore<'_>, options: &Options) -> Result<Restored> {
        let rootfs = self.bundle.rootfs();
        let home = Home::create(wanted.root, &wanted.id)?;
        home.write_config(&self.bundle.config)?;
        let mut group = self.cgroup.begin()?;
        let namespaces = self.external_namespaces()?;
        let private = PrivateRoot::enter(home.path(), &rootfs)?;
        let folders = options.folders(false)?;
        let unified = group.into_fd().map(|group| group.try_clone_to_owned());
        let place = Place {
            unified: unified.transpose().context(|| "hold the cgroup".into())?,
            inherited: namespaces.iter().map(|(_, file)| file.as_fd()).collect(),
        };
        // What it restores is born in the groups that it is in itself. So their limits come when it is nearly done: they
        // are for the container alone.
        let criu = Criu::start(&self.program, &place, |pid| {
            group.complete(&self.cgroup, pid)?;
            group.entries()
        })?;
        let root = private.path.clone();
        drop(private);
        // What CRIU has begun to restore outlives it if it is killed, even before it tells of the first process. From
        // here on there is something that `delete --force` has to find.
        let creating = |pid| {
            let record = self.record(wanted, &group, pid)?;
            home.write(&Record {
                creating: true,
                // CRIU and its helpers are outside.
                own_pid_namespace: false,
                ..record
            })
        };
        creating(criu.pid())?;
        self.make_mount_points(&group)?;

        let mut request = options
            .request(&folders, LOG, &root)
            .switch(6, true)
            .switch(26, true);
        request = with_configuration(request, &self.bundle.spec);
        if let Some(profile) = &wanted.lsm_profile {
            request = request.text(53, profile);
        }
        if let Some(context) = &wanted.lsm_mount_context {
            request = request.text(63, context);
        }
        let request = self.with_namespaces(request, &namespaces)?;
        let request = self.with_streams(self.with_mounts(request, &group)?);
        let request = with_groups(request, criu.pid())?;
        let mut terminal = None;
        let mut limited = false;
        let mut hooked = Hooked {
            plan: self,
            wanted,
            pid: None,
        };
        let on = |moment: Moment<'_>| match (moment.name, moment.descriptor) {
            ("setup-namespaces", _) => {
                creating(moment.pid)?;
                if self.namespaces.makes(CloneFlags::CLONE_NEWNET) {
                    bring_loopback_up(moment.pid)?;
                }
                hooked.run(moment.pid)
            }
            ("pre-resume", _) => {
                limited = true;
                group.limit()
            }
            ("orphan-pts-master", Some(master)) => {
                if let Some(socket) = &self.console {
                    return hand_over(socket, master.as_fd(), "/dev/pts/ptmx");
                }
                terminal = Some(master);
                Ok(())
            }
            _ => Ok(()),
        };
        let pid = criu
            .carry_out(Kind::Restore, &request, on)
            .map_err(|error| self.with_hint(folders.explain(error, LOG), options))?;
        let pidfd = own::pidfd_open(pid).context(|| format!("open process {pid}"))?;
        let newborn = Newborn::new(pid, pidfd);
        if !limited {
            return Err(Error::Refused(
                "this CRIU does not tell before the container runs: its limits could not be set in time"
                    .into(),
            ));
        }
        let record = self.record(wanted, &group, pid)?;
        home.write(&record)?;
        if let Some(path) = &wanted.pid_file {
            write_pid_file(path, pid)?;
        }
        let pidfd = newborn.keep()?;
        hooked.pid = None;
        group.keep();
        home.keep();
        Ok(Restored {
            container: Container::of(wanted.root, record),
            pidfd,
            terminal,
        })
    }

    /// In a user namespace it is the container's root, and not the host's, that reads most images.
    fn with_hint(&self, error: Error, options: &Options) -> Error {
        let text = error.to_string();
        if !self.namespaces.has(CloneFlags::CLONE_NEWUSER) || !text.contains("ermission denied") {
            return error;
        }
        let images = options.images().display();
        Error::Refused(format!("{text} (may the container's root look into {images}?)"))
    }

    /// Makes in the root file system what `create` would make there: mounts need places. All of them are made as for
    /// a new container, in a mount namespace that nobody sees and that ends at once.
    fn make_mount_points(&self, group: &cgroup::Group) -> Result<()> {
        let context = mounts::Context {
            user_namespace: self.namespaces.has(CloneFlags::CLONE_NEWUSER),
            sources: self.mounts.open_sources()?,
            ..cgroup_context(&group.paths())
        };
        let (ours, theirs) = channel::Channel::pair()?;
        let what = || "clone a process that makes mount points".into();
        match clone3(CloneFlags::CLONE_NEWNS.bits(), None).context(what)? {
            Side::Child => {
                let _guard = ExitOnUnwind;
                drop(ours);
                if let Err(error) = self.mounts.build(&context) {
                    let _ = theirs.send(&channel::Message::Failed(error.to_string()));
                }
                own::exit_now(0)
            }
            Side::Parent { pid, pidfd } => {
                drop(theirs);
                let said = ours.receive();
                let exit = Newborn::new(pid, pidfd).wait()?;
                match said? {
                    Some(channel::Message::Failed(text)) => Err(Error::Refused(text)),
                    _ if exit.code() != 0 => Err(Error::Refused(format!(
                        "making mount points in {} ended with status {}",
                        self.bundle.rootfs().display(),
                        exit.code()
                    ))),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Network and PID namespaces of others, which are handed over open, by CRIU's keys.
    fn external_namespaces(&self) -> Result<Vec<(&'static str, File)>> {
        let mut files = Vec::new();
        for (kind, path) in self.namespaces.joined() {
            if let Some((_, key)) = external_namespace(kind) {
                let file = File::open(path).context(|| format!("open namespace {}", path.display()))?;
                files.push((key, file));
            }
        }
        Ok(files)
    }

    /// Those of others: what is not handed over open, CRIU joins by path.
    fn with_namespaces(&self, mut request: Message, open: &[(&str, File)]) -> Result<Message> {
        for (number, (key, _)) in (INHERITED_FROM as u64..).zip(open) {
            request = request.message(27, &Message::default().text(1, key).number(2, number));
        }
        for (kind, path) in self.namespaces.joined() {
            let name = match kind {
                CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID => continue,
                CloneFlags::CLONE_NEWIPC => "ipc",
                CloneFlags::CLONE_NEWUTS => "uts",
                CloneFlags::CLONE_NEWUSER => "user",
                _ => {
                    let text = format!(
                        "CRIU can't restore into the existing namespace {}",
                        path.display()
                    );
                    return Err(Error::Refused(text));
                }
            };
            let join = Message::default().text(1, name).text(2, &path.to_string_lossy());
            request = request.message(39, &join);
        }
        Ok(request)
    }

    fn with_mounts(&self, mut request: Message, group: &cgroup::Group) -> Result<Message> {
        for external in self.mounts.externals()? {
            // CRIU would clone a symbolic link itself, and not the folder that it leads to.
            let source = fs::canonicalize(&external.source)
                .context(|| format!("find {}", external.source.display()))?;
            request = external_mount(request, &external.destination, &source);
        }
        if self.mounts.externally_masked().next().is_some() {
            request = external_mount(request, Path::new("/dev/null"), Path::new("/dev/null"));
        }
        let context = cgroup_context(&group.paths());
        if !context.unified {
            for (name, path) in context.cgroups {
                request = external_mount(request, &Path::new("/sys/fs/cgroup").join(name), &path);
            }
        }
        Ok(request)
    }

    /// Those that somebody else holds; ours stand in for them.
    fn with_streams(&self, mut request: Message) -> Message {
        let external = |name: &str| name.starts_with("pipe:") || name.starts_with("file[");
        for (number, name) in self
            .streams
            .iter()
            .enumerate()
            .take(3)
            .filter(|(_, name)| external(name))
        {
            request = request.message(27, &Message::default().text(1, name).number(2, number as u64));
        }
        request
    }

    fn record(&self, wanted: &Restore<'_>, group: &cgroup::Group, pid: i32) -> Result<Record> {
        let spec = &self.bundle.spec;
        Ok(Record {
            oci_version: spec.version().clone(),
            id: wanted.id.to_string(),
            pid,
            start_time: start_time_of(pid)?.ok_or(Error::Silent)?,
            creating: false,
            bundle: self.bundle.dir.clone(),
            rootfs: self.bundle.rootfs(),
            created: clock::now().rfc3339_nanos(),
            owner: nix::unistd::getuid().as_raw(),
            annotations: spec.annotations().clone().unwrap_or_default(),
            new_keyring: true,
            cgroups: group.paths(),
            own_pid_namespace: self.namespaces.makes(CloneFlags::CLONE_NEWPID),
            restored: true,
        })
    }
}

/// Has what hooks made taken down again when dropped, unless the container lives.
struct Hooked<'a> {
    plan: &'a Plan,
    wanted: &'a Restore<'a>,
    /// Of the container's init, since hooks have begun to run.
    pid: Option<i32>,
}

impl Hooked<'_> {
    fn run(&mut self, pid: i32) -> Result<()> {
        self.pid = Some(pid);
        self.call(hooks::Kind::Prestart, Status::Creating, pid)?;
        self.call(hooks::Kind::CreateRuntime, Status::Creating, pid)
    }

    fn call(&self, kind: hooks::Kind, status: Status, pid: i32) -> Result<()> {
        let bundle = &self.plan.bundle;
        let state = hook_state(&bundle.spec, &self.wanted.id, status, pid, &bundle.dir);
        hooks::run(&bundle.spec, kind, &state)
    }
}

impl Drop for Hooked<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid
            && let Err(error) = self.call(hooks::Kind::Poststop, Status::Stopped, pid)
        {
            log::warn(&error.to_string());
        }
    }
}

/// CRIU leaves a new network namespace empty, but connections over loopback need that before they can be restored.
fn bring_loopback_up(pid: i32) -> Result<()> {
    let open = |path: String| File::open(&path).context(|| format!("open {path}"));
    let (own, theirs) = (
        open("/proc/self/ns/net".into())?,
        open(format!("/proc/{pid}/ns/net"))?,
    );
    let join = |namespace: &File| {
        setns(namespace, CloneFlags::CLONE_NEWNET).context(|| format!("change network namespaces with {pid}"))
    };
    join(&theirs)?;
    let done = loopback_up().context(|| "bring up the loopback device".into());
    join(&own)?;
    done
}

/// The groups that CRIU was put into are those of the container: what was in its groups goes into these.
fn with_groups(mut request: Message, pid: i32) -> Result<Message> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        for controller in controllers.split(',') {
            let root = Message::default().text(1, controller).text(2, group);
            request = request.message(25, &root);
        }
    }
    Ok(request)
}
