//! `inspect`, `version`, `events`, `completion`.

use proto::v1::{Event, EventsRequest, InspectContainerRequest, InspectImageRequest, VersionRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::cli::{Events, Format, Inspect, Kind};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::{complete, output, views};

/// Prints what was found, and then complains of what was not: as docker does.
pub(super) async fn inspect(client: &Client, flags: Inspect, format: Option<Format>) -> Result<u8> {
    if format == Some(Format::Table) {
        return Err(Failure::new("inspect prints JSON only"));
    }
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in flags.names {
        match inspect_one(client, name, flags.kind, flags.size).await {
            Ok(details) => found.push(details),
            Err(failure) => failures.push(failure),
        }
    }
    match &format {
        Some(Format::Template(layout)) => layout.print(&found)?,
        _ => output::print_json(&found)?,
    }
    for failure in &failures {
        failure.report();
    }
    Ok(u8::from(!failures.is_empty()))
}

async fn inspect_one(
    client: &Client,
    name: String,
    kind: Option<Kind>,
    size: bool,
) -> Result<serde_json::Value> {
    if kind != Some(Kind::Image) {
        let request = InspectContainerRequest {
            container: name.clone(),
            size,
        };
        match client.containers().inspect(request).await {
            Ok(reply) => return crate::format::as_json(&views::ContainerDetails::from(&reply.into_inner())),
            Err(status) if status.code() == Code::NotFound && kind.is_none() => {}
            Err(status) => return Err(client.failure(&status)),
        }
    }
    match client
        .images()
        .inspect(InspectImageRequest { image: name.clone() })
        .await
    {
        Ok(reply) => crate::format::as_json(&views::ImageDetails::from(&reply.into_inner())),
        Err(status) if status.code() == Code::NotFound && kind.is_none() => Err(Failure::new(format!(
            "{name}: there is neither a container nor an image of this name"
        ))),
        Err(status) => Err(client.failure(&status)),
    }
}

/// The client's version is told even when no manager answers.
pub(super) async fn version(client: &Client, format: Format) -> Result<u8> {
    let answer = client.system().version(VersionRequest {}).await;
    let (manager, failure) = match answer {
        Ok(reply) => (Some(views::ManagerVersion::from(reply.into_inner())), None),
        Err(status) => (None, Some(client.failure(&status))),
    };
    let version = views::Version {
        client: views::ClientVersion {
            version: env!("CARGO_PKG_VERSION"),
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
        },
        manager,
    };
    match &format {
        Format::Json => output::print_json(&version)?,
        Format::Table => output::print(&version_text(&version))?,
        Format::Template(layout) => {
            // Docker calls it so.
            let server = json!({"Server": &version.manager});
            let row = crate::format::row(server, &version)?;
            layout.print_rows(std::slice::from_ref(&row), &row, &[])?;
        }
    }
    failure.map_or(Ok(0), Err)
}

fn version_text(version: &views::Version) -> String {
    let views::ClientVersion {
        version: client,
        os,
        architecture,
    } = &version.client;
    let mut lines = vec![
        ("Client", client.to_string()),
        ("  platform", format!("{os}/{architecture}")),
    ];
    if let Some(manager) = &version.manager {
        lines.extend([
            ("Manager", manager.version.clone()),
            ("  API", manager.api_version.clone()),
            ("  runtime", manager.runtime_version.clone()),
            ("  platform", format!("{}/{}", manager.os, manager.architecture)),
            ("  kernel", manager.kernel.clone()),
            ("  cgroups", manager.cgroups.clone()),
            ("  root", manager.root.clone()),
            (
                "  logging",
                format!("{} (of {})", manager.log_driver, manager.log_drivers.join(", ")),
            ),
        ]);
    }
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{:<12} {value}", format!("{name}:")));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

pub(super) async fn events(client: &Client, flags: Events, format: Format) -> Result<u8> {
    let request = EventsRequest {
        since_unix_nanos: flags.since.unwrap_or(0),
        until_unix_nanos: flags.until.unwrap_or(0),
        filters: flags.filters,
    };
    let reply = client
        .system()
        .events(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut events = reply.into_inner();
    while let Some(event) = events.message().await.map_err(|status| client.failure(&status))? {
        let shown = views::Event::from(&event);
        match &format {
            Format::Json => output::print_json_line(&shown)?,
            Format::Table => output::print_line(&shown.line())?,
            Format::Template(layout) => {
                let row = crate::format::row(event_row(&event), &shown)?;
                layout.print_rows(&[row], &Value::Null, &[])?;
            }
        }
    }
    Ok(0)
}

/// Docker's fields of an event.
fn event_row(event: &Event) -> Value {
    let from = event.attributes.get("image");
    json!({
        "Type": event.kind,
        "Action": event.action,
        "Status": event.action,
        "ID": event.subject,
        "From": from,
        "Actor": {"ID": event.subject, "Attributes": event.attributes},
        "Scope": "local",
        "Time": event.at_unix_nanos / 1_000_000_000,
        "TimeNano": event.at_unix_nanos,
    })
}

pub(super) fn completion(shell: clap_complete::Shell) -> Result<u8> {
    let script = complete::script(shell)
        .map_err(|error| Failure::new(format!("write the script of {shell}: {error}")))?;
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
