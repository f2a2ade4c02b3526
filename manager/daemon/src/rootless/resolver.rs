//! Whom programs in a user's namespaces ask for names: slirp4netns, by a file that is mounted on /etc/resolv.conf. Hosts
//! replace that file by another (DHCP clients, systemd-resolved), and the kernel then takes the mount away with what it
//! was on: it is made again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::network_socket;

pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The file of the namespaces whose record is in `runtime`.
pub(super) fn own(runtime: &Path) -> PathBuf {
    runtime.join("resolv.conf")
}

/// Keep it mounted, in a thread, as long as this process lives; nothing to do for root's manager.
pub(crate) fn keep_name_server() {
    let Some(own) = network_socket().and_then(|socket| Some(own(socket.parent()?))) else {
        return;
    };
    let kept = std::thread::Builder::new()
        .name("resolv.conf".to_owned())
        .spawn(move || {
            if let Err(error) = keep(&own) {
                tracing::warn!(%error, "names are not found when the host replaces {RESOLV_CONF}");
            }
        });
    if let Err(error) = kept {
        tracing::warn!(%error, "names are not found when the host replaces {RESOLV_CONF}");
    }
}

fn keep(own: &Path) -> anyhow::Result<()> {
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM;
    loop {
        // Anew each time: it may have become a link to a file in another folder.
        let changes = Inotify::init(InitFlags::IN_CLOEXEC).context("watch files")?;
        for folder in folders() {
            // One that is not there is made by somebody, in a folder that is watched.
            let _ = changes.add_watch(&folder, events);
        }
        mount_on(own)?;
        changes.read_events().context("wait for changes")?;
    }
}

/// Those of the file and of what it leads to.
fn folders() -> Vec<PathBuf> {
    let file = Path::new(RESOLV_CONF);
    let target = std::fs::read_link(file).ok().and_then(|link| {
        let link = file.parent()?.join(link);
        link.parent().map(Path::to_owned)
    });
    file.parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(target)
        .collect()
}

/// Unless it is there, or there is nothing to mount it on.
fn mount_on(own: &Path) -> anyhow::Result<()> {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok()
    };
    let (there, wanted) = (identity(Path::new(RESOLV_CONF)), identity(own));
    if there.is_none() || there == wanted {
        return Ok(());
    }
    let none = None::<&str>;
    mount(Some(own), RESOLV_CONF, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("mount {} on {RESOLV_CONF}", own.display()))?;
    tracing::info!("the host has replaced {RESOLV_CONF}: names are asked of slirp4netns again");
    Ok(())
}
