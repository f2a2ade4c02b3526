//! Puts the mounts of config.json in place, in their order.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libc::MOUNT_ATTR_RDONLY;
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, fstat};

use super::change::{self, Change, flags_of, proc_path};
use super::filesystem::FileSystem;
use super::inside;
use super::options::{Options, Parameter};
use super::places::{Piece, Places, check_target, is_folder, is_procfs, not_in_proc};
use super::plan::{Entry, Kind};
use super::{cgroup, copy_up};
use crate::error::{Context as _, Error, Result};
use crate::sys::fd::close_later;
use crate::sys::mount::{self, At};

impl Places<'_> {
    pub(super) fn mount(&mut self, entry: &Entry) -> Result<()> {
        let mounted = match &entry.kind {
            Kind::Bind { source, idmap } => self.bind(entry, source, idmap.is_some()),
            Kind::New { fs_type, source } => self.new_file_system(entry, fs_type, source),
            Kind::Cgroup => cgroup::mount(self, entry),
            Kind::Remount { bind } => self.remount(entry, *bind),
        };
        mounted.map_err(|error| match error {
            Error::Kernel { what, source } => Error::Kernel {
                what: format!("mounts[{}]: {what}", entry.index),
                source,
            },
            other => other,
        })
    }

    fn bind(&mut self, entry: &Entry, source: &Path, mapped: bool) -> Result<()> {
        let what = || {
            format!(
                "bind {} at {}",
                source.display(),
                inside::absolute(&entry.destination).display()
            )
        };
        let changes = Change::of_bind(&entry.options, self.context.user_namespace);
        let apply = |tree: &OwnedFd| {
            let done = change::detached(tree.as_fd(), &changes);
            let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EPERM);
            let hint = if self.context.user_namespace && done.as_ref().is_err_and(refused) {
                " (no user namespace can clear what the host has set for the source, such as ro or nosuid)"
            } else {
                ""
            };
            done.context(|| format!("{}{hint}", what()))
        };
        let mut opened = None;
        let (tree, done) = if let Some(tree) = self.context.sources.get(entry.index) {
            (tree, apply(tree)?)
        } else {
            // In a user namespace the error tells whether the source or the changes are refused.
            let apart = mapped || self.context.user_namespace;
            let at_once = if apart { &[][..] } else { &changes };
            let found = match self.open_source(entry, source, at_once) {
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && !mapped => {
                    return self.bind_by_path(entry, source, &changes).context(what);
                }
                Err(error) => self.source_of_parent(entry, error, &what)?,
                Ok(found) => found,
            };
            let (tree, done) = (&*opened.insert(found.0), found.1);
            if let Some(parent) = self.context.parent.filter(|_| mapped) {
                parent.map_owners(entry.index, tree)?;
            }
            (tree, if apart { apply(tree)? } else { done })
        };
        let is_folder = is_folder(tree.as_fd()).context(what)?;
        if entry.destination == Path::new("proc") && !is_procfs(tree.as_fd()).context(what)? {
            return Err(not_in_proc(entry));
        }
        self.put(
            entry,
            &Piece {
                mount: tree,
                is_folder,
                strict: false,
            },
        )?;
        if !done {
            change::attached(tree.as_fd(), &changes).context(what)?;
        }
        if let Some(tree) = opened {
            close_later(tree);
        }
        Ok(())
    }

    /// Opens a source. In our namespace what the host has set for the mount is locked.
    fn open_source(&self, entry: &Entry, source: &Path, changes: &[Change]) -> io::Result<(OwnedFd, bool)> {
        let inner = entry.open_inner_source(self.root)?;
        let of_host = At {
            folder: AT_FDCWD,
            path: source,
        };
        let at = inner.as_ref().map_or(of_host, |inner| At::fd(inner.as_fd()));
        let opened = change::copy(at, entry.options.bind_recursive, changes);
        if let Some(inner) = inner {
            close_later(inner);
        }
        opened
    }

    /// The source from the parent, where a user namespace is the reason for the error.
    fn source_of_parent(
        &self,
        entry: &Entry,
        error: io::Error,
        what: &dyn Fn() -> String,
    ) -> Result<(OwnedFd, bool)> {
        let refused = match error.raw_os_error() {
            Some(libc::EACCES) => true,
            // Mounts below it that are locked.
            Some(libc::EINVAL) => !entry.options.bind_recursive,
            _ => false,
        };
        let Some(parent) = self
            .context
            .parent
            .filter(|_| refused && self.context.user_namespace)
        else {
            return Err(error).context(what);
        };
        let root = if entry.inner_source.is_some() {
            self.root.try_clone_to_owned()
        } else {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            open("/", flags, Mode::empty()).map_err(io::Error::from)
        };
        Ok((parent.open_source(entry.index, root.context(what)?)?, true))
    }

    pub(super) fn new_file_system(&mut self, entry: &Entry, fs_type: &str, source: &str) -> Result<()> {
        let options = &entry.options;
        let tmpfs = fs_type == "tmpfs";
        let later = tmpfs && options.read_only();
        let attributes = options.attributes.set | options.recursive.set;
        let mut data = options.data.clone();
        if tmpfs && !options.copy_up && data.iter().all(|parameter| parameter.key != "mode") {
            data.extend(self.mode_below(&entry.destination));
        }
        let file_system = FileSystem {
            fs_type,
            source,
            attributes: if later {
                attributes & !MOUNT_ATTR_RDONLY
            } else {
                attributes
            },
            read_only: options.read_only() && !tmpfs && !fs_type.starts_with("cgroup"),
            superblock: &options.superblock,
            data: &data,
            label: self.label.filter(|_| takes_label(fs_type)),
        };
        if !later && self.mount_at_once(entry, &file_system)? {
            return Ok(());
        }
        let mount = self.put_new(entry, &file_system)?;
        if later {
            let again = mount
                .try_clone()
                .context(|| file_system.what(&inside::absolute(&entry.destination)))?;
            self.read_only_later.push(again);
        }
        if tmpfs && !options.copy_up {
            self.fresh.push((entry.destination.clone(), mount));
        } else {
            close_later(mount);
        }
        Ok(())
    }

    /// A tmpfs over a folder that is there has its mode, as with runc, and not the kernel's, which lets everybody write.
    fn mode_below(&self, path: &Path) -> Option<Parameter> {
        let below = inside::locate(self.root, path).ok()?;
        let mode = fstat(&below.fd).ok()?.st_mode & 0o7777;
        close_later(below.fd);
        Some(Parameter {
            key: "mode".into(),
            value: Some(format!("{mode:o}")),
        })
    }

    /// A file system into which nothing is put needs no descriptor, and mount(2) does in one call what takes fsopen
    /// and its kin up to eight. False where it can't or the kernel refuses: then those do it, or say why not.
    fn mount_at_once(&mut self, entry: &Entry, file_system: &FileSystem) -> Result<bool> {
        let (path, options) = (&entry.destination, &entry.options);
        let is_leaf = match file_system.fs_type {
            "proc" | "sysfs" | "devpts" | "mqueue" => true,
            "tmpfs" => path != Path::new("dev") && !options.copy_up,
            _ => false,
        };
        if !is_leaf || !options.propagation.is_empty() || !file_system.is_simple() {
            return Ok(false);
        }
        let place = inside::absolute(path);
        let mounted = if let Some(target) = self.make_in_fresh(path) {
            file_system.mount_at(&target, &place)
        } else {
            let target = inside::folder(self.root, path)?;
            check_target(entry, &target, matches!(file_system.fs_type, "proc" | "sysfs"))?;
            let mounted = file_system.mount_onto(target.fd.as_fd(), &place);
            close_later(target.fd);
            mounted
        };
        if mounted.is_ok() {
            self.forget(path);
        }
        Ok(mounted.is_ok())
    }

    /// Puts a new file system in place, by whatever way the kernel has, and returns a descriptor on its root.
    pub(super) fn put_new(&mut self, entry: &Entry, file_system: &FileSystem) -> Result<OwnedFd> {
        let options = &entry.options;
        let place = inside::absolute(&entry.destination);
        let what = || file_system.what(&place);
        let changes = Change::of_new(options);
        let strict = matches!(file_system.fs_type, "proc" | "sysfs");
        let made = match file_system.make(&place) {
            Err(error) => self.host_instead(file_system.fs_type, options, error).map(Some)?,
            Ok(made) => made,
        };
        if let Some(mount) = made {
            if options.copy_up {
                copy_up::copy(self.root, &entry.destination, mount.as_fd())?;
            }
            let done = change::detached(mount.as_fd(), &changes).context(what)?;
            self.put(
                entry,
                &Piece {
                    mount: &mount,
                    is_folder: true,
                    strict,
                },
            )?;
            if !done {
                change::attached(mount.as_fd(), &changes).context(what)?;
            }
            return Ok(mount);
        }
        if options.copy_up {
            let why = "tmpcopyup needs fsopen (Linux 5.2), which this system refuses";
            return Err(Error::Refused(format!("{}: {why}", what())));
        }
        let target = inside::folder(self.root, &entry.destination)?;
        check_target(entry, &target, strict)?;
        file_system.mount_onto(target.fd.as_fd(), &place)?;
        self.forget(&entry.destination);
        let mount = inside::locate(self.root, &entry.destination).context(what)?.fd;
        change::attached(mount.as_fd(), &changes).context(what)?;
        Ok(mount)
    }

    /// In a user namespace the kernel mounts these only for the owner of the other namespace that they show. Who
    /// shares that with the host sees the same through a bind of the host's.
    fn host_instead(&self, fs_type: &str, options: &Options, error: Error) -> Result<OwnedFd> {
        let refused = matches!(&error, Error::Kernel { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
        let groups = &self.context.cgroups;
        let group = if self.context.unified {
            groups.values().next()
        } else {
            groups.get("unified")
        };
        let host = match fs_type {
            "sysfs" if self.shares.network => Some(Path::new("/sys")),
            "mqueue" if self.shares.ipc => Some(Path::new("/dev/mqueue")),
            "proc" if self.shares.pid => Some(Path::new("/proc")),
            "cgroup2" => group.map(PathBuf::as_path),
            _ => None,
        };
        let Some(host) = host.filter(|_| refused && self.context.user_namespace) else {
            return Err(error);
        };
        let Ok(tree) = mount::open_tree_clone(
            At {
                folder: AT_FDCWD,
                path: host,
            },
            true,
        ) else {
            return Err(error);
        };
        let mut attributes = options.attributes;
        attributes.set |= options.recursive.set;
        let change = Change {
            recursive: true,
            attributes,
            implied: 0,
        };
        match change::detached(tree.as_fd(), &[change]) {
            Ok(true) => Ok(tree),
            _ => Err(error),
        }
    }

    fn remount(&mut self, entry: &Entry, bind: bool) -> Result<()> {
        let place = inside::absolute(&entry.destination);
        let what = || format!("remount {}", place.display());
        let target = inside::locate(self.root, &entry.destination).context(what)?;
        let options = &entry.options;
        if !bind {
            let flags = MsFlags::MS_REMOUNT | flags_of(options.attributes.set);
            mount::mount(
                Path::new(""),
                &proc_path(target.fd.as_fd()),
                "",
                flags,
                &options.data_line(),
            )
            .context(what)?;
        }
        let changes = Change::of_bind(options, self.context.user_namespace);
        change::attached(target.fd.as_fd(), &changes).context(what)
    }

    /// The way of mount(2), for a system without `open_tree`.
    fn bind_by_path(&mut self, entry: &Entry, source: &Path, changes: &[Change]) -> io::Result<()> {
        let source = match entry.open_inner_source(self.root)? {
            Some(inner) => inner,
            None => open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?,
        };
        let target = if is_folder(source.as_fd())? {
            inside::folder(self.root, &entry.destination)
        } else {
            inside::file(self.root, &entry.destination)
        };
        let target = target.and_then(|target| check_target(entry, &target, false).map(|()| target));
        let target = target.map_err(io::Error::other)?;
        if entry.destination == Path::new("proc") && !is_procfs(source.as_fd())? {
            return Err(io::Error::other(not_in_proc(entry)));
        }
        let recursion = if entry.options.bind_recursive {
            MsFlags::MS_REC
        } else {
            MsFlags::empty()
        };
        let (from, to) = (proc_path(source.as_fd()), proc_path(target.fd.as_fd()));
        mount::mount(&from, &to, "", MsFlags::MS_BIND | recursion, "")?;
        self.forget(&entry.destination);
        let mounted = inside::locate(self.root, &entry.destination)?;
        change::attached(mounted.fd.as_fd(), changes)
    }
}

/// The file systems that the kernel labels by its own rules refuse a label for all files.
fn takes_label(fs_type: &str) -> bool {
    !matches!(fs_type, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}
