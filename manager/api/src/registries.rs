//! Pushes, and what registries have, as messages.

use engine::Engine;
use image::{BlobPhase, BlobProgress, Pushed};
use proto::v1;
use proto::v1::push_progress::Kind;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument as _;

use crate::progress::Progress;
use crate::status::status;
use crate::translate;

pub(crate) fn push(
    engine: Engine,
    request: v1::PushRequest,
) -> ReceiverStream<Result<v1::PushProgress, Status>> {
    let (progress, messages) = Progress::new();
    tokio::spawn(
        async move {
            let tell = |part: String, kind| progress.report(part, v1::PushProgress { kind: Some(kind) });
            let report = |blob: BlobProgress| tell(blob.digest.clone(), Kind::Blob(self::blob(blob)));
            let done = |done: Pushed| tell(done.name.clone(), Kind::Pushed(pushed(done)));
            let credentials = request.credentials.map(translate::credentials);
            let work = async {
                if request.all_tags {
                    let tags = engine.push_all_tags(&request.reference, credentials, &report, &done);
                    return tags.await;
                }
                done(engine.push(&request.reference, credentials, &report).await?);
                Ok(())
            };
            let worked = tokio::select! {
                worked = work => worked,
                // The client has gone: so does its push.
                () = progress.closed() => return,
            };
            let failure = worked.map_err(status).err();
            progress.finish(failure.map(Err)).await;
        }
        .in_current_span(),
    );
    messages
}

fn pushed(pushed: Pushed) -> v1::Pushed {
    v1::Pushed {
        name: pushed.name,
        digest: pushed.digest,
        size_bytes: pushed.size_bytes,
    }
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
