//! Device nodes and the rules about them.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

/// A host has some hundreds; this only bounds a runaway.
const NODES_MAX: usize = 10_000;
const DEPTH_MAX: usize = 4;

/// Folders of /dev that a container has its own of, or that lead away from devices.
const SKIPPED: [&str; 6] = ["pts", "shm", "fd", "mqueue", "console", "ptmx"];

/// Nothing but making nodes, and using the harmless ones: null, zero, full, tty, urandom, random, console,
/// ptmx, pseudo-terminals. A privileged container may use all.
pub(super) fn rules(privileged: bool) -> Value {
    if privileged {
        return json!([{"allow": true, "access": "rwm"}]);
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
    Value::Array(rules)
}

/// The host's device nodes, for a privileged container.
pub(super) fn of_the_host() -> Value {
    let mut nodes = Vec::new();
    gather(Path::new("/dev"), 0, &mut nodes);
    Value::Array(nodes)
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
        let kind = metadata.file_type();
        if kind.is_dir() && depth < DEPTH_MAX {
            gather(&path, depth + 1, nodes);
        }
        let letter = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => "c",
            (_, true) => "b",
            _ => continue,
        };
        nodes.push(json!({
            "path": text, "type": letter,
            "major": major(metadata.rdev()), "minor": minor(metadata.rdev()),
            "fileMode": metadata.permissions().mode() & 0o777,
            "uid": metadata.uid(), "gid": metadata.gid(),
        }));
    }
}
