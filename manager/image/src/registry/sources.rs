//! All servers that have one repository: mirrors in their order, and the registry itself last.
//!
//! Each question goes to the first server that answers it well; the error names each one that was asked. A server
//! that is trusted to pull only is never asked what a tag means: it gives what has a known digest, and is checked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::hosts::{Capability, Endpoint};
use super::{Fetched, Registry, SearchResult};
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::Kind;
use crate::manifest::{Descriptor, Referrer};
use crate::patience::Config;
use crate::progress::Counters;
use crate::reference::Reference;
use crate::{Error, blocking};

/// A mirror has others behind it: it is not worth as much patience.
const MIRROR_ATTEMPTS_MAX: u32 = 2;

/// A repository, wherever it is.
pub(crate) struct Sources {
    servers: Vec<Server>,
    config: Config,
    host: String,
    /// Which server a layer came from at last, by its digest.
    served: Mutex<HashMap<Digest, usize>>,
}

struct Server {
    registry: Registry,
    capabilities: Vec<Capability>,
    is_last: bool,
    /// Why it is not asked any more: it has given something else than it was asked for.
    doubt: Mutex<Option<String>>,
}

impl Sources {
    /// Find out who has the repository of `reference`. Nothing is sent but to this machine.
    pub(crate) async fn connect(
        reference: &Reference,
        credentials: Option<&Credentials>,
        config: &Config,
    ) -> Result<Sources, Error> {
        let secret = credentials
            .map(|own| own.for_registry(&reference.host))
            .transpose()?;
        let (registries, host) = (config.registries.clone(), reference.host.clone());
        let endpoints = blocking(move || registries.endpoints(&host)).await?;
        let mut servers = Vec::new();
        let count = endpoints.len();
        for (i, endpoint) in endpoints.into_iter().enumerate() {
            let is_last = i + 1 == count;
            let mut config = config.clone();
            if !is_last {
                config.attempts = config.attempts.min(MIRROR_ATTEMPTS_MAX);
            }
            let capabilities = endpoint.capabilities.iter().copied().collect();
            servers.push(Server {
                registry: Registry::at(endpoint, reference, secret, &config).await?,
                capabilities,
                is_last,
                doubt: Mutex::new(None),
            });
        }
        Ok(Sources {
            servers,
            config: config.clone(),
            host: reference.host.clone(),
            served: Mutex::default(),
        })
    }

    /// The digest that a tag points to now, if a server tells it without sending the manifest.
    pub(crate) async fn resolve(&self, target: &str) -> Result<Option<Digest>, Error> {
        let mut tried = Tried::new(self, Capability::Resolve);
        while let Some(server) = tried.next() {
            match server.registry.resolve(target).await {
                Ok(digest) => return Ok(digest),
                Err(error) => tried.failed(server, error),
            }
        }
        Err(tried.into_error(&format!("manifest {target}")))
    }

