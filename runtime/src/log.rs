//! Where errors and warnings go: one line to standard error and, with `--log`, one to that file. containerd's shim
//! reads the file's last JSON line to learn why a command failed.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use crate::cli::Values;
use crate::clock;
use crate::error::{Context, Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

#[derive(Debug)]
struct Log {
    file: Option<std::fs::File>,
    format: Format,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Opens the log as the global flags say. Called once, before anything is done.
pub(crate) fn open(global: &Values) -> Result<()> {
    let format = match global.get("log-format") {
        None | Some("text" | "") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Error::Refused(format!(
                "--log-format {other:?}: must be text or json"
            )));
        }
    };
    let file = match global.get("log") {
        None | Some("") => None,
        Some(path) => Some(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .context(|| format!("open log {path}"))?,
        ),
    };
    let debug = global.is_on("debug");
    let _ = LOG.set(Log { file, format, debug });
    Ok(())
}

/// What is written to for as long as this process lives.
pub(crate) fn file() -> Option<BorrowedFd<'static>> {
    LOG.get()?.file.as_ref().map(AsFd::as_fd)
}

/// Tells of something that stopped the command.
pub(crate) fn error(text: &str) {
    write("error", text);
}

/// Tells of something that could not be done but does not stop the command.
pub(crate) fn warn(text: &str) {
    write("warning", text);
}

/// Tells of a phase or a decision, with `--debug`; without it the text is not even made.
pub(crate) fn debug(text: impl FnOnce() -> String) {
    if LOG.get().is_some_and(|log| log.debug) {
        write("debug", &text());
    }
}

fn write(level: &str, text: &str) {
    let log = LOG.get();
    let line = line(
        log.map_or(Format::Text, |log| log.format),
        level,
        text,
        &clock::now().rfc3339(),
    );
    match log.and_then(|log| log.file.as_ref()) {
        // What is written to the log can't fail the command any more.
        Some(mut file) => {
            let _ = file.write_all(line.as_bytes());
            if level == "error" {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
        None => {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

fn line(format: Format, level: &str, text: &str, time: &str) -> String {
    match format {
        // The order of logrus, which readers of runc's log may rely on.
        Format::Json => {
            let text = serde_json::Value::from(text);
            format!("{{\"level\":\"{level}\",\"msg\":{text},\"time\":\"{time}\"}}\n")
        }
        Format::Text => format!("time=\"{time}\" level={level} msg={text:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_is_what_containerd_reads() {
        let line = line(
            Format::Json,
            "error",
            "exec: \"x\": not\nfound",
            "2026-01-02T03:04:05Z",
        );
        assert!(line.ends_with('\n') && line.lines().count() == 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "exec: \"x\": not\nfound");
    }
}
