//! Finds a container's program the way a shell would, in the container and as its user. The texts are those of
//! runc (Go's os/exec), because docker and containerd turn them into exit codes 126 and 127.

use std::fs;
use std::path::Path;

use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

use crate::error::{Error, Result};

/// The path to execute for `name`: itself when it has a slash, else from the directories of `$PATH`.
pub(crate) fn find(name: &str, path: &str) -> Result<String> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.to_owned()),
            Err(why) => Err(Error::Refused(format!("exec: \"{name}\": {why}"))),
        };
    }
    let mut denied = false;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{name}");
        match executable(Path::new(&candidate)) {
            // A relative directory in $PATH would run what lies in the working directory.
            Ok(()) if dir.starts_with('/') => return Ok(candidate),
            Ok(()) => {
                return Err(Error::Refused(format!(
                    "exec: \"{name}\": cannot run executable found relative to current directory"
                )));
            }
            Err(why) => denied |= why == DENIED,
        }
    }
    let why = if denied {
        DENIED
    } else {
        "executable file not found in $PATH"
    };
    Err(Error::Refused(format!("exec: \"{name}\": {why}")))
}

const DENIED: &str = "permission denied";

fn executable(path: &Path) -> std::result::Result<(), String> {
    let missing = |error: std::io::Error| match error.raw_os_error() {
        Some(libc::ENOENT) => format!("stat {}: no such file or directory", path.display()),
        Some(libc::EACCES) => DENIED.to_owned(),
        Some(libc::ENOTDIR) => format!("stat {}: not a directory", path.display()),
        _ => format!("stat {}: {error}", path.display()),
    };
    let metadata = fs::metadata(path).map_err(missing)?;
    if metadata.is_dir() {
        return Err("is a directory".into());
    }
    faccessat(nix::fcntl::AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)
        .map_err(|_| DENIED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_in_path_and_by_path() {
        assert_eq!(find("sh", "/nowhere:/bin").unwrap(), "/bin/sh");
        assert_eq!(find("/bin/sh", "").unwrap(), "/bin/sh");
    }

    #[test]
    fn errors_are_those_that_docker_knows() {
        let text = |name, path| find(name, path).unwrap_err().to_string();
        assert_eq!(
            text("nope", "/bin"),
            "exec: \"nope\": executable file not found in $PATH"
        );
        assert_eq!(
            text("/bin/nope", ""),
            "exec: \"/bin/nope\": stat /bin/nope: no such file or directory"
        );
        assert_eq!(
            text("/etc/passwd", ""),
            "exec: \"/etc/passwd\": permission denied"
        );
        assert_eq!(text("/etc", ""), "exec: \"/etc\": is a directory");
        assert_eq!(text("passwd", "/etc"), "exec: \"passwd\": permission denied");
    }
}
