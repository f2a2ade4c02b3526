//! Whether a number still stands for a process of a container, and not for another that got it later.

use std::fs;

/// By the container's cgroup, which has its id; where this manager may make no cgroups, because its parent is the
/// container's shim, as that of a main process is.
pub(crate) fn is_of_container(pid: u32, id: &str) -> bool {
    match is_in_group(pid, id) {
        Ok(true) => true,
        Ok(false) if image::is_in_user_namespace() => {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            let parent = status.ok().and_then(|status| parent_of(&status));
            parent.is_some_and(|parent| is_shim(parent, id))
        }
        _ => false,
    }
}

/// Whether a container has a cgroup, by which its processes are counted and can be made to stand still. Without root's
/// rights and a group that was handed down there is none.
pub(crate) fn has_cgroup(pid: u32, id: &str) -> bool {
    !image::is_in_user_namespace() || is_in_group(pid, id).unwrap_or(false)
}

fn is_in_group(pid: u32, id: &str) -> std::io::Result<bool> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?.contains(id))
}

fn parent_of(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn is_shim(pid: u32, id: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words
        .windows(2)
        .any(|words| words[0] == b"-id" && words[1] == id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_from_the_status() {
        assert_eq!(
            parent_of("Name:\tPPid: 7\nState:\tS\nPPid:\t12\nTracerPid:\t0\n"),
            Some(12)
        );
        assert_eq!(parent_of("State:\tS\n"), None);
    }
}
