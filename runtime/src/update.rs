//! `update`: new limits for a container, from a file or from flags.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use crate::bundle;
use crate::cli::Values;
use crate::error::{Context, Error, Result};
use crate::id::Id;
use crate::intel_rdt::IntelRdt;
use crate::state::{Container, Status};

/// Standard input is read up to here.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Text,
    Number,
    /// With units such as `512m`; -1 means no limit.
    Bytes,
    /// Taken for old callers; the kernel has no such limit any more. Or no limit of a cgroup.
    Ignored,
}

/// Where in `linux.resources` each flag belongs.
const FLAGS: [(&str, &str, &str, Unit); 19] = [
    ("blkio-weight", "blockIO", "weight", Unit::Number),
    ("cpu-period", "cpu", "period", Unit::Number),
    ("cpu-quota", "cpu", "quota", Unit::Number),
    ("cpu-burst", "cpu", "burst", Unit::Number),
    ("cpu-share", "cpu", "shares", Unit::Number),
    ("cpu-rt-period", "cpu", "realtimePeriod", Unit::Number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Unit::Number),
    ("cpu-idle", "cpu", "idle", Unit::Number),
    ("cpuset-cpus", "cpu", "cpus", Unit::Text),
    ("cpuset-mems", "cpu", "mems", Unit::Text),
    ("kernel-memory", "", "", Unit::Ignored),
    ("kernel-memory-tcp", "", "", Unit::Ignored),
    ("memory", "memory", "limit", Unit::Bytes),
    ("memory-reservation", "memory", "reservation", Unit::Bytes),
    ("memory-swap", "memory", "swap", Unit::Bytes),
    ("pids-limit", "pids", "limit", Unit::Number),
    ("l3-cache-schema", "", "", Unit::Ignored),
    ("mem-bw-schema", "", "", Unit::Ignored),
    ("resources", "", "", Unit::Ignored),
];

/// Sets what is asked for and leaves everything else as it is.
pub(crate) fn update(root: &Path, id: &Id, flags: &Values) -> Result<()> {
    let container = Container::load(root, id)?;
    if container.status()? == Status::Stopped {
        return Err(Error::Refused("cannot update a stopped container".into()));
    }
    let resources = match flags.get("resources") {
        Some(path) => from_file(path)?,
        None => from_flags(flags)?,
    };
    let schemata = ["l3-cache-schema", "mem-bw-schema"].map(|flag| flags.get(flag).unwrap_or_default());
    if schemata.iter().all(|lines| lines.is_empty()) {
        return container.record.cgroups.update(&resources);
    }
    let spec = container.spec()?;
    let rdt = IntelRdt::from_spec(spec.linux().as_ref(), id.as_str())?.ok_or_else(|| {
        Error::Refused("the container has no linux.intelRdt whose schemata could be updated".into())
    })?;
    container.record.cgroups.update(&resources)?;
    rdt.update(&schemata)
}

fn from_file(path: &str) -> Result<LinuxResources> {
    let text = if path == "-" {
        let mut text = Vec::new();
        let stdin = std::io::stdin().lock();
        stdin
            .take(STDIN_BYTES_MAX)
            .read_to_end(&mut text)
            .context(|| "read standard input".into())?;
        text
    } else {
        bundle::read(Path::new(path))?
    };
    bundle::parse_resources(&text).map_err(|error| match error {
        Error::Spec { path: field, rule } => Error::Refused(format!("{path}: {field}: {rule}")),
        other => other,
    })
}

fn from_flags(flags: &Values) -> Result<LinuxResources> {
    let mut resources = Map::new();
    for (flag, group, field, unit) in FLAGS {
        let Some(text) = flags.get(flag).filter(|text| !text.is_empty()) else {
            continue;
        };
        let wrong = || Error::Refused(format!("--{flag} {text:?}: not a valid value"));
        let value = match unit {
            Unit::Text => Value::from(text),
            Unit::Number => Value::from(text.parse::<i64>().map_err(|_| wrong())?),
            Unit::Bytes => Value::from(bytes(text).ok_or_else(wrong)?),
            Unit::Ignored => continue,
        };
        let group = resources
            .entry(group)
            .or_insert_with(|| Value::Object(Map::new()));
        group[field] = value;
    }
    let wrong = |error: serde_json::Error| Error::Refused(format!("a limit is out of range: {error}"));
    serde_json::from_value(Value::Object(resources)).map_err(wrong)
}

/// A number of bytes, with or without a unit of 1024 (`k`, `m`, `g`, `t`, `p`, each also with `b` or `ib`).
fn bytes(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '-')
        .unwrap_or(lower.len());
    let number: i64 = lower[..digits].parse().ok()?;
    let shift = match lower[digits..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    if number < 0 && (number != -1 || shift != 0) {
        return None;
    }
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::COMMANDS;

    #[test]
    fn sizes_have_units() {
        for (text, number) in [
            ("512", 512),
            ("-1", -1),
            ("2k", 2048),
            ("1GiB", 1 << 30),
            ("3 mb", 3 << 20),
        ] {
            assert_eq!(bytes(text), Some(number), "{text}");
        }
        for bad in ["", "m", "-2", "-1k", "1x", "9999999999999p", "1.5m"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_flag_of_the_command_is_known_here() {
        let command = COMMANDS.iter().find(|command| command.name == "update").unwrap();
        for flag in command.flags {
            assert!(FLAGS.iter().any(|(name, ..)| *name == flag.long), "{}", flag.long);
        }
    }
}
