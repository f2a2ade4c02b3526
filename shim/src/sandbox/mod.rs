//! The sandbox service, by which containerd's CRI makes a pod in this shim (`sandboxer = "shim"`).
//!
//! A pod is the namespaces, groups and files that its containers share. CRI names the namespaces in each container's
//! configuration as `/proc/PID/ns/…` of the process that `StartSandbox` tells of, so there must be a process that does
//! nothing but live. The runtime makes it as it makes any container, from a configuration of ours: so it is as well
//! locked in as one, and what a dead shim leaves is found and removed the same way.
//!
//! The pod's containers come by the task service. No events are published: CRI waits by `WaitSandbox`.

mod files;
mod life;
pub mod pod;
mod spec;
mod status;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bundle::{self, CONFIG_FILE, EXIT_FILE, INIT_PID_FILE};
use crate::cgroup::Cgroup;
use crate::runtime::{RUNTIME_FILE, Runtime};
use crate::status::Status;
use crate::task::{self, Exit, Phase, Reply};
use crate::{shim_log, sys};
pub(crate) use life::Step;
use pod::Pod;

/// The folder in the sandbox's bundle with a record of each of its containers. containerd before 2.4 calls `delete` for
/// the sandbox of a dead shim alone, and may have removed the containers' bundles by then.
const MEMBERS: &str = "containers";

/// containerd has the bundles of sandboxes in a folder of this name, as `NAMESPACE/ID`: that of its plugin (see
/// plugins/sandbox/controller.go there).
const SANDBOXES: &str = "io.containerd.sandbox.controller.v1.shim";

/// Where the rootfs is of a pod with a user namespace, whose root must be able to reach it: containerd's folder with the
/// bundles of sandboxes is open to its owner alone. CRI draws the ids at random, so two containerds have none in common.
const OPEN_FOLDER: &str = "/run/berth-pods";

/// `NAMESPACE/ID` of a sandbox's bundle, nothing for a container's.
fn name_of(bundle: &Path) -> Option<&Path> {
    let folder = bundle.ancestors().nth(2)?;
    (folder.file_name()? == SANDBOXES).then(|| bundle.strip_prefix(folder).ok())?
}

/// By this `start` tells a sandbox from a container, before anything else is known of either.
pub(crate) fn is_bundle(bundle: &Path) -> bool {
    name_of(bundle).is_some()
}

/// A container of the pod.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub id: String,
    pub bundle: PathBuf,
    pub runtime: Runtime,
}

/// The containers that are on record in a sandbox's bundle.
pub(crate) fn members(bundle: &Path) -> Vec<Member> {
    let entries = fs::read_dir(bundle.join(MEMBERS)).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
        .filter(|member: &Member| task::is_valid_id(&member.id) && task::is_valid_bundle(&member.bundle))
        .collect()
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    id: String,
    bundle: PathBuf,
    runtime: Runtime,
    phase: Phase,
    pid: u32,
    created_at: SystemTime,
    /// The group of the whole pod, where the kubelet named one.
    pod_cgroup: Option<Cgroup>,
    has_cgroup_parent: bool,
    /// Open as long as the runtime may still look it up.
    user_namespace: Option<OwnedFd>,
    /// An end that came while `runtime start` still ran.
    early_exit: Option<Exit>,
    waiters: Vec<Reply>,
    /// Those who stop it and wait until it is.
    stoppers: Vec<Reply>,
    /// Whoever asked for that may be gone by now.
    is_to_stop: bool,
    /// Who shuts it down.
    shutdown: Option<Reply>,
}

