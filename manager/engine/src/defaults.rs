//! What a container or a network gets where nothing else is asked for. It may change while the manager runs, all of it
//! at once: what is made afterwards has it, and what is there keeps what it was made with.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

use crate::Error;
use crate::engine::Engine;
use crate::networks::Range;
use crate::request::{CreateRequest, Logging, Names, Network, Ulimit};

/// A pool is cut into so many subnets at most, in bits: each of them may be looked at for one that is free.
const CUTS_MAX_BITS: u8 = 16;
/// Subnets have from 16 million addresses to one container's.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;
const POOLS_MAX: usize = 64;
/// Nobody needs more, and the kernel would be asked for it at each container.
const SHM_MAX_BYTES: u64 = 1 << 40;

/// Docker's: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 by 4,096 addresses.
const DOCKERS_POOLS: [(Ipv4Addr, u8, u8); 5] = [
    (Ipv4Addr::new(172, 17, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 18, 0, 0), 15, 16),
    (Ipv4Addr::new(172, 20, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 24, 0, 0), 13, 16),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 20),
];

/// What is left out of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// What becomes of containers' output.
    pub logging: Logging,
    /// Size of /dev/shm; 0: 64 MiB.
    pub shm_bytes: u64,
    /// Of containers that have none of the same name.
    pub ulimits: Vec<Ulimit>,
    /// Whom containers ask for names. Its `hosts` are nobody's.
    pub names: Names,
    /// Where subnets of networks come from; none: docker's.
    pub address_pools: Vec<AddressPool>,
}

/// Addresses for networks that name no subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    /// All of them.
    pub base: Range,
    /// The length of each network's prefix, in bits.
    pub size: u8,
}

impl Defaults {
    /// Whether each of them could stand in a request.
    pub fn check(&self) -> Result<(), Error> {
        self.logging.check()?;
        self.names.check()?;
        self.ulimits.iter().try_for_each(Ulimit::check)?;
        if self.shm_bytes > SHM_MAX_BYTES {
            return Err(Error::invalid("default_shm_size", "is more than 1 TiB"));
        }
        if self.address_pools.len() > POOLS_MAX {
            let rule = format!("more than {POOLS_MAX} pools");
            return Err(Error::invalid("default_address_pools", rule));
        }
        self.address_pools
            .iter()
            .copied()
            .try_for_each(AddressPool::check)
    }

    /// Put them in the place of what `request` leaves out.
    pub(crate) fn fill(&self, request: &mut CreateRequest) {
        request.logging = std::mem::take(&mut request.logging).or(&self.logging);
        let resources = &mut request.resources;
        let has_own_shm = matches!(request.isolation.ipc.as_str(), "" | "private" | "shareable");
        if resources.shm_bytes == 0 && has_own_shm {
            resources.shm_bytes = self.shm_bytes;
        }
        for ulimit in &self.ulimits {
            if !resources.ulimits.iter().any(|own| own.name == ulimit.name) {
                resources.ulimits.push(ulimit.clone());
            }
        }
        // The files of a container that it shares a network with are its own.
        if request.network == Network::Container {
            return;
        }
        let names = &mut request.names;
        for (own, default) in [
            (&mut names.servers, &self.names.servers),
            (&mut names.search, &self.names.search),
            (&mut names.options, &self.names.options),
        ] {
            if own.is_empty() {
                own.clone_from(default);
            }
        }
    }

    /// Where a network that names no subnet may be: address and prefix, one after the other.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        let dockers = DOCKERS_POOLS.map(|(first, prefix, size)| AddressPool {
            base: Range { first, prefix },
            size,
        });
        let pools = if self.address_pools.is_empty() {
            dockers.to_vec()
        } else {
            self.address_pools.clone()
        };
        pools.into_iter().flat_map(AddressPool::subnets)
    }
}

impl AddressPool {
    fn check(self) -> Result<(), Error> {
        let AddressPool { base, size } = self;
        let refuse = |rule: String| {
            let rule = format!("base {base}, size {size}: {rule}");
            Err(Error::invalid("default_address_pools", rule))
        };
        if !PREFIXES.contains(&size) {
            return refuse(format!(
                "the size of networks must be from {} to {} bits of prefix",
                PREFIXES.start(),
                PREFIXES.end()
            ));
        }
        if size < base.prefix {
            return refuse("networks of this size do not fit into the base".to_owned());
        }
        if size - base.prefix > CUTS_MAX_BITS {
            return refuse(format!(
                "a base is cut into 2^{CUTS_MAX_BITS} networks at most: take larger ones, or a smaller base"
            ));
        }
        Ok(())
    }

