//! Uploads: one blob into one repository, by the ways that registries have for it.
//!
//! A blob that is there already costs a HEAD; one that another repository of the registry has is mounted. Else an
//! upload session is opened and the blob sent: a small one with the PUT that ends the session, a larger one by a PATCH
//! of all of it, as docker does, which every registry takes. Only after a failure is it sent in parts: from where the
//! registry says it stands, or in smaller ones if it refuses the size. Source: OCI distribution spec, "Pushing Blobs".

mod body;
mod range;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};

use super::http::{Attempt, error_message, read_bounded};
use super::{DIGEST_HEADER, Registry, header};
use crate::Error;
use crate::digest::Digest;
use crate::patience::Attempts;
pub(super) use body::Payload;
pub(crate) use body::Source;
pub(crate) use range::received;

/// A blob up to this size goes with the request that ends its upload.
const MONOLITHIC_BYTES_MAX: u64 = 4 << 20;
/// What is sent at once to a registry that refuses more; no registry or proxy is known to take less.
const CHUNK_BYTES: u64 = 4 << 20;
/// Bound of what a registry may ask for by `OCI-Chunk-Min-Length`: a wish for more is not heeded.
const CHUNK_BYTES_MIN_MAX: u64 = 1 << 30;
/// Repositories that are worth trying as the source of a mount.
pub(crate) const MOUNTS_MAX: usize = 2;
/// How long a failed push waits for the registry to forget an upload.
const ABORT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
const CHUNK_MIN_HEADER: &str = "oci-chunk-min-length";
const RANGE_HEADER: &str = "range";

/// A blob to upload.
pub(crate) struct Blob<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    /// Its content; `None` if it is not here, so that only the registry itself can have it.
    pub(crate) source: Option<Source>,
    /// Held while a session is being opened: who drops an upload then never learns what there is to abort.
    pub(crate) opening: tokio::sync::Mutex<()>,
}

impl Blob<'_> {
    /// Wait until no session is being opened, but not for ever.
    pub(crate) async fn not_opening(&self) {
        let _ = tokio::time::timeout(ABORT_TIMEOUT, self.opening.lock()).await;
    }
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Present,
    Mounted,
    Uploaded,
}

/// An upload that the registry keeps for us, until it is ended or aborted.
#[derive(Default)]
pub(crate) struct Session {
    /// Where the next part goes. It changes with each.
    location: Option<Url>,
    /// How much the registry has.
    offset: u64,
    /// Nobody knows how much of the last part arrived.
    is_doubtful: bool,
    /// A part was refused here as one that does not follow.
    refused_at: Option<u64>,
    /// `OCI-Chunk-Min-Length`, which holds for all parts but the last.
    chunk_bytes_min: u64,
    /// The registry, or what stands before it, refuses more than [`CHUNK_BYTES`] at once.
    in_chunks: bool,
}

impl Session {
    fn forget(&mut self) {
        *self = Session {
            in_chunks: self.in_chunks,
            ..Session::default()
        };
    }
}

impl Registry {
    /// Bring a blob into the repository. `repositories` of the same registry may have it, and are to be at most
    /// [`MOUNTS_MAX`].
    ///
    /// The session is the caller's, who aborts it if this fails or is dropped.
    pub(crate) async fn upload(
        &self,
        blob: &Blob<'_>,
        repositories: &[String],
        session: &mut Session,
    ) -> Result<Arrival, Error> {
        let what = format!("upload of blob {} to {}", blob.digest, self.repository);
        let mut attempts = Attempts::new(&self.config);
        let mut was_sent = false;
        loop {
            match self.try_upload(blob, repositories, session, &mut was_sent).await {
                Ok(Some(arrival)) => return Ok(arrival),
                Ok(None) => {
                    return Err(Error::NoContent {
                        digest: blob.digest.to_string(),
                        registry: self.host.clone(),
                    });
                }
                Err(attempt) => {
                    session.is_doubtful = true;
                    // Before the pause: a damaged blob is not worth another try.
                    if let (Attempt::Again { .. }, Some(source)) = (&attempt, &blob.source) {
                        source.check_if_suspected(blob.digest).await?;
                    }
                    self.pause(&what, &mut attempts, session.offset, attempt).await?;
                }
            }
        }
    }

    /// Have the registry forget an upload that will not be ended. Best effort: it forgets by itself in some days.
    pub(crate) async fn abort(&self, session: Session) {
        let Some(url) = session.location else { return };
        let headers = HeaderMap::new();
        let request = self.send(Method::DELETE, url, &headers, Payload::Nothing);
        match tokio::time::timeout(ABORT_TIMEOUT, request).await {
            Ok(Ok(response)) => tracing::debug!(status = %response.status(), "aborted an upload"),
            Ok(Err(error)) => tracing::debug!(?error, "could not abort an upload"),
            Err(_) => tracing::debug!("could not abort an upload: no answer"),
        }
    }

