//! What is kept of images: names, history, and what they take of the disk.

use super::FormatLetter;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Remove images that neither a container nor a lease needs
    Prune(PruneImages),
    /// Show all that is known of images, as JSON
    Inspect {
        #[command(flatten)]
        letter: FormatLetter,
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Ask whether the trust policy accepts an image, by its signatures at its registry; nothing is pulled
    Verify {
        /// Image, as registry/name:tag or name@digest
        #[arg(value_name = "IMAGE")]
        reference: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Look whether this machine has what containers need, and say what to do; exits with 1 if something is broken
    Doctor,
    /// Show the machine, the manager's configuration, and how much there is
    Info,
    /// Show what images and containers take of the disk
    Df {
        /// Tell of each image and container
        #[arg(short, long)]
        verbose: bool,
    },
    /// Check that images are what their digests say, file by file; without names, everything that is kept of images
    Check {
        /// Image, by name or ID
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Connect stdin and stdout to the manager; what ssh:// runs on the other machine
    #[command(hide = true)]
    DialStdio,
}

#[derive(Debug, Args)]
pub(crate) struct PruneImages {
    /// Images that have a name too
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only some: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    // Nothing is asked: what is removed can be pulled again.
    /// For scripts that are written for docker
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    /// Image, by name or ID
    #[arg(value_name = "IMAGE")]
    pub(crate) source: String,
    /// The name to point to it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Print all of each instruction, and digests whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print only the digests of layers
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
}
