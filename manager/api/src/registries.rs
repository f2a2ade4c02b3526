//! Pushes, and what registries have, as messages.

use std::sync::Arc;

use engine::Engine;
use image::{BlobPhase, BlobProgress};
use proto::v1;
use proto::v1::push_progress::Kind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::images::PROGRESS_QUEUE_MAX;
use crate::status::status;
use crate::translate;

pub(crate) fn push(
    engine: Engine,
    request: v1::PushRequest,
) -> ReceiverStream<Result<v1::PushProgress, Status>> {
    let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE_MAX);
    tokio::spawn(async move {
        let progress = Arc::new(sender.clone());
        let report = move |blob| {
            let kind = Some(Kind::Blob(self::blob(blob)));
            let _ = progress.try_send(Ok(v1::PushProgress { kind }));
        };
        let credentials = request.credentials.map(translate::credentials);
        let pushed = tokio::select! {
            pushed = engine.push(&request.reference, credentials, &report) => pushed,
            // The client has gone: so does its push.
            () = sender.closed() => return,
        };
        let last = pushed.map_err(status).map(|pushed| v1::PushProgress {
            kind: Some(Kind::Pushed(v1::Pushed {
                name: pushed.name,
                digest: pushed.digest,
                size_bytes: pushed.size_bytes,
            })),
        });
        let _ = sender.send(last).await;
    });
    ReceiverStream::new(receiver)
}

fn blob(blob: BlobProgress) -> v1::BlobProgress {
    use v1::blob_progress::Phase;
    let phase = match blob.phase {
        BlobPhase::Waiting => Phase::Waiting,
        BlobPhase::Uploading => Phase::Uploading,
        BlobPhase::Done => Phase::Done,
        BlobPhase::Present => Phase::Present,
        BlobPhase::Mounted => Phase::Mounted,
    };
    v1::BlobProgress {
        digest: blob.digest,
        phase: phase.into(),
        uploaded_bytes: blob.uploaded_bytes,
        total_bytes: blob.total_bytes,
    }
}

pub(crate) async fn search(
    engine: &Engine,
    request: v1::SearchRequest,
) -> Result<v1::SearchResponse, Status> {
    let credentials = request.credentials.map(translate::credentials);
    let found = engine
        .search(&request.term, request.limit as usize, credentials)
        .await
        .map_err(status)?;
    let results = found.into_iter().map(|found| v1::search_response::Result {
        name: found.name,
        description: found.description,
        stars: found.stars,
        official: found.is_official,
    });
    Ok(v1::SearchResponse {
        results: results.collect(),
    })
}

pub(crate) async fn inspect_manifest(
    engine: &Engine,
    request: v1::InspectManifestRequest,
) -> Result<v1::InspectManifestResponse, Status> {
    let credentials = request.credentials.map(translate::credentials);
    let found = engine
        .inspect_manifest(&request.reference, credentials, request.referrers)
        .await
        .map_err(status)?;
    let referrers = found.referrers.into_iter().map(|referrer| v1::Referrer {
        media_type: referrer.media_type,
        digest: referrer.digest,
        size_bytes: referrer.size_bytes,
        artifact_type: referrer.artifact_type,
        annotations: referrer.annotations.into_iter().collect(),
    });
    Ok(v1::InspectManifestResponse {
        media_type: found.media_type,
        digest: found.digest,
        content: found.content,
        referrers: referrers.collect(),
    })
}
