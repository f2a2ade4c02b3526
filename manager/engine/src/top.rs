//! The processes of a container, as the host's ps(1) shows them.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::Error;
use crate::engine::Engine;
use crate::request::check_strings;

const PS_TIMEOUT: Duration = Duration::from_secs(30);
/// Tens of thousands of lines; what is longer fits into no message.
const OUTPUT_BYTES_MAX: u64 = 3 << 20;

/// What one argument of a program may have (`MAX_ARG_STRLEN`).
const PIDS_BYTES_MAX: usize = 128 << 10;

/// What ps(1) has told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// Of the columns.
    pub titles: Vec<String>,
    /// One a process, with as many fields as there are titles; the last one has the rest of its line.
    pub rows: Vec<Vec<String>>,
}

impl Engine {
    /// The processes in a running container. `ps_args` go to ps(1), `-ef` if there are none; one of the columns has to
    /// be `PID`.
    pub async fn top(&self, container: &str, ps_args: &[String]) -> Result<Processes, Error> {
        check_strings("ps_args", ps_args)?;
        let (_, shim) = self.running(container, "list the processes of")?;
        let pids = shim.pids().await?;
        let usual = ["-ef".to_owned()];
        let ps_args = if ps_args.is_empty() { &usual } else { ps_args };
        let text = tokio::time::timeout(PS_TIMEOUT, ps(ps_args, &pids))
            .await
            .unwrap_or_else(|_| Err(failed("ps does not answer")))?;
        only(parse(&text), &pids)
    }
}

/// Ask for these processes alone: without a choice ps(1) shows those of the caller's user and terminal. Some versions,
/// and some options, allow no such choice; then it shows what it shows.
async fn ps(args: &[String], pids: &[u32]) -> Result<String, Error> {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let list = list.join(",");
    if list.len() < PIDS_BYTES_MAX {
        let chosen = [args, &["-q".to_owned(), list]].concat();
        if let Ok(text) = output(&chosen).await {
            return Ok(text);
        }
    }
    output(args).await
}

fn failed(why: impl Into<String>) -> Error {
    Error::Runtime {
        action: "list processes",
        why: why.into(),
    }
}

async fn output(args: &[String]) -> Result<String, Error> {
    let io = |error: std::io::Error| failed(format!("ps: {error}"));
    let mut child = Command::new("ps")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io)?;
    let (mut text, mut complaint) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let told = async {
        if let Some(stdout) = stdout {
            stdout.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut text).await?;
        }
        Ok(())
    };
    let complained = async {
        if let Some(stderr) = stderr {
            stderr.take(4096).read_to_end(&mut complaint).await?;
        }
        Ok(())
    };
    tokio::try_join!(told, complained).map_err(io)?;
    if text.len() as u64 > OUTPUT_BYTES_MAX {
        let rule = format!("ps prints more than {OUTPUT_BYTES_MAX} bytes: ask for fewer columns, by -o");
        return Err(failed(rule));
    }
    if child.wait().await.map_err(io)?.success() {
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    Err(failed(format!(
        "ps: {}",
        String::from_utf8_lossy(&complaint).trim()
    )))
}

/// Those that have one of `pids` in the column `PID`.
fn only(mut told: Processes, pids: &[u32]) -> Result<Processes, Error> {
    let column = told.titles.iter().position(|title| title == "PID");
    let column = column.ok_or_else(|| Error::invalid("ps_args", "ps has to print a column PID"))?;
    told.rows.retain(|fields| {
        let pid = fields[column].split_whitespace().next();
        pid.and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| pids.contains(&pid))
    });
    Ok(told)
}

fn parse(text: &str) -> Processes {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let titles: Vec<String> = head.split_whitespace().map(str::to_owned).collect();
    let rows = lines.map(|line| fields(line, titles.len())).collect();
    Processes { titles, rows }
}

fn fields(line: &str, count: usize) -> Vec<String> {
    let mut rest = line.trim();
    let mut fields = Vec::with_capacity(count);
    while fields.len() + 1 < count {
        let (field, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        fields.push(field.to_owned());
        rest = after.trim_start();
    }
    fields.push(rest.to_owned());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_not_shown_and_cannot_be_told_from_ours_without_their_pids() {
        let told = || parse("CMD   PID\na 7\nb 18\n");
        assert_eq!(only(told(), &[18]).unwrap().rows, [["b", "18"]]);
        assert!(only(parse("CMD\na\n"), &[7]).is_err());
    }

    #[test]
    fn the_last_column_has_the_rest_of_its_line() {
        let told = parse("UID   PID CMD\nroot    7 sh -c  true\nme     18\n");
        assert_eq!(told.titles, ["UID", "PID", "CMD"]);
        assert_eq!(told.rows[0], ["root", "7", "sh -c  true"]);
        assert_eq!(told.rows[1], ["me", "18", ""]);
        assert_eq!(parse(""), Processes::default());
    }
}
