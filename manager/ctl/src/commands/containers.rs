//! Commands on containers that exist: `start`, `attach`, `stop`, `restart`, `kill`, `pause`,
//! `unpause`, `wait`, `rename`, `rm`, `ps`.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use proto::v1::container::State;
use proto::v1::{
    AttachStart, Container, ContainerSize, InspectContainerRequest, KillContainerRequest,
    ListContainersRequest, PauseContainerRequest, RemoveContainerRequest, RenameContainerRequest,
    RestartContainerRequest, StartContainerRequest, StopContainerRequest, UnpauseContainerRequest,
    WaitContainerRequest, wait_container_request,
};
use serde_json::json;
use tonic::{Code, Status};

use super::ports;
use super::run::require_terminal;
use crate::cli::{Attach, Condition, Format, Kill, List, Remove, Rename, SessionFlags, Start, Stop, Wait};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output::{self, Colour, Table, cell};
use crate::session::{Options, Session};
use crate::size::format_bytes;
use crate::{format, time, views};

/// Characters of an ID that are shown.
pub(super) const SHORT_ID: usize = 12;
/// Characters of a command that are shown.
const SHORT_COMMAND: usize = 20;

pub(super) async fn start(client: &Client, flags: Start) -> Result<u8> {
    if !flags.attach && !flags.interactive {
        return each(client, flags.containers, async |client, container| {
            client
                .containers()
                .start(StartContainerRequest {
                    container: container.clone(),
                })
                .await?;
            Ok(container)
        })
        .await;
    }
    let [container] = &flags.containers[..] else {
        return Err(Failure::new("only one container can be attached to at once"));
    };
    let container = inspect(client, container).await?;
    if matches!(
        container.state(),
        State::Running | State::Paused | State::Restarting
    ) {
        let (name, is_restarting) = (&container.name, container.state() == State::Restarting);
        let (state, command) = if is_restarting {
            ("restarting", "logs -f")
        } else {
            ("running", "attach")
        };
        return Err(Failure::new(format!("{name} is {state} already"))
            .with_hint(format!("managerctl {command} {name}")));
    }
    join(client, &container, flags.interactive, flags.session, true).await
}

pub(super) async fn attach(client: &Client, flags: Attach) -> Result<u8> {
    let container = inspect(client, &flags.container).await?;
    if container.state() != State::Running {
        let state = views::state_name(container.state());
        let hint = match container.state() {
            State::Paused => format!("managerctl unpause {}", container.name),
            State::Restarting => format!("managerctl logs -f {}", container.name),
            _ => format!("managerctl start -a {}", container.name),
        };
        return Err(Failure::new(format!(
            "{} is {state}, and only a running container can be attached to",
            container.name
        ))
        .with_hint(hint));
    }
    join(client, &container, !flags.no_stdin, flags.session, false).await
}

async fn inspect(client: &Client, container: &str) -> Result<Container> {
    let request = InspectContainerRequest {
        container: container.to_owned(),
        ..InspectContainerRequest::default()
    };
    let reply = client
        .containers()
        .inspect(request)
        .await
        .map_err(|status| client.failure(&status))?;
    reply
        .into_inner()
        .container
        .ok_or_else(|| Failure::new(format!("{container}: the manager tells nothing of it")))
}

async fn join(
    client: &Client,
    container: &Container,
    stdin: bool,
    flags: SessionFlags,
    start: bool,
) -> Result<u8> {
    // A container without stdin has nothing that could read it.
    let stdin = stdin && container.open_stdin;
    if stdin && container.tty {
        require_terminal()?;
    }
    let attach = AttachStart {
        container: container.id.clone(),
        stdin,
        ..AttachStart::default()
    };
    let session = Session::attach(client, attach).await?;
    let options = Options {
        stdin,
        detach_keys: flags.detach_keys,
        window: None,
        repaint: !start,
        signals_to: flags.sig_proxy.then(|| container.id.clone()),
        start: start.then(|| container.id.clone()),
        ..Options::default()
    };
    Ok(session.relay(options).await?.exit_code())
}

pub(super) async fn stop(client: &Client, flags: Stop) -> Result<u8> {
    let (timeout_seconds, signal) = (flags.timeout_seconds, flags.signal);
    each(client, flags.containers, async |client, container| {
        let request = StopContainerRequest {
            container: container.clone(),
            timeout_seconds,
            signal: signal.clone(),
        };
        client.containers().stop(request).await?;
        Ok(container)
    })
    .await
}

pub(super) async fn restart(client: &Client, flags: Stop) -> Result<u8> {
    let (timeout_seconds, signal) = (flags.timeout_seconds, flags.signal);
    each(client, flags.containers, async |client, container| {
        let request = RestartContainerRequest {
            container: container.clone(),
            timeout_seconds,
            signal: signal.clone(),
        };
        client.containers().restart(request).await?;
        Ok(container)
    })
    .await
}

