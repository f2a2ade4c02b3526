//! config.json's file system fields as checked values. Reads the disk only to see that the rootfs is a folder, and which
//! paths lead into it.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use libc::{MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount, Spec};

use super::inside;
use super::node::{self, Device};
use super::options::{IdMap, Options, Propagation};
use crate::error::{Error, Result};

/// Files of `/proc` that may be replaced one by one, as lxcfs does; the list is runc's. A mount elsewhere in `/proc`
/// would let an image fake what the runtime and the host read there (CVE-2019-16884).
const PROC_FILES: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "net/dev",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Everything about the container's file system, checked.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) rootfs: PathBuf,
    pub(super) read_only: bool,
    pub(super) propagation: Option<Propagation>,
    pub(super) mounts: Vec<Entry>,
    pub(super) devices: Vec<Device>,
    pub(super) masked_paths: Vec<PathBuf>,
    pub(super) read_only_paths: Vec<PathBuf>,
    pub(super) label: Option<String>,
    /// False when the host's `/dev` is bound: nothing is to be created in that.
    pub(super) set_up_dev: bool,
    /// The container gets a user namespace, by the fields of `linux`.
    pub(super) user_namespace: bool,
    pub(super) shares: Shares,
}

/// The namespaces that the container has in common with others: what procfs and the like show of them may not be
/// mountable, but is there to be bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    /// The host's; a joined one has another procfs.
    pub(super) pid: bool,
    pub(super) network: bool,
    pub(super) ipc: bool,
}

/// One of `mounts`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) index: usize,
    /// Below the rootfs, without a leading slash.
    pub(super) destination: PathBuf,
    pub(super) kind: Kind,
    pub(super) options: Options,
    /// The place in the rootfs of a bind's source that lies there: what the image and earlier mounts have at that.
    pub(super) inner_source: Option<PathBuf>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A folder or file of the host; absolute.
    Bind { source: PathBuf, idmap: Option<Mapping> },
    /// A new instance of a file system.
    New { fs_type: String, source: String },
    /// The container's own groups, of whatever cgroup version there is.
    Cgroup,
    /// New options for what is mounted there already.
    Remount { bind: bool },
}

/// Other owners for the files of a bind: what config.json maps, or the namespace at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    Ids {
        uids: Vec<LinuxIdMapping>,
        gids: Vec<LinuxIdMapping>,
    },
    Namespace(PathBuf),
}

impl Plan {
    /// Checks the fields. Each error names the field's JSON path and the rule; a rootfs that is missing or no folder
    /// is an error that names its path.
    pub(crate) fn from_spec(spec: &Spec, bundle: &Path) -> Result<Self> {
        let root = spec
            .root()
            .as_ref()
            .ok_or_else(|| Error::spec("root", "is required"))?;
        if root.path().as_os_str().is_empty() {
            return Err(Error::spec("root.path", "is required"));
        }
        let bundle = std::path::absolute(bundle).unwrap_or_else(|_| bundle.to_owned());
        let rootfs = bundle.join(root.path());
        let found = match fs::metadata(&rootfs) {
            Ok(found) if found.is_dir() => found,
            Ok(_) => {
                return Err(Error::Refused(format!(
                    "rootfs {} is not a folder",
                    rootfs.display()
                )));
            }
            Err(source) => {
                return Err(Error::Kernel {
                    what: format!("rootfs {}", rootfs.display()),
                    source,
                });
            }
        };
        let root_folder = RootFolder {
            path: &rootfs,
            found,
            real: OnceCell::new(),
        };
        let none = Linux::default();
        let linux = spec.linux().as_ref();
        let listed = |paths: Option<&Vec<String>>, field| named_paths(paths, field);
        let user_namespace = user_namespace(linux);
        let mounts = spec.mounts().iter().flatten().enumerate();
        let mounts: Vec<Entry> = mounts
            .map(|(index, mount)| {
                Entry::from_spec(index, mount, &bundle, &root_folder, linux.unwrap_or(&none))
            })
            .collect::<Result<_>>()?;
        let set_up_dev = !mounts
            .iter()
            .any(|m| m.destination == Path::new("dev") && matches!(m.kind, Kind::Bind { .. }));
        Ok(Self {
            rootfs,
            read_only: root.readonly().unwrap_or(false),
            propagation: linux
                .and_then(|l| l.rootfs_propagation().as_deref())
                .map_or(Ok(None), root_propagation)?,
            mounts,
            devices: node::devices(linux)?,
            masked_paths: listed(linux.and_then(|l| l.masked_paths().as_ref()), "maskedPaths")?,
            read_only_paths: listed(linux.and_then(|l| l.readonly_paths().as_ref()), "readonlyPaths")?,
            label: linux
                .and_then(|l| l.mount_label().clone())
                .filter(|label| !label.is_empty()),
            set_up_dev,
            user_namespace,
            shares: Shares::from_spec(linux),
        })
    }
}

