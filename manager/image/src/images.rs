//! The door of the crate: what callers see, and which module does what they ask for.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use crate::database::{self, ImageRow};
use crate::patience::Config;
use crate::pull::Pulls;
use crate::reference::Reference;
use crate::store::Store;
use crate::{
    Credentials, Description, Error, FileChange, Platform, Rootfs, commit, import, load, reconcile, registry,
    rootfs, save,
};

/// The image store of one root folder. Cheap to clone; all clones share one database connection.
///
/// All methods that are not `async` block on files and the database: call them on a blocking thread.
#[derive(Clone)]
pub struct Images {
    store: Arc<Store>,
    pulls: Arc<Pulls>,
}

/// What to pull, beside the reference.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to choose from an index; the machine's own if `None`.
    pub platform: Option<Platform>,
    /// What the client has for this registry.
    pub credentials: Option<Credentials>,
}

/// An image that is here, whole and verified.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the config, `sha256:…`.
    pub id: String,
    /// Full names that point to it, `docker.io/library/debian:latest`.
    pub names: Vec<String>,
    /// Digest of the manifest it was last pulled by.
    pub manifest_digest: String,
    /// Compressed layers, config and manifest.
    pub size_bytes: u64,
    /// When it was built; 0 if it does not tell.
    pub created_unix_seconds: i64,
    /// CPU architecture, `amd64`.
    pub architecture: String,
    /// Operating system, `linux`.
    pub os: String,
    /// The parsed config.
    pub config: oci_spec::image::ImageConfiguration,
    /// The config as its publisher wrote it.
    pub config_json: String,
    /// Digests of the uncompressed layers, base first.
    pub diff_ids: Vec<String>,
}

impl Image {
    pub(crate) fn from_row(row: ImageRow) -> Result<Image, Error> {
        let config: oci_spec::image::ImageConfiguration =
            serde_json::from_str(&row.config_json).map_err(|e| Error::Document {
                what: "image config",
                digest: row.id.clone(),
                rule: format!("it was stored, but is not the JSON of an image config: {e}"),
            })?;
        let created = config
            .created()
            .as_deref()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(Image {
            id: row.id,
            names: row.names,
            manifest_digest: row.manifest_digest,
            size_bytes: row.size_bytes,
            created_unix_seconds: created.map_or(0, jiff::Timestamp::as_second),
            architecture: config.architecture().to_string(),
            os: config.os().to_string(),
            diff_ids: config.rootfs().diff_ids().clone(),
            config,
            config_json: row.config_json,
        })
    }
}

/// The state of one layer of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the compressed layer.
    pub digest: String,
    /// What happens to it.
    pub phase: Phase,
    /// Compressed bytes that have arrived.
    pub downloaded_bytes: u64,
    /// Compressed bytes in all.
    pub total_bytes: u64,
    /// Uncompressed bytes unpacked.
    pub unpacked_bytes: u64,
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// Downloading and unpacking, which is one pass.
    Downloading,
    /// All bytes are here and right; it waits for the layers below it to be in place.
    Verifying,
    /// Unpacked and verified.
    Done,
    /// It was here already.
    Present,
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that no longer point to an image.
    pub untagged: Vec<String>,
    /// Ids of images that are gone.
    pub deleted: Vec<String>,
}

impl Images {
    /// Open the store at `root`, make it if it is new, and put right what an earlier process left half-done:
    /// temporary files, half layers, and folders of containers without a lease go. One process at a time.
    pub async fn open(root: &Path) -> Result<Images, Error> {
        Images::open_with(root, Config::from_env()).await
    }

    /// Like [`Images::open`], with another patience for registries.
    pub async fn open_with(root: &Path, config: Config) -> Result<Images, Error> {
        let root = root.to_owned();
        let store = crate::blocking(move || reconcile::open(&root)).await?;
        let pulls = Arc::new(Pulls::new(Arc::clone(&store), config));
        Ok(Images { store, pulls })
    }

