//! An empty volume gets what the image has at its place: files, owner, mode, times, attributes, links and holes.
//!
//! The copy is made aside and written to disk, then given another name, and only then moved in, entry by entry: what is
//! not whole is found by its name and removed, what is whole is moved to its end, whoever begins that. In the folder
//! aside are the files, and an empty folder that has the looks of theirs, which changes as they are moved out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::{Images, Owners};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fstatat, mkdirat};

use super::folder;
use crate::Error;

const FILES: &str = "files";
const LOOKS: &str = "looks";
/// Never through a link: a volume may have been another container's.
const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Where a copy is made. What is mounted may be written by others all the while, who can give another folder, or a link,
/// the name of ours: nothing in it is reached by a path, only by what was opened, one name at a time.
struct Aside {
    /// The same file system as the volume's, so that moving is renaming.
    parent: OwnedFd,
    /// Where that is, for messages.
    place: PathBuf,
    copying: &'static str,
    copied: &'static str,
}

/// A copy, whole or in the making.
struct Copy {
    files: OwnedFd,
    looks: OwnedFd,
}

impl Aside {
    fn of(data: &Path, is_mounted: bool) -> Result<Aside, Error> {
        let (place, copying, copied) = if is_mounted {
            (data, ".berth-copying", ".berth-copied")
        } else {
            // Where no container sees it.
            (data.parent().unwrap_or(data), "_copying", "_copied")
        };
        Ok(Aside {
            parent: open(place, FOLDER, Mode::empty())
                .map_err(|error| Error::file("open", place)(error.into()))?,
            place: place.to_owned(),
            copying,
            copied,
        })
    }

    /// Begin a copy, with nothing in it.
    fn begin(&self) -> io::Result<Copy> {
        let copying = make(&self.parent, self.copying)?;
        Ok(Copy {
            files: make(&copying, FILES)?,
            looks: make(&copying, LOOKS)?,
        })
    }

    /// A copy that is whole, if there is one.
    fn whole(&self) -> io::Result<Option<Copy>> {
        let Some(copied) = ours(open_in(&self.parent, self.copied))? else {
            return Ok(None);
        };
        let [files, looks] = [FILES, LOOKS].map(|name| ours(open_in(&copied, name)));
        Ok(files?.zip(looks?).map(|(files, looks)| Copy { files, looks }))
    }

    /// From now on the copy is whole.
    fn complete(&self) -> Result<(), Error> {
        rename_new(
            &self.parent,
            self.copying.as_ref(),
            &self.parent,
            self.copied.as_ref(),
        )
        .map_err(|error| Error::file("rename", &self.place.join(self.copying))(error.into()))?;
        folder::sync(&self.place)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        // A link of this name would go itself.
        image::remove_tree(&itself(&self.parent).join(name))
            .map_err(Error::file("remove", &self.place.join(name)))
    }
}

/// What another than us has made is no folder, or a link; any other error says nothing about what is there.
fn ours(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let Err(error) = &opened else {
        return opened.map(Some);
    };
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        _ => opened.map(Some),
    }
}

/// Never in the place of something else, where the file system can promise that. NFS and some others know no flags of
/// rename: there it is looked at first, and in between somebody else's could be lost.
fn rename_new(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new_name: &OsStr) -> Result<(), Errno> {
    let renamed = renameat2(
        from.as_fd(),
        name,
        to.as_fd(),
        new_name,
        RenameFlags::RENAME_NOREPLACE,
    );
    if renamed != Err(Errno::EINVAL) {
        return renamed;
    }
    match fstatat(to.as_fd(), new_name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) => renameat(from.as_fd(), name, to.as_fd(), new_name),
        Err(error) => Err(error),
    }
}

fn make(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    mkdirat(parent.as_fd(), name, Mode::S_IRWXU)?;
    open_in(parent, name)
}

fn open_in(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(parent.as_fd(), name, FOLDER, Mode::empty())?)
}

/// The open folder, for calls that take a path and follow no link at its end.
fn itself(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}/.", folder.as_raw_fd()).into()
}

/// Fill the volume at `data`, if it is empty, with what the image of container `id` has at `target`. `is_mounted`: its
/// options have mounted another file system there. `shifted`: who sees the volume sees the owners that
/// it has on the host, by this mapping.
pub(crate) fn fill(
    images: &Images,
    id: &str,
    target: &str,
    data: &Path,
    is_mounted: bool,
    shifted: Option<&Owners>,
) -> Result<(), Error> {
    let aside = Aside::of(data, is_mounted)?;
    resume(data, is_mounted)?;
    let mut entries = fs::read_dir(data).map_err(Error::file("list", data))?;
    if entries.next().is_some() {
        return Ok(());
    }
    let copied = aside
        .begin()
        .map_err(Error::file("make the folder", &aside.place.join(aside.copying)))
        .and_then(|copy| {
            Ok(copy
                .fill(images, id, target, &aside.place, shifted)?
                .then_some(copy))
        });
    let copy = match copied {
        Ok(Some(copy)) => copy,
        other => {
            aside.remove(aside.copying)?;
            return other.map(drop);
        }
    };
    failpoint::reach("copy-up.copied");
    aside.complete()?;
    failpoint::reach("copy-up.whole");
    move_in(&aside, &copy, data)
}

