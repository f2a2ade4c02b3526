//! What plugins have made, in memory: which containers they have to be asked about, and what they have told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Told;

/// By container and network. None: they have been asked, and what they made is not known.
#[derive(Debug, Default)]
pub(in crate::networks) struct Held {
    known: Mutex<ByContainer>,
    /// For one container, plugins are asked one thing at a time.
    turns: Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

type ByContainer = BTreeMap<String, BTreeMap<String, Option<Arc<Told>>>>;

impl Held {
    fn locked(&self) -> MutexGuard<'_, ByContainer> {
        // Each change is one call, so a panic elsewhere leaves no half of one.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wait until nobody else asks plugins about a container.
    pub(super) async fn turn(&self, container: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let there = turns.get(container).and_then(Weak::upgrade);
            let turn = there.unwrap_or_default();
            turns.insert(container.to_owned(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }

    pub(super) fn begin(&self, container: &str, network: &str) {
        let mut held = self.locked();
        held.entry(container.to_owned())
            .or_default()
            .insert(network.to_owned(), None);
    }

    pub(super) fn tell(&self, container: &str, network: &str, told: Told) {
        let mut held = self.locked();
        let of_container = held.entry(container.to_owned()).or_default();
        of_container.insert(network.to_owned(), Some(Arc::new(told)));
    }

    pub(super) fn end(&self, container: &str, network: &str) {
        let mut held = self.locked();
        if let Some(of_container) = held.get_mut(container) {
            of_container.remove(network);
            if of_container.is_empty() {
                held.remove(container);
            }
        }
    }

    pub(super) fn forget(&self, container: &str) {
        self.locked().remove(container);
    }

    pub(super) fn has_any(&self, container: &str) -> bool {
        self.locked().contains_key(container)
    }

    pub(super) fn has(&self, container: &str, network: &str) -> bool {
        let held = self.locked();
        held.get(container)
            .is_some_and(|networks| networks.contains_key(network))
    }

    pub(in crate::networks) fn told(&self, container: &str, network: &str) -> Option<Arc<Told>> {
        self.locked().get(container)?.get(network)?.clone()
    }

    pub(super) fn all_of(&self, container: &str) -> Vec<Arc<Told>> {
        let held = self.locked();
        let networks = held.get(container).into_iter().flat_map(BTreeMap::values);
        networks.flatten().cloned().collect()
    }
}
