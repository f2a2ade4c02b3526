//! From the flags of storage to what a container is asked to see.

mod mount;
mod volume;

use std::path::{Path, PathBuf};

use proto::v1::mount::Kind;
use proto::v1::{Mount, Storage, TmpfsMount};

use crate::cli::StorageFlags;
use crate::failure::{Failure, Result};

/// What the flags say; none if they say nothing.
pub(super) fn gather(flags: &StorageFlags) -> Result<Option<Storage>> {
    let volumes = flags.volume.iter().map(|argument| volume::parse(argument));
    let mounts = flags.mount.iter().map(|argument| mount::parse(argument));
    let tmpfs = flags.tmpfs.iter().map(|argument| Ok(tmpfs(argument)));
    let storage = Storage {
        mounts: volumes.chain(mounts).chain(tmpfs).collect::<Result<_>>()?,
        volumes_from: flags.volumes_from.clone(),
        volume_driver: flags.volume_driver.clone(),
    };
    Ok((storage != Storage::default()).then_some(storage))
}

/// Reads `TARGET[:OPTIONS]`.
fn tmpfs(argument: &str) -> Mount {
    let (target, options) = argument.split_once(':').unwrap_or((argument, ""));
    let options = options.split(',').filter(|option| !option.is_empty());
    Mount {
        target: target.to_owned(),
        read_only: false,
        kind: Some(Kind::Tmpfs(TmpfsMount {
            options: options.map(str::to_owned).collect(),
            ..TmpfsMount::default()
        })),
    }
}

/// A path of this machine, as it is meant in the directory one is in.
fn host_path(path: &str) -> std::io::Result<String> {
    let path = if Path::new(path).is_absolute() {
        PathBuf::from(path)
    } else {
        std::path::absolute(path)?
    };
    let path = path.into_os_string().into_string();
    path.map_err(|_| std::io::Error::other("the directory one is in is not in UTF-8"))
}

/// What was wrong with an argument of a flag.
fn wrong(flag: &str, argument: &str, what: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{flag} {argument}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_may_have_options() {
        let options = |argument: &str| match tmpfs(argument).kind {
            Some(Kind::Tmpfs(tmpfs)) => tmpfs.options,
            other => panic!("{other:?}"),
        };
        assert_eq!(options("/run"), [""; 0]);
        assert_eq!(options("/run:size=1m,exec"), ["size=1m", "exec"]);
        assert_eq!(tmpfs("/run:size=1m").target, "/run");
    }
}
