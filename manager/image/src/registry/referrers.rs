//! Manifests on their way up, and what refers to them: by the referrers API, or by the tag that stands in for it.
//!
//! A registry with the API says so by `OCI-Subject` when a manifest with a subject is put. At one without it whoever
//! pushes keeps an index of the referrers under a tag made of the subject's digest. Nothing locks that index: it is
//! read again after it was written, and written again if another's entry has taken the place of ours.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::page::PAGES_MAX;
use super::{DIGEST_HEADER, Payload, Registry, header};
use crate::Error;
use crate::digest::{Digest, quote};
use crate::manifest::{OCI_INDEX, Referrer, referrers};
use crate::patience::Attempts;

const SUBJECT_HEADER: &str = "oci-subject";
/// Bound of the referrers of one manifest.
const REFERRERS_MAX: usize = 10_000;
/// How often the index of referrers is written when others write it too.
const INDEX_WRITES_MAX: usize = 4;

impl Registry {
    /// Put a manifest or index under a tag or its digest. `true`: the registry has taken note of its subject.
    pub(crate) async fn put_manifest(
        &self,
        target: &str,
        content: &Bytes,
        media_type: &str,
    ) -> Result<bool, Error> {
        let what = format!("push of manifest {target} to {}", self.repository);
        let url = self.url(&format!("manifests/{target}"))?;
        let media_type = HeaderValue::from_str(media_type).map_err(|e| self.wrong(&what, e.to_string()))?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type)]);
        let mut attempts = Attempts::new(&self.config);
        let answer = loop {
            let payload = Payload::Bytes(content.clone());
            let failed = match self.send(Method::PUT, url.clone(), &headers, payload).await {
                Ok(response) if response.status().is_success() => break response.headers().clone(),
                Ok(response) => self.write_refusal(response).await,
                Err(attempt) => attempt,
            };
            self.pause(&what, &mut attempts, 0, failed).await?;
        };
        if let Some(text) = header(&answer, DIGEST_HEADER) {
            // It may use another algorithm than the one the image is known by.
            let stored = Digest::parse(text).map_err(|rule| self.wrong(&what, rule))?;
            let mut hasher = stored.hasher();
            hasher.update(content);
            let expected = hasher.finish();
            if stored != expected {
                return Err(self.wrong(&what, format!("it stored {stored}, but {expected} was sent")));
            }
        }
        Ok(answer.contains_key(SUBJECT_HEADER))
    }

    /// All that refers to a manifest here.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>, Error> {
        if let Some(found) = self.referrers_by_api(subject).await? {
            return Ok(found);
        }
        let index = self.referrers_index(subject).await?;
        index.map_or(Ok(Vec::new()), |content| {
            referrers::parse(&content).map_err(|rule| self.wrong(&what(subject), rule))
        })
    }

    /// `None`: the registry does not have the API.
    async fn referrers_by_api(&self, subject: &Digest) -> Result<Option<Vec<Referrer>>, Error> {
        let what = what(subject);
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(OCI_INDEX))]);
        let mut next = Some(self.url(&format!("referrers/{subject}"))?);
        let mut found = Vec::new();
        for number in 0..PAGES_MAX {
            let Some(url) = next else { break };
            let page = match self.page(&what, &url, &headers).await? {
                Ok(page) => page,
                // It should be 404; registries that take it for a name of their own have other words.
                Err(reason) if number == 0 => {
                    tracing::debug!(reason, "the registry does not have the referrers API");
                    return Ok(None);
                }
                Err(reason) => return Err(self.wrong(&what, reason)),
            };
            let media_type = header(&page.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
            if number == 0 && !media_type.starts_with(OCI_INDEX) {
                return Ok(None);
            }
            found.extend(referrers::parse(&page.content).map_err(|rule| self.wrong(&what, rule))?);
            if found.len() > REFERRERS_MAX {
                return Err(self.wrong(&what, format!("there are more than {REFERRERS_MAX}")));
            }
            next = page.next;
        }
        match next {
            None => Ok(Some(found)),
            Some(_) => Err(self.wrong(&what, format!("there are more than {PAGES_MAX} pages"))),
        }
    }

    /// The index under the tag, if there is one.
    async fn referrers_index(&self, subject: &Digest) -> Result<Option<Vec<u8>>, Error> {
        match self.manifest(&referrers::tag(subject), None, None).await {
            Ok(fetched) if fetched.media_type == OCI_INDEX => Ok(Some(fetched.content)),
            Ok(fetched) => {
                let rule = format!(
                    "under the tag {} is {}",
                    referrers::tag(subject),
                    quote(&fetched.media_type)
                );
                Err(self.wrong(&what(subject), rule))
            }
            Err(Error::NotAtRegistry { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Make a referrer known at a registry without the API.
    pub(crate) async fn add_referrer(&self, subject: &Digest, new: &Referrer) -> Result<(), Error> {
        let what = what(subject);
        for _ in 0..INDEX_WRITES_MAX {
            let old = self.referrers_index(subject).await?;
            let changed = referrers::add(old.as_deref(), new).map_err(|rule| self.wrong(&what, rule))?;
            let Some(content) = changed else {
                return Ok(());
            };
            self.put_manifest(&referrers::tag(subject), &Bytes::from(content), OCI_INDEX)
                .await?;
        }
        Err(self.wrong(
            &what,
            format!("others wrote their index {INDEX_WRITES_MAX} times while ours was written: try again"),
        ))
    }
}

fn what(subject: &Digest) -> String {
    format!("referrers of {subject}")
}
