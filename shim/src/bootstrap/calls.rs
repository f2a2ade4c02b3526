//! Calls of the runtime that outlive the shim that made them. A `create` under way when the shim is killed would make
//! the container after `delete` has looked for it: so they are waited for, and killed when they take too long.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys;

/// How long all calls may take to end by themselves. A runtime that ends by itself leaves nothing that its `delete`
/// does not know, and containerd gives the whole of `delete` five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// A process that got SIGKILL is gone within this, or it hangs in the kernel.
const DEATH: Duration = Duration::from_secs(2);
/// How often it is looked again what a process is.
const LOOK: Duration = Duration::from_millis(20);

/// Returns when no call for the container in `bundle` runs any more that the shim with this pid has made. The patience
/// is that of a whole `delete`, which has begun then.
pub(super) fn outlast(bundle: &Path, shim: u32, begun: Instant) {
    let (patience, end) = (begun + PATIENCE, begun + PATIENCE + DEATH);
    // What ends may have started another one before.
    while let Some((pid, kind, process)) = find(bundle, shim) {
        if Instant::now() > patience && kind == Kind::Call {
            eprintln!("process {pid} of the shim that was {shim} does not end and is killed");
            let _ = sys::kill_by_pidfd(&process);
        }
        if Instant::now() > end {
            eprintln!("process {pid} of the shim that was {shim} does not end");
            return;
        }
        let _ = sys::wait_readable(&process, LOOK);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A call for the container.
    Call,
    /// It is between fork and exec, or exec has not set its arguments yet. It may become a call.
    Unborn,
}

fn find(bundle: &Path, shim: u32) -> Option<(u32, Kind, OwnedFd)> {
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| look(*pid, bundle, shim).is_some())
        .find_map(|pid| {
            let process = sys::open_pidfd(pid).ok()?;
            // Only now it is sure that the descriptor is of the process that was looked at.
            look(pid, bundle, shim).map(|kind| (pid, kind, process))
        })
}

fn look(pid: u32, bundle: &Path, shim: u32) -> Option<Kind> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The shim leads a session, in which its calls are; the processes of a container have one of their own.
    if pid == shim || session_of_living(&stat)? != shim {
        return None;
    }
    kind_of(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?, bundle)
}

/// See `proc_pid_stat(5)`: the name in parentheses may hold anything.
fn session_of_living(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(session)
}

/// A runtime is called with `--log FILE`, a file in the bundle, and a shim with `-socket PATH`.
fn kind_of(command_line: &[u8], bundle: &Path) -> Option<Kind> {
    const ARGUMENTS_MAX: usize = 64;
    if command_line.is_empty() {
        return Some(Kind::Unborn);
    }
    let arguments: Vec<&[u8]> = command_line
        .split(|byte| *byte == 0)
        .take(ARGUMENTS_MAX)
        .collect();
    arguments.windows(2).find_map(|pair| match pair {
        [b"--log", file] => {
            let file = Path::new(std::str::from_utf8(file).ok()?);
            (file.parent() == Some(bundle)).then_some(Kind::Call)
        }
        [b"-socket", _] => Some(Kind::Unborn),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_for_the_bundle_and_what_may_become_one_count() {
        let kind = |line: &[u8]| kind_of(line, Path::new("/b/c1"));
        assert_eq!(
            kind(b"/bin/runtime\0--root\0/r\0--log\0/b/c1/log.json\0create\0c1\0"),
            Some(Kind::Call)
        );
        assert_eq!(kind(b"/bin/shim\0-id\0c1\0-socket\0/s/1\0"), Some(Kind::Unborn));
        assert_eq!(kind(b""), Some(Kind::Unborn));
        assert_eq!(kind(b"/bin/runtime\0--log\0/b/c12/log.json\0create\0c12\0"), None);
        assert_eq!(kind(b"/bin/logger\0--log\0"), None);
    }

    #[test]
    fn a_session_is_found_behind_any_name() {
        assert_eq!(session_of_living("7 (a) Z) S 1 7 42 0 -1"), Some(42));
        assert_eq!(session_of_living("7 (a) Z 1 7 42 0 -1"), None);
        assert_eq!(session_of_living(""), None);
    }
}
