//! A container that is created from a checkpoint: Create mounts its root and remembers where the images are, and Start
//! has the runtime restore the processes, which run from that moment on. Before it there is no process.

use std::path::Path;

use containerd_shim_protos::shim::shim::CreateTaskRequest;

use crate::create::{mount, write_runtime_file};
use crate::daemon::{Making, Pending, Shim, Then};
use crate::runtime::Create;
use crate::status::Status;
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
        let prepared = Prepared::open(
            &container.init.streams,
            &container.options,
            &console_path,
            &environment,
        )?;
        container.init.phase = Phase::Starting;
        let pending = Pending {
            reply,
            key: ProcessKey::init(id),
            prepared,
            making: Making::Restore,
        };
        self.make(pending).inspect_err(|_| self.unstart(id))
    }

    /// Calls the runtime. The streams are open and a logger is ready.
    pub(crate) fn restore_now(&mut self, reply: Reply, id: &str, prepared: Prepared) -> Result<(), Status> {
        let Some(images) = self.container(id)?.checkpoint.clone() else {
            return Err(Status::unknown(format!("container {id} has no checkpoint")));
        };
        let command = |container: &Container, create: &Create| {
            // For CRIU's logs: the images may be read-only, or those of many.
            let work = match container.options.criu_work_path.as_str() {
                "" => create.bundle,
                path => Path::new(path),
            };
            container.runtime.restore(id, &images, work, create)
        };
        self.call_for_init(id, "restore", prepared, command, |console| Then::Restored {
            reply,
            id: id.to_owned(),
            console,
        })
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
