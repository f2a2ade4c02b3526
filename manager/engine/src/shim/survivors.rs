//! Processes of ours that outlive those who wait for them: a shim that runs but cannot be spoken to, one that a
//! dead manager was just starting, a call of the runtime whose shim has died. They must not go on beside what
//! cleans up after them, for they would make anew what that removes. All name their container in their arguments.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Error, sys};

/// A process that got SIGKILL is gone within this, or it hangs in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Arguments of a shim or runtime are not longer.
const ARGUMENTS_MAX: usize = 64;

/// End them all, and wait until they have ended. Blocks.
pub(super) fn end(bundle: &Path, id: &str) -> Result<(), Error> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let found = find(bundle, id).map_err(Error::file("list", Path::new("/proc")))?;
        if found.is_empty() {
            return Ok(());
        }
        for process in &found {
            let left = deadline.saturating_duration_since(Instant::now());
            sys::pidfd_kill(process.as_fd())
                .and_then(|()| sys::pidfd_wait(process.as_fd(), left))
                .map_err(Error::file("end what is left of the run in", bundle))?;
        }
        // One of them may have started another before it ended.
    }
}

fn find(bundle: &Path, id: &str) -> std::io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // The descriptor first: what is read then is of that very process, or of none.
        if is_survivor(pid, bundle, id)
            && let Ok(process) = sys::pidfd_open(pid)
            && is_survivor(pid, bundle, id)
        {
            found.push(process);
        }
    }
    Ok(found)
}

fn is_survivor(pid: i32, bundle: &Path, id: &str) -> bool {
    // A zombie has no arguments any more.
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<&[u8]> = text.split(|&byte| byte == 0).take(ARGUMENTS_MAX).collect();
    names(&arguments, bundle, id)
}

/// A shim is told `-id ID`, a runtime `--log FILE` with a file in the bundle.
fn names(arguments: &[&[u8]], bundle: &Path, id: &str) -> bool {
    arguments.windows(2).any(|pair| match pair {
        [b"-id", value] => *value == id.as_bytes(),
        [b"--log", value] => std::str::from_utf8(value).is_ok_and(|file| Path::new(file).starts_with(bundle)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &str) -> bool {
        let arguments: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        names(&arguments, Path::new("/run/b/abc"), "abc")
    }

    #[test]
    fn shims_and_runtimes_of_the_container_are_known_by_their_arguments() {
        assert!(named(
            "/usr/bin/shim -namespace berth -id abc -address /run/m.sock"
        ));
        assert!(named(
            "/usr/bin/runtime --root /r --log /run/b/abc/log.json create abc"
        ));
        for other in [
            "/usr/bin/shim -namespace berth -id abcd -address /run/m.sock",
            "/usr/bin/runtime --root /r --log /run/b/abcd/log.json create abcd",
            "tail -f /run/b/abc/log.json",
            "sleep abc",
            "",
        ] {
            assert!(!named(other), "{other}");
        }
    }

    #[test]
    fn what_survives_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log.json");
        let mut survivor = std::process::Command::new("sh")
            .args(["-c", "read -r line", "sh", "--log"])
            .arg(&log)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        end(folder.path(), "no-such-id").unwrap();
        assert!(!survivor.wait().unwrap().success());
    }
}
