//! The mounts that a client names for a container's rootfs: parsed to what the kernel takes, made, and taken away.

use std::io;
use std::path::Path;

use containerd_shim_protos::types::mount::Mount;

use crate::idmapped::{self, Layers, Maps};
use crate::{failpoint, sys};

/// Where a container's root is mounted, in its bundle.
pub(crate) const ROOTFS: &str = "rootfs";
/// Where the mapped layers of an overlay are as long as it is being made.
const LAYERS: &str = "layers";

#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error(
        "rootfs mount of {source_path} has the target {target:?}; only mounts on rootfs itself are supported"
    )]
    Target { source_path: String, target: String },
    #[error("mount {source_path} of type {kind:?} on {target}: {error}")]
    Mount {
        source_path: String,
        kind: String,
        target: String,
        error: io::Error,
    },
}

/// Options split into what mount(2) wants in its flags, what needs a second call, and what is the file system's own.
#[derive(Debug, Default, PartialEq, Eq)]
struct MountOptions {
    flags: u64,
    propagation: u64,
    data: Vec<String>,
    maps: Maps,
}

/// Mounts all of `mounts` on `rootfs`, in order; after a failure none of them is left.
pub(crate) fn mount_rootfs(mounts: &[Mount], rootfs: &Path) -> Result<(), MountError> {
    for mount in mounts {
        if let Err(error) = mount_one(mount, rootfs) {
            let _ = sys::unmount_all(rootfs);
            return Err(error);
        }
    }
    Ok(())
}

/// Takes away what [`mount_rootfs`] has mounted in a bundle, also where it was killed half-way.
pub(crate) fn unmount_rootfs(bundle: &Path) -> io::Result<()> {
    sys::unmount_all(&bundle.join(ROOTFS)).and(idmapped::remove_layers(&bundle.join(LAYERS)))
}

fn mount_one(mount: &Mount, rootfs: &Path) -> Result<(), MountError> {
    if !matches!(mount.target.as_str(), "" | "/") {
        return Err(MountError::Target {
            source_path: mount.source.clone(),
            target: mount.target.clone(),
        });
    }
    let options = parse(&mount.options);
    let result = if options.maps.is_empty() {
        mount_as_it_is(mount, &options, rootfs)
    } else if mount.type_ == "overlay" {
        mount_mapped_overlay(mount, options, rootfs)
    } else {
        mount_as_it_is(mount, &options, rootfs).and_then(|()| idmapped::map_in_place(rootfs, &options.maps))
    };
    result.map_err(|error| MountError::Mount {
        source_path: mount.source.clone(),
        kind: mount.type_.clone(),
        target: rootfs.display().to_string(),
        error,
    })
}

fn mount_as_it_is(mount: &Mount, options: &MountOptions, rootfs: &Path) -> io::Result<()> {
    if is_overlay_too_long(mount, options) {
        mount_long_overlay(options, rootfs)
    } else {
        mount_plain(mount, options, rootfs)
    }
}

fn mount_mapped_overlay(mount: &Mount, mut options: MountOptions, rootfs: &Path) -> io::Result<()> {
    let mut layers = None;
    for option in &mut options.data {
        if let Some(("lowerdir", list)) = option.split_once('=') {
            let lower: Vec<&str> = list.split(':').collect();
            let mapped = Layers::mount(&lower, &options.maps, &rootfs.with_file_name(LAYERS))?;
            *option = mapped.option();
            layers = Some(mapped);
        }
    }
    failpoint::reach("create.layers");
    mount_as_it_is(mount, &options, rootfs).map_err(idmapped::overlay_error)?;
    drop(layers);
    Ok(())
}

fn mount_plain(mount: &Mount, options: &MountOptions, rootfs: &Path) -> io::Result<()> {
    let data = options.data.join(",");
    let bind = options.flags & libc::MS_BIND != 0 || matches!(mount.type_.as_str(), "bind" | "rbind");
    if bind {
        let recursive = if mount.type_ == "rbind" {
            libc::MS_REC
        } else {
            options.flags & libc::MS_REC
        };
        sys::mount(&mount.source, rootfs, "", libc::MS_BIND | recursive, "")?;
        // A bind takes no other flag with it; they need a second call.
        let rest = options.flags & !(libc::MS_BIND | libc::MS_REC);
        if rest != 0 {
            sys::mount("", rootfs, "", libc::MS_REMOUNT | libc::MS_BIND | rest, "")?;
        }
    } else {
        sys::mount(&mount.source, rootfs, &mount.type_, options.flags, &data)?;
    }
    if options.propagation != 0 {
        sys::mount("", rootfs, "", options.propagation, "")?;
    }
    Ok(())
}

