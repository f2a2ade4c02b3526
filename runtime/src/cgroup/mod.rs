//! Control groups: v1, v2, and hybrid hosts, where v1 hierarchies hold the controllers beside a cgroup2 hierarchy.
//!
//! `create` computes a [`Plan`] (all rules of `linux.resources` are checked there, before anything is made), carries
//! it out to a [`Group`], puts the new process in and keeps the [`Paths`] in the container's state, through which
//! every later command works. Where [`systemd`] makes the groups, one scope takes the place of all of that.
//!
//! How a process gets in decides how fast a container starts. Writing a pid to `cgroup.procs` makes the kernel wait
//! for a grace period of its global threadgroup lock. A child that writes "0" to the v1 `tasks` files itself
//! ([`enter`]) and is cloned into its cgroup2 group ([`Group::into_fd`]) skips that lock.

mod below;
mod controller;
mod devices;
mod dir;
mod filter;
mod freezer;
mod group;
mod kill;
mod layout;
mod make;
mod oom;
mod paths;
mod place;
mod plan;
mod remove;
mod setting;
mod stats;
mod systemd;
mod tree;
mod update;
mod v1;
mod v2;
mod validate;

pub(crate) use group::{Group, enter};
pub(crate) use make::{is_rootless, set_rootless};
pub(crate) use oom::Oom;
pub(crate) use paths::Paths;
pub(crate) use plan::{Driver, Plan};

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    /// A new folder that stands in for a cgroup; the test removes it.
    pub(super) fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("runtime-cgroup-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir(&path).unwrap();
        path
    }
}
