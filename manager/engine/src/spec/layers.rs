//! Reading a small file of a container's root file system while it is not mounted, by walking the layers of
//! its overlay as the kernel would: top down, whiteouts hide, opaque directories end the search, links are
//! followed inside the container's tree.
//!
//! The content is an image author's: every component is opened by itself, without following links, so that
//! no path leads out; only regular files are read, and not more of them than a bound. The upper layer of a running
//! container is changed meanwhile, maybe with malice: what was looked at is opened through the same descriptor, so
//! that a device or fifo in its place is never opened, which some act on.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;

/// As many links may be followed in one look-up as the kernel follows (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// The directories that make up a root file system, top one first.
pub(crate) struct Layers {
    roots: Vec<PathBuf>,
}

enum Found {
    File(File),
    Directory(Vec<OwnedFd>),
    Link(PathBuf),
    Nothing,
}

impl Layers {
    pub(crate) fn new(rootfs: &image::Rootfs) -> Layers {
        Layers {
            roots: std::iter::once(&rootfs.upper)
                .chain(&rootfs.lower)
                .cloned()
                .collect(),
        }
    }

    /// The content of the regular file at `path`; None if there is none. Longer files than `max_bytes` are an
    /// error (`EFBIG`).
    pub(crate) fn read(&self, path: &Path, max_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
        let Some(file) = self.find(path)? else {
            return Ok(None);
        };
        if file.metadata()?.len() > max_bytes {
            return Err(Errno::EFBIG.into());
        }
        let mut content = Vec::new();
        file.take(max_bytes).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn find(&self, path: &Path) -> std::io::Result<Option<File>> {
        // What is left to walk, next component last.
        let mut left = components(path);
        let mut links = 0;
        let mut walked: Vec<Vec<OwnedFd>> = vec![self.open_roots()?];
        while let Some(name) = left.pop() {
            if name == ".." {
                if walked.len() > 1 {
                    walked.pop();
                }
                continue;
            }
            let Some(here) = walked.last() else {
                return Ok(None);
            };
            match step(here, &name)? {
                Found::Nothing => return Ok(None),
                Found::File(file) => return Ok(left.is_empty().then_some(file)),
                Found::Directory(directories) => walked.push(directories),
                Found::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::ELOOP.into());
                    }
                    if target.is_absolute() {
                        walked.truncate(1);
                    }
                    left.extend(components(&target));
                }
            }
        }
        Ok(None)
    }

    fn open_roots(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.roots
            .iter()
            .map(|root| {
                Ok(nix::fcntl::open(
                    root,
                    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?)
            })
            .collect()
    }
}

fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    names.reverse();
    names
}

/// Look one name up in a directory that is merged from `here`, top one first.
fn step(here: &[OwnedFd], name: &OsStr) -> std::io::Result<Found> {
    let mut merged = Vec::new();
    for directory in here {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = match openat(directory.as_fd(), name, flags, Mode::empty()) {
            Ok(entry) => File::from(entry),
            Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
            Err(error) => return Err(error.into()),
        };
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            let opaque = is_opaque(&entry);
            merged.push(OwnedFd::from(entry));
            if opaque {
                break;
            }
            continue;
        }
        // A directory above hides whatever is not a directory below, and ends there.
        if !merged.is_empty() || (kind.is_char_device() && metadata.rdev() == 0) {
            break;
        }
        if kind.is_symlink() {
            return Ok(Found::Link(readlinkat(entry.as_fd(), "")?.into()));
        }
        if !kind.is_file() {
            break;
        }
        return Ok(Found::File(reopen(&entry)?));
    }
    Ok(if merged.is_empty() {
        Found::Nothing
    } else {
        Found::Directory(merged)
    })
}

/// Does the directory hide those of the layers below?
fn is_opaque(directory: &File) -> bool {
    reopen(directory).is_ok_and(|directory| {
        crate::sys::fgetxattr_byte(directory.as_fd(), image::marks().opaque) == Some(b'y')
    })
}

