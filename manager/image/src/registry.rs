//! One repository of one registry: manifests whole, blobs as streams.
//!
//! Speaks the OCI distribution API, which is Docker's registry API v2. Each request is tried again while that may
//! help; a blob goes on where it broke off. Plain HTTP is spoken to this machine, and to whom hosts.toml names by an
//! `http` URL. Pulls ask several such servers, by [`Sources`].

mod auth;
mod challenge;
mod circuit;
mod hosts;
mod http;
mod login;
mod page;
mod proxy;
mod referrers;
mod scope;
mod search;
mod sources;
mod tls;
mod token;
mod upload;

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;

pub use hosts::Registries;
pub(crate) use http::Attempt;
pub(crate) use login::login;
pub use search::SearchResult;
pub(crate) use sources::Sources;
pub use tls::client_tls;
pub(crate) use upload::{Arrival, Blob, MOUNTS_MAX, Session, Source};

use std::net::IpAddr;
use std::sync::Arc;

use ::credentials::Secret;
use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use crate::Error;
use crate::blocking;
use crate::credentials::Credentials;
use crate::digest::{Digest, quote};
use crate::manifest::{self, Descriptor};
use crate::patience::{Attempts, Config, Failed, GiveUp};
use crate::progress::Counters;
use crate::reference::Reference;
use auth::Auth;
use hosts::Endpoint;
use http::{Http, read_bounded, redirect};
use upload::Payload;

const REDIRECTS_MAX: usize = 5;
const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest or index as the registry sent it, its digest computed here.
pub(crate) struct Fetched {
    pub(crate) content: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

/// A repository at one server.
pub(crate) struct Registry {
    http: Http,
    auth: Auth,
    /// `https://host/v2/repository/`
    base: Url,
    /// `https://host/v2/`, for people.
    root: String,
    /// The registry as the user wrote it, or the mirror's host.
    host: String,
    repository: String,
    /// For a mirror: the registry that is meant, as containerd tells it to mirrors of several.
    namespace: Option<String>,
    /// Sent with each request to this server.
    header: HeaderMap,
    config: Config,
}

impl Registry {
    /// Find out how to speak to the server that takes pushes to the registry of `reference`. Nothing is sent but to
    /// this machine.
    pub(crate) async fn connect(
        reference: &Reference,
        credentials: Option<&Credentials>,
        config: &Config,
    ) -> Result<Registry, Error> {
        let secret = credentials
            .map(|own| own.for_registry(&reference.host))
            .transpose()?;
        let (registries, host) = (config.registries.clone(), reference.host.clone());
        let endpoint = blocking(move || sources::to_push(registries.endpoints(&host)?, &host)).await?;
        let registry = Registry::at(endpoint, reference, secret, config).await?;
        registry.want(&registry.repository, &["pull", "push"]).await;
        Ok(registry)
    }

    /// The repository at one of the servers that hosts.toml names. The secret is for the registry itself.
    async fn at(
        endpoint: Endpoint,
        reference: &Reference,
        secret: Option<&Secret>,
        config: &Config,
    ) -> Result<Registry, Error> {
        let secret = secret.filter(|_| endpoint.is_registry).cloned();
        let auth = Auth::new(secret, false);
        let path = format!("{}/", reference.repository);
        let registry = Registry::reach(endpoint, reference, auth, &path, config).await?;
        registry.want(&registry.repository, &["pull"]).await;
        Ok(registry)
    }

    /// The API's root.
    async fn to_log_in(
        endpoint: Endpoint,
        reference: &Reference,
        secret: &Secret,
        config: &Config,
    ) -> Result<Registry, Error> {
        let auth = Auth::new(Some(secret.clone()), true);
        Registry::reach(endpoint, reference, auth, "", config).await
    }

