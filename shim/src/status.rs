//! What a client is told when a call fails: a gRPC code, which containerd maps to its own error kinds, and a sentence.

use std::fmt::Display;

use containerd_shim_protos::ttrpc::{Code, Status as RpcStatus};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    fn new(code: Code, message: impl Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }

    pub fn not_found(message: impl Display) -> Self {
        Self::new(Code::NOT_FOUND, message)
    }

    pub fn already_exists(message: impl Display) -> Self {
        Self::new(Code::ALREADY_EXISTS, message)
    }

    pub fn failed_precondition(message: impl Display) -> Self {
        Self::new(Code::FAILED_PRECONDITION, message)
    }

    pub fn invalid_argument(message: impl Display) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    pub fn unimplemented(message: impl Display) -> Self {
        Self::new(Code::UNIMPLEMENTED, message)
    }

    pub fn resource_exhausted(message: impl Display) -> Self {
        Self::new(Code::RESOURCE_EXHAUSTED, message)
    }

    pub fn unavailable(message: impl Display) -> Self {
        Self::new(Code::UNAVAILABLE, message)
    }

    /// A failure of the system or the runtime; containerd calls the code Unknown.
    pub fn unknown(message: impl Display) -> Self {
        Self::new(Code::UNKNOWN, message)
    }

    pub fn into_rpc(self) -> RpcStatus {
        let mut status = RpcStatus::new();
        status.code = self.code.into();
        status.message = self.message;
        status
    }
}
