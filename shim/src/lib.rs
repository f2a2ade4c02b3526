//! Berth's shim: the parent of containers, and containerd's shim v2.
//!
//! One process and one thread for each container (or pod): it asks the OCI runtime for what is to happen, owns the
//! streams, reaps the processes, and has every exit on disk before it tells anyone. It needs nobody else to be alive.
//!
//! `main` reads the command line; `bootstrap` is `start`, `delete` and `-info`; `daemon` is the process that stays:
//! `service` takes the calls of the task API, which `create`, `start`, `control`, `exit` and `delete` carry out, and
//! those of the sandbox API for `sandbox`. The modules that read untrusted input (`ttrpc`, `options`,
//! `bootstrap::params`, `sandbox::pod`, `stdio::target`) are public so that the fuzz targets reach them.

pub mod arguments;
pub mod bootstrap;
pub mod bundle;
mod cgroup;
mod connections;
mod control;
mod create;
pub mod daemon;
mod delete;
mod events;
mod exit;
mod failpoint;
mod idmapped;
mod loggers;
mod mounts;
pub mod options;
mod out_of_memory;
mod reactor;
mod restore;
mod runtime;
pub mod sandbox;
mod service;
mod shim_log;
pub mod socket;
mod start;
mod stats;
pub mod status;
pub mod stdio;
mod streams;
mod sys;
mod task;
mod timestamp;
pub mod ttrpc;
