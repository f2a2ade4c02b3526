//! The name server of containers on user-defined networks, as docker has it at 127.0.0.11: it answers for the names
//! of other containers and passes every other question on to the servers of the host or of the container.
//!
//! ```text
//!   container's netns                       host's netns
//!   ┌───────────────────────────────┐
//!   │ 127.0.0.11:53 ─rule─► :port ──┼─► serve ─ a container's name ─► View, at once
//!   │                               │     │
//!   │ a server of --dns ◄───────────┼─────┴───── anything else ─────► a server of the host's
//!   └───────────────────────────────┘
//! ```
//!
//! The engine opens the sockets (`network::ResolverSockets`) between a container's create and start, gives them to
//! [`serve`] with a [`View`], and drops the [`Service`] at the end of the run. This crate knows messages and servers;
//! which names there are is the engine's business. One task a container, no thread, no state that outlives it, and
//! no cache: what the servers said is passed on as it came.
//!
//! Questions come from containers and answers from the network, so neither is trusted: of a question only the header
//! and the name are read before it is passed on, an answer counts only if it comes from the server that was asked, with
//! the id and the question it was asked, and what one container may have under way is bounded.

mod answer;
mod connection;
mod forward;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host;
mod question;
mod server;
mod totals;
mod upstream;

use std::net::{IpAddr, SocketAddr};

pub use host::HostServers;
pub use server::{Service, serve};
pub use totals::{Totals, totals};

/// What one container may know, as it is at the moment of each question.
pub trait View: Send + Sync + 'static {
    /// The addresses behind `name`, which is in lower case and without a dot at its end. None: it is nobody's here,
    /// and the servers are asked. None of a family: the name is known, and has no address of it.
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The full name of the container that has `address`, for the container that asks.
    fn name_of(&self, address: IpAddr) -> Option<String>;

    /// Whom to ask for all other names, in this order.
    fn servers(&self) -> Vec<Server>;

    /// Whether the container's own resolver adds domains to names without a dot before it asks for them as they are
    /// (`ndots` above 0). Then the outside is not asked for such names.
    fn completes_names(&self) -> bool;
}

/// A server for names that are no container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it is asked from.
    pub side: Side,
}

/// A network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The container's: the question takes the way, and meets the firewall, of all that the container sends.
    Container,
    /// The manager's own. Not for containers that are to have no way out.
    Host,
}
