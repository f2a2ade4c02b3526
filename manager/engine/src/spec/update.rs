//! The difference between the limits of a container as it was asked for and as it is to be, for a run that goes on.

use serde_json::{Value, json};

use crate::request::CreateRequest;

/// Groups of `linux.resources` that can change under a running container.
const GROUPS: [&str; 4] = ["memory", "cpu", "pids", "blockIO"];

/// A `linux.resources` that makes `old` into `new`; None: there is nothing to do. A group that differs is given whole,
/// for the kernel wants some of its values in an order that depends on the others.
pub(crate) fn update(old: &CreateRequest, new: &CreateRequest) -> Option<Value> {
    let (old, new) = (super::resources(old), super::resources(new));
    let mut changes = json!({});
    for group in GROUPS.iter().filter(|group| old[**group] != new[**group]) {
        let mut values = new[*group].as_object().cloned().unwrap_or_default();
        for name in old[*group]
            .as_object()
            .into_iter()
            .flat_map(|values| values.keys())
        {
            // What has no limit any more.
            values.entry(name.clone()).or_insert_with(|| json!(-1));
        }
        changes[*group] = values.into();
    }
    changes
        .as_object()
        .is_some_and(|groups| !groups.is_empty())
        .then_some(changes)
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
        assert_eq!(update(&old, &old), None);
        let new = CreateRequest {
            pids_limit: 0,
            cpu_quota_millis: 500,
            ..old.clone()
        };
        let expected = json!({"cpu": {"period": 100_000, "quota": 50_000}, "pids": {"limit": -1}});
        assert_eq!(update(&old, &new), Some(expected));
        let memory = update(&CreateRequest::default(), &old).unwrap();
        assert_eq!(memory["memory"]["limit"], 64 << 20);
    }
}
