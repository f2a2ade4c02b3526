//! `delete`: takes back everything that a container holds, also what an interrupted `create` left.

use std::io::ErrorKind;
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::bundle;
use crate::cgroup;
use crate::error::{Error, Result};
use crate::hooks::{self, Kind};
use crate::id::Id;
use crate::intel_rdt::{self, IntelRdt};
use crate::log;
use crate::phases;
use crate::state::{Container, Status, forget_unrecorded};

/// How long the kernel may take to end a killed process. Only a process stuck in the kernel takes that long.
const DEATH_TIMEOUT_MS: u16 = 10_000;

/// Deletes a stopped or created container; with `force` one in any state, and one that does not exist.
pub(crate) fn delete(root: &Path, id: &Id, force: bool, cgroups: cgroup::Driver) -> Result<()> {
    let container = match Container::find(root, id) {
        Ok(Some(container)) => container,
        Ok(None) if force => return delete_unrecorded(root, id, cgroups),
        Ok(None) => {
            let text = format!("container {id} is being created; if that was interrupted, use --force");
            return Err(Error::Refused(text));
        }
        Err(Error::NoContainer(_)) if force => return Ok(()),
        Err(error) => return Err(error),
    };
    match container.status()? {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            let text = format!(
                "cannot delete container {id} that is not stopped: {}",
                status.name()
            );
            return Err(Error::Refused(text));
        }
    }
    destroy(&container)
}

/// Kills what lives, then takes everything back.
pub(crate) fn destroy(container: &Container) -> Result<()> {
    if let Some(init) = container.init()? {
        init.signal(libc::SIGKILL)?;
        // A frozen process of cgroup v1 dies only when thawed.
        if container.record.cgroups.is_frozen().unwrap_or(false) {
            container.record.cgroups.thaw()?;
        }
        if !init.wait(DEATH_TIMEOUT_MS)? {
            return Err(Error::Refused(format!(
                "process {} of container {} does not die by SIGKILL",
                container.record.pid, container.record.id
            )));
        }
    }
    let spec = match container.spec() {
        // Who deletes it too (the `run` that it belongs to, perhaps) is ahead of us, and runs the hooks.
        Err(Error::Kernel { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return take_back(container);
        }
        other => other?,
    };
    destroy_reaped(container, &spec)
}

/// As `destroy`, for a container whose init is known to be gone.
pub(crate) fn destroy_reaped(container: &Container, spec: &Spec) -> Result<()> {
    take_back(container)?;
    // Its host may have lost the file system meanwhile, and the group with it.
    if let Ok(groups) = IntelRdt::from_spec(spec.linux().as_ref(), &container.record.id) {
        intel_rdt::give_back(groups.as_ref());
    }
    if let Err(error) = hooks::run(spec, Kind::Poststop, &container.hook_state(Status::Stopped)) {
        // The spec goes on after a failed poststop hook.
        log::warn(&error.to_string());
    }
    Ok(())
}

fn take_back(container: &Container) -> Result<()> {
    let cgroups = &container.record.cgroups;
    if !container.record.own_pid_namespace {
        // Nobody else kills what init left behind.
        cgroups.kill_all(libc::SIGKILL)?;
    }
    cgroups.remove()?;
    phases::reached("runtime.groups-gone");
    container.forget()?;
    phases::reached("runtime.state-gone");
    Ok(())
}

/// `create` was killed before the record was written. Its init is dead or dying (it does not outlive `create` without a
/// record), but its groups may be there, under the names that its configuration gives.
fn delete_unrecorded(root: &Path, id: &Id, cgroups: cgroup::Driver) -> Result<()> {
    let config = root.join(id.as_str()).join("config.json");
    // Without a whole configuration there were no groups yet.
    if let Ok(spec) = bundle::read(&config).and_then(|text| bundle::parse_spec(&text)) {
        let plan = |driver| cgroup::Plan::from_spec(&spec, id.as_str(), driver);
        // A path that systemd can't take was not made by it.
        let plan = match plan(cgroups) {
            Err(_) if cgroups == cgroup::Driver::Systemd => plan(cgroup::Driver::Filesystem)?,
            plan => plan?,
        };
        plan.paths()?.remove_abandoned()?;
    }
    forget_unrecorded(root, id)
}
