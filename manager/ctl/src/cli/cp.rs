//! Files of containers.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Keep the owners of files; in a container, give them to its user
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Copy what a symbolic link leads to
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Say nothing of what was copied
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// File or folder, as CONTAINER:PATH or a path of this machine; `-`: a tar archive on stdin
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Where to, likewise; `-`: a tar archive on stdout
    #[arg(value_name = "DESTINATION", allow_hyphen_values = true)]
    pub(crate) destination: String,
}
