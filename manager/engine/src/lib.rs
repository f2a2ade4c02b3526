//! Containers: the one place where a rule of their behaviour lives. Front doors translate to [`Engine`] and
//! decide nothing.
//!
//! An operation is answered after its transaction is on disk. Each container has one owner task through which
//! its changes go (`lifecycle`); a start is told top to bottom in `run`, its end in `teardown`; what a manager
//! that died has left is put right in `reconcile`. Data that an image declares as a volume is kept in the
//! container's writable layer; only binds lie outside of it.

mod archives;
mod attach;
mod bundle;
mod commit;
mod config;
mod container;
mod create;
mod engine;
mod error;
mod etc_files;
mod events;
mod exec;
mod images;
mod input;
mod leases;
mod lifecycle;
mod logs;
mod names;
mod owner;
mod prune;
mod reconcile;
mod registries;
mod registry;
mod request;
mod run;
mod shim;
mod signal;
mod signals;
mod spec;
mod store;
mod sys;
mod teardown;
mod top;
mod usage;
mod version;

pub use archives::ImportRequest;
pub use attach::{AttachRequest, Attachment};
pub use commit::CommitRequest;
pub use config::Config;
pub use container::{Container, Exit, State};
pub use engine::{Engine, Inspection};
pub use error::{Error, Kind};
pub use events::{Event, Listener};
pub use exec::{ExecAttachment, ExecRequest};
pub use image::{Layers, PolicyFile};
pub use input::{Input, Output};
pub use logs::{LogsRequest, Record, Stream};
pub use prune::{ContainerFilters, Pruned};
pub use request::{Bind, CreateRequest, Device, DeviceValue, Network, Resources, Ulimit};
pub use signals::Until;
pub use top::Processes;
pub use usage::ContainerUsage;
pub use version::Version;
