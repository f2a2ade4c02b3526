//! The network of containers: one Linux bridge on the host, a veth pair for each container, and NAT for what
//! leaves the subnet.
//!
//! ```text
//!   container's netns            host
//!   ┌──────────────┐   veth   ┌───────────────────┐  forward, masquerade
//!   │ eth0 ────────┼──────────┼─ bth… ─ berth0 ───┼───────────────────────► outside
//!   │ lo           │          │        gateway    │  nftables `table inet berth`
//!   └──────────────┘          └───────────────────┘
//! ```
//!
//! The engine calls [`Bridge::ensure`] when it starts, and [`Bridge::attach`] and [`Publisher::publish`] between a
//! container's create and start. It allocates the addresses; this crate keeps no state of its own: what the kernel holds is the
//! truth, and each object's name and alias tell whose it is. Everything is synchronous, spoken over netlink, and no
//! program is run. IPv4 always, and IPv6 besides where a bridge is to have it (`v6.rs`).
//!
//! Other tables of the host are never touched. So a `drop` in one of them stays in force, because an `accept`
//! in one nftables (or iptables) base chain does not end the traversal of the others: where dockerd runs, the
//! FORWARD chain of iptables has the policy DROP, and containers here reach the outside only after
//! `iptables -I DOCKER-USER -i berth0 -j ACCEPT` and `iptables -I DOCKER-USER -o berth0 -j ACCEPT`. The same
//! holds for traffic between two containers while `net.bridge.bridge-nf-call-iptables` is 1.

mod bridge;
mod conntrack;
mod endpoint;
mod error;
mod ipv6;
mod namespace;
mod netlink;
mod nft;
mod owner;
mod ports;
mod resolver;
mod route;
mod sublink;
mod subnet;
mod subnet6;
mod sysctl;
mod v6;
mod watch;

pub use bridge::{Attached, Bridge};
pub use endpoint::{Endpoint, link_id, link_name};
pub use error::Error;
pub use namespace::within;
pub use ports::{Protocol, PublishedPort, Publisher, Target, Target6};
pub use resolver::{RESOLVER_ADDRESS, ResolverSockets};
pub use sublink::{IpvlanFlag, IpvlanMode, MacvlanMode, Sublink, SublinkKind};
pub use subnet::mac_of;
pub use sysctl::LinkSysctl;
pub use v6::{Bridge6, OF_LINK as BRIDGE_LINK_LOCAL};
pub use watch::RulesWatch;
