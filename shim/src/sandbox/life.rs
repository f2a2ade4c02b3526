//! A sandbox's life: create, start, stop, shutdown, and the end of its process.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim_protos::sandbox_api as api;

use super::pod::Pod;
use super::{SANDBOXES, Sandbox, is_bundle, spec};
use crate::bundle::{self, ExitRecord, INIT_PID_FILE};
use crate::cgroup::Cgroup;
use crate::connections::CALLS_MAX;
use crate::create::no_pid;
use crate::daemon::{Shim, Then};
use crate::exit::complain_unless_recorded;
use crate::runtime::{CallLog, Create, Runtime};
use crate::start::phase_name;
use crate::status::Status;
use crate::task::{self, Exit, Phase, Reply};
use crate::{failpoint, options, sys, timestamp};

/// A call of the runtime for the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Start,
    Delete,
}

impl Shim {
    pub(crate) fn create_sandbox(
        &mut self,
        reply: Reply,
        request: &api::CreateSandboxRequest,
    ) -> Result<(), Status> {
        let id = &request.sandbox_id;
        if !task::is_valid_id(id) {
            return Err(Status::invalid_argument(format!("{id:?} is no sandbox id")));
        }
        if let Some(sandbox) = &self.sandbox {
            return Err(Status::already_exists(format!(
                "this shim has the sandbox {} already",
                sandbox.id
            )));
        }
        self.refuse_if_ending()?;
        let bundle = PathBuf::from(&request.bundle_path);
        if !task::is_valid_bundle(&bundle) {
            return Err(Status::invalid_argument(format!(
                "bundle {:?} is no absolute path",
                request.bundle_path
            )));
        }
        if !is_bundle(&bundle) {
            return Err(Status::invalid_argument(format!(
                "bundle {} is not in {SANDBOXES}/NAMESPACE, by which a delete knows a sandbox's",
                bundle.display()
            )));
        }
        if !request.rootfs.is_empty() {
            return Err(Status::invalid_argument(
                "a sandbox of this shim has its own rootfs and takes no other",
            ));
        }
        let pod = Pod::parse(request.options.as_ref())?;
        let options = options::read(&bundle)?;
        let runtime = Runtime::new(&options, &self.config.namespace);
        let user = owner_of_network(&pod, &request.netns_path)?;
        let user_path = user.as_ref().map_or_else(PathBuf::new, |fd| {
            format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
        });
        let sandbox = Sandbox {
            id: id.clone(),
            bundle,
            runtime,
            phase: Phase::Creating,
            pid: 0,
            created_at: SystemTime::now(),
            pod_cgroup: None,
            has_cgroup_parent: !pod.cgroup_parent.is_empty(),
            user_namespace: user,
            early_exit: None,
            waiters: Vec::new(),
            stoppers: Vec::new(),
            is_to_stop: false,
            shutdown: None,
        };
        let cgroups_path = spec::cgroups_path(&pod.cgroup_parent, &self.config.namespace, id);
        let rootfs = sandbox.rootfs(&pod);
        let network = Path::new(&request.netns_path);
        let config = spec::pause(&pod, &rootfs, &cgroups_path, network, &user_path);
        let log = CallLog::shared(&sandbox.bundle);
        let pid_file = sandbox.bundle.join(INIT_PID_FILE);
        let command = sandbox.runtime.create(
            id,
            &Create {
                bundle: &sandbox.bundle,
                pid_file: &pid_file,
                console_socket: None,
                log: log.path(),
                no_pivot_root: options.no_pivot_root,
                no_new_keyring: options.no_new_keyring,
            },
        );
        let result = sandbox.prepare(&pod, &config).and_then(|()| {
            failpoint::reach("sandbox.prepared");
            let step = Step::Create;
            self.call("create", command, false, log, Then::Sandbox { reply, step })
        });
        failpoint::reach("sandbox.called");
        match result {
            Ok(()) => self.sandbox = Some(sandbox),
            Err(_) => sandbox.clean_up(),
        }
        result
    }

    /// A call of the runtime for the sandbox has ended.
    pub(crate) fn sandbox_called(&mut self, reply: Reply, step: Step, result: Result<(), Status>) {
        match step {
            Step::Create => self.sandbox_created(reply, result),
            Step::Start => self.sandbox_started(reply, result),
            Step::Delete => self.sandbox_deleted(reply, result),
        }
    }

