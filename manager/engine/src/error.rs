//! What an operation of the engine can answer instead of what it was asked for.

use std::path::PathBuf;

use crate::container::Container;

/// Why the engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this id, name or id prefix.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// An id prefix that more than one container begins with.
    #[error("the id prefix {prefix:?} is ambiguous: {count} containers begin with it")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many it could be.
        count: usize,
    },
    /// The name belongs to another container.
    #[error(
        "the container name {name:?} is in use by container {holder}: remove that container, or choose another name"
    )]
    NameTaken {
        /// The name that was asked for.
        name: String,
        /// The id of the container that has it.
        holder: String,
    },
    /// No volume has this name.
    #[error("no such volume: {0}")]
    NoSuchVolume(String),
    /// No network has this name, id or id prefix.
    #[error("network {0} not found: `managerctl network ls` shows those that there are")]
    NoSuchNetwork(String),
    /// A network has this name.
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    /// Containers are on the network.
    #[error("remove network {network}: it has active endpoints: {}; disconnect or remove them first", containers.join(", "))]
    NetworkInUse {
        /// Its name.
        network: String,
        /// Names of containers, running or not.
        containers: Vec<String>,
    },
    /// Every default pool overlaps something.
    #[error(
        "all predefined address pools overlap networks or routes of this host: give a subnet with --subnet"
    )]
    NoSubnet,
    /// Containers use the volume.
    #[error("remove {volume}: volume is in use - [{}]", containers.join(", "))]
    VolumeInUse {
        /// Its name.
        volume: String,
        /// Ids of containers, running or not.
        containers: Vec<String>,
    },
    /// The volume was removed, and its folder is still there.
    #[error("volume {0} is just being removed: try again, or choose another name")]
    VolumeGoing(String),
    /// A volume of this name is another driver's.
    #[error(
        "volume {volume}: conflict: volume name must be unique: it is a volume of driver {driver:?} already; name that driver or none, or choose another name"
    )]
    VolumeConflict {
        /// Its name.
        volume: String,
        /// Whose it is.
        driver: String,
    },
    /// A plugin.
    #[error(transparent)]
    Plugin(#[from] plugins::Error),
    /// What a volume's options name could not be mounted.
    #[error("mount {device} (type {kind}) at {}: {source}", target.display())]
    VolumeMount {
        /// Of the file system.
        kind: String,
        /// What was to be mounted.
        device: String,
        /// The volume's folder.
        target: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The files of an image that a container was to see besides its own.
    #[error(
        "mount the {layers} layers of the image {image}: {source} (Linux before 6.5 can not if there are very many)"
    )]
    ImageMount {
        /// As it was asked for.
        image: String,
        /// How many.
        layers: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part of a volume or an image that a container was to see.
    #[error("open {subpath:?} within {of}: {source}")]
    Subpath {
        /// What it is a part of, as `volume data`.
        of: String,
        /// The part.
        subpath: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A field of a request breaks its rule.
    #[error("{field}: {rule}")]
    Invalid {
        /// The field, as the API names it.
        field: &'static str,
        /// What is wrong with its value.
        rule: String,
    },
    /// The container is not in a state in which this can be done.
    #[error("{action} container {container}: {why}")]
    WrongState {
        /// What was asked for.
        action: &'static str,
        /// The container's name.
        container: String,
        /// What stands in the way.
        why: String,
    },
    /// The user that a process is to run as is not in the image.
    #[error("user {user:?}: {why}")]
    User {
        /// As it was asked for.
        user: String,
        /// What was looked for and where.
        why: String,
    },
    /// All addresses of the bridge's subnet are taken.
    #[error("the subnet {0} has no free address left: remove a container or configure a larger subnet")]
    NoAddress(String),
    /// A port of the host cannot be had.
    #[error(
        "publish port {container_port}/{protocol}: Bind for {}:{host_port} failed: {why}",
        bracketed(host_address)
    )]
    Port {
        /// The container's port.
        container_port: u16,
        /// Of both ports.
        protocol: network::Protocol,
        /// The host's address; `0.0.0.0` or `::`: all of that family.
        host_address: std::net::IpAddr,
        /// The host's port, or its range of ports.
        host_port: String,
        /// What stands in the way.
        why: String,
    },
    /// The image store.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// A pull.
    #[error("pull {reference}: {source}")]
    Pull {
        /// The image, as it was asked for.
        reference: String,
        /// What the image store met.
        source: image::Error,
    },
    /// The judgement of an image at its registry.
    #[error("verify {reference}: {source}")]
    Verify {
        /// The image, as it was asked for.
        reference: String,
        /// What the image store met.
        source: image::Error,
    },
    /// The network.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// CNI plugins, or their configurations.
    #[error(transparent)]
    Cni(#[from] cni::Error),
    /// The database of containers.
    #[error("{what} in the engine's database: {why}")]
    Database {
        /// The statement's purpose.
        what: &'static str,
        /// What `SQLite` said.
        why: String,
    },
    /// The database cannot grow.
    #[error(
        "{what} in the engine's database: {why}: there is no room on the root's file system; remove containers or images"
    )]
    DiskFull {
        /// The statement's purpose.
        what: &'static str,
        /// What `SQLite` said.
        why: String,
    },
    /// The state folder has containers of another root.
    #[error(
        "the state folder {} has containers of another root ({owner}), not of {}: is the right root mounted? If those containers are to be given up, end them and remove {}",
        state.display(), root.display(), state.join("bundles").display()
    )]
    OthersState {
        /// The state folder.
        state: PathBuf,
        /// The root that was to be used with it.
        root: PathBuf,
        /// What is known of the root that owns it.
        owner: String,
    },
    /// The database was written by a newer Berth.
    #[error(
        "the engine's database has schema version {found}, this manager knows versions up to {known}: start a newer manager"
    )]
    SchemaTooNew {
        /// Found in the file.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A system call on a file.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The shim could not be started or does not answer.
    #[error("shim of container {container}: {why}")]
    Shim {
        /// The container's id.
        container: String,
        /// What was tried and what came of it.
        why: String,
    },
    /// The shim or the runtime below it answered a request with an error.
    #[error("{action}: {why}")]
    Runtime {
        /// What it was asked for.
        action: &'static str,
        /// Its words.
        why: String,
    },
    /// A reader was too slow for a stream that waits for nobody.
    #[error("this reader was too slow: {0} events were dropped for it")]
    Lagged(u64),
    /// The engine is shutting down.
    #[error("the manager is shutting down")]
    ShuttingDown,
}

