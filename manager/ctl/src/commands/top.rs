//! `top`.

use proto::v1::{TopRequest, top_response};
use serde_json::Value;

use crate::cli::{Format, Top};
use crate::client::Client;
use crate::failure::Result;
use crate::output::{self, Table, cell};

pub(super) async fn top(client: &Client, flags: Top, format: Format) -> Result<u8> {
    let request = TopRequest {
        container: flags.container,
        ps_args: flags.ps_args,
    };
    let told = client.containers().top(request).await;
    let told = told.map_err(|status| client.failure(&status))?.into_inner();
    if format == Format::Json {
        let object = |process: &top_response::Process| -> serde_json::Map<_, _> {
            let fields = process.fields.iter().cloned().map(Value::String);
            told.titles.iter().cloned().zip(fields).collect()
        };
        output::print_json(&told.processes.iter().map(object).collect::<Vec<_>>())?;
    } else {
        let titles: Vec<&str> = told.titles.iter().map(String::as_str).collect();
        let mut table = Table::new(&titles);
        for process in &told.processes {
            table.row(process.fields.iter().map(cell).collect::<Vec<_>>());
        }
        table.print()?;
    }
    Ok(0)
}