    fn sandbox_created(&mut self, reply: Reply, result: Result<(), Status>) {
        let ending = self.ending;
        let Some(sandbox) = &mut self.sandbox else {
            return;
        };
        failpoint::reach("sandbox.made");
        sandbox.user_namespace = None;
        let pid_file = sandbox.bundle.join(INIT_PID_FILE);
        let pid = result.and_then(|()| bundle::read_pid(&pid_file).ok_or_else(|| no_pid(&pid_file)));
        let pid = match pid {
            Ok(pid) => pid,
            Err(status) => {
                self.answer_error(reply, status);
                self.sandbox_was_not_made();
                return;
            }
        };
        sandbox.pid = pid;
        sandbox.phase = Phase::Created;
        if sandbox.has_cgroup_parent {
            sandbox.pod_cgroup = Cgroup::of_process(pid).map(|group| group.parent());
        }
        // What had to end it meanwhile found no process yet.
        if ending || sandbox.is_to_stop || sandbox.shutdown.is_some() {
            sandbox.kill();
        }
        self.answer(reply, &api::CreateSandboxResponse::new());
        failpoint::reach("sandbox.told");
        if let Some(exit) = self.early_exits.remove(&pid) {
            self.sandbox_ended(exit);
        }
    }

    fn sandbox_was_not_made(&mut self) {
        let Some(sandbox) = self.sandbox.take() else {
            return;
        };
        sandbox.clean_up();
        for waiter in sandbox.waiters.iter().chain(&sandbox.stoppers) {
            let status = Status::not_found(format!("sandbox {} was not made", sandbox.id));
            self.answer_error(*waiter, status);
        }
        if let Some(reply) = sandbox.shutdown {
            self.sandbox_is_gone(reply);
        }
    }

    pub(crate) fn start_sandbox(
        &mut self,
        reply: Reply,
        request: &api::StartSandboxRequest,
    ) -> Result<(), Status> {
        let sandbox = self.sandbox_mut(&request.sandbox_id)?;
        if sandbox.phase != Phase::Created {
            return Err(Status::failed_precondition(format!(
                "sandbox {} is not created but {}",
                sandbox.id,
                phase_name(sandbox.phase)
            )));
        }
        let log = CallLog::shared(&sandbox.bundle);
        let command = sandbox.runtime.simple("start", &sandbox.id, log.path());
        let step = Step::Start;
        self.call("start", command, false, log, Then::Sandbox { reply, step })?;
        failpoint::reach("sandbox.start.called");
        self.sandbox_mut(&request.sandbox_id)?.phase = Phase::Starting;
        Ok(())
    }

    fn sandbox_started(&mut self, reply: Reply, result: Result<(), Status>) {
        let Some(sandbox) = &mut self.sandbox else {
            return;
        };
        failpoint::reach("sandbox.start.made");
        let early_exit = sandbox.early_exit.take();
        match result {
            Ok(()) => {
                sandbox.phase = Phase::Running;
                let mut response = api::StartSandboxResponse::new();
                response.pid = sandbox.pid;
                response.created_at = Some(timestamp::protobuf(sandbox.created_at)).into();
                self.answer(reply, &response);
            }
            Err(status) => {
                sandbox.phase = Phase::Created;
                self.answer_error(reply, status);
            }
        }
        if let Some(exit) = early_exit {
            self.tell_sandbox_exit(exit);
        }
    }

    /// True when the child that was reaped is the sandbox's process.
    pub(crate) fn is_sandbox(&self, pid: u32) -> bool {
        self.sandbox
            .as_ref()
            .is_some_and(|sandbox| sandbox.has_process() && sandbox.pid == pid)
    }

    /// The sandbox's process ended: its exit is on disk, and only then told.
    pub(crate) fn sandbox_ended(&mut self, exit: Exit) {
        let Some(sandbox) = &mut self.sandbox else {
            return;
        };
        failpoint::reach("sandbox.reaped");
        let record = ExitRecord::new(&sandbox.id, sandbox.pid, exit, false);
        complain_unless_recorded(&record, record.write(&sandbox.bundle));
        failpoint::reach("sandbox.recorded");
        if sandbox.phase == Phase::Starting {
            // Its start is told first.
            sandbox.early_exit = Some(exit);
        } else {
            self.tell_sandbox_exit(exit);
        }
    }

    fn tell_sandbox_exit(&mut self, exit: Exit) {
        let Some(sandbox) = &mut self.sandbox else {
            return;
        };
        sandbox.phase = Phase::Stopped(exit);
        let waiters = std::mem::take(&mut sandbox.waiters);
        let stoppers = std::mem::take(&mut sandbox.stoppers);
        let shutdown = sandbox.shutdown.take();
        for waiter in waiters {
            self.answer(waiter, &wait_response(exit));
        }
        for stopper in stoppers {
            self.answer(stopper, &api::StopSandboxResponse::new());
        }
        if let Some(reply) = shutdown {
            self.delete_sandbox(reply);
        }
    }

