//! The bodies of requests: what is sent, how far it is, and whether it still moves.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use reqwest::{Body, RequestBuilder, Response};

use super::super::http::{Attempt, Http, classify};
use crate::Error;
use crate::digest::Digest;

/// What is read from a blob's file at once.
const PIECE_BYTES: u64 = 256 << 10;
/// A registry that has the whole blob hashes and moves it before it answers; this much it does in a second.
const COMMIT_BYTES_PER_SECOND: u64 = 16 << 20;

/// A blob's file.
pub(crate) struct Source {
    path: PathBuf,
    file: Arc<File>,
    /// How much of the blob was sent.
    sent: Arc<AtomicU64>,
    is_suspected: AtomicBool,
}

impl Source {
    /// Blocks.
    pub(crate) fn open(path: PathBuf, sent: Arc<AtomicU64>) -> Result<Source, Error> {
        let file = File::open(&path).map_err(|e| Error::io("open blob", &path, e))?;
        Ok(Source {
            path,
            file: Arc::new(file),
            sent,
            is_suspected: AtomicBool::new(false),
        })
    }

    /// The registry says that the content is not what its digest says.
    pub(super) fn suspect(&self) {
        self.is_suspected.store(true, Ordering::Relaxed);
    }

    /// Hash the file if there is reason to. That is done once, and never in a push that goes well.
    pub(super) async fn check_if_suspected(&self, expected: &Digest) -> Result<(), Error> {
        if !self.is_suspected.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let (path, expected) = (self.path.clone(), expected.clone());
        crate::blocking(move || {
            let mut hasher = expected.hasher();
            let mut file = File::open(&path).map_err(|e| Error::io("open blob", &path, e))?;
            let mut piece = vec![0; PIECE_BYTES as usize];
            loop {
                match std::io::Read::read(&mut file, &mut piece) {
                    Ok(0) => break,
                    Ok(length) => hasher.update(&piece[..length]),
                    Err(e) => return Err(Error::io("read blob", &path, e)),
                }
            }
            let actual = hasher.finish();
            if actual == expected {
                return Ok(());
            }
            Err(Error::Digest {
                what: "stored blob",
                expected: expected.to_string(),
                actual: actual.to_string(),
            })
        })
        .await
    }

    /// A part of the file, piece by piece as the connection takes them.
    fn stream(&self, part: Range<u64>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        let (file, sent) = (Arc::clone(&self.file), Arc::clone(&self.sent));
        sent.store(part.start, Ordering::Relaxed);
        stream::try_unfold(part, move |part| {
            let (file, sent) = (Arc::clone(&file), Arc::clone(&sent));
            async move {
                if part.is_empty() {
                    return Ok(None);
                }
                let end = part.end.min(part.start + PIECE_BYTES);
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![0; (end - part.start) as usize];
                    file.read_exact_at(&mut piece, part.start).map(|()| piece)
                });
                let piece = read.await.map_err(std::io::Error::other)??;
                sent.store(end, Ordering::Relaxed);
                Ok(Some((Bytes::from(piece), end..part.end)))
            }
        })
    }
}

/// What a request brings along. It can be sent any number of times.
#[derive(Clone)]
pub(in super::super) enum Payload<'a> {
    Nothing,
    Bytes(Bytes),
    Part(&'a Source, Range<u64>),
}

impl Payload<'_> {
    /// Send it all and wait for the head of the answer.
    pub(in super::super) async fn exchange(
        &self,
        http: &Http,
        request: RequestBuilder,
    ) -> Result<Response, Attempt> {
        match self {
            Payload::Nothing => http.exchange(request).await,
            Payload::Bytes(bytes) => http.exchange(request.body(bytes.clone())).await,
            Payload::Part(source, part) => {
                let request = request.body(Body::wrap_stream(source.stream(part.clone())));
                let commit = Duration::from_secs(part.end / COMMIT_BYTES_PER_SECOND);
                watch(http, request, &source.sent, part.end, http.stall_timeout + commit).await
            }
        }
    }
}

/// Give a request up when its body no longer moves, or its answer does not come.
async fn watch(
    http: &Http,
    request: RequestBuilder,
    sent: &AtomicU64,
    end: u64,
    answer_timeout: Duration,
) -> Result<Response, Attempt> {
    let response = request.send();
    tokio::pin!(response);
    let window_bytes = http
        .bytes_per_second_min
        .saturating_mul(http.stall_timeout.as_secs())
        .max(1);
    loop {
        let before = sent.load(Ordering::Relaxed);
        let timeout = if before >= end {
            answer_timeout
        } else {
            http.stall_timeout
        };
        match tokio::time::timeout(timeout, &mut response).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(e)) => return Err(classify(&e.without_url())),
            Err(_) if before >= end => {
                return Err(Attempt::Unanswered(format!(
                    "it took all bytes, then said nothing for {timeout:?}"
                )));
            }
            Err(_)
                if sent.load(Ordering::Relaxed) < end
                    && sent.load(Ordering::Relaxed) - before < window_bytes =>
            {
                let moved = sent.load(Ordering::Relaxed) - before;
                return Err(Attempt::Unanswered(format!(
                    "it took only {moved} bytes in {timeout:?}"
                )));
            }
            Err(_) => {}
        }
    }
}
