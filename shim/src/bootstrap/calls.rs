//! Calls of the runtime that outlive the shim that made them. A `create` under way when the shim is killed would make
//! the container after `delete` has looked for it: so they are waited for, and killed when they take too long.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::{socket, sys};

/// How long a call may take to end by itself. A runtime that ends by itself leaves nothing that its `delete` does not
/// know, and containerd gives the whole of `delete` five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// A process that got SIGKILL is gone within this, or it hangs in the kernel.
const DEATH: Duration = Duration::from_secs(2);
/// How often it is looked whether a process is a call still: the container's own becomes one that is not.
const LOOK: Duration = Duration::from_millis(20);

/// Returns when no call for the container in `bundle` runs any more.
pub(super) fn outlast(bundle: &Path) {
    // Between fork and exec a call has the arguments of the shim. Those of a living shim are no concern of ours.
    let socket = socket::read_address(bundle)
        .filter(|_| socket::live_address(bundle).is_none())
        .and_then(|address| socket::path_of(&address));
    let (patience, end) = (Instant::now() + PATIENCE, Instant::now() + PATIENCE + DEATH);
    // What ends may have started another one before.
    while let Some((pid, call)) = find(bundle, socket.as_deref()) {
        if Instant::now() > end {
            eprintln!("process {pid} of a dead shim does not die by SIGKILL");
            return;
        }
        if Instant::now() > patience {
            eprintln!("process {pid} of a dead shim does not end and is killed");
            let _ = sys::kill_by_pidfd(&call);
        }
        let _ = sys::wait_readable(&call, LOOK);
    }
}

fn find(bundle: &Path, socket: Option<&Path>) -> Option<(u32, std::os::fd::OwnedFd)> {
    let own = std::process::id();
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own && is_call(*pid, bundle, socket))
        .find_map(|pid| {
            let call = sys::open_pidfd(pid).ok()?;
            // Only now it is sure that the descriptor is of the process that was looked at.
            is_call(pid, bundle, socket).then_some((pid, call))
        })
}

fn is_call(pid: u32, bundle: &Path, socket: Option<&Path>) -> bool {
    // A zombie has no arguments any more.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    names(&line, bundle, socket) && !leads_session(pid)
}

/// Unlike a call, the container's own process has a session of its own; until it is started, it may have the arguments
/// of the `create` that made it.
fn leads_session(pid: u32) -> bool {
    const SESSION: usize = 3;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    fields.and_then(|fields| fields.split(' ').nth(SESSION)) == Some(pid.to_string().as_str())
}

/// A runtime is called with `--log FILE`, a file in the bundle, and a shim with `-socket PATH`.
fn names(command_line: &[u8], bundle: &Path, socket: Option<&Path>) -> bool {
    const ARGUMENTS_MAX: usize = 64;
    let arguments = command_line.split(|byte| *byte == 0).take(ARGUMENTS_MAX);
    let path = |argument| std::str::from_utf8(argument).map(Path::new);
    let mut flag: &[u8] = b"";
    for argument in arguments {
        let found = match (flag, path(argument)) {
            (b"--log", Ok(path)) => path.parent() == Some(bundle),
            (b"-socket", Ok(path)) => socket == Some(path),
            _ => false,
        };
        if found {
            return true;
        }
        flag = argument;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_for_the_bundle_and_forks_of_its_shim_count() {
        let is = |line: &[u8]| names(line, Path::new("/b/c1"), Some(Path::new("/s/1")));
        assert!(is(
            b"/bin/runtime\0--root\0/r\0--log\0/b/c1/log.json\0create\0c1\0"
        ));
        assert!(is(b"/bin/shim\0-id\0c1\0-socket\0/s/1\0"));
        assert!(!is(b"/bin/runtime\0--log\0/b/c12/log.json\0create\0c12\0"));
        assert!(!is(b"/bin/shim\0-id\0c2\0-socket\0/s/2\0"));
        assert!(!is(b"/bin/shim\0-id\0c1\0-bundle\0/b/c1\0delete\0"));
        assert!(!is(b""));
    }
}