    /// Fetch a manifest or index by tag, or by a descriptor that it has to match.
    pub(crate) async fn manifest(
        &self,
        target: &str,
        expected: Option<&Descriptor>,
        expected_digest: Option<&Digest>,
    ) -> Result<Fetched, Error> {
        // A tag is turned into a digest first where that lets servers answer which are not trusted with tags.
        let resolved = match expected_digest {
            None if self.has_mirrors_for_digests() => self.resolve(target).await?,
            _ => None,
        };
        let (target, digest) = match (&resolved, expected_digest) {
            (Some(digest), _) => (digest.to_string(), Some(digest)),
            (None, known) => (target.to_owned(), known),
        };
        let capability = digest.map_or(Capability::Resolve, |_| Capability::Pull);
        let mut tried = Tried::new(self, capability);
        while let Some(server) = tried.next() {
            match server.registry.manifest(&target, expected, digest).await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => tried.failed(server, error),
            }
        }
        Err(tried.into_error(&format!("manifest {target}")))
    }

    fn has_mirrors_for_digests(&self) -> bool {
        self.servers.iter().any(|server| {
            server.capabilities.contains(&Capability::Pull)
                && !server.capabilities.contains(&Capability::Resolve)
        })
    }

    /// All that refers to a manifest.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, Error> {
        let mut tried = Tried::new(self, Capability::Resolve);
        while let Some(server) = tried.next() {
            match server.registry.referrers(subject).await {
                Ok(found) => return Ok(found),
                Err(error) => tried.failed(server, error),
            }
        }
        Err(tried.into_error(&format!("referrers of {subject}")))
    }

    /// Fetch a small blob whole.
    pub(crate) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let mut tried = Tried::new(self, Capability::Pull);
        while let Some(server) = tried.next() {
            match server.registry.small_blob(descriptor).await {
                Ok(content) => return Ok(content),
                Err(error) => tried.failed(server, error),
            }
        }
        Err(tried.into_error(&format!("blob {}", descriptor.digest)))
    }

    /// Find repositories, at the registry itself: a mirror knows its own only.
    pub(crate) async fn search(&self, term: &str, limit: usize) -> Result<Vec<SearchResult>, Error> {
        match self.servers.last() {
            Some(server) => server.registry.search(term, limit).await,
            None => Err(Tried::new(self, Capability::Resolve).into_error(&format!("search for {term:?}"))),
        }
    }

    /// Send a blob's bytes to `sink`, going on where a connection breaks off, at the next server if need be.
    ///
    /// Ends well when all bytes were sent, or when nobody takes them any more. The receiver checks the digest, and
    /// asks [`Sources::doubt`] whether to try again when it is wrong.
    pub(crate) async fn stream_blob(
        &self,
        descriptor: &Descriptor,
        sink: &mpsc::Sender<Bytes>,
        counters: &Arc<Counters>,
    ) -> Result<(), Error> {
        let mut tried = Tried::new(self, Capability::Pull);
        let mut offset = 0;
        while let Some(server) = tried.next() {
            let index = tried.asked - 1;
            self.served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(descriptor.digest.clone(), index);
            let registry = &server.registry;
            match registry
                .stream_blob(descriptor, &mut offset, sink, counters)
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => tried.failed(server, error),
            }
        }
        Err(tried.into_error(&format!("layer {}", descriptor.digest)))
    }

    /// What came for `digest` breaks a rule. If a mirror sent it, that mirror is not asked any more, and the blob may be
    /// fetched again: true.
    pub(crate) fn doubt(&self, digest: &Digest, error: &Error) -> bool {
        let index = {
            let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            served.get(digest).copied()
        };
        let server = index.and_then(|index| self.servers.get(index));
        let Some(server) = server.filter(|server| !server.is_last) else {
            return false;
        };
        tracing::warn!(mirror = server.registry.name(), %error, "a mirror sent something wrong, and is not asked again");
        let mut doubt = server.doubt.lock().unwrap_or_else(PoisonError::into_inner);
        doubt.get_or_insert_with(|| error.to_string());
        true
    }
}

/// The servers that one question goes to.
struct Tried<'a> {
    sources: &'a Sources,
    capability: Capability,
    asked: usize,
    reasons: Vec<String>,
    /// The error of the server asked last.
    last: Option<Error>,
}

impl<'a> Tried<'a> {
    fn new(sources: &'a Sources, capability: Capability) -> Tried<'a> {
        Tried {
            sources,
            capability,
            asked: 0,
            reasons: Vec::new(),
            last: None,
        }
    }

    /// The next server to ask.
    fn next(&mut self) -> Option<&'a Server> {
        loop {
            let server = self.sources.servers.get(self.asked)?;
            self.asked += 1;
            if !server.capabilities.contains(&self.capability) {
                continue;
            }
            let doubt = server
                .doubt
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let rests = || {
                self.sources
                    .config
                    .registries
                    .circuit
                    .reason(server.registry.root())
            };
            match doubt.or_else(|| rests().filter(|_| !server.is_last)) {
                Some(reason) => self.reasons.push(format!("{}: {reason}", server.registry.root())),
                None => return Some(server),
            }
        }
    }

    fn failed(&mut self, server: &Server, error: Error) {
        let root = server.registry.root();
        if !server.is_last {
            tracing::info!(mirror = root, %error, "a mirror is of no use, asking the next");
            if matches!(error, Error::Registry { .. }) {
                self.sources
                    .config
                    .registries
                    .circuit
                    .failed(root, &error.to_string());
            }
        }
        self.reasons.push(format!("{root}: {error}"));
        self.last = Some(error);
    }

    /// What to tell when nobody is left to ask.
    fn into_error(self, what: &str) -> Error {
        match self.last {
            Some(error) if self.reasons.len() == 1 => error,
            last => Error::Sources {
                registry: self.sources.host.clone(),
                what: what.to_owned(),
                kind: last.map_or(Kind::Unavailable, |error| error.kind()),
                tried: match self.reasons.as_slice() {
                    [] => format!("hosts.toml names no server that may {:?}", self.capability).to_lowercase(),
                    reasons => reasons.join("; "),
                },
            },
        }
    }
}

/// The one server of a registry that takes pushes.
pub(super) fn to_push(endpoints: Vec<Endpoint>, host: &str) -> Result<Endpoint, Error> {
    let may = |endpoint: &Endpoint| endpoint.capabilities.contains(&Capability::Push);
    endpoints.into_iter().find(may).ok_or_else(|| Error::Sources {
        registry: host.to_owned(),
        what: "place to push to".into(),
        kind: Kind::Unavailable,
        tried: "hosts.toml names no server that may push".into(),
    })
}
