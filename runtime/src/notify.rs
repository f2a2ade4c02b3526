//! Hands the descriptor on which seccomp notifies to the listener that config.json names.

use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::hooks::State;
use crate::seccomp::Filter;
use crate::sys::socket;
use crate::terminal;

/// The spec's container process state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State<'a>,
}

/// Sends `fd` to the listener of `filter`.
pub(crate) fn tell_listener(fd: &OwnedFd, filter: Option<&Filter>, state: &State<'_>) -> Result<()> {
    let Some((filter, path)) = filter.and_then(|filter| Some((filter, filter.listener_path()?))) else {
        return Err(Error::spec(
            "linux.seccomp.listenerPath",
            "is required with SCMP_ACT_NOTIFY",
        ));
    };
    let message = ContainerProcessState {
        oci_version: state.oci_version,
        fds: ["seccompFd"],
        pid: state.pid,
        metadata: filter.listener_metadata(),
        state,
    };
    let text = serde_json::to_vec(&message).map_err(|e| Error::Refused(format!("write the state: {e}")))?;
    let listener = terminal::connect(path)?;
    socket::send(&listener, &text, &[fd.as_fd()])
        .context(|| format!("send the seccomp descriptor to {}", path.display()))
}
