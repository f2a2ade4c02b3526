//! Which namespaces a container gets: new ones, those behind a path, or the caller's where config.json names none.

use std::fmt::Write;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::{Context, Error, Result};

/// A namespace that exists already.
#[derive(Debug)]
struct Existing {
    kind: CloneFlags,
    path: PathBuf,
}

/// The container's namespaces, as config.json wants them.
#[derive(Debug)]
pub(crate) struct Namespaces {
    new: CloneFlags,
    existing: Vec<Existing>,
    /// Lines for `/proc/self/timens_offsets`.
    time_offsets: String,
    /// Devices of the host move into the new network namespace.
    takes_devices: bool,
}

/// `CLONE_NEWTIME`, which lies in the exit signal's bits and is therefore no flag of nix.
pub(crate) const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Time => NEWTIME,
    }
}

impl Namespaces {
    pub(crate) fn from_spec(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let mut plan = Self {
            new: CloneFlags::empty(),
            existing: Vec::new(),
            time_offsets: String::new(),
            takes_devices: linux
                .and_then(|linux| linux.net_devices().as_ref())
                .is_some_and(|devices| !devices.is_empty()),
        };
        let listed = linux
            .and_then(|linux| linux.namespaces().as_deref())
            .unwrap_or_default();
        for (index, namespace) in listed.iter().enumerate() {
            let path = || format!("linux.namespaces[{index}]");
            let kind = flag(namespace.typ());
            if plan.has(kind) {
                return Err(Error::spec(
                    path(),
                    format!("a second namespace of type {:?}", namespace.typ()),
                ));
            }
            match namespace
                .path()
                .as_ref()
                .filter(|path| !path.as_os_str().is_empty())
            {
                None => plan.new |= kind,
                Some(file) if file.is_absolute() => {
                    plan.existing.push(Existing {
                        kind,
                        path: file.clone(),
                    });
                }
                Some(_) => return Err(Error::spec(format!("{}.path", path()), "must be absolute")),
            }
        }
        let offsets = linux.and_then(|linux| linux.time_offsets().as_ref());
        for (clock, offset) in offsets.into_iter().flatten() {
            let path = format!("linux.timeOffsets.{clock}");
            if !plan.new.contains(NEWTIME) {
                return Err(Error::spec(
                    path,
                    "needs a new time namespace in linux.namespaces",
                ));
            }
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(Error::spec(path, "unknown clock (known: monotonic, boottime)"));
            }
            let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            if nanoseconds >= 1_000_000_000 {
                return Err(Error::spec(
                    format!("{path}.nanosecs"),
                    "must be below 1000000000",
                ));
            }
            let _ = writeln!(plan.time_offsets, "{clock} {seconds} {nanoseconds}");
        }
        Ok(plan)
    }

    /// Whether the container has a namespace of this kind that is not the caller's.
    pub(crate) fn has(&self, kind: CloneFlags) -> bool {
        self.new.intersects(kind) || self.existing.iter().any(|existing| existing.kind == kind)
    }

    /// Whether a new namespace of this kind is made.
    pub(crate) fn makes(&self, kind: CloneFlags) -> bool {
        self.new.intersects(kind)
    }

    /// Whether an existing namespace of this kind is joined.
    pub(crate) fn joins(&self, kind: CloneFlags) -> bool {
        self.existing.iter().any(|existing| existing.kind == kind)
    }

    /// The network namespace of process `pid`, which may not have joined it yet.
    pub(crate) fn network_of(&self, pid: i32) -> PathBuf {
        let joined = |existing: &&Existing| existing.kind == CloneFlags::CLONE_NEWNET;
        let joined = self.existing.iter().find(joined);
        joined.map_or_else(
            || format!("/proc/{pid}/ns/net").into(),
            |existing| existing.path.clone(),
        )
    }

    /// Every existing namespace that is joined.
    pub(crate) fn joined(&self) -> impl Iterator<Item = (CloneFlags, &Path)> {
        self.existing
            .iter()
            .map(|existing| (existing.kind, existing.path.as_path()))
    }

    /// Every kind that is not the caller's own.
    pub(crate) fn kinds(&self) -> CloneFlags {
        self.existing
            .iter()
            .fold(self.new, |kinds, existing| kinds | existing.kind)
    }

    /// The flags for clone3. The cgroup namespace comes later, when the process is in its cgroup; the time namespace
    /// before, because its offsets can't be set once a process is inside; the network namespace beside other work.
    pub(crate) fn clone_flags(&self) -> CloneFlags {
        let mut flags = self.new.difference(CloneFlags::CLONE_NEWCGROUP | NEWTIME);
        flags.set(
            CloneFlags::CLONE_NEWNET,
            self.makes(CloneFlags::CLONE_NEWNET) && self.takes_devices,
        );
        flags
    }

    /// Makes the network namespace, unless clone3 has. That takes as long as all cgroups, so it is left to the new
    /// process while the runtime makes those; with devices to move there, the runtime must find it there.
    pub(crate) fn make_network(&self) -> Result<()> {
        let late = self.makes(CloneFlags::CLONE_NEWNET) && !self.takes_devices;
        if late {
            unshare(CloneFlags::CLONE_NEWNET).context(|| "make a network namespace".into())?;
        }
        Ok(())
    }

    /// Whether an intermediate process has to prepare what clone3 alone can't: what is joined must be joined
    /// before a new user namespace takes our rights over it away, and a user namespace that is joined must own
    /// the namespaces that are new.
    pub(crate) fn needs_intermediate(&self) -> bool {
        let joins_user = self.joins(CloneFlags::CLONE_NEWUSER);
        joins_user || !self.existing.is_empty() && self.makes(CloneFlags::CLONE_NEWUSER) || self.joins_pid()
    }

    fn joins_pid(&self) -> bool {
        self.joins(CloneFlags::CLONE_NEWPID)
    }

    /// Opens what is to be joined, so that a missing path is an error before anything is made.
    pub(crate) fn open(&self) -> Result<Vec<Joined>> {
        let open = |existing: &Existing| {
            let file = File::open(&existing.path)
                .context(|| format!("open namespace {}", existing.path.display()))?;
            Ok(Joined {
                kind: existing.kind,
                path: existing.path.clone(),
                fd: file.into(),
            })
        };
        let mut joined: Vec<Joined> = self.existing.iter().map(open).collect::<Result<_>>()?;
        // The user namespace last: joining it can give up the right to join the others. Unless they belong to
        // it, then `join_all` comes back to them.
        joined.sort_by_key(|joined| joined.kind == CloneFlags::CLONE_NEWUSER);
        Ok(joined)
    }

    /// Makes the time namespace for children of the calling process, with its offsets.
    pub(crate) fn prepare_time(&self) -> Result<Option<OwnedFd>> {
        if !self.makes(NEWTIME) {
            return Ok(None);
        }
        let own = File::open("/proc/self/ns/time").context(|| "open the own time namespace".into())?;
        unshare(NEWTIME).context(|| "make a time namespace".into())?;
        if !self.time_offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", &self.time_offsets)
                .context(|| format!("set time offsets {:?}", self.time_offsets.trim()))?;
        }
        Ok(Some(own.into()))
    }

    /// Gives the caller's children its own time namespace again.
    pub(crate) fn leave_time(own: OwnedFd) -> Result<()> {
        setns(own, NEWTIME).context(|| "go back to the own time namespace".into())
    }

    /// Makes the cgroup namespace. The caller is in its cgroups now, which become the namespace's roots.
    pub(crate) fn make_cgroup(&self) -> Result<()> {
        if self.makes(CloneFlags::CLONE_NEWCGROUP) {
            unshare(CloneFlags::CLONE_NEWCGROUP).context(|| "make a cgroup namespace".into())?;
        }
        Ok(())
    }
}

