//! An empty volume gets what the image has at its place: files, owner, mode, times, attributes, links and holes.
//!
//! The copy is made aside and written to disk, then given another name, and only then moved in, entry by entry: what is
//! not whole is found by its name and removed, what is whole is moved to its end, whoever begins that. In the folder
//! aside are the files, and an empty folder that has the looks of theirs, which changes as they are moved out.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use image::Images;
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::Mode;

use super::folder;
use crate::Error;

const FILES: &str = "files";
const LOOKS: &str = "looks";
/// Never through a link: a volume may have been another container's.
const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Where a copy is made.
struct Aside {
    /// The same file system as the volume's, so that moving is renaming.
    parent: PathBuf,
    copying: &'static str,
    copied: &'static str,
}

impl Aside {
    fn of(data: &Path, is_mounted: bool) -> Aside {
        if is_mounted {
            return Aside {
                parent: data.to_owned(),
                copying: ".berth-copying",
                copied: ".berth-copied",
            };
        }
        // Where no container sees it.
        Aside {
            parent: data.parent().unwrap_or(data).to_owned(),
            copying: "_copying",
            copied: "_copied",
        }
    }

    fn copying(&self) -> PathBuf {
        self.parent.join(self.copying)
    }

    fn copied(&self) -> PathBuf {
        self.parent.join(self.copied)
    }
}

/// Fill the volume at `data`, if it is empty, with what the image of container `id` has at `target`. `is_mounted`: its
/// options have mounted another file system there.
pub(crate) fn fill(
    images: &Images,
    id: &str,
    target: &str,
    data: &Path,
    is_mounted: bool,
) -> Result<(), Error> {
    let aside = Aside::of(data, is_mounted);
    resume(data, is_mounted)?;
    let mut entries = fs::read_dir(data).map_err(Error::file("list", data))?;
    if entries.next().is_some() {
        return Ok(());
    }
    let copying = aside.copying();
    let copied = DirBuilder::new()
        .mode(0o700)
        .create(&copying)
        .map_err(Error::file("make the folder", &copying))
        .and_then(|()| copy(images, id, target, &copying));
    if !matches!(copied, Ok(true)) {
        remove(&copying)?;
        return copied.map(drop);
    }
    failpoint::reach("copy-up.copied");
    let whole = aside.copied();
    fs::rename(&copying, &whole).map_err(Error::file("rename", &copying))?;
    folder::sync(&aside.parent)?;
    failpoint::reach("copy-up.whole");
    move_in(&aside, data)
}

/// Make the copy and write it to disk. False: there is nothing to be copied.
fn copy(images: &Images, id: &str, target: &str, aside: &Path) -> Result<bool, Error> {
    let (files, looks) = (aside.join(FILES), aside.join(LOOKS));
    let make = |path: &Path| {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(Error::file("make the folder", path))
    };
    make(&files)?;
    if !images.copy_folder(id, target.as_bytes(), &files)? {
        return Ok(false);
    }
    make(&looks)?;
    let folder = |path: &Path| open(path, FOLDER, Mode::empty()).map_err(io::Error::from);
    folder(&files)
        .and_then(|files| image::copy_looks(&files, &folder(&looks)?))
        .and_then(|()| Ok(nix::unistd::syncfs(folder(aside)?)?))
        .map_err(Error::file("write to disk", aside))?;
    Ok(true)
}

/// Go on with a copy that was cut off: remove half of one, move a whole one in.
pub(crate) fn resume(data: &Path, is_mounted: bool) -> Result<(), Error> {
    let aside = Aside::of(data, is_mounted);
    remove(&aside.copying())?;
    let copied = aside.copied();
    if copied.join(FILES).is_dir() && copied.join(LOOKS).is_dir() {
        tracing::info!(data = %data.display(), "going on with the copy of an image's files");
        return move_in(&aside, data);
    }
    // Nothing, or what a container has made of this name in a volume that is mounted.
    remove(&copied)
}

/// Move all that was copied into the volume, and give it the looks of the image's folder. What others have made there
/// meanwhile stays.
fn move_in(aside: &Aside, data: &Path) -> Result<(), Error> {
    let copied = aside.copied();
    move_entries(aside, data).map_err(Error::file("move into the volume what is in", &copied))?;
    failpoint::reach("copy-up.moved");
    remove(&copied)?;
    folder::sync(&aside.parent)
}

fn move_entries(aside: &Aside, data: &Path) -> io::Result<()> {
    let parent = open(&aside.parent, FOLDER, Mode::empty())?;
    let copied = openat(parent.as_fd(), aside.copied, FOLDER, Mode::empty())?;
    let from = openat(copied.as_fd(), FILES, FOLDER, Mode::empty())?;
    let looks = openat(copied.as_fd(), LOOKS, FOLDER, Mode::empty())?;
    let to = open(data, FOLDER, Mode::empty())?;
    for entry in fs::read_dir(itself(&from))? {
        let name = entry?.file_name();
        match renameat2(
            from.as_fd(),
            name.as_os_str(),
            to.as_fd(),
            name.as_os_str(),
            RenameFlags::RENAME_NOREPLACE,
        ) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    image::copy_looks(&looks, &to)?;
    File::from(to).sync_all()
}

/// The open folder, for calls that take a path.
fn itself(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

fn remove(path: &Path) -> Result<(), Error> {
    image::remove_tree(path).map_err(Error::file("remove", path))
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
}
