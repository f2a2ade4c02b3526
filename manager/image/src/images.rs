//! The door of the crate: what callers see, and which module does what they ask for.

mod filter;
mod find;
mod history;
mod kept;
mod lease;
mod measure;
mod names;
mod prune;
mod usage;

pub use filter::{Filters, LabelFilter, moment, read_filters};
pub use history::Step;
pub use kept::{Artifact, Blob, Kept};
pub use lease::{Lease, LeasedImage};
pub use measure::tree_bytes;
pub use usage::{ImageUsage, Usage};

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, Transaction};
use tokio_util::sync::CancellationToken;

use crate::database::{self, ImageRow};
use crate::patience::Config;
use crate::pull::Pulls;
use crate::reference::Reference;
use crate::store::Store;
use crate::trust::{Gate, PolicyFile, Verdict};
use crate::{
    AuditCounts, AuditEvent, Changes, Credentials, Description, Error, FileChange, Owners, Platform, Rootfs,
    audit, commit, import, load, reconcile, registry, rootfs, save,
};
pub(crate) use find::{Found, find, image_id};

/// The image store of one root folder. Cheap to clone; all clones share one database connection.
///
/// All methods that are not `async` block on files and the database: call them on a blocking thread.
#[derive(Clone)]
pub struct Images {
    pub(crate) store: Arc<Store>,
    pub(crate) pulls: Arc<Pulls>,
}

/// What to pull, beside the reference.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to choose from an index; the machine's own if `None`.
    pub platform: Option<Platform>,
    /// Keep all platforms of an index, so that it can be pushed and saved as it is. One is unpacked.
    pub all_platforms: bool,
    /// Refuse an artifact before any of its blobs comes: this is for a container.
    pub images_only: bool,
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
    /// Where registries have it, or an index that has it: `docker.io/library/debian@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Digest of the manifest it was last pulled by.
    pub manifest_digest: String,
    /// Compressed layers, config and manifest.
    pub size_bytes: u64,
    /// Files of the unpacked layers; 0 for those unpacked before that was recorded.
    pub unpacked_bytes: u64,
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
    /// The image of this id.
    pub(crate) fn read(connection: &Connection, id: &str) -> Result<Image, Error> {
        Kept::read(connection, id)?.into_image(id)
    }

    fn from_row(row: ImageRow, repo_digests: Vec<String>, unpacked_bytes: u64) -> Result<Image, Error> {
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
            repo_digests,
            unpacked_bytes,
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

impl Image {
    /// The platform that it is made for.
    pub fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.config.variant().clone().unwrap_or_default(),
        }
    }

    /// Whether it is what `wanted` asks for.
    pub(crate) fn is_for(&self, wanted: &Platform) -> bool {
        let own = self.platform();
        // Many builders leave the variant out; then the index is what tells, and the architecture is what is known.
        own.fitness(wanted).is_some()
            || (own.variant.is_empty() && own.architecture == wanted.architecture && own.os == wanted.os)
    }

    fn check_platform(&self, asked_for: &str, wanted: &Platform) -> Result<(), Error> {
        if self.is_for(wanted) {
            return Ok(());
        }
        Err(Error::NoSuchPlatform {
            name: asked_for.to_owned(),
            wanted: wanted.to_string(),
            here: vec![self.platform().to_string()],
        })
    }
}

