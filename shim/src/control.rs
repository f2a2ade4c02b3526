//! The calls that act on a running container: kill, pause, resume, update, checkpoint, pids, stats.

use containerd_shim_protos::events::task::{TaskCheckpointed, TaskPaused, TaskResumed};
use containerd_shim_protos::shim::oci::{CheckpointOptions, ProcessDetails};
use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::topics::{
    TASK_CHECKPOINTED_EVENT_TOPIC, TASK_PAUSED_EVENT_TOPIC, TASK_RESUMED_EVENT_TOPIC,
};
use containerd_shim_protos::types::task::ProcessInfo;
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::empty::Empty;

use crate::daemon::{Effect, Shim, Then};
use crate::runtime::{CallLog, Checkpoint};
use crate::service::no_process;
use crate::start::phase_name;
use crate::status::Status;
use crate::task::{Container, Phase, Reply};
use crate::{stats, sys};

const SIGNAL_MAX: u32 = 64;

impl Shim {
    pub(crate) fn kill(&mut self, reply: Reply, request: &api::KillRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let process = container
            .process(&request.exec_id)
            .ok_or_else(|| no_process(&request.exec_id))?;
        if request.signal > SIGNAL_MAX {
            return Err(Status::invalid_argument(format!(
                "{} is no signal",
                request.signal
            )));
        }
        match process.phase {
            Phase::Ending(_) | Phase::Stopped(_) => {
                return Err(Status::not_found("process already finished"));
            }
            _ if process.pid == 0 => {
                return Err(Status::failed_precondition("process not created"));
            }
            _ => {}
        }
        if !request.exec_id.is_empty() {
            // Our own child and not reaped, so the pid is its.
            sys::kill(process.pid, request.signal).map_err(|error| {
                Status::not_found(format!(
                    "signal {} to process {}: {error}",
                    request.signal, process.pid
                ))
            })?;
            self.answer(reply, &Empty::new());
            return Ok(());
        }
        let log = CallLog::shared(&container.bundle);
        let command = container
            .runtime
            .kill(&request.id, request.signal, request.all, log.path());
        self.verb(reply, &request.id, "kill", command, log, Effect::Killed)
    }

    /// SIGKILL for every process that lives, for a shutdown that does not wait to be empty.
    pub(crate) fn kill_everything(&mut self) {
        self.kill_sandbox();
        for container in self.containers.values() {
            for process in std::iter::once(&container.init).chain(container.execs.values()) {
                if process.is_live() {
                    let _ = sys::kill(process.pid, libc::SIGKILL as u32);
                }
            }
        }
    }

    pub(crate) fn pause(&mut self, reply: Reply, request: &api::PauseRequest) -> Result<(), Status> {
        let container = running(self.container(&request.id)?, &request.id)?;
        let log = CallLog::shared(&container.bundle);
        let command = container.runtime.simple("pause", &request.id, log.path());
        self.verb(reply, &request.id, "pause", command, log, Effect::Paused)
    }

    pub(crate) fn resume(&mut self, reply: Reply, request: &api::ResumeRequest) -> Result<(), Status> {
        let container = running(self.container(&request.id)?, &request.id)?;
        let log = CallLog::shared(&container.bundle);
        let command = container.runtime.simple("resume", &request.id, log.path());
        self.verb(reply, &request.id, "resume", command, log, Effect::Resumed)
    }

    pub(crate) fn update(&mut self, reply: Reply, request: &api::UpdateTaskRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let Some(resources) = request.resources.as_ref() else {
            return Err(Status::invalid_argument("update without resources"));
        };
        if serde_json::from_slice::<serde::de::IgnoredAny>(&resources.value).is_err() {
            return Err(Status::invalid_argument(format!(
                "update with resources of type {:?} that are no JSON",
                resources.type_url
            )));
        }
        let log = CallLog::shared(&container.bundle);
        let command = container
            .runtime
            .update(&request.id, &resources.value, log.path())
            .map_err(|error| Status::unknown(format!("hand resources to the runtime: {error}")))?;
        self.verb(reply, &request.id, "update", command, log, Effect::Updated)
    }

    pub(crate) fn checkpoint(
        &mut self,
        reply: Reply,
        request: &api::CheckpointTaskRequest,
    ) -> Result<(), Status> {
        let container = running(self.container(&request.id)?, &request.id)?;
        let options = match request
            .options
            .as_ref()
            .filter(|options| !options.value.is_empty())
        {
            Some(any) => CheckpointOptions::parse_from_bytes(&any.value).map_err(|error| {
                Status::invalid_argument(format!("checkpoint options do not decode: {error}"))
            })?,
            None => CheckpointOptions::new(),
        };
        let either = |first: &str, second: &str| {
            if first.is_empty() {
                second.to_owned()
            } else {
                first.to_owned()
            }
        };
        let checkpoint = Checkpoint {
            image_path: either(&options.image_path, &request.path),
            work_path: either(&options.work_path, &container.options.criu_work_path),
            exit: options.exit,
            open_tcp: options.open_tcp,
            external_unix_sockets: options.external_unix_sockets,
            terminal: options.terminal,
            file_locks: options.file_locks,
            empty_namespaces: options.empty_namespaces,
            cgroups_mode: options.cgroups_mode,
        };
        if checkpoint.image_path.is_empty() {
            return Err(Status::invalid_argument("checkpoint without a path"));
        }
        let log = CallLog::shared(&container.bundle);
        let command = container.runtime.checkpoint(&request.id, &checkpoint, log.path());
        let effect = Effect::Checkpointed {
            path: checkpoint.image_path,
        };
        self.verb(reply, &request.id, "checkpoint", command, log, effect)
    }

