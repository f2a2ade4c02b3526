//! `tag`, `history`, `system df`.

use proto::v1::{DiskUsageRequest, DiskUsageResponse, HistoryRequest, TagRequest, history_response::Step};

use crate::cli::{Format, History, Tag};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{self, Table, cell};
use crate::progress::short_digest;
use crate::size::format_bytes;
use crate::{time, views};

/// Of an instruction, in a table.
const INSTRUCTION_LENGTH_MAX: usize = 45;

pub(super) async fn tag(client: &Client, flags: Tag) -> Result<u8> {
    let request = TagRequest {
        image: flags.source,
        name: flags.name,
    };
    client
        .images()
        .tag(request)
        .await
        .map_err(|status| client.failure(&status))?;
    Ok(0)
}

pub(super) async fn history(client: &Client, flags: History, format: Format) -> Result<u8> {
    let request = HistoryRequest { image: flags.image };
    let reply = client
        .images()
        .history(request)
        .await
        .map_err(|status| client.failure(&status))?;
    let mut steps = reply.into_inner().steps;
    // As docker shows them: what was done last comes first.
    steps.reverse();
    let digest = |step: &Step| match (step.diff_id.as_str(), flags.no_trunc) {
        ("", _) => "<none>".to_owned(),
        (digest, true) => digest.to_owned(),
        (digest, false) => short_digest(digest),
    };
    if flags.quiet {
        output::print(&steps.iter().map(|step| digest(step) + "\n").collect::<String>())?;
    } else if format == Format::Json {
        output::print_json(&steps.iter().map(views::Step::from).collect::<Vec<_>>())?;
    } else {
        let mut table = Table::new(&["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        for step in &steps {
            table.row([
                cell(digest(step)),
                cell(ago(step.created_unix_seconds)),
                cell(instruction(&step.created_by, flags.no_trunc)),
                cell(format_bytes(step.size_bytes)),
                cell(step.comment.clone()),
            ]);
        }
        table.print()?;
    }
    Ok(0)
}

/// How long ago, where that is told.
pub(super) fn ago(unix_seconds: i64) -> String {
    match unix_seconds {
        0 => "N/A".to_owned(),
        seconds => format!("{} ago", time::elapsed(seconds.saturating_mul(1_000_000_000))),
    }
}

/// On one line, and not too long for a table.
fn instruction(text: &str, whole: bool) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if whole || line.chars().count() <= INSTRUCTION_LENGTH_MAX {
        return line;
    }
    line.chars()
        .take(INSTRUCTION_LENGTH_MAX - 1)
        .chain(['…'])
        .collect()
}

pub(super) async fn disk_usage(client: &Client, verbose: bool, format: Format) -> Result<u8> {
    let reply = client
        .system()
        .disk_usage(DiskUsageRequest {})
        .await
        .map_err(|status| client.failure(&status))?;
    let usage = reply.into_inner();
    if format == Format::Json {
        output::print_json(&views::DiskUsage::from(&usage))?;
    } else if verbose {
        each(&usage)?;
    } else {
        summary(&usage)?;
    }
    Ok(0)
}

fn summary(usage: &DiskUsageResponse) -> Result<()> {
    let count = |number: usize| cell(number.to_string());
    let size = |bytes: u64| cell(format_bytes(bytes));
    let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    table.row([
        cell("Images"),
        count(usage.images.len()),
        count(usage.images.iter().filter(|image| image.containers > 0).count()),
        size(usage.layers_bytes + usage.content_bytes),
        size(usage.reclaimable_bytes),
    ]);
    let bytes = |running_too: bool| {
        let counted = usage
            .containers
            .iter()
            .filter(|container| running_too || !container.running);
        counted
            .map(|container| container.upper_bytes + container.log_bytes)
            .sum()
    };
    table.row([
        cell("Containers"),
        count(usage.containers.len()),
        count(
            usage
                .containers
                .iter()
                .filter(|container| container.running)
                .count(),
        ),
        size(bytes(true)),
        size(bytes(false)),
    ]);
    let of_volumes = |used_too: bool| {
        let counted = usage
            .volumes
            .iter()
            .filter(|volume| used_too || volume.containers == 0);
        counted.map(|volume| volume.bytes).sum()
    };
    table.row([
        cell("Local Volumes"),
        count(usage.volumes.len()),
        count(
            usage
                .volumes
                .iter()
                .filter(|volume| volume.containers > 0)
                .count(),
        ),
        size(of_volumes(true)),
        size(of_volumes(false)),
    ]);
    table.print()
}

fn each(usage: &DiskUsageResponse) -> Result<()> {
    let size = |bytes: u64| cell(format_bytes(bytes));
    let mut images = Table::new(&[
        "IMAGE ID",
        "NAME",
        "CREATED",
        "SIZE",
        "SHARED",
        "UNIQUE",
        "PACKED",
        "CONTAINERS",
    ]);
    for of_image in &usage.images {
        let image = of_image.image.clone().unwrap_or_default();
        images.row([
            cell(short_digest(&image.id)),
            cell(image.names.first().map_or("<none>", String::as_str)),
            cell(ago(image.created_unix_seconds)),
            size(of_image.shared_bytes + of_image.unique_bytes),
            size(of_image.shared_bytes),
            size(of_image.unique_bytes),
            size(of_image.content_bytes),
            cell(of_image.containers.to_string()),
        ]);
    }
    images.print()?;
    output::print_line("")?;
    let mut containers = Table::new(&["CONTAINER ID", "NAME", "WRITTEN", "LOGS", "RUNNING"]);
    for container in &usage.containers {
        containers.row([
            cell(short_digest(&container.id)),
            cell(container.name.clone()),
            size(container.upper_bytes),
            size(container.log_bytes),
            cell(if container.running { "yes" } else { "no" }),
        ]);
    }
    containers.print()?;
    output::print_line("")?;
    let mut volumes = Table::new(&["VOLUME NAME", "CONTAINERS", "SIZE"]);
    for volume in &usage.volumes {
        volumes.row([
            cell(volume.name.clone()),
            cell(volume.containers.to_string()),
            size(volume.bytes),
        ]);
    }
    volumes.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_cut_to_one_short_line() {
        assert_eq!(instruction("RUN a \\\n  b", false), "RUN a \\ b");
        let long = instruction(&"x".repeat(100), false);
        assert!(long.chars().count() == INSTRUCTION_LENGTH_MAX && long.ends_with('…'));
        assert_eq!(instruction(&"x".repeat(100), true).len(), 100);
    }
}
