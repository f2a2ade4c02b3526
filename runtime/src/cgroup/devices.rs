//! Device rules: which device nodes a container may read, write or make.
//!
//! A list of rules is first reduced to a [`Policy`]: the answer for devices that no rule names, and the exceptions
//! from it. So v1 and v2 mean the same, and an update can write the difference between two policies alone. As in
//! runc, a container that has no rule at all may use nothing but the default devices.

use std::collections::BTreeMap;
use std::fmt;

use nix::fcntl::OFlag;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::dir::{Dir, write_once};
use crate::error::{Context, Error, Result};
use crate::sys::fd::close_later;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Block,
    Char,
}

/// `None` stands for every number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

/// Bits of `BPF_DEVCG_ACC_*` in linux/bpf.h.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Access(pub(super) u8);

impl Access {
    pub(super) const MKNOD: Self = Self(1);
    pub(super) const READ: Self = Self(2);
    pub(super) const WRITE: Self = Self(4);
    pub(super) const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self(0), |access, letter| match letter {
            'r' => Some(Self(access.0 | Self::READ.0)),
            'w' => Some(Self(access.0 | Self::WRITE.0)),
            'm' => Some(Self(access.0 | Self::MKNOD.0)),
            // Of old configurations, which meant the type of device; it gives nothing, with runc neither.
            'a' => Some(access),
            _ => None,
        })
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Policy {
    /// Devices without an exception are allowed.
    pub(super) allow: bool,
    pub(super) exceptions: BTreeMap<Devices, Access>,
}

/// Every container needs these: making (not opening) any node, and the harmless devices of /dev that the spec lists
/// as default. /dev/console is a pseudo terminal inside a container, so the host's 5:1 is not among them.
const DEFAULT: [(Kind, Option<u32>, Option<u32>, Access); 10] = [
    (Kind::Char, None, None, Access::MKNOD),
    (Kind::Block, None, None, Access::MKNOD),
    (Kind::Char, Some(1), Some(3), Access::ALL), // null
    (Kind::Char, Some(1), Some(5), Access::ALL), // zero
    (Kind::Char, Some(1), Some(7), Access::ALL), // full
    (Kind::Char, Some(1), Some(8), Access::ALL), // random
    (Kind::Char, Some(1), Some(9), Access::ALL), // urandom
    (Kind::Char, Some(5), Some(0), Access::ALL), // tty
    (Kind::Char, Some(5), Some(2), Access::ALL), // ptmx
    (Kind::Char, Some(136), None, Access::ALL),  // pts/*
];

/// One change of a devices cgroup, in the words of v1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Change {
    pub(super) allow: bool,
    pub(super) rule: String,
}

