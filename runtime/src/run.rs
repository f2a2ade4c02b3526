//! `run`: create, start, wait and delete in one process, without a gate between.

use crate::channel::Message;
use crate::create::{Created, Options, create};
use crate::delete::{destroy, destroy_reaped};
use crate::error::{Context, Error, Result};
use crate::foreground;
use crate::hooks::{self, Kind};
use crate::log;
use crate::phases;
use crate::state::{Container, Status};
use crate::sys::process::{become_subreaper, block_signals};

/// What `run` does beyond `create`.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) detach: bool,
    pub(crate) keep: bool,
    pub(crate) subreaper: bool,
}

/// Runs a container. Returns the exit code of its program, or 0 when detached.
pub(crate) fn run(options: &Options<'_>, after: &After) -> Result<i32> {
    if !after.detach {
        // From here on signals wait until they can be passed on.
        block_signals().context(|| "block signals".into())?;
        if after.subreaper {
            become_subreaper().context(|| "become a subreaper".into())?;
        }
    }
    let Created {
        record,
        spec,
        channel,
        pidfd,
        terminal,
    } = create(options)?;
    let container = Container::of(options.root, record);
    if let Err(error) = start(&container, &spec, &channel) {
        if let Err(more) = destroy(&container) {
            log::warn(&more.to_string());
        }
        return Err(error);
    }
    phases::reached("runtime.exec");
    if after.detach {
        return Ok(0);
    }
    let pid = container.record.pid;
    let exit = match &terminal {
        Some(master) => foreground::follow_terminal(pid, &pidfd, master)?,
        None => foreground::follow(pid, &pidfd)?,
    };
    phases::reached("runtime.ended");
    if !after.keep {
        destroy_reaped(&container, &spec)?;
    }
    // The end of this process closes them.
    std::mem::forget((channel, pidfd));
    Ok(exit.code())
}

fn start(
    container: &Container,
    spec: &oci_spec::runtime::Spec,
    channel: &crate::channel::Channel,
) -> Result<()> {
    // Silence is the sound of execve.
    if let Some(Message::Failed(text)) = channel.receive()? {
        return Err(Error::Refused(text));
    }
    hooks::run(spec, Kind::Poststart, &container.hook_state(Status::Running))
}
