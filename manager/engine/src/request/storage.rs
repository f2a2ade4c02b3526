//! What a container sees beside its image: directories of the host, volumes, file systems in memory, other images.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::rules::{check_absolute, check_labels, check_strings};
use crate::{Error, names};

/// As many mounts may one container have, the image's among them.
pub(crate) const MOUNTS_MAX: usize = 1000;
const OPTIONS_MAX: usize = 100;
const DRIVER_BYTES_MAX: usize = 128;
/// The driver that is no plugin.
pub(crate) const LOCAL: &str = "local";

/// The mounts of a container, as they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Beside the `binds` of the request.
    pub mounts: Vec<Mount>,
    /// Containers whose mounts this one gets too: `container`, `container:ro`.
    pub volumes_from: Vec<String>,
    /// Of volumes that name none; empty: `local`.
    pub volume_driver: String,
}

/// One place in a container where something else than its image is seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// The container cannot write there.
    pub read_only: bool,
    /// What is seen there.
    pub source: Source,
}

/// What is seen at the place of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A directory or file of the host.
    Bind(BindSource),
    /// A volume.
    Volume(VolumeSource),
    /// An empty file system in memory.
    Tmpfs(TmpfsSource),
    /// The files of an image.
    Image(ImageSource),
}

/// A directory or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindSource {
    /// Absolute path.
    pub path: String,
    /// Empty: `rprivate`.
    pub propagation: String,
    /// What becomes of the mounts below it.
    pub recursion: Recursion,
    /// A directory is made if there is nothing; else that is an error.
    pub create: bool,
}

/// What becomes of the mounts below the source of a bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recursion {
    /// They are seen; read-only with it where the kernel can.
    #[default]
    Enabled,
    /// They are not seen.
    Disabled,
    /// They are seen, and a read-only mount leaves them as they are.
    Writable,
    /// They are seen, and all read-only.
    ReadOnly,
}

/// A volume, and how a container sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeSource {
    /// Empty in a request: an anonymous volume.
    pub name: String,
    /// Empty: that of the request, or `local`.
    pub driver: String,
    /// Of a volume that is made.
    pub labels: BTreeMap<String, String>,
    /// Of a volume that is made.
    pub options: BTreeMap<String, String>,
    /// An empty volume stays empty.
    pub no_copy: bool,
    /// A folder or file in the volume; empty: all of it.
    pub subpath: String,
    /// It was made up for this container, and may go with it.
    pub anonymous: bool,
}

/// An empty file system in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsSource {
    /// 0: the kernel's default, half of the memory.
    pub size_bytes: i64,
    /// 0: the kernel's default, 1777.
    pub mode: u32,
    /// Of mount(8).
    pub options: Vec<String>,
}

/// The files of an image, which nobody can write to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSource {
    /// As it was asked for.
    pub image: String,
    /// Which one that was when the container was made; empty in a request.
    pub id: String,
    /// A folder or file in it; empty: all of it.
    pub subpath: String,
}

impl Mount {
    /// The image that is seen there.
    pub(crate) fn image(&self) -> Option<&ImageSource> {
        match &self.source {
            Source::Image(image) => Some(image),
            _ => None,
        }
    }

    /// The volume that is seen there.
    pub fn volume(&self) -> Option<&VolumeSource> {
        match &self.source {
            Source::Volume(volume) => Some(volume),
            _ => None,
        }
    }

    pub(crate) fn volume_mut(&mut self) -> Option<&mut VolumeSource> {
        match &mut self.source {
            Source::Volume(volume) => Some(volume),
            _ => None,
        }
    }

    /// The names of the path, without what changes nothing.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.target
            .split('/')
            .filter(|name| !name.is_empty() && *name != ".")
    }

    /// Whether two mounts are for the same place.
    pub(crate) fn has_target_of(&self, other: &Mount) -> bool {
        self.names().eq(other.names())
    }
}

impl Storage {
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_driver("storage.volume_driver", &self.volume_driver)?;
        check_mounts(&self.mounts)?;
        if self.volumes_from.len() > MOUNTS_MAX {
            return Err(Error::invalid(
                "storage.volumes_from",
                format!("more than {MOUNTS_MAX}"),
            ));
        }
        for from in &self.volumes_from {
            parse_volumes_from(from)?;
        }
        Ok(())
    }
}

