//! A container that is created from a checkpoint: Create mounts its root and remembers where the images are, and Start
//! has the runtime restore the processes, which run from that moment on. Before it there is no process.

use std::path::Path;

use containerd_shim_protos::shim::shim::CreateTaskRequest;

use crate::bundle::{EXIT_FILE, INIT_PID_FILE};
use crate::create::{PendingInit, mount, write_runtime_file};
use crate::daemon::{Pending, Shim, Then};
use crate::runtime::{CallLog, Restore};
use crate::status::Status;
use crate::stdio::pump::Pump;
use crate::stdio::{Console, Prepared};
use crate::task::{Container, Phase, ProcessKey, Reply};

/// What is wrong with the images is told by Create already.
pub(crate) fn check_images(images: &Path) -> Result<(), Status> {
    let read = std::fs::read_dir(images).map(drop);
    read.map_err(|error| {
        Status::invalid_argument(format!("read the checkpoint {}: {error}", images.display()))
    })
}

impl Shim {
    pub(crate) fn create_from_checkpoint(
        &mut self,
        reply: Reply,
        container: Container,
        request: &CreateTaskRequest,
    ) -> Result<(), Status> {
        mount(&request.rootfs, &container.rootfs())?;
        let recorded = write_runtime_file(&container);
        self.containers.insert(request.id.clone(), container);
        recorded.inspect_err(|_| self.forget_container(&request.id))?;
        self.tell_created(reply, &request.id);
        Ok(())
    }

    pub(crate) fn start_from_checkpoint(&mut self, reply: Reply, id: &str) -> Result<(), Status> {
        let environment = self.logger_environment(id);
        let console_path = self.console_path();
        let container = self.container_mut(id)?;
        let mut prepared = Prepared::open(
            &container.init.streams,
            &container.options,
            &console_path,
            &environment,
        )?;
        container.init.phase = Phase::Starting;
        let result = match prepared.logger.take() {
            None => self.restore_now(reply, id, prepared),
            Some(command) => {
                let pending = PendingInit {
                    reply,
                    id: id.to_owned(),
                    prepared,
                };
                self.start_logger(
                    command,
                    &ProcessKey::init(id),
                    Pending::Restore(Box::new(pending)),
                )
            }
        };
        result.inspect_err(|_| self.unstart(id))
    }

    /// Calls the runtime. The streams are open and a logger is ready.
    fn restore_now(&mut self, reply: Reply, id: &str, mut prepared: Prepared) -> Result<(), Status> {
        let container = self.container_mut(id)?;
        container.in_runtime = true;
        let Some(images) = &container.checkpoint else {
            return Err(Status::unknown(format!("container {id} has no checkpoint")));
        };
        let bundle = &container.bundle;
        let pid_file = bundle.join(INIT_PID_FILE);
        let _ = std::fs::remove_file(bundle.join(EXIT_FILE));
        let _ = std::fs::remove_file(&pid_file);
        let log = CallLog::shared(bundle);
        let mut command = container.runtime.restore(
            id,
            &Restore {
                images,
                // CRIU's logs: the images may be read-only, or those of many.
                work_path: match container.options.criu_work_path.as_str() {
                    "" => bundle,
                    path => Path::new(path),
                },
                bundle,
                pid_file: &pid_file,
                console_socket: prepared.console.as_ref().map(|console| console.socket.path()),
                log: log.path(),
                no_pivot_root: container.options.no_pivot_root,
            },
        );
        command.current_dir(bundle);
        let console = prepared.console.take();
        let own_streams = console.is_none();
        if own_streams {
            prepared.child.give_to(&mut command);
        }
        let then = Then::Restored {
            reply,
            id: id.to_owned(),
            console,
        };
        self.call("restore", command, own_streams, log, then)?;
        // As with create: the runtime's own errors come back as the answer.
        prepared.outputs.iter_mut().for_each(Pump::hold);
        self.start_pumps(&ProcessKey::init(id), prepared);
        Ok(())
    }

    pub(crate) fn restore_with_logger(&mut self, pending: PendingInit) {
        let PendingInit { reply, id, prepared } = pending;
        let restored = self
            .refuse_if_ending()
            .and_then(|()| self.restore_now(reply, &id, prepared));
        if let Err(status) = restored {
            self.restore_failed(reply, &id, status);
        }
    }

    pub(crate) fn restore_failed(&mut self, reply: Reply, id: &str, status: Status) {
        self.unstart(id);
        self.answer_error(reply, status);
    }

    /// It can be started again, or deleted.
    fn unstart(&mut self, id: &str) {
        if let Some(container) = self.containers.get_mut(id) {
            container.init.phase = Phase::Created;
            let stdio = std::mem::take(&mut container.init.stdio);
            self.close_stdio(&stdio);
        }
    }

    /// `runtime restore` has ended; the processes run.
    pub(crate) fn restored(
        &mut self,
        reply: Reply,
        id: &str,
        console: Option<Console>,
        result: Result<(), Status>,
    ) {
        let key = ProcessKey::init(id);
        if let Err(status) = result.and_then(|()| self.adopt(id, console)) {
            self.restore_failed(reply, id, status);
            return;
        }
        self.release_outputs(&key);
        self.tell_started(reply, id);
        if let Ok(pid) = self.container(id).map(|container| container.init.pid) {
            self.take_early_exit(&key, pid);
        }
        // A shutdown meanwhile did not know of it.
        if self.ending {
            self.kill_everything();
        }
    }
}
