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
    let (old, new) = (limits(old)?, limits(new)?);
    let mut changes = json!({});
    for group in GROUPS.iter().filter(|group| old[**group] != new[**group]) {
        let mut values = new[*group].as_object().cloned().unwrap_or_default();
        let old = old[*group].as_object().into_iter().flatten();
        for (name, _) in old.filter(|(name, _)| LIMITS.contains(&name.as_str())) {
            // What has no limit any more.
            values.entry(name.clone()).or_insert_with(|| json!(-1));
        }
        changes[*group] = values.into();
    }
    let differ = changes.as_object().is_some_and(|groups| !groups.is_empty());
    Ok(differ.then_some(changes))
}

fn limits(request: &CreateRequest) -> Result<Value, Error> {
    let cgroups = Cgroups::of_this_machine();
    let (usable, _) = resources::usable(request, &cgroups);
    resources::section(request, &usable, &cgroups, &[])
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
