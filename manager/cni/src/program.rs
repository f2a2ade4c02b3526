//! One call of one plugin: a program that reads its configuration, answers, and ends. All three are bounded.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::sys;

/// An answer is some hundred bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Of what a plugin says to people, the beginning is kept.
const WORDS_BYTES_MAX: u64 = 64 << 10;
const SHOWN_CHARS_MAX: usize = 1000;
/// A plugin that has closed its output ends now.
const END_POLL: Duration = Duration::from_millis(2);
/// If the manager has none: where plugins find iptables.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a call ended.
pub(crate) enum Outcome {
    Answered(Vec<u8>),
    Refused {
        code: u32,
        message: String,
        details: String,
    },
    TimedOut,
}

/// What a plugin says that could not do what it was to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Complaint {
    code: u32,
    msg: String,
    details: String,
}

/// Call it. An error is the system's.
pub(crate) fn call(
    program: &Path,
    variables: &[(&str, &str)],
    input: Vec<u8>,
    timeout: Duration,
) -> std::io::Result<Outcome> {
    let deadline = Instant::now() + timeout;
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    let mut command = Command::new(program);
    sys::end_with_caller(&mut command);
    let mut child = command
        .env_clear()
        .env("PATH", path)
        .envs(variables.iter().copied())
        .current_dir("/")
        // So that what it has started ends with it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (sender, ends) = mpsc::channel();
    let mut stdin = child.stdin.take();
    // One that does not read its configuration may still answer.
    thread::spawn(move || stdin.take().map(|mut stdin| stdin.write_all(&input)));
    let outputs = [
        (
            child
                .stdout
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            ANSWER_BYTES_MAX,
        ),
        (
            child
                .stderr
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            WORDS_BYTES_MAX,
        ),
    ];
    for (index, (pipe, most)) in outputs.into_iter().enumerate() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.by_ref().take(most + 1).read_to_end(&mut bytes);
                // Whoever says more is not kept waiting for it.
                let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            }
            let _ = sender.send((index, bytes));
        });
    }
    let mut said = [Vec::new(), Vec::new()];
    for _ in 0..said.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        match ends.recv_timeout(left) {
            Ok((index, bytes)) => said[index] = bytes,
            Err(_) => return end(&mut child),
        }
    }
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() >= deadline => return end(&mut child),
            None => thread::sleep(END_POLL),
        }
    };
    let [answer, words] = said;
    Ok(outcome(status, answer, &words))
}

fn end(child: &mut Child) -> std::io::Result<Outcome> {
    // Not waited for yet, so the number is its own.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait()?;
    Ok(Outcome::TimedOut)
}

fn outcome(status: ExitStatus, answer: Vec<u8>, words: &[u8]) -> Outcome {
    let refused = |(code, message, details)| Outcome::Refused {
        code,
        message,
        details,
    };
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        let message = format!("it answered more than {ANSWER_BYTES_MAX} bytes");
        return refused((0, message, String::new()));
    }
    if status.success() {
        return Outcome::Answered(answer);
    }
    refused(complaint(&answer).unwrap_or_else(|| {
        let words = shown(&String::from_utf8_lossy(words));
        (0, format!("it ended with {status} and did not say why"), words)
    }))
}

/// Code, words, and more words.
pub(crate) fn complaint(answer: &[u8]) -> Option<(u32, String, String)> {
    let complaint: Complaint = serde_json::from_slice(answer).ok()?;
    (!complaint.msg.is_empty() || complaint.code != 0)
        .then(|| (complaint.code, shown(&complaint.msg), shown(&complaint.details)))
}

/// For a terminal and a log.
fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(SHOWN_CHARS_MAX).map(plain).collect()
}
