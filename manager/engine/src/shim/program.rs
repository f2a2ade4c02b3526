//! The shim's program: `start` before there is a connection, `delete` when there is none any more.

use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{RUN_TIMEOUT, survivors, text};
use crate::Error;
use crate::config::Config;
use crate::engine::blocking;

/// The namespace of all our containers, as containerd's shims know it.
const NAMESPACE: &str = "berth";
/// The program's answer is an address, or a small JSON object.
const ANSWER_MAX_BYTES: u64 = 64 << 10;
/// As much of what a failing shim wrote is passed on.
const WORDS_MAX_BYTES: usize = 2000;

/// Remove all that is left of a container whose shim does not answer: the shim itself, the processes, the
/// runtime's state, the cgroup. Needs the bundle.
pub(crate) async fn clean_up(config: &Config, id: &str) -> Result<(), Error> {
    let (bundle, owned) = (config.bundle(id), id.to_owned());
    if let Err(error) = blocking(move || survivors::end(&bundle, &owned)).await {
        tracing::warn!(id, %error, "cleaning up beside processes that may be alive");
    }
    run(config, id, &["delete"]).await.map(drop)
}

/// Run the shim's program as containerd does, and return what it printed.
///
/// The bundle is told by a flag and not by the working directory: nothing is to be done between fork and exec then, and
/// std spares the copy of this process's page tables, which would take longer with each container that it knows.
pub(super) async fn run(config: &Config, id: &str, command: &[&str]) -> Result<Vec<u8>, Error> {
    let bundle = config.bundle(id);
    let (action, words_path) = (command[command.len() - 1], bundle.join("shim.log"));
    let words = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&words_path)
        .map_err(Error::file("open", &words_path))?;
    let mut program = Command::new(&config.shim);
    program
        .args([
            "-namespace",
            NAMESPACE,
            "-id",
            id,
            "-address",
            &text(&config.socket),
            "-bundle",
            &text(&bundle),
        ])
        .args(command)
        // What systemd tells the manager is not for containers, to which a runtime hands such things on.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(words)
        .kill_on_drop(true);
    let mut child = program
        .spawn()
        .map_err(Error::file("start the shim", &config.shim))?;
    let mut answer = Vec::new();
    let stdout = child.stdout.take();
    let finished = tokio::time::timeout(RUN_TIMEOUT, async {
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
        }
        child.wait().await
    });
    match finished.await {
        Ok(Ok(status)) if status.success() => Ok(answer),
        Ok(Ok(status)) => Err(Error::shim(
            id,
            format!("{action}: {status}: {}", last_words(&words_path)),
        )),
        Ok(Err(error)) => Err(Error::shim(id, format!("{action}: {error}"))),
        Err(_) => Err(Error::shim(
            id,
            format!("{action}: no answer within {} seconds", RUN_TIMEOUT.as_secs()),
        )),
    }
}

fn last_words(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(WORDS_MAX_BYTES)..];
    let text = String::from_utf8_lossy(tail);
    let text = text.trim();
    if text.is_empty() {
        "it said nothing".to_owned()
    } else {
        text.to_owned()
    }
}

/// The address in the answer of `start`: alone, or in the JSON of a newer bootstrap protocol.
pub(super) fn address_of(answer: &[u8], id: &str) -> Result<String, Error> {
    let answer = String::from_utf8_lossy(answer);
    let answer = answer.trim();
    let address = match serde_json::from_str::<serde_json::Value>(answer) {
        Ok(bootstrap) => bootstrap["address"].as_str().unwrap_or_default().to_owned(),
        Err(_) => answer.to_owned(),
    };
    if address.starts_with("unix://") {
        Ok(address)
    } else {
        Err(Error::shim(
            id,
            format!("start: {answer:?} is not the address of a UNIX socket"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_shims_answer_are_understood() {
        assert_eq!(
            address_of(b"unix:///run/s.sock\n", "a").unwrap(),
            "unix:///run/s.sock"
        );
        let bootstrap = br#"{"version":3,"address":"unix:///run/s.sock","protocol":"ttrpc"}"#;
        assert_eq!(address_of(bootstrap, "a").unwrap(), "unix:///run/s.sock");
        for bad in [&b""[..], b"tcp://1.2.3.4:5", b"{}", b"{\"address\":5}"] {
            assert!(address_of(bad, "a").is_err());
        }
    }
}