impl Shares {
    fn from_spec(linux: Option<&Linux>) -> Self {
        let namespaces = || {
            linux
                .and_then(|linux| linux.namespaces().as_ref())
                .into_iter()
                .flatten()
        };
        let new = |kind| namespaces().any(|namespace| namespace.typ() == kind && namespace.path().is_none());
        Self {
            pid: !namespaces().any(|namespace| namespace.typ() == LinuxNamespaceType::Pid),
            network: !new(LinuxNamespaceType::Network),
            ipc: !new(LinuxNamespaceType::Ipc),
        }
    }
}

/// The folder of the rootfs on the host, where config.json may name it otherwise than the bundle's path does.
struct RootFolder<'a> {
    path: &'a Path,
    found: Metadata,
    real: OnceCell<Option<PathBuf>>,
}

impl RootFolder<'_> {
    /// A destination without the host's path to the rootfs before it.
    fn destination<'p>(&self, path: &'p Path) -> &'p Path {
        // No rootfs lies where the kernel's file systems go: the usual mounts cost no look at the disk.
        if ["/proc", "/sys", "/dev"].iter().any(|top| path.starts_with(top)) {
            return path;
        }
        let real = || self.real.get_or_init(|| fs::canonicalize(self.path).ok());
        path.strip_prefix(self.path)
            .ok()
            .or_else(|| path.strip_prefix(real().as_ref()?).ok())
            .unwrap_or(path)
    }

    /// Where in the rootfs a source lies, by whatever links it is named. What is below the rootfs belongs to the image,
    /// which may have put a link to a file of the host's there.
    fn source(&self, source: &Path) -> Option<PathBuf> {
        // Then the host's files are the image's, and a mount over one must not hide it from later binds.
        if self.path == Path::new("/") {
            return None;
        }
        let is_root = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|found| (found.dev(), found.ino()) == (self.found.dev(), self.found.ino()))
        };
        let mut above = PathBuf::new();
        let mut parts = source.components();
        while let Some(part) = parts.next() {
            above.push(part);
            let rest = parts.as_path();
            // `rootfs/../volume` is beside it.
            if rest.components().next() != Some(Component::ParentDir) && is_root(&above) {
                return Some(inside::names(rest));
            }
        }
        None
    }
}