/// Check mounts by themselves and together.
pub(crate) fn check_mounts(mounts: &[Mount]) -> Result<(), Error> {
    if mounts.len() > MOUNTS_MAX {
        return Err(Error::invalid("mounts", format!("more than {MOUNTS_MAX}")));
    }
    for (index, mount) in mounts.iter().enumerate() {
        mount.check()?;
        if mounts[..index].iter().any(|earlier| earlier.has_target_of(mount)) {
            return Err(Error::invalid(
                "mounts.target",
                format!("duplicate mount point: {}", mount.target),
            ));
        }
    }
    Ok(())
}

impl Mount {
    fn check(&self) -> Result<(), Error> {
        check_absolute("mounts.target", &self.target)?;
        if self.names().next().is_none() {
            return Err(Error::invalid(
                "mounts.target",
                "must not be the root directory of the container",
            ));
        }
        match &self.source {
            Source::Bind(bind) => bind.check(self.read_only),
            Source::Volume(volume) => volume.check(),
            Source::Tmpfs(tmpfs) => tmpfs.check(),
            Source::Image(image) => image.check(),
        }
    }
}

impl BindSource {
    fn check(&self, read_only: bool) -> Result<(), Error> {
        check_absolute("mounts.bind.source", &self.path)?;
        let known = ["", "private", "rprivate", "shared", "rshared", "slave", "rslave"];
        if !known.contains(&self.propagation.as_str()) {
            return Err(Error::invalid(
                "mounts.bind.propagation",
                format!(
                    "{:?} is not known: it is one of {}",
                    self.propagation,
                    known[1..].join(", ")
                ),
            ));
        }
        if self.recursion == Recursion::ReadOnly && !read_only {
            return Err(Error::invalid(
                "mounts.bind.recursion",
                "read-only below is for a mount that is read-only itself",
            ));
        }
        if self.recursion == Recursion::ReadOnly && !matches!(self.propagation.as_str(), "" | "rprivate") {
            return Err(Error::invalid(
                "mounts.bind.recursion",
                "read-only below needs the propagation rprivate: what the host mounts there later could be written to",
            ));
        }
        Ok(())
    }
}

impl VolumeSource {
    fn check(&self) -> Result<(), Error> {
        if !self.name.is_empty() {
            check_volume_name("mounts.volume.name", &self.name)?;
        }
        check_driver("mounts.volume.driver", &self.driver)?;
        check_labels("labels", &self.labels)?;
        check_volume_options(&self.driver, &self.options)?;
        check_subpath("mounts.volume.subpath", &self.subpath)
    }
}

impl ImageSource {
    fn check(&self) -> Result<(), Error> {
        if self.image.is_empty() {
            return Err(Error::invalid("mounts.image.source", "must not be empty"));
        }
        check_subpath("mounts.image.subpath", &self.subpath)
    }
}

impl TmpfsSource {
    fn check(&self) -> Result<(), Error> {
        if self.size_bytes < 0 {
            return Err(Error::invalid("mounts.tmpfs.size_bytes", "must not be negative"));
        }
        if self.mode > 0o7777 {
            return Err(Error::invalid(
                "mounts.tmpfs.mode",
                format!("{:o} is more than 7777", self.mode),
            ));
        }
        if self.options.len() > OPTIONS_MAX {
            return Err(Error::invalid(
                "mounts.tmpfs.options",
                format!("more than {OPTIONS_MAX}"),
            ));
        }
        check_strings("mounts.tmpfs.options", &self.options)?;
        self.options
            .iter()
            .try_for_each(|option| check_tmpfs_option(option))
    }
}

/// Docker's list: what mount(8) knows of every file system and of tmpfs.
fn check_tmpfs_option(option: &str) -> Result<(), Error> {
    const FLAGS: [&str; 32] = [
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "bind",
        "rbind",
        "unbindable",
        "runbindable",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    const VALUES: [&str; 6] = ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "size"];
    /// Not of a new file system.
    const REFUSED: [&str; 5] = ["remount", "bind", "rbind", "unbindable", "runbindable"];
    let is_known = match option.split_once('=') {
        Some((key, value)) => VALUES.contains(&key) && !value.is_empty(),
        None => FLAGS.contains(&option) && !REFUSED.contains(&option),
    };
    if is_known {
        return Ok(());
    }
    Err(Error::invalid(
        "mounts.tmpfs.options",
        format!("invalid tmpfs option {option:?}"),
    ))
}

pub(crate) fn check_driver(field: &'static str, driver: &str) -> Result<(), Error> {
    // Whether there is such a plugin is found out when it is asked.
    if driver.len() <= DRIVER_BYTES_MAX && !driver.contains(|c: char| c.is_control() || c == '/') {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("{driver:?} is not the name of a plugin that listens on a socket"),
    ))
}

