//! The folder of a volume: made, moved away, and emptied. Each step is on disk before the next.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::{Error, names};

/// In the folder of a volume, what containers see of it.
pub(crate) const DATA: &str = "_data";
/// No volume's name begins so.
const TRASH: &str = ".removed-";

/// Make the folder of a volume below `root`. What is there stays as it is.
pub(crate) fn make(root: &Path, name: &str) -> Result<(), Error> {
    let folder = root.join(name);
    let data = folder.join(DATA);
    if data.is_dir() {
        return Ok(());
    }
    make_one(&folder, 0o700)?;
    make_one(&data, 0o755)?;
    sync(&folder)?;
    sync(root)
}

fn make_one(path: &Path, mode: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        result => result.map_err(Error::file("make the folder", path))?,
    }
    // Whatever this process masks.
    fs::set_permissions(path, Permissions::from_mode(mode))
        .and_then(|()| File::open(path)?.sync_all())
        .map_err(Error::file("set the mode of", path))
}

/// Move the folder of a volume to where its files may be removed at leisure. One that is not there is fine.
pub(crate) fn move_away(root: &Path, name: &str) -> Result<(), Error> {
    let folder = root.join(name);
    let trash = root.join(format!("{TRASH}{}", names::random_id()?));
    match fs::rename(&folder, &trash) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        moved => {
            moved.map_err(Error::file("move away", &folder))?;
            sync(root)
        }
    }
}

/// Remove what was moved away, without going into anything that is mounted there.
pub(crate) fn empty_trash(root: &Path) -> Result<(), Error> {
    for name in names_in(root)?.iter().filter(|name| name.starts_with(TRASH)) {
        let trash = root.join(name);
        image::remove_tree(&trash).map_err(Error::file("remove", &trash))?;
    }
    Ok(())
}

/// The folders that are there, but for what was moved away.
pub(crate) fn all(root: &Path) -> Result<Vec<String>, Error> {
    let mut names = names_in(root)?;
    names.retain(|name| !name.starts_with(TRASH));
    Ok(names)
}

fn names_in(root: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(root).map_err(Error::file("list", root))?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.collect())
}

pub(super) fn sync(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::file("write to disk", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_goes_leaves_the_others_and_its_name() {
        let root = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            make(root.path(), name).unwrap();
            fs::write(root.path().join(name).join(DATA).join("file"), name).unwrap();
        }
        move_away(root.path(), "one").unwrap();
        move_away(root.path(), "none").unwrap();
        make(root.path(), "one").unwrap();
        empty_trash(root.path()).unwrap();
        assert!(!root.path().join("one/_data/file").exists());
        assert_eq!(
            fs::read_to_string(root.path().join("two/_data/file")).unwrap(),
            "two"
        );
        let mut left = names_in(root.path()).unwrap();
        left.sort();
        assert_eq!(left, ["one", "two"]);
    }
}
