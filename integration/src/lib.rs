//! What the tests under `tests/` share: a sandbox that finds leaks, bundles and images made by code, a real
//! registry, a manager on a host of its own, and pseudo-terminals.
//!
//! Every fixture cleans up after itself, and `Sandbox` then looks whether the product did too.
//!
//! - [`Sandbox::new`]: a scratch folder and a unique container id; at the end of the test it asserts that no
//!   mount, cgroup, process or (with [`Sandbox::owns`]) file is left.
//! - [`Bundle`]: a bundle with busybox as its rootfs and the default config, to be edited.
//! - [`Runtime`]: the built `runtime` with a state folder in the sandbox.
//! - [`Manager`]: a network namespace with a registry in it and a manager beside it; [`Manager::ctl`].
//! - [`Outside`]: another machine, on a link of the manager's host.
//! - [`Shim`]: the built `shim` for one bundle, and its task API.
//! - [`Containerd`]: a containerd with our shim, or a newer one with its own shim and our runtime; driven with `ctr`.
//! - [`Cri`]: a newer containerd's CRI service with our runtime, below its own shim or ours; driven with `crictl`.
//! - [`Docker`]: a dockerd of the peers', with our runtime or its own.
//! - [`Peers`]: foreign clients that hack/peers and hack/peers-go have fetched, in a network and mount namespace of the
//!   test's own.
//! - [`Terminal`]: a command on a pseudo-terminal, to be typed at and read.
//! - [`Vm`]: a virtual machine whose power can be cut.
//! - [`Random`]: decisions that a seed repeats.
//! - [`adopt_orphans`]: reaps what killed shims leave to nobody.
//! - [`eventually`]: waits for a condition, with a deadline far beyond what a slow machine needs.

mod bundle;
mod containerd;
mod cri;
mod docker;
mod image;
mod manager;
mod networks;
mod outside;
mod peers;
mod process;
mod random;
mod registry;
mod rootless;
mod sandbox;
mod shim;
mod sys;
mod terminal;
mod vm;

pub use bundle::{Bundle, Runtime, busybox_rootfs};
pub use containerd::Containerd;
pub use cri::{Cri, Handler};
pub use docker::Docker;
pub use image::{Image, Layer};
pub use manager::Manager;
pub use networks::{exec, run_detached};
pub use outside::Outside;
pub use peers::Peers;
pub use process::{
    Done, adopt_orphans, binary, command_exists, eventually, finish, is_linux_since, kills, run,
};
pub use random::Random;
pub use registry::Registry;
pub use sandbox::Sandbox;
pub use shim::{Shim, Streams, is_gone, patience, refused};
pub use sys::receive;
pub use terminal::Terminal;
pub use vm::{Vm, make_disk};
