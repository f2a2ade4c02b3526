//! All containers by id, and how people find one: by id, by name, or by a prefix of the id that is unique.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Error;
use crate::lifecycle::Handle;

#[derive(Default)]
pub(crate) struct Registry {
    by_id: Mutex<BTreeMap<String, Arc<Handle>>>,
}

impl Registry {
    pub(crate) fn insert(&self, handle: Arc<Handle>) {
        self.locked().insert(handle.id.clone(), handle);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.locked().remove(id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.locked().values().cloned().collect()
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Handle>> {
        self.locked()
            .values()
            .find(|handle| handle.has_name(name))
            .cloned()
    }

    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Handle>, Error> {
        let by_id = self.locked();
        if let Some(handle) = by_id
            .get(wanted)
            .or_else(|| by_id.values().find(|handle| handle.has_name(wanted)))
        {
            return Ok(Arc::clone(handle));
        }
        let found = begins_with(&by_id, wanted);
        match found.as_slice() {
            [] => Err(Error::NoSuchContainer(wanted.to_owned())),
            [one] => Ok(Arc::clone(one)),
            several => Err(Error::Ambiguous {
                prefix: wanted.to_owned(),
                count: several.len(),
            }),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Handle>>> {
        // Each change is one call, so a panic elsewhere leaves no half of one.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begins_with<T: Clone>(by_id: &BTreeMap<String, T>, prefix: &str) -> Vec<T> {
    if prefix.is_empty() {
        return Vec::new();
    }
    let from = by_id.range(prefix.to_owned()..);
    from.take_while(|(id, _)| id.starts_with(prefix))
        .map(|(_, value)| value.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_finds_what_begins_with_it() {
        let ids: BTreeMap<String, u8> = [("aa1", 1), ("ab2", 2), ("ab3", 3), ("b", 4)]
            .map(|(id, value)| (id.to_owned(), value))
            .into();
        assert_eq!(begins_with(&ids, "aa"), [1]);
        assert_eq!(begins_with(&ids, "ab"), [2, 3]);
        assert_eq!(begins_with(&ids, "c"), [] as [u8; 0]);
        assert_eq!(begins_with(&ids, ""), [] as [u8; 0]);
    }
}
