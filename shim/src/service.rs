//! Which call goes where, of the task service and the sandbox service. Both names of the task service (v2, and v3 of
//! containerd 2) have the same messages.

use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::ttrpc::Request;
use protobuf::Message;
use protobuf::well_known_types::empty::Empty;

use crate::connections::CALLS_MAX;
use crate::daemon::Shim;
use crate::status::Status;
use crate::task::{Phase, Reply};
use crate::timestamp;

pub(crate) const TASK: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
pub(crate) const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// Carries a call out, or begins to: whoever finishes it answers.
pub(crate) fn dispatch(shim: &mut Shim, reply: Reply, request: &Request) {
    if let Err(status) = route(shim, reply, request) {
        shim.answer_error(reply, status);
    }
}

fn route(shim: &mut Shim, reply: Reply, request: &Request) -> Result<(), Status> {
    match request.service.as_str() {
        SANDBOX => route_sandbox(shim, reply, request),
        service if TASK.contains(&service) => route_task(shim, reply, request),
        service => Err(Status::unimplemented(format!(
            "service {service:?} is not served by this shim"
        ))),
    }
}

fn route_task(shim: &mut Shim, reply: Reply, request: &Request) -> Result<(), Status> {
    let payload = request.payload.as_slice();
    match request.method.as_str() {
        "Create" => shim.create(reply, decode(payload)?),
        "Start" => shim.start(reply, &decode(payload)?),
        "Delete" => shim.delete(reply, &decode(payload)?),
        "Exec" => shim.exec(reply, decode(payload)?),
        "State" => shim.state(reply, &decode(payload)?),
        "Wait" => shim.wait(reply, &decode(payload)?),
        "Kill" => shim.kill(reply, &decode(payload)?),
        "Pids" => shim.list_pids(reply, &decode(payload)?),
        "Pause" => shim.pause(reply, &decode(payload)?),
        "Resume" => shim.resume(reply, &decode(payload)?),
        "Update" => shim.update(reply, &decode(payload)?),
        "Checkpoint" => shim.checkpoint(reply, &decode(payload)?),
        "Stats" => shim.stats(reply, &decode(payload)?),
        "ResizePty" => shim.resize(reply, &decode(payload)?),
        "CloseIO" => shim.close_stdin(reply, &decode(payload)?),
        "Connect" => shim.connect(reply, &decode(payload)?),
        "Shutdown" => {
            shim.shutdown(reply, &decode(payload)?);
            Ok(())
        }
        _ => Err(no_method(request)),
    }
}

fn route_sandbox(shim: &mut Shim, reply: Reply, request: &Request) -> Result<(), Status> {
    let payload = request.payload.as_slice();
    match request.method.as_str() {
        "CreateSandbox" => shim.create_sandbox(reply, &decode(payload)?),
        "StartSandbox" => shim.start_sandbox(reply, &decode(payload)?),
        "Platform" => shim.sandbox_platform(reply, &decode(payload)?),
        "StopSandbox" => shim.stop_sandbox(reply, &decode(payload)?),
        "WaitSandbox" => shim.wait_sandbox(reply, &decode(payload)?),
        "SandboxStatus" => shim.sandbox_status(reply, &decode(payload)?),
        "PingSandbox" => shim.ping_sandbox(reply, &decode(payload)?),
        "ShutdownSandbox" => shim.shutdown_sandbox(reply, &decode(payload)?),
        "SandboxMetrics" => shim.sandbox_metrics(reply, &decode(payload)?),
        _ => Err(no_method(request)),
    }
}

fn no_method(request: &Request) -> Status {
    Status::unimplemented(format!("method {:?} of {}", request.method, request.service))
}

fn decode<M: Message>(payload: &[u8]) -> Result<M, Status> {
    M::parse_from_bytes(payload)
        .map_err(|error| Status::invalid_argument(format!("{} does not decode: {error}", M::NAME)))
}

impl Shim {
    fn state(&mut self, reply: Reply, request: &api::StateRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let process = container
            .process(&request.exec_id)
            .ok_or_else(|| no_process(&request.exec_id))?;
        let mut response = api::StateResponse::new();
        response.id.clone_from(&request.id);
        response.exec_id.clone_from(&request.exec_id);
        response.bundle = container.bundle.display().to_string();
        response.pid = process.pid;
        response.status = container.status(&request.exec_id);
        response.stdin.clone_from(&process.streams.stdin);
        response.stdout.clone_from(&process.streams.stdout);
        response.stderr.clone_from(&process.streams.stderr);
        response.terminal = process.streams.terminal;
        if let Phase::Stopped(exit) = process.phase {
            response.exit_status = exit.status;
            response.exited_at = Some(timestamp::protobuf(exit.at)).into();
        }
        self.answer(reply, &response);
        Ok(())
    }

    fn wait(&mut self, reply: Reply, request: &api::WaitRequest) -> Result<(), Status> {
        let in_flight = self.in_flight(reply);
        let container = self.container_mut(&request.id)?;
        let process = container
            .process_mut(&request.exec_id)
            .ok_or_else(|| no_process(&request.exec_id))?;
        if let Phase::Stopped(exit) = process.phase {
            self.answer(reply, &wait_response(exit));
        } else if in_flight > CALLS_MAX {
            return Err(Status::resource_exhausted(format!(
                "{CALLS_MAX} calls of this connection wait already"
            )));
        } else {
            process.waiters.push(reply);
        }
        Ok(())
    }

    /// After its restart containerd finds out by this whether it still has a shim for a container, or for a sandbox.
    fn connect(&mut self, reply: Reply, request: &api::ConnectRequest) -> Result<(), Status> {
        let sandbox = self
            .sandbox
            .as_ref()
            .and_then(|sandbox| sandbox.pid_of(&request.id));
        let mut response = api::ConnectResponse::new();
        response.shim_pid = std::process::id();
        response.task_pid = match sandbox {
            Some(pid) => pid,
            None => self.container(&request.id)?.init.pid,
        };
        self.answer(reply, &response);
        Ok(())
    }

    /// Without `now` only an empty shim ends (a sandbox has its own shutdown); with it the containers are killed first,
    /// and their exits are told.
    fn shutdown(&mut self, reply: Reply, request: &api::ShutdownRequest) {
        if self.is_empty() {
            // Before the answer: containerd runs `delete` after it, which would find a shim that still listens while
            // the last events are on their way.
            let _ = std::fs::remove_file(&self.config.socket);
        }
        self.answer(reply, &Empty::new());
        if self.is_empty() {
            self.end();
        } else if request.now {
            self.kill_everything();
            self.end();
        }
    }
}

pub(crate) fn wait_response(exit: crate::task::Exit) -> api::WaitResponse {
    let mut response = api::WaitResponse::new();
    response.exit_status = exit.status;
    response.exited_at = Some(timestamp::protobuf(exit.at)).into();
    response
}

pub(crate) fn no_process(exec: &str) -> Status {
    Status::not_found(format!("no process {exec:?} in this container"))
}
