//! Flags of the commands that speak to registries, beside `pull`.

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Print only the image's name, at the end
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Push all tags of the repository that are here
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Image that is here, by the name that says where to push it
    #[arg(value_name = "IMAGE")]
    pub(crate) reference: String,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// How many results to show, at most 100
    #[arg(long, value_name = "NUMBER", default_value_t = 25)]
    pub(crate) limit: u32,
    /// Print descriptions whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// What to find, after a registry's name if it is not Docker Hub
    #[arg(value_name = "TERM")]
    pub(crate) term: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Manifest {
    /// Show the manifest or index that a registry has under a name
    Inspect(InspectManifest),
}

#[derive(Debug, Args)]
pub(crate) struct InspectManifest {
    /// Show what refers to it too: signatures, attestations, SBOMs
    #[arg(long)]
    pub(crate) referrers: bool,
    /// Print the document byte for byte
    #[arg(long, conflicts_with = "referrers")]
    pub(crate) raw: bool,
    #[arg(value_name = "IMAGE")]
    pub(crate) reference: String,
}
