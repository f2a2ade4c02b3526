//! Volumes: data that outlives containers, in `ROOT/volumes/NAME/_data`.
//!
//! A volume is there when its row is. The row comes first, in the transaction of the container that wants it, and its
//! folder afterwards; at a removal the row is marked first, in the transaction of the container that goes, then the
//! folder moves away, then the row goes. So at any moment the database tells what to do with a folder, and reconcile
//! does it. A folder that no row tells of was not made by us: it stays.

mod copy_up;
mod folder;
mod images;
mod local;
mod part;
mod plugin;
mod prune;
pub(crate) mod reconcile;
mod resolve;
mod retry;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::container::{Container, now_unix_nanos};
use crate::engine::{Engine, Inner, blocking, to_its_end};
use crate::events::Event;
use crate::request::check_labels;
use crate::request::storage::{LOCAL, check_driver, check_volume_name, check_volume_options};
use crate::{Error, names};

pub use prune::VolumeFilters;

pub(crate) use local::LocalOptions;
pub(crate) use part::MountPoint;
pub(crate) use plugin::{make_anonymous, settle_drivers};
pub(crate) use resolve::{own_mounts, resolve};
pub(crate) use slots::{Prepared, Seen, Slots, prepare, release};

/// A volume as it is on record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Unique among volumes.
    pub name: String,
    /// `local`, or a plugin.
    pub driver: String,
    /// Where its data is; empty: nowhere now, or its plugin does not say.
    pub mountpoint: String,
    /// It reaches beyond this machine.
    pub is_global: bool,
    /// What its plugin has to say of it, as JSON; empty: nothing.
    pub status_json: String,
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
    /// Empty: that of the one that there is, or `local`.
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
        check_volume_options(&self.driver, &self.options)
    }
}

/// What all operations on volumes share.
#[derive(Default)]
pub(crate) struct Volumes {
    /// Folders are made, and moved away, by one at a time: between a row and its folder nobody sees the volume.
    changes: tokio::sync::Mutex<()>,
    pub(crate) slots: Slots,
    /// Somebody tries to undo what plugins have mounted.
    is_trying: AtomicBool,
    /// There is something more to be undone.
    left: AtomicBool,
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
        let mut volume = Volume {
            name: if anonymous {
                names::random_id()?
            } else {
                request.name
            },
            labels: request.labels,
            options: request.options,
            anonymous,
            created_unix_nanos: now_unix_nanos(),
            ..Volume::default()
        };
        let (name, engine) = (volume.name.clone(), Arc::clone(&self.0));
        to_its_end(async move {
            volume.driver = plugin::driver_of(&engine, &volume.name, &request.driver).await?;
            if volume.driver != LOCAL {
                return plugin::make(&engine, volume).await.map(drop);
            }
            check_volume_options(&volume.driver, &volume.options)?;
            make(&engine, volume).await
        })
        .await?;
        Ok(self.volume(&name).await?.0)
    }

    /// All volumes that pass, by name, those among them that only plugins know. What plugins fail to say is told: a
    /// sentence each.
    pub async fn volumes(&self, filters: &VolumeFilters) -> Result<(Vec<Volume>, Vec<String>), Error> {
        let mut volumes = self.recorded_volumes(&VolumeFilters::default()).await?;
        let warnings = plugin::describe_all(&self.0, &mut volumes).await;
        volumes.retain(|volume| filters.pass(volume));
        Ok((volumes, warnings))
    }

    /// Those that are on record, and pass.
    pub(crate) async fn recorded_volumes(&self, filters: &VolumeFilters) -> Result<Vec<Volume>, Error> {
        let mut volumes = self.0.store.volumes().await?;
        volumes.retain(|volume| filters.pass(volume));
        for volume in volumes.iter_mut().filter(|volume| volume.driver == LOCAL) {
            let data = self.0.config.volume_data(&volume.name);
            volume.mountpoint = data.to_string_lossy().into_owned();
        }
        Ok(volumes)
    }

    /// One volume, and what its plugin failed to say of it.
    pub async fn volume(&self, name: &str) -> Result<(Volume, Option<String>), Error> {
        let volumes = self.recorded_volumes(&VolumeFilters::default()).await?;
        let Some(mut volume) = volumes.into_iter().find(|volume| volume.name == name) else {
            let found = plugin::find(&self.0, name).await;
            let (driver, _) = found.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))?;
            let mut volume = Volume {
                name: name.to_owned(),
                driver,
                ..Volume::default()
            };
            let warning = plugin::describe(&self.0, &mut volume).await;
            return Ok((volume, warning));
        };
        if volume.driver == LOCAL {
            return Ok((volume, None));
        }
        let warning = plugin::describe(&self.0, &mut volume).await;
        Ok((volume, warning))
    }

    /// Remove a volume that no container uses. With `force`, one that is not there is no error, and one whose plugin is
    /// not there is forgotten.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), Error> {
        let (name, engine) = (name.to_owned(), Arc::clone(&self.0));
        to_its_end(async move {
            match engine.store.volume_record(&name).await? {
                None => {
                    return match plugin::remove_unknown(&engine, &name).await {
                        Err(Error::NoSuchVolume(_)) if force => Ok(()),
                        other => other,
                    };
                }
                Some(record) if record.driver != LOCAL => {
                    return plugin::remove(&engine, &record.driver, &name, force).await;
                }
                Some(_) => {}
            }
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
        tell(engine, "create", &name, LOCAL);
    }
    Ok(())
}

