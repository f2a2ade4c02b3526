//! The user and group ids of a new user namespace, written by the runtime for init.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{Linux, LinuxIdMapping};

use crate::error::{Context, Error, Result};

/// Maps the ids of the user namespace that process `pid` was born in.
pub(crate) fn write(pid: i32, linux: &Linux) -> Result<()> {
    let users = linux.uid_mappings().as_deref().unwrap_or_default();
    let groups = linux.gid_mappings().as_deref().unwrap_or_default();
    if geteuid().is_root() {
        write_map(pid, "uid_map", users)?;
        return write_map(pid, "gid_map", groups);
    }
    if is_only(users, geteuid().as_raw()) {
        write_map(pid, "uid_map", users)?;
    } else {
        run_helper("newuidmap", pid, users)?;
    }
    if is_only(groups, getegid().as_raw()) {
        // Without privilege the kernel takes a group map only when groups can't be dropped any more (CVE-2014-8989).
        let path = format!("/proc/{pid}/setgroups");
        fs::write(&path, "deny").context(|| format!("write \"deny\" to {path}"))?;
        write_map(pid, "gid_map", groups)
    } else {
        run_helper("newgidmap", pid, groups)
    }
}

/// Whether the one mapping is that of the caller's own id, which needs no privilege.
fn is_only(maps: &[LinuxIdMapping], own: u32) -> bool {
    matches!(maps, [map] if map.host_id() == own && map.size() == 1)
}

fn write_map(pid: i32, file: &str, maps: &[LinuxIdMapping]) -> Result<()> {
    let mut text = String::new();
    for map in maps {
        let _ = writeln!(text, "{} {} {}", map.container_id(), map.host_id(), map.size());
    }
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, &text).context(|| format!("write {:?} to {path}", text.trim_end()))
}

/// The set-user-id helpers of shadow-utils, which look into /etc/subuid and /etc/subgid.
fn run_helper(program: &str, pid: i32, maps: &[LinuxIdMapping]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for map in maps {
        command.args([map.container_id(), map.host_id(), map.size()].map(|number| number.to_string()));
    }
    let output = command.output().context(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(format!(
        "{program}: {}: {}",
        output.status,
        text.trim()
    )))
}
