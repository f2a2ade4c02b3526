//! The `docker-credential-*` programs: asked one thing each time, by standard input, and answering by standard output.
//!
//! Source: the docker-credential-helpers project. An error is an exit code and a message on standard output.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::{Error, Secret};

/// Some ask a person first.
const TIMEOUT: Duration = Duration::from_mins(2);
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How much of an error's text is told.
const MESSAGE_BYTES_MAX: usize = 300;
const NOT_FOUND: &str = "credentials not found in native keychain";
/// In the place of a user's name: the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// One program.
#[derive(Debug)]
pub(crate) struct Helper {
    name: String,
    program: PathBuf,
    timeout: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    username: String,
    secret: String,
}

impl Helper {
    /// The program `docker-credential-NAME`, which is looked for in `PATH`.
    pub(crate) fn new(name: &str) -> Result<Helper, String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.len() > 64 || !name.chars().all(is_plain) {
            return Err("the name of a credential helper has letters, digits, `-`, `_` and `.` only".into());
        }
        Ok(Helper {
            name: name.to_owned(),
            program: format!("docker-credential-{name}").into(),
            timeout: TIMEOUT,
        })
    }

    /// A test cannot change where its own process looks for programs.
    #[cfg(test)]
    pub(crate) fn at(mut self, program: &std::path::Path) -> Helper {
        self.program = program.to_owned();
        self
    }

    #[cfg(test)]
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Helper {
        self.timeout = timeout;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn program(&self) -> String {
        self.program.display().to_string()
    }

    pub(crate) fn get(&self, server: &str) -> Result<Option<Secret>, Error> {
        match self.ask("get", server)? {
            Answer::NotFound => Ok(None),
            Answer::Said(content) => parse_get(&content).map_err(|rule| self.wrong("get", rule)),
        }
    }

    pub(crate) fn store(&self, server: &str, secret: &Secret) -> Result<(), Error> {
        let (username, secret) = match secret {
            Secret::Password { username, password } => (username.as_str(), password),
            Secret::IdentityToken(token) => (TOKEN_USER, token),
            Secret::RegistryToken(_) => {
                return Err(self.wrong("store", "helpers have no place for registry tokens"));
            }
        };
        let message = Message {
            server_url: server.to_owned(),
            username: username.to_owned(),
            secret: secret.clone(),
        };
        let message = serde_json::to_string(&message).map_err(|e| self.wrong("store", e.to_string()))?;
        self.ask("store", &message).map(drop)
    }

    pub(crate) fn erase(&self, server: &str) -> Result<(), Error> {
        self.ask("erase", server).map(drop)
    }

    /// The servers of which it has something.
    pub(crate) fn list(&self) -> Result<Vec<String>, Error> {
        match self.ask("list", "unused")? {
            Answer::NotFound => Ok(Vec::new()),
            Answer::Said(content) => parse_list(&content).map_err(|rule| self.wrong("list", rule)),
        }
    }

    fn wrong(&self, action: &'static str, rule: impl Into<String>) -> Error {
        Error::Helper {
            program: self.program(),
            action,
            rule: rule.into(),
        }
    }

    fn ask(&self, action: &'static str, input: &str) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.timeout;
        let mut child = Command::new(&self.program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::NoHelper {
                program: self.program(),
                source,
            })?;
        let content = converse(&mut child, input).recv_timeout(self.timeout);
        let status = content
            .as_ref()
            .ok()
            .and_then(|_| await_end(&mut child, deadline));
        let (Ok(content), Some(status)) = (content, status) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::Timeout {
                program: self.program(),
                action,
                timeout: self.timeout,
            });
        };
        let content = content.map_err(|e| self.wrong(action, format!("its answer was not read: {e}")))?;
        if content.len() as u64 > ANSWER_BYTES_MAX {
            return Err(self.wrong(
                action,
                format!("its answer has more than {ANSWER_BYTES_MAX} bytes"),
            ));
        }
        if status.success() {
            return Ok(Answer::Said(content));
        }
        let message = String::from_utf8_lossy(&content);
        match message.trim() {
            NOT_FOUND => Ok(Answer::NotFound),
            "" => Err(self.wrong(action, format!("it ended with {status}"))),
            message => Err(self.wrong(action, printable(message))),
        }
    }
}

enum Answer {
    Said(Vec<u8>),
    NotFound,
}

/// Say `input` and listen, on a thread of its own: a program that neither reads nor writes blocks nobody else.
fn converse(child: &mut Child, input: &str) -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (sender, receiver) = mpsc::channel();
    let input = input.to_owned();
    thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // One that does not listen may answer well all the same.
            let _ = stdin.write_all(input.as_bytes());
        }
        let mut content = Vec::new();
        let read = stdout.map_or(Ok(0), |out| {
            out.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut content)
        });
        let _ = sender.send(read.map(|_| content));
    });
    receiver
}

/// The program has said all; it should be about to end.
fn await_end(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().ok()? {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn printable(message: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    message.chars().map(clean).take(MESSAGE_BYTES_MAX).collect()
}

/// What `get` answers; nothing if there is no secret in it.
pub(crate) fn parse_get(content: &[u8]) -> Result<Option<Secret>, &'static str> {
    let message: Message =
        serde_json::from_slice(content).map_err(|_| "its answer is not the JSON of a name and a secret")?;
    Ok(match (message.username, message.secret) {
        (_, secret) if secret.is_empty() => None,
        (username, token) if username == TOKEN_USER => Some(Secret::IdentityToken(token)),
        (username, password) => Some(Secret::Password { username, password }),
    })
}

/// What `list` answers: names by server.
pub(crate) fn parse_list(content: &[u8]) -> Result<Vec<String>, &'static str> {
    let list: Option<BTreeMap<String, String>> =
        serde_json::from_slice(content).map_err(|_| "its answer is not the JSON of a list")?;
    Ok(list.unwrap_or_default().into_keys().collect())
}
