//! What a container sees beside its image.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct StorageFlags {
    /// Show a volume, or a directory or file of this machine, in the container; without a source, a volume of its own
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub(crate) volume: Vec<String>,
    /// The same in full: type=bind|volume|tmpfs,source=…,target=…,…
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<String>,
    /// Show an empty file system in memory in the container
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub(crate) tmpfs: Vec<String>,
    /// Show what another container sees of volumes and of this machine
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub(crate) volumes_from: Vec<String>,
    /// Driver of the container's volumes: local, or a plugin
    #[arg(long, value_name = "DRIVER", default_value = "", hide_default_value = true)]
    pub(crate) volume_driver: String,
}
