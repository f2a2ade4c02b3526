//! `stats`.

use std::io::IsTerminal as _;

use proto::v1::{StatsRequest, StatsResponse};

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
        let id = first(&container.id, if no_trunc { usize::MAX } else { SHORT_ID });
        let mut cells = vec![cell(id), cell(&container.name)];
        let pair = |one: String, other: String| cell(format!("{one} / {other}"));
        match &container.usage {
            Some(usage) => cells.extend([
                cell(format!("{:.2}%", container.cpu_percent)),
                pair(
                    format_binary_bytes(usage.memory_bytes),
                    format_binary_bytes(usage.memory_limit_bytes),
                ),
                cell(format!("{:.2}%", views::memory_percent(usage))),
                pair(format_bytes(usage.received_bytes), format_bytes(usage.sent_bytes)),
                pair(format_bytes(usage.read_bytes), format_bytes(usage.written_bytes)),
                cell(usage.pids.to_string()),
            ]),
            None => cells.extend(["--", "-- / --", "--", "--", "--", "--"].map(cell)),
        }
        table.row(cells);
    }
    table
}
