//! In which cgroups containers get theirs: in those of the machine, or, without root's rights, in one that the user's
//! systemd has handed down.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use crate::Error;
use crate::request::CreateRequest;

/// The cgroup above those of containers, in those of the machine.
const PARENT: &str = "berth";
const ROOT: &str = "/sys/fs/cgroup";

/// Where a manager may make cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Groups {
    /// From the root of each hierarchy on.
    #[default]
    Machine,
    /// In this one of cgroup v2, a path from the hierarchy's root.
    HandedDown(String),
    /// Nowhere, and why.
    Nowhere(String),
}

impl Groups {
    /// The group above a container's, from the root of each hierarchy; `asked` is what its request says.
    pub(crate) fn parent<'a>(&'a self, asked: &'a str) -> Cow<'a, str> {
        let asked = asked.trim_matches('/');
        match (self, asked) {
            (Self::HandedDown(group), "") => Cow::Borrowed(group.trim_matches('/')),
            (Self::HandedDown(group), asked) => Cow::Owned(format!("{}/{asked}", group.trim_matches('/'))),
            (_, "") => Cow::Borrowed(PARENT),
            (_, asked) => Cow::Borrowed(asked),
        }
    }

    /// The same where it is nobody's but of who has asked, so that it goes with the last of its containers.
    pub(crate) fn asked_parent<'a>(&'a self, asked: &'a str) -> Cow<'a, str> {
        match asked.trim_matches('/') {
            "" => Cow::Borrowed(""),
            asked => self.parent(asked),
        }
    }

    /// Of what the machine can limit (see [`crate::Info::LIMITS`]), what can be limited here.
    pub(crate) fn usable(&self, mut limits: Vec<&'static str>) -> Vec<&'static str> {
        let controllers = match self {
            Self::Machine => return limits,
            Self::HandedDown(group) => controllers(group).unwrap_or_default(),
            Self::Nowhere(_) => String::new(),
        };
        limits.retain(|limit| {
            let controller = match *limit {
                "swap" | "oom-kill" => "memory",
                "cpu-shares" | "cpu-quota" | "cpu-real-time" => "cpu",
                own => own,
            };
            controllers.split_whitespace().any(|there| there == controller)
        });
        limits
    }

    /// Refuse limits by controllers that are not handed down.
    pub(crate) fn check(&self, request: &CreateRequest) -> Result<(), Error> {
        match self {
            Self::Machine => Ok(()),
            Self::HandedDown(group) => {
                let text = controllers(group)?;
                check(request, &text.split_whitespace().collect(), |controller| {
                    format!(
                        "needs the cgroup controller {controller}, which is not handed down to this user: as root, write \
                         the lines [Service] and Delegate=cpu cpuset io memory pids to \
                         /etc/systemd/system/user@.service.d/delegate.conf, then `systemctl daemon-reload` and \
                         `systemctl restart user@UID.service`, which ends what this user runs"
                    )
                })
            }
            Self::Nowhere(why) => check(request, &BTreeSet::new(), |controller| {
                format!(
                    "can't be limited without the right to make cgroups, here by the controller {controller} ({why}): \
                     start the manager where systemd runs services of yours, `systemctl --user start berth`"
                )
            }),
        }
    }
}

/// The controllers of a group, as the kernel lists them.
fn controllers(group: &str) -> Result<String, Error> {
    let file = Path::new(ROOT)
        .join(group.trim_matches('/'))
        .join("cgroup.controllers");
    std::fs::read_to_string(&file).map_err(Error::file("read", &file))
}

/// The first limit whose controller is not in `there` is refused, with `why`.
fn check(request: &CreateRequest, there: &BTreeSet<&str>, why: impl Fn(&str) -> String) -> Result<(), Error> {
    match wanted(request).find(|(_, controller)| !there.contains(controller)) {
        None => Ok(()),
        Some((field, controller)) => Err(Error::invalid(field, why(controller))),
    }
}

/// The fields of limits that are asked for, each with the controller of cgroup v2 that has it.
fn wanted(request: &CreateRequest) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of = &request.resources;
    let disks = [&of.read_bps, &of.write_bps, &of.read_iops, &of.write_iops];
    let limits = [
        ("memory_bytes", "memory", request.memory_bytes > 0),
        ("memory_swap_bytes", "memory", of.memory_swap_bytes != 0),
        (
            "memory_reservation_bytes",
            "memory",
            of.memory_reservation_bytes > 0,
        ),
        ("cpu_quota_millis", "cpu", request.cpu_quota_millis > 0),
        ("cpu_quota_micros", "cpu", of.cpu_quota_micros != 0),
        ("cpu_period_micros", "cpu", of.cpu_period_micros > 0),
        ("cpu_shares", "cpu", of.cpu_shares > 0),
        ("cpuset_cpus", "cpuset", !of.cpuset_cpus.is_empty()),
        ("cpuset_mems", "cpuset", !of.cpuset_mems.is_empty()),
        ("pids_limit", "pids", request.pids_limit > 0),
        (
            "blkio_weight",
            "io",
            of.blkio_weight > 0 || !of.blkio_weight_devices.is_empty(),
        ),
        ("blkio", "io", disks.iter().any(|list| !list.is_empty())),
    ];
    limits
        .into_iter()
        .filter(|(_, _, asked)| *asked)
        .map(|(field, controller, _)| (field, controller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_below_what_was_handed_down() {
        let own = Groups::HandedDown("/user.slice/berth.scope".to_owned());
        assert_eq!(own.parent(""), "user.slice/berth.scope");
        assert_eq!(own.parent("/machines/"), "user.slice/berth.scope/machines");
        assert_eq!(own.asked_parent("/"), "");
        assert_eq!(own.asked_parent("a/b"), "user.slice/berth.scope/a/b");
        assert_eq!(Groups::Machine.parent(""), "berth");
        assert_eq!(Groups::Machine.asked_parent("/a"), "a");
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_by_name() {
        let request = CreateRequest {
            memory_bytes: 64 << 20,
            cpu_quota_millis: 500,
            ..CreateRequest::default()
        };
        let refused = |there: &[&str]| {
            let there = there.iter().copied().collect();
            check(&request, &there, |controller| format!("no {controller}"))
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(refused(&["cpu", "memory"]), None);
        assert!(refused(&["memory", "pids"]).is_some_and(|error| error.contains("no cpu")));
        assert!(refused(&[]).is_some_and(|error| error.contains("no memory")));
        let plain = CreateRequest::default();
        assert!(check(&plain, &BTreeSet::new(), str::to_owned).is_ok());
    }
}
