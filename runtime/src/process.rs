//! A process of a container as config.json describes it: checked and turned into what the kernel takes before
//! anything is made, then put on by init or by an `exec`ed process, step by step, up to the last `execve`.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{LinuxPersonalityDomain, PosixRlimitType, Process, Spec};

use crate::capabilities::Capabilities;
use crate::error::{Context, Error, Result};
use crate::procfs::Procfs;
use crate::program;
use crate::scheduling::Scheduling;
use crate::sys::credentials;
use crate::sys::exec::{execute, execute_fd};
use crate::sys::process as own;
use crate::sys::terminal::Size;
use crate::trampoline;
use crate::user;

/// `PER_LINUX32` of personality(2).
const PER_LINUX32: u32 = 0x0008;

/// crun's annotation, which podman sets for `--group-add keep-groups`: the process keeps the groups of who starts it.
/// A user's files and devices are then at hand that only a group of that user can reach.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Everything about one process.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    arguments: Vec<String>,
    environment: Vec<String>,
    working_directory: PathBuf,
    uid: u32,
    gid: u32,
    additional_gids: Vec<u32>,
    keeps_groups: bool,
    umask: Option<u32>,
    pub(crate) capabilities: Capabilities,
    limits: Vec<Limit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    apparmor_profile: Option<String>,
    selinux_label: Option<String>,
    scheduling: Scheduling,
    personality: Option<u32>,
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<Size>,
}

#[derive(Debug)]
struct Limit {
    resource: Resource,
    name: PosixRlimitType,
    soft: u64,
    hard: u64,
}

impl Limit {
    fn set(&self) -> Result<()> {
        own::set_limit(self.resource as u32, self.soft, self.hard)
            .context(|| format!("set {} to {}:{}", self.name, self.soft, self.hard))
    }

    /// Less than what is open while a container is made.
    fn is_few_files(&self) -> bool {
        const ENOUGH: u64 = 64;
        self.resource == Resource::RLIMIT_NOFILE && self.soft < ENOUGH
    }
}

