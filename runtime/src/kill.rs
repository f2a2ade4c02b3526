//! `kill`: signals by name or number, to init or to all processes of a container.

use std::path::Path;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::id::Id;
use crate::state::{Container, Status};

/// The number of a signal given as `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3` or `SIGRTMAX-1`.
pub(crate) fn parse_signal(text: &str) -> Result<i32> {
    let unknown = || Error::Refused(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let realtime = |rest: &str, base: i32, sign: i32| {
        let offset = if rest.is_empty() {
            Some(0)
        } else {
            rest[1..].parse::<i32>().ok()
        };
        offset
            .map(|offset| base + sign * offset)
            .filter(|number| (34..=64).contains(number))
            .ok_or_else(unknown)
    };
    match name {
        "IOT" => return Ok(libc::SIGABRT),
        "CLD" => return Ok(libc::SIGCHLD),
        "POLL" => return Ok(libc::SIGIO),
        _ => {}
    }
    if let Some(rest) = name
        .strip_prefix("RTMIN")
        .filter(|rest| rest.is_empty() || rest.starts_with('+'))
    {
        return realtime(rest, 34, 1);
    }
    if let Some(rest) = name
        .strip_prefix("RTMAX")
        .filter(|rest| rest.is_empty() || rest.starts_with('-'))
    {
        return realtime(rest, 64, -1);
    }
    Signal::from_str(&format!("SIG{name}"))
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

/// Sends `signal` to init, or to all.
pub(crate) fn kill(root: &Path, id: &Id, signal: i32, all: bool) -> Result<()> {
    let container = Container::load(root, id)?;
    let init = container.init()?;
    let not_running = || Error::Refused("container not running".into());
    // With a PID namespace of its own, all processes end with init; without, nobody else ends them.
    let ends_all = signal == libc::SIGKILL && !container.record.own_pid_namespace;
    if ends_all && !all && init.is_none() && container.record.cgroups.processes()?.is_empty() {
        return Err(not_running());
    }
    // Without groups (a user's container) only init is known: podman's pods that share a PID namespace rely on its end.
    let only_init = init.is_some() && container.record.cgroups.processes()?.is_empty();
    if (all || ends_all) && !only_init {
        return container.record.cgroups.kill_all(signal);
    }
    let init = init.ok_or_else(not_running)?;
    let frozen = container.status_of(Some(&init))? == Status::Paused;
    if !init.signal(signal)? {
        return Err(not_running());
    }
    if frozen && signal == libc::SIGKILL {
        container.record.cgroups.thaw()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_many_names() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("0", 0),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("IOT", 6),
            ("64", 64),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIG", "BOGUS", "65", "-1", "RTMIN+31", "RTMAX+1", "RTMINX"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
