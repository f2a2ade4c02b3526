//! One more process in a running container. Its streams are fifos between shim and manager; a client that
//! leaves does not end it, its output is then thrown away.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::container::{Container, Exit};
use crate::engine::{Engine, Inner, blocking};
use crate::health::is_probe;
use crate::input::{self, INPUT_QUEUE_MAX, Input, OUTPUT_QUEUE_MAX, Output};
use crate::request::{check_env, check_strings, check_working_dir};
use crate::shim::{Shim, Streams};
use crate::signals::{KILL_TIMEOUT, SIGKILL, not_paused};
use crate::spec::{self, layers::Layers};
use crate::{Error, bundle, names, userns};

/// A process that has ended may have left children that keep its streams open; after this time without
/// output they are not waited for.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const BLOCK_BYTES: usize = 32 << 10;

/// What is to run, and how.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Id, name, or prefix of an id.
    pub container: String,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `A=b`, over the container's own.
    pub env: Vec<String>,
    /// Absolute; empty: the container's.
    pub working_dir: String,
    /// Empty: the container's.
    pub user: String,
    /// Give it a terminal.
    pub tty: bool,
    /// Give it standard input.
    pub stdin: bool,
    /// Give it no streams at all, and do not wait for it.
    pub detach: bool,
    /// With all capabilities.
    pub privileged: bool,
    /// Columns and rows of the terminal.
    pub window: Option<(u32, u32)>,
}

/// The client's ends of a process. Dropping both leaves it running.
pub struct ExecAttachment {
    /// Names the process.
    pub exec_id: String,
    /// What it writes; the last one is its exit. Ends at once for a detached one.
    pub output: mpsc::Receiver<Result<Output, Error>>,
    /// What the client sends.
    pub input: mpsc::Sender<Input>,
}

/// The manager's ends of the fifos.
struct Pipes {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Engine {
    /// Run a process in a running container.
    pub async fn exec(&self, request: ExecRequest) -> Result<ExecAttachment, Error> {
        request.validate()?;
        let (snapshot, shim) = self.running(&request.container, "exec in")?;
        not_paused("exec in", &snapshot)?;
        let exec_id = names::random_id()?;
        let process = begin(&self.0, &snapshot.container, &shim, &exec_id, &request).await?;
        let container = snapshot.container;
        let of_exec = ("exec_id", exec_id.clone());
        self.0
            .events
            .tell(&container, "exec_start", std::slice::from_ref(&of_exec));

        let (sender, output) = mpsc::channel(OUTPUT_QUEUE_MAX);
        let (input, inputs) = mpsc::channel(INPUT_QUEUE_MAX);
        let sender = (!request.detach).then_some(sender);
        let engine = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Some(exit) = process.tend(inputs, sender).await {
                let of_exit = ("exit_code", exit.code.to_string());
                engine.events.tell(&container, "exec_die", &[of_exec, of_exit]);
            }
        });
        Ok(ExecAttachment {
            exec_id,
            output,
            input,
        })
    }
}

impl ExecRequest {
    fn validate(&self) -> Result<(), Error> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("args", "no program is named"));
        }
        check_strings("args", &self.args)?;
        check_env(&self.env)?;
        check_strings("user", std::slice::from_ref(&self.user))?;
        check_working_dir(&self.working_dir)
    }
}

fn folder(bundle: &Path, exec_id: &str) -> PathBuf {
    bundle.join("exec").join(exec_id)
}

/// Describe the process, and make its fifos.
async fn prepare(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    request: &ExecRequest,
    folder: &Path,
) -> Result<Value, Error> {
    let (engine, container) = (Arc::clone(engine), Arc::clone(container));
    let (request, folder) = (request.clone(), folder.to_owned());
    blocking(move || {
        let text = bundle::config(&engine.config.bundle(&container.id))?;
        let config: Value = serde_json::from_str(&text)
            .map_err(|error| Error::shim(&container.id, format!("read its config.json: {error}")))?;
        let user = match request.user.as_str() {
            "" => None,
            wanted => {
                let rootfs = engine.images.rootfs(&container.id)?;
                let more = &container.request.isolation.group_add;
                let user = spec::user::resolve(&Layers::new(&rootfs), wanted, more)?;
                userns::check_user(rootfs.owners.as_ref(), wanted, &user)?;
                Some(user)
            }
        };
        let process = spec::process::exec(&config["process"], &request, user.as_ref());
        if !request.detach {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(Error::file("make the folder", &folder))?;
            let streams = [
                ("stdin", request.stdin),
                ("stdout", true),
                ("stderr", !request.tty),
            ];
            for (name, _) in streams.into_iter().filter(|(_, wanted)| *wanted) {
                bundle::make_fifo(&folder.join(name))?;
            }
        }
        Ok(process)
    })
    .await
}

/// Begin a process in a container. It runs when this returns, and has to be tended.
pub(crate) async fn begin(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    shim: &Shim,
    exec_id: &str,
    request: &ExecRequest,
) -> Result<Process, Error> {
    let bundle = engine.config.bundle(&container.id);
    let folder = folder(&bundle, exec_id);
    let process = prepare(engine, container, request, &folder).await?;
    match start(shim, exec_id, request, &process, &folder).await {
        Ok(pipes) => Ok(Process {
            shim: shim.clone(),
            exec_id: exec_id.to_owned(),
            record: bundle::exec_exit(&bundle, exec_id),
            fifo: request.stdin.then(|| folder.join("stdin")),
            folder,
            pipes,
        }),
        Err(error) => {
            remove(&folder).await;
            Err(error)
        }
    }
}

