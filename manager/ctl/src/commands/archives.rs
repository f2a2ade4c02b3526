//! Images and containers as archives: `save`, `load`, `import`, `export`; and `commit`, `diff`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};

use proto::v1::diff_response::Kind;
use proto::v1::{
    Chunk, CommitRequest, DiffRequest, ExportRequest, ImportInput, ImportStart, LoadInput, LoadStart,
    SaveRequest, import_input, load_input,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::cli::{Commit, Diff, Export, Import, Load, Save};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output;

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the manager.
const CHUNKS_MAX: usize = 4;

pub(super) async fn save(client: &Client, flags: Save) -> Result<u8> {
    let request = SaveRequest { images: flags.images };
    let mut images = client.images();
    receive(client, flags.output, images.save(request)).await
}

pub(super) async fn export(client: &Client, flags: Export) -> Result<u8> {
    let request = ExportRequest {
        container: flags.container,
    };
    let mut containers = client.containers();
    receive(client, flags.output, containers.export(request)).await
}

pub(super) async fn load(client: &Client, flags: Load) -> Result<u8> {
    let source = open(flags.input.as_deref())?;
    let start = LoadInput {
        kind: Some(load_input::Kind::Start(LoadStart {
            platform: flags.platform,
        })),
    };
    let part = |data| LoadInput {
        kind: Some(load_input::Kind::Data(data)),
    };
    let (inputs, failed) = feed(start, source, part);
    let mut images = client.images();
    let reply = tokio::select! {
        reply = images.load(inputs) => reply.map_err(|status| client.failure(&status))?,
        Ok(failure) = failed => return Err(failure.0),
    };
    for image in reply.into_inner().images {
        if image.names.is_empty() {
            output::print_line(&format!("Loaded image ID: {}", image.id))?;
        }
        for name in image.names {
            output::print_line(&format!("Loaded image: {name}"))?;
        }
    }
    Ok(0)
}

pub(super) async fn import(client: &Client, flags: Import) -> Result<u8> {
    if flags.file.contains("://") {
        return Err(Failure::new(format!(
            "import {}: this command fetches nothing itself",
            flags.file
        ))
        .with_hint(format!("curl -L {} | managerctl import -", flags.file)));
    }
    let path = PathBuf::from(&flags.file);
    let source = open((flags.file != "-").then_some(path.as_path()))?;
    let start = ImportInput {
        kind: Some(import_input::Kind::Start(ImportStart {
            name: flags.name,
            message: flags.message,
            changes: flags.changes,
            platform: flags.platform,
        })),
    };
    let part = |data| ImportInput {
        kind: Some(import_input::Kind::Data(data)),
    };
    let (inputs, failed) = feed(start, source, part);
    let mut images = client.images();
    let reply = tokio::select! {
        reply = images.import(inputs) => reply.map_err(|status| client.failure(&status))?,
        Ok(failure) = failed => return Err(failure.0),
    };
    output::print_line(&reply.into_inner().image.unwrap_or_default().id)?;
    Ok(0)
}

pub(super) async fn commit(client: &Client, flags: Commit) -> Result<u8> {
    let request = CommitRequest {
        container: flags.container,
        name: flags.name,
        author: flags.author,
        message: flags.message,
        changes: flags.changes,
        pause: flags.pause,
    };
    let reply = client.containers().commit(request).await;
    let reply = reply.map_err(|status| client.failure(&status))?;
    output::print_line(&reply.into_inner().image.unwrap_or_default().id)?;
    Ok(0)
}

pub(super) async fn diff(client: &Client, flags: Diff) -> Result<u8> {
    let request = DiffRequest {
        container: flags.container,
    };
    let failure = |status: Status| client.failure(&status);
    let reply = client.containers().diff(request).await;
    let mut messages = reply.map_err(failure)?.into_inner();
    while let Some(message) = messages.message().await.map_err(failure)? {
        let mut lines = String::new();
        for change in message.changes {
            let letter = match change.kind() {
                Kind::Added => 'A',
                Kind::Deleted => 'D',
                Kind::Changed | Kind::Unspecified => 'C',
            };
            lines.push(letter);
            lines.push(' ');
            // A name may hold what a terminal obeys, or a line's end.
            let path = String::from_utf8_lossy(&change.path);
            lines.extend(path.chars().map(|c| if c.is_control() { '?' } else { c }));
            lines.push('\n');
        }
        output::print(&lines)?;
    }
    Ok(0)
}

/// What a call answers that gives an archive.
type Reply = std::result::Result<Response<Streaming<Chunk>>, Status>;

/// Write the archive of a call to a file or stdout. Asked to end, this process takes half a file away first.
async fn receive(client: &Client, path: Option<PathBuf>, call: impl Future<Output = Reply>) -> Result<u8> {
    let watch = |kind| signal(kind).map_err(|error| Failure::new(format!("watch signals: {error}")));
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let mut sink = Sink::open(path)?;
    let interrupted = || Err(Failure::new("interrupted: the archive is not whole"));
    let written = tokio::select! {
        written = async { sink.write(client, call.await).await } => written,
        _ = interrupt.recv() => interrupted(),
        _ = terminate.recv() => interrupted(),
    };
    sink.finish(written)
}

/// Where an archive goes. A file is there only when it is whole.
enum Sink {
    Stdout,
    File {
        path: PathBuf,
        part: PathBuf,
        file: File,
    },
}

impl Sink {
    fn open(path: Option<PathBuf>) -> Result<Sink> {
        let Some(path) = path else {
            if io::stdout().is_terminal() {
                return Err(Failure::new("an archive is nothing for a terminal")
                    .with_hint("name a file with -o, or redirect the output"));
            }
            return Ok(Sink::Stdout);
        };
        // Something like /dev/stdout or a fifo is written to as it is.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let file = File::options()
                .write(true)
                .open(&path)
                .map_err(cannot("open", &path))?;
            return Ok(Sink::File {
                part: path.clone(),
                path,
                file,
            });
        }
        let mut part = path.clone().into_os_string();
        part.push(format!(".{}.part", std::process::id()));
        let part = PathBuf::from(part);
        let file = File::create_new(&part).map_err(cannot("make", &part))?;
        Ok(Sink::File { path, part, file })
    }

    /// Give the file its name if it is whole, or take it away.
    fn finish(self, written: Result<()>) -> Result<u8> {
        if let Sink::File { path, part, file } = self
            && path != part
        {
            if written.is_ok() {
                file.sync_all().map_err(cannot("write", &part))?;
                std::fs::rename(&part, &path).map_err(cannot("write", &path))?;
            } else {
                let _ = std::fs::remove_file(&part);
            }
        }
        written.map(|()| 0)
    }

    async fn write(&mut self, client: &Client, reply: Reply) -> Result<()> {
        let failure = |status: Status| client.failure(&status);
        let mut chunks = reply.map_err(failure)?.into_inner();
        while let Some(chunk) = chunks.message().await.map_err(failure)? {
            match self {
                Sink::Stdout => io::stdout()
                    .write_all(&chunk.data)
                    .map_err(|error| Failure::write("stdout", &error))?,
                Sink::File { part, file, .. } => {
                    file.write_all(&chunk.data).map_err(cannot("write", part))?;
                }
            }
        }
        io::stdout()
            .flush()
            .map_err(|error| Failure::write("stdout", &error))
    }
}

