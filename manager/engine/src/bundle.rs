//! The folder of one run of a container: config.json, the mount point of its root file system, fifos, and what
//! the shim leaves there. It is made for a start and gone when the run has ended; so a folder without a running
//! container is the trace of an interrupted start or end, and reconcile finds it by that.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::Deserialize;
use serde_json::Value;

use crate::Error;
use crate::container::Exit;

/// An exit record has five short fields.
const EXIT_MAX_BYTES: u64 = 64 << 10;

/// As many mounts may lie on one mount point before it is an error.
const STACKED_MOUNTS_MAX: usize = 16;

/// What the shim writes before it tells anybody that the container's process has ended.
#[derive(Deserialize)]
struct ExitRecord {
    exit_status: u32,
    exited_at_unix_nanos: i64,
    #[serde(default)]
    oom_killed: bool,
}

/// Make the folder, with config.json, and a fifo for standard input if it is wanted. The members of `group`, if there is
/// one, may go through it: the root of a container's user namespace has to, on its way to its own root file system.
pub(crate) fn write(bundle: &Path, config: &Value, stdin: bool, group: Option<u32>) -> Result<(), Error> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(bundle)
        .map_err(Error::file("make the bundle", bundle))?;
    failpoint::reach("bundle.made");
    if let Some(group) = group {
        std::os::unix::fs::chown(bundle, None, Some(group))
            .and_then(|()| fs::set_permissions(bundle, fs::Permissions::from_mode(0o710)))
            .map_err(Error::file("let the container's root through", bundle))?;
    }
    let rootfs = rootfs(bundle);
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&rootfs)
        .map_err(Error::file("make", &rootfs))?;
    let path = bundle.join("config.json");
    let text = serde_json::to_vec(config).map_err(|error| Error::file("write", &path)(error.into()))?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &text))
        .map_err(Error::file("write", &path))?;
    if stdin {
        make_fifo(&self::stdin(bundle))?;
    }
    Ok(())
}

/// Where the root file system is mounted.
pub(crate) fn rootfs(bundle: &Path) -> PathBuf {
    bundle.join("rootfs")
}

/// Where the file system is mounted that is the container's /dev/shm, and that of others.
pub(crate) fn shm(bundle: &Path) -> PathBuf {
    bundle.join("shm")
}

/// Mount it, as `root`'s. It goes with the bundle; who has it in use keeps it.
pub(crate) fn mount_shm(bundle: &Path, bytes: u64, (uid, gid): (u32, u32)) -> Result<(), Error> {
    let place = shm(bundle);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&place)
        .map_err(Error::file("make", &place))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let data = format!("mode=1777,size={bytes},uid={uid},gid={gid}");
    mount(Some("shm"), &place, Some("tmpfs"), flags, Some(data.as_str()))
        .map_err(|error| Error::file("mount a tmpfs at", &place)(error.into()))
}

/// The fifo of the main process's standard input.
pub(crate) fn stdin(bundle: &Path) -> PathBuf {
    bundle.join("stdin")
}

/// A fifo that only root can open.
pub(crate) fn make_fifo(path: &Path) -> Result<(), Error> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|error| Error::file("make the fifo", path)(error.into()))
}

/// How the run ended, if the shim wrote it down.
pub(crate) fn exit(bundle: &Path) -> Option<Exit> {
    exit_on_record(&bundle.join("exit.json"))
}

/// Where the shim writes down how the process of an exec ended, until that is deleted.
pub(crate) fn exec_exit(bundle: &Path, exec_id: &str) -> PathBuf {
    bundle.join(format!("{exec_id}.exit.json"))
}

/// The exit in a file of the shim's.
pub(crate) fn exit_on_record(path: &Path) -> Option<Exit> {
    let length = fs::metadata(path).ok()?.len();
    if length > EXIT_MAX_BYTES {
        tracing::warn!(path = %path.display(), length, "the exit record is too long to be one");
        return None;
    }
    let text = fs::read(path).ok()?;
    match serde_json::from_slice::<ExitRecord>(&text) {
        Ok(record) => Some(Exit {
            code: record.exit_status,
            at_unix_nanos: record.exited_at_unix_nanos,
            oom_killed: record.oom_killed,
        }),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the exit record cannot be read");
            None
        }
    }
}

/// The config.json of this run.
pub(crate) fn config(bundle: &Path) -> Result<String, Error> {
    let path = bundle.join("config.json");
    fs::read_to_string(&path).map_err(Error::file("read", &path))
}

/// Remove the folder. The root file system is unmounted first; while it cannot be, nothing is deleted, for
/// then the container's files would be.
pub(crate) fn remove(bundle: &Path) -> Result<(), Error> {
    for place in [rootfs(bundle), shm(bundle)] {
        unmount(&place)?;
        ignore_missing(fs::remove_dir(&place)).map_err(Error::file("remove the mount point", &place))?;
    }
    ignore_missing(fs::remove_dir_all(bundle)).map_err(Error::file("remove the bundle", bundle))
}

fn unmount(place: &Path) -> Result<(), Error> {
    for _ in 0..STACKED_MOUNTS_MAX {
        match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there, or there is nothing.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(Error::file("unmount", place)(error.into())),
        }
    }
    Ok(())
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    result.or_else(|error| {
        if error.kind() == ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_record_is_read_and_a_broken_one_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(exit(folder.path()), None);
        let path = folder.path().join("exit.json");
        fs::write(
            &path,
            r#"{"id":"a","pid":4,"exit_status":137,"exited_at_unix_nanos":5,"oom_killed":true}"#,
        )
        .unwrap();
        assert_eq!(
            exit(folder.path()),
            Some(Exit {
                code: 137,
                at_unix_nanos: 5,
                oom_killed: true
            })
        );
        fs::write(&path, r#"{"exit_sta"#).unwrap();
        assert_eq!(exit(folder.path()), None);
    }

    #[test]
    fn a_bundle_goes_whole_but_never_with_a_filled_root_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("b");
        write(&bundle, &serde_json::json!({}), true, None).unwrap();
        assert!(stdin(&bundle).exists());
        fs::write(rootfs(&bundle).join("precious"), "x").unwrap();
        assert!(remove(&bundle).is_err());
        assert!(rootfs(&bundle).join("precious").exists());
        fs::remove_file(rootfs(&bundle).join("precious")).unwrap();
        remove(&bundle).unwrap();
        assert!(!bundle.exists());
        remove(&bundle).unwrap();
    }
}
