//! The one error type of the runtime: each variant says what was tried or which rule was broken, on what, and
//! what the system said. Its text is one line for people; `--log` gets the same line.

use std::io;

/// What every fallible function here returns.
pub(crate) type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel said no: "mount proc at /proc: Operation not permitted (os error 1)".
    #[error("{what}: {source}")]
    Kernel { what: String, source: io::Error },
    /// A field of config.json breaks a rule: "config.json: linux.resources.pids.limit: must be …".
    #[error("config.json: {path}: {rule}")]
    Spec { path: String, rule: String },
    /// The other process of a making is gone without a word, killed perhaps.
    #[error("the container's init process ended before it was ready")]
    Silent,
    /// As `Silent`, and known to be by SIGKILL; with the likely reason.
    #[error("the container's init process was killed before it was ready ({0})")]
    Killed(String),
    /// There is no such container; callers of runc look for these words.
    #[error("container {0} does not exist")]
    NoContainer(String),
    /// A request that can't be carried out, in the user's words: "container x does not exist".
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// A broken rule in config.json at a JSON path such as `process.user.uid`.
    pub(crate) fn spec(path: impl Into<String>, rule: impl Into<String>) -> Self {
        Self::Spec {
            path: path.into(),
            rule: rule.into(),
        }
    }
}

/// Names what was tried, where a system call fails.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kernel {
            what: what(),
            source: source.into(),
        })
    }
}