/// Make the folders of a container's volumes that have none. The caller has the lock.
pub(crate) async fn make_folders(engine: &Arc<Inner>, container: &Container) -> Result<(), Error> {
    let volumes = container.mounts.iter().filter_map(|mount| mount.volume());
    let volumes = volumes.filter(|volume| volume.driver == LOCAL);
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

/// Remove the volumes that went with a container, if it had any. For the plugins of other containers' volumes it does not
/// wait.
pub(crate) async fn finish_removals(engine: &Arc<Inner>, container: &Container) {
    let mut of_plugins = finish_local_removals(engine).await;
    let is_its = |name: &String| {
        let mut volumes = container.mounts.iter().filter_map(|mount| mount.volume());
        volumes.any(|volume| volume.name == *name)
    };
    of_plugins.retain(|(name, _)| is_its(name));
    finish_plugin_removals(engine, &of_plugins).await;
}

/// Those of plugins are returned, with their plugins, which may take their time.
async fn finish_local_removals(engine: &Arc<Inner>) -> Vec<(String, String)> {
    let changes = engine.volumes.lock().await;
    let marked = match engine.store.marked_volumes().await {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%error, "cannot look for volumes to be removed");
            return Vec::new();
        }
    };
    let (local, of_plugins): (Vec<_>, Vec<_>) = marked.into_iter().partition(|(_, driver)| driver == LOCAL);
    for (name, _) in &local {
        if let Err(error) = finish_removal(engine, name).await {
            tracing::warn!(volume = name, %error, "left behind, until the next start of the manager");
        }
    }
    drop(changes);
    empty_trash(engine).await;
    of_plugins
}

async fn finish_plugin_removals(engine: &Arc<Inner>, marked: &[(String, String)]) {
    for (name, driver) in marked {
        match plugin::finish_removal(engine, driver, name, plugin::Absent::Goes).await {
            Err(Error::Plugin(error)) if !error.is_refusal() => {
                tracing::warn!(volume = name, %error, "it is removed when its plugin answers");
                retry::keep_trying(engine);
            }
            Err(error) => tracing::warn!(volume = name, %error, "it stays"),
            Ok(()) => {}
        }
    }
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
    tell(engine, "destroy", name, LOCAL);
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

fn tell(engine: &Inner, action: &'static str, name: &str, driver: &str) {
    let attributes = vec![("driver".to_owned(), driver.to_owned())];
    engine.events.send(Event::of_volume(action, name, attributes));
}