    pub(crate) fn stop_sandbox(
        &mut self,
        reply: Reply,
        request: &api::StopSandboxRequest,
    ) -> Result<(), Status> {
        let in_flight = self.in_flight(reply);
        let sandbox = self.sandbox_mut(&request.sandbox_id)?;
        if !sandbox.is_live() {
            self.answer(reply, &api::StopSandboxResponse::new());
        } else if in_flight > CALLS_MAX {
            return Err(too_many_calls());
        } else {
            sandbox.is_to_stop = true;
            sandbox.kill();
            sandbox.stoppers.push(reply);
        }
        Ok(())
    }

    pub(crate) fn wait_sandbox(
        &mut self,
        reply: Reply,
        request: &api::WaitSandboxRequest,
    ) -> Result<(), Status> {
        let in_flight = self.in_flight(reply);
        let sandbox = self.sandbox_mut(&request.sandbox_id)?;
        if let Phase::Stopped(exit) = sandbox.phase {
            self.answer(reply, &wait_response(exit));
        } else if in_flight > CALLS_MAX {
            return Err(too_many_calls());
        } else {
            sandbox.waiters.push(reply);
        }
        Ok(())
    }

    /// Ends the sandbox, its containers and this shim. After a create that failed there is no sandbox to end.
    pub(crate) fn shutdown_sandbox(
        &mut self,
        reply: Reply,
        request: &api::ShutdownSandboxRequest,
    ) -> Result<(), Status> {
        if self.is_empty() && request.sandbox_id == self.config.id {
            self.sandbox_is_gone(reply);
            return Ok(());
        }
        let sandbox = self.sandbox_mut(&request.sandbox_id)?;
        if sandbox.shutdown.is_some() {
            return Err(Status::failed_precondition(format!(
                "sandbox {} is being shut down already",
                sandbox.id
            )));
        }
        if sandbox.is_live() {
            sandbox.kill();
            sandbox.shutdown = Some(reply);
        } else {
            self.delete_sandbox(reply);
        }
        Ok(())
    }

    fn delete_sandbox(&mut self, reply: Reply) {
        let Some(sandbox) = &self.sandbox else { return };
        let log = CallLog::shared(&sandbox.bundle);
        let command = sandbox.runtime.delete(&sandbox.id, true, log.path());
        let step = Step::Delete;
        if let Err(status) = self.call("delete", command, false, log, Then::Sandbox { reply, step }) {
            self.sandbox_deleted(reply, Err(status));
        }
        failpoint::reach("sandbox.delete.called");
    }

    fn sandbox_deleted(&mut self, reply: Reply, result: Result<(), Status>) {
        if let Err(status) = result {
            self.answer_error(reply, status);
            return;
        }
        failpoint::reach("sandbox.deleted");
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.clean_up();
        }
        self.sandbox_is_gone(reply);
    }

    fn sandbox_is_gone(&mut self, reply: Reply) {
        self.kill_everything();
        // Before the answer, after which containerd runs `delete`.
        let _ = std::fs::remove_file(&self.config.socket);
        self.answer(reply, &api::ShutdownSandboxResponse::new());
        self.end();
    }

    /// The pod's process goes with everything else.
    pub(crate) fn kill_sandbox(&self) {
        if let Some(sandbox) = &self.sandbox {
            sandbox.kill();
        }
    }

    pub(super) fn sandbox_mut(&mut self, id: &str) -> Result<&mut Sandbox, Status> {
        self.sandbox
            .as_mut()
            .filter(|sandbox| sandbox.id == id)
            .ok_or_else(|| Status::not_found(format!("no sandbox {id:?} in this shim")))
    }
}

/// CRI makes the network namespace of a pod with a user namespace inside that, and only by way of it the pod finds its
/// user namespace again.
fn owner_of_network(pod: &Pod, network: &str) -> Result<Option<OwnedFd>, Status> {
    if pod.user_namespace.is_none() || network.is_empty() {
        return Ok(None);
    }
    // The path is the client's: to open a fifo would stop this whole process.
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(network)
        .and_then(|file| sys::owning_user_namespace(&file))
        .map(Some)
        .map_err(|error| Status::unknown(format!("find the user namespace that owns {network}: {error}")))
}

fn too_many_calls() -> Status {
    Status::resource_exhausted(format!("{CALLS_MAX} calls of this connection wait already"))
}

fn wait_response(exit: Exit) -> api::WaitSandboxResponse {
    let mut response = api::WaitSandboxResponse::new();
    response.exit_status = exit.status;
    response.exited_at = Some(timestamp::protobuf(exit.at)).into();
    response
}
