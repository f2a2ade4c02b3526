//! What the shim knows of a container and of the processes in it. Plain data: who changes it and when is told in
//! `create`, `start`, `exit` and `delete`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim_protos::types::mount::Mount;
use containerd_shim_protos::types::task::Status as TaskStatus;
use protobuf::EnumOrUnknown;

use crate::cgroup::Cgroup;
use crate::mounts;
use crate::options::Options;
use crate::out_of_memory::OutOfMemory;
use crate::runtime::Runtime;
use crate::stdio::Stdio;

/// Names a process: a container's init has an empty exec id, as in containerd's requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    pub container: String,
    pub exec: String,
}

impl ProcessKey {
    pub fn init(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: String::new(),
        }
    }

    pub fn new(container: &str, exec: &str) -> Self {
        Self {
            container: container.to_owned(),
            exec: exec.to_owned(),
        }
    }

    pub fn is_init(&self) -> bool {
        self.exec.is_empty()
    }

    /// The id that events carry: the exec id, or the container's for init.
    pub fn id(&self) -> &str {
        if self.is_init() {
            &self.container
        } else {
            &self.exec
        }
    }
}

/// A call that is still to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reply {
    pub connection: u32,
    pub stream: u32,
}

/// How and when a process ended. The status is the exit code, or 128 + the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    pub status: u32,
    pub at: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `runtime create` runs. No exec is in this phase.
    Creating,
    /// Init waits for its start; an exec was announced, and nothing of it runs.
    Created,
    /// `runtime start` or `runtime exec` runs.
    Starting,
    Running,
    /// It ended, and what must happen before that is told is still happening.
    Ending(Exit),
    Stopped(Exit),
}

/// The streams as the client named them, given back in State and in events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamNames {
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub pid: u32,
    pub phase: Phase,
    pub streams: StreamNames,
    pub stdio: Stdio,
    pub waiters: Vec<Reply>,
    /// An end that came while `runtime start` still ran; it is told after the start was.
    pub early_exit: Option<Exit>,
    /// A delete that waits for the process to end or for its output to be read.
    pub pending_delete: Option<Reply>,
    /// `CloseIO` was called, perhaps before the streams were open.
    pub stdin_closed: bool,
    /// The OCI process of an exec, as JSON.
    pub spec: Vec<u8>,
}

impl Process {
    pub(crate) fn new(streams: StreamNames, phase: Phase) -> Self {
        Self {
            pid: 0,
            phase,
            streams,
            stdio: Stdio::default(),
            waiters: Vec::new(),
            early_exit: None,
            pending_delete: None,
            stdin_closed: false,
            spec: Vec::new(),
        }
    }

    /// Whether its pid is its own: it was not reaped.
    pub(crate) fn is_live(&self) -> bool {
        self.pid != 0
            && self.early_exit.is_none()
            && matches!(self.phase, Phase::Created | Phase::Starting | Phase::Running)
    }
}

#[derive(Debug)]
pub(crate) struct Container {
    /// A short number for epoll tokens.
    pub number: u32,
    pub bundle: PathBuf,
    pub runtime: Runtime,
    pub options: Options,
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    pub paused: bool,
    /// Whether rootfs was mounted by us.
    pub mounted: bool,
    /// It is no longer needed there when the container is created.
    pub lets_root_go: bool,
    /// Whether all processes end with init (its pid namespace is its own).
    pub private_pids: bool,
    pub cgroup: Option<Cgroup>,
    pub out_of_memory: OutOfMemory,
    /// `runtime delete` runs.
    pub deleting: bool,
    /// The runtime has something of it, or may have.
    pub in_runtime: bool,
    /// The mounts as they were asked for, for the event that tells of the creation.
    pub created_rootfs: Vec<Mount>,
    /// The images that its start restores it from.
    pub checkpoint: Option<PathBuf>,
}

impl Container {
    /// It was created from a checkpoint, and its processes are yet to be restored.
    pub(crate) fn is_unrestored(&self) -> bool {
        self.checkpoint.is_some() && self.init.pid == 0 && self.init.phase == Phase::Created
    }

    pub(crate) fn process(&self, exec: &str) -> Option<&Process> {
        if exec.is_empty() {
            Some(&self.init)
        } else {
            self.execs.get(exec)
        }
    }

    pub(crate) fn process_mut(&mut self, exec: &str) -> Option<&mut Process> {
        if exec.is_empty() {
            Some(&mut self.init)
        } else {
            self.execs.get_mut(exec)
        }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join(mounts::ROOTFS)
    }

    /// The state that clients see of a process.
    pub(crate) fn status(&self, exec: &str) -> EnumOrUnknown<TaskStatus> {
        let Some(process) = self.process(exec) else {
            return TaskStatus::UNKNOWN.into();
        };
        match process.phase {
            Phase::Creating => TaskStatus::UNKNOWN,
            Phase::Created | Phase::Starting => TaskStatus::CREATED,
            Phase::Running | Phase::Ending(_) if exec.is_empty() && self.paused => TaskStatus::PAUSED,
            Phase::Running | Phase::Ending(_) => TaskStatus::RUNNING,
            Phase::Stopped(_) => TaskStatus::STOPPED,
        }
        .into()
    }
}

/// Ids become file names and command line arguments, so they may hold nothing that means something there.
pub(crate) fn is_valid_id(id: &str) -> bool {
    const ID_BYTES_MAX: usize = 128;
    !id.is_empty()
        && id.len() <= ID_BYTES_MAX
        && id.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

/// A bundle must be an absolute path without steps upwards.
pub(crate) fn is_valid_bundle(bundle: &Path) -> bool {
    bundle.is_absolute()
        && bundle
            .components()
            .all(|part| part != std::path::Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_paths_or_flags_are_refused() {
        for good in ["a", "0f3", "web-1.2_x", "_a"] {
            assert!(is_valid_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-rf", "a b", "a\0", &"x".repeat(129)] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
