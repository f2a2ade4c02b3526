//! Mounts whose content comes from outside the container. Who saves and restores a container (CRIU) has to be told
//! of them, because it can't find their content among the container's own mounts.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::inside;
use super::plan::{Kind, Plan};
use crate::error::{Context as _, Error, Result};

/// A place in the container, and what is mounted there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) destination: PathBuf,
    pub(crate) source: PathBuf,
}

impl Plan {
    /// All of them, with symbolic links of the root file system followed.
    pub(crate) fn externals(&self) -> Result<Vec<External>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let what = || format!("open rootfs {}", self.rootfs.display());
        let root = open(&self.rootfs, flags, Mode::empty()).context(what)?;
        let real = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}"));
        let base = real(root.as_raw_fd()).context(what)?;
        let resolve = |path: &Path| {
            let found = inside::locate(root.as_fd(), path).ok();
            let found = found.and_then(|found| real(found.fd.as_raw_fd()).ok());
            let place = match found.and_then(|found| found.strip_prefix(&base).ok().map(inside::absolute)) {
                Some(place) => place,
                // Below another mount, and not in the root file system itself.
                None if !inside::has_link(root.as_fd(), path) => inside::absolute(path),
                None => PathBuf::new(),
            };
            // CRIU takes `mnt[DESTINATION]:NAME`, and the container may have put a link there.
            let why = if place.file_name().is_none() {
                "a link in the rootfs leads away from it"
            } else if place.to_string_lossy().contains("]:") {
                "CRIU can't be told of a name with `]:`"
            } else {
                return Ok(place);
            };
            let text = format!(
                "invalid external mount destination {} ({}): {why}",
                inside::absolute(path).display(),
                place.display()
            );
            Err(Error::Refused(text))
        };
        let mut externals = Vec::new();
        for entry in &self.mounts {
            if let Kind::Bind { source, .. } = &entry.kind {
                // What lies there when it is restored is the container's choice, and CRIU would look for it on the host.
                if entry.inner_source.is_some() {
                    return Err(Error::Refused(format!(
                        "CRIU can't be told of the bind at {}: its source {} lies in the container's rootfs",
                        inside::absolute(&entry.destination).display(),
                        source.display()
                    )));
                }
                externals.push(External {
                    destination: resolve(&entry.destination)?,
                    source: source.clone(),
                });
            }
        }
        // There device nodes are binds of the host's.
        for device in self.devices.iter().filter(|_| self.user_namespace) {
            externals.push(External {
                destination: resolve(&device.path)?,
                source: inside::absolute(&device.path),
            });
        }
        Ok(externals)
    }

    /// Files that are covered by a null device from outside.
    pub(crate) fn externally_masked(&self) -> impl Iterator<Item = PathBuf> {
        let dev_is_ours = self
            .mounts
            .iter()
            .any(|entry| entry.destination == Path::new("dev") && matches!(entry.kind, Kind::New { .. }));
        let outside = self.user_namespace || !dev_is_ours;
        self.masked_paths
            .iter()
            .filter(move |_| outside)
            .map(|path| inside::absolute(path))
    }
}
