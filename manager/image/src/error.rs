//! The one error type of the crate: each variant says what was tried on which object.
//!
//! Front doors map [`Error::kind`] to their own status; the message is meant for people as it is.

use std::io;
use std::path::{Path, PathBuf};

/// What a front door needs to know of an error to choose its own status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The image, tag or container asked for does not exist, here or at the registry.
    NotFound,
    /// Something else uses it: a container's lease, or other names of the same image.
    InUse,
    /// The trust policy does not accept the image, or cannot be read.
    Refused,
    /// The input breaks a rule: a reference, a manifest, a layer.
    Invalid,
    /// A limit is reached.
    Exhausted,
    /// The registry does not answer, answers with errors, or refuses the credentials.
    Unavailable,
    /// The local system failed: disk full, I/O error, database.
    Internal,
}

/// What can go wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A reference that breaks docker's grammar.
    #[error("invalid image reference {reference:?}: {rule}")]
    Reference {
        /// The text as given.
        reference: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// A platform that is not `os/arch[/variant]`.
    #[error("invalid platform {0:?}: it has to be os/architecture or os/architecture/variant")]
    Platform(String),
    /// A container id that cannot name a folder.
    #[error(
        "invalid container id {0:?}: letters, digits, `_`, `.` and `-`, at most 128 of them, no leading mark"
    )]
    ContainerId(String),
    /// A mapping of users or groups that the kernel would not take, or that has no root.
    #[error("invalid mapping of ids {map:?}: {rule}")]
    IdMap {
        /// As given, `CONTAINER:HOST:SIZE`.
        map: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// No image here has this name or id.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// Content that an image needs, which is not here and was not asked for.
    #[error("{0} is not here: pull the image again")]
    NotHere(String),
    /// A name that leads to images, but none for this platform.
    #[error(
        "{name} is here for {}, not for {wanted}: pull it with --platform {wanted}",
        here_for(here)
    )]
    NoSuchPlatform {
        /// The name as asked for.
        name: String,
        /// The platform asked for.
        wanted: String,
        /// The platforms that are here.
        here: Vec<String>,
    },
    /// A name that leads to something that cannot run.
    #[error("{name} is not an image but {media_type}")]
    NotAnImage {
        /// The name as asked for.
        name: String,
        /// What it leads to.
        media_type: String,
    },
    /// A name that leads to an artifact, where a container image is needed.
    #[error(
        "{name} is an artifact of type {artifact_type}, not a container image: no container can be made of it (image \
         inspect tells what it has)"
    )]
    Artifact {
        /// The name as asked for.
        name: String,
        /// Its type.
        artifact_type: String,
    },
    /// A filter of a list or prune that is not known, or not well formed.
    #[error("invalid filter {filter:?}: {rule}")]
    Filter {
        /// As given.
        filter: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// An id prefix that more than one image has.
    #[error("image id {0:?} is ambiguous: more than one image begins with it")]
    AmbiguousId(String),
    /// No container holds a lease under this id.
    #[error("no root file system was prepared for container {0}")]
    NoSuchLease(String),
    /// A container already holds a lease under this id.
    #[error("a root file system is already prepared for container {0}")]
    LeaseTaken(String),
    /// A lease that a client may not have.
    #[error("invalid lease {id:?}: {rule}")]
    Lease {
        /// As given.
        id: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// No client holds a lease under this id, or it has run out.
    #[error("no such lease: {0}")]
    NoSuchClientLease(String),
    /// Clients hold as many leases as there may be.
    #[error("there are {0} leases already: end some that nobody needs")]
    TooManyLeases(u32),
    /// The image cannot go while a container or a lease needs it.
    #[error("image {image} is in use by {user}")]
    InUse {
        /// Name or id as asked for.
        image: String,
        /// One container or lease that needs it.
        user: String,
    },
    /// The kernel cannot mount as many layers.
    #[error(
        "image {image}: the mount options of its {layers} layers are {bytes} bytes long, mount(2) takes \
         {bytes_max}, and this kernel does not take layers one by one (lowerdir+, since Linux 6.5)"
    )]
    TooManyLayers {
        /// The image id.
        image: String,
        /// How many it has.
        layers: usize,
        /// The length of their mount options.
        bytes: usize,
        /// What the kernel takes.
        bytes_max: usize,
    },
    /// Deleting by id what several names point to needs `force`.
    #[error("image {id} has several names ({names}): remove them one by one, or force it")]
    SeveralNames {
        /// The image id.
        id: String,
        /// Its names, comma-separated.
        names: String,
    },
    /// The registry does not have it.
    #[error("{registry} has no {what}")]
    NotAtRegistry {
        /// Host and port.
        registry: String,
        /// The manifest or blob.
        what: String,
    },
    /// Credentials that were handed in with a request to another registry. Nothing was sent.
    #[error("the credentials are for {registry}, and {host} is not shown them")]
    OtherRegistry {
        /// The registry that they are for.
        registry: String,
        /// The one that was to be asked.
        host: String,
    },
    /// The registry asks for credentials, or refuses those given.
    #[error("{registry} denied access to {what}: {reason}")]
    Denied {
        /// Host and port.
        registry: String,
        /// Manifest, blob or token.
        what: String,
        /// What the registry said.
        reason: String,
    },
    /// The registry did not deliver, after all retries.
    #[error("{registry}: {what}: {reason} (gave up after {})", times(*attempts))]
    Registry {
        /// Host and port.
        registry: String,
        /// What was being fetched.
        what: String,
        /// The last failure.
        reason: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The registry answered with something that its protocol does not allow.
    #[error("{registry}: {what}: {rule}")]
    Protocol {
        /// Host and port.
        registry: String,
        /// What was being fetched.
        what: String,
        /// The rule that the answer breaks.
        rule: String,
    },
    /// None of several servers delivered.
    #[error("no server has given the {what} of {registry}: {tried}")]
    Sources {
        /// Host and port as in the reference.
        registry: String,
        /// What was being fetched.
        what: String,
        /// Each server that was asked, with its failure.
        tried: String,
        /// The class of the last server's error.
        kind: Kind,
    },
    /// The administrator's configuration of a registry cannot be used.
    #[error("{}: {rule}", path.display())]
    RegistryConfig {
        /// The hosts.toml, or the folder of certificates.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
    /// A manifest, index or config that is not what it should be.
    #[error("{what} {digest}: {rule}")]
    Document {
        /// `manifest`, `index` or `image config`.
        what: &'static str,
        /// Its digest, or the reference while that is unknown.
        digest: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// Content that is not what its digest says.
    #[error("{what} {expected}: the content's digest is {actual}")]
    Digest {
        /// `manifest`, `blob` or `layer`, or `unpacked layer` for a diffID.
        what: &'static str,
        /// The digest asked for.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// A layer whose stream breaks a rule.
    #[error("layer {layer}: {rule}")]
    Layer {
        /// Digest of the compressed layer.
        layer: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// A tar entry that breaks a rule.
    #[error("layer {layer}: entry {entry:?}: {rule}")]
    Entry {
        /// Digest of the compressed layer.
        layer: String,
        /// The entry's name in the tar.
        entry: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// The kernel refused an entry that breaks no rule: disk full, no such feature, I/O error.
    #[error("layer {layer}: {action} {entry:?}: {source}")]
    Unpack {
        /// Digest of the compressed layer.
        layer: String,
        /// The entry's name in the tar.
        entry: String,
        /// The system call's purpose.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call on one of the store's own files.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The metadata database.
    #[error("image database: {action}: {source}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// New layers were to be EROFS images.
    #[error("keep layers as EROFS images: {0}; `--layers folders` keeps them as folders")]
    NoErofs(io::Error),
    /// The store cannot be used as it is.
    #[error("image store {}: {rule}", path.display())]
    Store {
        /// Its root, or the file in question.
        path: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
    /// What a client hands in cannot be read, or is not what it should be.
    #[error("read the archive: {0}")]
    Input(io::Error),
    /// Who takes an archive does not take more of it.
    #[error("write the archive: {0}")]
    Output(io::Error),
    /// An archive of images that breaks a rule.
    #[error("image archive: {rule}")]
    Archive {
        /// The rule, and the entry that breaks it.
        rule: String,
    },
    /// There is nothing at a path of a container.
    #[error("no such file or directory in container {container}: {path}")]
    NoSuchPath {
        /// The container's id.
        container: String,
        /// As it was asked for.
        path: String,
    },
    /// A file in a container that cannot be taken into an archive or image.
    #[error("container {container}: {path}: {source}")]
    Container {
        /// The container's id.
        container: String,
        /// Where in the container.
        path: String,
        /// What is the matter with it.
        source: io::Error,
    },
    /// A Dockerfile instruction that cannot be applied to an image.
    #[error("change {instruction:?}: {rule}")]
    Instruction {
        /// As it was given.
        instruction: String,
        /// The rule that it breaks.
        rule: String,
    },
    /// An image whose parts are not all here.
    #[error("image {image}: its {what} is not here any more: pull or load it again")]
    Incomplete {
        /// The image id.
        image: String,
        /// What is missing.
        what: String,
    },
    /// A push needs content that neither this store nor the registry has.
    #[error(
        "blob {digest} is neither here nor at {registry}: its layer was here, unpacked from another image, when this one \
         was pulled; remove both images and pull this one again"
    )]
    NoContent {
        /// The blob.
        digest: String,
        /// Host and port.
        registry: String,
    },
    /// A push of a name whose content is not here as a whole.
    #[error("push {name}: {rule}")]
    NotWhole {
        /// The name.
        name: String,
        /// What is missing.
        rule: String,
    },
    /// The push was given up by its caller, or the program is ending.
    #[error("push of {0} was cancelled")]
    PushCancelled(String),
    /// The trust policy cannot be used: then no image is accepted.
    #[error("trust policy {}: {rule}; until that is mended, no image is accepted", path.display())]
    Policy {
        /// The policy's file.
        path: PathBuf,
        /// What is wrong with it, and in which line.
        rule: String,
    },
    /// The trust policy does not accept the image.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The check was given up by its caller.
    #[error("the check of the images was cancelled")]
    CheckCancelled,
    /// The pull was given up by its caller, or the program is ending.
    #[error("pull of {0} was cancelled")]
    Cancelled(String),
    /// Who asked for a commit went away before the container's files were packed.
    #[error("commit of container {0} was cancelled")]
    CommitCancelled(String),
}

fn here_for(platforms: &[String]) -> String {
    match platforms {
        [] => "no platform".to_owned(),
        some => some.join(", "),
    }
}

/// Why the trust policy does not accept an image.
#[derive(Debug, thiserror::Error)]
#[error("the trust policy {} refuses {image} ({rule}): {reason}", policy.display())]
pub struct Refusal {
    /// The image, as it was asked for.
    pub image: String,
    /// The policy's file.
    pub policy: PathBuf,
    /// The place of the rule, and what it asks for.
    pub rule: String,
    /// What is missing, or wrong with the signatures that were found.
    pub reason: String,
}

fn times(attempts: u32) -> String {
    match attempts {
        1 => "1 attempt".to_owned(),
        more => format!("{more} attempts"),
    }
}

impl Error {
    /// The class of this error, for mapping to a status code.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchImage(_)
            | Error::NoSuchLease(_)
            | Error::NoSuchClientLease(_)
            | Error::NotHere(_)
            | Error::NoSuchPath { .. }
            | Error::NoSuchPlatform { .. }
            | Error::NotAtRegistry { .. } => Kind::NotFound,
            Error::InUse { .. } | Error::SeveralNames { .. } | Error::LeaseTaken(_) => Kind::InUse,
            Error::Reference { .. }
            | Error::OtherRegistry { .. }
            | Error::Platform(_)
            | Error::ContainerId(_)
            | Error::Lease { .. }
            | Error::IdMap { .. }
            | Error::AmbiguousId(_)
            | Error::NotAnImage { .. }
            | Error::Artifact { .. }
            | Error::Filter { .. }
            | Error::Document { .. }
            | Error::Digest { .. }
            | Error::Layer { .. }
            | Error::Entry { .. }
            | Error::Input(_)
            | Error::Archive { .. }
            | Error::Instruction { .. }
            | Error::NoContent { .. }
            | Error::NotWhole { .. }
            | Error::TooManyLayers { .. } => Kind::Invalid,
            Error::TooManyLeases(_) => Kind::Exhausted,
            Error::Policy { .. } | Error::Refused(_) => Kind::Refused,
            Error::Denied { .. }
            | Error::Registry { .. }
            | Error::Protocol { .. }
            | Error::PushCancelled(_)
            | Error::CheckCancelled
            | Error::Cancelled(_)
            | Error::CommitCancelled(_) => Kind::Unavailable,
            Error::Sources { kind, .. } => *kind,
            // Not the system's word, but a rule of layers that the container's file breaks.
            Error::Container { source, .. } if source.raw_os_error().is_none() || is_of_path(source) => {
                Kind::Invalid
            }
            Error::Container { .. }
            | Error::Output(_)
            | Error::Incomplete { .. }
            | Error::RegistryConfig { .. }
            | Error::Unpack { .. }
            | Error::Io { .. }
            | Error::Database { .. }
            | Error::NoErofs(_)
            | Error::Store { .. } => Kind::Internal,
        }
    }

    /// Whether the database had no room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Error::Database { source, .. } if crate::database::is_full(source))
    }

    /// Tell of a refusal that the name pointed elsewhere before.
    pub(crate) fn of_moved_tag(mut self, before: Option<&str>) -> Error {
        if let (Error::Refused(refusal), Some(before)) = (&mut self, before) {
            let words = "; when it was last pulled, the name pointed to ";
            refusal.reason.push_str(words);
            refusal.reason.push_str(before);
        }
        self
    }

    /// An I/O error on one of the store's own paths.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// Whether the system refused a path of a container for what is there, and not for a fault of its own.
fn is_of_path(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let refusals = [
        Errno::ACCESS,
        Errno::EXIST,
        Errno::ISDIR,
        Errno::LOOP,
        Errno::NAMETOOLONG,
        Errno::NOTDIR,
        Errno::ROFS,
        Errno::XDEV,
    ];
    Errno::from_io_error(error).is_some_and(|error| refusals.contains(&error))
}
