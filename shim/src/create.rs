//! Create: from the client's request to a container whose init waits for its start.

use std::path::{Path, PathBuf};
use std::process::Command;

use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::shim::shim::{CreateTaskRequest, CreateTaskResponse};
use containerd_shim_protos::topics::TASK_CREATE_EVENT_TOPIC;
use containerd_shim_protos::types::mount::Mount;

use crate::bundle::{self, Config, EXIT_FILE, INIT_PID_FILE};
use crate::cgroup::Cgroup;
use crate::daemon::{Making, Pending, Shim, Then};
use crate::delete::delete_response;
use crate::out_of_memory::OutOfMemory;
use crate::runtime::{CallLog, Create, RUNTIME_FILE, Runtime};
use crate::sandbox::Member;
use crate::status::Status;
use crate::stdio::pump::Pump;
use crate::stdio::{Console, Prepared};
use crate::task::{self, Container, Phase, Process, ProcessKey, Reply, StreamNames};
use crate::{cgroup, failpoint, mounts, options, restore, shim_log};

impl Shim {
    pub(crate) fn create(&mut self, reply: Reply, request: CreateTaskRequest) -> Result<(), Status> {
        let (container, config) = self.plan(&request)?;
        let member = Member {
            id: request.id.clone(),
            bundle: container.bundle.clone(),
            runtime: container.runtime.clone(),
        };
        let sandbox = self.sandbox.as_ref();
        let admitted = sandbox.map_or(Ok(()), |sandbox| sandbox.admit(&member, &config));
        let result = admitted.and_then(|()| {
            if container.checkpoint.is_some() {
                self.create_from_checkpoint(reply, container, &request)
            } else {
                self.create_from_bundle(reply, container, request)
            }
        });
        result.inspect_err(|_| {
            if let Some(sandbox) = &self.sandbox {
                sandbox.dismiss(&member.id);
            }
        })
    }

    fn create_from_bundle(
        &mut self,
        reply: Reply,
        container: Container,
        request: CreateTaskRequest,
    ) -> Result<(), Status> {
        let id = request.id;
        let rootfs = container.rootfs();
        let environment = self.logger_environment(&id);
        let console_path = self.console_path();
        let prepared = Prepared::open(
            &container.init.streams,
            &container.options,
            &console_path,
            &environment,
        )?;
        mount(&request.rootfs, &rootfs)?;
        failpoint::reach("create.mounted");
        let recorded = write_runtime_file(&container);
        failpoint::reach("create.recorded");
        self.containers.insert(id.clone(), container);
        let pending = Pending {
            reply,
            key: ProcessKey::init(&id),
            prepared,
            making: Making::Create,
        };
        let result = recorded.and_then(|()| self.make(pending));
        result.inspect_err(|_| self.forget_container(&id))
    }