impl Policy {
    /// The rules of config.json in their order, then the default devices.
    pub(super) fn from_resources(resources: Option<&LinuxResources>) -> Result<Self> {
        let mut policy = Self::default();
        let rules = resources
            .and_then(|resources| resources.devices().as_deref())
            .unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            let field = format!("linux.resources.devices[{index}]");
            policy.add(rule, &field)?;
        }
        for (kind, major, minor, access) in DEFAULT {
            let field = "linux.resources.devices";
            policy.apply(true, Devices { kind, major, minor }, access, field)?;
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup, field: &str) -> Result<()> {
        let number = |name: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => match u32::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Error::spec(
                    format!("{field}.{name}"),
                    format!("{number} is no device number"),
                )),
            },
        };
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        let text = rule.access().as_deref().unwrap_or("rwm");
        let Some(access) = Access::parse(text).filter(|access| access.0 != 0) else {
            let rule = format!("{text:?} is not made of r, w and m");
            return Err(Error::spec(format!("{field}.access"), rule));
        };
        let kinds: &[Kind] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == Access::ALL => {
                *self = Self {
                    allow: rule.allow(),
                    exceptions: BTreeMap::new(),
                };
                return Ok(());
            }
            LinuxDeviceType::A => &[Kind::Block, Kind::Char],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Char],
            LinuxDeviceType::P => {
                return Err(Error::spec(
                    format!("{field}.type"),
                    "pipes (p) can't be ruled by a cgroup",
                ));
            }
        };
        for kind in kinds {
            self.apply(
                rule.allow(),
                Devices {
                    kind: *kind,
                    major,
                    minor,
                },
                access,
                field,
            )?;
        }
        Ok(())
    }

    fn apply(&mut self, allow: bool, devices: Devices, access: Access, field: &str) -> Result<()> {
        if allow != self.allow {
            let known = self.exceptions.entry(devices).or_insert(Access(0));
            known.0 |= access.0;
            return Ok(());
        }
        // Taking a part out of a wider exception can't be said in v1, where the kernel would silently ignore it.
        let wider = [(None, devices.minor), (devices.major, None), (None, None)];
        for (major, minor) in wider {
            let wide = Devices {
                major,
                minor,
                ..devices
            };
            let overlap = self
                .exceptions
                .get(&wide)
                .is_some_and(|held| held.0 & access.0 != 0);
            if wide != devices && overlap {
                let rule = format!("can't make an exception ({devices}) from an earlier exception ({wide})");
                return Err(Error::spec(field, rule));
            }
        }
        if let Some(known) = self.exceptions.get_mut(&devices) {
            *known = known.minus(access);
            if known.0 == 0 {
                self.exceptions.remove(&devices);
            }
        }
        Ok(())
    }

    /// Reads back a v1 `devices.list`. It does not show the exceptions of an allowing group.
    pub(super) fn from_list(list: &str) -> Option<Self> {
        let mut policy = Self::default();
        for line in list.lines() {
            let (kind, rest) = line.split_once(' ')?;
            let (numbers, access) = rest.split_once(' ')?;
            let (major, minor) = numbers.split_once(':')?;
            let number = |text: &str| {
                if text == "*" {
                    Some(None)
                } else {
                    text.parse().ok().map(Some)
                }
            };
            let kind = match kind {
                "a" => {
                    return Some(Self {
                        allow: true,
                        exceptions: BTreeMap::new(),
                    });
                }
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let devices = Devices {
                kind,
                major: number(major)?,
                minor: number(minor)?,
            };
            policy.exceptions.insert(devices, Access::parse(access)?);
        }
        Some(policy)
    }

    /// The fewest writes that lead from `from` to this policy; what both allow stays allowed at every moment,
    /// unless the answer for unnamed devices changes. `None` is a group of unknown rules.
    pub(super) fn changes_from(&self, from: Option<&Self>) -> Vec<Change> {
        let mut changes = Vec::new();
        let nothing = BTreeMap::new();
        let old = match from {
            Some(from) if !from.allow && !self.allow => &from.exceptions,
            _ => {
                changes.push(Change {
                    allow: self.allow,
                    rule: "a *:* rwm".to_owned(),
                });
                &nothing
            }
        };
        let held = |map: &BTreeMap<_, _>, key| map.get(key).copied().unwrap_or(Access(0));
        for (devices, access) in old {
            let dropped = access.minus(held(&self.exceptions, devices));
            if dropped.0 != 0 {
                changes.push(Change {
                    allow: self.allow,
                    rule: format!("{devices} {dropped}"),
                });
            }
        }
        for (devices, access) in &self.exceptions {
            let gained = access.minus(held(old, devices));
            if gained.0 != 0 {
                changes.push(Change {
                    allow: !self.allow,
                    rule: format!("{devices} {gained}"),
                });
            }
        }
        changes
    }
}

/// Writes changes to a v1 devices group, one rule a write.
pub(super) fn write_v1(dir: &Dir, changes: &[Change]) -> Result<()> {
    let (mut allow, mut deny) = (None, None);
    for change in changes {
        let (file, name) = if change.allow {
            (&mut allow, "devices.allow")
        } else {
            (&mut deny, "devices.deny")
        };
        let what = || {
            let path = dir.path().join(name);
            format!(
                "set linux.resources.devices: write {:?} to {}",
                change.rule,
                path.display()
            )
        };
        let file = match file {
            Some(file) => file,
            None => file.insert(dir.open_file(name, OFlag::O_WRONLY).context(what)?),
        };
        write_once(file, &change.rule).context(what)?;
    }
    allow
        .into_iter()
        .chain(deny)
        .for_each(|file| close_later(file.into()));
    Ok(())
}

