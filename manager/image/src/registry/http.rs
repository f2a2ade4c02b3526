//! HTTP as registries need it: time-outs for silence, errors told apart.

use std::io;
use std::time::{Duration, Instant};

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use rustls::ClientConfig;

use super::hosts::Endpoint;
use super::{is_loopback, proxy};
use crate::Error;
use crate::digest::quote;
use crate::patience::{Config, Pace, retry_after};

/// How much of an error answer's body is read for its message.
pub(super) const ERROR_BYTES_MAX: u64 = 16 << 10;
/// A machine answers a handshake with itself at once.
const LOOPBACK_TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why one attempt did not succeed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// Another attempt may succeed.
    Again {
        reason: String,
        retry_after: Option<Duration>,
    },
    /// Nothing came from the registry. Another attempt may succeed, but each takes long.
    Unanswered(String),
    /// The registry does not have it.
    NotFound,
    /// The registry does not want to give it to us.
    Denied(String),
    /// It does not answer in TLS.
    NotTls,
    /// Another attempt would end the same.
    Rule(String),
}

impl Attempt {
    pub(crate) fn again(reason: impl Into<String>) -> Attempt {
        Attempt::Again {
            reason: reason.into(),
            retry_after: None,
        }
    }

    /// The same, with what it is about before the reason.
    pub(super) fn of(self, what: &str) -> Attempt {
        let about = |reason: String| format!("{what}: {reason}");
        match self {
            Attempt::Again { reason, retry_after } => Attempt::Again {
                reason: about(reason),
                retry_after,
            },
            Attempt::Unanswered(reason) => Attempt::Unanswered(about(reason)),
            Attempt::Denied(reason) => Attempt::Denied(about(reason)),
            Attempt::Rule(rule) => Attempt::Rule(about(rule)),
            other @ (Attempt::NotFound | Attempt::NotTls) => other,
        }
    }
}

/// Clients for one registry, and for where it sends us.
pub(super) struct Http {
    own: reqwest::Client,
    elsewhere: reqwest::Client,
    root: Url,
    /// TLS tells that the registry is itself, or it is on this machine.
    pub(super) is_proved: bool,
    pub(super) stall_timeout: Duration,
    pub(super) bytes_per_second_min: u64,
}

impl Http {
    /// `host` is for error messages. Blocks while it reads certificates.
    pub(super) fn new(host: &str, endpoint: &Endpoint, config: &Config) -> Result<Http, Error> {
        let failed = |what: &str, rule: String| Error::Protocol {
            registry: host.to_owned(),
            what: what.to_owned(),
            rule,
        };
        let build = |tls: ClientConfig| {
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(endpoint.dial_timeout.unwrap_or(config.stall_timeout))
                .pool_idle_timeout(Duration::from_secs(20))
                // Redirects are followed by hand: see `Registry::get`.
                .redirect(reqwest::redirect::Policy::none());
            let builder = proxy::through(builder, endpoint.proxy.as_ref())
                .map_err(|rule| failed("set-up of the proxy", rule))?;
            builder.build().map_err(|e| failed("set-up of HTTP", chain(&e)))
        };
        let tls = &endpoint.tls;
        let own = build(tls.with_host().map_err(|rule| failed("set-up of TLS", rule))?)?;
        let elsewhere = if tls.clients.is_empty() && !tls.skip_verify {
            own.clone()
        } else {
            build(tls.elsewhere().map_err(|rule| failed("set-up of TLS", rule))?)?
        };
        let is_https = endpoint.root.scheme() == "https";
        Ok(Http {
            own,
            elsewhere,
            root: endpoint.root.clone(),
            is_proved: (is_https && !tls.skip_verify) || is_loopback(&endpoint.root),
            stall_timeout: config.stall_timeout,
            bytes_per_second_min: config.bytes_per_second_min,
        })
    }

    /// The client for a URL. Only the registry itself sees our certificate, or goes without one of its own.
    pub(super) fn client(&self, url: &Url) -> &reqwest::Client {
        if url.origin() == self.root.origin() {
            &self.own
        } else {
            &self.elsewhere
        }
    }

    /// The registry turned out to be at another scheme.
    pub(super) fn set_root(&mut self, root: &Url) {
        self.root = root.clone();
    }

    /// Send a request and wait for the head of its answer.
    pub(super) async fn exchange(&self, request: RequestBuilder) -> Result<Response, Attempt> {
        self.exchange_within(self.stall_timeout, request).await
    }