/// What a pull has brought here.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The name that was asked for, in full.
    pub name: String,
    /// Digest of what the name points to at its registry: an index, or the image's own manifest.
    pub digest: String,
    /// The image of the wanted platform, or the artifact.
    pub kept: Kept,
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
    /// Unpacked, verified and in its place; it waits for the whole image to be durable.
    Verified,
    /// Committed: durable, and part of an image.
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

    /// Like [`Images::open`], under a trust policy: what it does not accept is not pulled, and not to be run.
    pub async fn open_under(root: &Path, config: Config, policy: PolicyFile) -> Result<Images, Error> {
        let root = root.to_owned();
        let layers = config.layers;
        let store = crate::blocking(move || reconcile::open(&root, layers)).await?;
        let pulls = Arc::new(Pulls::new(Arc::clone(&store), config, Gate::new(policy)));
        Ok(Images { store, pulls })
    }

    /// Like [`Images::open`], with another patience for registries.
    pub async fn open_with(root: &Path, config: Config) -> Result<Images, Error> {
        Images::open_under(root, config, PolicyFile::Nowhere).await
    }

    /// Pull an image: everything fetched, verified and unpacked, durable when this returns. Of an artifact there is
    /// nothing to unpack.
    ///
    /// `progress` is called with the state of each layer whenever it has changed, some times a second. Dropping the
    /// future gives the pull up; what it made is removed. Fails as a whole, leaving nothing that was not here before.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: &(dyn Fn(LayerProgress) + Send + Sync),
    ) -> Result<Pulled, Error> {
        let reference = Reference::parse(reference)?;
        self.pulls.pull(reference, options, progress).await
    }

    /// Ask a registry whether it takes `credentials`. The identity token to use in the password's place, if it gave one.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Option<String>, Error> {
        registry::login(registry, &credentials, self.pulls.config()).await
    }

    /// An image or artifact by name (short forms as in docker), by id or by an unambiguous beginning of its id.
    pub fn get_kept(&self, name_or_id: &str) -> Result<Kept, Error> {
        let connection = self.store.database();
        let id = find::image_id(&connection, name_or_id)?;
        Kept::read(&connection, &id)
    }

    /// Like [`Images::get_kept`], of what a container can be made of.
    pub fn get(&self, name_or_id: &str) -> Result<Image, Error> {
        self.get_kept(name_or_id)?.into_image(name_or_id)
    }

    /// The image that a name or id has for a platform. Of an index whose platforms were all kept, the layers are
    /// unpacked if they are not yet; nothing is asked of a registry.
    pub async fn get_for(&self, name_or_id: &str, platform: Platform) -> Result<Image, Error> {
        let (images, wanted) = (self.clone(), name_or_id.to_owned());
        let found = crate::blocking(move || find::find(&images.store.database(), &wanted)).await?;
        match found {
            Found::Name(reference) => self.pulls.unpack_here(reference, platform).await,
            Found::Image(id) => {
                let images = self.clone();
                let kept = crate::blocking(move || Kept::read(&images.store.database(), &id)).await?;
                let image = kept.into_image(name_or_id)?;
                image.check_platform(name_or_id, &platform)?;
                Ok(image)
            }
        }
    }

    /// All images and artifacts, in the order of their ids.
    pub fn list(&self) -> Result<Vec<Kept>, Error> {
        self.list_some(&Filters::default())
    }

    /// How much is kept, as it is on record: nothing is measured.
    pub fn stored(&self) -> Result<database::Stored, Error> {
        database::stored(&self.store.database())
    }

    /// The images and artifacts that pass filters, in the order of their ids, with those of their names that do.
    pub fn list_some(&self, filters: &Filters) -> Result<Vec<Kept>, Error> {
        let connection = self.store.database();
        let ready = filters.ready(&connection)?;
        let mut all = Vec::new();
        for id in database::image_ids(&connection)? {
            let mut kept = Kept::read(&connection, &id)?;
            if ready.pass(&mut kept) {
                all.push(kept);
            }
        }
        Ok(all)
    }

    /// How an image was built, base first.
    pub fn history(&self, name_or_id: &str) -> Result<Vec<Step>, Error> {
        history::history(&self.store, name_or_id)
    }

    /// Remove what no container and no lease needs: images without a name, with `all` those with names too. Gives
    /// how many bytes that frees.
    pub fn prune(&self, all: bool, filters: &Filters) -> Result<(Removed, u64), Error> {
        let change = |transaction: &Transaction<'_>| prune::prune(transaction, all, filters);
        self.store.change_and_collect(change)
    }

    /// Bytes of the files of an image's layers; 0 if there is no image of this id.
    pub fn layers_bytes(&self, id: &str) -> Result<u64, Error> {
        let layers = database::image_layers(&self.store.database(), id)?;
        Ok(history::sizes(&self.store, &layers)?.iter().sum())
    }

    /// What images take of the disk.
    pub fn usage(&self) -> Result<Usage, Error> {
        usage::usage(&self.store)
    }

    /// Keep images for a client, whatever others remove, for so many seconds or until [`Images::end_lease`]. The lease
    /// of the same id is renewed: it holds these images now, and for this long.
    pub fn lease(&self, id: &str, names_or_ids: &[String], seconds: u64) -> Result<Lease, Error> {
        lease::take(&self.store, id, names_or_ids, seconds)
    }

    /// Clients' leases that have not run out, in the order of their ids.
    pub fn client_leases(&self) -> Result<Vec<Lease>, Error> {
        lease::list(&self.store.database(), None)
    }

    /// Give a client's lease back. Nothing goes by that: what nobody needs any more is left to a removal.
    pub fn end_lease(&self, id: &str) -> Result<(), Error> {
        lease::end(&self.store, id)
    }

    /// Remove a name; with the last name, or when asked by id, remove the image and every layer that no other
    /// image has.
    ///
    /// An image that a container or a lease needs stays: without `force` this fails, with `force` only its names go.
    /// By id, an image with several names needs `force`. By `repository@digest`, all tags of the repository that
    /// point there go, or, if it has none, what is known of the repository having it; never names of others. The files
    /// go in the background.
    pub fn remove(&self, name_or_id: &str, force: bool) -> Result<Removed, Error> {
        let change = |transaction: &Transaction<'_>| names::remove(transaction, name_or_id, force);
        Ok(self.store.change_and_collect(change)?.0)
    }

    /// Point a name to what a name or id stands for; gives its full form. A name that pointed elsewhere moves, and
    /// what it pointed to stays.
    pub fn tag(&self, name_or_id: &str, name: &str) -> Result<String, Error> {
        let mut connection = self.store.database();
        let transaction = database::write(&mut connection)?;
        let name = names::tag(&transaction, name_or_id, name)?;
        transaction.commit().map_err(database::doing("commit a name"))?;
        Ok(name)
    }

    /// Whether an image can get this name, to be known before work is done for it.
    pub fn check_name(name: &str) -> Result<(), Error> {
        Reference::parse_new_name(name).map(drop)
    }

    /// Judge an image at its registry by the trust policy, without pulling it.
    pub async fn verify(&self, reference: &str, options: PullOptions) -> Result<Verdict, Error> {
        let reference = Reference::parse(reference)?;
        self.pulls.verify(reference, options).await
    }

    /// Judge an image that is here by the trust policy as it is now; `name_or_id` is what it was asked for by.
    pub fn check_trust(&self, name_or_id: &str, image: &Image) -> Result<Verdict, Error> {
        let name = Reference::parse(name_or_id).ok();
        // What reads as a name may be the beginning of an id.
        let name = name.filter(|name| image.names.contains(&name.name()));
        self.pulls.gate().check(&self.store, &image.id, name.as_ref())
    }

    /// Make a root file system for a container: takes a lease on the image and makes upper and work folders.
    pub fn prepare(&self, image: &Image, container_id: &str) -> Result<Rootfs, Error> {
        rootfs::prepare(&self.store, &image.id, container_id, None, &[])
    }

    /// Like [`Images::prepare`], for a container that mounts the files of the images with the ids `mounts` besides: it holds
    /// them, too, until it is released. With `owners` it is in a user namespace of these mappings: the image's files have its
    /// owners there, and so have its own folders. Containers of any mappings share the image's layers.
    ///
    /// Whoever mounts it has to map the layers: [`Rootfs::overlay_options`].
    pub fn prepare_with_mounts(
        &self,
        image: &Image,
        container_id: &str,
        owners: Option<&Owners>,
        mounts: &[String],
    ) -> Result<Rootfs, Error> {
        rootfs::prepare(&self.store, &image.id, container_id, owners, mounts)
    }

    /// The files of an image alone, which somebody has to hold.
    pub fn view(&self, id: &str) -> Result<crate::View, Error> {
        crate::View::of(&self.store, id)
    }

    /// The root file system that [`Images::prepare`] made for this container.
    pub fn rootfs(&self, container_id: &str) -> Result<Rootfs, Error> {
        rootfs::find(&self.store, container_id)
    }

    /// Copy the folder at `path` in a container's root file system into the empty folder `to`: files with owner, mode,
    /// times, attributes, links and holes. Links on the way are followed as in the container. False: there is no
    /// folder.
    ///
    /// Owners are those that the container sees; with `shifted`, those that its user namespace gives them on the host.
    pub fn copy_folder(
        &self,
        container_id: &str,
        path: &[u8],
        to: &Path,
        shifted: Option<&Owners>,
    ) -> Result<bool, Error> {
        commit::copy_folder(&self.store, container_id, path, to, shifted)
    }

    /// Remove a container's upper and work folders and its lease. Nothing may be mounted on them. Idempotent.
    pub fn release(&self, container_id: &str) -> Result<(), Error> {
        rootfs::release(&self.store, container_id)
    }

    /// Make an image of one layer from a tar archive of a root file system, plain or in gzip, zstd, xz or bzip2.
    pub fn import(&self, archive: impl Read, description: &Description) -> Result<Image, Error> {
        import::import(&self.store, archive, description)
    }

    /// Take the images of an archive, whole: an OCI image layout or a docker archive, or both in one; plain or in
    /// gzip, zstd, xz or bzip2. Of an index, the image for `platform` is unpacked. The images tell only the names that they have in
    /// the archive.
    pub fn load(&self, archive: impl Read, platform: Option<&Platform>) -> Result<Vec<Kept>, Error> {
        load::load(&self.store, archive, platform)
    }

    /// Write images into one archive that is an OCI image layout and a docker archive.
    pub fn save(&self, names_or_ids: &[String], archive: impl Write) -> Result<(), Error> {
        save::save(&self.store, names_or_ids, archive)
    }

    /// Refuse what cannot become a layer of what a container has written, as far as can be told without reading it.
    /// `mount_points` are the paths, from the root, that the runtime has made to mount something on them: they are
    /// left out.
    pub fn weigh_changes(
        &self,
        container_id: &str,
        mount_points: &BTreeSet<Vec<u8>>,
        cancelled: &CancellationToken,
    ) -> Result<(), Error> {
        commit::weigh(&self.store, container_id, mount_points, cancelled)
    }

    /// Pack what a container has written. Only as long as this takes the container has to stand still.
    pub fn pack_changes(
        &self,
        container_id: &str,
        mount_points: &BTreeSet<Vec<u8>>,
        cancelled: &CancellationToken,
    ) -> Result<Changes, Error> {
        commit::pack(&self.store, container_id, mount_points, cancelled)
    }

    /// Make an image of a container's image and what the container has written.
    pub fn commit(&self, changes: Changes, description: &Description) -> Result<Image, Error> {
        commit::commit(&self.store, changes, description)
    }

    /// Tell `visit` the differences between a container and its image: a folder before what is in it, sorted in each.
    pub fn diff(
        &self,
        container_id: &str,
        mount_points: &BTreeSet<Vec<u8>>,
        cancelled: &CancellationToken,
        visit: &mut dyn FnMut(FileChange) -> io::Result<()>,
    ) -> Result<(), Error> {
        commit::diff(&self.store, container_id, mount_points, cancelled, visit)
    }

    /// Write all that a container has, merged with its image, as a tar stream. Large holes of files are told in PAX
    /// records, as GNU tar does.
    pub fn export(
        &self,
        container_id: &str,
        cancelled: &CancellationToken,
        stream: impl Write,
    ) -> Result<(), Error> {
        commit::export(&self.store, container_id, cancelled, stream)
    }

    /// Check images by name or id, or if there are none, all that is here: hash all content, and compare the unpacked
    /// layers with it, file by file. Finds, and changes nothing. `tell` says whether anybody still listens: without a
    /// listener the check is given up.
    ///
    /// Runs at the lowest priority, beside pulls and removals. Needs the free space of the largest layer's files.
    pub fn audit(
        &self,
        images: &[String],
        tell: &mut (dyn FnMut(AuditEvent) -> bool + Send),
    ) -> Result<AuditCounts, Error> {
        audit::audit(&self.store, images, tell)
    }

    /// Wait until the files of what was removed so far are gone, some seconds at most: for who needs their space.
    pub fn settle_removals(&self) {
        self.store.settle_removals();
    }

    /// Ids of all containers that hold a lease.
    pub fn leases(&self) -> Result<Vec<String>, Error> {
        database::leases(&self.store.database())
    }
}
