//! `events`: a container's statistics and its out-of-memory events, one JSON object a line, as runc prints them.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::os::fd::AsFd;

use crate::cgroup::Oom;
use crate::error::{Context, Error, Result};
use crate::id::Id;
use crate::list::print;
use crate::state::Container;

/// Prints statistics once.
pub(crate) fn stats(root: &Path, id: &Id) -> Result<()> {
    let container = Container::load(root, id)?;
    if container.init()?.is_none() {
        return Err(Error::Refused(format!("container with id {id} is not running")));
    }
    print_stats(&container)
}

/// Prints statistics at each interval and events as they come, until the container ends.
pub(crate) fn stream(root: &Path, id: &Id, interval: Duration) -> Result<()> {
    let container = Container::load(root, id)?;
    let Some(init) = container.init()? else {
        return Err(Error::Refused(format!("container with id {id} is not running")));
    };
    let mut watch = container.record.cgroups.oom_watch()?;
    let mut next = Instant::now() + interval;
    let mut watching = true;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        if watching {
            fds.push(PollFd::new(watch.fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => drop(other.context(|| "wait for events".into())?),
        }
        let ended = fds[0].revents().is_some_and(|got| !got.is_empty());
        let told = fds
            .get(1)
            .and_then(PollFd::revents)
            .is_some_and(|got| !got.is_empty());
        if told {
            match watch.take()? {
                Oom::Happened => print(&line("oom", &container.record.id, None)?)?,
                Oom::Gone => watching = false,
                Oom::None => {}
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print_stats(&container)?;
            next = Instant::now() + interval;
        }
    }
}

fn print_stats(container: &Container) -> Result<()> {
    let stats = container.record.cgroups.stats()?;
    let data = serde_json::to_value(&stats).map_err(|e| Error::Refused(e.to_string()))?;
    print(&line("stats", &container.record.id, Some(&data))?)
}

/// One line, its fields in the order of runc's.
fn line(kind: &str, id: &str, data: Option<&serde_json::Value>) -> Result<String> {
    #[derive(Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a serde_json::Value>,
    }
    let event = Event {
        r#type: kind,
        id,
        data,
    };
    serde_json::to_string(&event).map_err(|e| Error::Refused(e.to_string()))
}

/// A duration such as `500ms`, `5s`, `1m30s` or `2h`.
pub(crate) fn parse_interval(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::Refused(format!(
            "--interval {text:?}: must be a duration above 0 such as 500ms or 5s"
        ))
    };
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit = match &after[..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return Err(wrong()),
        };
        total = unit
            .checked_mul(number)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = &after[unit_end..];
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(parse_interval("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(parse_interval("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_interval("500ms").unwrap(), Duration::from_millis(500));
        for bad in ["", "5", "s", "0s", "5x", "-5s"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