/// mount(2) takes one page of data. An overlay of many layers needs more.
fn is_overlay_too_long(mount: &Mount, options: &MountOptions) -> bool {
    const PAGE_BYTES: usize = 4096;
    mount.type_ == "overlay"
        && options.data.iter().map(|option| option.len() + 1).sum::<usize>() >= PAGE_BYTES
}

fn mount_long_overlay(options: &MountOptions, rootfs: &Path) -> io::Result<()> {
    let mut layers = Vec::new();
    let mut parameters = Vec::new();
    for option in &options.data {
        match option.split_once('=') {
            Some(("lowerdir", list)) => layers.extend(list.split(':')),
            Some((key, value)) => parameters.push((key, Some(value))),
            None => parameters.push((option.as_str(), None)),
        }
    }
    sys::mount_overlay_layers(&layers, &parameters, rootfs, mount_attributes(options.flags))
}

/// The per-mount flags in fsmount(2)'s numbers, which differ from mount(2)'s in part.
fn mount_attributes(flags: u64) -> u64 {
    [
        (libc::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (libc::MS_NOATIME, libc::MOUNT_ATTR_NOATIME),
        (libc::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
    ]
    .into_iter()
    .filter(|(flag, _)| flags & flag != 0)
    .fold(0, |attributes, (_, attribute)| attributes | attribute)
}

fn parse(options: &[String]) -> MountOptions {
    let mut parsed = MountOptions::default();
    for option in options {
        let (set, clear) = match option.as_str() {
            "defaults" | "rw" => (0, libc::MS_RDONLY),
            "ro" => (libc::MS_RDONLY, 0),
            "nosuid" => (libc::MS_NOSUID, 0),
            "suid" => (0, libc::MS_NOSUID),
            "nodev" => (libc::MS_NODEV, 0),
            "dev" => (0, libc::MS_NODEV),
            "noexec" => (libc::MS_NOEXEC, 0),
            "exec" => (0, libc::MS_NOEXEC),
            "sync" => (libc::MS_SYNCHRONOUS, 0),
            "async" => (0, libc::MS_SYNCHRONOUS),
            "dirsync" => (libc::MS_DIRSYNC, 0),
            "remount" => (libc::MS_REMOUNT, 0),
            "mand" => (libc::MS_MANDLOCK, 0),
            "nomand" => (0, libc::MS_MANDLOCK),
            "noatime" => (libc::MS_NOATIME, 0),
            "atime" => (0, libc::MS_NOATIME),
            "nodiratime" => (libc::MS_NODIRATIME, 0),
            "diratime" => (0, libc::MS_NODIRATIME),
            "relatime" => (libc::MS_RELATIME, 0),
            "norelatime" => (0, libc::MS_RELATIME),
            "strictatime" => (libc::MS_STRICTATIME, 0),
            "nostrictatime" => (0, libc::MS_STRICTATIME),
            "bind" => (libc::MS_BIND, 0),
            "rbind" => (libc::MS_BIND | libc::MS_REC, 0),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable"
            | "runbindable" => {
                let recursive = if option.starts_with('r') { libc::MS_REC } else { 0 };
                let kind = match option.trim_start_matches('r') {
                    "private" => libc::MS_PRIVATE,
                    "shared" => libc::MS_SHARED,
                    "slave" => libc::MS_SLAVE,
                    _ => libc::MS_UNBINDABLE,
                };
                parsed.propagation = kind | recursive;
                continue;
            }
            _ if parsed.maps.take(option) => continue,
            _ => {
                parsed.data.push(option.clone());
                continue;
            }
        };
        parsed.flags = parsed.flags & !clear | set;
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(options: &[&str]) -> Vec<String> {
        options.iter().map(|&option| option.to_owned()).collect()
    }

    #[test]
    fn overlay_options_stay_data_and_flags_become_flags() {
        let parsed = parse(&strings(&[
            "ro",
            "nosuid",
            "lowerdir=/a:/b",
            "index=off",
            "rw",
            "rslave",
        ]));
        assert_eq!(parsed.flags, libc::MS_NOSUID);
        assert_eq!(parsed.propagation, libc::MS_SLAVE | libc::MS_REC);
        assert_eq!(parsed.data, ["lowerdir=/a:/b", "index=off"]);
    }

    #[test]
    fn a_mount_inside_rootfs_is_refused_by_name() {
        let mount = Mount {
            source: "/s".into(),
            target: "/etc".into(),
            ..Mount::default()
        };
        let error = mount_rootfs(&[mount], Path::new("/nowhere"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/etc"), "{error}");
    }
}
