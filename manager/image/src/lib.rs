//! Images: pulled from registries in one pass, kept by digest, handed to containers as overlay layers.
//!
//! [`Images`] is the whole of it for callers. A pull ([`Images::pull`]) streams each layer from its socket through
//! digest check, inflation, diffID check and tar reader into a folder; a container gets a root file system
//! ([`Images::prepare`]) made of those folders and an upper one of its own. This crate never mounts anything and
//! never talks to a container.
//!
//! ```text
//! pull.rs ── registry/sources.rs (mirrors) ── registry.rs (HTTP, auth.rs, patience.rs) ── bytes ──┐
//!    │                                                                                             ▼
//!    │   layer.rs: hash → blob (content.rs) → inflate ═ queue ═ hash → archive.rs → unpack.rs
//!    ▼
//! push.rs ── registry.rs, registry/upload.rs ◄── files of store.rs
//! remote.rs ── registry.rs: what registries have, without pulling it
//! store.rs (files and holds) ── database.rs (metadata) ── rootfs.rs (containers) ── reconcile.rs (at open)
//!    │                                    audit.rs: whether all of it is what its digests say
//!    └── links.rs (what content needs), reaper.rs (removal behind everybody's back), removal.rs (how deep trees go)
//! ```

mod archive;
mod audit;
mod commit;
mod content;
mod credentials;
mod database;
mod digest;
mod erofs;
mod error;
mod extract;
mod idmap;
mod images;
mod import;
mod inflate;
mod instruction;
mod layer;
mod layers;
mod links;
mod live;
mod load;
mod local;
mod manifest;
mod marks;
mod overlay;
mod pack;
mod patience;
mod platform;
mod progress;
mod pull;
mod push;
mod reaper;
mod reconcile;
mod reference;
mod registry;
mod remote;
mod removal;
mod rootfs;
mod save;
mod store;
mod trust;
mod unpack;
mod view;
mod write_back;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

/// The target of spans for those who collect traces. They are at the level TRACE: where nobody collects, none is made.
pub const SPANS: &str = "berth::spans";

pub use self::credentials::Credentials;
pub use ::credentials::Secret;
pub use audit::{AuditCounts, AuditEvent, Difference, Fault, Finding};
pub use commit::{ChangeKind, Changes, FileChange};
pub use database::Stored;
pub use database::{is_full as database_is_full, without_waiting_for_the_disk};
pub use error::{Error, Kind, Refusal};
pub use idmap::{IdMap, IdRange, Owners};
pub use images::{
    Artifact, Blob, Filters, Image, ImageUsage, Images, Kept, LabelFilter, LayerProgress, Lease, LeasedImage,
    Phase, PullOptions, Pulled, Removed, Step, Usage, moment, read_filters, tree_bytes,
};
pub use instruction::apply as apply_instructions;
pub use layers::Layers;
pub use live::{LiveTree, PathStat};
pub use local::Description;
pub use manifest::Referrer;
pub use marks::{Marks, is_in_user_namespace, marks};
pub use patience::Config;
pub use platform::Platform;
pub use push::{BlobPhase, BlobProgress, Pushed};
pub use registry::{Registries, SearchResult, client_tls};
pub use remote::RemoteManifest;
pub use removal::remove as remove_tree;
pub use rootfs::Rootfs;
pub use trust::{PolicyFile, Signature, Verdict};
pub use unpack::copy_looks;
pub use view::View;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Run blocking work away from the threads that wait for the network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // Cancelled: the runtime is shutting down.
    joined(tokio::task::spawn_blocking(work).await, || {
        Error::Cancelled("images".into())
    })
}

/// Run blocking work where a value is dropped: that may be on a thread that others wait for, who go on elsewhere then.
fn blocking_here<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A thread of the caller's own, or a runtime that has no other.
        _ => work(),
    }
}

/// What a task has ended with, as if its work had been done here; `given_up` is the error of one that was cancelled.
fn joined<T>(
    ended: Result<Result<T, Error>, JoinError>,
    given_up: impl FnOnce() -> Error,
) -> Result<T, Error> {
    match ended {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(given_up()),
    }
}