impl Copy {
    /// Make the copy and write it to disk. False: there is nothing to be copied.
    fn fill(
        &self,
        images: &Images,
        id: &str,
        target: &str,
        place: &Path,
        shifted: Option<&Owners>,
    ) -> Result<bool, Error> {
        if !images.copy_folder(id, target.as_bytes(), &itself(&self.files), shifted)? {
            return Ok(false);
        }
        image::copy_looks(&self.files, &self.looks)
            .and_then(|()| Ok(nix::unistd::syncfs(&self.files)?))
            .map_err(Error::file("write to disk what is copied into", place))?;
        Ok(true)
    }

    /// Move all of it to where it belongs. What others have made there meanwhile stays.
    fn move_to(&self, data: &Path) -> io::Result<()> {
        let to = open(data, FOLDER, Mode::empty())?;
        for entry in fs::read_dir(itself(&self.files))? {
            let name = entry?.file_name();
            match rename_new(&self.files, &name, &to, &name) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        image::copy_looks(&self.looks, &to)?;
        File::from(to).sync_all()
    }
}

/// Go on with a copy that was cut off: remove half of one, move a whole one in.
pub(crate) fn resume(data: &Path, is_mounted: bool) -> Result<(), Error> {
    let aside = Aside::of(data, is_mounted)?;
    aside.remove(aside.copying)?;
    let whole = aside.whole().map_err(Error::file(
        "look whether there is a whole copy at",
        &aside.place.join(aside.copied),
    ))?;
    if let Some(copy) = whole {
        tracing::info!(data = %data.display(), "going on with the copy of an image's files");
        return move_in(&aside, &copy, data);
    }
    // Nothing, or what a container has made of this name in a volume that is mounted.
    aside.remove(aside.copied)
}

/// Move all that was copied into the volume, and give it the looks of the image's folder.
fn move_in(aside: &Aside, copy: &Copy, data: &Path) -> Result<(), Error> {
    copy.move_to(data).map_err(Error::file(
        "move into the volume what is in",
        &aside.place.join(aside.copied),
    ))?;
    failpoint::reach("copy-up.moved");
    aside.remove(aside.copied)?;
    folder::sync(&aside.place)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A volume's folder, and where its data is.
    fn volume() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join(folder::DATA);
        fs::create_dir(&data).unwrap();
        (folder, data)
    }

    #[test]
    fn half_of_a_copy_is_removed_and_a_whole_one_moved_in() {
        let (folder, data) = volume();
        for name in ["_copying", "_copied"] {
            fs::create_dir_all(folder.path().join(name).join("files/sub")).unwrap();
            fs::create_dir(folder.path().join(name).join("looks")).unwrap();
            fs::write(folder.path().join(name).join("files/file"), name).unwrap();
        }
        let looks = folder.path().join("_copied/looks");
        fs::set_permissions(looks, fs::Permissions::from_mode(0o1770)).unwrap();
        // What a container has written that shares the volume.
        fs::write(data.join("file"), "theirs").unwrap();
        resume(&data, false).unwrap();
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "theirs");
        assert!(data.join("sub").is_dir());
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o7777, 0o1770);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        resume(&data, false).unwrap();
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_missing() {
        let (_folder, data) = volume();
        let unreadable = Aside {
            copied: Box::leak("x".repeat(300).into_boxed_str()),
            ..Aside::of(&data, true).unwrap()
        };
        assert!(unreadable.whole().is_err());
        assert!(Aside::of(&data, true).unwrap().whole().unwrap().is_none());
    }

    #[test]
    fn what_is_copied_into_a_mounted_volume_lies_in_it() {
        let (_folder, data) = volume();
        fs::create_dir_all(data.join(".berth-copied/files/sub")).unwrap();
        fs::create_dir(data.join(".berth-copied/looks")).unwrap();
        fs::create_dir(data.join(".berth-copying")).unwrap();
        resume(&data, true).unwrap();
        let names: Vec<_> = fs::read_dir(&data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["sub"]);
    }

    /// Containers that have the volume can rename what is in it at any moment.
    #[test]
    fn a_link_in_the_place_of_a_copy_leads_nowhere() {
        let (folder, data) = volume();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let aside = Aside::of(&data, true).unwrap();
        let copy = aside.begin().unwrap();
        fs::rename(data.join(".berth-copying"), data.join("theirs")).unwrap();
        std::os::unix::fs::symlink(&outside, data.join(".berth-copying")).unwrap();
        fs::write(itself(&copy.files).join("file"), "").unwrap();
        aside.complete().unwrap();
        move_in(&aside, &copy, &data).unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(data.join("file").exists() && !data.join(".berth-copied").is_symlink());
        // One that stands there from the beginning is not gone through either.
        std::os::unix::fs::symlink(&outside, data.join(".berth-copied")).unwrap();
        for name in ["files", "looks"] {
            fs::create_dir(outside.join(name)).unwrap();
        }
        resume(&data, true).unwrap();
        assert!(!data.join(".berth-copied").is_symlink() && outside.join("files").exists());
    }
}
