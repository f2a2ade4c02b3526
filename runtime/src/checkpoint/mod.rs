//! `checkpoint` and `restore`: a container's processes saved to files and brought back from them, by CRIU.
//!
//! CRIU works on a tree of processes and knows nothing of containers. What it can't find out is told here: mounts
//! and namespaces that come from outside, the groups in which the restored processes belong, pipes that somebody
//! else holds. It is told over its socket of protocol buffers (`criu swrk`), not on its command line, because only so
//! it hands over the master side of a terminal and stops where hooks are to run.

mod criu;
mod dump;
mod message;
mod options;
mod private_root;
mod restore;

pub(crate) use dump::{Dump, checkpoint};
pub(crate) use options::Options;
pub(crate) use restore::{Restore, restore};

use std::path::Path;

use message::Message;
use nix::sched::CloneFlags;
use oci_spec::runtime::Spec;

/// What the container's standard streams were, beside CRIU's images; runc's name and form.
const DESCRIPTORS: &str = "descriptors.json";

/// Whether the container has a terminal of its own.
fn has_terminal(spec: &Spec) -> bool {
    let process = spec.process().as_ref();
    process.is_some_and(|process| process.terminal() == Some(true))
}

/// The configuration file for CRIU that the annotation of crun and runc names, or runc's; and whether the master side
/// of a terminal is with us. That of a lent one is not, and is found with `--shell-job`.
fn with_configuration(request: Message, spec: &Spec) -> Message {
    let request = request.switch(50, has_terminal(spec));
    let named = spec
        .annotations()
        .as_ref()
        .and_then(|all| all.get("org.criu.config"));
    match named.map_or("/etc/criu/runc.conf", String::as_str) {
        "" => request,
        path => request.text(51, path),
    }
}

/// A mount of which CRIU saves no more than its name, or is given the source by that name.
fn external_mount(request: Message, key: &Path, value: &Path) -> Message {
    let pair = Message::default()
        .text(1, &key.to_string_lossy())
        .text(2, &value.to_string_lossy());
    request.message(23, &pair)
}

/// Namespaces that CRIU neither saves nor makes when somebody else holds them: its name, and the key of both sides.
fn external_namespace(kind: CloneFlags) -> Option<(&'static str, &'static str)> {
    match kind {
        CloneFlags::CLONE_NEWNET => Some(("net", "extRootNetNS")),
        CloneFlags::CLONE_NEWPID => Some(("pid", "extRootPidNS")),
        _ => None,
    }
}
