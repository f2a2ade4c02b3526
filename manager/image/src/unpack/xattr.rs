//! Extended attributes: which a layer may bring, and how each is set.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Problem;
use crate::marks::{is_in_user_namespace, marks};
use crate::overlay::{Xattr, all_xattrs};

/// What overlayfs keeps its own marks in: a layer that brings one could hide or redirect folders.
const RESERVED: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
pub(super) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
const NAME_BYTES_MAX: usize = 255;

/// Check the attributes of one entry before anything is made.
pub(super) fn check(xattrs: &[(Vec<u8>, Vec<u8>)], bytes_max: usize) -> Result<(), String> {
    let mut bytes = 0;
    for (name, value) in xattrs {
        let shown = || String::from_utf8_lossy(name).into_owned();
        if name.len() > NAME_BYTES_MAX {
            return Err(format!(
                "the name of an extended attribute is longer than {NAME_BYTES_MAX} bytes"
            ));
        }
        if RESERVED.iter().any(|r| name.starts_with(r)) {
            return Err(format!("extended attribute {:?} belongs to overlayfs", shown()));
        }
        let spaces: [&[u8]; 4] = [b"user.", b"security.", b"trusted.", b"system."];
        if !spaces.iter().any(|s| name.starts_with(s)) {
            return Err(format!(
                "extended attribute {:?} is in no name space of Linux",
                shown()
            ));
        }
        bytes += name.len() + value.len();
    }
    if bytes > bytes_max {
        return Err(format!(
            "its extended attributes have {bytes} bytes, more than {bytes_max}"
        ));
    }
    Ok(())
}

/// Set attributes on `name` in `parent`, without following a link. A folder's default ACL is left to its end.
pub(super) fn set(parent: BorrowedFd<'_>, name: &[u8], xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Problem> {
    for (key, value) in xattrs.iter().filter(|(key, _)| key != DEFAULT_ACL) {
        // Linux has these on regular files and folders only; some writers put them on every entry.
        if key.starts_with(b"user.") {
            continue;
        }
        // Only a path reaches symlinks and devices; the parent's descriptor keeps it from being swapped.
        let result = rustix::fs::lsetxattr(beside(parent, name), key.as_slice(), value, XattrFlags::empty());
        settle(key, result)?;
    }
    Ok(())
}

/// Like [`set`], on an open file or folder.
pub(super) fn set_open(fd: BorrowedFd<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Problem> {
    for (key, value) in xattrs.iter().filter(|(key, _)| key != DEFAULT_ACL) {
        settle(
            key,
            rustix::fs::fsetxattr(fd, key.as_slice(), value, XattrFlags::empty()),
        )?;
    }
    Ok(())
}

/// Set a folder's default ACL: new objects would inherit it, so it comes when all are made.
pub(super) fn set_open_acl(folder: BorrowedFd<'_>, acl: &[u8]) -> Result<(), Problem> {
    settle(
        DEFAULT_ACL,
        rustix::fs::fsetxattr(folder, DEFAULT_ACL, acl, XattrFlags::empty()),
    )
}

/// Take a folder's default ACL away, if it has one.
pub(super) fn remove_acl(folder: BorrowedFd<'_>) -> Result<(), Problem> {
    match rustix::fs::fremovexattr(folder, DEFAULT_ACL) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        result => result.map_err(|e| Problem::System("take an extended attribute of", e.into())),
    }
}

/// A file system without an attribute's name space drops it, as it would in a copy, and so does a user's namespace with
/// the system's attributes; capabilities may not go so.
fn settle(key: &[u8], result: Result<(), Errno>) -> Result<(), Problem> {
    match result {
        Err(Errno::OPNOTSUPP) if key != CAPABILITY => {
            tracing::debug!(xattr = %String::from_utf8_lossy(key), "the file system has no such attributes");
            Ok(())
        }
        Err(Errno::PERM) if key != CAPABILITY && is_in_user_namespace() => {
            tracing::debug!(xattr = %String::from_utf8_lossy(key), "no user's namespace sets such attributes");
            Ok(())
        }
        result => result.map_err(|e| Problem::System("set an extended attribute of", e.into())),
    }
}

/// Mark a folder so that overlayfs shows nothing of it from the layers below.
pub(super) fn set_opaque(folder: BorrowedFd<'_>) -> Result<(), Problem> {
    rustix::fs::fsetxattr(folder, marks().opaque, b"y", XattrFlags::empty())
        .map_err(|e| Problem::System("mark as opaque", e.into()))
}

/// Whether [`set_opaque`] was done.
pub(super) fn is_opaque(folder: BorrowedFd<'_>) -> bool {
    let mut value = [0u8; 8];
    rustix::fs::fgetxattr(folder, marks().opaque, &mut value).is_ok_and(|n| value[..n] == *b"y")
}

/// All attributes but overlayfs's own.
pub(super) fn read(of: BorrowedFd<'_>) -> std::io::Result<Vec<Xattr>> {
    all_xattrs(of, |name| Ok(!RESERVED.iter().any(|r| name.starts_with(r))))
}

/// Copy all attributes but overlayfs's own from one folder to another.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    for (name, value) in read(from)? {
        rustix::fs::fsetxattr(to, name.as_slice(), &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// What the kernel refuses to set, where nobody asks it: a name with nothing after its name space or a NUL in it, and
/// capabilities that are none (`cap_convert_nscap`).
pub(super) fn check_value(name: &[u8], value: &[u8]) -> Result<(), String> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    let is_space = name.iter().position(|b| *b == b'.') == Some(name.len() - 1);
    if is_space || name.contains(&0) {
        return Err(format!("extended attribute {:?} has no name", shown()));
    }
    if name == CAPABILITY {
        // The revision is the highest byte of the first word.
        let revision = value.get(3);
        if !matches!((value.len(), revision), (20, Some(2)) | (24, Some(3))) {
            return Err(format!(
                "extended attribute {:?} is not of a known revision",
                shown()
            ));
        }
    }
    Ok(())
}

fn beside(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_overlayfs_and_unknown_name_spaces_are_refused() {
        let one = |name: &[u8]| check(&[(name.to_vec(), b"y".to_vec())], 1024);
        assert!(one(b"user.a").is_ok());
        assert!(one(b"security.capability").is_ok());
        for bad in [
            &b"trusted.overlay.opaque"[..],
            b"trusted.overlay.redirect",
            b"user.overlay.x",
            b"a",
            b"os.x",
        ] {
            assert!(one(bad).is_err());
        }
        assert!(
            check(&[(b"user.a".to_vec(), vec![0; 2000])], 1024)
                .unwrap_err()
                .contains("more than 1024")
        );
    }
}
