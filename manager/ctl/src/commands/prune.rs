//! `image prune`, `container prune`, `volume prune`.

use std::io::{self, BufRead, Read};

use proto::v1::{PruneContainersRequest, PruneImagesRequest, PruneVolumesRequest};

use crate::cli::{PruneContainers, PruneImages, PruneVolumes};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output;
use crate::size::format_bytes;

pub(super) async fn images(client: &Client, flags: PruneImages) -> Result<u8> {
    let request = PruneImagesRequest {
        all: flags.all,
        filters: flags.filters,
    };
    let pruned = client.images().prune(request).await;
    let pruned = pruned.map_err(|status| client.failure(&status))?.into_inner();
    let untagged = pruned.untagged.iter().map(|name| format!("Untagged: {name}\n"));
    let deleted = pruned.deleted.iter().map(|id| format!("Deleted: {id}\n"));
    tell(untagged.chain(deleted), pruned.freed_bytes)
}

pub(super) async fn containers(client: &Client, flags: PruneContainers) -> Result<u8> {
    let question = "Remove all containers that do not run, with what they have written?";
    if !flags.force && !agrees(question)? {
        return Ok(0);
    }
    let request = PruneContainersRequest {
        filters: flags.filters,
    };
    let pruned = client.containers().prune(request).await;
    let pruned = pruned.map_err(|status| client.failure(&status))?.into_inner();
    let deleted = pruned.deleted.iter().map(|id| format!("{id}\n"));
    tell(deleted, pruned.freed_bytes)
}

pub(super) async fn volumes(client: &Client, flags: PruneVolumes) -> Result<u8> {
    let question = if flags.all {
        "Remove all volumes that no container uses?"
    } else {
        "Remove all anonymous volumes that no container uses?"
    };
    if !flags.force && !agrees(question)? {
        return Ok(0);
    }
    let request = PruneVolumesRequest {
        all: flags.all,
        filters: flags.filters,
    };
    let pruned = client.volumes().prune(request).await;
    let pruned = pruned.map_err(|status| client.failure(&status))?.into_inner();
    let deleted = pruned.deleted.iter().map(|name| format!("{name}\n"));
    tell(deleted, pruned.freed_bytes)
}

fn tell(lines: impl Iterator<Item = String>, freed_bytes: u64) -> Result<u8> {
    output::print(&lines.collect::<String>())?;
    output::print_line(&format!("Total reclaimed space: {}", format_bytes(freed_bytes)))?;
    Ok(0)
}

/// Whether who sits there says yes. The end of the input says no.
pub(super) fn agrees(question: &str) -> Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().take(100).read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("read the answer: {error}")))?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
