//! Which manager is meant, and how it is reached.
#![allow(
    clippy::doc_markdown,
    rustdoc::broken_intra_doc_links,
    reason = "help that is read at a terminal"
)]

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags before the command. What they leave open the environment says: BERTH_HOST, BERTH_SOCKET or
/// BERTH_CONTEXT, and BERTH_CERT_PATH; then the context in use.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// The manager's UNIX socket [env: BERTH_SOCKET] [default: /run/berth/manager.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The manager of this context [env: BERTH_CONTEXT]
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["socket", "host"])]
    pub(crate) context: Option<String>,
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
}

/// A manager, and what it is spoken to with.
#[derive(Debug, Args)]
pub(crate) struct Endpoint {
    /// The manager, as unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT] [env: BERTH_HOST]
    #[arg(short = 'H', long, value_name = "URL", conflicts_with = "socket")]
    pub(crate) host: Option<String>,
    /// Authorities that sign managers' certificates, for tcp:// [default: ca.pem in the folder BERTH_CERT_PATH]
    #[arg(long, value_name = "PATH", requires = "host")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate to show to the manager, for tcp:// [default: cert.pem in the folder BERTH_CERT_PATH]
    #[arg(long, value_name = "PATH", requires = "host")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Key of that certificate, for tcp:// [default: key.pem in the folder BERTH_CERT_PATH]
    #[arg(long, value_name = "PATH", requires = "host")]
    pub(crate) tlskey: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Remember how a manager is reached, with copies of the certificates
    Create {
        #[command(flatten)]
        endpoint: Endpoint,
        /// What `context ls` says of it
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
    /// List contexts
    Ls {
        /// Print only names
        #[arg(short, long)]
        quiet: bool,
    },
    /// Use a context from now on; `default` is this machine's manager
    Use {
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
    /// Print the context in use
    Show,
    /// Show contexts, as JSON; without a name, the one in use
    Inspect {
        #[arg(value_name = "CONTEXT")]
        names: Vec<String>,
    },
    /// Forget contexts, and their copies of certificates
    Rm {
        /// One that is in use too; then `default` is used
        #[arg(short, long)]
        force: bool,
        #[arg(required = true, value_name = "CONTEXT")]
        names: Vec<String>,
    },
}
