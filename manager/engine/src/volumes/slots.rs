//! What a start makes of a container's mounts, and its end gives back: volumes with options are mounted for the first
//! container that uses them and unmounted after the last, empty ones get what the image has.
//!
//! A volume is at one thing at a time, so that nobody starts with half of a copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use super::local::{self, LocalOptions};
use super::part::MountPoint;
use super::{copy_up, folder};
use crate::Error;
use crate::container::Container;
use crate::engine::{Inner, blocking};
use crate::request::{Mount, Source, VolumeSource};

/// The containers for which a volume is mounted.
type Slot = Arc<AsyncMutex<BTreeSet<String>>>;

/// The volumes that running containers use.
#[derive(Default)]
pub(crate) struct Slots(Mutex<Known>);

#[derive(Default)]
struct Known {
    volumes: BTreeMap<String, Slot>,
    /// By container, so that the end of one waits for no volume of another's.
    containers: BTreeMap<String, BTreeSet<String>>,
}

impl Slots {
    /// That of a volume, which the container is about to use.
    fn of(&self, volume: &str, container: &str) -> Slot {
        let mut known = self.locked();
        let used = known.containers.entry(container.to_owned()).or_default();
        used.insert(volume.to_owned());
        Arc::clone(known.volumes.entry(volume.to_owned()).or_default())
    }

    /// Those that a container has used; it uses them no more.
    fn taken_from(&self, container: &str) -> Vec<(String, Slot)> {
        let mut known = self.locked();
        let names = known.containers.remove(container).unwrap_or_default();
        let slot = |name: String| {
            known
                .volumes
                .get(&name)
                .map(|slot| (name.clone(), Arc::clone(slot)))
        };
        names.into_iter().filter_map(slot).collect()
    }

    /// The volume is no more.
    pub(super) fn forget(&self, volume: &str) {
        self.locked().volumes.remove(volume);
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that runs uses the volume already.
    pub(super) async fn resume(&self, volume: &str, container: &str) {
        self.of(volume, container)
            .lock()
            .await
            .insert(container.to_owned());
    }
}

/// What config.json is to have as sources, as long as the runtime has not opened them.
#[derive(Default)]
pub(crate) struct Prepared {
    /// One for each mount of the container; empty for what has none.
    pub(crate) sources: Vec<PathBuf>,
    /// Parts of volumes.
    parts: Vec<MountPoint>,
}

/// Make everything ready that `container` is to see.
pub(crate) async fn prepare(engine: &Arc<Inner>, container: &Container) -> Result<Prepared, Error> {
    let mut prepared = Prepared::default();
    for mount in &container.mounts {
        let (source, part) = match &mount.source {
            Source::Tmpfs(_) => (PathBuf::new(), None),
            Source::Bind(bind) => {
                let (path, create) = (PathBuf::from(&bind.path), bind.create);
                let made = path.clone();
                blocking(move || if create { make_source(&made) } else { Ok(()) }).await?;
                (path, None)
            }
            Source::Volume(volume) => prepare_volume(engine, container, mount, volume).await?,
        };
        prepared.sources.push(source);
        prepared.parts.extend(part);
    }
    Ok(prepared)
}

async fn prepare_volume(
    engine: &Arc<Inner>,
    container: &Container,
    mount: &Mount,
    volume: &VolumeSource,
) -> Result<(PathBuf, Option<MountPoint>), Error> {
    let mut options = LocalOptions::parse(&engine.store.volume_options(&volume.name).await?)?;
    let slot = engine.volumes.slots.of(&volume.name, &container.id);
    let mut users = Arc::clone(&slot).lock_owned().await;
    if users.is_empty()
        && let Some(mut named) = options.take_if(|options| options.names_a_server())
    {
        // A name server may take its time, and nobody else is to wait for that.
        drop(users);
        options = Some(blocking(move || named.find_server().map(|()| named)).await?);
        users = slot.lock_owned().await;
    }
    let (engine, id, target) = (Arc::clone(engine), container.id.clone(), mount.target.clone());
    // Only its first start fills an empty volume: what the container itself deletes does not come back.
    let copies = !volume.no_copy && container.runs == 0;
    let (name, subpath) = (volume.name.clone(), volume.subpath.clone());
    blocking(move || {
        folder::make(&engine.config.volumes(), &name)?;
        let data = engine.config.volume_data(&name);
        let is_first = users.is_empty();
        if let Some(options) = &options
            && is_first
        {
            options.mount(&data)?;
        }
        users.insert(id.clone());
        failpoint::reach("volume.mounted");
        // A copy into what is mounted is made there, where other containers would see it in the making.
        if copies && (is_first || options.is_none()) {
            copy_up::fill(&engine.images, &id, &target, &data, options.is_some())?;
        }
        if subpath.is_empty() {
            return Ok((data, None));
        }
        let part = MountPoint::of_part(&data, &name, &subpath, &engine.config.parts())?;
        Ok((part.place.clone(), Some(part)))
    })
    .await
}

/// A run of a container is over, or did not come about.
pub(crate) async fn release(engine: &Arc<Inner>, container: &str) {
    for (name, slot) in engine.volumes.slots.taken_from(container) {
        let mut users = slot.lock_owned().await;
        if !users.remove(container) || !users.is_empty() {
            continue;
        }
        let of = Arc::clone(engine);
        let unmounted = blocking(move || {
            let unmounted = local::unmount(&of.config.volume_data(&name));
            drop(users);
            unmounted
        });
        if let Err(error) = unmounted.await {
            tracing::warn!(id = container, %error, "left behind, until the next start of the manager");
        }
    }
}

/// As docker does for `-v`: a source that is not there becomes a directory.
fn make_source(source: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(source).is_ok() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(source)
        // Whatever umask this process has: the container's users are to find it open.
        .and_then(|()| fs::set_permissions(source, fs::Permissions::from_mode(0o755)))
        .map_err(Error::file("make the source of a bind", source))
}