    /// `None`: the registry does not have the blob, and neither have we.
    async fn try_upload(
        &self,
        blob: &Blob<'_>,
        repositories: &[String],
        session: &mut Session,
        was_sent: &mut bool,
    ) -> Result<Option<Arrival>, Attempt> {
        if session.is_doubtful && session.location.is_some() {
            self.ask(blob, session).await?;
        }
        if session.location.is_none() {
            // Asked again after a failure: it may have been the answer to the last part that was lost.
            if self.has_blob(blob.digest).await? {
                return Ok(Some(if *was_sent {
                    Arrival::Uploaded
                } else {
                    Arrival::Present
                }));
            }
            if self.open(blob, repositories, session).await? {
                return Ok(Some(Arrival::Mounted));
            }
        }
        let Some(source) = &blob.source else {
            return Ok(None);
        };
        *was_sent = true;
        let is_whole = blob.size <= MONOLITHIC_BYTES_MAX && session.offset == 0;
        while !is_whole && session.offset < blob.size {
            self.patch(blob.size, source, session).await?;
        }
        self.finish(blob, source, session).await?;
        Ok(Some(Arrival::Uploaded))
    }

    async fn has_blob(&self, digest: &Digest) -> Result<bool, Attempt> {
        let url = self.attempt_url(&format!("blobs/{digest}"))?;
        let response = self
            .send(Method::HEAD, url, &HeaderMap::new(), Payload::Nothing)
            .await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            // Some do not answer HEAD for blobs.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Ok(false),
            _ => Err(self.http.refusal(response).await),
        }
    }

    /// Mount the blob (`true`) or open a session.
    async fn open(
        &self,
        blob: &Blob<'_>,
        repositories: &[String],
        session: &mut Session,
    ) -> Result<bool, Attempt> {
        let _opening = blob.opening.lock().await;
        session.forget();
        let url = self.attempt_url("blobs/uploads/")?;
        for from in repositories {
            let mut url = url.clone();
            url.query_pairs_mut()
                .append_pair("mount", &blob.digest.to_string())
                .append_pair("from", from);
            match self.post(url).await {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(true),
                // What it does not mount it offers to take.
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    return self.opened(&response, session).map(|()| false);
                }
                Ok(_) | Err(Attempt::Denied(_) | Attempt::Rule(_) | Attempt::NotFound) => {
                    tracing::debug!(from, "the registry does not mount from there");
                }
                Err(attempt) => return Err(attempt),
            }
        }
        if blob.source.is_none() {
            return Ok(false);
        }
        let response = self.post(url).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.opened(&response, session).map(|()| false),
            _ => Err(self.write_refusal(response).await),
        }
    }

    async fn post(&self, url: Url) -> Result<Response, Attempt> {
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        self.send(Method::POST, url, &headers, Payload::Nothing).await
    }

    fn opened(&self, response: &Response, session: &mut Session) -> Result<(), Attempt> {
        session.location = Some(self.location(response)?);
        session.chunk_bytes_min = header(response.headers(), CHUNK_MIN_HEADER)
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
            .min(CHUNK_BYTES_MIN_MAX);
        Ok(())
    }

    /// Where the next request of an upload goes: relative or absolute, and to be kept as it is, query included.
    fn location(&self, response: &Response) -> Result<Url, Attempt> {
        let target = header(response.headers(), LOCATION.as_str())
            .and_then(|text| response.url().join(text).ok())
            .ok_or_else(|| Attempt::Rule("it answered without a Location to upload to".into()))?;
        self.check_leads_safely(&target, "it sends the upload")
            .map_err(Attempt::Rule)?;
        Ok(target)
    }

    /// Ask how much of the blob the registry has, after a failure that left it open.
    async fn ask(&self, blob: &Blob<'_>, session: &mut Session) -> Result<(), Attempt> {
        session.is_doubtful = false;
        let Some(url) = session.location.clone() else {
            return Ok(());
        };
        let answer = self
            .send(Method::GET, url, &HeaderMap::new(), Payload::Nothing)
            .await;
        let offset = match answer {
            Ok(response) if response.status().is_success() => {
                if response.headers().contains_key(LOCATION) {
                    session.location = Some(self.location(&response)?);
                }
                header(response.headers(), RANGE_HEADER).and_then(|text| received(text, blob.size))
            }
            Ok(response) if response.status().is_client_error() => match self.write_refusal(response).await {
                again @ Attempt::Again { .. } => {
                    session.is_doubtful = true;
                    return Err(again);
                }
                _ => None,
            },
            Ok(response) => {
                session.is_doubtful = true;
                return Err(self.http.refusal(response).await);
            }
            Err(attempt) => {
                session.is_doubtful = true;
                return Err(attempt);
            }
        };
        match offset {
            Some(offset) if session.refused_at != Some(offset) => session.offset = offset,
            // What it asks for is what it refused: there is no agreement to be had over this one.
            Some(_) => {
                let old = std::mem::take(session);
                session.in_chunks = old.in_chunks;
                self.abort(old).await;
            }
            // It no longer knows the upload, or says nothing of it.
            None => session.forget(),
        }
        Ok(())
    }

    /// Send the next part.
    async fn patch(&self, size: u64, source: &Source, session: &mut Session) -> Result<(), Attempt> {
        let Some(url) = session.location.clone() else {
            return Err(Attempt::again("the upload was lost"));
        };
        let begin = session.offset;
        let end = if session.in_chunks {
            size.min(begin + CHUNK_BYTES.max(session.chunk_bytes_min))
        } else {
            size
        };
        let mut headers = part_headers(end - begin);
        if begin > 0 || end < size {
            let range =
                HeaderValue::from_str(&format!("{begin}-{}", end - 1)).expect("digits are a header value");
            headers.insert(CONTENT_RANGE, range);
        }
        // Until it has answered, all is possible.
        session.is_doubtful = true;
        let response = self
            .send(Method::PATCH, url, &headers, Payload::Part(source, begin..end))
            .await?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::PAYLOAD_TOO_LARGE if !session.in_chunks && end - begin > CHUNK_BYTES => {
                session.in_chunks = true;
                return Err(Attempt::again("it takes no more than a part at once"));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let refusal = self.write_refusal(response).await;
                session.refused_at = Some(begin);
                return Err(refusal.or_again());
            }
            StatusCode::NOT_FOUND => {
                session.forget();
                return Err(self.write_refusal(response).await.or_again());
            }
            _ => return Err(self.write_refusal(response).await),
        }
        if response.headers().contains_key(LOCATION) {
            session.location = Some(self.location(&response)?);
        }
        let offset = match header(response.headers(), RANGE_HEADER) {
            Some(text) => received(text, end).ok_or_else(|| {
                Attempt::Rule(format!("it has the range {text:?} after {end} bytes were sent"))
            })?,
            None => end,
        };
        if offset <= begin {
            return Err(Attempt::again(format!(
                "it kept nothing of the part from byte {begin}"
            )));
        }
        session.offset = offset;
        session.is_doubtful = false;
        Ok(())
    }

    /// End the upload, with the whole blob if nothing of it was sent before.
    async fn finish(&self, blob: &Blob<'_>, source: &Source, session: &mut Session) -> Result<(), Attempt> {
        let Some(mut url) = session.location.clone() else {
            return Err(Attempt::again("the upload was lost"));
        };
        url.query_pairs_mut()
            .append_pair("digest", &blob.digest.to_string());
        let rest = session.offset..blob.size;
        let headers = part_headers(rest.end - rest.start);
        session.is_doubtful = true;
        let response = self
            .send(Method::PUT, url, &headers, Payload::Part(source, rest))
            .await?;
        match response.status() {
            status if status.is_success() => {}
            // It says that the content does not have the digest: which of us is wrong is seen by hashing it here.
            StatusCode::BAD_REQUEST => {
                source.suspect();
                let refusal = self.write_refusal(response).await;
                let session = std::mem::take(session);
                self.abort(session).await;
                return Err(refusal.or_again());
            }
            StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(self.write_refusal(response).await.or_again());
            }
            _ => return Err(self.write_refusal(response).await),
        }
        // The session has ended: from here there is nothing to abort.
        session.forget();
        match header(response.headers(), DIGEST_HEADER) {
            Some(digest) if Digest::parse(digest).as_ref() != Ok(blob.digest) => Err(Attempt::Rule(format!(
                "it stored the blob as {}",
                crate::digest::quote(digest)
            ))),
            _ => Ok(()),
        }
    }

    /// What an answer to a write means that is not a success: there, 404 speaks of the repository or the session.
    pub(super) async fn write_refusal(&self, response: Response) -> Attempt {
        let status = response.status();
        if status != StatusCode::NOT_FOUND {
            return self.http.refusal(response).await;
        }
        let body = read_bounded(&self.http, response, super::http::ERROR_BYTES_MAX).await;
        let message = body.ok().and_then(|body| error_message(&body));
        Attempt::Rule(match message {
            Some(message) => format!("it answered {status}: {message}"),
            None => format!("it answered {status}"),
        })
    }

    fn attempt_url(&self, rest: &str) -> Result<Url, Attempt> {
        self.url(rest).map_err(|error| Attempt::Rule(error.to_string()))
    }
}

impl Attempt {
    /// The same refusal, of what may well be taken at another try.
    fn or_again(self) -> Attempt {
        match self {
            Attempt::Rule(reason) => Attempt::again(reason),
            other => other,
        }
    }
}

fn part_headers(length: u64) -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CONTENT_LENGTH, HeaderValue::from(length)),
    ])
}
