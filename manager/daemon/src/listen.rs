//! The API's socket: open to root and its group, and never taken from a manager that still answers.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

const SOCKET_MODE: u32 = 0o660;

/// Listen at `path`. What a manager that died has left there is replaced.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListenerStream> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt;
        if !metadata.file_type().is_socket() {
            bail!("{} is there and is not a socket", path.display());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("somebody answers at {} already", path.display());
        }
        std::fs::remove_file(path).with_context(|| format!("remove the old socket {}", path.display()))?;
    }
    // Nobody may connect between the socket's making and its permissions.
    let before = umask(Mode::from_bits_truncate(0o777 & !0o600));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.with_context(|| format!("listen at {}", path.display()))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))
        .with_context(|| format!("set the permissions of {}", path.display()))?;
    Ok(UnixListenerStream::new(listener))
}

/// Remove the socket at the end.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "the socket stays");
    }
}
