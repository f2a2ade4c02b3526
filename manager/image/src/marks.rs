//! The names under which overlayfs keeps what it needs to know of a folder or file.
//!
//! Mounted by root they are `trusted.overlay.*`, which no one else can write. In a user namespace the kernel takes
//! `user.overlay.*` instead, if the mount says `userxattr`. (overlayfs.rst, "User xattr"; since Linux 5.11.)

use std::ffi::CStr;
use std::sync::OnceLock;

/// Which names overlayfs uses.
#[derive(Debug)]
pub struct Marks {
    /// On a folder that shows nothing of the layers below (`y`), or whose files can be whiteouts (`x`).
    pub opaque: &'static CStr,
    /// On a regular file that stands for "nothing is here".
    pub(crate) whiteout: &'static CStr,
    /// Of features that our mounts do not turn on: a folder that was renamed, a file whose data is elsewhere.
    pub(crate) foreign: [&'static CStr; 2],
    /// What a mount says for it.
    pub(crate) options: &'static [&'static str],
}

const OF_ROOT: Marks = Marks {
    opaque: c"trusted.overlay.opaque",
    whiteout: c"trusted.overlay.whiteout",
    foreign: [c"trusted.overlay.redirect", c"trusted.overlay.metacopy"],
    // Whatever the kernel was built with: an upper folder tells by itself what it changes, for commit and diff. (A
    // renamed folder of the image, or a changed mode, would else be a pointer into the layers below.)
    options: &["redirect_dir=off", "metacopy=off"],
};

const OF_USER: Marks = Marks {
    opaque: c"user.overlay.opaque",
    whiteout: c"user.overlay.whiteout",
    foreign: [c"user.overlay.redirect", c"user.overlay.metacopy"],
    // Turns both features off by itself, and refuses to be told so.
    options: &["userxattr"],
};

/// Those that this process can set, and its mounts use.
pub fn marks() -> &'static Marks {
    if is_in_user_namespace() {
        &OF_USER
    } else {
        &OF_ROOT
    }
}

/// Whether this process is root in a user namespace only, and not the host's: it then makes no devices and no attributes
/// of the system's.
pub fn is_in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_everybody(&map)))
}

/// The first namespace maps all ids to themselves (`user_namespaces(7)`).
fn is_everybody(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_namespace_has_everybody() {
        assert!(is_everybody("         0          0 4294967295\n"));
        assert!(!is_everybody(
            "         0       1000          1\n         1     100000      65536\n"
        ));
        assert!(!is_everybody(""));
    }
}