impl ProcessPlan {
    /// Reads `process`, which for `exec` is not the one of `spec`, and what else of `spec` it is subject to.
    pub(crate) fn from_spec(process: &Process, spec: &Spec) -> Result<Self> {
        let personality = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.personality().as_ref());
        let annotations = spec.annotations().as_ref();
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let limits = process.rlimits().as_deref().unwrap_or_default().iter();
        Ok(Self {
            arguments: process.args().clone().unwrap_or_default(),
            environment: each_once(process.env().as_deref().unwrap_or_default()),
            working_directory: process.cwd().clone(),
            uid: process.user().uid(),
            gid: process.user().gid(),
            additional_gids: process.user().additional_gids().clone().unwrap_or_default(),
            keeps_groups: annotations
                .and_then(|all| all.get(KEEP_GROUPS))
                .is_some_and(|value| value == "1"),
            umask: process.user().umask(),
            capabilities: Capabilities::from_spec(process.capabilities().as_ref())?,
            limits: limits
                .map(|limit| Limit {
                    resource: resource(limit.typ()),
                    name: limit.typ(),
                    soft: limit.soft(),
                    hard: limit.hard(),
                })
                .collect(),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            apparmor_profile: text(process.apparmor_profile()),
            selinux_label: text(process.selinux_label()),
            scheduling: Scheduling::from_spec(process)?,
            personality: personality.map(|wanted| match wanted.domain() {
                LinuxPersonalityDomain::PerLinux => 0,
                LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
            }),
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().map(|size| Size {
                rows: size.height() as u16,
                columns: size.width() as u16,
            }),
        })
    }

    /// CPU affinity and memory: what an `exec`ed process gets before and after it has entered the cgroup.
    pub(crate) fn scheduling(&self) -> &Scheduling {
        &self.scheduling
    }

    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    pub(crate) fn working_directory(&self) -> &Path {
        &self.working_directory
    }

    /// Raises the caller's own hard limits where the process is to have higher ones: it is going to inherit them, and
    /// in a user namespace nobody can raise any. It sets its limits itself all the same, once it no longer needs more
    /// than they allow.
    pub(crate) fn raise_limits(&self) -> Result<()> {
        for limit in &self.limits {
            let what = || format!("raise the hard limit of {} to {}", limit.name, limit.hard);
            let (soft, hard) = getrlimit(limit.resource).context(what)?;
            if limit.hard > hard {
                own::set_limit(limit.resource as u32, soft, limit.hard).context(what)?;
            }
        }
        Ok(())
    }

    /// Everything that needs root or must come before the user changes. With `needs_files` it goes on to open some, for
    /// which a limit may be too low: [`Self::limit_files`] sets that.
    pub(crate) fn prepare(&self, needs_files: bool) -> Result<()> {
        if let Some(persona) = self.personality {
            own::set_personality(persona).context(|| format!("set personality {persona:#x}"))?;
        }
        self.scheduling.apply()?;
        self.limits
            .iter()
            .filter(|limit| !needs_files || !limit.is_few_files())
            .try_for_each(Limit::set)
    }

    /// A limit of files that [`Self::prepare`] has left out. Its hard limit is no higher than what we have, so that this
    /// needs no rights.
    pub(crate) fn limit_files(&self) -> Result<()> {
        let mut left_out = self.limits.iter().filter(|limit| limit.is_few_files());
        left_out.try_for_each(Limit::set)
    }

    /// Becomes the root of the user namespace that the caller is in, where a process begins as a user that is not
    /// mapped, or as itself. Where no id 0 is mapped, becomes the user of the program: files and file systems need an
    /// owner that the namespace knows. The capabilities stay, as the kernel takes them only from who was user 0 before.
    pub(crate) fn own_namespace(&self) -> Result<()> {
        let unmapped = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
        self.set_groups(&[])?;
        match credentials::set_gid(0) {
            Err(error) if unmapped(&error) => credentials::set_gid(self.gid)
                .context(|| format!("become group {} of the user namespace", self.gid))?,
            other => other.context(|| "become group 0 of the user namespace".into())?,
        }
        match credentials::set_uid(0) {
            Err(error) if unmapped(&error) => credentials::set_uid(self.uid)
                .context(|| format!("become user {} of the user namespace", self.uid)),
            other => other.context(|| "become user 0 of the user namespace".into()),
        }
    }

    fn set_groups(&self, groups: &[u32]) -> Result<()> {
        if self.keeps_groups {
            return Ok(());
        }
        match credentials::set_groups(groups) {
            // Rootless: groups can't be dropped, which setgroups "deny" says to the container too.
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && groups.is_empty() => Ok(()),
            other => other.context(|| format!("set additional groups {groups:?}")),
        }
    }

    /// Becomes the user, with the capabilities that the user shall have and no others.
    pub(crate) fn become_user(&self) -> Result<()> {
        // With all rights first, as runc does: a container's user may be one whom its cwd does not let in. What fails
        // here is tried once more as the user, and told then.
        if self.working_directory != Path::new("/") {
            let _ = std::env::set_current_dir(&self.working_directory);
        }
        self.capabilities.drop_bounding()?;
        let changes_user = self.uid != 0;
        if changes_user {
            credentials::keep_capabilities(true).context(|| "keep capabilities".into())?;
        }
        self.set_groups(&self.additional_gids)?;
        credentials::set_gid(self.gid).context(|| format!("become group {}", self.gid))?;
        credentials::set_uid(self.uid).context(|| format!("become user {}", self.uid))?;
        if changes_user {
            credentials::keep_capabilities(false).context(|| "keep capabilities no more".into())?;
        }
        // As runc and crun do. That of the caller would show: buildkitd's is 0, and all would write what a step makes.
        own::set_umask(self.umask.unwrap_or(0o022));
        self.capabilities.apply()
    }

    /// Hands the label to the kernel, for the next `execve`. `proc` is a procfs of ours.
    pub(crate) fn label_next_exec(&self, proc: Option<&Procfs>) -> Result<()> {
        // Each with the question that a refusal is answered with: the kernel says only ENOENT or EINVAL.
        let labels = [
            (
                "attr/apparmor/exec",
                self.apparmor_profile.as_ref(),
                "exec ",
                "AppArmor profile",
                "is it loaded?",
            ),
            (
                "attr/exec",
                self.selinux_label.as_ref(),
                "",
                "SELinux label",
                "does the policy know it?",
            ),
        ];
        for (file, label, command, kind, question) in labels {
            let Some(label) = label else { continue };
            let proc = proc.ok_or_else(|| Error::Refused("no procfs to write a label to".into()))?;
            proc.write(&format!("thread-self/{file}"), &format!("{command}{label}"))
                .context(|| format!("give the process {kind} {label:?} ({question})"))?;
        }
        Ok(())
    }

    /// The session keyring gets the label of who uses it: `SELinux` would give it the runtime's, and the container no
    /// access. Cleared by `execve`. `proc` is a procfs of ours.
    pub(crate) fn label_next_keyring(&self, proc: Option<&Procfs>) -> Result<()> {
        let (Some(label), Some(proc)) = (&self.selinux_label, proc) else {
            return Ok(());
        };
        proc.write("thread-self/attr/keycreate", label).context(|| {
            format!("give the session keyring SELinux label {label:?} (does the policy know it?)")
        })
    }

    /// Whether `label_next_exec` has something to do.
    pub(crate) fn has_label(&self) -> bool {
        self.apparmor_profile.is_some() || self.selinux_label.is_some()
    }

    fn enter_working_directory(dir: &Path) -> Result<()> {
        // A directory outside the root (reached through a descriptor that leaked, CVE-2024-21626) has no path:
        // getcwd(3) fails for it.
        let inside = || {
            std::env::current_dir().map_err(|_| {
                Error::Refused(
                    "current working directory is outside of container mount namespace root".into(),
                )
            })
        };
        if inside()? != Path::new("/") {
            return Ok(());
        }
        let what = || format!("chdir to cwd (\"{}\") set in config.json", dir.display());
        std::env::set_current_dir(dir).context(what)?;
        inside().map(drop)
    }

    /// What stands between us and the program. A label is taken by the next program that is executed, so a labelled
    /// process can't have one (`protect` cares for it).
    pub(crate) fn make_trampoline(&self) -> Result<Option<OwnedFd>> {
        if self.has_label() {
            Ok(None)
        } else {
            trampoline::make().map(Some)
        }
    }

    /// Enters the working directory, if `become_user` could not, and finds the program there, as the user.
    pub(crate) fn locate(&self) -> Result<Located> {
        let dir = &self.working_directory;
        // The root is where we are since we entered it.
        if dir != Path::new("/") {
            Self::enter_working_directory(dir)?;
        }
        let mut environment = self.environment.clone();
        // Set to nothing counts as not set.
        environment.retain(|entry| entry != "HOME=");
        if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
            environment.push(format!("HOME={}", user::home_of(self.uid)));
        }
        let path = environment
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or_default();
        let program = program::find(&self.arguments[0], path)?;
        let strings = |list: &[String]| list.iter().map(|text| c_string(text)).collect::<Result<Vec<_>>>();
        Ok(Located {
            program: c_string(&program)?,
            arguments: strings(&self.arguments)?,
            environment: strings(&environment)?,
        })
    }
}

