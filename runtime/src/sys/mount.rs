//! The mount calls that work on file descriptors (fsopen, fsmount, `open_tree`, `move_mount`, `mount_setattr`), with
//! mount(2) for kernels that lack one of them. Paths and names are plain; what may be mounted where is decided
//! in `crate::mounts`, never here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::MsFlags;

/// Names a place as the `*at` calls do: a folder and a path below it; the empty path is the descriptor itself.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) folder: BorrowedFd<'a>,
    pub(crate) path: &'a Path,
}

impl<'a> At<'a> {
    /// The thing that `fd` is open on.
    pub(crate) fn fd(fd: BorrowedFd<'a>) -> Self {
        Self {
            folder: fd,
            path: Path::new(""),
        }
    }
}

/// What `mount_setattr` changes; see its manual page. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` and `MS_UNBINDABLE`, or 0 to leave it.
    pub(crate) propagation: u64,
}

impl Attributes {
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Opens a context in which a file system of the type `name` is set up.
pub(crate) fn fsopen(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a C string that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), libc::FSOPEN_CLOEXEC) };
    owned(result)
}

/// Sets a parameter that has a value.
pub(crate) fn fsconfig_string(context: BorrowedFd, key: &CStr, value: &CStr) -> io::Result<()> {
    fsconfig(context, libc::FSCONFIG_SET_STRING, Some(key), Some(value))
}

/// Sets a parameter that is a bare word.
pub(crate) fn fsconfig_flag(context: BorrowedFd, key: &CStr) -> io::Result<()> {
    fsconfig(context, libc::FSCONFIG_SET_FLAG, Some(key), None)
}

/// Makes the superblock that was described.
pub(crate) fn fsconfig_create(context: BorrowedFd) -> io::Result<()> {
    fsconfig(context, libc::FSCONFIG_CMD_CREATE, None, None)
}

fn fsconfig(context: BorrowedFd, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is null or a C string that outlives the call, as the command asks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            pointer(key),
            pointer(value),
            0,
        )
    };
    nothing(result)
}

/// A detached mount of what `context` made, with `MOUNT_ATTR_*` flags.
pub(crate) fn fsmount(context: BorrowedFd, attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes as libc::c_uint,
        )
    };
    owned(result)
}

/// A detached copy of the mount at a place, of what lies under that place, and of the mounts below if `recursive`.
pub(crate) fn open_tree_clone(at: At, recursive: bool) -> io::Result<OwnedFd> {
    let recursion = if recursive {
        libc::AT_RECURSIVE as libc::c_uint
    } else {
        0
    };
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint | recursion;
    let path = c_path(at.path)?;
    // SAFETY: `path` is a C string that outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, at.folder.as_raw_fd(), path.as_ptr(), flags) };
    owned(result)
}

/// `open_tree_attr`, the same number for all architectures.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

/// As [`open_tree_clone`], with `change` made to the copy, to those below too if `recursive` (since Linux 6.15).
pub(crate) fn open_tree_attr(at: At, recursive: bool, change: Attributes) -> io::Result<OwnedFd> {
    let attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let recursion = if recursive {
        libc::AT_RECURSIVE as libc::c_uint
    } else {
        0
    };
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint | recursion;
    let path = c_path(at.path)?;
    // SAFETY: `path` is a C string and `attr` a live structure of the size that is passed.
    let result = unsafe {
        libc::syscall(
            SYS_OPEN_TREE_ATTR,
            at.folder.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    owned(result)
}

/// Puts the mount that `from` holds onto a place. A symbolic link as the last part of the path is not followed,
/// unless `follow`.
pub(crate) fn move_mount(from: BorrowedFd, to: At, follow: bool) -> io::Result<()> {
    let mut flags = libc::MOVE_MOUNT_F_EMPTY_PATH;
    if to.path.as_os_str().is_empty() {
        flags |= libc::MOVE_MOUNT_T_EMPTY_PATH;
    }
    if follow {
        flags |= libc::MOVE_MOUNT_T_SYMLINKS;
    }
    let path = c_path(to.path)?;
    // SAFETY: both paths are C strings that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            to.folder.as_raw_fd(),
            path.as_ptr(),
            flags,
        )
    };
    nothing(result)
}

/// Changes attributes and propagation of the mount at a place, of all mounts below it too if `recursive`.
/// `mapping` is the user namespace for `MOUNT_ATTR_IDMAP`.
pub(crate) fn mount_setattr(
    at: At,
    recursive: bool,
    change: Attributes,
    mapping: Option<BorrowedFd>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: change.set
            | if mapping.is_some() {
                libc::MOUNT_ATTR_IDMAP
            } else {
                0
            },
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: mapping.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let path = c_path(at.path)?;
    // SAFETY: `path` is a C string and `attr` a live structure of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.folder.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    nothing(result)
}

/// mount(2). Empty texts are passed as null, as mount(8) does.
pub(crate) fn mount(
    source: &Path,
    target: &Path,
    fs_type: &str,
    flags: MsFlags,
    data: &str,
) -> io::Result<()> {
    let source = (!source.as_os_str().is_empty()).then_some(source);
    let fs_type = (!fs_type.is_empty()).then_some(fs_type);
    let data = (!data.is_empty()).then_some(data);
    Ok(nix::mount::mount(source, target, fs_type, flags, data)?)
}

/// The number of the mount that `fd` is on, which no other mount has had since the system was started. Since Linux 6.8.
pub(crate) fn number(fd: BorrowedFd) -> io::Result<u64> {
    let mut found = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the empty path is a C string, and `found` is a statx that outlives the call.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID_UNIQUE,
            found.as_mut_ptr(),
        )
    };
    nothing(result.into())?;
    // SAFETY: the structure was zeroed, which is a valid value of all its fields, and the kernel filled it.
    let found = unsafe { found.assume_init() };
    if found.stx_mask & libc::STATX_MNT_ID_UNIQUE == 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(found.stx_mnt_id)
}

/// Whether there is a mount with this number (see [`number`]) in the caller's mount namespace.
pub(crate) fn exists(number: u64) -> io::Result<bool> {
    /// `statmount(2)`, which has this number on every architecture.
    const STATMOUNT: libc::c_long = 457;
    /// `struct mnt_id_req`, in its first version; nothing is asked for but the mount itself.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount: u64,
        wanted: u64,
    }
    let request = Request {
        size: size_of::<Request>() as u32,
        spare: 0,
        mount: number,
        wanted: 0,
    };
    // As large as `struct statmount`, for which 512 bytes are set aside.
    let mut answer = [0_u64; 64];
    // SAFETY: both structures outlive the call, which is told the size of what it fills.
    let result = unsafe {
        libc::syscall(
            STATMOUNT,
            &raw const request,
            answer.as_mut_ptr(),
            size_of_val(&answer),
            0,
        )
    };
    match nothing(result) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn nothing(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    nothing(result)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}
