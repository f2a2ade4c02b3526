//! Capability sets: from names to masks, and from masks into the kernel.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use crate::error::{Context, Error, Result};
use crate::log;
use crate::sys::credentials::{self, Sets};

/// The kernel's names, at the index that is their number.
pub(crate) const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `CAP_SYS_PTRACE` as a bit.
pub(crate) const SYS_PTRACE: u64 = 1 << 19;

/// The bit of a capability's name, with or without `CAP_`.
pub(crate) fn bit(name: &str) -> Option<u64> {
    let name = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES
        .iter()
        .position(|known| *known == name)
        .map(|number| 1 << number)
}

/// The five sets that a process shall have, one bit a capability. None at all when config.json names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

impl Capabilities {
    pub(crate) fn from_spec(wanted: Option<&LinuxCapabilities>) -> Result<Self> {
        let Some(wanted) = wanted else {
            return Ok(Self::default());
        };
        let sets = Self {
            bounding: mask("bounding", wanted.bounding().as_ref())?,
            effective: mask("effective", wanted.effective().as_ref())?,
            permitted: mask("permitted", wanted.permitted().as_ref())?,
            inheritable: mask("inheritable", wanted.inheritable().as_ref())?,
            ambient: mask("ambient", wanted.ambient().as_ref())?,
        };
        if sets.effective & !sets.permitted != 0 {
            let first = NAMES[(sets.effective & !sets.permitted).trailing_zeros() as usize];
            return Err(Error::spec(
                "process.capabilities.effective",
                format!("CAP_{first} must also be in process.capabilities.permitted"),
            ));
        }
        Ok(sets)
    }

    /// Adds capabilities to all sets that matter for a process that is started with more than the container has.
    pub(crate) fn add(&mut self, bits: u64) {
        self.bounding |= bits;
        self.effective |= bits;
        self.permitted |= bits;
        self.ambient |= bits;
    }

    /// Shrinks the bounding set. While still root, before the user changes.
    pub(crate) fn drop_bounding(&self) -> Result<()> {
        for number in 0..64 {
            let known = number < NAMES.len() as u8;
            if known && self.bounding & 1 << number != 0 {
                continue;
            }
            match credentials::drop_bounding(number) {
                // The first number that the kernel does not know ends the list.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
                result => {
                    result.context(|| format!("drop capability {} from the bounding set", name(number)))?;
                }
            }
        }
        Ok(())
    }

    /// Sets the other four. What the caller does not have itself can't be granted, which is no error: a rootless
    /// or nested runtime has less to give, and the spec asks not to fail then.
    pub(crate) fn apply(&self) -> Result<()> {
        let wanted = Sets {
            effective: self.effective,
            permitted: self.permitted,
            inheritable: self.inheritable,
        };
        let inheritable = if credentials::set_capabilities(wanted).is_ok() {
            self.inheritable
        } else {
            let own = credentials::capabilities().context(|| "read own capabilities".into())?;
            let permitted = self.permitted & own.permitted;
            let inheritable = self.inheritable & (own.permitted | own.inheritable);
            let granted = Sets {
                effective: self.effective & permitted,
                permitted,
                inheritable,
            };
            credentials::set_capabilities(granted).context(|| "set capabilities".into())?;
            inheritable
        };
        // The kernel raises only what is permitted and inheritable.
        let allowed = self.permitted & inheritable;
        for number in (0..64).filter(|number| self.ambient & 1 << number != 0) {
            if allowed & 1 << number == 0 {
                let name = name(number);
                log::warn(&format!(
                    "can't raise ambient capability {name}: it is not both permitted and inheritable"
                ));
                continue;
            }
            credentials::raise_ambient(number)
                .context(|| format!("raise ambient capability {}", name(number)))?;
        }
        Ok(())
    }
}

fn name(number: u8) -> String {
    NAMES
        .get(usize::from(number))
        .map_or_else(|| number.to_string(), |name| format!("CAP_{name}"))
}

fn mask(set: &str, names: Option<&HashSet<Capability>>) -> Result<u64> {
    let mut mask = 0;
    for capability in names.into_iter().flatten() {
        let name = capability.to_string();
        mask |= bit(&name).ok_or_else(|| {
            Error::spec(
                format!("process.capabilities.{set}"),
                format!("unknown capability {name}"),
            )
        })?;
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(json: &str) -> Result<Capabilities> {
        Capabilities::from_spec(Some(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn every_name_of_the_spec_has_its_bit() {
        for (number, name) in NAMES.iter().enumerate() {
            let json = format!(r#"{{"permitted":["CAP_{name}"]}}"#);
            assert_eq!(sets(&json).unwrap().permitted, 1 << number, "{name}");
        }
        assert_eq!(bit("CAP_SYS_PTRACE"), Some(SYS_PTRACE));
    }

    #[test]
    fn what_is_effective_must_be_permitted() {
        let error = sets(r#"{"effective":["CAP_KILL"]}"#).unwrap_err().to_string();
        assert!(
            error.contains("effective") && error.contains("CAP_KILL"),
            "{error}"
        );
    }
}
