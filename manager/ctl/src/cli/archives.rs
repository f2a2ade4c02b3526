//! Images and containers as archives.

use std::path::PathBuf;

use clap::{ArgAction, Args};

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// File to write; else stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Images by name, or by ID for those without one
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// File to read; else stdin
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    // There is none yet, and scripts written for docker say this.
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Variant to unpack of images that have several, as os/architecture[/variant]; else this machine's
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Dockerfile instruction for the image's config, such as `CMD ["sh"]`
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Comment for the image's history
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) message: String,
    /// What the image runs on, as os/architecture[/variant]; else this machine
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    /// Tar archive of a root file system, plain or in gzip, zstd, xz or bzip2; - is stdin
    #[arg(value_name = "FILE|-")]
    pub(crate) file: String,
    /// Name of the image
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File to write; else stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Who has made the image
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) author: String,
    /// Dockerfile instruction that changes the image's config, such as `CMD ["sh"]`
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    pub(crate) changes: Vec<String>,
    /// Comment for the image's history
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) message: String,
    /// Pause the container meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) pause: bool,
    pub(crate) container: String,
    /// Name of the image
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    pub(crate) container: String,
}
