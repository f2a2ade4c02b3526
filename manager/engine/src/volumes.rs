//! Volumes: data that outlives containers, in `ROOT/volumes/NAME/_data`.
//!
//! A volume is there when its row is. The row comes first, in the transaction of the container that wants it, and its
//! folder afterwards; at a removal the row is marked first, in the transaction of the container that goes, then the
//! folder moves away, then the row goes. So at any moment the database tells what to do with a folder, and reconcile
//! does it. A folder that no row tells of was not made by us: it stays.

mod copy_up;
mod folder;
mod local;
mod part;
mod prune;
pub(crate) mod reconcile;
mod resolve;
mod slots;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::container::{Container, now_unix_nanos};
use crate::engine::{Engine, Inner, blocking, to_its_end};
use crate::events::Event;
use crate::request::check_labels;
use crate::request::storage::{LOCAL, check_driver, check_volume_name, check_volume_options};
use crate::{Error, names};

pub use prune::VolumeFilters;

pub(crate) use local::LocalOptions;
pub(crate) use part::MountPoint;
pub(crate) use resolve::{own_mounts, resolve};
pub(crate) use slots::{Prepared, Slots, prepare, release};

/// A volume as it is on record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Unique among volumes.
    pub name: String,
    /// `local`.
    pub driver: String,
    /// For people and tools.
    pub labels: BTreeMap<String, String>,
    /// Of the driver: what is mounted there.
    pub options: BTreeMap<String, String>,
    /// Nobody named it.
    pub anonymous: bool,
    /// In nanoseconds since 1970.
    pub created_unix_nanos: i64,
    /// Ids of the containers that use it.
    pub containers: Vec<String>,
}

/// What a volume is to be.
#[derive(Debug, Clone, Default)]
pub struct VolumeRequest {
    /// Empty: one is made up.
    pub name: String,
    /// Empty: `local`.
    pub driver: String,
    /// For people and tools.
    pub labels: BTreeMap<String, String>,
    /// Of the driver.
    pub options: BTreeMap<String, String>,
}

impl VolumeRequest {
    fn check(&self) -> Result<(), Error> {
        if !self.name.is_empty() {
            check_volume_name("name", &self.name)?;
        }
        check_driver("driver", &self.driver)?;
        check_labels("labels", &self.labels)?;
        check_volume_options(&self.options)
    }
}

/// What all operations on volumes share.
#[derive(Default)]
pub(crate) struct Volumes {
    /// Folders are made, and moved away, by one at a time: between a row and its folder nobody sees the volume.
    changes: tokio::sync::Mutex<()>,
    pub(crate) slots: Slots,
}

impl Volumes {
    pub(crate) async fn lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changes.lock().await
    }
}

impl Engine {
    /// Make a volume. One of this name that is there already is given as it is.
    pub async fn create_volume(&self, request: VolumeRequest) -> Result<Volume, Error> {
        request.check()?;
        let anonymous = request.name.is_empty();
        let volume = Volume {
            name: if anonymous {
                names::random_id()?
            } else {
                request.name
            },
            driver: LOCAL.to_owned(),
            labels: request.labels,
            options: request.options,
            anonymous,
            created_unix_nanos: now_unix_nanos(),
            containers: Vec::new(),
        };
        let (name, engine) = (volume.name.clone(), Arc::clone(&self.0));
        to_its_end(async move { make(&engine, volume).await }).await?;
        self.volume(&name).await
    }

    /// All volumes that pass, by name.
    pub async fn volumes(&self, filters: &VolumeFilters) -> Result<Vec<Volume>, Error> {
        let mut volumes = self.0.store.volumes().await?;
        volumes.retain(|volume| filters.pass(volume));
        Ok(volumes)
    }

    /// One volume.
    pub async fn volume(&self, name: &str) -> Result<Volume, Error> {
        let volumes = self.0.store.volumes().await?;
        let found = volumes.into_iter().find(|volume| volume.name == name);
        found.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// Where the data of a volume is.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.0.config.volume_data(name)
    }

