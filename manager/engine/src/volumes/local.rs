//! Options of the local driver: what is mounted where the volume's data is, as docker's `-o type=… -o device=… -o o=…`.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Error;

/// As many mounts may lie on one place before it is an error.
const STACKED_MOUNTS_MAX: usize = 16;

/// What is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalOptions {
    kind: String,
    device: String,
    flags: MsFlags,
    /// For the file system.
    data: Vec<String>,
}

impl LocalOptions {
    /// Read the options of a volume. None: nothing is mounted.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Option<LocalOptions>, Error> {
        let wrong = |rule: String| Error::invalid("volume.options", rule);
        if options.is_empty() {
            return Ok(None);
        }
        for key in options.keys() {
            match key.as_str() {
                "type" | "device" | "o" => {}
                "size" => return Err(wrong("size: this version sets no quotas".into())),
                other => return Err(wrong(format!("invalid option: {other:?}"))),
            }
        }
        let required = |key: &str| {
            let value = options.get(key).filter(|value| !value.is_empty());
            value
                .cloned()
                .ok_or_else(|| wrong(format!("missing required option: {key:?}")))
        };
        let (flags, data) = split(options.get("o").map_or("", String::as_str));
        Ok(Some(LocalOptions {
            kind: required("type")?,
            device: required("device")?,
            flags,
            data,
        }))
    }

    /// Mount it at `target`.
    pub(crate) fn mount(&self, target: &Path) -> Result<(), Error> {
        let data = self
            .resolved_data()
            .map_err(Error::file("find the server of", target))?;
        let kind = (self.kind != "none").then_some(self.kind.as_str());
        let made = mount(
            Some(self.device.as_str()),
            target,
            kind,
            self.flags,
            Some(data.as_str()),
        );
        let described = |error: Errno| Error::VolumeMount {
            kind: self.kind.clone(),
            device: self.device.clone(),
            target: target.to_owned(),
            source: error.into(),
        };
        made.map_err(described)?;
        // A bind takes no other flags at first.
        let more = self.flags - MsFlags::MS_BIND - MsFlags::MS_REC;
        if self.flags.contains(MsFlags::MS_BIND) && !more.is_empty() {
            let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | more;
            let changed = mount(None::<&str>, target, None::<&str>, again, None::<&str>);
            if let Err(error) = changed {
                unmount(target)?;
                return Err(described(error));
            }
        }
        Ok(())
    }

    /// The kernel takes the address of an NFS server, and no name.
    fn resolved_data(&self) -> std::io::Result<String> {
        let mut data = self.data.clone();
        if self.kind.starts_with("nfs") {
            for option in &mut data {
                if let Some(host) = option.strip_prefix("addr=") {
                    let found = (host, 0).to_socket_addrs()?.next();
                    if let Some(address) = found {
                        *option = format!("addr={}", address.ip());
                    }
                }
            }
        }
        Ok(data.join(","))
    }
}

/// Take away what is mounted at `target`, if anything is. Who uses it keeps it.
pub(crate) fn unmount(target: &Path) -> Result<(), Error> {
    for _ in 0..STACKED_MOUNTS_MAX {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there, or there is nothing.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(Error::file("unmount", target)(error.into())),
        }
    }
    Ok(())
}

/// The words of mount(8) that are flags of mount(2), and the rest.
fn split(words: &str) -> (MsFlags, Vec<String>) {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match flag(word) {
            Some((flag, true)) => flags |= flag,
            Some((flag, false)) => flags -= flag,
            None => data.push(word.to_owned()),
        }
    }
    (flags, data)
}

/// A flag, and whether the word sets it.
fn flag(word: &str) -> Option<(MsFlags, bool)> {
    Some(match word {
        "defaults" => (MsFlags::empty(), true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Option<LocalOptions>, Error> {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        LocalOptions::parse(&options.collect())
    }

    #[test]
    fn words_of_mount_are_flags_or_go_to_the_file_system() {
        let options = [
            ("type", "tmpfs"),
            ("device", "tmpfs"),
            ("o", "size=1m,noexec,uid=1,rw"),
        ];
        let parsed = parse(&options).unwrap().unwrap();
        assert_eq!(parsed.flags, MsFlags::MS_NOEXEC);
        assert_eq!(parsed.data, ["size=1m", "uid=1"]);
        assert_eq!(parse(&[]).unwrap(), None);
    }

    #[test]
    fn options_that_mean_nothing_are_refused_by_name() {
        for (options, word) in [
            (&[("tpye", "nfs")][..], "tpye"),
            (&[("type", "nfs")], "device"),
            (&[("device", "/a")], "type"),
            (
                &[("type", "tmpfs"), ("device", "tmpfs"), ("size", "1g")],
                "quotas",
            ),
        ] {
            let refused = parse(options).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn the_server_of_nfs_is_given_by_address() {
        let nfs = [
            ("type", "nfs"),
            ("device", ":/a"),
            ("o", "addr=127.0.0.1,nfsvers=4"),
        ];
        let parsed = parse(&nfs).unwrap().unwrap();
        assert_eq!(parsed.resolved_data().unwrap(), "addr=127.0.0.1,nfsvers=4");
    }
}
