//! A manager that keeps the client's side of the contract honest: it has no containers, only small programs that
//! behave as a container's process would, and it writes down what is asked of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proto::v1::attach_input::Kind as AttachKind;
use proto::v1::attach_output::Kind as OutputKind;
use proto::v1::containers_server::{Containers, ContainersServer};
use proto::v1::exec_input::Kind as ExecKind;
use proto::v1::images_server::{Images, ImagesServer};
use proto::v1::layer_progress::Phase;
use proto::v1::*;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// Bytes that the program `bulk` writes.
pub(crate) const BULK_BYTES: usize = 32 << 20;
pub(crate) const ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// A pretended manager, until it is dropped.
pub(crate) struct Manager {
    pub(crate) socket: PathBuf,
    state: Arc<State>,
    _folder: tempfile::TempDir,
    /// Dropping it ends all tasks.
    _runtime: tokio::runtime::Runtime,
}

#[derive(Default)]
struct State {
    /// Requests in the order in which they came.
    calls: Mutex<Vec<String>>,
    image_is_here: Mutex<bool>,
    created: Mutex<Option<CreateContainerRequest>>,
    started: watch::Sender<bool>,
    signals: Mutex<VecDeque<String>>,
    signalled: watch::Sender<u32>,
}

impl Manager {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("manager.sock");
        let state = Arc::new(State {
            image_is_here: Mutex::new(true),
            ..State::default()
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(&socket).unwrap()
        };
        let server = tonic::transport::Server::builder()
            .add_service(ContainersServer::new(Fake(state.clone())))
            .add_service(ImagesServer::new(Fake(state.clone())))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self {
            socket,
            state,
            _folder: folder,
            _runtime: runtime,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn forget_image(&self) {
        *self.state.image_is_here.lock().unwrap() = false;
    }

    /// Makes a container be there that runs already.
    pub(crate) fn have_running(&self, program: &str, tty: bool) {
        let request = CreateContainerRequest {
            command: vec![program.to_owned()],
            tty,
            open_stdin: true,
            ..Default::default()
        };
        *self.state.created.lock().unwrap() = Some(request);
        self.state.started.send_replace(true);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap().clone()
    }

    pub(crate) fn created(&self) -> CreateContainerRequest {
        self.state
            .created
            .lock()
            .unwrap()
            .clone()
            .expect("something was created")
    }
}

#[derive(Clone)]
struct Fake(Arc<State>);

impl Fake {
    fn note(&self, call: impl Into<String>) {
        self.0.calls.lock().unwrap().push(call.into());
    }
}

/// What a program hears.
enum Heard {
    Stdin(Vec<u8>),
    Resize(WindowSize),
    CloseStdin,
    ClientLeft,
}

type Outputs = mpsc::Sender<Result<AttachOutput, Status>>;

async fn say(outputs: &Outputs, kind: OutputKind) -> bool {
    outputs.send(Ok(AttachOutput { kind: Some(kind) })).await.is_ok()
}

async fn exit(outputs: &Outputs, code: u32) {
    say(
        outputs,
        OutputKind::Exit(Exit {
            code,
            ..Default::default()
        }),
    )
    .await;
}

/// The programs there are. Each ends with an exit, but for `lost`.
async fn program(state: Arc<State>, args: Vec<String>, mut heard: mpsc::Receiver<Heard>, outputs: Outputs) {
    let out = |text: String| OutputKind::Stdout(text.into_bytes());
    match args[0].as_str() {
        "echo" => {
            say(&outputs, out(args[1..].join(" ") + "\n")).await;
            exit(&outputs, 0).await;
        }
        // What two lines look like when they come through a terminal.
        "lines" => {
            say(&outputs, out("one\r\ntwo\r\n".to_owned())).await;
            exit(&outputs, 0).await;
        }
        "fail" => {
            say(&outputs, out("out\n".to_owned())).await;
            say(&outputs, OutputKind::Stderr(b"err\n".to_vec())).await;
            exit(&outputs, 3).await;
        }
        "bulk" => {
            for chunk in bulk().chunks(16 << 10) {
                if !say(&outputs, OutputKind::Stdout(chunk.to_vec())).await {
                    return;
                }
            }
            exit(&outputs, 0).await;
        }
        // Says everything that it hears, in words.
        "listen" => {
            while let Some(event) = heard.recv().await {
                let (line, ends) = match event {
                    Heard::Stdin(data) => (
                        format!("stdin {:?}\r\n", String::from_utf8_lossy(&data)),
                        data.ends_with(b"q"),
                    ),
                    Heard::Resize(size) => (format!("size {}x{}\r\n", size.columns, size.rows), false),
                    Heard::CloseStdin => ("closed\n".to_owned(), true),
                    Heard::ClientLeft => {
                        state.calls.lock().unwrap().push("client left".to_owned());
                        return;
                    }
                };
                state.calls.lock().unwrap().push(format!("heard {}", line.trim()));
                say(&outputs, out(line)).await;
                if ends {
                    return exit(&outputs, 5).await;
                }
            }
        }
        "cat" => {
            while let Some(Heard::Stdin(data)) = heard.recv().await {
                say(&outputs, OutputKind::Stdout(data)).await;
            }
            exit(&outputs, 0).await;
        }
        // Says which signals it gets; SIGTERM ends it.
        "signals" => {
            say(&outputs, out("ready\n".to_owned())).await;
            let mut signalled = state.signalled.subscribe();
            loop {
                let next = state.signals.lock().unwrap().pop_front();
                match next {
                    Some(signal) => {
                        say(&outputs, out(format!("{signal}\n"))).await;
                        if signal == "SIGTERM" {
                            return exit(&outputs, 143).await;
                        }
                    }
                    None => signalled.changed().await.unwrap(),
                }
            }
        }
        "lost" => {}
        other => panic!("no program {other}"),
    }
}

/// Numbered lines, so that a hole would show.
pub(crate) fn bulk() -> Vec<u8> {
    let mut data = Vec::with_capacity(BULK_BYTES + 16);
    for line in 0_u32.. {
        if data.len() >= BULK_BYTES {
            break;
        }
        data.extend_from_slice(format!("{line:015}\n").as_bytes());
    }
    data
}

#[tonic::async_trait]
impl Containers for Fake {
    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        self.note("create");
        let request = request.into_inner();
        if !*self.0.image_is_here.lock().unwrap() {
            return Err(Status::not_found(format!("image {} is not here", request.image)));
        }
        let name = request.name.clone();
        *self.0.created.lock().unwrap() = Some(request);
        Ok(Response::new(CreateContainerResponse {
            id: ID.to_owned(),
            name,
            warnings: Vec::new(),
        }))
    }

    async fn start(
        &self,
        _: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        self.note("start");
        let command = self
            .0
            .created
            .lock()
            .unwrap()
            .as_ref()
            .map(|request| request.command.clone());
        if command.is_some_and(|command| command[0] == "missing") {
            return Err(Status::internal(
                "exec missing: No such file or directory (os error 2)",
            ));
        }
        self.0.started.send_replace(true);
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn kill(
        &self,
        request: Request<KillContainerRequest>,
    ) -> Result<Response<KillContainerResponse>, Status> {
        self.0
            .signals
            .lock()
            .unwrap()
            .push_back(request.into_inner().signal);
        self.0.signalled.send_modify(|count| *count += 1);
        Ok(Response::new(KillContainerResponse {}))
    }

    async fn attach(
        &self,
        request: Request<Streaming<AttachInput>>,
    ) -> Result<Response<BoxStream<AttachOutput>>, Status> {
        let mut inputs = request.into_inner();
        let Some(AttachInput {
            kind: Some(AttachKind::Start(_)),
        }) = inputs.message().await?
        else {
            return Err(Status::invalid_argument("the first input is not start"));
        };
        self.note("attach");
        let created = self.0.created.lock().unwrap().clone().unwrap();
        let (outputs, stream) = mpsc::channel(4);
        let (tell, heard) = mpsc::channel(64);
        let state = self.0.clone();
        let mut started = state.started.subscribe();
        tokio::spawn(async move {
            say(
                &outputs,
                OutputKind::Attached(Attached {
                    tty: created.tty,
                    ..Default::default()
                }),
            )
            .await;
            tokio::spawn(async move {
                while let Ok(Some(AttachInput { kind: Some(kind) })) = inputs.message().await {
                    let event = match kind {
                        AttachKind::Stdin(data) => Heard::Stdin(data),
                        AttachKind::Resize(size) => Heard::Resize(size),
                        AttachKind::CloseStdin(_) => Heard::CloseStdin,
                        AttachKind::Start(_) => panic!("a second start"),
                    };
                    if tell.send(event).await.is_err() {
                        return;
                    }
                }
                let _ = tell.send(Heard::ClientLeft).await;
            });
            started.wait_for(|&started| started).await.unwrap();
            program(state, created.command, heard, outputs).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecInput>>,
    ) -> Result<Response<BoxStream<AttachOutput>>, Status> {
        let mut inputs = request.into_inner();
        let Some(ExecInput {
            kind: Some(ExecKind::Start(start)),
        }) = inputs.message().await?
        else {
            return Err(Status::invalid_argument("the first input is not start"));
        };
        self.note(format!("exec {}", start.args.join(" ")));
        if start.args[0] == "missing" {
            return Err(Status::internal(
                "exec: \"missing\": executable file not found in $PATH",
            ));
        }
        let (outputs, stream) = mpsc::channel(4);
        let (tell, heard) = mpsc::channel(64);
        if let Some(size) = start.window {
            let _ = tell.send(Heard::Resize(size)).await;
        }
        let state = self.0.clone();
        tokio::spawn(async move {
            say(
                &outputs,
                OutputKind::Attached(Attached {
                    tty: start.tty,
                    ..Default::default()
                }),
            )
            .await;
            if start.detach {
                return;
            }
            tokio::spawn(async move {
                while let Ok(Some(ExecInput { kind: Some(kind) })) = inputs.message().await {
                    let event = match kind {
                        ExecKind::Stdin(data) => Heard::Stdin(data),
                        ExecKind::Resize(size) => Heard::Resize(size),
                        ExecKind::CloseStdin(_) => Heard::CloseStdin,
                        ExecKind::Start(_) => panic!("a second start"),
                    };
                    if tell.send(event).await.is_err() {
                        return;
                    }
                }
                let _ = tell.send(Heard::ClientLeft).await;
            });
            program(state, start.args, heard, outputs).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn inspect(
        &self,
        _: Request<InspectContainerRequest>,
    ) -> Result<Response<InspectContainerResponse>, Status> {
        self.note("inspect");
        let created = self.0.created.lock().unwrap().clone();
        let request = created.ok_or_else(|| Status::not_found("no such container"))?;
        let running = *self.0.started.borrow();
        let state = if running {
            container::State::Running
        } else {
            container::State::Exited
        };
        let container = Container {
            id: ID.to_owned(),
            name: "fake".to_owned(),
            state: state.into(),
            tty: request.tty,
            open_stdin: request.open_stdin,
            ..Default::default()
        };
        Ok(Response::new(InspectContainerResponse {
            container: Some(container),
            ..Default::default()
        }))
    }

    async fn list(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let container = |index: usize| Container {
            id: ID.to_owned(),
            name: format!("container-{index}"),
            state: container::State::Running.into(),
            ..Default::default()
        };
        Ok(Response::new(ListContainersResponse {
            containers: (0..20_000).map(container).collect(),
        }))
    }

    async fn remove(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("remove force={}", request.force));
        Ok(Response::new(RemoveContainerResponse {}))
    }
}

#[tonic::async_trait]
impl Images for Fake {
    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<BoxStream<PullProgress>>, Status> {
        let reference = request.into_inner().reference;
        self.note(format!("pull {reference}"));
        *self.0.image_is_here.lock().unwrap() = true;
        let (sender, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            for phase in [Phase::Downloading, Phase::Done] {
                let layer = LayerProgress {
                    digest: "sha256:0123456789abcdef".to_owned(),
                    phase: phase.into(),
                    total_bytes: 1500,
                    ..Default::default()
                };
                let _ = sender
                    .send(Ok(PullProgress {
                        kind: Some(pull_progress::Kind::Layer(layer)),
                    }))
                    .await;
            }
            let pulled = Pulled {
                image: Some(Image::default()),
                name: format!("docker.io/library/{reference}:latest"),
                digest: "sha256:feed".to_owned(),
            };
            let _ = sender
                .send(Ok(PullProgress {
                    kind: Some(pull_progress::Kind::Pulled(Box::new(pulled))),
                }))
                .await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn inspect(
        &self,
        _: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        Err(Status::not_found("no such image"))
    }
}
