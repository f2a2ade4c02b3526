//! Volumes: data that outlives containers.

use super::FormatLetter;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume, and print its name
    Create(CreateVolume),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListVolumes),
    /// Show all that is known of volumes, as JSON
    Inspect {
        #[command(flatten)]
        letter: FormatLetter,
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes that no container uses, with all that is in them
    #[command(visible_alias = "remove")]
    Rm(RemoveVolumes),
    /// Remove all volumes that no container uses
    Prune(PruneVolumes),
}

#[derive(Debug, Args)]
pub(crate) struct CreateVolume {
    /// Driver: local, or a plugin [default: that of the volume of this name, or local]
    #[arg(
        short,
        long,
        value_name = "DRIVER",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) driver: String,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Option of the driver; of local, what is mounted there, as type=…, device=… and o=…
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// Name; else one is made up
    #[arg(value_name = "VOLUME", default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListVolumes {
    /// Print only names
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Only some: dangling=true, driver=DRIVER, label=KEY[=VALUE], name=PART
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveVolumes {
    /// Do not mind volumes that are not there
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneVolumes {
    /// Those with a name too, not only anonymous ones
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only some: label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Do not ask first
    #[arg(short, long)]
    pub(crate) force: bool,
}