/// Brings a v1 group from whatever it has to `policy`.
pub(super) fn update_v1(dir: &Dir, policy: &Policy) -> Result<()> {
    let current = Policy::from_list(&dir.get("devices.list")?);
    write_v1(dir, &policy.changes_from(current.as_ref()))
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Block => "b ",
            Kind::Char => "c ",
        })?;
        match self.major {
            Some(major) => write!(f, "{major}:")?,
            None => f.write_str("*:")?,
        }
        match self.minor {
            Some(minor) => write!(f, "{minor}"),
            None => f.write_str("*"),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.0 & bit.0 != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<Policy> {
        let resources = serde_json::from_str(&format!(r#"{{"devices":{rules}}}"#)).unwrap();
        Policy::from_resources(Some(&resources))
    }

    fn rules(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|each| format!("{} {}", if each.allow { "+" } else { "-" }, each.rule))
            .collect()
    }

    #[test]
    fn the_default_spec_denies_all_but_the_default_devices() {
        let default = policy(r#"[{"allow":false,"access":"rwm"}]"#).unwrap();
        assert_eq!(default, Policy::from_resources(None).unwrap());
        assert_eq!(
            rules(&default.changes_from(None)),
            [
                "- a *:* rwm",
                "+ b *:* m",
                "+ c *:* m",
                "+ c 1:3 rwm",
                "+ c 1:5 rwm",
                "+ c 1:7 rwm",
                "+ c 1:8 rwm",
                "+ c 1:9 rwm",
                "+ c 5:0 rwm",
                "+ c 5:2 rwm",
                "+ c 136:* rwm",
            ]
        );
    }

    #[test]
    fn an_update_writes_the_difference_only() {
        let old = policy(r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#).unwrap();
        let new = policy(
            r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"r"},
                {"allow":true,"type":"b","major":8,"access":"r"}]"#,
        )
        .unwrap();
        let expected = ["- c 10:229 w", "+ b 8:* r"];
        assert_eq!(rules(&new.changes_from(Some(&old))), expected);
        // The same through the kernel's own words.
        let list: Vec<String> = old
            .exceptions
            .iter()
            .map(|(key, access)| format!("{key} {access}"))
            .collect();
        let read = Policy::from_list(&(list.join("\n") + "\n")).unwrap();
        assert_eq!(read, old);
        assert_eq!(rules(&old.changes_from(Some(&old))), Vec::<String>::new());
    }

    #[test]
    fn a_privileged_container_may_use_all() {
        let all = policy(r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        assert_eq!(
            all,
            Policy {
                allow: true,
                exceptions: BTreeMap::new()
            }
        );
        assert_eq!(Policy::from_list("a *:* rwm\n").unwrap(), all);
    }

    #[test]
    fn a_rule_for_all_types_with_numbers_stands_for_both_types() {
        let some = policy(r#"[{"allow":true,"major":7,"minor":1,"access":"r"}]"#).unwrap();
        for kind in [Kind::Block, Kind::Char] {
            assert_eq!(
                some.exceptions[&Devices {
                    kind,
                    major: Some(7),
                    minor: Some(1)
                }],
                Access::READ
            );
        }
        assert!(!some.allow);
    }

    #[test]
    fn broken_rules_are_refused_by_field() {
        for (rules, field) in [
            (r#"[{"allow":true,"type":"p"}]"#, "devices[0].type"),
            (
                r#"[{"allow":true,"type":"c","access":"rx"}]"#,
                "devices[0].access",
            ),
            (r#"[{"allow":true,"type":"c","access":""}]"#, "devices[0].access"),
            (r#"[{"allow":true,"type":"c","major":-2}]"#, "devices[0].major"),
            (
                r#"[{"allow":true,"type":"c","major":1,"minor":4294967296}]"#,
                "devices[0].minor",
            ),
            (
                r#"[{"allow":true,"type":"c","major":9},{"allow":false,"type":"c","major":9,"minor":1}]"#,
                "devices[1]",
            ),
        ] {
            let error = policy(rules).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("config.json: linux.resources.{field}: ")),
                "{error}"
            );
        }
    }
}
