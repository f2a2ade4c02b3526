//! Addresses that nobody has on record and that are in use still: the record of a container that removes itself goes
//! while its links go. In memory: what a manager that is killed leaves of links, the next one takes away first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The network's id, which is empty for the default bridge, and the address.
type Address = (String, IpAddr);

/// Addresses of one network, as numbers.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pub(super) v4: BTreeSet<u32>,
    pub(super) v6: BTreeSet<u128>,
}

#[derive(Debug, Default)]
pub(super) struct LeavingSet(Mutex<Vec<Address>>);

/// While it lives, its addresses are nobody's.
#[derive(Debug)]
pub(crate) struct StillThere {
    set: Arc<LeavingSet>,
    addresses: Vec<Address>,
}

impl LeavingSet {
    /// Those of a network.
    pub(super) fn of(&self, network: &str) -> Leaving {
        let mut leaving = Leaving::default();
        for (_, address) in self.locked().iter().filter(|(of, _)| of == network) {
            match address {
                IpAddr::V4(v4) => leaving.v4.insert(v4.to_bits()),
                IpAddr::V6(v6) => leaving.v6.insert(v6.to_bits()),
            };
        }
        leaving
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Address>> {
        // Each change is one call, so a panic elsewhere leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StillThere {
    pub(super) fn new(set: &Arc<LeavingSet>, addresses: impl Iterator<Item = Address>) -> Self {
        let addresses: Vec<_> = addresses.collect();
        set.locked().extend(addresses.iter().cloned());
        Self {
            set: Arc::clone(set),
            addresses,
        }
    }
}

impl Drop for StillThere {
    fn drop(&mut self) {
        let mut all = self.set.locked();
        for address in &self.addresses {
            if let Some(place) = all.iter().position(|leaving| leaving == address) {
                all.swap_remove(place);
            }
        }
    }
}