    /// Pull an image: everything fetched, verified and unpacked, durable when this returns.
    ///
    /// `progress` is called with the state of each layer whenever it has changed, some times a second. Dropping the
    /// future gives the pull up; what it made is removed. Fails as a whole, leaving nothing that was not here before.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: &(dyn Fn(LayerProgress) + Send + Sync),
    ) -> Result<Image, Error> {
        let reference = Reference::parse(reference)?;
        self.pulls.pull(reference, options, progress).await
    }

    /// Ask a registry whether it takes `credentials`. The identity token to use in the password's place, if it gave one.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Option<String>, Error> {
        registry::login(registry, credentials, self.pulls.config()).await
    }

    /// An image by name (short forms as in docker), by id or by an unambiguous beginning of its id.
    pub fn get(&self, name_or_id: &str) -> Result<Image, Error> {
        let connection = self.store.database();
        let (id, _) = find(&connection, name_or_id)?;
        let row =
            database::image(&connection, &id)?.ok_or_else(|| Error::NoSuchImage(name_or_id.to_owned()))?;
        drop(connection);
        Image::from_row(row)
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let rows = database::images(&self.store.database())?;
        rows.into_iter().map(Image::from_row).collect()
    }

    /// Remove a name; with the last name, or when asked by id, remove the image and every layer that no other
    /// image has.
    ///
    /// An image that a container's lease needs stays: without `force` this fails, with `force` only its names go.
    /// By id, an image with several names needs `force`.
    pub fn remove(&self, name_or_id: &str, force: bool) -> Result<Removed, Error> {
        let (removed, doomed) = self.store.change_and_collect(|transaction| {
            let (id, name) = find(transaction, name_or_id)?;
            let names = database::names_of(transaction, &id)?;
            let going = match name {
                Some(name) => vec![name],
                None if names.len() > 1 && !force => {
                    return Err(Error::SeveralNames {
                        id,
                        names: names.join(", "),
                    });
                }
                None => names.clone(),
            };
            let mut removed = Removed::default();
            let is_last = going.len() == names.len();
            let user = if is_last {
                database::user_of(transaction, &id)?
            } else {
                None
            };
            match user {
                Some(container) if !force => {
                    return Err(Error::InUse {
                        image: name_or_id.to_owned(),
                        container,
                    });
                }
                None if is_last => {
                    database::delete_image(transaction, &id)?;
                    removed.deleted.push(id);
                }
                _ => {
                    for name in &going {
                        database::delete_name(transaction, name)?;
                    }
                }
            }
            removed.untagged = going;
            Ok(removed)
        })?;
        drop(doomed);
        Ok(removed)
    }

    /// Make a root file system for a container: takes a lease on the image and makes upper and work folders.
    pub fn prepare(&self, image: &Image, container_id: &str) -> Result<Rootfs, Error> {
        rootfs::prepare(&self.store, &image.id, container_id)
    }

    /// The root file system that [`Images::prepare`] made for this container.
    pub fn rootfs(&self, container_id: &str) -> Result<Rootfs, Error> {
        rootfs::find(&self.store, container_id)
    }

    /// Remove a container's upper and work folders and its lease. Nothing may be mounted on them. Idempotent.
    pub fn release(&self, container_id: &str) -> Result<(), Error> {
        rootfs::release(&self.store, container_id)
    }

    /// Make an image of one layer from a tar archive of a root file system, plain, in gzip or in zstd.
    pub fn import(&self, archive: impl Read, description: &Description) -> Result<Image, Error> {
        import::import(&self.store, archive, description)
    }

    /// Take the images of an archive, whole: an OCI image layout or a docker archive, or both in one; plain, in gzip
    /// or in zstd. Of an index, the image for `platform` is unpacked. The images tell only the names that they have in
    /// the archive.
    pub fn load(&self, archive: impl Read, platform: Option<&Platform>) -> Result<Vec<Image>, Error> {
        load::load(&self.store, archive, platform)
    }

    /// Write images into one archive that is an OCI image layout and a docker archive.
    pub fn save(&self, names_or_ids: &[String], archive: impl Write) -> Result<(), Error> {
        save::save(&self.store, names_or_ids, archive)
    }

    /// Make an image of a container's image and what the container has written. `mount_points` are the paths, from
    /// the root, that the runtime has made to mount something on them: they are left out.
    pub fn commit(
        &self,
        container_id: &str,
        mount_points: &BTreeSet<Vec<u8>>,
        description: &Description,
    ) -> Result<Image, Error> {
        commit::commit(&self.store, container_id, mount_points, description)
    }

    /// The differences between a container and its image, sorted by path.
    pub fn diff(
        &self,
        container_id: &str,
        mount_points: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<FileChange>, Error> {
        commit::diff(&self.store, container_id, mount_points)
    }

    /// Write all that a container has, merged with its image, as a tar stream.
    pub fn export(&self, container_id: &str, stream: impl Write) -> Result<(), Error> {
        commit::export(&self.store, container_id, stream)
    }

    /// Ids of all containers that hold a lease.
    pub fn leases(&self) -> Result<Vec<String>, Error> {
        database::leases(&self.store.database())
    }
}

/// The id that a name or an id prefix stands for, and the full name if it was one.
pub(crate) fn find(connection: &rusqlite::Connection, text: &str) -> Result<(String, Option<String>), Error> {
    let reference = Reference::parse(text);
    if let Ok(reference) = &reference {
        let name = reference.name();
        if let Some(row) = database::name(connection, &name)? {
            return Ok((row.image_id, Some(name)));
        }
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if !hex.is_empty()
        && hex.len() <= 64
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        let mut ids = database::ids_with_prefix(connection, &format!("sha256:{hex}"))?;
        match (ids.pop(), ids.is_empty()) {
            (Some(id), true) => return Ok((id, None)),
            (Some(_), false) => return Err(Error::AmbiguousId(text.to_owned())),
            (None, _) => {}
        }
    }
    match reference {
        // A name by digest finds the image however it was pulled.
        Ok(Reference {
            digest: Some(digest), ..
        }) => match database::id_by_manifest(connection, &digest.to_string())? {
            Some(id) => Ok((id, None)),
            None => Err(Error::NoSuchImage(text.to_owned())),
        },
        // What reads as an id is one that is not here, not a broken name.
        Err(e) if text.len() != 64 && !text.starts_with("sha256:") => Err(e),
        _ => Err(Error::NoSuchImage(text.chars().take(200).collect())),
    }
}
