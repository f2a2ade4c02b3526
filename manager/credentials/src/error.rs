//! What can go wrong. No message repeats what a file or a helper said where it could be a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong with a user's credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on the configuration.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The configuration is not what docker writes.
    #[error("{}: {rule}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
    /// A helper could not be started.
    #[error("start the credential helper {program}: {source}")]
    NoHelper {
        /// Its program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A helper said that it failed, or answered with nonsense.
    #[error("{program} {action}: {rule}")]
    Helper {
        /// Its program.
        program: String,
        /// What it was asked for.
        action: &'static str,
        /// What it said, or what is wrong with its answer.
        rule: String,
    },
    /// A helper did not answer.
    #[error("{program} {action}: it has not answered within {timeout:?}, and was ended")]
    Timeout {
        /// Its program.
        program: String,
        /// What it was asked for.
        action: &'static str,
        /// How long it had.
        timeout: Duration,
    },
}
