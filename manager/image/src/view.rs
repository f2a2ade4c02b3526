//! The files of an image without a container: an overlay of its layers alone, which nobody can write to.
//!
//! An overlay also of an image of one layer: the marks of what a layer hides mean something only to an overlay.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};

use crate::Error;
use crate::database;
use crate::marks::marks;
use crate::rootfs::{MOUNT_DATA_BYTES_MAX, inode_option};
use crate::store::{EMPTY_LAYER, Store};

/// What an image's files are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Layers, top one first, as those of a [`crate::Rootfs`]; at least two, as an overlay without a layer to write to
    /// needs.
    pub lower: Vec<PathBuf>,
}

impl View {
    pub(crate) fn of(store: &Store, image_id: &str) -> Result<View, Error> {
        let numbers = {
            let connection = store.database();
            if database::image(&connection, image_id)?.is_none() {
                return Err(Error::NoSuchImage(image_id.to_owned()));
            }
            database::image_layer_numbers(&connection, image_id)?
        };
        let folders = numbers.iter().rev().map(|number| store.layer_folder(*number));
        let mut lower: Vec<PathBuf> = folders.collect::<Result<_, _>>()?;
        while lower.len() < 2 {
            lower.push(store.layer_path(EMPTY_LAYER));
        }
        Ok(View { lower })
    }

    /// Mount it at `place`. The mount holds on to the layers, wherever they were mounted.
    pub fn mount(&self, place: &Path) -> io::Result<()> {
        let lower: Vec<String> = self.lower.iter().map(|path| path.display().to_string()).collect();
        let options = self.options();
        let data = format!("lowerdir={},{}", lower.join(":"), options.join(","));
        if data.len() < MOUNT_DATA_BYTES_MAX {
            let data = CString::new(data)?;
            mount(
                "overlay",
                place,
                "overlay",
                MountFlags::RDONLY,
                Some(data.as_c_str()),
            )?;
            return Ok(());
        }
        // Too long for mount(2): one by one, which Linux takes since 6.5.
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in &lower {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        for option in &options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, option)?,
            }
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&tree, "", rustix::fs::CWD, place, flags)?;
        Ok(())
    }

    fn options(&self) -> Vec<String> {
        let marks = marks().options.iter().map(|option| (*option).to_owned());
        marks.chain(inode_option(&self.lower)).collect()
    }
}