/// The class of an error, by which a front door chooses its status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What was named is not there.
    NotFound,
    /// What was to be made is there already.
    AlreadyExists,
    /// Not in this state.
    Precondition,
    /// The request breaks a rule.
    Invalid,
    /// Something that is asked for its service does not answer; trying again may help.
    Unavailable,
    /// A limit is reached.
    Exhausted,
    /// The machine or Berth itself failed.
    Internal,
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::NoSuchContainer(_) | Error::NoSuchVolume(_) | Error::NoSuchNetwork(_) => Kind::NotFound,
            Error::NameTaken { .. } | Error::NetworkExists(_) | Error::VolumeConflict { .. } => {
                Kind::AlreadyExists
            }
            Error::Plugin(error) => plugin_kind(error),
            Error::Ambiguous { .. } | Error::Invalid { .. } | Error::User { .. } => Kind::Invalid,
            Error::WrongState { .. }
            | Error::Runtime { .. }
            | Error::OthersState { .. }
            | Error::VolumeInUse { .. }
            | Error::NetworkInUse { .. }
            | Error::VolumeMount { .. }
            | Error::Subpath { .. }
            | Error::ImageMount { .. }
            | Error::Port { .. }
            | Error::Cni(
                cni::Error::BadList { .. } | cni::Error::NoSuchList { .. } | cni::Error::NoPlugin { .. },
            ) => Kind::Precondition,
            Error::Shim { .. } | Error::ShuttingDown | Error::VolumeGoing(_) => Kind::Unavailable,
            Error::NoAddress(_) | Error::NoSubnet | Error::Lagged(_) | Error::DiskFull { .. } => {
                Kind::Exhausted
            }
            Error::Image(error) | Error::Pull { source: error, .. } | Error::Verify { source: error, .. } => {
                image_kind(error)
            }
            Error::Cni(_)
            | Error::Network(_)
            | Error::Database { .. }
            | Error::SchemaTooNew { .. }
            | Error::File { .. } => Kind::Internal,
        }
    }

    pub(crate) fn invalid(field: &'static str, rule: impl Into<String>) -> Error {
        Error::Invalid {
            field,
            rule: rule.into(),
        }
    }

    pub(crate) fn wrong_state(action: &'static str, container: &Container, why: impl Into<String>) -> Error {
        Error::WrongState {
            action,
            container: container.name.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn shim(container: &str, why: impl Into<String>) -> Error {
        Error::Shim {
            container: short(container).to_owned(),
            why: why.into(),
        }
    }

    pub(crate) fn database(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
        move |error| Error::of_database(what, &error)
    }

    pub(crate) fn of_database(what: &'static str, error: &rusqlite::Error) -> Error {
        let why = error.to_string();
        if image::database_is_full(error) {
            Error::DiskFull { what, why }
        } else {
            Error::Database { what, why }
        }
    }

    pub(crate) fn file<'a>(
        action: &'static str,
        path: &'a std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Error + 'a {
        move |source| Error::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn plugin_kind(error: &plugins::Error) -> Kind {
    match error {
        plugins::Error::NotFound { .. } => Kind::NotFound,
        plugins::Error::Name(_) => Kind::Invalid,
        plugins::Error::Unreachable { .. } | plugins::Error::NoAnswer { .. } => Kind::Unavailable,
        plugins::Error::Spec { .. }
        | plugins::Error::NotAVolumeDriver { .. }
        | plugins::Error::Refused { .. }
        | plugins::Error::Answer { .. } => Kind::Precondition,
    }
}

fn image_kind(error: &image::Error) -> Kind {
    match error.kind() {
        image::Kind::NotFound => Kind::NotFound,
        image::Kind::InUse | image::Kind::Refused => Kind::Precondition,
        image::Kind::Invalid => Kind::Invalid,
        image::Kind::Exhausted => Kind::Exhausted,
        image::Kind::Unavailable => Kind::Unavailable,
        image::Kind::Internal => Kind::Internal,
    }
}

/// The short form of an id, as people see it.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
/// As it stands before a port.
fn bracketed(address: &std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }
}