impl Entry {
    fn from_spec(
        index: usize,
        mount: &Mount,
        bundle: &Path,
        rootfs: &RootFolder,
        linux: &Linux,
    ) -> Result<Self> {
        let broken = |field: &str, rule: String| Error::spec(format!("mounts[{index}].{field}"), rule);
        // Relative destinations are against the specification, and in use: runc reads them from the root. So are some
        // that name the place on the host.
        let destination = mount.destination();
        let destination = inside::names(rootfs.destination(destination));
        if destination.as_os_str().is_empty() {
            return Err(broken("destination", "must name a place below the root".into()));
        }
        no_nul(mount.destination()).map_err(|rule| broken("destination", rule))?;
        let mut options = Options::parse(mount.options().as_deref().unwrap_or_default())
            .map_err(|rule| broken("options", rule))?;
        let fs_type = mount.typ().as_deref().unwrap_or_default();
        options.bind |= fs_type == "bind";
        let kind = if options.remount {
            Kind::Remount { bind: options.bind }
        } else if options.bind {
            let source = mount
                .source()
                .as_ref()
                .filter(|source| !source.as_os_str().is_empty());
            let source = source.ok_or_else(|| broken("source", "is required for a bind mount".into()))?;
            no_nul(source).map_err(|rule| broken("source", rule))?;
            if let Some(word) = options.data.first() {
                return Err(broken(
                    "options",
                    format!("a bind mount can't take the option {word}"),
                ));
            }
            Kind::Bind {
                source: bundle.join(source),
                idmap: mapping(mount, &mut options, linux, &broken)?,
            }
        } else {
            match fs_type {
                "" => return Err(broken("type", "is required unless the mount is a bind".into())),
                "cgroup" => Kind::Cgroup,
                _ => {
                    no_nul(Path::new(fs_type)).map_err(|rule| broken("type", rule))?;
                    let source = mount.source().clone().unwrap_or_default();
                    let source = source.into_os_string().into_string();
                    let source = source.map_err(|_| broken("source", "must be UTF-8".into()))?;
                    no_nul(Path::new(&source)).map_err(|rule| broken("source", rule))?;
                    if fs_type == "devpts" {
                        drop_unmapped_gid(&mut options, linux);
                    }
                    Kind::New {
                        fs_type: fs_type.into(),
                        source,
                    }
                }
            }
        };
        let mapped =
            options.idmap.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        if mapped && !matches!(kind, Kind::Bind { .. }) {
            return Err(broken("options", "only a bind mount can map ids".into()));
        }
        if options.copy_up && !matches!(&kind, Kind::New { fs_type, .. } if fs_type == "tmpfs") {
            return Err(broken("options", "tmpcopyup is for mounts of type tmpfs".into()));
        }
        if let Ok(below) = destination.strip_prefix("proc") {
            allowed_in_proc(below, &kind).map_err(|rule| broken("destination", rule))?;
        }
        let inner_source = match &kind {
            Kind::Bind { source, .. } => rootfs.source(source),
            _ => None,
        };
        Ok(Self {
            index,
            destination,
            kind,
            options,
            inner_source,
        })
    }
}

/// In `/proc` itself only a procfs, or a bind (which must be of a procfs: seen when it is opened), is mounted.
fn allowed_in_proc(below: &Path, kind: &Kind) -> std::result::Result<(), String> {
    let whole = below.as_os_str().is_empty();
    let allowed = match kind {
        Kind::New { fs_type, .. } if whole => fs_type == "proc",
        Kind::Bind { .. } if whole => true,
        Kind::Bind { .. } => PROC_FILES.iter().any(|file| below == Path::new(file)),
        Kind::Remount { .. } => true,
        // binfmt_misc and the like: a file system of the kernel in a place that the kernel made for it.
        Kind::New { fs_type, .. } => fs_type == "binfmt_misc" && below == Path::new("sys/fs/binfmt_misc"),
        Kind::Cgroup => false,
    };
    if allowed {
        Ok(())
    } else {
        Err("is inside /proc, where only a procfs may be mounted".into())
    }
}

