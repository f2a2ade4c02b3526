//! Where the layers of images lie: in folders, or in EROFS images that are mounted while they are used.
//!
//! A mount is detached: it has no place among the host's, and ends with this process. Overlays that were made of it hold
//! on to it. Containers of one image share its mount, so that the pages of a program are in memory once.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::unpack::Form;
use crate::{Error, erofs};

/// What new layers are kept as. Those that are here stay as they are: a store may have both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layers {
    /// A folder each.
    #[default]
    Folders,
    /// A file each, an EROFS image: for a kernel that mounts it from there.
    Erofs,
    /// EROFS images if the kernel can mount them, else folders.
    Auto,
}

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Layers, String> {
        match text {
            "folders" => Ok(Layers::Folders),
            "erofs" => Ok(Layers::Erofs),
            "auto" => Ok(Layers::Auto),
            _ => Err("it has to be folders, erofs or auto".into()),
        }
    }
}

impl Layers {
    /// What that is on this kernel, which is tried with a file at `scratch`.
    pub(crate) fn form(self, scratch: &Path) -> Result<Form, Error> {
        if self == Layers::Folders {
            return Ok(Form::Folder);
        }
        match (self, erofs::probe(scratch)) {
            (_, Ok(())) => Ok(Form::Erofs),
            (Layers::Auto, Err(reason)) => {
                tracing::info!(%reason, "layers are kept as folders");
                Ok(Form::Folder)
            }
            (_, Err(source)) => Err(Error::NoErofs(source)),
        }
    }
}

/// Whether a layer's root folder is that of a mounted image: see [`Mounts::folder`].
pub(crate) fn is_mount(folder: &Path) -> bool {
    folder.starts_with("/proc")
}

/// The layers that are mounted, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Mounts(Mutex<HashMap<u64, OwnedFd>>);

impl Mounts {
    /// The root folder of a layer: a path for this and other processes, until the layer is removed or this process
    /// ends.
    pub(crate) fn folder(&self, number: u64, layer: &Path) -> io::Result<PathBuf> {
        if layer.metadata()?.is_dir() {
            return Ok(layer.to_owned());
        }
        let mut mounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = mounts.get(&number) {
            return Ok(erofs::path_of(mount));
        }
        let mount = erofs::mount(layer)?;
        let path = erofs::path_of(&mount);
        mounts.insert(number, mount);
        Ok(path)
    }

    /// Let go of a layer that is removed. Overlays that it is in keep it.
    pub(crate) fn forget(&self, number: u64) {
        let mut mounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mount = mounts.remove(&number);
        drop(mounts);
        drop(mount);
    }
}
