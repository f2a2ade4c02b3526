//! How far a container is kept from the machine, and what it is called.

use std::fmt::Display;
use std::path::PathBuf;

use clap::Args;
use proto::v1::ContainerIsolation;
use serde_json::Value;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct IsolationFlags {
    /// Processes that the container sees: private, host, or those of container:NAME
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pid: String,
    /// System V IPC and shared memory: private, shareable, host, none, or container:NAME
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    ipc: String,
    /// Host name: private or host
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    uts: String,
    /// View of the tree of cgroups: private or host
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    cgroupns: String,
    /// User ids: host, auto (ids that no other container has; auto:size=N), or those of container:NAME; else as the
    /// manager's userns-remap says
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    userns: String,
    /// no-new-privileges, seccomp=FILE (or unconfined, builtin), apparmor=PROFILE, systempaths=unconfined, label=disable (or
    /// user:USER, role:ROLE, type:TYPE, level:LEVEL)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Set a kernel parameter of the container's network or IPC namespace
    #[arg(long, value_name = "NAME=VALUE", value_parser = sysctl)]
    sysctl: Vec<(String, String)>,
    /// One more group of the container's process, by id or name
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
}

impl IsolationFlags {
    pub(crate) fn message(&self) -> Result<ContainerIsolation, Failure> {
        let security_opts = self.security_opt.iter().map(|option| with_profile(option));
        Ok(ContainerIsolation {
            pid: self.pid.clone(),
            ipc: self.ipc.clone(),
            uts: self.uts.clone(),
            cgroup: self.cgroupns.clone(),
            userns: self.userns.clone(),
            security_opts: security_opts.collect::<Result<_, _>>()?,
            sysctls: self.sysctl.iter().cloned().collect(),
            group_add: self.group_add.clone(),
            ..ContainerIsolation::default()
        })
    }
}

/// A security option with its profile in the place of the file's name: the manager may be on another machine.
fn with_profile(option: &str) -> Result<String, Failure> {
    let file = option
        .strip_prefix("seccomp=")
        .or_else(|| option.strip_prefix("seccomp:"));
    let Some(file) = file.filter(|file| !matches!(*file, "" | "unconfined" | "builtin")) else {
        return Ok(option.to_owned());
    };
    let fail = |why: &dyn Display| Failure::new(format!("the seccomp profile {file}: {why}"));
    let text = std::fs::read(file).map_err(|error| fail(&error))?;
    let profile: Value = serde_json::from_slice(&text).map_err(|error| fail(&error))?;
    Ok(format!("seccomp={profile}"))
}

#[derive(Debug, Args)]
pub(crate) struct IdentityFlags {
    /// Domain name of NIS
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) domainname: String,
    /// Set the labels that a file lists, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) label_file: Vec<PathBuf>,
    /// Tell the runtime and its hooks something
    #[arg(long, value_name = "KEY=VALUE", value_parser = annotation)]
    pub(crate) annotation: Vec<(String, String)>,
    /// Write the container's ID into a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Put a small init before the program, which sends signals on to it and takes leave of orphaned processes
    #[arg(long)]
    pub(crate) init: bool,
    /// How long a stop waits before it kills; else 10
    #[arg(long, value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u32>,
}

fn sysctl(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not of the form NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("it has no key".to_owned()),
        (key, value) => Ok((key.to_owned(), value.to_owned())),
    }
}