fn mapping(
    mount: &Mount,
    options: &mut Options,
    linux: &Linux,
    broken: &dyn Fn(&str, String) -> Error,
) -> Result<Option<Mapping>> {
    let given = |ids: &Option<Vec<LinuxIdMapping>>| ids.clone().filter(|ids| !ids.is_empty());
    match (given(mount.uid_mappings()), given(mount.gid_mappings())) {
        (Some(uids), Some(gids)) => {
            // Mappings without a word mean idmap, as the specification has it.
            options.idmap.get_or_insert(IdMap::Top);
            Ok(Some(Mapping::Ids { uids, gids }))
        }
        (Some(_), None) => Err(broken("gidMappings", "is required beside uidMappings".into())),
        (None, Some(_)) => Err(broken("uidMappings", "is required beside gidMappings".into())),
        (None, None) if options.idmap.is_none() => Ok(None),
        (None, None) => {
            let path = linux
                .namespaces()
                .iter()
                .flatten()
                .find(|n| n.typ() == LinuxNamespaceType::User);
            if let Some(path) = path.and_then(|namespace| namespace.path().clone()) {
                return Ok(Some(Mapping::Namespace(path)));
            }
            match (given(linux.uid_mappings()), given(linux.gid_mappings())) {
                (Some(uids), Some(gids)) => Ok(Some(Mapping::Ids { uids, gids })),
                _ => Err(broken(
                    "options",
                    "idmap needs uidMappings and gidMappings, of the mount or of the container".into(),
                )),
            }
        }
    }
}

fn user_namespace(linux: Option<&Linux>) -> bool {
    linux.is_some_and(|linux| {
        linux
            .namespaces()
            .iter()
            .flatten()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::User)
    })
}

/// The usual `gid=5` of devpts names the group tty; in a user namespace that has no such group the kernel would
/// refuse the whole mount. Without it, terminals belong to the group of who opens them.
fn drop_unmapped_gid(options: &mut Options, linux: &Linux) {
    let Some(mappings) = linux
        .gid_mappings()
        .as_ref()
        .filter(|_| user_namespace(Some(linux)))
    else {
        return;
    };
    let mapped = |gid: u32| {
        mappings
            .iter()
            .any(|m| gid >= m.container_id() && gid - m.container_id() < m.size())
    };
    options.data.retain(|parameter| {
        parameter.key != "gid"
            || parameter
                .value
                .as_ref()
                .and_then(|gid| gid.parse().ok())
                .is_none_or(mapped)
    });
}

fn root_propagation(word: &str) -> Result<Option<Propagation>> {
    let (kind, recursive) = match word {
        "" => return Ok(None),
        "shared" => (MS_SHARED, false),
        "rshared" => (MS_SHARED, true),
        "slave" => (MS_SLAVE, false),
        "rslave" => (MS_SLAVE, true),
        "private" => (MS_PRIVATE, false),
        "rprivate" => (MS_PRIVATE, true),
        "unbindable" => (MS_UNBINDABLE, false),
        "runbindable" => (MS_UNBINDABLE, true),
        _ => {
            let rule =
                format!("is {word:?}, not one of shared, slave, private, unbindable or these with an r");
            return Err(Error::spec("linux.rootfsPropagation", rule));
        }
    };
    Ok(Some(Propagation { kind, recursive }))
}

fn named_paths(paths: Option<&Vec<String>>, field: &str) -> Result<Vec<PathBuf>> {
    let paths = paths.into_iter().flatten().enumerate();
    // One that is named twice gets one mount.
    let mut seen = HashSet::new();
    paths
        .filter(|(_, path)| seen.insert(path.as_str()))
        .map(|(index, path)| {
            let broken = |rule: &str| Error::spec(format!("linux.{field}[{index}]"), rule);
            let below = inside::names(Path::new(path));
            if path.contains('\0') {
                return Err(broken("contains a NUL byte"));
            }
            if !path.starts_with('/') || below.as_os_str().is_empty() {
                return Err(broken("must be an absolute path below the root"));
            }
            Ok(below)
        })
        .collect()
}

pub(super) fn no_nul(path: &Path) -> std::result::Result<(), String> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        Err("contains a NUL byte".into())
    } else {
        Ok(())
    }
}
