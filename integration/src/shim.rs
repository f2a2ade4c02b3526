//! A shim of the test's own, spoken to over its socket with the ttrpc crate's client.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::ttrpc::{self, context};
use containerd_shim_protos::{Client, TaskClient, api};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::process::{DEADLINE, binary, eventually, run};
use crate::sandbox::Sandbox;

/// A shim for one bundle. The daemon is killed when a test fails before it shut it down.
pub struct Shim {
    pub id: String,
    pub bundle: PathBuf,
    /// The state folder of its runtime.
    pub root: PathBuf,
    manager_socket: PathBuf,
    pub address: String,
    pid: u32,
    pub tasks: TaskClient,
}

impl Shim {
    #[track_caller]
    pub fn start(sandbox: &Sandbox, bundle: &Bundle) -> Self {
        Self::start_as(sandbox, bundle.path(), sandbox.id(), bundle)
    }

    #[track_caller]
    pub fn start_as(sandbox: &Sandbox, folder: &Path, id: &str, bundle: &Bundle) -> Self {
        bundle.write();
        Self::start_by(
            sandbox,
            folder,
            id,
            &mut Self::command(sandbox, folder, id, "start"),
        )
    }

    /// What a given command line starts, which must be that of [`Shim::command`] but for its setting.
    #[track_caller]
    pub fn start_by(sandbox: &Sandbox, folder: &Path, id: &str, start: &mut Command) -> Self {
        let root = sandbox.path().join("state");
        sandbox.owns(&root.join("test"));
        sandbox.owns(&sandbox.path().join("s"));
        let manager_socket = manager_socket(sandbox);
        let address = run(start).ok();
        let tasks = TaskClient::new(Client::connect(&address).expect("connect to the shim"));
        let pid = fs::read_to_string(folder.join("shim.pid")).expect("read shim.pid");
        Self {
            id: id.to_owned(),
            bundle: folder.to_owned(),
            pid: pid.parse().expect("a pid"),
            root,
            manager_socket,
            address,
            tasks,
        }
    }

    /// The shim's command line with `start` or `delete`.
    pub fn command(sandbox: &Sandbox, folder: &Path, id: &str, verb: &str) -> Command {
        command(folder, id, &manager_socket(sandbox), verb)
    }

    /// `delete` after a shim that has died.
    #[track_caller]
    pub fn clean_up(&self) -> api::DeleteResponse {
        let mut delete = command(&self.bundle, &self.id, &self.manager_socket, "delete");
        let output = delete.output().expect("start the shim");
        assert!(output.status.success(), "{output:?}");
        api::DeleteResponse::parse_from_bytes(&output.stdout).expect("a DeleteResponse")
    }

    pub fn request(&self) -> api::CreateTaskRequest {
        self.request_with(|_| ())
    }

    /// A request to create the container with other options.
    pub fn request_with(&self, change: impl FnOnce(&mut Options)) -> api::CreateTaskRequest {
        let mut options = Options::new();
        options.root = self.root.display().to_string();
        change(&mut options);
        let mut any = Any::new();
        any.type_url = "containerd.runc.v1.Options".into();
        any.value = options.write_to_bytes().expect("encode options");
        let mut request = api::CreateTaskRequest::new();
        request.id.clone_from(&self.id);
        request.bundle = self.bundle.display().to_string();
        request.options = Some(any).into();
        request
    }

    /// The log that the shim writes.
    pub fn log(&self) -> PathBuf {
        self.bundle.join("output.json")
    }

    pub fn log_uri(&self) -> String {
        format!("json-file://{}", self.log().display())
    }

    #[track_caller]
    pub fn create_logged(&self) -> u32 {
        self.try_create_logged().expect("create")
    }

    /// The process id of a container that was created, whose output goes into [`Shim::log`].
    pub fn try_create_logged(&self) -> ttrpc::Result<u32> {
        let mut request = self.request();
        request.stdout = self.log_uri();
        request.stderr = self.log_uri();
        let created = self.tasks.create(patience(), &request);
        created.map(|created| created.pid)
    }

    #[track_caller]
    pub fn run_logged(&self) -> u32 {
        self.create_logged();
        self.start_process("");
        self.wait("")
    }

    #[track_caller]
    pub fn start_process(&self, exec: &str) -> u32 {
        self.try_start(exec).expect("start")
    }

    /// The process id of what was started.
    pub fn try_start(&self, exec: &str) -> ttrpc::Result<u32> {
        let mut request = api::StartRequest::new();
        request.id.clone_from(&self.id);
        exec.clone_into(&mut request.exec_id);
        let started = self.tasks.start(patience(), &request);
        started.map(|started| started.pid)
    }

