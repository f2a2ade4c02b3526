//! The difference between the limits of a container as it was asked for and as it is to be, for a run that goes on.

use serde_json::{Value, json};

use super::cgroups::Cgroups;
use super::resources;
use crate::Error;
use crate::request::CreateRequest;

/// Groups of `linux.resources` that can change under a running container.
const GROUPS: [&str; 4] = ["memory", "cpu", "pids", "blockIO"];
/// Of these -1 is no limit.
const LIMITS: [&str; 4] = ["limit", "swap", "reservation", "quota"];

/// A `linux.resources` that makes `old` into `new`; None: there is nothing to do. A group that differs is given whole,
/// for the kernel wants some of its values in an order that depends on the others.
pub(crate) fn update(old: &CreateRequest, new: &CreateRequest) -> Result<Option<Value>, Error> {
    let cgroups = Cgroups::of_this_machine();
    let (old, new) = (limits(old, &cgroups)?, limits(new, &cgroups)?);
    let mut changes = json!({});
    for group in GROUPS.iter().filter(|group| old[**group] != new[**group]) {
        let had = old[*group].as_object().into_iter().flatten();
        changes[*group] = freed(&new[*group], had.map(|(name, _)| name.as_str()));
    }
    Ok(Some(changes).filter(|changes| changes != &json!({})))
}

/// A `linux.resources` that makes a run into `new` whatever limits it has.
pub(crate) fn update_from_any(new: &CreateRequest) -> Result<Value, Error> {
    let cgroups = Cgroups::of_this_machine();
    let new = limits(new, &cgroups)?;
    let mut changes = json!({});
    for group in GROUPS {
        let of_group = freed(&new[group], known_limits(group, &cgroups).into_iter());
        if of_group != json!({}) {
            changes[group] = of_group;
        }
    }
    Ok(changes)
}

/// `values`, with no limit where one of `had` is not among them.
fn freed<'a>(values: &Value, had: impl Iterator<Item = &'a str>) -> Value {
    let mut values = values.as_object().cloned().unwrap_or_default();
    for name in had.filter(|name| LIMITS.contains(name)) {
        values.entry(name).or_insert_with(|| json!(-1));
    }
    values.into()
}

/// The limits of a group that this kernel has.
fn known_limits(group: &str, cgroups: &Cgroups) -> Vec<&'static str> {
    let has = |controller: &str, v1: &str, v2: &str| cgroups.offer(controller, &[v1], &[v2]);
    let mut names = match group {
        "memory" => vec![
            ("limit", has("memory", "memory.limit_in_bytes", "memory.max")),
            ("swap", cgroups.count_swap()),
            (
                "reservation",
                has("memory", "memory.soft_limit_in_bytes", "memory.low"),
            ),
        ],
        "cpu" => vec![("quota", has("cpu", "cpu.cfs_quota_us", "cpu.max"))],
        "pids" => vec![("limit", has("pids", "pids.max", "pids.max"))],
        _ => Vec::new(),
    };
    names.retain(|(_, has)| *has);
    names.into_iter().map(|(name, _)| name).collect()
}

fn limits(request: &CreateRequest, cgroups: &Cgroups) -> Result<Value, Error> {
    let (usable, _) = resources::usable(request, cgroups);
    resources::section(request, &usable, cgroups, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told_and_what_is_gone_has_no_limit() {
        let old = CreateRequest {
            memory_bytes: 64 << 20,
            pids_limit: 5,
            ..CreateRequest::default()
        };
        assert_eq!(update(&old, &old).unwrap(), None);
        let new = CreateRequest {
            pids_limit: 0,
            cpu_quota_millis: 500,
            ..old.clone()
        };
        let expected = json!({"cpu": {"period": 100_000, "quota": 50_000}, "pids": {"limit": -1}});
        assert_eq!(update(&old, &new).unwrap(), Some(expected));
        let memory = update(&CreateRequest::default(), &old).unwrap().unwrap();
        assert_eq!(memory["memory"]["limit"], 64 << 20);
    }
}
