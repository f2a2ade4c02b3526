//! The network on a real kernel, as a user sees it with `ip` and `nft`. Needs root.
//!
//! Each test runs in a network namespace of its own, which plays the host, so the real host is not touched and
//! the tests do not see each other.

mod attach;
mod bridge;
mod killed;
mod namespace;
mod ports;
mod resolver;
mod traffic;
mod v6;