/// A process with nothing left to do but to become its program.
#[derive(Debug)]
pub(crate) struct Located {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Located {
    pub(crate) fn environment(&self) -> Vec<String> {
        let entries = self.environment.iter();
        entries
            .map(|entry| entry.to_string_lossy().into_owned())
            .collect()
    }

    /// Executes the program through the trampoline. Returns only when that fails.
    pub(crate) fn execute(self, stage: Option<&OwnedFd>) -> Error {
        let error = match stage {
            Some(stage) => {
                let arguments = trampoline::arguments(self.program.clone(), self.arguments);
                execute_fd(stage.as_fd(), &arguments, &self.environment)
            }
            None => execute(&self.program, &self.arguments, &self.environment),
        };
        Error::Kernel {
            what: format!("exec {:?}", self.program),
            source: error,
        }
    }
}

/// Sets `oom_score_adj` of a process, which only the runtime's own user namespace may lower.
pub(crate) fn set_oom_score_adj(pid: i32, score: i32) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // Rootless: it may not be lowered, as all runtimes tolerate.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() => Ok(()),
        result => result.context(|| format!("write {score} to {path}")),
    }
}

/// An environment without the entries that a later one of the same name replaces.
fn each_once(environment: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = environment
        .iter()
        .rev()
        .filter(|entry| seen.insert(name(entry)))
        .cloned()
        .collect();
    kept.reverse();
    kept
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Refused(format!("{text:?} contains a NUL character")))
}

fn resource(name: PosixRlimitType) -> Resource {
    match name {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}
