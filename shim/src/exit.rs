//! The end of a process: its exit is on disk, its output is drained, and only then it is told.

use std::io;

use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::topics::TASK_EXIT_EVENT_TOPIC;

use crate::bundle::ExitRecord;
use crate::cgroup::Cgroup;
use crate::daemon::{Shim, Then};
use crate::runtime::CallLog;
use crate::service::wait_response;
use crate::status::Status;
use crate::task::{Exit, Phase, ProcessKey};
use crate::{failpoint, shim_log, timestamp};

impl Shim {
    /// A process of ours was reaped.
    pub(crate) fn process_ended(&mut self, key: &ProcessKey, exit: Exit) {
        failpoint::reach("exit.reaped");
        self.record_exit(key, exit);
        failpoint::reach("exit.recorded");
        match self.process_mut(key) {
            // Its start is told first.
            Some(process) if process.phase == Phase::Starting => process.early_exit = Some(exit),
            _ => self.end_process(key, exit),
        }
    }

    /// Goes on with an end that is on disk.
    pub(crate) fn end_process(&mut self, key: &ProcessKey, exit: Exit) {
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        let private_pids = container.private_pids;
        let Some(process) = container.process_mut(&key.exec) else {
            return;
        };
        process.phase = Phase::Ending(exit);
        if key.is_init() && !private_pids {
            self.kill_survivors(&key.container);
        } else {
            self.tell_exit(key, exit);
        }
    }

    /// Without a pid namespace of its own, a container's other processes do not end with its init.
    fn kill_survivors(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let log = CallLog::shared(&container.bundle);
        let command = container.runtime.kill(id, libc::SIGKILL as u32, true, log.path());
        let then = Then::SurvivorsKilled { id: id.to_owned() };
        if let Err(status) = self.call("kill", command, false, log, then) {
            self.survivors_killed(id, Err(status));
        }
    }

    pub(crate) fn survivors_killed(&mut self, id: &str, result: Result<(), Status>) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        if let Err(status) = result {
            // Some runtimes refuse to signal a container whose init is gone. Its group still lists who is left.
            shim_log::debug(format_args!("container {id}: {status}"));
            container.cgroup.iter().for_each(Cgroup::kill_all);
        }
        if let Phase::Ending(exit) = container.init.phase {
            self.tell_exit(&ProcessKey::init(id), exit);
        }
    }

    fn tell_exit(&mut self, key: &ProcessKey, exit: Exit) {
        let Some(process) = self.process_mut(key) else {
            return;
        };
        let outputs = process.stdio.outputs.clone();
        let pid = process.pid;
        for number in outputs {
            self.pumps.drain(number, &self.reactor);
        }
        self.await_readers();
        let Some(process) = self.process_mut(key) else {
            return;
        };
        process.phase = Phase::Stopped(exit);
        let response = wait_response(exit);
        for waiter in std::mem::take(&mut process.waiters) {
            self.answer(waiter, &response);
        }
        let mut event = TaskExit::new();
        event.container_id.clone_from(&key.container);
        key.id().clone_into(&mut event.id);
        event.pid = pid;
        event.exit_status = exit.status;
        event.exited_at = Some(timestamp::protobuf(exit.at)).into();
        self.events.publish(
            TASK_EXIT_EVENT_TOPIC,
            "containerd.events.TaskExit",
            &event,
            &mut self.reactor,
        );
        failpoint::reach("exit.told");
        self.exit_was_told(key);
    }

    /// Writes the exit into the bundle, as soon as it is known: a shim that is killed from here on loses it no more.
    fn record_exit(&mut self, key: &ProcessKey, exit: Exit) {
        if key.is_init() {
            self.tell_memory_kills(&key.container);
        }
        let Some(container) = self.containers.get(&key.container) else {
            return;
        };
        let Some(process) = container.process(&key.exec) else {
            return;
        };
        let oom_killed = key.is_init() && container.out_of_memory.told;
        let record = ExitRecord::new(key.id(), process.pid, exit, oom_killed);
        let written = if key.is_init() {
            record.write(&container.bundle)
        } else {
            record.write_for_exec(&container.bundle)
        };
        complain_unless_recorded(&record, written);
    }
}

/// A disk that refuses an exit must not keep it from being told, but it is a grave matter.
pub(crate) fn complain_unless_recorded(record: &ExitRecord, written: io::Result<()>) {
    if let Err(error) = written {
        shim_log::error(format_args!(
            "process {}: exit status {} is not on disk: {error}",
            record.id, record.exit_status
        ));
    }
}
