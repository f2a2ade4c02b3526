//! Capabilities by name, and which of them a container gets.

use crate::Error;

/// All that the kernel has, in its order.
pub(crate) const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What docker gives to every container.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

/// The default set without `drop`, with `add`. `ALL` stands for all; a name that is in both is added, as with
/// docker, except that what is dropped by name leaves even an added `ALL`.
pub(crate) fn effective(add: &[String], drop: &[String]) -> Result<Vec<String>, Error> {
    let (add_all, add) = read("cap_add", add)?;
    let (drop_all, drop) = read("cap_drop", drop)?;
    let held = |name: &&str| {
        if add.contains(name) {
            return true;
        }
        let base = if add_all {
            true
        } else {
            DEFAULT.contains(name) && !drop_all
        };
        base && !drop.contains(name)
    };
    Ok(ALL.iter().copied().filter(held).map(str::to_owned).collect())
}

/// All that this kernel knows. A runtime may refuse the newer names on an older kernel.
pub(crate) fn all_known_here() -> Vec<String> {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|number| number.trim().parse::<usize>().ok())
        .unwrap_or(ALL.len() - 1);
    ALL.iter().take(last + 1).map(|&name| name.to_owned()).collect()
}

fn read(field: &'static str, names: &[String]) -> Result<(bool, Vec<&'static str>), Error> {
    let mut all = false;
    let mut known = Vec::with_capacity(names.len());
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            all = true;
            continue;
        }
        match ALL.iter().find(|known| known.strip_prefix("CAP_") == Some(bare)) {
            Some(found) => known.push(*found),
            None => {
                return Err(Error::invalid(
                    field,
                    format!("{name:?} is not a capability of Linux"),
                ));
            }
        }
    }
    Ok((all, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        effective(&owned(add), &owned(drop)).unwrap()
    }

    #[test]
    fn the_default_is_dockers() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert!(!set(&[], &[]).contains(&"CAP_SYS_ADMIN".to_owned()));
    }

    #[test]
    fn names_are_taken_with_and_without_prefix_in_any_case() {
        assert!(set(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!set(&[], &["Cap_Chown"]).contains(&"CAP_CHOWN".to_owned()));
    }

    #[test]
    fn all_can_be_dropped_and_single_ones_added_again() {
        assert_eq!(set(&["CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).len(), ALL.len() - 1);
    }
}