    fn verb(
        &mut self,
        reply: Reply,
        id: &str,
        verb: &'static str,
        command: std::process::Command,
        log: CallLog,
        effect: Effect,
    ) -> Result<(), Status> {
        let then = Then::Answer {
            reply,
            id: id.to_owned(),
            effect,
        };
        self.call(verb, command, false, log, then)
    }

    /// The runtime has done what was asked, or not.
    pub(crate) fn verb_done(&mut self, reply: Reply, id: &str, effect: Effect, result: Result<(), Status>) {
        if let Err(status) = result {
            let status = if effect == Effect::Killed {
                kill_failure(status)
            } else {
                status
            };
            self.answer_error(reply, status);
            return;
        }
        match effect {
            Effect::Killed | Effect::Updated => {}
            Effect::Paused => {
                self.set_paused(id, true);
                let mut event = TaskPaused::new();
                id.clone_into(&mut event.container_id);
                let kind = "containerd.events.TaskPaused";
                self.events
                    .publish(TASK_PAUSED_EVENT_TOPIC, kind, &event, &mut self.reactor);
            }
            Effect::Resumed => {
                self.set_paused(id, false);
                let mut event = TaskResumed::new();
                id.clone_into(&mut event.container_id);
                let kind = "containerd.events.TaskResumed";
                self.events
                    .publish(TASK_RESUMED_EVENT_TOPIC, kind, &event, &mut self.reactor);
            }
            Effect::Checkpointed { path } => {
                let mut event = TaskCheckpointed::new();
                id.clone_into(&mut event.container_id);
                event.checkpoint = path;
                let kind = "containerd.events.TaskCheckpointed";
                self.events
                    .publish(TASK_CHECKPOINTED_EVENT_TOPIC, kind, &event, &mut self.reactor);
            }
        }
        self.answer(reply, &Empty::new());
    }

    fn set_paused(&mut self, id: &str, paused: bool) {
        if let Some(container) = self.containers.get_mut(id) {
            container.paused = paused;
        }
    }

    pub(crate) fn list_pids(&mut self, reply: Reply, request: &api::PidsRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let mut pids = container
            .cgroup
            .as_ref()
            .map(crate::cgroup::Cgroup::pids)
            .unwrap_or_default();
        if pids.is_empty() {
            let processes = std::iter::once(&container.init).chain(container.execs.values());
            pids = processes
                .filter(|process| process.is_live())
                .map(|process| process.pid)
                .collect();
        }
        let mut response = api::PidsResponse::new();
        for pid in pids {
            let mut info = ProcessInfo::new();
            info.pid = pid;
            if let Some((exec, _)) = container.execs.iter().find(|(_, process)| process.pid == pid) {
                let mut details = ProcessDetails::new();
                details.exec_id.clone_from(exec);
                let mut any = Any::new();
                any.type_url = "containerd.runc.v1.ProcessDetails".into();
                any.value = details.write_to_bytes().unwrap_or_default();
                info.info = Some(any).into();
            }
            response.processes.push(info);
        }
        self.answer(reply, &response);
        Ok(())
    }

    pub(crate) fn stats(&mut self, reply: Reply, request: &api::StatsRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let Some(cgroup) = &container.cgroup else {
            return Err(Status::not_found(format!(
                "container {} has no control group",
                request.id
            )));
        };
        let mut response = api::StatsResponse::new();
        response.stats = Some(stats::read(cgroup)).into();
        self.answer(reply, &response);
        Ok(())
    }
}

fn running<'a>(container: &'a Container, id: &str) -> Result<&'a Container, Status> {
    if container.init.phase == Phase::Running {
        return Ok(container);
    }
    Err(Status::failed_precondition(format!(
        "container {id} is not running but {}",
        phase_name(container.init.phase)
    )))
}

/// containerd and its clients look for `NOT_FOUND` when a process ended before the signal came.
fn kill_failure(status: Status) -> Status {
    let gone = [
        "already finished",
        "not running",
        "no such process",
        "does not exist",
    ];
    let text = status.message.to_lowercase();
    if gone.iter().any(|phrase| text.contains(phrase)) {
        Status::not_found(status.message)
    } else {
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_shim_protos::ttrpc::Code;

    #[test]
    fn a_signal_that_comes_too_late_is_not_found() {
        assert_eq!(
            kill_failure(Status::unknown("runtime kill: container not running")).code,
            Code::NOT_FOUND
        );
        assert_eq!(
            kill_failure(Status::unknown("runtime kill: permission denied")).code,
            Code::UNKNOWN
        );
    }
}