/// Where an archive comes from.
fn open(path: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    let Some(path) = path else {
        if io::stdin().is_terminal() {
            return Err(Failure::new("no archive comes from a terminal")
                .with_hint("name a file, or redirect the input"));
        }
        return Ok(Box::new(io::stdin()));
    };
    let file = File::open(path).map_err(cannot("open", path))?;
    Ok(Box::new(file))
}

/// Why reading stopped, and what keeps the stream of messages open: ended, it would pass for a whole archive.
pub(super) struct Broken<M>(
    pub(super) Failure,
    #[expect(dead_code, reason = "it is dropped late")] mpsc::Sender<M>,
);

/// The messages of an archive, read by a thread of its own. The other side tells if reading fails.
pub(super) fn feed<M: Send + 'static>(
    start: M,
    mut source: Box<dyn Read + Send>,
    part: impl Fn(Vec<u8>) -> M + Send + 'static,
) -> (ReceiverStream<M>, oneshot::Receiver<Broken<M>>) {
    let (sender, messages) = mpsc::channel(CHUNKS_MAX);
    let (fail, failed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut message = start;
        loop {
            // When the manager takes no more, its answer says why.
            if sender.blocking_send(message).is_err() {
                return;
            }
            let mut data = vec![0; CHUNK_BYTES];
            match source.read(&mut data) {
                Ok(0) => return,
                Ok(got) => {
                    data.truncate(got);
                    message = part(data);
                }
                Err(error) => {
                    let failure = Failure::new(format!("read the archive: {error}"));
                    let _ = fail.send(Broken(failure, sender));
                    return;
                }
            }
        }
    });
    (ReceiverStream::new(messages), failed)
}

fn cannot<'a>(action: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| Failure::new(format!("{action} {}: {error}", path.display()))
}
