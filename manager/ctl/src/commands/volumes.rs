//! `volume create`, `volume ls`, `volume inspect`, `volume rm`.

use proto::v1::{CreateVolumeRequest, InspectVolumeRequest, ListVolumesRequest, RemoveVolumeRequest, Volume};
use serde_json::json;

use super::containers::each;
use crate::cli::{CreateVolume, Format, ListVolumes, RemoveVolumes};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::format;
use crate::output::{self, Table, cell};
use crate::{environment, views};

pub(super) async fn create(client: &Client, flags: CreateVolume) -> Result<u8> {
    let request = CreateVolumeRequest {
        name: flags.name,
        driver: flags.driver,
        labels: environment::labels(&[], &flags.label)?,
        options: environment::labels(&[], &flags.options)?,
    };
    let reply = client.volumes().create(request).await;
    let reply = reply.map_err(|status| client.failure(&status))?;
    output::print_line(&reply.into_inner().volume.unwrap_or_default().name)?;
    Ok(0)
}

pub(super) async fn list(client: &Client, flags: ListVolumes, format: Format) -> Result<u8> {
    let request = ListVolumesRequest {
        filters: flags.filters,
    };
    let reply = client.volumes().list(request).await;
    let reply = reply.map_err(|status| client.failure(&status))?.into_inner();
    warn(&reply.warnings);
    let volumes = reply.volumes;
    if flags.quiet {
        let names = volumes.iter().map(|volume| volume.name.clone() + "\n");
        output::print(&names.collect::<String>())?;
    } else if format == Format::Json {
        output::print_json(&volumes.iter().map(views::Volume::from).collect::<Vec<_>>())?;
    } else if let Format::Template(layout) = &format {
        let rows: Vec<_> = volumes.iter().map(row).collect::<Result<_>>()?;
        layout.print_rows(&rows, &row(&Volume::default())?, &[("Name", "VOLUME NAME")])?;
    } else {
        let mut table = Table::new(&["DRIVER", "VOLUME NAME"]);
        for volume in &volumes {
            table.row([cell(&volume.driver), cell(&volume.name)]);
        }
        table.print()?;
    }
    Ok(0)
}

/// What plugins failed to say.
fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("WARNING: {}", output::clean(warning));
    }
}

/// With docker's fields.
fn row(volume: &Volume) -> Result<serde_json::Value> {
    let dockers = json!({
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": volume.mountpoint,
        "Labels": format::labels(&volume.labels),
        "Label": volume.labels,
        "Scope": volume.scope,
        "Links": volume.containers.len().to_string(),
    });
    format::row(dockers, &views::Volume::from(volume))
}

/// What is there is shown, even if something else that was asked for is not.
pub(super) async fn inspect(client: &Client, names: Vec<String>, format: Option<Format>) -> Result<u8> {
    if format == Some(Format::Table) {
        return Err(Failure::new("inspect prints JSON, or what a template says"));
    }
    let mut found = Vec::new();
    let mut code = 0;
    for name in names {
        match client.volumes().inspect(InspectVolumeRequest { name }).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                warn(&reply.warnings);
                found.push(views::Volume::from(&reply.volume.unwrap_or_default()));
            }
            Err(status) => {
                client.failure(&status).report();
                code = 1;
            }
        }
    }
    match &format {
        Some(Format::Template(layout)) => layout.print(&found)?,
        _ => output::print_json(&found)?,
    }
    Ok(code)
}

pub(super) async fn remove(client: &Client, flags: RemoveVolumes) -> Result<u8> {
    let force = flags.force;
    each(client, flags.names, async |client, name| {
        let request = RemoveVolumeRequest {
            name: name.clone(),
            force,
        };
        client.volumes().remove(request).await?;
        Ok(name)
    })
    .await
}