pub(super) async fn pause(client: &Client, containers: Vec<String>) -> Result<u8> {
    each(client, containers, async |client, container| {
        let request = PauseContainerRequest {
            container: container.clone(),
        };
        client.containers().pause(request).await?;
        Ok(container)
    })
    .await
}

pub(super) async fn unpause(client: &Client, containers: Vec<String>) -> Result<u8> {
    each(client, containers, async |client, container| {
        let request = UnpauseContainerRequest {
            container: container.clone(),
        };
        client.containers().unpause(request).await?;
        Ok(container)
    })
    .await
}

pub(super) async fn rename(client: &Client, flags: Rename) -> Result<u8> {
    let request = RenameContainerRequest {
        container: flags.container,
        name: flags.name,
    };
    client
        .containers()
        .rename(request)
        .await
        .map_err(|status| client.failure(&status))?;
    Ok(0)
}

pub(super) async fn kill(client: &Client, flags: Kill) -> Result<u8> {
    let signal = flags.signal;
    each(client, flags.containers, async |client, container| {
        let request = KillContainerRequest {
            container: container.clone(),
            signal: signal.clone(),
        };
        client.containers().kill(request).await?;
        Ok(container)
    })
    .await
}

pub(super) async fn wait(client: &Client, flags: Wait) -> Result<u8> {
    let condition = match flags.condition {
        Condition::NotRunning => wait_container_request::Condition::NotRunning,
        Condition::NextExit => wait_container_request::Condition::NextExit,
        Condition::Removed => wait_container_request::Condition::Removed,
    };
    each(client, flags.containers, async |client, container| {
        let request = WaitContainerRequest {
            container,
            condition: condition.into(),
        };
        let reply = client.containers().wait(request).await?;
        Ok(reply.into_inner().exit.unwrap_or_default().code.to_string())
    })
    .await
}

pub(super) async fn remove(client: &Client, flags: Remove) -> Result<u8> {
    let (force, volumes) = (flags.force, flags.volumes);
    // With force, what is not there is as wished: it is said, and fails nothing (as docker does since version 23).
    let is_failure = |status: &Status| !force || status.code() != Code::NotFound;
    each_but(client, flags.containers, is_failure, async |client, container| {
        client
            .containers()
            .remove(RemoveContainerRequest {
                container: container.clone(),
                force,
                volumes,
            })
            .await?;
        Ok(container)
    })
    .await
}

/// Does one thing to several containers (or leases) at once, and prints one line for each, in the order in which they
/// were named. One that fails does not keep the others from it.
pub(super) async fn each(
    client: &Client,
    containers: Vec<String>,
    act: impl AsyncFn(&Client, String) -> std::result::Result<String, Status>,
) -> Result<u8> {
    each_but(client, containers, |_| true, act).await
}

/// The same, where not each error that is reported is a failure of the command.
async fn each_but(
    client: &Client,
    containers: Vec<String>,
    is_failure: impl Fn(&Status) -> bool,
    act: impl AsyncFn(&Client, String) -> std::result::Result<String, Status>,
) -> Result<u8> {
    let act = &act;
    let acts = containers.into_iter().map(|container| act(client, container));
    let mut code = 0;
    for outcome in join_all(acts).await {
        match outcome {
            Ok(line) => output::print_line(&line)?,
            Err(status) => {
                client.failure(&status).report();
                code = code.max(u8::from(is_failure(&status)));
            }
        }
    }
    Ok(code)
}

/// A command in quotes, cut to what a table has place for.
fn command(container: &Container, whole: bool) -> String {
    let mut command = container.command.join(" ");
    if !whole && command.chars().count() > SHORT_COMMAND {
        command = first(&command, SHORT_COMMAND - 1) + "…";
    }
    format!("{command:?}")
}

/// With docker's fields.
fn row(container: &Container, whole: bool) -> Result<serde_json::Value> {
    let id_length = if whole { usize::MAX } else { SHORT_ID };
    let dockers = json!({
        "ID": first(&container.id, id_length),
        "Names": container.name,
        "Image": container.image,
        "Command": command(container, whole),
        "CreatedAt": time::rfc3339(container.created_unix_nanos),
        "RunningFor": format!("{} ago", time::elapsed(container.created_unix_nanos)),
        "State": views::state_name(container.state()),
        "Status": status(container).0,
        "Ports": ports::shown(&container.ports),
        "Labels": format::labels(&container.labels),
        "Label": container.labels,
        "Networks": networks(container),
        "Size": container.size.as_ref().map(size),
    });
    format::row(dockers, &views::Container::from(container))
}