    /// Everything that can be wrong with the request is wrong here, before anything was touched.
    fn plan(&mut self, request: &CreateTaskRequest) -> Result<(Container, Config), Status> {
        let id = &request.id;
        if !task::is_valid_id(id) {
            return Err(Status::invalid_argument(format!("{id:?} is no container id")));
        }
        if self.containers.contains_key(id) {
            return Err(Status::already_exists(format!("container {id} is here already")));
        }
        self.refuse_if_ending()?;
        let checkpoint = (!request.checkpoint.is_empty()).then(|| PathBuf::from(&request.checkpoint));
        checkpoint.as_deref().map_or(Ok(()), restore::check_images)?;
        let bundle = PathBuf::from(&request.bundle);
        if !task::is_valid_bundle(&bundle) {
            return Err(Status::invalid_argument(format!(
                "bundle {:?} is no absolute path",
                request.bundle
            )));
        }
        let config = Config::read(&bundle).map_err(Status::invalid_argument)?;
        let options = options::parse(request.options.as_ref())?;
        if !options.shim_cgroup.is_empty() && self.containers.is_empty() {
            cgroup::join(&options.shim_cgroup).map_err(|error| {
                Status::unknown(format!("join shim cgroup {}: {error}", options.shim_cgroup))
            })?;
        }
        let streams = StreamNames {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        self.last_number = self.last_number.wrapping_add(1);
        let container = Container {
            number: self.last_number,
            bundle,
            runtime: Runtime::new(&options, &self.config.namespace),
            options,
            init: Process::new(streams, Phase::Creating),
            execs: std::collections::BTreeMap::new(),
            paused: false,
            mounted: !request.rootfs.is_empty(),
            lets_root_go: config.lets_root_go(),
            private_pids: config.has_private_pids(),
            cgroup: None,
            out_of_memory: OutOfMemory::default(),
            deleting: false,
            in_runtime: false,
            created_rootfs: request.rootfs.clone(),
            checkpoint,
        };
        Ok((container, config))
    }

    pub(crate) fn refuse_if_ending(&self) -> Result<(), Status> {
        if self.ending {
            return Err(Status::unavailable("this shim is ending"));
        }
        Ok(())
    }

    /// Calls the runtime. The streams are open and a logger is ready.
    pub(crate) fn create_now(&mut self, reply: Reply, id: &str, prepared: Prepared) -> Result<(), Status> {
        self.call_for_init(
            id,
            "create",
            prepared,
            |container, create| container.runtime.create(id, create),
            |console| Then::Created {
                reply,
                id: id.to_owned(),
                console,
            },
        )?;
        failpoint::reach("create.called");
        Ok(())
    }

    /// Starts the command of the runtime that makes a container's init, with its streams, or the socket for its
    /// terminal. `then` is what follows when the command has ended.
    pub(crate) fn call_for_init(
        &mut self,
        id: &str,
        verb: &'static str,
        mut prepared: Prepared,
        command: impl FnOnce(&Container, &Create) -> Command,
        then: impl FnOnce(Option<Console>) -> Then,
    ) -> Result<(), Status> {
        let container = self.container(id)?;
        let bundle = &container.bundle;
        // The pid and the exit of an earlier container in this bundle must not be taken for this one's.
        let pid_file = bundle.join(INIT_PID_FILE);
        let _ = std::fs::remove_file(bundle.join(EXIT_FILE));
        let _ = std::fs::remove_file(&pid_file);
        let log = CallLog::shared(bundle);
        let create = Create {
            bundle,
            pid_file: &pid_file,
            console_socket: prepared.console.as_ref().map(|console| console.socket.path()),
            log: log.path(),
            no_pivot_root: container.options.no_pivot_root,
            no_new_keyring: container.options.no_new_keyring,
        };
        let mut command = command(container, &create);
        command.current_dir(bundle);
        let console = prepared.console.take();
        let own_streams = console.is_none();
        if own_streams {
            prepared.child.give_to(&mut command);
        }
        self.call(verb, command, own_streams, log, then(console))?;
        self.container_mut(id)?.in_runtime = true;
        // The runtime writes its own errors there too, and they come back as the answer. A container that was never
        // made has no output.
        prepared.outputs.iter_mut().for_each(Pump::hold);
        self.start_pumps(&ProcessKey::init(id), prepared);
        Ok(())
    }

    /// `runtime create` has ended.
    pub(crate) fn created(
        &mut self,
        reply: Reply,
        id: &str,
        console: Option<Console>,
        killed: bool,
        result: Result<(), Status>,
    ) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let Err(status) = result {
            // On an error a runtime takes back what it made. One that was killed could not.
            if killed {
                return self.discard(reply, id, status);
            }
            container.in_runtime = false;
            self.forget_container(id);
            self.answer_error(reply, status);
            self.end_if_forsaken(reply);
            return;
        }
        failpoint::reach("create.made");
        // One that ended meanwhile has killed all it knew of, and this one not.
        let adopted = self.refuse_if_ending().and_then(|()| self.adopt(id, console));
        if let Err(status) = adopted {
            self.discard(reply, id, status);
            return;
        }
        self.release_outputs(&ProcessKey::init(id));
        self.tell_created(reply, id);
        self.let_root_go(id);
    }

    /// Takes the root out of the bundle if only the container is to have it. Otherwise each mount namespace that is made
    /// on this machine, and so each start of a container, has a copy to make and to free of every container's root.
    fn let_root_go(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if !container.mounted || !container.lets_root_go {
            return;
        }
        match mounts::unmount_rootfs(&container.bundle) {
            Ok(()) => container.mounted = false,
            Err(error) => shim_log::error(format_args!("unmount {}: {error}", container.rootfs().display())),
        }
        failpoint::reach("create.let-go");
    }

    /// The container waits for its start.
    pub(crate) fn tell_created(&mut self, reply: Reply, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.init.phase = Phase::Created;
        let pid = container.init.pid;
        let mut event = TaskCreate::new();
        id.clone_into(&mut event.container_id);
        event.bundle = container.bundle.display().to_string();
        event.rootfs = std::mem::take(&mut container.created_rootfs);
        event.pid = pid;
        let mut io = TaskIO::new();
        io.stdin.clone_from(&container.init.streams.stdin);
        io.stdout.clone_from(&container.init.streams.stdout);
        io.stderr.clone_from(&container.init.streams.stderr);
        io.terminal = container.init.streams.terminal;
        event.io = Some(io).into();
        self.events.publish(
            TASK_CREATE_EVENT_TOPIC,
            "containerd.events.TaskCreate",
            &event,
            &mut self.reactor,
        );
        let mut response = CreateTaskResponse::new();
        response.pid = pid;
        self.answer(reply, &response);
        failpoint::reach("create.told");
        self.take_early_exit(&ProcessKey::init(id), pid);
    }

