//! Errors of the engine as gRPC statuses. The message is the engine's.

use engine::{Error, Kind};
use tonic::{Code, Status};

/// The status of an error.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is the last step of an error, given to map_err"
)]
pub(crate) fn status(error: Error) -> Status {
    let code = match error.kind() {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unavailable => Code::Unavailable,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Internal => Code::Internal,
    };
    if code == Code::Internal {
        tracing::error!(%error, "request failed");
    }
    Status::new(code, error.to_string())
}
