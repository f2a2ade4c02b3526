//! Delete: what remains of an ended process is taken away, and its exit told once more.
//!
//! Output that its reader has not taken is not thrown away at once: a delete waits for the reader, up to a limit, as
//! containerd's shim does.

use std::time::Duration;

use containerd_shim_protos::events::task::TaskDelete;
use containerd_shim_protos::shim::shim::{DeleteRequest, DeleteResponse};
use containerd_shim_protos::topics::TASK_DELETE_EVENT_TOPIC;

use crate::daemon::{Shim, Then};
use crate::reactor::Deadline;
use crate::runtime::CallLog;
use crate::service::no_process;
use crate::start::phase_name;
use crate::status::Status;
use crate::task::{Exit, Phase, ProcessKey, Reply};
use crate::{bundle, failpoint, shim_log, sys, timestamp};

/// How long a delete waits for the reader of the remaining output.
const READER: Duration = Duration::from_secs(10);

/// The end of what never ran.
const NEVER: Exit = Exit {
    status: 0,
    at: std::time::UNIX_EPOCH,
};

impl Shim {
    pub(crate) fn delete(&mut self, reply: Reply, request: &DeleteRequest) -> Result<(), Status> {
        let key = ProcessKey::new(&request.id, &request.exec_id);
        let container = self.container_mut(&request.id)?;
        let deleting = container.deleting;
        let unrestored = key.is_init() && container.is_unrestored();
        let process = container
            .process_mut(&request.exec_id)
            .ok_or_else(|| no_process(&request.exec_id))?;
        if deleting || process.pending_delete.is_some() {
            return Err(Status::failed_precondition(format!(
                "{} is being deleted already",
                key.id()
            )));
        }
        match process.phase {
            Phase::Stopped(_) => {
                process.pending_delete = Some(reply);
                self.exit_was_told(&key);
            }
            Phase::Created if unrestored => {
                process.phase = Phase::Stopped(NEVER);
                process.pending_delete = Some(reply);
                self.delete_now(&key);
            }
            Phase::Created if key.is_init() => {
                // It waits for a start that never comes. Its end continues here.
                process.pending_delete = Some(reply);
                let pid = process.pid;
                if let Err(error) = sys::kill(pid, libc::SIGKILL as u32) {
                    shim_log::warn(format_args!("kill {pid} of {}: {error}", key.id()));
                }
            }
            Phase::Created => {
                self.exec_deleted(reply, &key, NEVER);
            }
            phase => {
                return Err(Status::failed_precondition(format!(
                    "{} is {} and must be stopped before it is deleted",
                    key.id(),
                    phase_name(phase)
                )));
            }
        }
        Ok(())
    }

    /// A process is stopped, and everyone was told. Goes on with a delete that waited for it.
    pub(crate) fn exit_was_told(&mut self, key: &ProcessKey) {
        let Some(process) = self.process_mut(key) else {
            return;
        };
        if process.pending_delete.is_none() {
            return;
        }
        let outputs = process.stdio.outputs.clone();
        if self.pumps.have_unread(&outputs) {
            self.reactor.after(READER, Deadline::Delete(key.clone()));
        } else {
            self.delete_now(key);
        }
    }

    /// Some reader took output: deletes that waited for it may go on.
    pub(crate) fn continue_deletes(&mut self) {
        let mut free = Vec::new();
        for (id, container) in &self.containers {
            let execs = container
                .execs
                .iter()
                .map(|(exec, process)| (exec.as_str(), process));
            for (exec, process) in std::iter::once(("", &container.init)).chain(execs) {
                if process.pending_delete.is_some()
                    && matches!(process.phase, Phase::Stopped(_))
                    && !container.deleting
                    && !self.pumps.have_unread(&process.stdio.outputs)
                {
                    free.push(ProcessKey::new(id, exec));
                }
            }
        }
        for key in free {
            self.reactor.cancel(&Deadline::Delete(key.clone()));
            self.delete_now(&key);
        }
    }

    pub(crate) fn delete_now(&mut self, key: &ProcessKey) {
        let Some(process) = self.process_mut(key) else {
            return;
        };
        let Phase::Stopped(exit) = process.phase else {
            return;
        };
        let Some(reply) = process.pending_delete.take() else {
            return;
        };
        if !key.is_init() {
            self.exec_deleted(reply, key, exit);
            return;
        }
        let stdio = std::mem::take(&mut process.stdio);
        self.close_stdio(&stdio);
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        container.deleting = true;
        let log = CallLog::shared(&container.bundle);
        // Forced: the process is gone, and what the runtime thinks of its state must not keep the remains here.
        let command = container.runtime.delete(&key.container, true, log.path());
        let then = Then::Deleted {
            reply,
            id: key.container.clone(),
        };
        if let Err(status) = self.call("delete", command, false, log, then) {
            self.deleted(reply, &key.container, Err(status));
        }
        failpoint::reach("delete.called");
    }

    fn exec_deleted(&mut self, reply: Reply, key: &ProcessKey, exit: Exit) {
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        let Some(process) = container.execs.remove(&key.exec) else {
            return;
        };
        bundle::forget_exec_exit(&container.bundle, &key.exec);
        for waiter in process.waiters {
            self.answer_error(
                waiter,
                Status::not_found(format!("process {} was deleted unstarted", key.exec)),
            );
        }
        self.close_stdio(&process.stdio);
        self.answer(reply, &delete_response(process.pid, exit));
    }

    /// `runtime delete` has ended.
    pub(crate) fn deleted(&mut self, reply: Reply, id: &str, result: Result<(), Status>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.deleting = false;
        failpoint::reach("delete.made");
        let pid = container.init.pid;
        let Phase::Stopped(exit) = container.init.phase else {
            return;
        };
        if let Err(status) = result {
            self.answer_error(reply, status);
            return;
        }
        container.in_runtime = false;
        self.forget_container(id);
        let mut event = TaskDelete::new();
        id.clone_into(&mut event.container_id);
        event.pid = pid;
        event.exit_status = exit.status;
        event.exited_at = Some(timestamp::protobuf(exit.at)).into();
        self.events.publish(
            TASK_DELETE_EVENT_TOPIC,
            "containerd.events.TaskDelete",
            &event,
            &mut self.reactor,
        );
        self.answer(reply, &delete_response(pid, exit));
        failpoint::reach("delete.told");
        self.end_if_forsaken(reply);
    }
}

pub(crate) fn delete_response(pid: u32, exit: Exit) -> DeleteResponse {
    let mut response = DeleteResponse::new();
    response.pid = pid;
    response.exit_status = exit.status;
    response.exited_at = Some(timestamp::protobuf(exit.at)).into();
    response
}
