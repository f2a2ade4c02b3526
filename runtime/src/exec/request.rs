//! Which process an `exec` wants: config.json's with the changes of the command line, or that of a file.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};

use crate::bundle;
use crate::capabilities;
use crate::error::{Error, Result};
use crate::process::ProcessPlan;
use crate::validate;

/// What the command line asks for.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// A file with the whole process, or the changes below to that of config.json.
    pub(crate) process: Option<PathBuf>,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) working_directory: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) additional_gids: Vec<String>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) terminal: bool,
    pub(crate) selinux_label: Option<String>,
    pub(crate) apparmor_profile: Option<String>,
    pub(crate) cgroups: Vec<String>,
    pub(crate) detach: bool,
    pub(crate) ignore_paused: bool,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
}

/// What config.json says of its process, changed by the command line; or what a file says.
pub(super) fn wanted_process(spec: &Spec, request: &Request) -> Result<Process> {
    let process = match &request.process {
        Some(path) => bundle::read_process(path).map_err(|error| of_file(path, error))?,
        None => changed_process(spec, request)?,
    };
    validate::process(&process).map_err(|error| match &request.process {
        Some(path) => of_file(path, error),
        None => error,
    })?;
    Ok(process)
}

/// The file's name in place of config.json's.
fn of_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Spec { path: field, rule } => Error::Refused(format!("{}: {field}: {rule}", path.display())),
        other => other,
    }
}

fn changed_process(spec: &Spec, request: &Request) -> Result<Process> {
    if request.arguments.is_empty() {
        return Err(Error::Refused("exec needs a program to run, or --process".into()));
    }
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| Error::spec("process", "is required"))?;
    process.set_args(Some(request.arguments.clone()));
    process.set_terminal(Some(request.terminal));
    if let Some(dir) = &request.working_directory {
        process.set_cwd(dir.clone());
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(request.environment.iter().cloned());
    process.set_env(Some(environment));
    if request.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if request.selinux_label.is_some() {
        process.set_selinux_label(request.selinux_label.clone());
    }
    if request.apparmor_profile.is_some() {
        process.set_apparmor_profile(request.apparmor_profile.clone());
    }
    let mut user = process.user().clone();
    if let Some(text) = &request.user {
        let (uid, gid) = parse_user(text)?;
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !request.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        for text in &request.additional_gids {
            let wrong = |_| Error::Refused(format!("--additional-gids {text}: not a number"));
            groups.push(text.parse().map_err(wrong)?);
        }
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(process)
}

/// `UID` or `UID:GID`.
fn parse_user(text: &str) -> Result<(u32, Option<u32>)> {
    let wrong = |_| Error::Refused(format!("--user {text}: must be UID or UID:GID"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((uid.parse().map_err(wrong)?, Some(gid.parse().map_err(wrong)?))),
        None => Ok((text.parse().map_err(wrong)?, None)),
    }
}

pub(super) fn check_terminal(plan: &ProcessPlan, request: &Request) -> Result<()> {
    let text = match (plan.terminal, &request.console_socket, request.detach) {
        (true, None, true) => "cannot allocate tty if the runtime will detach without setting console socket",
        (false, Some(_), _) | (true, Some(_), false) => {
            "cannot use console socket if the runtime will not detach or allocate tty"
        }
        _ => return Ok(()),
    };
    Err(Error::Refused(text.into()))
}

/// Whether the container's processes have the right to look into others of their PID namespace.
pub(super) fn may_trace(spec: &Spec) -> Result<bool> {
    let sets = spec
        .process()
        .as_ref()
        .and_then(|process| process.capabilities().as_ref());
    let sets = capabilities::Capabilities::from_spec(sets)?;
    Ok((sets.bounding | sets.permitted) & capabilities::SYS_PTRACE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("5").unwrap(), (5, None));
        assert_eq!(parse_user("5:6").unwrap(), (5, Some(6)));
        for bad in ["", "root", "5:", ":6", "-1"] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_changes_the_configured_process() {
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":1,"gid":2},"cwd":"/","args":["a"],"env":["A=1"]}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        let request = Request {
            arguments: vec!["b".into(), "c".into()],
            environment: vec!["B=2".into()],
            user: Some("7".into()),
            ..Request::default()
        };
        let process = wanted_process(&spec, &request).unwrap();
        assert_eq!(process.args().as_deref().unwrap(), ["b", "c"]);
        assert_eq!(process.env().as_deref().unwrap(), ["A=1", "B=2"]);
        assert_eq!((process.user().uid(), process.user().gid()), (7, 2));
    }
}