/// The names of all networks that it is on.
fn networks(container: &Container) -> String {
    let places = container.networks.iter().map(|place| place.name.as_str());
    let first = Some(container.network.as_str()).filter(|name| !name.is_empty());
    let names: BTreeSet<&str> = places.chain(first).collect();
    names.into_iter().collect::<Vec<_>>().join(",")
}

/// Docker's words for what a container has written, and for that with its image.
fn size(size: &ContainerSize) -> String {
    let written = format_bytes(size.upper_bytes);
    match size.root_bytes {
        0 => written,
        all => format!("{written} (virtual {})", format_bytes(all)),
    }
}

pub(super) async fn list(client: &Client, flags: &List, format: Format) -> Result<u8> {
    let last = flags.last.or(flags.latest.then_some(1));
    let request = ListContainersRequest {
        all: flags.all || last.is_some(),
        filters: flags.filters.clone(),
        // It costs the manager a walk through files. A template asks by naming it, as with docker.
        size: !flags.quiet && (flags.size || format.names("Size")),
        last: last.map_or(0, |last| u32::try_from(last).unwrap_or(u32::MAX)),
    };
    let reply = client
        .containers()
        .list(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut containers = reply.into_inner().containers;
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_unix_nanos));
    containers.truncate(last.unwrap_or(usize::MAX));
    let shorten = |text: &str, length| {
        if flags.no_trunc {
            text.to_owned()
        } else {
            first(text, length)
        }
    };
    if flags.quiet {
        let ids: String = containers
            .iter()
            .map(|container| shorten(&container.id, SHORT_ID) + "\n")
            .collect();
        output::print(&ids)?;
    } else if format == Format::Json {
        output::print_json(&containers.iter().map(views::Container::from).collect::<Vec<_>>())?;
    } else if let Format::Template(layout) = &format {
        let row = |container| row(container, flags.no_trunc);
        let rows: Vec<_> = containers.iter().map(row).collect::<Result<_>>()?;
        layout.print_rows(&rows, &row(&Container::default())?, &[("ID", "CONTAINER ID")])?;
    } else {
        let titles = [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "ADDRESS",
            "PORTS",
            "NAMES",
            "SIZE",
        ];
        let columns = if flags.size { 9 } else { 8 };
        let mut table = Table::new(&titles[..columns]);
        for container in &containers {
            let address = container.address.split('/').next().unwrap_or_default();
            let cells = [
                cell(shorten(&container.id, SHORT_ID)),
                cell(&container.image),
                cell(command(container, flags.no_trunc)),
                cell(format!("{} ago", time::elapsed(container.created_unix_nanos))),
                status(container),
                cell(address),
                cell(ports::shown(&container.ports)),
                cell(&container.name),
                cell(container.size.as_ref().map(size).unwrap_or_default()),
            ];
            table.row(&cells[..columns]);
        }
        table.print()?;
    }
    Ok(0)
}

pub(super) fn first(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

/// The state, and since when, in docker's words.
fn status(container: &Container) -> (String, Colour) {
    let up = || format!("Up {}", time::elapsed(container.started_unix_nanos));
    match (container.state(), &container.exit) {
        (State::Running, _) => match container.health.as_ref().map(|health| health.status.as_str()) {
            None => (up(), Colour::Green),
            Some("starting") => (format!("{} (health: starting)", up()), Colour::Yellow),
            Some("healthy") => (format!("{} (healthy)", up()), Colour::Green),
            Some(status) => (format!("{} ({})", up(), output::clean(status)), Colour::Red),
        },
        (State::Paused, _) => (format!("{} (Paused)", up()), Colour::Yellow),
        (State::Restarting, exit) => {
            let exit = exit.unwrap_or_default();
            let ago = time::elapsed(exit.at_unix_nanos);
            (format!("Restarting ({}) {ago} ago", exit.code), Colour::Yellow)
        }
        (State::Exited, Some(exit)) => {
            let colour = if exit.code == 0 { Colour::None } else { Colour::Red };
            (
                format!("Exited ({}) {} ago", exit.code, time::elapsed(exit.at_unix_nanos)),
                colour,
            )
        }
        (State::Exited, None) => ("Exited".to_owned(), Colour::None),
        (State::Created, _) => ("Created".to_owned(), Colour::None),
        (State::Removing, _) => ("Removing".to_owned(), Colour::Yellow),
        (State::Unspecified, _) => ("Unknown".to_owned(), Colour::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::Exit;

    #[test]
    fn an_exit_is_told_with_its_code() {
        let container = Container {
            state: State::Exited.into(),
            exit: Some(Exit {
                code: 137,
                at_unix_nanos: 0,
                oom_killed: true,
            }),
            ..Default::default()
        };
        let (text, colour) = status(&container);
        assert!(
            text.starts_with("Exited (137) ") && text.ends_with(" years ago"),
            "{text}"
        );
        assert_eq!(colour, Colour::Red);
    }
}
