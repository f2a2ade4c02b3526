//! The little of D-Bus that a runtime needs to talk to systemd: method calls and signals over a stream socket, one at
//! a time, blocking. Client libraries bring an executor or a C library, both of which cost more than a whole start of
//! a container. See the D-Bus specification, version 0.43.
//!
//! - [`value`] has values and how they lie in a message.
//! - [`message`] has calls out, replies and signals in.
//! - [`connection`] has the socket, from authentication on.

mod connection;
mod message;
mod value;

pub(super) use connection::{Connection, Failure};
pub(super) use message::Call;
pub(super) use value::Value;