    /// Remove a volume that no container uses. With `force`, one that is not there is no error.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        let (name, engine) = (name.to_owned(), Arc::clone(&self.0));
        to_its_end(async move {
            let changes = engine.volumes.lock().await;
            match remove_locked(&engine, &name).await {
                Err(Error::NoSuchVolume(_)) if force => return Ok(()),
                other => other?,
            }
            drop(changes);
            empty_trash(&engine).await;
            Ok(())
        })
        .await
    }
}

/// Put a volume on record, and make its folder.
async fn make(engine: &Arc<Inner>, volume: Volume) -> Result<(), Error> {
    let name = volume.name.clone();
    let changes = engine.volumes.lock().await;
    let is_new = engine.store.insert_volume(volume).await?;
    failpoint::reach("volume.recorded");
    let (of, owned) = (Arc::clone(engine), name.clone());
    let made = blocking(move || folder::make(&of.config.volumes(), &owned)).await;
    if let (Err(_), true) = (&made, is_new) {
        remove_locked(engine, &name).await?;
    }
    made?;
    failpoint::reach("volume.made");
    drop(changes);
    if is_new {
        tell(engine, "create", &name);
    }
    Ok(())
}

/// Make the folders of a container's volumes that have none. The caller has the lock.
pub(crate) async fn make_folders(engine: &Arc<Inner>, container: &Container) -> Result<(), Error> {
    let volumes = container.mounts.iter().filter_map(|mount| mount.volume());
    let names: Vec<String> = volumes.map(|volume| volume.name.clone()).collect();
    let engine = Arc::clone(engine);
    blocking(move || {
        let root = engine.config.volumes();
        names.iter().try_for_each(|name| folder::make(&root, name))
    })
    .await
}

/// Remove a volume, but for the files that it had. The caller has the lock.
async fn remove_locked(engine: &Arc<Inner>, name: &str) -> Result<(), Error> {
    engine.store.mark_volume(name).await?;
    failpoint::reach("volume.marked");
    finish_removal(engine, name).await
}

/// Remove the volumes that went with a container, if it had any.
pub(crate) async fn finish_removals(engine: &Arc<Inner>) {
    let changes = engine.volumes.lock().await;
    let marked = match engine.store.marked_volumes().await {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%error, "cannot look for volumes to be removed");
            return;
        }
    };
    for name in &marked {
        if let Err(error) = finish_removal(engine, name).await {
            tracing::warn!(volume = name, %error, "left behind, until the next start of the manager");
        }
    }
    drop(changes);
    empty_trash(engine).await;
}

/// The row is marked: move the folder away and delete the row.
async fn finish_removal(engine: &Arc<Inner>, name: &str) -> Result<(), Error> {
    engine.volumes.slots.forget(name);
    let (owned, of) = (name.to_owned(), Arc::clone(engine));
    blocking(move || {
        local::unmount(&of.config.volume_data(&owned))?;
        folder::move_away(&of.config.volumes(), &owned)
    })
    .await?;
    failpoint::reach("volume.moved");
    engine.store.forget_volume(name).await?;
    failpoint::reach("volume.forgotten");
    tell(engine, "destroy", name);
    Ok(())
}

/// Remove the files of volumes that are gone.
async fn empty_trash(engine: &Arc<Inner>) {
    let of = Arc::clone(engine);
    let emptied = blocking(move || {
        folder::empty_trash(&of.config.volumes())?;
        of.store.keep_ballast();
        Ok(())
    });
    if let Err(error) = emptied.await {
        tracing::warn!(%error, "left behind, until the next start of the manager");
    }
}

fn tell(engine: &Inner, action: &'static str, name: &str) {
    let attributes = vec![("driver".to_owned(), LOCAL.to_owned())];
    engine.events.send(Event::of_volume(action, name, attributes));
}
