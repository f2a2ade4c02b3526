//! Leases: images that stay while somebody works with them.

use clap::{Args, Subcommand};

use crate::time;

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Keep images, also when they lose their names, until the lease ends; prints its ID
    Create(CreateLease),
    /// List leases; those that have run out hold nothing, and are not told
    Ls {
        /// Print only IDs
        #[arg(short, long)]
        quiet: bool,
    },
    /// End leases; images that nobody needs any more go with the next prune
    Rm {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateLease {
    /// How long it lasts if nobody ends it: 90s, 1h30m, 24h
    #[arg(long = "ttl", value_name = "DURATION", default_value = "24h", value_parser = time::parse_ttl)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) ttl_seconds: u64,
    /// ID of the lease; else one is made up. One that is there is renewed, and holds only these images from now on
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) id: String,
    /// Image, by name, ID or digest
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}
