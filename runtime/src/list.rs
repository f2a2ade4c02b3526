//! `state` and `list`: what is on record, and what is the case.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::id::Id;
use crate::state::{Container, Status};
use crate::user;

/// A container's state as runc prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    oci_version: &'a str,
    id: &'a str,
    /// 0 when stopped.
    pid: i32,
    status: Status,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "std::collections::HashMap::is_empty")]
    annotations: &'a std::collections::HashMap<String, String>,
    owner: String,
}

impl<'a> Shown<'a> {
    fn of(container: &'a Container) -> Result<Self> {
        let record = &container.record;
        let status = container.status()?;
        Ok(Self {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: user::name_of(record.owner).unwrap_or_else(|| format!("#{}", record.owner)),
        })
    }
}

/// Prints one container's state.
pub(crate) fn state(root: &Path, id: &Id) -> Result<()> {
    let container = Container::load(root, id)?;
    let shown = Shown {
        owner: String::new(),
        ..Shown::of(&container)?
    };
    let text = serde_json::to_string_pretty(&shown).map_err(|e| Error::Refused(e.to_string()))?;
    print(&text)
}

/// How `list` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
    Quiet,
}

/// Prints all containers.
pub(crate) fn list(root: &Path, format: Format) -> Result<()> {
    let containers = Container::all(root)?;
    if format == Format::Quiet {
        let ids: Vec<&str> = containers
            .iter()
            .map(|container| container.record.id.as_str())
            .collect();
        return if ids.is_empty() {
            Ok(())
        } else {
            print(&ids.join("\n"))
        };
    }
    let shown: Vec<Shown<'_>> = containers.iter().map(Shown::of).collect::<Result<_>>()?;
    match format {
        Format::Json => print(&serde_json::to_string(&shown).map_err(|e| Error::Refused(e.to_string()))?),
        _ => print(&table(&shown)),
    }
}

/// Columns at least 12 wide, 3 apart, as runc aligns them.
fn table(shown: &[Shown<'_>]) -> String {
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(shown.iter().map(|shown| {
        [
            shown.id.to_owned(),
            shown.pid.to_string(),
            shown.status.name().to_owned(),
            shown.bundle.display().to_string(),
            shown.created.to_owned(),
            shown.owner.clone(),
        ]
    }));
    let widths: Vec<usize> = (0..6)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].len() + 3)
                .max()
                .unwrap_or(0)
                .max(12)
        })
        .collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        cells.concat().trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Prints a line, or says that standard output does not take it.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .context(|| "write to standard output".into())
}
