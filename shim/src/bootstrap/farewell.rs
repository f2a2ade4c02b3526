//! A shim that lives although its caller has given it up: containerd does so when its call of `start` was the last thing
//! that it did before it was killed, and with a shim that answers too slowly. The shim gives up the container, and ends
//! if it has no other; a sandbox it gives up with all that is in it.

use std::path::Path;
use std::time::{Duration, Instant};

use containerd_shim_protos::sandbox_api::ShutdownSandboxRequest;
use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::ttrpc::Request;
use protobuf::Message;

use crate::service::{SANDBOX, TASK};
use crate::sys;
use crate::ttrpc::{Closed, Connection, Incoming};

/// How long the shim may take for all answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says on which call the shim did not answer.
pub(super) fn bid(socket: &Path, id: &str) -> Result<(), &'static str> {
    let Ok(fd) = sys::connect_unix(socket) else {
        return Ok(());
    };
    let mut connection = Connection::new(fd);
    let end = Instant::now() + PATIENCE;
    let wait = api::WaitRequest {
        id: id.to_owned(),
        ..api::WaitRequest::default()
    };
    let delete = api::DeleteRequest {
        id: id.to_owned(),
        ..api::DeleteRequest::default()
    };
    // Refused for a container's id: it takes no pod away from its other containers.
    let shutdown_sandbox = ShutdownSandboxRequest {
        sandbox_id: id.to_owned(),
        ..ShutdownSandboxRequest::default()
    };
    // Without `now` only an empty shim ends.
    let shutdown = api::ShutdownRequest::new();
    let calls = [
        (TASK[0], "Wait", wait.write_to_bytes()),
        (TASK[0], "Delete", delete.write_to_bytes()),
        (SANDBOX, "ShutdownSandbox", shutdown_sandbox.write_to_bytes()),
        (TASK[0], "Shutdown", shutdown.write_to_bytes()),
    ];
    for (stream, (service, method, payload)) in (1..).step_by(2).zip(calls) {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: payload.unwrap_or_default(),
            ..Request::default()
        };
        match call(&mut connection, stream, &request, end) {
            // It may know nothing of the container, which is as good as giving it up.
            Ok(true) => {}
            Ok(false) => return Err(method),
            // It was on its way out.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Whether an answer came in time.
fn call(connection: &mut Connection, stream: u32, request: &Request, end: Instant) -> Result<bool, Closed> {
    connection.request(stream, request)?;
    while Instant::now() < end {
        sys::wait_readable(&*connection, end.saturating_duration_since(Instant::now()))?;
        for incoming in connection.receive()? {
            if matches!(incoming, Incoming::Response { stream: answered, .. } if answered == stream) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