    async fn reach(
        endpoint: Endpoint,
        reference: &Reference,
        auth: Auth,
        path: &str,
        config: &Config,
    ) -> Result<Registry, Error> {
        let (root, is_registry, has_scheme) =
            (endpoint.root.clone(), endpoint.is_registry, endpoint.has_scheme);
        let host = if is_registry {
            reference.host.clone()
        } else {
            root.authority().to_owned()
        };
        let header = endpoint.header.clone();
        let (http_host, http_config) = (host.clone(), config.clone());
        let http = blocking(move || Http::new(&http_host, &endpoint, &http_config)).await?;
        let mut registry = Registry {
            http,
            auth,
            base: root,
            root: String::new(),
            host,
            repository: reference.repository.clone(),
            namespace: (!is_registry).then(|| reference.host.clone()),
            header,
            config: config.clone(),
        };
        if !has_scheme
            && is_loopback(&registry.base)
            && !registry.http.speaks_tls(registry.base.clone()).await
        {
            registry
                .base
                .set_scheme("http")
                .map_err(|()| registry.wrong("its URL", "it cannot be http"))?;
            registry.http.set_root(&registry.base);
        }
        registry.root = registry.base.to_string();
        registry.base = registry
            .base
            .join(path)
            .map_err(|e| registry.wrong("its URL", e.to_string()))?;
        Ok(registry)
    }

    /// From now on, ask for tokens that allow `actions` on `repository` too: a mount reads from another one.
    pub(crate) async fn want(&self, repository: &str, actions: &[&str]) {
        self.auth.want(repository, actions).await;
    }

    /// The registry as the user wrote it, or the mirror's host.
    pub(crate) fn name(&self) -> &str {
        &self.host
    }

    /// The URL of its API.
    fn root(&self) -> &str {
        &self.root
    }

    fn wrong(&self, what: &str, rule: impl Into<String>) -> Error {
        Error::Protocol {
            registry: self.host.clone(),
            what: what.to_owned(),
            rule: rule.into(),
        }
    }

    /// The digest that a tag points to now, if the registry tells it without sending the manifest.
    pub(crate) async fn resolve(&self, target: &str) -> Result<Option<Digest>, Error> {
        let what = format!("manifest {target} of {}", self.repository);
        let url = self.url(&format!("manifests/{target}"))?;
        let mut attempts = Attempts::new(&self.config);
        let response = loop {
            match self.head(&url).await {
                Ok(response) => break response,
                Err(attempt) => self.pause(&what, &mut attempts, 0, attempt).await?,
            }
        };
        Ok(header(response.headers(), DIGEST_HEADER).and_then(|text| Digest::parse(text).ok()))
    }

    /// Fetch a manifest or index by tag, or by a descriptor that it has to match.
    pub(crate) async fn manifest(
        &self,
        target: &str,
        expected: Option<&Descriptor>,
        expected_digest: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        if let Some(descriptor) = expected
            && let Some(content) = &descriptor.data
        {
            return Ok(Fetched {
                content: content.clone(),
                media_type: descriptor.media_type.clone(),
                digest: descriptor.digest.clone(),
            });
        }
        let what = format!("manifest {target} of {}", self.repository);
        let url = self.url(&format!("manifests/{target}"))?;
        let mut attempts = Attempts::new(&self.config);
        let (content, media_type, announced) = loop {
            match self.document(&url).await {
                Ok(document) => break document,
                Err(attempt) => self.pause(&what, &mut attempts, 0, attempt).await?,
            }
        };
        // Of a signed one the digest is not that of its bytes.
        if manifest::is_schema_1(&media_type) {
            return Err(Error::Document {
                what: "manifest",
                digest: format!("{}/{}:{target}", self.host, self.repository),
                rule: manifest::NO_SCHEMA_1.to_owned(),
            });
        }
        let announced = match (expected_digest, announced) {
            (Some(digest), _) => Some(digest.clone()),
            (None, Some(text)) => Some(Digest::parse(&text).map_err(|rule| self.wrong(&what, rule))?),
            (None, None) => None,
        };
        // The digest that is kept is in the algorithm that was asked for.
        let mut hasher = announced
            .as_ref()
            .map_or_else(Digest::sha256_hasher, Digest::hasher);
        hasher.update(&content);
        let digest = hasher.finish();
        if let Some(announced) = announced.filter(|announced| *announced != digest) {
            return Err(Error::Digest {
                what: "manifest",
                expected: announced.to_string(),
                actual: digest.to_string(),
            });
        }
        if let Some(expected) = expected {
            check_descriptor(expected, &content, &media_type, &digest)?;
        }
        Ok(Fetched {
            content,
            media_type,
            digest,
        })
    }

