//! A container's limits of memory and swap.

use std::path::Path;

use serde_json::{Value, json};

const CGROUPS: &str = "/sys/fs/cgroup";

/// As with docker, a container gets as much swap as memory; without that limit, swap would be its way around the
/// one of memory. The specification counts both together.
pub(super) fn limits(memory_bytes: i64, counts_swap: bool) -> Value {
    if counts_swap {
        json!({"limit": memory_bytes, "swap": memory_bytes.saturating_mul(2)})
    } else {
        json!({"limit": memory_bytes})
    }
}

/// Whether the kernel counts swap by group: it may be built or started without that.
pub(super) fn counts_swap() -> bool {
    counts_swap_in(Path::new(CGROUPS))
}

fn counts_swap_in(root: &Path) -> bool {
    if root.join("memory").is_dir() {
        return root.join("memory/memory.memsw.limit_in_bytes").exists();
    }
    // Version 2 has the file in every group that counts memory, but the first.
    let groups = std::fs::read_dir(root).into_iter().flatten().flatten();
    groups
        .map(|entry| entry.path())
        .any(|group| group.join("memory.swap.max").exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn swap_is_limited_to_as_much_again_where_it_is_counted() {
        assert_eq!(limits(64, true), json!({"limit": 64, "swap": 128}));
        assert_eq!(limits(64, false), json!({"limit": 64}));
        assert_eq!(limits(i64::MAX, true)["swap"], i64::MAX);
    }

    #[test]
    fn accounting_of_swap_is_seen_in_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let (v1, v2) = (folder.path().join("1"), folder.path().join("2"));
        fs::create_dir_all(v1.join("memory")).unwrap();
        fs::create_dir_all(v2.join("system.slice")).unwrap();
        assert!(!counts_swap_in(&v1) && !counts_swap_in(&v2));
        fs::write(v1.join("memory/memory.memsw.limit_in_bytes"), "").unwrap();
        fs::write(v2.join("system.slice/memory.swap.max"), "").unwrap();
        assert!(counts_swap_in(&v1) && counts_swap_in(&v2));
    }
}
