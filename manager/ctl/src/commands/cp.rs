//! `cp`: files out of containers, and into them.

mod holes;
mod pack;
mod place;
mod unpack;

use std::io::{self, IsTerminal as _, Read};
use std::thread::JoinHandle;

use proto::v1::{CopyFromRequest, CopyInput, CopyStart, StatPathRequest, StatPathResponse, copy_input};
use tonic::Code;

use super::archives::feed;
use crate::cli::Copy;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::size::format_bytes;
use place::{Argument, Kind, Place, base, in_folder, plan};

/// As many links may be followed as the kernel follows.
const LINKS_MAX: usize = 40;

/// From one side to the other.
pub(super) async fn copy(client: &Client, flags: Copy) -> Result<u8> {
    match (
        Argument::parse(&flags.source),
        Argument::parse(&flags.destination),
    ) {
        (Argument::Container { name, path }, Argument::Local(to)) => {
            copy_from(client, &flags, &name, path, &to).await
        }
        (Argument::Local(from), Argument::Container { name, path }) => {
            copy_to(client, &flags, &from, &name, path).await
        }
        (Argument::Container { .. }, Argument::Container { .. }) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        (Argument::Local(_), Argument::Local(_)) => Err(Failure::new(
            "must specify at least one container source: as CONTAINER:PATH",
        )),
    }
}

async fn copy_from(client: &Client, flags: &Copy, container: &str, path: String, to: &str) -> Result<u8> {
    let found = stat(client, container, &path).await?;
    let found = found.ok_or_else(|| missing(container, &path))?;
    let (mut source, mut kind) = (path.clone(), Kind::of_mode(found.mode));
    if flags.follow_link {
        let followed = follow(client, container, path.clone(), found).await?;
        source = followed.path;
        kind = followed.kind.ok_or_else(|| missing(container, &source))?;
    }
    // What a link leads to is still called as the link is.
    let own_name = base(&path).to_owned();
    let request = |name| CopyFromRequest {
        container: container.to_owned(),
        path: source.clone(),
        name,
    };
    if to == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::new("an archive is nothing for a terminal").with_hint("redirect the output"));
        }
        receive(client, request(own_name), &mut io::stdout()).await?;
        return Ok(0);
    }
    let local = Place::of_local(to)?;
    let (folder, name) = plan(kind, &local).map_err(|what| Failure::new(format!("{to}: {what}")))?;
    let name = name.unwrap_or(own_name);
    let expected = unpack::Expected {
        name: name.clone(),
        is_folder: kind == Kind::Folder,
        keep_owners: flags.archive,
    };
    let (mut writer, unpacking) = unpack::unpack(&folder, expected)?;
    let received = receive(client, request(name), &mut writer).await;
    drop(writer);
    let unpacked = unpacking.join();
    // What came wrong is told first, unless it is that nobody took it.
    let bytes = match received {
        Err(failure) if unpacked.is_ok() || !failure.message.is_empty() => return Err(failure),
        received => received,
    };
    unpacked.map_err(|error| Failure::new(format!("unpack in {folder}: {error}")))?;
    tell(flags, bytes?, to);
    Ok(0)
}

async fn copy_to(client: &Client, flags: &Copy, from: &str, container: &str, path: String) -> Result<u8> {
    let place = match stat(client, container, &path).await? {
        Some(found) => follow(client, container, path.clone(), found).await?,
        None => Place {
            path: path.clone(),
            kind: None,
        },
    };
    let (folder, source): (String, Box<dyn Read + Send>) = if from == "-" {
        if place.kind != Some(Kind::Folder) {
            return Err(Failure::new(format!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        (place.path, Box::new(io::stdin()))
    } else {
        let source = Place::of_source(from, flags.follow_link)?;
        let kind = source.kind.unwrap_or(Kind::File);
        let planned = plan(kind, &place);
        let (folder, name) = planned.map_err(|what| Failure::new(format!("{container}:{path}: {what}")))?;
        let name = name.unwrap_or_else(|| base(from).to_owned());
        (folder, Box::new(pack::pack(source.path, name)?))
    };
    let start = CopyInput {
        kind: Some(copy_input::Kind::Start(CopyStart {
            container: container.to_owned(),
            path: folder,
            to_user: flags.archive,
        })),
    };
    let (counted, bytes) = pack::counted(source);
    let part = |data| CopyInput {
        kind: Some(copy_input::Kind::Data(data)),
    };
    let (inputs, failed) = feed(start, Box::new(counted), part);
    let mut containers = client.containers();
    tokio::select! {
        reply = containers.copy_to(inputs) => { reply.map_err(|status| client.failure(&status))?; }
        Ok(broken) = failed => return Err(broken.0),
    }
    tell(flags, bytes.total(), &format!("{container}:{path}"));
    Ok(0)
}

/// Where links lead, which only the last name of a path can be.
async fn follow(
    client: &Client,
    container: &str,
    mut path: String,
    mut found: StatPathResponse,
) -> Result<Place> {
    for _ in 0..LINKS_MAX {
        let kind = Kind::of_mode(found.mode);
        if kind != Kind::Link {
            return Ok(Place {
                path,
                kind: Some(kind),
            });
        }
        let target = String::from_utf8_lossy(&found.link_target).into_owned();
        path = in_folder(&path, &target);
        match stat(client, container, &path).await? {
            Some(next) => found = next,
            None => return Ok(Place { path, kind: None }),
        }
    }
    Err(Failure::new(format!(
        "{container}:{path}: more than {LINKS_MAX} links, one after the other"
    )))
}

/// What is at a path of a container; None: nothing.
async fn stat(client: &Client, container: &str, path: &str) -> Result<Option<StatPathResponse>> {
    let request = StatPathRequest {
        container: container.to_owned(),
        path: path.to_owned(),
    };
    match client.containers().stat_path(request).await {
        Ok(found) => Ok(Some(found.into_inner())),
        // That of a container has other words.
        Err(status) if status.code() == Code::NotFound && status.message().starts_with("no such file") => {
            Ok(None)
        }
        Err(status) => Err(client.failure(&status)),
    }
}

fn missing(container: &str, path: &str) -> Failure {
    Failure::new(format!("could not find the file {path} in container {container}"))
}

/// Take an archive, to its end. A failure without words: nobody takes it.
async fn receive(client: &Client, request: CopyFromRequest, to: &mut impl io::Write) -> Result<u64> {
    let failure = |status| client.failure(&status);
    let mut chunks = client
        .containers()
        .copy_from(request)
        .await
        .map_err(failure)?
        .into_inner();
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await.map_err(failure)? {
        bytes += chunk.data.len() as u64;
        to.write_all(&chunk.data)
            .map_err(|error| Failure::write("the archive", &error))?;
    }
    to.flush()
        .map_err(|error| Failure::write("the archive", &error))?;
    Ok(bytes)
}

fn joined(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread for it has ended")))
}

fn tell(flags: &Copy, bytes: u64, to: &str) {
    if !flags.quiet {
        eprintln!("Successfully copied {} to {to}", format_bytes(bytes));
    }
}