/// An opened namespace that will be joined.
#[derive(Debug)]
pub(crate) struct Joined {
    kind: CloneFlags,
    path: PathBuf,
    fd: OwnedFd,
}

/// Joins every namespace. Some are only allowed before, some only after the user namespace has been joined
/// (those that it owns), so what is refused at first is tried once more at the end.
pub(crate) fn join_all(joined: &[Joined]) -> Result<()> {
    let join = |namespace: &Joined| setns(namespace.fd.as_fd(), namespace.kind);
    let refused: Vec<&Joined> = joined
        .iter()
        .filter(|namespace| join(namespace).is_err())
        .collect();
    for namespace in refused {
        join(namespace).context(|| format!("join namespace {}", namespace.path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(linux: &str) -> Result<Namespaces> {
        Namespaces::from_spec(
            &serde_json::from_str(&format!(r#"{{"ociVersion":"1.0.2","linux":{linux}}}"#)).unwrap(),
        )
    }

    #[test]
    fn a_namespace_twice_is_refused_by_its_place() {
        let error =
            plan(r#"{"namespaces":[{"type":"pid"},{"type":"pid","path":"/proc/1/ns/pid"}]}"#).unwrap_err();
        assert!(error.to_string().contains("linux.namespaces[1]"), "{error}");
    }

    #[test]
    fn a_new_cgroup_namespace_is_not_left_to_clone() {
        let plan = plan(r#"{"namespaces":[{"type":"cgroup"},{"type":"mount"}]}"#).unwrap();
        assert_eq!(plan.clone_flags(), CloneFlags::CLONE_NEWNS);
        assert!(plan.makes(CloneFlags::CLONE_NEWCGROUP));
        assert!(!plan.needs_intermediate());
    }

    #[test]
    fn joining_with_a_new_user_namespace_needs_help() {
        let namespaces = r#"{"namespaces":[{"type":"user"},{"type":"network","path":"/proc/1/ns/net"}]}"#;
        assert!(plan(namespaces).unwrap().needs_intermediate());
        let namespaces = r#"{"namespaces":[{"type":"network","path":"proc"}]}"#;
        assert!(plan(namespaces).is_err());
    }

    #[test]
    fn time_offsets_need_a_time_namespace() {
        assert!(plan(r#"{"timeOffsets":{"boottime":{"secs":1}}}"#).is_err());
        let offsets =
            r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"secs":-5,"nanosecs":7}}}"#;
        assert_eq!(plan(offsets).unwrap().time_offsets, "boottime -5 7\n");
        let offsets = r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"realtime":{"secs":1}}}"#;
        assert!(plan(offsets).is_err());
    }
}