    /// Fetch a small blob whole.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if let Some(content) = &descriptor.data {
            return Ok(content.clone());
        }
        let what = format!("blob {} of {}", descriptor.digest, self.repository);
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        let mut attempts = Attempts::new(&self.config);
        let content = loop {
            match self.bytes(&url, descriptor.size).await {
                Ok(content) => break content,
                Err(attempt) => self.pause(&what, &mut attempts, 0, attempt).await?,
            }
        };
        let mut hasher = descriptor.digest.hasher();
        hasher.update(&content);
        let actual = hasher.finish();
        if actual != descriptor.digest {
            let expected = descriptor.digest.to_string();
            return Err(Error::Digest {
                what: "blob",
                expected,
                actual: actual.to_string(),
            });
        }
        Ok(content)
    }

    /// Send a blob's bytes from `offset` on to `sink`, going on where a connection breaks off.
    ///
    /// Ends well when all bytes were sent, or when nobody takes them any more. The receiver checks the digest.
    async fn stream_blob(
        &self,
        descriptor: &Descriptor,
        offset: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        counters: &Arc<Counters>,
    ) -> Result<(), Error> {
        if let Some(content) = &descriptor.data {
            counters.set_downloaded(descriptor.size);
            // Whoever no longer takes it tells why.
            let _ = sink.send(Bytes::from(content.clone())).await;
            return Ok(());
        }
        for url in &descriptor.urls {
            let what = format!("foreign layer {} at {}", descriptor.digest, quote(url));
            let url = Url::parse(url).map_err(|e| self.wrong(&what, e.to_string()))?;
            self.check_leads_safely(&url, "its manifest sends us")
                .map_err(|rule| self.wrong(&what, rule))?;
            match self
                .stream_url(&what, &url, descriptor, offset, sink, counters)
                .await
            {
                Ok(()) => return Ok(()),
                // Another of its places, or the registry, may have it.
                Err(error) => {
                    tracing::info!(%error, "a foreign layer was not to be had at one of its places");
                }
            }
        }
        let what = format!("layer {} of {}", descriptor.digest, self.repository);
        let url = self.url(&format!("blobs/{}", descriptor.digest))?;
        self.stream_url(&what, &url, descriptor, offset, sink, counters)
            .await
    }

    async fn stream_url(
        &self,
        what: &str,
        url: &Url,
        descriptor: &Descriptor,
        offset: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        counters: &Arc<Counters>,
    ) -> Result<(), Error> {
        let mut attempts = Attempts::new(&self.config);
        loop {
            match self.stream_from(url, descriptor, offset, sink, counters).await {
                Ok(()) => return Ok(()),
                Err(attempt) => self.pause(what, &mut attempts, *offset, attempt).await?,
            }
        }
    }

    async fn stream_from(
        &self,
        url: &Url,
        descriptor: &Descriptor,
        offset: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        counters: &Arc<Counters>,
    ) -> Result<(), Attempt> {
        let mut headers = HeaderMap::new();
        if *offset > 0 {
            let range =
                HeaderValue::from_str(&format!("bytes={offset}-")).expect("digits are a header value");
            headers.insert(RANGE, range);
        }
        let mut response = self.get(Method::GET, url.clone(), &headers).await?;
        // How much of what comes was here before: a server may ignore the range.
        let mut known = match response.status() {
            StatusCode::OK => *offset,
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), *offset) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(Attempt::Rule(format!(
                    "it answered with another range than from byte {offset}"
                )));
            }
            _ => return Err(self.http.refusal(response).await),
        };
        let length = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|t| t.parse::<u64>().ok());
        let begin = *offset - known;
        if let Some(total) = length.map(|length| begin.saturating_add(length))
            && total != descriptor.size
        {
            let size = descriptor.size;
            return Err(Attempt::Rule(format!(
                "it has {total} bytes, its manifest says {size}"
            )));
        }
        let mut pace = self.http.pace();
        while let Some(mut bytes) = self.http.chunk(&mut response, &mut pace).await? {
            let skip = known.min(bytes.len() as u64);
            known -= skip;
            bytes = bytes.slice(skip as usize..);
            if bytes.is_empty() {
                continue;
            }
            *offset += bytes.len() as u64;
            counters.set_downloaded((*offset).min(descriptor.size));
            // The receiver ends when it has failed, and tells why itself: it refuses a byte too many.
            if sink.send(bytes).await.is_err() || *offset > descriptor.size {
                return Ok(());
            }
        }
        if *offset < descriptor.size {
            return Err(Attempt::again(format!(
                "it ended after {offset} of {} bytes",
                descriptor.size
            )));
        }
        Ok(())
    }

    fn url(&self, rest: &str) -> Result<Url, Error> {
        // A relative reference with a colon in its first segment would be taken for a scheme.
        let mut url = self
            .base
            .join(&format!("./{rest}"))
            .map_err(|e| self.wrong(rest, e.to_string()))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    async fn get(&self, method: Method, url: Url, headers: &HeaderMap) -> Result<Response, Attempt> {
        self.send(method, url, headers, Payload::Nothing).await
    }

    /// One request: proves who we are if asked to, and follows redirects.
    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: &HeaderMap,
        payload: Payload<'_>,
    ) -> Result<Response, Attempt> {
        let mut url = url;
        let mut answered = 0;
        for _ in 0..=REDIRECTS_MAX + 2 {
            // The proof is for the registry alone: not for where it sends us, nor for itself without encryption.
            let is_registry = url.origin() == self.base.origin();
            let mut headers = headers.clone();
            let mut sent = None;
            if is_registry {
                headers.extend(self.header.clone());
                sent = self.auth.header(&self.http).await?;
                if let Some(proof) = &sent {
                    headers.insert(AUTHORIZATION, proof.clone());
                }
            }
            let request = self.http.client(&url).request(method.clone(), url.clone());
            let request = request.headers(headers);
            let response = payload.exchange(&self.http, request).await?;
            if response.status() == StatusCode::UNAUTHORIZED && is_registry && answered < 2 {
                // Twice: a token may have run out between its check and its use.
                answered += 1;
                self.auth
                    .answer(&self.http, &self.base, &response, sent.as_ref())
                    .await?;
                continue;
            }
            match redirect(&response) {
                None if response.status() == StatusCode::UNAUTHORIZED => {
                    return Err(match self.http.refusal(response).await {
                        Attempt::Denied(reason) => Attempt::Denied(self.auth.explain(&reason).await),
                        other => other,
                    });
                }
                None => return Ok(response),
                // These would make a GET of it (RFC 9110, section 15.4).
                Some(_) if !method.is_safe() && matches!(response.status().as_u16(), 301..=303) => {
                    let status = response.status();
                    return Err(Attempt::Rule(format!(
                        "it answered {method} with the redirect {status}, which does not keep the method"
                    )));
                }
                Some(target) => {
                    let target = target?;
                    self.check_leads_safely(&target, "it redirects")
                        .map_err(Attempt::Rule)?;
                    url = target;
                }
            }
        }
        Err(Attempt::Rule(format!(
            "it redirects more than {REDIRECTS_MAX} times"
        )))
    }

    /// Whether we may go where somebody else's answer or document sends us: by https, or on this machine.
    fn check_leads_safely(&self, target: &Url, who_leads: &str) -> Result<(), String> {
        if leads_safely(&self.base, target) {
            return Ok(());
        }
        let host = quote(target.host_str().unwrap_or_default());
        Err(format!("{who_leads} to {host} without https"))
    }

    async fn head(&self, url: &Url) -> Result<Response, Attempt> {
        let response = self.get(Method::HEAD, url.clone(), &accept_manifests()).await?;
        match response.status() {
            // Some registries do not have it; then nothing is known.
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(response),
            status if status.is_success() => Ok(response),
            _ => Err(self.http.refusal(response).await),
        }
    }

    /// A manifest's content, its media type, and the digest that the registry says it has.
    async fn document(&self, url: &Url) -> Result<(Vec<u8>, String, Option<String>), Attempt> {
        let response = self.get(Method::GET, url.clone(), &accept_manifests()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.http.refusal(response).await);
        }
        let media_type = header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let announced = header(response.headers(), DIGEST_HEADER).map(ToOwned::to_owned);
        let content = read_bounded(&self.http, response, manifest::DOCUMENT_BYTES_MAX).await?;
        Ok((content, media_type, announced))
    }

    async fn bytes(&self, url: &Url, size: u64) -> Result<Vec<u8>, Attempt> {
        let response = self.get(Method::GET, url.clone(), &HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(self.http.refusal(response).await);
        }
        let content = read_bounded(&self.http, response, size).await?;
        if (content.len() as u64) < size {
            return Err(Attempt::again(format!(
                "it ended after {} of {size} bytes",
                content.len()
            )));
        }
        Ok(content)
    }

    /// Wait before the next attempt, or give up with the error that tells what happened.
    async fn pause(
        &self,
        what: &str,
        attempts: &mut Attempts,
        offset: u64,
        attempt: Attempt,
    ) -> Result<(), Error> {
        let registry = self.host.clone();
        let what = what.to_owned();
        let (reason, failed) = match attempt {
            Attempt::NotFound => return Err(Error::NotAtRegistry { registry, what }),
            Attempt::Denied(reason) => {
                return Err(Error::Denied {
                    registry,
                    what,
                    reason,
                });
            }
            Attempt::Rule(rule) => return Err(Error::Protocol { registry, what, rule }),
            Attempt::NotTls => {
                let rule = "it does not speak TLS, and plain HTTP is spoken to this machine only, or where hosts.toml \
                            names an http:// URL"
                    .into();
                return Err(Error::Protocol { registry, what, rule });
            }
            Attempt::Unanswered(reason) => (reason, Failed::Unanswered),
            Attempt::Again { reason, retry_after } => (reason, Failed::Answered { retry_after }),
        };
        let reason = match attempts.failed_at(offset, failed) {
            Ok(pause) => {
                tracing::debug!(registry, what, reason, ?pause, "trying again");
                tokio::time::sleep(pause).await;
                return Ok(());
            }
            Err(GiveUp::AskedToWait(wait)) => {
                format!("{reason}; it asks to wait {wait:?} before the next try")
            }
            Err(GiveUp::Enough) => reason,
        };
        Err(Error::Registry {
            registry,
            what,
            reason,
            attempts: attempts.failed(),
        })
    }
}

