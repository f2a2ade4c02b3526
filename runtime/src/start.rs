//! `start`: opens the gate at which a created container's init waits.

use std::path::Path;

use crate::channel::Message;
use crate::delete::destroy;
use crate::error::{Error, Result};
use crate::gate;
use crate::hooks::{self, Kind};
use crate::id::Id;
use crate::log;
use crate::state::{Container, Status};

/// Lets the container's program run, and returns when it does.
pub(crate) fn start(root: &Path, id: &Id) -> Result<()> {
    let container = Container::load(root, id)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return Err(Error::Refused("cannot start a container that has stopped".into())),
        Status::Running => return Err(Error::Refused("cannot start an already running container".into())),
        status => {
            return Err(Error::Refused(format!(
                "cannot start a container in the {} state",
                status.name()
            )));
        }
    }
    let spec = container.spec()?;
    let Some(init) = gate::open(container.dir())? else {
        return Err(Error::Refused("cannot start an already running container".into()));
    };
    // Init's end closes by execve; then the program runs.
    let said = init.receive()?;
    gate::remove(container.dir())?;
    if let Some(Message::Failed(text)) = said {
        return Err(Error::Refused(text));
    }
    let failed = hooks::run(&spec, Kind::Poststart, &container.hook_state(Status::Running));
    if let Err(error) = failed {
        // The spec has the container stopped when a poststart hook fails.
        if let Err(more) = destroy(&container) {
            log::warn(&more.to_string());
        }
        return Err(error);
    }
    Ok(())
}
