//! A container's directory below the state root: what is written there, and what it says about the container now.
//!
//! Everything a later command needs is in `state.json` (replaced as a whole, so that a reader sees the old or the
//! new one) and in `config.json`, the copy of the bundle's configuration as it was at create. A container that is
//! created but not started has a socket named `gate` there, on which its init listens.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::cgroup;
use crate::error::{Context, Error, Result};
use crate::gate;
use crate::hooks;
use crate::id::Id;
use crate::mounts;
use crate::sys::fd::{close_later, open};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// The mode of all files here.
const OWNERS: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// What `state.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(rename = "ociVersion")]
    pub(crate) oci_version: String,
    pub(crate) id: String,
    /// Init's pid in the runtime's PID namespace.
    pub(crate) pid: i32,
    /// When init was started, in clock ticks since boot: with the pid it means one process only.
    pub(crate) start_time: u64,
    /// `create` has not finished yet. `run` never takes this back: there it lasts until init executes the program.
    pub(crate) creating: bool,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    /// Uid of who made the container.
    pub(crate) owner: u32,
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) cgroups: cgroup::Paths,
    /// Killing init kills everything in a PID namespace of the container's own.
    pub(crate) own_pid_namespace: bool,
    /// The container has a session keyring, which an `exec`ed process joins.
    pub(crate) new_keyring: bool,
    /// CRIU made its processes, and did so in a time namespace of their own, whatever config.json has.
    #[serde(default)]
    pub(crate) restored: bool,
}

/// The life of a container in the spec's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The directory of a container that is being made. Removed when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    keep: bool,
}

impl Home {
    /// Makes the directory, of which there can be only one.
    pub(crate) fn create(root: &Path, id: &Id) -> Result<Self> {
        let dir = root.join(id.as_str());
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o711);
        let made = match builder.create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o711)
                    .create(root)
                    .context(|| format!("make state root {}", root.display()))?;
                builder.create(&dir)
            }
            other => other,
        };
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Refused(format!(
                    "container with given ID already exists: {id}"
                )));
            }
            other => other.context(|| format!("make state directory {}", dir.display()))?,
        }
        Ok(Self { dir, keep: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Replaces `state.json`.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        write_record(&self.dir, record)
    }

    /// Keeps a copy of the bundle's config.json.
    pub(crate) fn write_config(&self, config: &[u8]) -> Result<()> {
        let path = self.dir.join("config.json");
        let write = || {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mut file = open(&path, flags, OWNERS)?;
            file.write_all(config)?;
            close_later(file.into());
            Ok::<(), io::Error>(())
        };
        write().context(|| format!("write {}", path.display()))
    }

    pub(crate) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.keep {
            let _ = remove_directory(&self.dir);
        }
    }
}

/// Removes a state directory. Only a handful of files can be in it.
fn remove_directory(dir: &Path) -> io::Result<()> {
    let remove = |names: &[&str]| {
        let remove = |name| match fs::remove_file(dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        names.iter().try_for_each(remove)
    };
    // While there is a record, a delete that fails here can be called again.
    mounts::take_back(dir)?;
    remove(&["state.json", "config.json"])?;
    let removed = match fs::remove_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
            remove(&["state.json.new", gate::NAME])?;
            fs::remove_dir(dir)
        }
        other => other,
    };
    match removed {
        // Another delete was faster.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_record(dir: &Path, record: &Record) -> Result<()> {
    let (new, path) = (dir.join("state.json.new"), dir.join("state.json"));
    let text =
        serde_json::to_vec(record).map_err(|e| Error::Refused(format!("state of {}: {e}", record.id)))?;
    let write = || {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let mut file = open(&new, flags, OWNERS)?;
        file.write_all(&text)?;
        close_later(file.into());
        fs::rename(&new, &path)
    };
    write().context(|| format!("write {}", path.display()))
}

/// A container that is on record.
#[derive(Debug)]
pub(crate) struct Container {
    dir: PathBuf,
    pub(crate) record: Record,
}

impl Container {
    /// Reads the record of `id`.
    pub(crate) fn load(root: &Path, id: &Id) -> Result<Self> {
        Self::find(root, id)?
            .ok_or_else(|| Error::Refused(format!("container {id} is being created, or its creation was interrupted (then delete --force removes it)")))
    }