fn accept_manifests() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))])
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    header(headers, CONTENT_RANGE.as_str())
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split('-').next())
        .is_some_and(|start| start.parse() == Ok(offset))
}

fn check_descriptor(
    expected: &Descriptor,
    content: &[u8],
    media_type: &str,
    digest: &Digest,
) -> Result<(), Error> {
    let refuse = |rule| {
        Err(Error::Document {
            what: "manifest",
            digest: digest.to_string(),
            rule,
        })
    };
    if content.len() as u64 != expected.size {
        return refuse(format!(
            "it has {} bytes, its index says {}",
            content.len(),
            expected.size
        ));
    }
    if media_type != expected.media_type {
        return refuse(format!(
            "it came as {}, its index says {}",
            quote(media_type),
            quote(&expected.media_type)
        ));
    }
    Ok(())
}

/// Whether somebody at `base` may send us to `target`: by https, to itself, or from this machine to this machine.
fn leads_safely(base: &Url, target: &Url) -> bool {
    target.scheme() == "https"
        || target.origin() == base.origin()
        || (target.scheme() == "http" && is_loopback(target) && is_loopback(base))
}

/// Whether a URL's host is this machine, by its name or number: no look-up is trusted with that.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let number = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || number.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, local) in [
            ("http://localhost:5000/", true),
            ("http://127.0.0.1/", true),
            ("http://127.8.8.8:1/", true),
            ("http://[::1]:5000/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
            ("http://[::2]/", false),
            ("http://127.0.0.1.nip.io/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), local, "{url}");
        }
    }

    #[test]
    fn a_range_answer_has_to_start_where_asked() {
        let with =
            |value: &str| HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_str(value).unwrap())]);
        assert!(starts_at(&with("bytes 5-9/10"), 5));
        assert!(!starts_at(&with("bytes 0-9/10"), 5));
        assert!(!starts_at(&with("items 5-9/10"), 5));
        assert!(!starts_at(&HeaderMap::new(), 5));
    }
}
