//! A container's shim, as seen from the manager: started as a program, spoken to over containerd's task API,
//! and, when it has died, cleaned up after by the program's `delete`.

mod program;
mod survivors;

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api;
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::shim_async::{Client, TaskClient};
use containerd_shim_protos::types::mount::Mount;
use containerd_shim_protos::types::task::Status;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::{Message, MessageField};
use ttrpc::context::{Context, with_duration, with_timeout};
use ttrpc::{Code, Error as RpcError};

use crate::config::Config;
use crate::container::{Exit, now_unix_nanos};
use crate::{Error, bundle};

pub(crate) use program::clean_up;

/// Starting a container runs the runtime, which may run hooks.
const RUN_TIMEOUT: Duration = Duration::from_mins(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const OPTIONS_TYPE: &str = "containerd.runc.v1.Options";
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;

/// Standard streams of a process: absolute paths of fifos, or URIs. Empty: none.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A connection to a live shim. Clones share it.
#[derive(Clone)]
pub(crate) struct Shim {
    id: String,
    task: TaskClient,
}

impl Shim {
    /// Start the shim of container `id`, whose bundle is written, and connect to it.
    pub(crate) async fn launch(config: &Config, id: &str) -> Result<Shim, Error> {
        let bundle = config.bundle(id);
        let address = program::address_of(&program::run(config, id, &["start"]).await?, id)?;
        let path = bundle.join("address");
        if !path.exists() {
            std::fs::write(&path, &address).map_err(Error::file("write", &path))?;
        }
        Shim::connect_to(id, &address).await
    }

    /// Connect to the shim that a manager before this one has started. An error means that there is none: one
    /// that is slow to answer is still there, and its container must not suffer for it.
    pub(crate) async fn reconnect(config: &Config, id: &str) -> Result<Shim, Error> {
        let path = config.bundle(id).join("address");
        let address = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        Shim::connect_to(id, address.trim()).await
    }

    async fn connect_to(id: &str, address: &str) -> Result<Shim, Error> {
        let client = Client::connect(address)
            .await
            .map_err(|error| Error::shim(id, format!("connect to {address}: {error}")))?;
        Ok(Shim {
            id: id.to_owned(),
            task: TaskClient::new(client),
        })
    }

    /// Create the container, up to the point where only its program is missing. Returns its process id.
    pub(crate) async fn create(
        &self,
        config: &Config,
        rootfs: &image::Rootfs,
        streams: Streams,
    ) -> Result<u32, Error> {
        let root = rootfs.owners.as_ref().map_or((0, 0), image::Owners::root);
        let options = Options {
            binary_name: config.runtime.as_deref().map(text).unwrap_or_default(),
            root: text(config.runtime_root()),
            // Pipes are the container's root's, so that it can open /dev/stderr.
            io_uid: root.0,
            io_gid: root.1,
            ..Default::default()
        };
        let overlay = Mount {
            type_: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: rootfs.overlay_options(),
            ..Default::default()
        };
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: text(config.bundle(&self.id)),
            rootfs: vec![overlay],
            terminal: streams.terminal,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            options: any(
                OPTIONS_TYPE,
                options.write_to_bytes().map_err(|error| self.broken(&error))?,
            ),
            ..Default::default()
        };
        let created = self.task.create(with_duration(RUN_TIMEOUT), &request).await;
        Ok(created.map_err(self.failed("create the container"))?.pid)
    }

    /// Start the main process, or that of an exec. Returns its process id.
    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32, Error> {
        let request = api::StartRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let started = self.task.start(with_duration(RUN_TIMEOUT), &request).await;
        Ok(started.map_err(self.failed("start the process"))?.pid)
    }

    /// Add a process to the running container, described as in config.json.
    pub(crate) async fn exec(
        &self,
        exec_id: &str,
        process: &serde_json::Value,
        streams: Streams,
    ) -> Result<(), Error> {
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            terminal: streams.terminal,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            spec: any(PROCESS_TYPE, process.to_string().into_bytes()),
            ..Default::default()
        };
        self.task
            .exec(with_duration(RUN_TIMEOUT), &request)
            .await
            .map_err(self.failed("add the process"))?;
        Ok(())
    }

    /// Return when the process has ended, however long that takes. An error means that the shim is gone.
    pub(crate) async fn wait(&self, exec_id: &str) -> Result<Exit, Error> {
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let answer = self
            .task
            .wait(forever(), &request)
            .await
            .map_err(self.failed("wait for the process"))?;
        let at_unix_nanos = answer.exited_at.as_ref().map_or_else(now_unix_nanos, unix_nanos);
        Ok(Exit {
            code: answer.exit_status,
            at_unix_nanos,
            oom_killed: false,
        })
    }

    /// Send a signal to the main process, or that of an exec. A process that has ended already is fine.
    pub(crate) async fn kill(&self, exec_id: &str, signal: u32) -> Result<(), Error> {
        let request = api::KillRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            signal,
            // On its last signal nothing in the container may survive.
            all: signal == SIGKILL && exec_id.is_empty(),
            ..Default::default()
        };
        match self.task.kill(with_duration(CALL_TIMEOUT), &request).await {
            Err(RpcError::RpcStatus(status)) if status.code() == Code::NOT_FOUND => Ok(()),
            other => other.map(drop).map_err(self.failed("send a signal")),
        }
    }

    /// Remove what the runtime keeps of an ended process.
    pub(crate) async fn delete(&self, exec_id: &str) -> Result<(), Error> {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        match self.task.delete(with_duration(RUN_TIMEOUT), &request).await {
            Err(RpcError::RpcStatus(status)) if status.code() == Code::NOT_FOUND => Ok(()),
            other => other.map(drop).map_err(self.failed("delete the process")),
        }
    }

    /// Let the shim end. It closes the connection, so a missing answer is as good as one.
    pub(crate) async fn shutdown(&self) {
        let request = api::ShutdownRequest {
            id: self.id.clone(),
            now: true,
            ..Default::default()
        };
        if let Err(error) = self.task.shutdown(with_duration(CALL_TIMEOUT), &request).await {
            tracing::debug!(id = self.id, %error, "shim's answer to shutdown");
        }
    }

    /// Stop all processes of the container where they are.
    pub(crate) async fn pause(&self) -> Result<(), Error> {
        let request = api::PauseRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        self.task
            .pause(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("pause the container"))?;
        Ok(())
    }

    /// Let the processes of a paused container run on.
    pub(crate) async fn resume(&self) -> Result<(), Error> {
        let request = api::ResumeRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        self.task
            .resume(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("resume the container"))?;
        Ok(())
    }

    /// Change the limits of the container, described as `linux.resources` in config.json.
    pub(crate) async fn update(&self, resources: &serde_json::Value) -> Result<(), Error> {
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: any(RESOURCES_TYPE, resources.to_string().into_bytes()),
            ..Default::default()
        };
        self.task
            .update(with_duration(RUN_TIMEOUT), &request)
            .await
            .map_err(self.failed("update the container"))?;
        Ok(())
    }

    /// What the container uses: the type of a message, and the message.
    pub(crate) async fn stats(&self) -> Result<(String, Vec<u8>), Error> {
        let request = api::StatsRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        let mut told = self
            .task
            .stats(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("ask for statistics"))?;
        let stats = told.take_stats();
        Ok((stats.type_url, stats.value))
    }

    /// All its processes, those of execs too.
    pub(crate) async fn pids(&self) -> Result<Vec<u32>, Error> {
        let request = api::PidsRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        let told = self
            .task
            .pids(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("list processes"))?;
        Ok(told.processes.iter().map(|process| process.pid).collect())
    }

    /// Whether its processes stand still; None: there are none.
    pub(crate) async fn is_paused(&self) -> Result<Option<bool>, Error> {
        let request = api::StateRequest {
            id: self.id.clone(),
            ..Default::default()
        };
        let state = self
            .task
            .state(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("ask for the container's state"))?;
        Ok(match state.status() {
            Status::PAUSED => Some(true),
            Status::RUNNING => Some(false),
            _ => None,
        })
    }

    /// Close standard input, once what is in the fifo has been read.
    pub(crate) async fn close_stdin(&self, exec_id: &str) -> Result<(), Error> {
        let request = api::CloseIORequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            stdin: true,
            ..Default::default()
        };
        self.task
            .close_io(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("close stdin"))?;
        Ok(())
    }

    /// Set the size of the terminal.
    pub(crate) async fn resize(&self, exec_id: &str, columns: u32, rows: u32) -> Result<(), Error> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            width: columns,
            height: rows,
            ..Default::default()
        };
        self.task
            .resize_pty(with_duration(CALL_TIMEOUT), &request)
            .await
            .map_err(self.failed("resize"))?;
        Ok(())
    }

    /// An answer in the shim's words is the runtime's error; anything else is the shim's.
    fn failed(&self, action: &'static str) -> impl FnOnce(RpcError) -> Error + use<> {
        let id = self.id.clone();
        move |error| match error {
            RpcError::RpcStatus(status) => Error::Runtime {
                action,
                why: status.message().to_owned(),
            },
            other => Error::shim(&id, format!("{action}: {other}")),
        }
    }

    fn broken(&self, error: &protobuf::Error) -> Error {
        Error::shim(&self.id, format!("write a request: {error}"))
    }
}

fn any(type_url: &str, value: Vec<u8>) -> MessageField<Any> {
    MessageField::some(Any {
        type_url: type_url.to_owned(),
        value,
        ..Default::default()
    })
}

fn forever() -> Context {
    with_timeout(0)
}

fn unix_nanos(at: &Timestamp) -> i64 {
    at.seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(at.nanos))
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

/// What the shim wrote of the exit besides what it told.
pub(crate) fn with_record(config: &Config, id: &str, told: Exit) -> Exit {
    bundle::exit(&config.bundle(id)).unwrap_or(told)
}
