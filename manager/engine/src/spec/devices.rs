//! Device nodes and the rules about them.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use crate::Error;
use crate::request::{Device, DeviceRule};

/// A host has some hundreds; this only bounds a runaway.
const NODES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 4;

/// Folders of /dev that a container has its own of, or that lead away from devices.
const SKIPPED: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];

/// Nothing but making nodes, and using the harmless ones: null, zero, full, tty, urandom, random, console,
/// ptmx, pseudo-terminals. A privileged container may use all.
pub(super) fn rules(privileged: bool) -> Vec<Value> {
    if privileged {
        return vec![json!({"allow": true, "access": "rwm"})];
    }
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}));
    }
    rules.push(json!({"allow": true, "type": "c", "major": 136, "access": "rwm"}));
    rules
}

/// A device that was asked for by name.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    node: Value,
    access: String,
}

/// The devices that were asked for, as they are on the host now. A folder stands for the devices in it. To a
/// privileged container they are nothing new, but may have a name of their own.
pub(super) fn granted(asked: &[Device], privileged: bool) -> Result<Vec<Granted>, Error> {
    let mut all = Vec::new();
    for device in asked {
        let source = Path::new(&device.source);
        let metadata = metadata("devices", source)?;
        let mut found = Vec::new();
        if metadata.is_dir() {
            gather(source, 0, &mut found);
            for node in &mut found {
                let inner = node["path"]
                    .as_str()
                    .and_then(|path| path.strip_prefix(&device.source));
                node["path"] = json!(format!("{}{}", device.target, inner.unwrap_or_default()));
            }
        } else {
            found.extend(node(&device.target, &metadata));
        }
        if found.is_empty() {
            return Err(Error::invalid(
                "devices",
                format!("{} is not a device node, nor a folder with one", device.source),
            ));
        }
        all.extend(found.into_iter().map(|node| Granted {
            node,
            access: if privileged {
                "rwm".to_owned()
            } else {
                device.access.clone()
            },
        }));
    }
    Ok(all)
}

/// What the host has at a path that was asked for.
pub(super) fn metadata(field: &'static str, path: &Path) -> Result<Metadata, Error> {
    fs::metadata(path).map_err(|error| {
        let rule = format!("gather information about device {}: {error}", path.display());
        Error::invalid(field, rule)
    })
}

/// `linux.devices`: all of the host's for a privileged container, and those that were asked for.
pub(super) fn nodes(granted: &[Granted], privileged: bool) -> Value {
    let mut nodes = Vec::new();
    if privileged {
        gather(Path::new("/dev"), 0, &mut nodes);
    }
    for device in granted {
        nodes.retain(|node: &Value| node["path"] != device.node["path"]);
        nodes.push(device.node.clone());
    }
    Value::Array(nodes)
}

/// Add to `rules` those of the devices that were asked for, and those that were asked for as rules.
pub(super) fn allow(rules: &mut Vec<Value>, granted: &[Granted], asked: &[String]) -> Result<(), Error> {
    for Granted { node, access } in granted {
        rules.push(json!({
            "allow": true, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access,
        }));
    }
    for rule in asked {
        let DeviceRule {
            kind,
            major,
            minor,
            access,
        } = DeviceRule::parse(rule)?;
        let mut entry = json!({"allow": true, "type": kind, "access": access});
        for (name, number) in [("major", major), ("minor", minor)] {
            if let Some(number) = number {
                entry[name] = json!(number);
            }
        }
        rules.push(entry);
    }
    Ok(())
}

fn gather(folder: &Path, depth: usize, nodes: &mut Vec<Value>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if nodes.len() >= NODES_MAX || SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        let path = entry.path();
        let (Ok(metadata), Some(text)) = (entry.metadata(), path.to_str()) else {
            continue;
        };
        if metadata.is_dir() && depth < DEPTH_MAX {
            gather(&path, depth + 1, nodes);
        }
        nodes.extend(node(text, &metadata));
    }
}

/// A node at `path` like the one of `metadata`; None if that is no device.
fn node(path: &str, metadata: &Metadata) -> Option<Value> {
    let kind = metadata.file_type();
    let letter = match (kind.is_char_device(), kind.is_block_device()) {
        (true, _) => "c",
        (_, true) => "b",
        _ => return None,
    };
    Some(json!({
        "path": path, "type": letter,
        "major": major(metadata.rdev()), "minor": minor(metadata.rdev()),
        "fileMode": metadata.permissions().mode() & 0o777,
        "uid": metadata.uid(), "gid": metadata.gid(),
    }))
}
