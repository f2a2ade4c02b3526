//! Where a shim listens: a socket whose name nobody can guess, in a folder that only its owner may enter.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::bundle::ADDRESS_FILE;
use crate::sys;

/// Where containerd's shims have their sockets.
const CONTAINERD_SOCKETS: &str = "/run/containerd/s";
/// Used when a folder's name is too long for a socket in it.
const SHORT_SOCKETS: &str = "/run/berth/s";
const NAME_BYTES: usize = 64;
/// What console sockets add to the name.
const SUFFIX_BYTES: usize = 11;
/// `sun_path` of Linux, with its final NUL.
const PATH_BYTES_MAX: usize = 108;

#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {error}", path.display())]
pub struct SocketError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl SocketError {
    fn new(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self { what, path, error }
    }
}

/// The folder for sockets: what was asked for, containerd's when it calls (it passes its publish binary), or else one
/// beside the caller's own socket.
pub fn folder(asked: &str, address: &str, called_by_containerd: bool) -> PathBuf {
    let folder = if !asked.is_empty() {
        PathBuf::from(asked)
    } else if called_by_containerd {
        CONTAINERD_SOCKETS.into()
    } else {
        match Path::new(address).parent() {
            Some(parent) if parent.is_absolute() => parent.join("s"),
            _ => SHORT_SOCKETS.into(),
        }
    };
    let path_bytes = folder.as_os_str().len() + 1 + NAME_BYTES + SUFFIX_BYTES + 1;
    if path_bytes > PATH_BYTES_MAX {
        SHORT_SOCKETS.into()
    } else {
        folder
    }
}

/// The path for a new socket in `folder`, which is made when it is missing.
pub fn new_path(folder: &Path) -> Result<PathBuf, SocketError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(SocketError::new("make socket folder", folder))?;
    Ok(folder.join(random_name().map_err(SocketError::new("read", Path::new("/dev/urandom")))?))
}

/// Listens on a socket that only its owner may connect to.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let listener = UnixListener::bind(path).map_err(SocketError::new("listen on", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(SocketError::new("set the mode of", path))?;
    Ok(listener)
}

fn random_name() -> io::Result<String> {
    use std::fmt::Write;
    let mut bytes = [0u8; NAME_BYTES / 2];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes
        .iter()
        .fold(String::with_capacity(NAME_BYTES), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        }))
}

/// The address in a bundle, when a shim listens there.
pub fn live_address(bundle: &Path) -> Option<String> {
    let address = read_address(bundle)?;
    sys::connect_unix(&path_of(&address)?).is_ok().then_some(address)
}

pub fn read_address(bundle: &Path) -> Option<String> {
    let address = std::fs::read_to_string(bundle.join(ADDRESS_FILE)).ok()?;
    Some(address.trim().to_owned()).filter(|address| !address.is_empty())
}

/// The socket's path in an address of the form `unix:///path`.
pub fn path_of(address: &str) -> Option<PathBuf> {
    Some(PathBuf::from(address.strip_prefix("unix://")?)).filter(|path| path.is_absolute())
}

/// Removes a dead shim's socket and the console sockets beside it.
pub fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let prefix = format!("{name}.");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .to_str()
            .is_some_and(|other| other.starts_with(&prefix))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_fit_and_follow_the_caller() {
        assert_eq!(
            folder("", "/run/containerd/containerd.sock", true),
            Path::new(CONTAINERD_SOCKETS)
        );
        assert_eq!(
            folder("", "/run/berth/manager.sock", false),
            Path::new("/run/berth/s")
        );
        assert_eq!(folder("/run/x", "", true), Path::new("/run/x"));
        let long = format!("/tmp/{}/manager.sock", "x".repeat(60));
        assert_eq!(folder("", &long, false), Path::new(SHORT_SOCKETS));
    }

    #[test]
    fn sockets_are_private_and_never_the_same() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("s");
        let (path, other) = (new_path(&folder).unwrap(), new_path(&folder).unwrap());
        assert_ne!(path, other);
        let _listener = listen(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_address_without_a_listener_is_dead() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(live_address(bundle.path()), None);
        let path = new_path(bundle.path()).unwrap();
        let listener = listen(&path).unwrap();
        std::fs::write(
            bundle.path().join(ADDRESS_FILE),
            format!("unix://{}", path.display()),
        )
        .unwrap();
        assert!(live_address(bundle.path()).is_some());
        drop(listener);
        assert_eq!(live_address(bundle.path()), None);
        remove(&path);
        assert!(!path.exists());
    }
}
