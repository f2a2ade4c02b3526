//! Ports of containers.

use clap::Args;

/// Which ports of a new container are reached by ports of this machine.
#[derive(Debug, Args)]
pub(crate) struct PortFlags {
    /// Publish ports of the container on this machine
    #[arg(short, long, value_name = "[[IP:][PORT]:]CONTAINER_PORT[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Publish all ports that are exposed, each on one that is free
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Expose ports besides those that the image does
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub(crate) expose: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Only where this port of the container is
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
}
