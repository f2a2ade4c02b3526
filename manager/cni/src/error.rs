//! What can go wrong with plugins.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such network.
    #[error(
        "CNI network {name}: no file in {} has this name: it is that of the \"name\" in a .conflist, .conf or .json there", .folder.display()
    )]
    NoSuchList {
        /// As asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },

    /// A configuration is not one.
    #[error("CNI configuration {what}: {why}")]
    BadList {
        /// Its file or its name.
        what: String,
        /// The rule it breaks.
        why: String,
    },

    /// A plugin's program is in none of the folders.
    #[error("CNI plugin {plugin}: there is no such program in {}: install it there (Debian's containernetworking-plugins), or name its folder with --cni-bin-dir", listed(.folders))]
    NoPlugin {
        /// The `type`.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },

    /// A plugin said that it could not.
    #[error("CNI plugin {plugin}, {command}: {message}{}{}", code_text(*.code), details_text(.details))]
    Refused {
        /// The `type`.
        plugin: String,
        /// `ADD`, `DEL`, …
        command: &'static str,
        /// Of the specification up to 99, else the plugin's own; 0: it did not say.
        code: u32,
        /// Its words.
        message: String,
        /// More of them; may be empty.
        details: String,
    },

    /// A plugin did not come to an end.
    #[error("CNI plugin {plugin}, {command}: it has not ended within {timeout:?}, and was ended")]
    Timeout {
        /// The `type`.
        plugin: String,
        /// `ADD`, `DEL`, …
        command: &'static str,
        /// The bound.
        timeout: Duration,
    },

    /// A plugin's answer is none.
    #[error("CNI plugin {plugin}, {command}: its answer is malformed: {why}")]
    Malformed {
        /// The `type`.
        plugin: String,
        /// `ADD`, `DEL`, …
        command: &'static str,
        /// What is wrong with it.
        why: String,
    },

    /// A file or a program, and the system's word.
    #[error("{action}: {source}")]
    System {
        /// What was tried, on what.
        action: String,
        /// The error number.
        source: io::Error,
    },
}

fn listed(all: &[PathBuf]) -> String {
    let shown: Vec<_> = all.iter().map(|folder| folder.to_string_lossy()).collect();
    shown.join(", ")
}

fn code_text(code: u32) -> String {
    match code {
        0 => String::new(),
        code => format!(" (code {code})"),
    }
}

fn details_text(details: &str) -> String {
    match details {
        "" => String::new(),
        details => format!(": {details}"),
    }
}
