//! The check of the store as messages.

use std::os::unix::ffi::OsStrExt;

use engine::Engine;
use image::{AuditCounts, AuditEvent, Finding};
use proto::v1;
use proto::v1::check_progress::Kind;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::status::status;

const QUEUE_MAX: usize = 64;

/// What a check tells, until it is done or the client has gone.
pub(crate) fn check(
    engine: Engine,
    request: v1::CheckRequest,
) -> impl Stream<Item = Result<v1::CheckProgress, Status>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    tokio::spawn(async move {
        let sink = sender.clone();
        let tell = move |event| match message(event) {
            // The next one says it again.
            kind @ Kind::Progress(_) => match sink.try_send(Ok(progress(kind))) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            },
            kind => sink.blocking_send(Ok(progress(kind))).is_ok(),
        };
        let done = engine.check_images(request.images, tell).await;
        let last = done.map(|counts| progress(Kind::Done(translate(counts))));
        let _ = sender.send(last.map_err(status)).await;
    });
    ReceiverStream::new(receiver)
}

fn progress(kind: Kind) -> v1::CheckProgress {
    v1::CheckProgress { kind: Some(kind) }
}

fn message(event: AuditEvent) -> Kind {
    match event {
        AuditEvent::Progress(counts) => Kind::Progress(translate(counts)),
        AuditEvent::Finding(found) => Kind::Finding(finding(found)),
        AuditEvent::NotChecked { image, layer, reason } => {
            Kind::NotChecked(v1::check_progress::NotChecked { image, layer, reason })
        }
    }
}

fn translate(counts: AuditCounts) -> v1::check_progress::Counts {
    v1::check_progress::Counts {
        images: counts.images,
        blobs: counts.blobs,
        layers: counts.layers,
        files: counts.files,
        bytes: counts.bytes,
    }
}

fn finding(found: Finding) -> v1::check_progress::Finding {
    let (kind, what) = (found.kind().to_owned(), found.what());
    let (image, digest, path) = match found {
        Finding::Blob { image, digest, .. } => (image, digest, Vec::new()),
        Finding::Layer { image, layer, .. } => (Some(image), layer, Vec::new()),
        Finding::File {
            image, layer, path, ..
        } => (Some(image), layer, path),
        Finding::Record { image, .. } => (image, String::new(), Vec::new()),
        Finding::Leftover { path } => (None, String::new(), path.as_os_str().as_bytes().to_vec()),
    };
    v1::check_progress::Finding {
        kind,
        image: image.unwrap_or_default(),
        digest,
        path,
        what,
    }
}