    fn subnets(self) -> impl Iterator<Item = (Ipv4Addr, u8)> {
        let step = 1_u64 << (32 - u32::from(self.size));
        let count = 1_u64 << (self.size - self.base.prefix);
        let first = u64::from(self.base.first.to_bits());
        // Below 2^32: the last of them ends where the base does.
        (0..count).map(move |nth| (Ipv4Addr::from_bits((first + nth * step) as u32), self.size))
    }
}

/// Those that hold now.
pub(crate) struct Current(RwLock<Arc<Defaults>>);

impl Current {
    pub(crate) fn new(defaults: Defaults) -> Current {
        Current(RwLock::new(Arc::new(defaults)))
    }

    pub(crate) fn get(&self) -> Arc<Defaults> {
        // What is changed is one pointer: a panic elsewhere leaves no half of it.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// From now on these hold, all of them at once; if one of them is not right, those before do.
    pub fn set_defaults(&self, defaults: Defaults) -> Result<(), Error> {
        defaults.check()?;
        let mut current = self.0.defaults.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(defaults);
        Ok(())
    }

    /// Those that hold now.
    pub fn defaults(&self) -> Arc<Defaults> {
        self.0.defaults.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(base: &str, size: u8) -> AddressPool {
        AddressPool {
            base: base.parse().unwrap(),
            size,
        }
    }

    fn ulimit(name: &str, soft: i64) -> Ulimit {
        Ulimit {
            name: name.to_owned(),
            soft,
            hard: soft,
        }
    }

    #[test]
    fn pools_are_cut_into_networks_in_order() {
        let mut defaults = Defaults::default();
        let dockers: Vec<_> = defaults.subnets().collect();
        assert_eq!(dockers[0], (Ipv4Addr::new(172, 17, 0, 0), 16));
        assert_eq!(dockers[14], (Ipv4Addr::new(172, 31, 0, 0), 16));
        assert_eq!(dockers[15], (Ipv4Addr::new(192, 168, 0, 0), 20));
        assert_eq!(dockers[30], (Ipv4Addr::new(192, 168, 240, 0), 20));
        assert_eq!(dockers.len(), 31);
        defaults.address_pools = vec![pool("255.255.255.0/24", 25), pool("10.0.0.0/30", 30)];
        let own: Vec<_> = defaults.subnets().collect();
        assert_eq!(
            own,
            [
                (Ipv4Addr::new(255, 255, 255, 0), 25),
                (Ipv4Addr::new(255, 255, 255, 128), 25),
                (Ipv4Addr::new(10, 0, 0, 0), 30),
            ]
        );
    }

    #[test]
    fn a_pool_that_gives_no_network_or_too_many_is_refused() {
        for (base, size) in [
            ("10.0.0.0/24", 16),
            ("10.0.0.0/24", 31),
            ("10.0.0.0/8", 25),
            ("0.0.0.0/0", 7),
        ] {
            assert!(pool(base, size).check().is_err(), "{base} by {size}");
        }
        pool("10.0.0.0/8", 24).check().unwrap();
    }

    #[test]
    fn what_a_request_says_counts_and_the_rest_is_filled_in() {
        let defaults = Defaults {
            shm_bytes: 1 << 20,
            ulimits: vec![ulimit("nofile", 10), ulimit("core", 0)],
            names: Names {
                servers: vec!["10.0.0.1".to_owned()],
                search: vec!["example".to_owned()],
                ..Names::default()
            },
            ..Defaults::default()
        };
        let mut request = CreateRequest::default();
        request.resources.ulimits = vec![ulimit("nofile", 20)];
        request.names.servers = vec!["10.0.0.2".to_owned()];
        defaults.fill(&mut request);
        assert_eq!(request.resources.shm_bytes, 1 << 20);
        assert_eq!(
            request.resources.ulimits,
            [ulimit("nofile", 20), ulimit("core", 0)]
        );
        assert_eq!(request.names.servers, ["10.0.0.2"]);
        assert_eq!(request.names.search, ["example"]);

        let mut of_other = CreateRequest {
            network: Network::Container,
            ..CreateRequest::default()
        };
        of_other.isolation.ipc = "host".to_owned();
        defaults.fill(&mut of_other);
        assert_eq!(of_other.resources.shm_bytes, 0);
        assert_eq!(of_other.names, Names::default());
    }
}
