//! Terminals: the runtime makes the pseudo-terminal and sends its master side over a UNIX socket of ours.

use std::fmt::Display;
use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::sys;

/// The listening socket; its file goes with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    pub fn bind(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn Display| format!("make console socket {}: {error}", path.display());
        let listener = UnixListener::bind(path).map_err(|error| failed(&error))?;
        let socket = Self {
            listener,
            path: path.to_owned(),
        };
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| failed(&error))?;
        socket
            .listener
            .set_nonblocking(true)
            .map_err(|error| failed(&error))?;
        Ok(socket)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal, non-blocking. Called when the runtime has ended well, so it must have been sent: nothing waits.
    pub fn receive(&self) -> Result<OwnedFd, String> {
        let (connection, _) = self
            .listener
            .accept()
            .map_err(|error| format!("the runtime did not connect to the console socket: {error}"))?;
        let terminal = sys::receive_descriptor(&connection)
            .map_err(|error| format!("the runtime sent no terminal over the console socket: {error}"))?;
        sys::set_nonblocking(&terminal, true)
            .map_err(|error| format!("make the terminal non-blocking: {error}"))?;
        Ok(terminal)
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
