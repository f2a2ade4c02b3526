//! One question to a plugin: JSON over HTTP, with bounds of time and of size.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
use crate::discovery::{Address, Spec};

/// Docker's, of the version of the protocol with `Capabilities`.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// Of one answer: a list of some ten thousand volumes.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Of a plugin's words in a message.
const WORDS_MAX: usize = 500;
/// One that does not take a connection is tried again, twice as long after each time, as docker does.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// As docker: no longer than this in all.
const TRIED_FOR_MAX: Duration = Duration::from_secs(30);

/// What is done about a plugin that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// That is the answer.
    Once,
    /// It may just be restarting: it is tried again for a while.
    Patient,
}

/// How often, and for how long, a connection is tried.
pub(crate) struct Retries {
    until: Option<Instant>,
    next: Duration,
}

impl Retries {
    pub(crate) fn new(effort: Effort, timeout: Duration) -> Retries {
        let tried_for = TRIED_FOR_MAX.min(timeout / 2);
        Retries {
            until: (effort == Effort::Patient).then(|| Instant::now() + tried_for),
            next: FIRST_WAIT,
        }
    }

    /// Wait for the next attempt. False: there is none.
    pub(crate) async fn wait(&mut self) -> bool {
        let Some(left) = self
            .until
            .and_then(|until| until.checked_duration_since(Instant::now()))
        else {
            return false;
        };
        tokio::time::sleep(self.next.min(left)).await;
        self.next = (self.next * 2).min(LONGEST_WAIT);
        true
    }
}

/// Where a plugin is asked.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    address: String,
    root: String,
    http: reqwest::Client,
    pub(crate) timeout: Duration,
}

/// What every answer may have.
#[derive(Deserialize)]
struct Complaint {
    #[serde(rename = "Err", default)]
    error: Option<String>,
}

impl Endpoint {
    /// `path` is that of the file that tells of it.
    pub(crate) fn new(name: &str, spec: &Spec, path: &Path, timeout: Duration) -> Result<Endpoint, Error> {
        let wrong = |why: String| Error::Spec {
            name: name.to_owned(),
            path: path.to_owned(),
            why,
        };
        let tls = match &spec.tls {
            Some(files) => image::client_tls(
                &files.authority,
                &files.certificate,
                &files.key,
                files.skip_verify,
            ),
            None => no_tls(),
        };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.map_err(wrong)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // A plugin that was restarted is not asked on a connection to the one before.
            .pool_max_idle_per_host(0)
            .connect_timeout(timeout)
            .timeout(timeout);
        let (builder, root, address) = match &spec.address {
            Address::Unix(socket) => (
                builder.unix_socket(socket.as_path()),
                "http://plugin.moby.localhost".to_owned(),
                socket.display().to_string(),
            ),
            Address::Tcp(host) => {
                let scheme = if spec.tls.is_some() { "https" } else { "http" };
                (builder, format!("{scheme}://{host}"), host.clone())
            }
        };
        Ok(Endpoint {
            name: name.to_owned(),
            address,
            root,
            http: builder.build().map_err(|error| wrong(chain(&error)))?,
            timeout,
        })
    }

    /// The handshake: what it implements.
    pub(crate) async fn activate(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Manifest {
            #[serde(rename = "Implements", default)]
            implements: Option<Vec<String>>,
        }
        let manifest: Manifest = self.ask("Plugin.Activate", None, Effort::Once).await?;
        Ok(manifest.implements.unwrap_or_default())
    }

    /// Ask, and read the answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        question: Option<&Value>,
        effort: Effort,
    ) -> Result<T, Error> {
        let mut retries = Retries::new(effort, self.timeout);
        let (status, body) = loop {
            match self.exchange(method, question).await {
                Err(Error::Unreachable { .. }) if retries.wait().await => {}
                other => break other?,
            }
        };
        self.read(method, status, &body)
    }

    async fn exchange(
        &self,
        method: &'static str,
        question: Option<&Value>,
    ) -> Result<(u16, Vec<u8>), Error> {
        let request = self
            .http
            .post(format!("{}/{method}", self.root))
            .header("Accept", MEDIA_TYPE)
            .header("Content-Type", MEDIA_TYPE)
            .body(question.map(Value::to_string).unwrap_or_default());
        let mut answer = request
            .send()
            .await
            .map_err(|error| self.failed(method, &error))?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        while let Some(part) = answer
            .chunk()
            .await
            .map_err(|error| self.failed(method, &error))?
        {
            if body.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(self.no_answer(
                    method,
                    format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"),
                ));
            }
            body.extend_from_slice(&part);
        }
        Ok((status, body))
    }

    fn read<T: DeserializeOwned>(&self, method: &'static str, status: u16, body: &[u8]) -> Result<T, Error> {
        let complaint = serde_json::from_slice::<Complaint>(body)
            .ok()
            .and_then(|complaint| complaint.error)
            .filter(|words| !words.is_empty());
        let refused = |why: String| Error::Refused {
            name: self.name.clone(),
            method,
            why,
        };
        if let Some(words) = complaint {
            return Err(refused(printable(&words)));
        }
        if status != 200 {
            let words = printable(&String::from_utf8_lossy(body));
            return Err(refused(format!("HTTP status {status}: {}", words.trim())));
        }
        serde_json::from_slice(body).map_err(|error| self.unusable(method, error.to_string()))
    }

    fn failed(&self, method: &'static str, error: &reqwest::Error) -> Error {
        if error.is_timeout() {
            let seconds = self.timeout.as_secs_f32();
            return self.no_answer(method, format!("no answer within {seconds} s"));
        }
        if error.is_connect() {
            return Error::Unreachable {
                name: self.name.clone(),
                method,
                address: self.address.clone(),
                why: chain(error),
            };
        }
        self.no_answer(method, chain(error))
    }

    fn no_answer(&self, method: &'static str, why: String) -> Error {
        Error::NoAnswer {
            name: self.name.clone(),
            method,
            why,
        }
    }

    pub(crate) fn unusable(&self, method: &'static str, why: String) -> Error {
        Error::Answer {
            name: self.name.clone(),
            method,
            why,
        }
    }
}

/// The client wants some; with this it trusts nobody, and no file is read.
fn no_tls() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// The innermost cause: what is around it names the URL, which says nothing here.
fn chain(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut words = error.to_string();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// A stranger's words on somebody's terminal: one line, of a bounded length.
fn printable(words: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(WORDS_MAX).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_do_nothing_to_a_terminal() {
        assert_eq!(printable("a\u{1b}[31m\nb"), "a [31m b");
        assert_eq!(printable(&"x".repeat(10_000)).len(), WORDS_MAX);
    }
}
