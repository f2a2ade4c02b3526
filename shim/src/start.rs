//! Start: of a container's init, and of further processes in it (Exec announces one, Start makes it).

use std::path::PathBuf;

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted, TaskStart};
use containerd_shim_protos::shim::shim as api;
use containerd_shim_protos::topics::{
    TASK_EXEC_ADDED_EVENT_TOPIC, TASK_EXEC_STARTED_EVENT_TOPIC, TASK_START_EVENT_TOPIC,
};
use protobuf::well_known_types::empty::Empty;

use crate::create::no_pid;
use crate::daemon::{Making, Pending, Shim, Then};
use crate::runtime::{CallLog, Exec};
use crate::service::no_process;
use crate::status::Status;
use crate::stdio::{Console, Prepared};
use crate::task::{self, Phase, Process, ProcessKey, Reply, StreamNames};
use crate::{bundle, failpoint, sys};

impl Shim {
    pub(crate) fn start(&mut self, reply: Reply, request: &api::StartRequest) -> Result<(), Status> {
        if request.exec_id.is_empty() {
            self.start_init(reply, &request.id)
        } else {
            self.start_exec(reply, &ProcessKey::new(&request.id, &request.exec_id))
        }
    }

    fn start_init(&mut self, reply: Reply, id: &str) -> Result<(), Status> {
        let container = self.container_mut(id)?;
        if container.init.phase != Phase::Created {
            return Err(Status::failed_precondition(format!(
                "container {id} is not created but {}",
                phase_name(container.init.phase)
            )));
        }
        if container.is_unrestored() {
            return self.start_from_checkpoint(reply, id);
        }
        let log = CallLog::shared(&container.bundle);
        let command = container.runtime.simple("start", id, log.path());
        container.init.phase = Phase::Starting;
        self.call(
            "start",
            command,
            false,
            log,
            Then::Started {
                reply,
                id: id.to_owned(),
            },
        )
        .inspect_err(|_| {
            if let Some(container) = self.containers.get_mut(id) {
                container.init.phase = Phase::Created;
            }
        })?;
        failpoint::reach("start.called");
        Ok(())
    }

    /// `runtime start` has ended; the process may have, too.
    pub(crate) fn started(&mut self, reply: Reply, id: &str, result: Result<(), Status>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        failpoint::reach("start.made");
        match result {
            Ok(()) => self.tell_started(reply, id),
            Err(status) => {
                container.init.phase = Phase::Created;
                self.answer_error(reply, status);
            }
        }
        let key = ProcessKey::init(id);
        let early = self
            .containers
            .get_mut(id)
            .and_then(|container| container.init.early_exit.take());
        if let Some(exit) = early {
            self.end_process(&key, exit);
        }
    }

    pub(crate) fn tell_started(&mut self, reply: Reply, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.init.phase = Phase::Running;
        let mut event = TaskStart::new();
        id.clone_into(&mut event.container_id);
        event.pid = container.init.pid;
        let mut response = api::StartResponse::new();
        response.pid = container.init.pid;
        self.events.publish(
            TASK_START_EVENT_TOPIC,
            "containerd.events.TaskStart",
            &event,
            &mut self.reactor,
        );
        self.answer(reply, &response);
        failpoint::reach("start.told");
    }