impl Sandbox {
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Stopped(_))
    }

    /// Whether `pid` is still that of the sandbox's process, and not perhaps another's since that was reaped.
    fn has_process(&self) -> bool {
        self.pid != 0 && self.is_live() && self.early_exit.is_none()
    }

    /// The sandbox's process, when the sandbox is called that.
    pub(crate) fn pid_of(&self, id: &str) -> Option<u32> {
        (self.id == id).then_some(self.pid)
    }

    pub(crate) fn forget_connection(&mut self, number: u32) {
        for replies in [&mut self.waiters, &mut self.stoppers] {
            replies.retain(|reply| reply.connection != number);
        }
    }

    /// SIGKILL: the process has no other end. One that is still being made is killed when it is there.
    fn kill(&self) {
        if self.has_process()
            && let Err(error) = sys::kill(self.pid, libc::SIGKILL as u32)
        {
            shim_log::warn(format_args!("kill {} of sandbox {}: {error}", self.pid, self.id));
        }
    }

    /// A container comes to the pod: it is on record for a `delete` after a dead shim, and gets the files that all
    /// share.
    pub(crate) fn admit(&self, member: &Member, config: &bundle::Config) -> Result<(), Status> {
        let members = self.bundle.join(MEMBERS);
        fs::create_dir_all(&members)
            .and_then(|()| bundle::write_file(&members, &member.id, &serde_json::to_vec(member)?))
            .map_err(|error| {
                Status::unknown(format!(
                    "record container {} in {}: {error}",
                    member.id,
                    members.display()
                ))
            })?;
        if config.group() == Some(&self.id) {
            files::add_to(&member.bundle, &self.bundle)
        } else {
            Ok(())
        }
    }

    pub(crate) fn dismiss(&self, id: &str) {
        let _ = fs::remove_file(self.bundle.join(MEMBERS).join(id));
    }

    /// Everything on disk that the runtime, the containers and a later `delete` need.
    fn prepare(&self, pod: &Pod, config: &serde_json::Value) -> Result<(), Status> {
        let rootfs = self.rootfs(pod);
        make_rootfs(&rootfs)
            .and_then(|()| {
                let parents = rootfs.ancestors().skip(1);
                // Whatever the umask is.
                parents
                    .take_while(|parent| parent.starts_with(OPEN_FOLDER))
                    .try_for_each(|parent| fs::set_permissions(parent, fs::Permissions::from_mode(0o711)))
            })
            .map_err(|error| Status::unknown(format!("make {}: {error}", rootfs.display())))?;
        // The pid and the exit of an earlier sandbox in this bundle must not be taken for this one's.
        for name in [INIT_PID_FILE, EXIT_FILE] {
            let _ = fs::remove_file(self.bundle.join(name));
        }
        let write = |name: &str, contents: &[u8]| {
            bundle::write_file(&self.bundle, name, contents)
                .map_err(|error| Status::unknown(format!("write {name} in the bundle: {error}")))
        };
        write(CONFIG_FILE, config.to_string().as_bytes())?;
        write(
            RUNTIME_FILE,
            &serde_json::to_vec(&self.runtime).map_err(Status::unknown)?,
        )?;
        files::make(&self.bundle, pod)
    }

    fn rootfs(&self, pod: &Pod) -> PathBuf {
        match name_of(&self.bundle) {
            Some(name) if pod.user_namespace.is_some() => Path::new(OPEN_FOLDER).join(name),
            // Not `rootfs`: containerd removes that one only if it is empty.
            _ => self.bundle.join("pause"),
        }
    }

    /// Takes back what would keep the bundle, which is the caller's, from being removed. What a failed call of the
    /// runtime may have left is for `delete`, to which the caller turns then.
    fn clean_up(&self) {
        if let Err(error) = remove_files(&self.bundle) {
            shim_log::error(format_args!("remove the files of sandbox {}: {error}", self.id));
        }
    }
}

/// What a sandbox has outside its bundle, and mounts in it. A container's bundle has nothing of that.
pub(crate) fn remove_files(bundle: &Path) -> io::Result<()> {
    let Some(name) = name_of(bundle) else {
        return Ok(());
    };
    let rootfs = match fs::remove_dir_all(Path::new(OPEN_FOLDER).join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    files::unmount(bundle).and(rootfs)
}

/// All that is in the rootfs: the root of a user namespace could not make the places of mounts in it.
fn make_rootfs(rootfs: &Path) -> io::Result<()> {
    for folder in ["", "proc", "dev"] {
        let folder = rootfs.join(folder);
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    }
    let program = rootfs.join(spec::PROGRAM);
    fs::write(&program, sys::pause_program())?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o555))
}
