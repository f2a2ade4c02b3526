//! Options of the local driver: what is mounted where the volume's data is, as docker's `-o type=… -o device=… -o o=…`.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
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
        let data = self.data.join(",");
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

    /// Whether its files are nobody's but containers': it goes with its last user, and was made for the first.
    pub(crate) fn is_memory(&self) -> bool {
        self.kind == "tmpfs"
    }

    /// Has a name server to be asked before this can be mounted?
    pub(crate) fn names_a_server(&self) -> bool {
        self.servers().any(|(_, host)| host.parse::<IpAddr>().is_err())
    }

    /// Put the address of an NFS server in the place of its name: the kernel takes no names.
    pub(crate) fn find_server(&mut self) -> Result<(), Error> {
        let named: Vec<_> = self
            .servers()
            .map(|(index, host)| (index, host.to_owned()))
            .collect();
        for (index, host) in named {
            let found = (host.as_str(), 0)
                .to_socket_addrs()
                .map_err(Error::file("find the address of the server", Path::new(&host)))?
                .next();
            if let Some(address) = found {
                self.data[index] = format!("addr={}", address.ip());
            }
        }
        Ok(())
    }

    /// The words that tell the server, by their places.
    fn servers(&self) -> impl Iterator<Item = (usize, &str)> {
        let words = self
            .data
            .iter()
            .enumerate()
            .filter(|_| self.kind.starts_with("nfs"));
        words.filter_map(|(index, word)| Some((index, word.strip_prefix("addr=")?)))
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
        for (kind, server, named, found) in [
            ("nfs", "localhost", true, "addr=127.0.0.1"),
            ("nfs4", "192.0.2.1", false, "addr=192.0.2.1"),
            ("cifs", "localhost", false, "addr=localhost"),
        ] {
            let words = format!("nfsvers=4,addr={server}");
            let mut parsed = parse(&[("type", kind), ("device", ":/a"), ("o", &words)])
                .unwrap()
                .unwrap();
            assert_eq!(parsed.names_a_server(), named, "{server}");
            parsed.find_server().unwrap();
            assert_eq!(parsed.data, ["nfsvers=4", found]);
        }
    }
}