/// Open for reading what an `O_PATH` descriptor stands for, and nothing else. A lease that a container has on its
/// file holds nobody up.
fn reopen(entry: &File) -> std::io::Result<File> {
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", entry.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;

    struct Tree {
        folder: tempfile::TempDir,
    }

    impl Tree {
        /// Layers a (top), b, c.
        fn new() -> Tree {
            let folder = tempfile::tempdir().unwrap();
            for layer in ["a", "b", "c"] {
                fs::create_dir_all(folder.path().join(layer).join("etc")).unwrap();
            }
            Tree { folder }
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn link(&self, target: &str, path: &str) {
            symlink(target, self.folder.path().join(path)).unwrap();
        }

        fn read(&self, path: &str) -> Option<String> {
            let roots = ["a", "b", "c"]
                .iter()
                .map(|layer| self.folder.path().join(layer))
                .collect();
            let content = Layers { roots }.read(Path::new(path), 100).unwrap();
            content.map(|content| String::from_utf8(content).unwrap())
        }
    }

    #[test]
    fn the_topmost_layer_wins() {
        let tree = Tree::new();
        tree.write("c/etc/passwd", "old");
        assert_eq!(tree.read("/etc/passwd").as_deref(), Some("old"));
        tree.write("b/etc/passwd", "new");
        assert_eq!(tree.read("/etc/passwd").as_deref(), Some("new"));
        assert_eq!(tree.read("/etc/group"), None);
    }

    #[test]
    fn links_are_followed_through_all_layers_and_never_out() {
        let tree = Tree::new();
        tree.write("c/usr/share/passwd", "shared");
        tree.link("../usr/share/passwd", "a/etc/passwd");
        assert_eq!(tree.read("/etc/passwd").as_deref(), Some("shared"));
        tree.write("c/etc/hostname", "inside");
        tree.link("../../../../../../etc/hostname", "a/etc/up");
        assert_eq!(tree.read("/etc/up").as_deref(), Some("inside"));
        tree.link("/etc/hostname", "b/etc/absolute");
        assert_eq!(tree.read("/etc/absolute").as_deref(), Some("inside"));
    }

    #[test]
    fn a_loop_of_links_is_an_error_and_a_fifo_is_nothing() {
        let tree = Tree::new();
        tree.link("loop", "a/etc/loop");
        let roots = vec![tree.folder.path().join("a")];
        assert!(Layers { roots }.read(Path::new("/etc/loop"), 100).is_err());
        let fifo = tree.folder.path().join("a/etc/passwd");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(tree.read("/etc/passwd"), None);
    }

    #[test]
    fn a_fifo_that_is_swapped_in_is_never_opened() {
        let tree = Tree::new();
        tree.write("a/etc/passwd", "a file");
        let [file, fifo] = ["a/etc/passwd", "a/fifo"].map(|path| tree.folder.path().join(path));
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        let opened = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        // It watches the fifo, wherever that is moved; an `O_PATH` is not told.
        opened.add_watch(&fifo, AddWatchFlags::IN_OPEN).unwrap();
        let done = AtomicBool::new(false);
        let exchange = || renameat2(AT_FDCWD, &file, AT_FDCWD, &fifo, RenameFlags::RENAME_EXCHANGE);
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    exchange().unwrap();
                }
            });
            let reads = (0..4000).map(|_| tree.read("/etc/passwd"));
            let (files, others): (Vec<_>, Vec<_>) = reads.partition(Option::is_some);
            done.store(true, Ordering::Relaxed);
            swapping.join().unwrap();
            assert!(!files.is_empty() && !others.is_empty(), "both were met");
        });
        assert_eq!(
            opened.read_events().unwrap_err(),
            Errno::EAGAIN,
            "the fifo was opened"
        );
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let tree = Tree::new();
        tree.write("a/etc/passwd", &"x".repeat(101));
        let roots = vec![tree.folder.path().join("a")];
        let error = Layers { roots }.read(Path::new("/etc/passwd"), 100).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EFBIG as i32));
    }

    #[test]
    fn a_file_above_hides_a_directory_below() {
        let tree = Tree::new();
        tree.write("c/opt/tool/file", "below");
        tree.write("a/opt/tool", "a file");
        assert_eq!(tree.read("/opt/tool/file"), None);
        assert_eq!(tree.read("/opt/tool").as_deref(), Some("a file"));
    }
}
