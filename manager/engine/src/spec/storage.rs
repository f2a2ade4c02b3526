//! Volumes, binds and file systems in memory, as mounts of config.json.

use std::path::Path;
use std::sync::OnceLock;

use image::Owners;
use serde_json::{Value, json};

use super::id_mappings;
use crate::request::{BindSource, Mount, Recursion, Source, TmpfsSource};
use crate::sys;
use crate::volumes::Seen;

/// All of them; `sources` are those of the mounts that have any, `owners` those of the container's user namespace.
pub(super) fn mounts(mounts: &[Mount], sources: &[Seen], owners: Option<&Owners>) -> Vec<Value> {
    let all = mounts.iter().zip(sources);
    let all = all.map(|(mount, source)| {
        let mut value = one(mount, &source.path);
        if let Some(owners) = owners.filter(|_| source.is_mapped) {
            value["uidMappings"] = id_mappings(&owners.uids);
            value["gidMappings"] = id_mappings(&owners.gids);
        }
        value
    });
    all.collect()
}

fn one(mount: &Mount, source: &Path) -> Value {
    let (kind, source, options) = match &mount.source {
        Source::Tmpfs(tmpfs) => ("tmpfs", Path::new("tmpfs"), of_tmpfs(tmpfs, mount.read_only)),
        Source::Bind(bind) => ("bind", source, of_bind(bind, mount.read_only)),
        // What the volume's options have mounted is seen; what is mounted there later is not.
        Source::Volume(_) => ("bind", source, of_bind(&BindSource::default(), mount.read_only)),
        Source::Image(_) => ("bind", source, of_bind(&BindSource::default(), true)),
    };
    json!({"destination": mount.target, "type": kind, "source": source.to_string_lossy(), "options": options})
}

fn of_bind(bind: &BindSource, read_only: bool) -> Vec<String> {
    let kind = if bind.recursion == Recursion::Disabled {
        "bind"
    } else {
        "rbind"
    };
    let propagation = match bind.propagation.as_str() {
        "" => "rprivate",
        other => other,
    };
    let access = match bind.recursion {
        // Without a word of access it keeps the flags of its source.
        _ if !read_only => None,
        Recursion::ReadOnly => Some("rro"),
        Recursion::Enabled if changes_below() => Some("rro"),
        Recursion::Enabled | Recursion::Disabled | Recursion::Writable => Some("ro"),
    };
    let words = [kind, propagation].into_iter().chain(access);
    words.map(str::to_owned).collect()
}

/// Docker's defaults, which the options may turn round.
fn of_tmpfs(tmpfs: &TmpfsSource, read_only: bool) -> Vec<String> {
    let asked = |word: &str| tmpfs.options.iter().any(|option| option == word);
    let defaults = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")];
    let defaults = defaults
        .iter()
        .filter(|(word, opposite)| !asked(word) && !asked(opposite));
    let mut options: Vec<String> = defaults.map(|(word, _)| (*word).to_owned()).collect();
    options.extend(tmpfs.options.iter().cloned());
    if tmpfs.size_bytes > 0 {
        options.push(format!("size={}", tmpfs.size_bytes));
    }
    if tmpfs.mode > 0 {
        options.push(format!("mode={:o}", tmpfs.mode));
    }
    if read_only {
        options.push("ro".to_owned());
    }
    options
}

/// Whether the kernel can make all mounts of a tree read-only at once (since Linux 5.12).
fn changes_below() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(sys::has_mount_setattr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(read_only: bool, edit: impl FnOnce(&mut BindSource)) -> Vec<String> {
        let mut bind = BindSource::default();
        edit(&mut bind);
        of_bind(&bind, read_only)
    }

    #[test]
    fn a_bind_says_what_becomes_of_the_mounts_below() {
        assert_eq!(options(false, |_| {}), ["rbind", "rprivate"]);
        let shared = |bind: &mut BindSource| bind.propagation = "rshared".to_owned();
        assert_eq!(options(false, shared), ["rbind", "rshared"]);
        for (recursion, expected) in [
            (Recursion::Disabled, ["bind", "rprivate", "ro"]),
            (Recursion::Writable, ["rbind", "rprivate", "ro"]),
            (Recursion::ReadOnly, ["rbind", "rprivate", "rro"]),
        ] {
            assert_eq!(options(true, |bind| bind.recursion = recursion), expected);
        }
    }

    #[test]
    fn a_tmpfs_is_closed_unless_it_is_opened() {
        let tmpfs = TmpfsSource {
            size_bytes: 4096,
            mode: 0o1770,
            options: vec!["exec".to_owned(), "uid=1".to_owned()],
        };
        assert_eq!(
            of_tmpfs(&tmpfs, true),
            ["nosuid", "nodev", "exec", "uid=1", "size=4096", "mode=1770", "ro"]
        );
        assert_eq!(
            of_tmpfs(&TmpfsSource::default(), false),
            ["noexec", "nosuid", "nodev"]
        );
    }
}
