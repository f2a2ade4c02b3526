//! The API's UNIX socket: open to root and its group, and never taken from a manager that still answers. systemd may have
//! made it (systemd.socket(5)); then it stays when the manager ends, and who connects meanwhile waits for the next one.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, chown};
use tokio::net::UnixListener;

use crate::sys;

const SOCKET_MODE: u32 = 0o660;
const GROUPS: &str = "/etc/group";

/// The socket at which this manager listens.
pub(crate) struct Listener {
    /// Where they connect.
    pub(crate) socket: UnixListener,
    /// What is to be removed at the end; None: systemd's.
    pub(crate) made: Option<PathBuf>,
}

impl Listener {
    /// Listen at the socket that systemd has handed over, or else at `path`. What a manager that died has left there is
    /// replaced. The members of `group` may connect, and those may do all that root may.
    pub(crate) fn open(
        handed_over: Option<UnixListener>,
        path: &Path,
        group: Option<Gid>,
    ) -> anyhow::Result<Listener> {
        Ok(match handed_over {
            Some(socket) => Listener { socket, made: None },
            None => Listener {
                socket: bind(path, group)?,
                made: Some(path.to_owned()),
            },
        })
    }
}

/// The socket that systemd hands over, if it does and it is what the command line asks for; to be called once.
pub(crate) fn handed_over(asked: &Asked<'_>) -> anyhow::Result<Option<UnixListener>> {
    let socket = activated()?;
    if let Some(socket) = &socket {
        asked.agrees_with(socket)?;
    }
    Ok(socket)
}

/// What the command line says of the socket.
pub(crate) struct Asked<'a> {
    pub(crate) socket: Option<&'a Path>,
    pub(crate) group: Option<&'a str>,
}

impl Asked<'_> {
    /// Whoever asks for a place or a group relies on it: a socket that is elsewhere, or somebody else's, is not what
    /// they asked for.
    fn agrees_with(&self, socket: &UnixListener) -> anyhow::Result<()> {
        if let Some(group) = self.group {
            bail!(
                "--socket-group {group}: the socket is systemd's, and so is who may connect: leave the flag out, and write SocketGroup={group} in the socket's unit (berth.socket)"
            );
        }
        let Some(asked) = self.socket else {
            return Ok(());
        };
        let address = socket.local_addr().context("look at the socket of systemd")?;
        let has = address.as_pathname();
        if has != Some(asked) {
            bail!(
                "--socket {}: the socket is systemd's, at {}: leave the flag out, or write ListenStream={0} in the socket's unit (berth.socket)",
                asked.display(),
                has.unwrap_or(Path::new("no path")).display()
            );
        }
        Ok(())
    }
}

/// Remove the socket at the end.
pub(crate) fn remove(made: Option<&Path>) {
    let Some(path) = made else { return };
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "the socket stays");
    }
}

/// The one socket that systemd has made for this process, if it has.
fn activated() -> anyhow::Result<Option<UnixListener>> {
    let mut fds = sys::activated_sockets().context("look for the sockets that systemd hands over")?;
    if fds.len() > 1 {
        bail!(
            "systemd hands over {} sockets: one ListenStream= is expected",
            fds.len()
        );
    }
    let Some(socket) = fds.pop() else {
        return Ok(None);
    };
    let kind = getsockopt(&socket.as_fd(), sockopt::SockType).context("look at the socket of systemd")?;
    let address: SockaddrStorage =
        getsockname(std::os::fd::AsRawFd::as_raw_fd(&socket)).context("look at the socket of systemd")?;
    if kind != SockType::Stream || address.family() != Some(AddressFamily::Unix) {
        bail!("the socket of systemd is not a UNIX stream socket: give it ListenStream= with a path");
    }
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(listener))
        .map(Some)
        .context("listen at the socket of systemd")
}

fn bind(path: &Path, group: Option<Gid>) -> anyhow::Result<UnixListener> {
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
    if let Some(group) = group {
        chown(path, None, Some(group))
            .with_context(|| format!("give {} to the group {group}", path.display()))?;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))
        .with_context(|| format!("set the permissions of {}", path.display()))?;
    Ok(listener)
}

/// The number of a group of /etc/group, or of one that is given by its number. Other sources of groups are not asked: a
/// program without shared libraries, as this one, cannot load what asks them.
pub(crate) fn group(name: &str) -> anyhow::Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let groups = std::fs::read_to_string(GROUPS).with_context(|| format!("read {GROUPS}"))?;
    number_of(name, &groups).with_context(|| {
        format!("--socket-group {name}: there is no such group in {GROUPS}: `groupadd --system {name}` makes it, and one from elsewhere is given by its number")
    })
}

/// From lines `name:password:number:members`, as group(5) has them.
fn number_of(name: &str, groups: &str) -> Option<Gid> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok().map(Gid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nberths:x:7:\nberth:x:998:me,you\nbroken\n";
        assert_eq!(number_of("berth", groups), Some(Gid::from_raw(998)));
        assert_eq!(number_of("root", groups), Some(Gid::from_raw(0)));
        for name in ["", "ber", "broken", "me", "x"] {
            assert_eq!(number_of(name, groups), None, "{name}");
        }
        assert_eq!(group("12").unwrap(), Gid::from_raw(12));
    }
}
