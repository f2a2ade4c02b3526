//! `run` and `create`: from flags to a container, and to its exit.

use std::fs::File;
use std::io::{ErrorKind, Write as _};

use proto::v1::{
    AttachStart, CreateContainerRequest, CreateContainerResponse, Entrypoint, RemoveContainerRequest,
    StartContainerRequest, WindowSize,
};
use tonic::Code;

use super::{images, names, networks, ports, storage};
use crate::cli::{AttachedStream, Create, PullPolicy, Run};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::session::{Options, Session};
use crate::{environment, output, terminal};

/// Create, attach, start, relay: in this order, so that not a byte of output is missed.
pub(super) async fn run(client: &Client, flags: Run) -> Result<u8> {
    let Run {
        detach,
        session,
        create: flags,
    } = flags;
    if detach && !flags.attach.is_empty() {
        // Docker's words.
        return Err(Failure::new(
            "conflicting options: cannot specify both --attach and --detach",
        ));
    }
    let attached = Attached::of(&flags);
    if attached.stdin && flags.tty && !detach {
        require_terminal()?;
    }
    let window = terminal::window_size().filter(|_| flags.tty);
    let mut request = request(&flags, window)?;
    // A terminal has no end that could be handed on.
    request.stdin_once = flags.interactive && !flags.tty && !detach;
    let id = create(client, &flags, request).await?.id;
    let ran = if detach {
        start_and_leave(client, &id).await
    } else {
        let options = Options {
            stdin: attached.stdin,
            without_stdout: !attached.stdout,
            without_stderr: !attached.stderr,
            detach_keys: session.detach_keys,
            window,
            signals_to: session.sig_proxy.then(|| id.clone()),
            start: Some(id.clone()),
            repaint: false,
        };
        start_and_stay(client, &id, options).await
    };
    if ran.is_err() && flags.rm {
        remove_if_not_started(client, &id).await;
    }
    ran
}

async fn start_and_leave(client: &Client, id: &str) -> Result<u8> {
    let reply = client
        .containers()
        .start(StartContainerRequest {
            container: id.to_owned(),
        })
        .await;
    reply.map_err(|status| client.failure(&status).of_command())?;
    output::print_line(id)?;
    Ok(0)
}

async fn start_and_stay(client: &Client, id: &str, options: Options) -> Result<u8> {
    let start = AttachStart {
        container: id.to_owned(),
        stdin: options.stdin,
        replay: false,
        without_output: options.shows_nothing(),
    };
    let session = Session::attach(client, start).await?;
    if !options.shows_nothing() {
        return Ok(session.relay(options).await?.exit_code());
    }
    // As docker has it: like a container in the background, which is given its input first.
    output::print_line(id)?;
    session.relay(options).await?;
    Ok(0)
}

/// Which of the container's streams are joined to this process's: docker's rules.
struct Attached {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Attached {
    fn of(flags: &Create) -> Self {
        let named = |stream| flags.attach.contains(&stream);
        let output = flags.attach.is_empty();
        Self {
            stdin: flags.interactive || named(AttachedStream::Stdin),
            stdout: output || named(AttachedStream::Stdout),
            stderr: output || named(AttachedStream::Stderr),
        }
    }
}

/// The manager removes a `--rm` container when it exits. One that never ran has no exit. Without force, so that
/// one that does run, whose session was lost, is left alone.
async fn remove_if_not_started(client: &Client, id: &str) {
    let request = RemoveContainerRequest {
        container: id.to_owned(),
        force: false,
        volumes: true,
    };
    let _ = client.containers().remove(request).await;
}

pub(super) async fn create_only(client: &Client, flags: &Create) -> Result<u8> {
    let created = create(client, flags, request(flags, None)?).await?;
    output::print_line(&created.id)?;
    Ok(0)
}

/// Creates, and writes the ID into the file that is wanted. That is made first: one that is there belongs to another
/// container, which may run.
async fn create(
    client: &Client,
    flags: &Create,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    let Some(path) = &flags.identity.cidfile else {
        return create_or_pull(client, flags, request).await;
    };
    let fail = |error: std::io::Error| {
        let path = path.display();
        Failure::new(match error.kind() {
            ErrorKind::AlreadyExists => format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            ),
            _ => format!("write the container ID file {path}: {error}"),
        })
    };
    let mut file = File::create_new(path).map_err(fail)?;
    match create_or_pull(client, flags, request).await {
        Ok(created) => {
            file.write_all(created.id.as_bytes()).map_err(fail)?;
            Ok(created)
        }
        Err(error) => {
            let _ = std::fs::remove_file(path);
            Err(error)
        }
    }
}