    async fn exchange_within(&self, timeout: Duration, request: RequestBuilder) -> Result<Response, Attempt> {
        match tokio::time::timeout(timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) if e.is_timeout() => Err(Attempt::Unanswered(chain(&e.without_url()))),
            Ok(Err(e)) => Err(classify(&e.without_url())),
            Err(_) => Err(Attempt::Unanswered(format!("nothing arrived for {timeout:?}"))),
        }
    }

    /// Whether a registry on this machine answers a TLS handshake. A certificate that is not trusted counts, so that
    /// nobody gets credentials in the clear by offering a bad one.
    pub(super) async fn speaks_tls(&self, url: Url) -> bool {
        let timeout = self.stall_timeout.min(LOOPBACK_TLS_TIMEOUT);
        match self.exchange_within(timeout, self.own.head(url)).await {
            Ok(_) | Err(Attempt::Rule(_)) => true,
            Err(_) => false,
        }
    }

    /// For one answer's body, see [`Http::chunk`].
    pub(super) fn pace(&self) -> Pace {
        Pace::new(self.stall_timeout, self.bytes_per_second_min)
    }

    /// The next bytes of a body.
    pub(super) async fn chunk(
        &self,
        response: &mut Response,
        pace: &mut Pace,
    ) -> Result<Option<bytes::Bytes>, Attempt> {
        let asked = Instant::now();
        match tokio::time::timeout(pace.remaining(), response.chunk()).await {
            Ok(Ok(bytes)) => {
                let length = bytes.as_ref().map_or(0, bytes::Bytes::len);
                pace.arrived(length as u64, asked.elapsed());
                Ok(bytes)
            }
            Ok(Err(e)) => Err(Attempt::again(format!(
                "the transfer broke off: {}",
                chain(&e.without_url())
            ))),
            Err(_) => Err(Attempt::again(pace.complaint())),
        }
    }

    /// What an answer that is not a success means.
    pub(super) async fn refusal(&self, response: Response) -> Attempt {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, std::time::SystemTime::now()));
        let message = match read_bounded(self, response, ERROR_BYTES_MAX).await {
            Ok(body) => error_message(&body),
            Err(_) => None,
        };
        let reason = match message {
            Some(message) => format!("it answered {status}: {message}"),
            None => format!("it answered {status}"),
        };
        match status {
            StatusCode::NOT_FOUND => Attempt::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Attempt::Denied(reason),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Attempt::Again { reason, retry_after }
            }
            _ if status.is_server_error() => Attempt::Again { reason, retry_after },
            _ => Attempt::Rule(reason),
        }
    }
}

/// A whole body, if it is not longer than `bytes_max`.
pub(super) async fn read_bounded(
    http: &Http,
    mut response: Response,
    bytes_max: u64,
) -> Result<Vec<u8>, Attempt> {
    let mut content = Vec::new();
    let mut pace = http.pace();
    while let Some(bytes) = http.chunk(&mut response, &mut pace).await? {
        if content.len() as u64 + bytes.len() as u64 > bytes_max {
            return Err(Attempt::Rule(format!(
                "its answer is longer than {bytes_max} bytes"
            )));
        }
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

/// The target of a redirect, if the answer is one.
pub(super) fn redirect(response: &Response) -> Option<Result<Url, Attempt>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let target = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| response.url().join(text).ok());
    Some(target.ok_or_else(|| Attempt::Rule("it answered with a redirect to nowhere".into())))
}

/// The messages of a registry's JSON error answer.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        code: Option<String>,
        message: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let first = answer.errors.into_iter().next()?;
    let text = [first.code, first.message]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(": ");
    (!text.is_empty()).then(|| quote(&text))
}

pub(super) fn classify(error: &reqwest::Error) -> Attempt {
    match tls_error(error) {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => {
            return Attempt::Rule(format!("its TLS certificate is not trusted: {tls}"));
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            return Attempt::Rule(format!(
                "it ended the TLS handshake: {alert:?} (does it want a client certificate?)"
            ));
        }
        Some(rustls::Error::InvalidMessage(_)) => return Attempt::NotTls,
        _ => {}
    }
    if error.is_builder() || error.is_request() && error.is_redirect() {
        return Attempt::Rule(chain(error));
    }
    Attempt::again(chain(error))
}

/// The TLS error at the root of a failed request; I/O errors hide what they wrap from `source`.
fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(e) = next {
        if let Some(tls) = e.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match e.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => e.source(),
        };
    }
    None
}

/// An error with its causes: the outermost alone says too little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let cause = e.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = e.source();
    }
    text
}