    /// Learns the init process that the runtime left to us, and its terminal.
    pub(crate) fn adopt(&mut self, id: &str, console: Option<Console>) -> Result<(), Status> {
        let container = self.container(id)?;
        let pid_file = container.bundle.join(INIT_PID_FILE);
        let pid = bundle::read_pid(&pid_file).ok_or_else(|| no_pid(&pid_file))?;
        let key = ProcessKey::init(id);
        if let Some(console) = console {
            self.connect_terminal(&key, console)?;
        }
        self.pids.insert(pid, key);
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(|| Status::unknown("container is gone"))?;
        container.init.pid = pid;
        container.cgroup = Cgroup::of_process(pid);
        self.watch_memory(id);
        Ok(())
    }

    /// Takes back a container that the runtime made but that can't be served.
    fn discard(&mut self, reply: Reply, id: &str, why: Status) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        let log = CallLog::shared(&container.bundle);
        let command = container.runtime.delete(id, true, log.path());
        let then = Then::Discarded {
            reply,
            id: id.to_owned(),
            why: why.clone(),
        };
        if let Err(status) = self.call("delete", command, false, log, then) {
            self.discarded(reply, id, why, Err(status));
        }
    }

    pub(crate) fn discarded(&mut self, reply: Reply, id: &str, why: Status, result: Result<(), Status>) {
        match (result, self.containers.get_mut(id)) {
            (Ok(()), Some(container)) => container.in_runtime = false,
            (Err(status), _) => {
                shim_log::error(format_args!("container {id} could not be taken back: {status}"));
            }
            (Ok(()), None) => {}
        }
        self.forget_container(id);
        self.answer_error(reply, why);
        self.end_if_forsaken(reply);
    }

    /// Drops a container with all that the shim holds for it: streams, mounts, sockets, watches.
    pub(crate) fn forget_container(&mut self, id: &str) {
        let Some(mut container) = self.containers.remove(id) else {
            return;
        };
        self.unwatch_memory(&mut container);
        if let Some(sandbox) = &self.sandbox {
            sandbox.dismiss(id);
        }
        // By name: the pid of a process that was reaped may be that of another container's by now.
        self.pids.retain(|_, key| key.container != id);
        for process in std::iter::once(&mut container.init).chain(container.execs.values_mut()) {
            for waiter in std::mem::take(&mut process.waiters) {
                self.answer_error(waiter, Status::not_found(format!("container {id} is gone")));
            }
            // A delete that waited for the reader of an exec's output.
            if let (Some(reply), Phase::Stopped(exit)) = (process.pending_delete.take(), process.phase) {
                self.answer(reply, &delete_response(process.pid, exit));
            }
            let stdio = std::mem::take(&mut process.stdio);
            self.close_stdio(&stdio);
        }
        if container.mounted
            && let Err(error) = mounts::unmount_rootfs(&container.bundle)
        {
            shim_log::error(format_args!("unmount {}: {error}", container.rootfs().display()));
        }
        if !container.in_runtime {
            // So that `delete` does not ask the runtime for a container that may be somebody else's by then.
            let _ = std::fs::remove_file(container.bundle.join(RUNTIME_FILE));
        }
    }
}

pub(crate) fn no_pid(pid_file: &Path) -> Status {
    Status::unknown(format!(
        "the runtime reported success but no pid in {}",
        pid_file.display()
    ))
}

pub(crate) fn mount(mounts: &[Mount], rootfs: &Path) -> Result<(), Status> {
    if mounts.is_empty() {
        return Ok(());
    }
    if let Err(error) = std::fs::create_dir(rootfs)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(Status::unknown(format!("make {}: {error}", rootfs.display())));
    }
    mounts::mount_rootfs(mounts, rootfs).map_err(Status::unknown)
}

/// So that `delete` after a dead shim knows which runtime has the container.
pub(crate) fn write_runtime_file(container: &Container) -> Result<(), Status> {
    let json = serde_json::to_vec(&container.runtime).map_err(Status::unknown)?;
    bundle::write_file(&container.bundle, RUNTIME_FILE, &json)
        .map_err(|error| Status::unknown(format!("write {RUNTIME_FILE} in the bundle: {error}")))
}
