//! `ps`: a container's processes, as numbers or as the host's ps(1) shows them.

use std::path::Path;
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::id::Id;
use crate::list::print;
use crate::state::Container;

/// Prints the pids as a JSON array, or the lines of `ps` (with `options`, `-ef` when empty) that are about them.
pub(crate) fn ps(root: &Path, id: &Id, json: bool, options: &[String]) -> Result<()> {
    let pids = Container::load(root, id)?.record.cgroups.processes()?;
    if json {
        return print(&serde_json::to_string(&pids).map_err(|e| Error::Refused(e.to_string()))?);
    }
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual[..] } else { options };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context(|| "run ps".into())?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Refused(format!("ps: {}: {}", output.status, text.trim())));
    }
    print(&only(&String::from_utf8_lossy(&output.stdout), &pids)?)
}

/// The head line, and the lines whose column under `PID` is one of ours.
fn only(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|title| title == "PID");
    let column = column.ok_or_else(|| Error::Refused("couldn't find PID field in ps output".into()))?;
    let ours = |line: &&str| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Ok(std::iter::once(head)
        .chain(lines.filter(ours))
        .collect::<Vec<_>>()
        .join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_lines_are_left() {
        let text = "UID PID PPID CMD\nroot 1 0 init\nroot 22 1 sh -c 1\n";
        assert_eq!(only(text, &[22]).unwrap(), "UID PID PPID CMD\nroot 22 1 sh -c 1");
        assert!(only("a b\n", &[1]).is_err());
    }
}