/// Docker's rule for names of volumes is that for names of containers.
pub(crate) fn check_volume_name(field: &'static str, name: &str) -> Result<(), Error> {
    names::check(name).map_err(|error| match error {
        Error::Invalid { rule, .. } => Error::Invalid { field, rule },
        other => other,
    })
}

/// Bounds; what they mean, a plugin tells itself.
pub(crate) fn check_volume_options(driver: &str, options: &BTreeMap<String, String>) -> Result<(), Error> {
    if options.len() > OPTIONS_MAX {
        return Err(Error::invalid(
            "volume.options",
            format!("more than {OPTIONS_MAX}"),
        ));
    }
    for (key, value) in options {
        check_strings("volume.options", &[key.clone(), value.clone()])?;
    }
    if driver == LOCAL {
        crate::volumes::LocalOptions::parse(options)?;
    }
    Ok(())
}

fn check_subpath(field: &'static str, subpath: &str) -> Result<(), Error> {
    check_strings(field, &[subpath.to_owned()])?;
    let is_inside = Path::new(subpath)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if is_inside && subpath.len() < 4096 {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("{subpath:?} must be a relative path within what is mounted"),
    ))
}

/// The container of a `volumes_from`, and whether its mounts are to be read-only here.
pub(crate) fn parse_volumes_from(from: &str) -> Result<(&str, bool), Error> {
    let (container, mode) = from.split_once(':').unwrap_or((from, ""));
    let read_only = match mode {
        "" | "rw" | "z" | "Z" => Some(false),
        "ro" => Some(true),
        _ => None,
    };
    match read_only {
        Some(read_only) if !container.is_empty() => Ok((container, read_only)),
        _ => Err(Error::invalid(
            "storage.volumes_from",
            format!("{from:?} must be CONTAINER, CONTAINER:ro or CONTAINER:rw"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(target: &str, source: Source) -> Mount {
        Mount {
            target: target.to_owned(),
            read_only: false,
            source,
        }
    }

    fn volume(edit: impl FnOnce(&mut VolumeSource)) -> Source {
        let mut volume = VolumeSource::default();
        edit(&mut volume);
        Source::Volume(volume)
    }

    fn bind(edit: impl FnOnce(&mut BindSource)) -> Source {
        let mut bind = BindSource {
            path: "/a".to_owned(),
            ..BindSource::default()
        };
        edit(&mut bind);
        Source::Bind(bind)
    }

    fn tmpfs(option: &str) -> Source {
        Source::Tmpfs(TmpfsSource {
            options: vec![option.to_owned()],
            ..TmpfsSource::default()
        })
    }

    #[test]
    fn what_is_no_mount_is_refused_by_field() {
        let plain = || volume(|_| {});
        let cases = [
            (vec![at("data", plain())], "absolute"),
            (vec![at("/.//", plain())], "root directory"),
            (vec![at("/a", plain()), at("/a/.", tmpfs("ro"))], "duplicate"),
            (vec![at("/a", volume(|v| v.name = "x".into()))], "volume.name"),
            (vec![at("/a", volume(|v| v.driver = "a/b".into()))], "\"a/b\""),
            (vec![at("/a", volume(|v| v.subpath = "../b".into()))], "subpath"),
            (vec![at("/a", volume(|v| v.subpath = "/b".into()))], "subpath"),
            (vec![at("/a", bind(|b| b.path = "b".into()))], "bind.source"),
            (
                vec![at("/a", bind(|b| b.propagation = "public".into()))],
                "public",
            ),
            (
                vec![at("/a", bind(|b| b.recursion = Recursion::ReadOnly))],
                "read-only itself",
            ),
            (
                vec![at("/a", Source::Image(ImageSource::default()))],
                "image.source",
            ),
            (vec![at("/a", tmpfs("fast"))], "\"fast\""),
            (vec![at("/a", tmpfs("remount"))], "\"remount\""),
            (vec![at("/a", tmpfs("size="))], "\"size=\""),
        ];
        for (mounts, word) in cases {
            let refused = check_mounts(&mounts).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
        check_mounts(&[
            at("/a", plain()),
            at("/b", bind(|_| {})),
            at("/c", tmpfs("size=1m")),
        ])
        .unwrap();
    }

    #[test]
    fn volumes_come_from_a_container_as_they_are_or_read_only() {
        assert_eq!(parse_volumes_from("one").unwrap(), ("one", false));
        assert_eq!(parse_volumes_from("one:ro").unwrap(), ("one", true));
        for bad in ["", ":ro", "one:nocopy", "one:ro:rw"] {
            assert!(parse_volumes_from(bad).is_err(), "{bad}");
        }
    }
}
