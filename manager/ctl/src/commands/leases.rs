//! `lease create`, `lease ls`, `lease rm`.

use proto::v1::lease::Image;
use proto::v1::{CreateLeaseRequest, DeleteLeaseRequest, Lease, ListLeasesRequest};

use super::containers::each;
use crate::cli::{CreateLease, Format};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{self, Table, cell};
use crate::progress::short_digest;
use crate::{time, views};

pub(super) async fn create(client: &Client, flags: CreateLease) -> Result<u8> {
    let request = CreateLeaseRequest {
        id: flags.id,
        images: flags.images,
        ttl_seconds: flags.ttl_seconds,
    };
    let reply = client
        .images()
        .create_lease(request)
        .await
        .map_err(|status| client.failure(&status))?;
    output::print_line(&reply.into_inner().lease.unwrap_or_default().id)?;
    Ok(0)
}

pub(super) async fn list(client: &Client, quiet: bool, format: Format) -> Result<u8> {
    let reply = client
        .images()
        .list_leases(ListLeasesRequest {})
        .await
        .map_err(|status| client.failure(&status))?;
    let leases = reply.into_inner().leases;
    if quiet {
        output::print(
            &leases
                .iter()
                .map(|lease| lease.id.clone() + "\n")
                .collect::<String>(),
        )?;
    } else if format == Format::Json {
        output::print_json(&leases.iter().map(views::Lease::from).collect::<Vec<_>>())?;
    } else {
        table(&leases).print()?;
    }
    Ok(0)
}

/// A row for each image of each lease.
fn table(leases: &[Lease]) -> Table {
    let mut table = Table::new(&["LEASE ID", "IMAGE ID", "NAME", "EXPIRES"]);
    let name = |image: &Image| image.names.first().map_or("<none>", String::as_str).to_owned();
    for lease in leases {
        for image in &lease.images {
            table.row([
                cell(&lease.id),
                cell(short_digest(&image.id)),
                cell(name(image)),
                cell(format!("in {}", time::remaining(lease.expires_unix_seconds))),
            ]);
        }
    }
    table
}

pub(super) async fn remove(client: &Client, ids: Vec<String>) -> Result<u8> {
    each(client, ids, async |client, id| {
        let request = DeleteLeaseRequest { id: id.clone() };
        client.images().delete_lease(request).await?;
        Ok(id)
    })
    .await
}
