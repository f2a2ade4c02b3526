//! Containers: the one place where a rule of their behaviour lives. Front doors translate to [`Engine`] and
//! decide nothing.
//!
//! An operation is answered after its transaction is on disk. Each container has one owner task through which
//! its changes go (`lifecycle`); a start is told top to bottom in `run`, its end in `teardown`; what a manager
//! that died has left is put right in `reconcile`. Data that outlives containers is in `volumes`.

mod archives;
mod attach;
mod bundle;
mod cgroup_parents;
mod commit;
mod config;
mod container;
mod cp;
mod create;
mod defaults;
mod engine;
mod error;
mod etc_files;
mod events;
mod exec;
mod groups;
mod health;
mod images;
mod info;
mod input;
mod joined;
mod leases;
mod lifecycle;
mod links;
mod list;
mod logs;
mod member;
mod name_servers;
mod names;
mod networks;
mod outside;
mod owner;
mod ports;
mod prune;
mod reconcile;
mod registries;
mod registry;
mod request;
mod restart;
mod run;
mod shim;
mod signal;
mod signals;
mod spec;
mod stats;
mod store;
mod sys;
mod tally;
mod teardown;
mod top;
mod usage;
mod userns;
mod version;
mod volumes;

pub use archives::ImportRequest;
pub use attach::{AttachRequest, Attachment};
pub use commit::CommitRequest;
pub use config::Config;
pub use container::{Container, Exit, State};
pub use cp::CopyRequest;
pub use defaults::{AddressPool, Defaults};
pub use dns::Totals as DnsTotals;
pub use engine::{Engine, Inspection};
pub use error::{Error, Kind};
pub use events::{Event, EventFilters, EventsRequest, Listener};
pub use exec::{ExecAttachment, ExecRequest};
pub use groups::Groups;
pub use health::{Health, HealthStatus, Probe};
pub use image::{Layers, PathStat, PolicyFile, SPANS};
pub use info::{Counts, Info};
pub use input::{Input, Output};
pub use list::ListFilters;
pub use logs::{LogsRequest, Record, Stream};
pub use network::{Protocol, PublishedPort};
pub use networks::{
    CniConfig, Joined, Joining, Member, NetworkFilters, NetworkInspection, NetworkRequest, Range, Range6,
    Told, UserNetwork, UserNetwork6,
};
pub use prune::{PruneFilters, Pruned};
pub use request::{
    Bind, BindSource, CreateRequest, Device, DeviceValue, Healthcheck, HostEntry, ImageSource, Isolation,
    LOG_DRIVERS, Link, Logging, Mount, Names, Network, PortRange, Ports, Publish, Recursion, Resources,
    RestartPolicy, Source, Storage, TmpfsSource, Ulimit, UpdateRequest, VolumeSource, memory_in_bytes,
};
pub use signals::Until;
pub use stats::{INTERVAL as STATS_INTERVAL, Sampler, Stats, Usage};
pub use tally::Numbers;
pub use top::Processes;
pub use usage::{ContainerSize, ContainerUsage, DiskUsage, VolumeUsage};
pub use userns::Remap;
pub use version::{Version, kernel};
pub use volumes::{Volume, VolumeFilters, VolumeRequest};
