//! What registries have, looked at without pulling it: manifests, what refers to them, and repositories by search.

use crate::reference::Reference;
use crate::registry::{SearchResult, Sources};
use crate::{Credentials, Error, Images, Referrer};

/// The host of docker's search: it is not where its images are.
const DOCKER_HUB_SEARCH_HOST: &str = "index.docker.io";
const SEARCH_LIMIT_DEFAULT: usize = 25;
const SEARCH_LIMIT_MAX: usize = 100;

/// A manifest or index as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteManifest {
    /// Its media type, as the registry tells it.
    pub media_type: String,
    /// Its digest, computed here.
    pub digest: String,
    /// The document, byte for byte.
    pub content: Vec<u8>,
    /// What refers to it, if that was asked for.
    pub referrers: Vec<Referrer>,
}

impl Images {
    /// Fetch what a registry has under a name, and the list of what refers to it if `with_referrers`.
    pub async fn inspect_manifest(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
        with_referrers: bool,
    ) -> Result<RemoteManifest, Error> {
        let reference = Reference::parse(reference)?;
        let registry = Sources::connect(&reference, credentials.as_ref(), self.pulls.config()).await?;
        let fetched = registry
            .manifest(&reference.target(), None, reference.digest.as_ref())
            .await?;
        let referrers = if with_referrers {
            registry.referrers(&fetched.digest).await?
        } else {
            Vec::new()
        };
        Ok(RemoteManifest {
            media_type: fetched.media_type,
            digest: fetched.digest.to_string(),
            content: fetched.content,
            referrers,
        })
    }

    /// Find repositories: `debian` at Docker Hub, `registry.example/debian` elsewhere. `limit` 0: 25; at most 100.
    pub async fn search(
        &self,
        term: &str,
        limit: usize,
        credentials: Option<Credentials>,
    ) -> Result<Vec<SearchResult>, Error> {
        let limit = if limit == 0 { SEARCH_LIMIT_DEFAULT } else { limit };
        if limit > SEARCH_LIMIT_MAX {
            return Err(Error::Reference {
                reference: term.chars().take(200).collect(),
                rule: format!("a search has at most {SEARCH_LIMIT_MAX} results, not {limit}"),
            });
        }
        let (reference, term) = Reference::of_search(term)?;
        let reference = match reference.host.as_str() {
            "docker.io" => Reference {
                host: DOCKER_HUB_SEARCH_HOST.to_owned(),
                ..reference
            },
            _ => reference,
        };
        let registry = Sources::connect(&reference, credentials.as_ref(), self.pulls.config()).await?;
        registry.search(&term, limit).await
    }
}
