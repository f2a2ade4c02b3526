//! A cgroup of cgroup v2 that the user's systemd hands down, in which containers get theirs.
//!
//! ```text
//! user@UID.service
//!   ├─ …/berth-PID-STARTED.scope    with Delegate=yes, named for the holder
//!   │    ├─ processes               the holder and slirp4netns
//!   │    └─ CONTAINER …
//!   └─ …/berth.service              a manager and its shims
//! ```
//!
//! The scope lives as long as the holder, so containers and their limits outlive each manager, and systemd finds no
//! groups below the service that it starts again: it could put no process beside them (cgroup-v2.rst, "No Internal
//! Process Constraint"). A manager that a login session has started goes into `processes` too, since who starts a
//! process in a group needs the right to write to the group above both (cgroup-v2.rst, "Delegation Containment").
//! Each step may be the last before a kill, and is done by the next manager if it is not done.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::unistd::{AccessFlags, access};

use super::record::Record;

const ROOT: &str = "/sys/fs/cgroup";
/// Where those are that are no container's: a group with controllers for others has no processes itself.
const PROCESSES: &str = "processes";
/// systemd answers at once, and does it then.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between SIGTERM and SIGKILL for containers that nobody stops: as long as `stop` leaves them.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// As often processes are moved that may have started others meanwhile.
const ROUNDS: usize = 10;

/// The path, from the hierarchy's root, of the group that is handed down to the namespaces of `record`; it is made if
/// it is not there.
pub(super) fn handed_down(record: &Record) -> anyhow::Result<String> {
    if !Path::new(ROOT).join("cgroup.controllers").exists() {
        bail!("the machine does not have cgroup v2 alone");
    }
    let unit = record.unit();
    let scope = match scope_of(record.holder.pid, &unit)? {
        Some(scope) => scope,
        None => start(record, &unit)?,
    };
    settle(&scope)?;
    for pid in [record.network.pid, std::process::id()] {
        bring(pid, &scope, &unit)?;
    }
    let text = scope.to_str().context("the group's name is not UTF-8")?;
    Ok(text.to_owned())
}

/// `/user.slice/…`.
fn group_of(pid: u32) -> anyhow::Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(PathBuf::from(
        line.with_context(|| format!("{path} tells of no cgroup v2"))?,
    ))
}

fn folder(group: &Path) -> PathBuf {
    Path::new(ROOT).join(group.strip_prefix("/").unwrap_or(group))
}

/// The group of `unit`, if the process is in there.
fn scope_of(pid: u32, unit: &str) -> anyhow::Result<Option<PathBuf>> {
    let group = group_of(pid)?;
    let found = group.ancestors().find(|group| group.ends_with(unit));
    Ok(found.map(Path::to_owned))
}

/// Have systemd make a scope of the holder and slirp4netns.
fn start(record: &Record, unit: &str) -> anyhow::Result<PathBuf> {
    let patience = STOP_TIMEOUT.as_micros().to_string();
    let (holder, network) = (record.holder.pid.to_string(), record.network.pid.to_string());
    let limit = u64::MAX.to_string();
    let description = ["Description", "s", "Containers of Berth"];
    let delegate = ["Delegate", "b", "true"];
    let processes = ["PIDs", "au", "2", &holder, &network];
    // Else all containers together had 15 % of what the machine may have.
    let tasks = ["TasksMax", "t", &limit];
    // At the end of the user's systemd, which is one of the machine too; else it is 90 s.
    let stop = ["TimeoutStopUSec", "t", &patience];
    let forgotten = ["CollectMode", "s", "inactive-or-failed"];
    let mut arguments = vec!["StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", "6"];
    for property in [
        &description[..],
        &delegate[..],
        &processes[..],
        &tasks[..],
        &stop[..],
        &forgotten[..],
    ] {
        arguments.extend(property);
    }
    arguments.push("0");
    ask(&arguments)?;
    let asked = Instant::now();
    loop {
        if let Some(scope) = scope_of(record.holder.pid, unit)? {
            return Ok(scope);
        }
        if asked.elapsed() > PATIENCE {
            bail!("your systemd has not put process {holder} into {unit}: `systemctl --user status {unit}`");
        }
        std::thread::sleep(PAUSE);
    }
}

/// A call of the user's systemd: `org.freedesktop.systemd1(5)`.
fn ask(arguments: &[&str]) -> anyhow::Result<()> {
    const SYSTEMD: [&str; 3] = [
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    ];
    let done = Command::new("busctl")
        .args(["--user", "--timeout=10", "call"])
        .args(SYSTEMD)
        .args(arguments)
        .output()
        .context("run busctl, which asks your systemd for a group")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("your systemd gives no group: {}: {}", arguments[0], said.trim());
    }
    Ok(())
}

/// Move who is in the scope itself out of the containers' way.
fn settle(scope: &Path) -> anyhow::Result<()> {
    let own = folder(scope).join(PROCESSES);
    match fs::create_dir(&own) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("make {}", own.display()));
        }
        _ => {}
    }
    let list = folder(scope).join("cgroup.procs");
    for _ in 0..ROUNDS {
        let text = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
        if text.is_empty() {
            return Ok(());
        }
        for pid in text.lines() {
            put(pid, &own)?;
        }
    }
    bail!("{} does not get empty", scope.display());
}

/// One that has ended is where it should be.
fn put(pid: &str, group: &Path) -> anyhow::Result<()> {
    let file = group.join("cgroup.procs");
    match fs::write(&file, pid) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            Err(error).with_context(|| format!("write {pid} to {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// See that a process can start others in the scope.
fn bring(pid: u32, scope: &Path, unit: &str) -> anyhow::Result<()> {
    let group = group_of(pid)?;
    let above = common(&group, scope);
    if access(&folder(&above).join("cgroup.procs"), AccessFlags::W_OK).is_ok() {
        return Ok(());
    }
    // It is of another part of the tree, a login session: the system's systemd moves it for the user's.
    let within = format!("/{PROCESSES}");
    ask(&[
        "AttachProcessesToUnit",
        "ssau",
        unit,
        &within,
        "1",
        &pid.to_string(),
    ])
}

fn common(one: &Path, other: &Path) -> PathBuf {
    let pairs = one.components().zip(other.components());
    let same = pairs.take_while(|(one, other)| one == other);
    same.map(|(component, _): (Component<'_>, _)| component).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_above_two_is_found() {
        let above = |one: &str, other: &str| common(Path::new(one), Path::new(other));
        assert_eq!(above("/a/b/c", "/a/b/d/e"), Path::new("/a/b"));
        assert_eq!(above("/a", "/b"), Path::new("/"));
        assert_eq!(above("/a/b", "/a/b/c"), Path::new("/a/b"));
    }
}