/// Creates; an image that is not here is pulled, if that is wanted.
async fn create_or_pull(
    client: &Client,
    flags: &Create,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse> {
    if flags.pull == PullPolicy::Always {
        images::fetch_image(client, &request.image, &flags.platform, flags.quiet).await?;
    }
    match client.containers().create(request.clone()).await {
        Ok(created) => return Ok(warned(created.into_inner())),
        Err(status) if status.code() == Code::NotFound && flags.pull == PullPolicy::Missing => {
            if !flags.quiet {
                eprintln!("{}: not here, pulling", request.image);
            }
        }
        Err(status) => return Err(client.failure(&status)),
    }
    images::fetch_image(client, &request.image, &flags.platform, flags.quiet).await?;
    let created = client
        .containers()
        .create(request)
        .await
        .map_err(|status| client.failure(&status))?;
    Ok(warned(created.into_inner()))
}

/// What of the image is left out goes to standard error, as docker's warnings do.
fn warned(created: CreateContainerResponse) -> CreateContainerResponse {
    for warning in &created.warnings {
        eprintln!("WARNING: {warning}");
    }
    created
}

fn request(flags: &Create, window: Option<WindowSize>) -> Result<CreateContainerRequest> {
    let Some((image, command)) = flags.image_and_command.split_first() else {
        return Err(Failure::new("no image is named"));
    };
    let entrypoint = flags.entrypoint.as_ref().map(|program| Entrypoint {
        args: if program.is_empty() {
            Vec::new()
        } else {
            vec![program.clone()]
        },
    });
    let window = window.unwrap_or_default();
    let (network, networks) = networks::wanted(&flags.networks)?;
    Ok(CreateContainerRequest {
        name: flags.name.clone(),
        image: image.clone(),
        command: command.to_vec(),
        entrypoint,
        env: environment::gather(&flags.process.env_file, &flags.process.env)?,
        working_dir: flags.process.workdir.clone(),
        user: flags.process.user.clone(),
        hostname: flags.hostname.clone(),
        tty: flags.tty,
        open_stdin: flags.interactive,
        auto_remove: flags.rm,
        binds: Vec::new(),
        storage: storage::gather(&flags.storage)?,
        links: if networks.is_empty() {
            flags.networks.link.clone()
        } else {
            Vec::new()
        },
        network,
        networks,
        memory_bytes: flags.limits.memory.unwrap_or(0),
        cpu_quota_millis: flags.limits.cpus.unwrap_or(0),
        pids_limit: flags.limits.pids_limit.unwrap_or(0).max(0),
        labels: environment::labels(&flags.identity.label_file, &flags.label)?,
        stop_signal: flags.stop_signal.clone(),
        read_only: flags.read_only,
        privileged: flags.privileged,
        cap_add: flags.cap_add.clone(),
        cap_drop: flags.cap_drop.clone(),
        tty_columns: window.columns,
        tty_rows: window.rows,
        stdin_once: false,
        platform: flags.platform.clone(),
        restart: flags.upkeep.restart.clone(),
        healthcheck: flags.upkeep.healthcheck(),
        ports: ports::parse(&flags.ports)?,
        names: names::parse(&flags.names)?,
        resources: Some(flags.resources.message(&flags.limits)),
        isolation: Some(flags.isolation.message()?),
        domainname: flags.identity.domainname.clone(),
        annotations: flags.identity.annotation.iter().cloned().collect(),
        stop_timeout_seconds: flags.identity.stop_timeout,
        init: flags.identity.init,
        logging: Some(flags.logging.message()),
    })
}

/// A terminal in the container that nothing is typed at is a mistake; docker's words for it.
pub(super) fn require_terminal() -> Result<()> {
    if terminal::stdin_is_terminal() {
        Ok(())
    } else {
        Err(Failure::new("the input device is not a TTY"))
    }
}
