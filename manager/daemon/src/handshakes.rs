//! Who connects over TCP and has not said yet who it is. Nobody is known then, so that anybody could fill the manager's
//! memory and descriptors: how many may be at it is bounded, together and for each address, and one that is silent goes
//! when another needs its place. So strangers hold up each other, and others for a second at most, and not for the whole
//! time that one may take who is alone.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Together; others wait in the kernel's queue.
const ALL_MAX: usize = 256;
/// Of one address. Many clients may come from one at once, and each takes milliseconds.
const ADDRESS_MAX: usize = 64;
/// Who has said nothing for so long may have to make room.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it is remembered of an address that there were such: the next ones make room at once.
const MEMORY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Handshakes {
    waiting: Mutex<Waiting>,
    left: Notify,
}

#[derive(Default)]
struct Waiting {
    addresses: HashMap<IpAddr, Address>,
    all: usize,
    last_number: u64,
}

#[derive(Default)]
struct Address {
    /// The oldest first.
    clients: VecDeque<Client>,
    silent_until: Option<Instant>,
}

struct Client {
    number: u64,
    since: Instant,
    /// Ends it; there as soon as it has begun.
    task: Option<AbortHandle>,
}

/// A client's place among those that wait, given back when this is dropped.
pub(crate) struct Place {
    handshakes: Arc<Handshakes>,
    address: IpAddr,
    number: u64,
}

impl Handshakes {
    /// Wait for a place for who comes from an address.
    pub(crate) async fn enter(self: &Arc<Self>, from: IpAddr) -> Place {
        let address = share_of(from);
        loop {
            let left = self.left.notified();
            let entered = self.with(|waiting| waiting.enter(address, Instant::now()));
            match entered {
                Ok(number) => {
                    return Place {
                        handshakes: Arc::clone(self),
                        address,
                        number,
                    };
                }
                // Whoever says who it is makes room sooner.
                Err(patience) => {
                    let _ = tokio::time::timeout(patience, left).await;
                }
            }
        }
    }

    /// By this the client of a place is ended, if it has to make room.
    pub(crate) fn begun(&self, address: IpAddr, number: u64, task: AbortHandle) {
        self.with(|waiting| {
            let clients = waiting.addresses.get_mut(&address).map(|of| &mut of.clients);
            if let Some(client) = clients.and_then(|all| all.iter_mut().find(|one| one.number == number)) {
                client.task = Some(task);
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// Where it is, for [`Handshakes::begun`].
    pub(crate) fn key(&self) -> (IpAddr, u64) {
        (self.address, self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes
            .with(|waiting| waiting.leave(self.address, self.number));
        self.handshakes.left.notify_waiters();
    }
}

impl Waiting {
    /// The number of who enters, or how long it has to wait at most before it may.
    fn enter(&mut self, address: IpAddr, now: Instant) -> Result<u64, Duration> {
        let of_it = self.addresses.get(&address).map_or(0, |of| of.clients.len());
        if of_it >= ADDRESS_MAX {
            self.make_room(address, now)?;
        } else if self.all >= ALL_MAX {
            let most = self.addresses.iter().max_by_key(|(_, of)| {
                // Among equals whoever has been silent for the longest: a fresh one would have to be waited for.
                (
                    of.clients.len(),
                    of.clients.front().map(|oldest| Reverse(oldest.since)),
                )
            });
            if let Some((&most, _)) = most {
                self.make_room(most, now)?;
            }
        }
        self.last_number += 1;
        self.all += 1;
        let client = Client {
            number: self.last_number,
            since: now,
            task: None,
        };
        self.addresses
            .entry(address)
            .or_default()
            .clients
            .push_back(client);
        Ok(self.last_number)
    }

    /// End the oldest of an address.
    fn make_room(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(of) = self.addresses.get_mut(&address) else {
            return Ok(());
        };
        let Some(oldest) = of.clients.front() else {
            return Ok(());
        };
        let silent_for = now.duration_since(oldest.since);
        let is_known_for_it = of.silent_until.is_some_and(|until| now < until);
        if silent_for < PATIENCE && !is_known_for_it {
            return Err(PATIENCE.saturating_sub(silent_for));
        }
        of.silent_until = Some(now + MEMORY);
        if let Some(oldest) = of.clients.pop_front() {
            self.all -= 1;
            oldest.task.inspect(AbortHandle::abort);
        }
        Ok(())
    }

    fn leave(&mut self, address: IpAddr, number: u64) {
        let Some(of) = self.addresses.get_mut(&address) else {
            return;
        };
        let before = of.clients.len();
        of.clients.retain(|client| client.number != number);
        self.all -= before - of.clients.len();
        // What is remembered of the others goes with this, so that nobody fills memory with addresses.
        if of.clients.is_empty() {
            self.addresses.remove(&address);
        }
    }
}

/// Whoever has an IPv6 address has a network of them.
fn share_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_holds_up_itself_and_nobody_else() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for _ in 0..ADDRESS_MAX {
            waiting.enter(address(1), now).unwrap();
        }
        assert_eq!(waiting.enter(address(1), now), Err(PATIENCE));
        waiting.enter(address(2), now).unwrap();
        // From then on the oldest make room at once.
        let later = now + PATIENCE;
        for _ in 0..2 * ADDRESS_MAX {
            waiting.enter(address(1), later).unwrap();
        }
        assert_eq!(waiting.all, ADDRESS_MAX + 1);
    }

    #[test]
    fn of_many_addresses_that_which_has_most_makes_room() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for number in 0..ALL_MAX {
            let last = u8::try_from(number / ADDRESS_MAX).unwrap();
            waiting.enter(address(last), now).unwrap();
        }
        assert_eq!(waiting.enter(address(200), now), Err(PATIENCE));
        let number = waiting.enter(address(200), now + PATIENCE).unwrap();
        assert_eq!(waiting.all, ALL_MAX);
        waiting.leave(address(200), number);
        // It had been ended before.
        waiting.leave(address(200), number);
        assert_eq!(waiting.all, ALL_MAX - 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let parse = |text: &str| share_of(text.parse().unwrap());
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_eq!(parse("::ffff:192.0.2.1"), address(1));
    }
}
