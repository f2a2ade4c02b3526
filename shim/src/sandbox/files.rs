//! The files that a pod's containers share: /etc/hostname, /etc/hosts, /etc/resolv.conf and /dev/shm.
//!
//! With its own sandboxer containerd makes them and names them in each container's configuration. With `shim` it
//! leaves both to the shim, or a pod would have no name server, and no POSIX shared memory between its containers.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use super::pod::{Dns, Pod};
use crate::bundle::{self, CONFIG_FILE};
use crate::status::Status;
use crate::sys;

const SHM: &str = "shm";
const SHM_DESTINATION: &str = "/dev/shm";
const ETC: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// Makes them in the sandbox's bundle.
pub(super) fn make(folder: &Path, pod: &Pod) -> Result<(), Status> {
    let node = |path: &str| match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| Status::unknown(format!("read {path}: {error}"))),
    };
    let hostname = if pod.hostname.is_empty() {
        node("/proc/sys/kernel/hostname")?
    } else {
        format!("{}\n", pod.hostname).into_bytes()
    };
    let resolver = match &pod.dns {
        Some(dns) => resolv_conf(dns).into_bytes(),
        None => node("/etc/resolv.conf")?,
    };
    for (name, contents) in ETC.into_iter().zip([hostname, node("/etc/hosts")?, resolver]) {
        let path = folder.join(name);
        // Containers read them as any user, whatever the umask is.
        fs::write(&path, contents)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .map_err(|error| Status::unknown(format!("write {}: {error}", path.display())))?;
    }
    if !pod.node_ipc {
        make_shm(&folder.join(SHM))
            .map_err(|error| Status::unknown(format!("mount the pod's {SHM_DESTINATION}: {error}")))?;
    }
    Ok(())
}

fn make_shm(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // The size that containerd and docker give it.
    sys::mount("shm", path, "tmpfs", flags, "mode=1777,size=65536k")
}

/// The mount would keep the bundle from being removed.
pub(crate) fn unmount(folder: &Path) -> io::Result<()> {
    sys::unmount_all(&folder.join(SHM))
}

fn resolv_conf(dns: &Dns) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut line = |keyword: &str, values: &str| {
        if !values.is_empty() {
            let _ = writeln!(text, "{keyword} {values}");
        }
    };
    line("search", &dns.searches.join(" "));
    for server in &dns.servers {
        line("nameserver", server);
    }
    line("options", &dns.options.join(" "));
    text
}

/// Puts them into a container's configuration, where it has nothing of its own at their places.
pub(super) fn add_to(container: &Path, sandbox: &Path) -> Result<(), Status> {
    let mut config: Value = bundle::read_config(container).map_err(Status::unknown)?;
    if !add_mounts(&mut config, sandbox) {
        return Ok(());
    }
    bundle::write_file(container, CONFIG_FILE, config.to_string().as_bytes()).map_err(|error| {
        let path = container.join(CONFIG_FILE);
        Status::unknown(format!("write {}: {error}", path.display()))
    })
}

/// False when there was nothing to do.
fn add_mounts(config: &mut Value, sandbox: &Path) -> bool {
    let writable = !config["root"]["readonly"].as_bool().unwrap_or(false);
    let Some(mounts) = config["mounts"].as_array_mut() else {
        return false;
    };
    let mut changed = false;
    let shm = sandbox.join(SHM);
    if let Some(mount) = mounts
        .iter_mut()
        .find(|mount| mount["destination"] == SHM_DESTINATION)
        && mount["type"] == "tmpfs"
        && shm.is_dir()
    {
        *mount = bind(&shm, SHM_DESTINATION, true);
        changed = true;
    }
    for name in ETC {
        let destination = format!("/etc/{name}");
        if !mounts.iter().any(|mount| mount["destination"] == destination) {
            mounts.push(bind(&sandbox.join(name), &destination, writable));
            changed = true;
        }
    }
    changed
}

fn bind(source: &Path, destination: &str, writable: bool) -> Value {
    let access = if writable { "rw" } else { "ro" };
    json!({
        "destination": destination, "type": "bind", "source": source,
        "options": ["rbind", "rprivate", access],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_written_as_resolv_conf_5_says() {
        let dns = Dns {
            servers: vec!["10.0.0.2".into(), "10.0.0.3".into()],
            searches: vec!["a.example".into(), "example".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(&dns),
            "search a.example example\nnameserver 10.0.0.2\nnameserver 10.0.0.3\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(&Dns::default()), "");
    }

    #[test]
    fn a_containers_own_mounts_win() {
        let sandbox = tempfile::tempdir().unwrap();
        fs::create_dir(sandbox.path().join(SHM)).unwrap();
        let volume = json!({"destination": "/etc/hosts", "type": "bind", "source": "/kubelet/hosts"});
        let mut config = json!({
            "root": {"readonly": true},
            "mounts": [{"destination": "/dev/shm", "type": "tmpfs", "source": "shm"}, volume],
        });
        assert!(add_mounts(&mut config, sandbox.path()));
        let mounts = config["mounts"].as_array().unwrap().clone();
        let destinations: Vec<_> = mounts.iter().map(|mount| mount["destination"].as_str()).collect();
        assert_eq!(
            destinations,
            ["/dev/shm", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].map(Some)
        );
        assert_eq!(mounts[0]["type"], "bind");
        assert_eq!(mounts[0]["options"][2], "rw");
        assert_eq!(mounts[1], volume);
        assert_eq!(mounts[2]["options"][2], "ro");
        assert!(!add_mounts(&mut config, sandbox.path()), "once is enough");
    }
}
