//! Names in a layer: paths that stay inside, and the marks that hide what lies below.
//!
//! Pure. Source of the marks: OCI image spec, layer.md, "Whiteouts"; the others are left-overs of aufs.

/// Of one component: what Linux file systems allow.
const COMPONENT_BYTES_MAX: usize = 255;
/// `PATH_MAX`, with its NUL.
const PATH_BYTES_MAX: usize = 4095;
const DEPTH_MAX: usize = 256;

pub(super) const MARK: &[u8] = b".wh.";
const META_MARK: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept in its branches, and its images still have.
const AUFS_OWN: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];

/// What an entry's name makes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role<'a> {
    Entry,
    /// Hides this name of its folder in the layers below.
    Whiteout(&'a [u8]),
    /// Hides all of its folder in the layers below.
    Opaque,
    /// Means nothing to us.
    Skipped,
}

/// The components of a path from the layer's root; empty for the root itself.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, String> {
    if path.is_empty() {
        return Err("its name is empty".into());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("its path is longer than {PATH_BYTES_MAX} bytes"));
    }
    let components: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|c| !matches!(*c, b"" | b"."))
        .collect();
    if components.contains(&b"..".as_slice()) {
        return Err("its path has a `..` component".into());
    }
    if components.iter().any(|c| c.len() > COMPONENT_BYTES_MAX) {
        return Err(format!(
            "its path has a component longer than {COMPONENT_BYTES_MAX} bytes"
        ));
    }
    if components.len() > DEPTH_MAX {
        return Err(format!("its path is deeper than {DEPTH_MAX} folders"));
    }
    Ok(components)
}

/// Whether a path is an entry or a mark.
pub(super) fn role<'a>(path: &[&'a [u8]]) -> Result<Role<'a>, String> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(Role::Entry);
    };
    if path.iter().any(|c| AUFS_OWN.contains(c)) {
        return Ok(Role::Skipped);
    }
    if parents.iter().any(|c| c.starts_with(MARK)) {
        return Err("it lies beneath a whiteout's name".into());
    }
    if *last == OPAQUE {
        return Ok(Role::Opaque);
    }
    match last.strip_prefix(MARK) {
        None => Ok(Role::Entry),
        Some(b"" | b"." | b"..") => Err("a whiteout has to name what it hides".into()),
        Some(_) if last.starts_with(META_MARK) => Err("names that begin with `.wh..wh.` are reserved".into()),
        Some(hidden) => Ok(Role::Whiteout(hidden)),
    }
}

/// Whether the last component is a mark.
pub(super) fn is_mark(path: &[&[u8]]) -> bool {
    path.last().is_some_and(|last| last.starts_with(MARK))
}

/// A relative symlink must not climb above the root. An absolute one is meant from the container's root.
pub(super) fn check_symlink(path: &[&[u8]], target: &[u8]) -> Result<(), String> {
    if target.is_empty() || target.len() > PATH_BYTES_MAX {
        return Err(format!(
            "its link target has {} bytes, it needs 1 to {PATH_BYTES_MAX}",
            target.len()
        ));
    }
    let mut depth = if target.starts_with(b"/") {
        0
    } else {
        path.len() as i64 - 1
    };
    for component in target.split(|b| *b == b'/') {
        depth += match component {
            b"" | b"." => 0,
            b".." => -1,
            _ => 1,
        };
        if depth < 0 {
            return Err(format!(
                "its link target {:?} leads out of the layer",
                String::from_utf8_lossy(target)
            ));
        }
    }
    Ok(())
}

/// The path of what is called `name` in a folder; that of the root is empty.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        b"" => name.to_vec(),
        _ => [folder, name].join(&b'/'),
    }
}

/// The folder and the name that a path ends in.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub(super) const LEADS_OUT: &str =
    "its path goes through a symbolic link that leads out of the layer, or to nothing";

/// What is said of a hard link that cannot be.
pub(super) fn no_link_target(target: &[&[u8]], why: &str) -> String {
    format!(
        "its link target {:?} {why}",
        String::from_utf8_lossy(&target.join(&b'/'))
    )
}

/// What is said of an entry beneath something else.
pub(super) fn not_a_folder(parent: &[u8]) -> String {
    format!("its parent {:?} is not a folder", String::from_utf8_lossy(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Vec<&[u8]> {
        components(path.as_bytes()).unwrap()
    }

    #[test]
    fn paths_are_meant_from_the_root_however_they_begin() {
        for path in ["a/b", "./a/b", "/a/b", "a//b/", "/./a/./b/."] {
            assert_eq!(split(path), [b"a", b"b"], "{path}");
        }
        assert!(split("./").is_empty());
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        let (long, wide, deep) = ("a/".repeat(2048), "a".repeat(256), "a/".repeat(257));
        for path in ["", "..", "../a", "a/../b", "/..", &long, &wide, &deep] {
            assert!(components(path.as_bytes()).is_err(), "{path}");
        }
        assert!(components(b"..a/b..").is_ok());
    }

    #[test]
    fn marks_are_told_from_entries() {
        assert_eq!(role(&split("a/b")), Ok(Role::Entry));
        assert_eq!(role(&split("a/.wh.b")), Ok(Role::Whiteout(b"b")));
        assert_eq!(role(&split("a/.wh..wh..opq")), Ok(Role::Opaque));
        assert_eq!(role(&split(".wh..wh.plnk/1.2")), Ok(Role::Skipped));
        for bad in ["a/.wh.", "a/.wh..", "a/.wh...", "a/.wh..wh.x", ".wh.a/b"] {
            assert!(role(&split(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_links_may_climb_to_the_root_but_not_above() {
        for (path, target, fine) in [
            ("a/b", "../c", true),
            ("a/b", "../../c", false),
            ("b", "c/../d", true),
            ("b", "c/../../d", false),
            ("b", "/etc/passwd", true),
            ("b", "/../etc", false),
            ("b", "", false),
        ] {
            assert_eq!(
                check_symlink(&split(path), target.as_bytes()).is_ok(),
                fine,
                "{path} -> {target}"
            );
        }
    }
}