    /// As `load`, but `None` for a directory in which `create` was killed before it wrote anything.
    pub(crate) fn find(root: &Path, id: &Id) -> Result<Option<Self>> {
        let dir = root.join(id.as_str());
        let text = match fs::read(dir.join("state.json")) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if dir.is_dir() {
                    return Ok(None);
                }
                return Err(Error::NoContainer(id.to_string()));
            }
            Err(e) => return Err(e).context(|| format!("read {}", dir.join("state.json").display())),
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|e| Error::Refused(format!("{}: {e}", dir.join("state.json").display())))?;
        Ok(Some(Self { dir, record }))
    }

    /// Every container below `root` that has a record, by id.
    pub(crate) fn all(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).context(|| format!("read {}", root.display())),
        };
        let mut all = Vec::new();
        for entry in entries {
            let name = entry.context(|| format!("read {}", root.display()))?.file_name();
            let Some(id) = name.to_str().and_then(|name| Id::parse(name).ok()) else {
                continue;
            };
            // One may be deleted while we look.
            if let Ok(Some(container)) = Self::find(root, &id) {
                all.push(container);
            }
        }
        all.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(all)
    }

    /// A container that was just made.
    pub(crate) fn of(root: &Path, record: Record) -> Self {
        Self {
            dir: root.join(&record.id),
            record,
        }
    }

    /// What hooks read.
    pub(crate) fn hook_state(&self, status: Status) -> hooks::State<'_> {
        hooks::State {
            oci_version: &self.record.oci_version,
            id: &self.record.id,
            status,
            pid: if status == Status::Stopped {
                0
            } else {
                self.record.pid
            },
            bundle: &self.record.bundle,
            annotations: &self.record.annotations,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration as it was at create.
    pub(crate) fn spec(&self) -> Result<Spec> {
        bundle::parse_spec(&bundle::read(&self.dir.join("config.json"))?)
    }

    /// Init, while it lives.
    pub(crate) fn init(&self) -> Result<Option<Init>> {
        Init::find(self.record.pid, self.record.start_time)
    }

    pub(crate) fn status(&self) -> Result<Status> {
        let init = self.init()?;
        self.status_of(init.as_ref())
    }

    /// The status, when init is known already.
    pub(crate) fn status_of(&self, init: Option<&Init>) -> Result<Status> {
        let Some(init) = init else {
            return Ok(Status::Stopped);
        };
        // CRIU is another program from the start.
        if self.record.creating && (self.record.restored || !init.executed) {
            return Ok(Status::Creating);
        }
        if self.record.cgroups.is_frozen().unwrap_or(false) {
            return Ok(Status::Paused);
        }
        Ok(match gate::look(&self.dir)? {
            gate::Look::Waiting => Status::Created,
            gate::Look::Open => Status::Running,
        })
    }

    /// Removes the record.
    pub(crate) fn forget(&self) -> Result<()> {
        remove_directory(&self.dir).context(|| format!("remove state directory {}", self.dir.display()))
    }
}

/// Removes the directory of a container that never got a record.
pub(crate) fn forget_unrecorded(root: &Path, id: &Id) -> Result<()> {
    let dir = root.join(id.as_str());
    remove_directory(&dir).context(|| format!("remove state directory {}", dir.display()))
}

/// A living init process, held so that its pid can't come to mean another process.
#[derive(Debug)]
pub(crate) struct Init {
    pidfd: OwnedFd,
    /// It is no longer our own code.
    executed: bool,
}

impl Init {
    fn find(pid: i32, start_time: u64) -> Result<Option<Self>> {
        if pid <= 0 {
            return Ok(None);
        }
        let pidfd = match pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(e) => return Err(e).context(|| format!("open process {pid}")),
        };
        // The pidfd is open, so what /proc says of the pid now is about the same process or about a dead one.
        let executed = match stat_of(pid) {
            Ok(Some(stat)) if stat.start_time == start_time => stat.executed,
            _ => return Ok(None),
        };
        let init = Self { pidfd, executed };
        Ok(if init.wait(0)? { None } else { Some(init) })
    }

    /// Sends a signal. `false` when the process is gone.
    pub(crate) fn signal(&self, signal: i32) -> Result<bool> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(e) => Err(e).context(|| format!("send signal {signal}")),
        }
    }

    /// Waits up to `timeout_ms` for its death. Whether it is dead (reaped or not).
    pub(crate) fn wait(&self, timeout_ms: u16) -> Result<bool> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::from(timeout_ms)) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return Ok(other.context(|| "wait for a process to end".into())? > 0),
            }
        }
    }
}

impl AsFd for Init {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Init {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.pidfd.as_raw_fd()
    }
}

/// When a process was started, in clock ticks since boot; `None` when there is no such process.
pub(crate) fn start_time_of(pid: i32) -> Result<Option<u64>> {
    Ok(stat_of(pid)?.map(|stat| stat.start_time))
}

/// What /proc/PID/stat says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    start_time: u64,
    /// It has executed a program since it was forked.
    executed: bool,
}

/// `PF_FORKNOEXEC` of the kernel's task flags.
const FORKED_NOT_EXECUTED: u64 = 0x40;

fn stat_of(pid: i32) -> Result<Option<Stat>> {
    let path = format!("/proc/{pid}/stat");
    // The kernel gives the whole line at once.
    let mut text = [0; 1024];
    let read = |mut file: File| {
        let length = file.read(&mut text);
        close_later(file.into());
        length
    };
    match open(Path::new(&path), OFlag::O_RDONLY, Mode::empty()).and_then(read) {
        Ok(length) => Ok(parse_stat(&text[..length])),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e).context(|| format!("read {path}")),
    }
}

/// Fields 9 and 22 of /proc/PID/stat. The name in field 2 may hold anything, so fields are counted after its last `)`.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let flags: u64 = fields.nth(6)?.parse().ok()?;
    Some(Stat {
        start_time: fields.nth(12)?.parse().ok()?,
        executed: flags & FORKED_NOT_EXECUTED == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let stat = b"7 (a) R 1 (b) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        let mut wanted = Stat {
            start_time: 4242,
            executed: true,
        };
        assert_eq!(parse_stat(stat).as_ref(), Some(&wanted));
        let stat = b"7 (runtime) S 1 7 7 0 -1 1077936192 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        wanted.executed = false;
        assert_eq!(parse_stat(stat), Some(wanted));
        assert_eq!(parse_stat(b"7 (x) S 1"), None);
    }

    #[test]
    fn we_ourselves_live_and_nobody_with_another_start_time_does() {
        let pid = std::process::id() as i32;
        let start = start_time_of(pid).unwrap().unwrap();
        assert!(Init::find(pid, start).unwrap().is_some());
        assert!(Init::find(pid, start + 1).unwrap().is_none());
        assert!(Init::find(0, 0).unwrap().is_none());
    }
}