/// Start the process. The fifos are opened for reading first, so that the shim finds them so.
async fn start(
    shim: &Shim,
    exec_id: &str,
    request: &ExecRequest,
    process: &Value,
    folder: &Path,
) -> Result<Pipes, Error> {
    let path = |name: &str, wanted: bool| {
        if wanted && !request.detach {
            folder.join(name).to_string_lossy().into_owned()
        } else {
            String::new()
        }
    };
    let streams = Streams {
        terminal: request.tty,
        stdin: path("stdin", request.stdin),
        stdout: path("stdout", true),
        stderr: path("stderr", !request.tty),
    };
    let open = |path: &str| match path {
        "" => Ok(None),
        path => pipe::OpenOptions::new()
            .open_receiver(path)
            .map(Some)
            .map_err(Error::file("open the fifo", Path::new(path))),
    };
    let pipes = Pipes {
        stdout: open(&streams.stdout)?,
        stderr: open(&streams.stderr)?,
    };
    shim.exec(exec_id, process, streams).await?;
    match shim.start(exec_id).await {
        Ok(_) => Ok(pipes),
        Err(error) => {
            if let Err(error) = shim.delete(exec_id).await {
                tracing::warn!(exec_id, %error, "a process that did not start was not deleted");
            }
            Err(error)
        }
    }
}

/// A process that runs in a container.
pub(crate) struct Process {
    shim: Shim,
    exec_id: String,
    /// Where its shim writes its exit down.
    record: PathBuf,
    folder: PathBuf,
    fifo: Option<PathBuf>,
    pipes: Pipes,
}

impl Process {
    /// See the process through to its end. None: the shim was lost.
    pub(crate) async fn tend(
        self,
        inputs: mpsc::Receiver<Input>,
        sender: Option<mpsc::Sender<Result<Output, Error>>>,
    ) -> Option<Exit> {
        let (ended, end) = watch::channel(false);
        let wait = async {
            // A shim that is killed may have written down what it could tell nobody any more.
            let exit = match self.shim.wait(&self.exec_id).await {
                Err(error) => bundle::exit_on_record(&self.record).ok_or(error),
                told => told,
            };
            let _ = ended.send(true);
            exit
        };
        let mut over = end.clone();
        let input = async {
            tokio::select! {
                // An exec's standard input has one client; it goes with that one.
                () = input::forward(inputs, &self.shim, &self.exec_id, self.fifo.as_deref(), true) => {}
                _ = over.wait_for(|over| *over) => {}
            }
        };
        let stdout = copy(self.pipes.stdout, end.clone(), sender.clone(), Output::Stdout);
        let stderr = copy(self.pipes.stderr, end, sender.clone(), Output::Stderr);
        let (exit, (), (), ()) = tokio::join!(wait, input, stdout, stderr);
        if exit.is_ok()
            && let Err(error) = self.shim.delete(&self.exec_id).await
        {
            tracing::debug!(exec_id = self.exec_id, %error, "an ended process was not deleted");
        }
        remove(&self.folder).await;
        let told = exit.as_ref().ok().copied();
        if let Some(sender) = sender {
            let _ = sender.send(exit.map(Output::Exit)).await;
        }
        told
    }
}

/// Copy a stream to the client until it ends; to nobody, when there is no client any more.
async fn copy(
    pipe: Option<pipe::Receiver>,
    mut end: watch::Receiver<bool>,
    mut sender: Option<mpsc::Sender<Result<Output, Error>>>,
    output: fn(Vec<u8>) -> Output,
) {
    let Some(mut pipe) = pipe else { return };
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let silence = async {
            let _ = end.wait_for(|over| *over).await;
            tokio::time::sleep(SILENCE_MAX).await;
        };
        let length = tokio::select! {
            read = pipe.read(&mut block) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
            () = silence => return,
        };
        if let Some(client) = &sender
            && client.send(Ok(output(block[..length].to_vec()))).await.is_err()
        {
            sender = None;
        }
    }
}

async fn remove(folder: &Path) {
    let folder = folder.to_owned();
    let done = blocking(move || match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", &folder)(error))
        }
        _ => Ok(()),
    });
    if let Err(error) = done.await {
        tracing::warn!(%error, "left behind, until the container ends");
    }
}

/// After a manager has died: read the output of the processes it had started to nowhere, so that they do not
/// wait for a reader, and remove their fifos when they end. Probes, whose outcome nobody wants any more, are ended.
pub(crate) fn drain_abandoned(bundle: &Path, shim: &Shim) {
    let Ok(folders) = fs::read_dir(bundle.join("exec")) else {
        return;
    };
    for folder in folders.flatten().map(|entry| entry.path()) {
        let open = |name: &str| pipe::OpenOptions::new().open_receiver(folder.join(name)).ok();
        let (stdout, stderr) = (open("stdout"), open("stderr"));
        let name = folder.file_name().and_then(|name| name.to_str());
        let probe = name.filter(|name| is_probe(name)).map(str::to_owned);
        let shim = shim.clone();
        tokio::spawn(async move {
            if let Some(probe) = &probe {
                // The wait comes before the deletion, which is for what has ended.
                let _ = shim.kill(probe, SIGKILL).await;
                let _ = tokio::time::timeout(KILL_TIMEOUT, shim.wait(probe)).await;
            }
            let (never, end) = watch::channel(probe.is_some());
            tokio::join!(
                copy(stdout, end.clone(), None, Output::Stdout),
                copy(stderr, end, None, Output::Stderr)
            );
            drop(never);
            if let Some(probe) = probe {
                let _ = shim.delete(&probe).await;
            }
            remove(&folder).await;
        });
    }
}
