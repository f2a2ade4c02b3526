//! `pause` and `resume`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::id::Id;
use crate::state::{Container, Status};

/// Freezes all processes of a container.
pub(crate) fn pause(root: &Path, id: &Id) -> Result<()> {
    let container = Container::load(root, id)?;
    match container.status()? {
        Status::Running | Status::Created => container.record.cgroups.freeze(),
        status => Err(Error::Refused(format!(
            "cannot pause: container not running or created: {}",
            status.name()
        ))),
    }
}

/// Thaws them.
pub(crate) fn resume(root: &Path, id: &Id) -> Result<()> {
    let container = Container::load(root, id)?;
    match container.status()? {
        Status::Paused => container.record.cgroups.thaw(),
        status => Err(Error::Refused(format!(
            "cannot resume: container not paused: {}",
            status.name()
        ))),
    }
}