    /// Announces a process: nothing runs yet.
    pub(crate) fn exec(&mut self, reply: Reply, request: api::ExecProcessRequest) -> Result<(), Status> {
        let container = self.container_mut(&request.id)?;
        let exec_id = request.exec_id;
        if !task::is_valid_id(&exec_id) {
            return Err(Status::invalid_argument(format!("{exec_id:?} is no exec id")));
        }
        if container.execs.contains_key(&exec_id) {
            return Err(Status::already_exists(format!(
                "process {exec_id} is here already"
            )));
        }
        if container.init.phase != Phase::Running {
            return Err(Status::failed_precondition(format!(
                "container {} is not running but {}",
                request.id,
                phase_name(container.init.phase)
            )));
        }
        let Some(spec) = request.spec.into_option().filter(|spec| !spec.value.is_empty()) else {
            return Err(Status::invalid_argument("exec without a process"));
        };
        let streams = StreamNames {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let spec = with_terminal(&spec.value, streams.terminal)?;
        let mut process = Process::new(streams, Phase::Created);
        process.spec = spec;
        container.execs.insert(exec_id.clone(), process);
        let mut event = TaskExecAdded::new();
        event.container_id = request.id;
        event.exec_id = exec_id;
        self.events.publish(
            TASK_EXEC_ADDED_EVENT_TOPIC,
            "containerd.events.TaskExecAdded",
            &event,
            &mut self.reactor,
        );
        self.answer(reply, &Empty::new());
        Ok(())
    }

    fn start_exec(&mut self, reply: Reply, key: &ProcessKey) -> Result<(), Status> {
        let container = self.container(&key.container)?;
        let process = container
            .process(&key.exec)
            .ok_or_else(|| no_process(&key.exec))?;
        if process.phase != Phase::Created {
            return Err(Status::failed_precondition(format!(
                "process {} is not waiting for its start but {}",
                key.exec,
                phase_name(process.phase)
            )));
        }
        if container.init.phase != Phase::Running {
            return Err(Status::failed_precondition(format!(
                "container {} is not running but {}",
                key.container,
                phase_name(container.init.phase)
            )));
        }
        let streams = process.streams.clone();
        let options = container.options.clone();
        let environment = self.logger_environment(&key.container);
        let console_path = self.console_path();
        let prepared = Prepared::open(&streams, &options, &console_path, &environment)?;
        self.set_phase(key, Phase::Starting);
        let pending = Pending {
            reply,
            key: key.clone(),
            prepared,
            making: Making::Exec,
        };
        self.make(pending)
            .inspect_err(|_| self.set_phase(key, Phase::Created))
    }

    /// Calls the runtime. The streams are open and a logger is ready.
    pub(crate) fn exec_now(
        &mut self,
        reply: Reply,
        key: &ProcessKey,
        mut prepared: Prepared,
    ) -> Result<(), Status> {
        let container = self.container(&key.container)?;
        let process = container
            .process(&key.exec)
            .ok_or_else(|| no_process(&key.exec))?;
        let process_name = format!("{}.process.json", key.exec);
        bundle::write_file(&container.bundle, &process_name, &process.spec)
            .map_err(|error| Status::unknown(format!("write {process_name} in the bundle: {error}")))?;
        let process_file = container.bundle.join(process_name);
        let pid_file = self.exec_pid_file(key)?;
        let _ = std::fs::remove_file(&pid_file);
        let log = CallLog::private(&container.bundle, &key.exec);
        let mut command = container.runtime.exec(
            &key.container,
            &Exec {
                process: &process_file,
                pid_file: &pid_file,
                console_socket: prepared.console.as_ref().map(|console| console.socket.path()),
                log: log.path(),
            },
        );
        command.current_dir(&container.bundle);
        let own_streams = prepared.console.is_none();
        if own_streams {
            prepared.child.give_to(&mut command);
        }
        let then = Then::Executed {
            reply,
            key: key.clone(),
            console: prepared.console.take(),
            process_file: process_file.clone(),
        };
        self.call("exec", command, own_streams, log, then)
            .inspect_err(|_| {
                let _ = std::fs::remove_file(process_file);
            })?;
        failpoint::reach("exec.called");
        self.start_pumps(key, prepared);
        Ok(())
    }

    /// Its name says `exec`: an exec may be called `init` or `shim`.
    fn exec_pid_file(&self, key: &ProcessKey) -> Result<PathBuf, Status> {
        Ok(self
            .container(&key.container)?
            .bundle
            .join(format!("{}.exec.pid", key.exec)))
    }

    pub(crate) fn exec_failed(&mut self, reply: Reply, key: &ProcessKey, status: Status) {
        if let Some(process) = self.process_mut(key) {
            process.phase = Phase::Created;
            let stdio = std::mem::take(&mut process.stdio);
            // What the runtime said on the process's own stderr is for the client to read.
            for number in &stdio.outputs {
                self.pumps.drain(*number, &self.reactor);
            }
            self.close_stdio(&stdio);
        }
        self.answer_error(reply, status);
    }

    /// `runtime exec` has ended; the process runs, or did.
    pub(crate) fn executed(
        &mut self,
        reply: Reply,
        key: &ProcessKey,
        console: Option<Console>,
        result: Result<(), Status>,
    ) {
        failpoint::reach("exec.made");
        let pid_file = match self.exec_pid_file(key) {
            Ok(pid_file) => pid_file,
            Err(status) => return self.exec_failed(reply, key, status),
        };
        let pid = bundle::read_pid(&pid_file);
        let _ = std::fs::remove_file(&pid_file);
        let pid = match result.and_then(|()| pid.ok_or_else(|| no_pid(&pid_file))) {
            Ok(pid) => pid,
            Err(status) => {
                // A runtime that was killed may have left the process behind.
                pid.into_iter().for_each(kill_unserved);
                return self.exec_failed(reply, key, status);
            }
        };
        if let Some(console) = console
            && let Err(status) = self.connect_terminal(key, console)
        {
            // Nobody could ever talk to it.
            kill_unserved(pid);
            return self.exec_failed(reply, key, status);
        }
        let Some(process) = self.process_mut(key) else {
            return;
        };
        process.pid = pid;
        process.phase = Phase::Running;
        process.spec = Vec::new();
        self.pids.insert(pid, key.clone());
        let mut event = TaskExecStarted::new();
        event.container_id.clone_from(&key.container);
        event.exec_id.clone_from(&key.exec);
        event.pid = pid;
        self.events.publish(
            TASK_EXEC_STARTED_EVENT_TOPIC,
            "containerd.events.TaskExecStarted",
            &event,
            &mut self.reactor,
        );
        let mut response = api::StartResponse::new();
        response.pid = pid;
        self.answer(reply, &response);
        failpoint::reach("exec.told");
        self.take_early_exit(key, pid);
    }

    /// Tells the end of a process that came before we knew the process.
    pub(crate) fn take_early_exit(&mut self, key: &ProcessKey, pid: u32) {
        // While there is a child with this pid, what ended earlier was another process that had the number before.
        if let Some(exit) = self.early_exits.remove(&pid)
            && !sys::is_child(pid)
        {
            self.pids.remove(&pid);
            self.process_ended(key, exit);
        }
    }

    pub(crate) fn process_mut(&mut self, key: &ProcessKey) -> Option<&mut Process> {
        self.containers.get_mut(&key.container)?.process_mut(&key.exec)
    }

    fn set_phase(&mut self, key: &ProcessKey, phase: Phase) {
        if let Some(process) = self.process_mut(key) {
            process.phase = phase;
        }
    }
}

/// Ends a process of which no client is told. It may have ended before, and its pid be another's.
fn kill_unserved(pid: u32) {
    if sys::is_child(pid) {
        let _ = sys::kill(pid, libc::SIGKILL as u32);
    }
}

/// The process with the terminal that the request asks for, whatever its own field says.
fn with_terminal(process: &[u8], terminal: bool) -> Result<Vec<u8>, Status> {
    let refused = |error| Status::invalid_argument(format!("the process of an exec: {error}"));
    let mut process: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(process).map_err(refused)?;
    process.insert("terminal".into(), terminal.into());
    serde_json::to_vec(&process).map_err(refused)
}

pub(crate) fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Creating => "being created",
        Phase::Created => "created",
        Phase::Starting => "being started",
        Phase::Running => "running",
        Phase::Ending(_) => "ending",
        Phase::Stopped(_) => "stopped",
    }
}