    #[track_caller]
    pub fn wait(&self, exec: &str) -> u32 {
        self.try_wait(exec).expect("wait")
    }

    /// The exit status of what was waited for.
    pub fn try_wait(&self, exec: &str) -> ttrpc::Result<u32> {
        let mut request = api::WaitRequest::new();
        request.id.clone_from(&self.id);
        exec.clone_into(&mut request.exec_id);
        let ended = self.tasks.wait(patience(), &request);
        ended.map(|ended| ended.exit_status)
    }

    pub fn add_exec(&self, exec: &str, script: &str, streams: &Streams) -> ttrpc::Result<()> {
        // Without `terminal`: the request's own field decides.
        let process = json!({
            "args": ["/bin/sh", "-c", script],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
        });
        let mut spec = Any::new();
        spec.type_url = "types.containerd.io/opencontainers/runtime-spec/1/Process".into();
        spec.value = process.to_string().into_bytes();
        let mut request = api::ExecProcessRequest::new();
        request.id.clone_from(&self.id);
        exec.clone_into(&mut request.exec_id);
        request.terminal = streams.terminal;
        request.stdin.clone_from(&streams.stdin);
        request.stdout.clone_from(&streams.stdout);
        request.stderr.clone_from(&streams.stderr);
        request.spec = Some(spec).into();
        self.tasks.exec(patience(), &request).map(drop)
    }

    pub fn kill(&self, exec: &str, signal: u32) -> ttrpc::Result<()> {
        let mut request = api::KillRequest::new();
        request.id.clone_from(&self.id);
        exec.clone_into(&mut request.exec_id);
        request.signal = signal;
        self.tasks.kill(patience(), &request).map(drop)
    }

    pub fn delete(&self, exec: &str) -> ttrpc::Result<api::DeleteResponse> {
        let mut request = api::DeleteRequest::new();
        request.id.clone_from(&self.id);
        exec.clone_into(&mut request.exec_id);
        self.tasks.delete(patience(), &request)
    }

    pub fn state(&self, exec: &str) -> ttrpc::Result<api::StateResponse> {
        let mut request = api::StateRequest::new();
        request.id.clone_from(&self.id);
        exec.clone_into(&mut request.exec_id);
        self.tasks.state(patience(), &request)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends an empty shim and looks that it is gone.
    #[track_caller]
    pub fn shutdown(self) {
        let pid = self.pid();
        let mut request = api::ShutdownRequest::new();
        request.id.clone_from(&self.id);
        self.tasks.shutdown(patience(), &request).expect("shutdown");
        eventually("the shim ends", || is_gone(pid).then_some(()));
    }

    #[track_caller]
    pub fn end(self) {
        self.delete("").expect("delete");
        self.shutdown();
    }

    /// Text of one stream in the log.
    pub fn logged(&self, stream: &str) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let entries = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
        entries
            .filter(|entry| entry["stream"] == stream)
            .filter_map(|entry| Some(entry["log"].as_str()?.to_owned()))
            .collect()
    }

    pub fn exit_record(&self) -> Value {
        let text = fs::read_to_string(self.bundle.join("exit.json")).expect("read exit.json");
        serde_json::from_str(&text).expect("exit.json is JSON")
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if thread::panicking() {
            let pid = self.pid();
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            let _ = command(&self.bundle, &self.id, &self.manager_socket, "delete").output();
        }
    }
}

/// The streams of an exec, as its request names them.
#[derive(Default)]
pub struct Streams {
    pub terminal: bool,
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
}

/// For a call: one that hangs fails its test.
pub fn patience() -> context::Context {
    context::with_duration(DEADLINE)
}

/// What is said of a call that was to be refused.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: ttrpc::Result<T>, code: ttrpc::Code) -> String {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => {
            assert_eq!(status.code(), code, "{status}");
            status.message
        }
        other => panic!("this was to be refused with {code:?}: {other:?}"),
    }
}

fn manager_socket(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join("manager.sock")
}

fn command(bundle: &Path, id: &str, manager_socket: &Path, verb: &str) -> Command {
    let mut command = Command::new(binary("shim"));
    command
        .args(["-namespace", "test", "-id", id, "-address"])
        .arg(manager_socket)
        .arg(verb);
    command.current_dir(bundle);
    command
}

/// Whether a process has ended.
pub fn is_gone(pid: u32) -> bool {
    // A zombie is gone too: whoever is its parent in a test's world may not reap it.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X']))
    })
}
