//! `stats`.

use std::io::IsTerminal as _;

use proto::v1::stats_response::Container;
use proto::v1::{StatsRequest, StatsResponse};
use serde_json::json;

use super::containers::{SHORT_ID, first};
use crate::cli::{Format, Stats};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{self, Table, cell};
use crate::size::{format_binary_bytes, format_bytes};
use crate::views;

/// Each look over the one before it, on a terminal: home, and clear what is below.
const OVER: &str = "\x1b[H\x1b[J";

pub(super) async fn stats(client: &Client, flags: Stats, format: Format) -> Result<u8> {
    let request = StatsRequest {
        containers: flags.containers,
        all: flags.all,
        once: flags.no_stream,
    };
    let reply = client.containers().stats(request).await;
    let mut looks = reply.map_err(|status| client.failure(&status))?.into_inner();
    let paints = !flags.no_stream && std::io::stdout().is_terminal();
    while let Some(look) = looks.message().await.map_err(|status| client.failure(&status))? {
        if format == Format::Json {
            for container in &look.containers {
                output::print_json_line(&views::Stats::from(container))?;
            }
            continue;
        }
        if let Format::Template(layout) = &format {
            if paints {
                output::print(OVER)?;
            }
            let row = |container: &Container| row(container, flags.no_trunc);
            let rows: Vec<_> = look.containers.iter().map(row).collect::<Result<_>>()?;
            layout.print_rows(&rows, &row(&Container::default())?, &[("ID", "CONTAINER ID")])?;
            continue;
        }
        if paints {
            output::print(OVER)?;
        }
        table(&look, flags.no_trunc).print()?;
    }
    Ok(0)
}

fn table(look: &StatsResponse, no_trunc: bool) -> Table {
    let mut table = Table::new(&[
        "CONTAINER ID",
        "NAME",
        "CPU %",
        "MEM USAGE / LIMIT",
        "MEM %",
        "NET I/O",
        "BLOCK I/O",
        "PIDS",
    ]);
    for container in &look.containers {
        let mut cells = vec![cell(id(container, no_trunc)), cell(&container.name)];
        cells.extend(used(container).map(cell));
        table.row(cells);
    }
    table
}

fn id(container: &Container, no_trunc: bool) -> String {
    first(&container.id, if no_trunc { usize::MAX } else { SHORT_ID })
}

/// The columns from `CPU %` on.
fn used(container: &Container) -> [String; 6] {
    let Some(usage) = &container.usage else {
        return ["--", "-- / --", "--", "--", "--", "--"].map(str::to_owned);
    };
    let pair = |one: String, other: String| format!("{one} / {other}");
    [
        format!("{:.2}%", container.cpu_percent),
        pair(
            format_binary_bytes(usage.memory_bytes),
            format_binary_bytes(usage.memory_limit_bytes),
        ),
        format!("{:.2}%", views::memory_percent(usage)),
        pair(format_bytes(usage.received_bytes), format_bytes(usage.sent_bytes)),
        pair(format_bytes(usage.read_bytes), format_bytes(usage.written_bytes)),
        usage.pids.to_string(),
    ]
}

/// With docker's fields.
fn row(container: &Container, no_trunc: bool) -> Result<serde_json::Value> {
    let [cpu, memory, memory_percent, network, block, pids] = used(container);
    let dockers = json!({
        "Container": id(container, no_trunc),
        "ID": id(container, no_trunc),
        "Name": container.name,
        "CPUPerc": cpu,
        "MemUsage": memory,
        "MemPerc": memory_percent,
        "NetIO": network,
        "BlockIO": block,
        "PIDs": pids,
    });
    crate::format::row(dockers, &views::Stats::from(container))
}
