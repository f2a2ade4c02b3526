//! New instances of file systems, as detached mounts: fsopen, one fsconfig a parameter, fsmount. When the kernel
//! refuses, its own words (`tmpfs: Unknown parameter 'foo'`) are in the error; mount(2) would only say EINVAL.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
};
use nix::mount::MsFlags;

use super::change::{flags_of, proc_path};
use super::options::Parameter;
use crate::error::{Context as _, Error, Result};
use crate::sys::fd::close_later;
use crate::sys::mount;

/// fsconfig takes no longer key or value than this; lowerdir of an overlay can be longer, mount(2) takes a page.
const VALUE_BYTES_MAX: usize = 255;

/// Set by the first fsopen that the kernel did not know.
static MISSING: AtomicBool = AtomicBool::new(false);

pub(super) struct FileSystem<'a> {
    pub(super) fs_type: &'a str,
    pub(super) source: &'a str,
    /// `MOUNT_ATTR_*` of the mount.
    pub(super) attributes: u64,
    /// The superblock is read-only too, for all its mounts.
    pub(super) read_only: bool,
    pub(super) superblock: &'a [&'static str],
    pub(super) data: &'a [Parameter],
    /// The security label of all files.
    pub(super) label: Option<&'a str>,
}

impl FileSystem<'_> {
    /// A detached mount; nothing if only [`FileSystem::mount_onto`] can do it, on this kernel or with such long data.
    /// `place` is for messages.
    pub(super) fn make(&self, place: &Path) -> Result<Option<OwnedFd>> {
        let long = |text: &str| text.len() > VALUE_BYTES_MAX;
        let long_data = self
            .data
            .iter()
            .any(|p| long(&p.key) || p.value.as_deref().is_some_and(long));
        if MISSING.load(Ordering::Relaxed) || long(self.source) || long_data || self.label.is_some_and(long) {
            return Ok(None);
        }
        let context = match mount::fsopen(&c_text(self.fs_type)?) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                MISSING.store(true, Ordering::Relaxed);
                return Ok(None);
            }
            other => other.context(|| self.what(place))?,
        };
        let made = self
            .configure(context.as_fd())
            .and_then(|()| mount::fsmount(context.as_fd(), self.attributes));
        let source = match made {
            Ok(mount) => {
                close_later(context);
                return Ok(Some(mount));
            }
            Err(source) => source,
        };
        let said = said(context);
        let what = if said.is_empty() {
            self.what(place)
        } else {
            format!("{} ({said})", self.what(place))
        };
        Err(Error::Kernel { what, source })
    }

    /// Whether mount(2) says the same with its flags and its one line of options.
    pub(super) fn is_simple(&self) -> bool {
        let is_word = |text: &str| text.len() <= VALUE_BYTES_MAX && !text.contains(',');
        let known = MOUNT_ATTR_RDONLY
            | MOUNT_ATTR_NOSUID
            | MOUNT_ATTR_NODEV
            | MOUNT_ATTR_NOEXEC
            | MOUNT_ATTR_NODIRATIME
            | MOUNT_ATTR__ATIME;
        self.label.is_none()
            && self.attributes & !known == 0
            && self.data.len() <= 8
            && self
                .data
                .iter()
                .all(|p| is_word(&p.key) && p.value.as_deref().is_none_or(is_word))
    }

    /// Mounts it by mount(2) onto what `target` is open on; the attributes are set with it.
    pub(super) fn mount_onto(&self, target: BorrowedFd, place: &Path) -> Result<()> {
        self.mount_at(&proc_path(target), place)
    }

    /// As `mount_onto`, where no part of the path `target` can be changed by others.
    pub(super) fn mount_at(&self, target: &Path, place: &Path) -> Result<()> {
        let mut words: Vec<String> = self.data.iter().map(Parameter::to_string).collect();
        words.extend(self.label.map(|label| format!("context=\"{label}\"")));
        let mut flags = flags_of(self.attributes);
        for word in self.superblock {
            flags |= match *word {
                "sync" => MsFlags::MS_SYNCHRONOUS,
                "dirsync" => MsFlags::MS_DIRSYNC,
                "mand" => MsFlags::MS_MANDLOCK,
                _ => MsFlags::MS_LAZYTIME,
            };
        }
        mount::mount(
            Path::new(self.source),
            target,
            self.fs_type,
            flags,
            &words.join(","),
        )
        .context(|| self.what(place))
    }

    fn configure(&self, context: BorrowedFd) -> io::Result<()> {
        if !self.source.is_empty() {
            mount::fsconfig_string(context, c"source", &CString::new(self.source)?)?;
        }
        if let Some(label) = self.label {
            mount::fsconfig_string(context, c"context", &CString::new(label)?)?;
        }
        if self.read_only {
            mount::fsconfig_flag(context, c"ro")?;
        }
        for word in self.superblock {
            mount::fsconfig_flag(context, &CString::new(*word)?)?;
        }
        for Parameter { key, value } in self.data {
            let key = CString::new(key.as_str())?;
            match value {
                Some(value) => mount::fsconfig_string(context, &key, &CString::new(value.as_str())?)?,
                None => mount::fsconfig_flag(context, &key)?,
            }
        }
        mount::fsconfig_create(context)
    }

    pub(super) fn what(&self, place: &Path) -> String {
        let label = self.label.map(|label| format!(" with SELinux label {label:?}"));
        format!(
            "mount {} at {}{}",
            self.fs_type,
            place.display(),
            label.unwrap_or_default()
        )
    }
}

fn c_text(text: &str) -> Result<CString> {
    CString::new(text).context(|| format!("mount {text:?}"))
}

/// What the kernel wrote into the context: lines such as `e tmpfs: Unknown parameter 'foo'`, one a read.
fn said(context: OwnedFd) -> String {
    let mut context = File::from(context);
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = context.read(&mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        let line = line.trim();
        lines.push(line.strip_prefix("e ").unwrap_or(line).to_owned());
    }
    lines.join("; ")
}
