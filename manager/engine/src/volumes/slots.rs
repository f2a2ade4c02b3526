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
use super::{copy_up, folder, images, plugin};
use crate::Error;
use crate::container::Container;
use crate::engine::{Inner, apart, blocking};
use crate::request::storage::LOCAL;
use crate::request::{Mount, Source, VolumeSource};
use crate::store::VolumeRecord;
use crate::userns;

/// The containers for which a volume is mounted.
pub(super) type Slot = Arc<AsyncMutex<BTreeSet<String>>>;

/// The volumes that running containers use.
#[derive(Default)]
pub(crate) struct Slots(Mutex<Known>);

#[derive(Default)]
struct Known {
    volumes: BTreeMap<String, Slot>,
    /// Those of plugins.
    of_plugins: BTreeSet<String>,
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
        let mut known = self.locked();
        known.volumes.remove(volume);
        known.of_plugins.remove(volume);
    }

    /// Give up that of a volume which nobody uses, unless somebody waits for it: who waits has to meet whoever comes next
    /// at the same place. The caller has no turn any more.
    pub(super) fn leave(&self, volume: &str, slot: &Slot) {
        let mut known = self.locked();
        // The one here, and the caller's; others are made under this lock alone.
        let is_free = Arc::strong_count(slot) <= 2 && slot.try_lock().is_ok_and(|users| users.is_empty());
        if is_free {
            known.volumes.remove(volume);
            known.of_plugins.remove(volume);
        }
    }

    /// That of a volume, whoever uses it.
    pub(super) fn of_volume(&self, volume: &str) -> Slot {
        Arc::clone(self.locked().volumes.entry(volume.to_owned()).or_default())
    }

    /// Its mounts are a plugin's.
    pub(super) fn note_plugin(&self, volume: &str) {
        self.locked().of_plugins.insert(volume.to_owned());
    }

    fn is_of_plugin(&self, volume: &str) -> bool {
        self.locked().of_plugins.contains(volume)
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

/// What a mount is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Empty for what has none.
    pub(crate) path: PathBuf,
    /// Its files are containers' alone, and have the owners on disk that these see: each by its own user namespace.
    pub(crate) is_mapped: bool,
}

/// What config.json is to have as sources, as long as the runtime has not opened them.
#[derive(Default)]
pub(crate) struct Prepared {
    /// One for each mount of the container.
    pub(crate) sources: Vec<Seen>,
    /// Parts of volumes, and images.
    parts: Vec<MountPoint>,
    /// Where plugins have mounted volumes for this run, by name.
    of_plugins: BTreeMap<String, PathBuf>,
}

/// Make everything ready that `container` is to see.
pub(crate) async fn prepare(engine: &Arc<Inner>, container: &Container) -> Result<Prepared, Error> {
    let mut prepared = Prepared::default();
    for mount in &container.mounts {
        let (source, part) = match &mount.source {
            Source::Tmpfs(_) => (Seen::default(), None),
            Source::Image(image) => {
                let (of, image) = (Arc::clone(engine), image.clone());
                let owners = container.request.isolation.owners.clone();
                let point = blocking(move || images::mount(&of, &image, owners.as_ref())).await?;
                // Their owners are mapped already, layer by layer.
                (Seen::of_others(point.place.clone()), Some(point))
            }
            Source::Bind(bind) => {
                let (path, create) = (PathBuf::from(&bind.path), bind.create);
                let made = path.clone();
                blocking(move || if create { make_source(&made) } else { Ok(()) }).await?;
                (Seen::of_others(path), None)
            }
            Source::Volume(volume) => {
                let record = engine.store.volume_record(&volume.name).await?;
                let record = record.ok_or_else(|| Error::NoSuchVolume(volume.name.clone()))?;
                if record.driver == LOCAL {
                    prepare_volume(engine, container, mount, volume, &record).await?
                } else {
                    let there = prepared.of_plugins.get(&volume.name).cloned();
                    let (data, source) =
                        prepare_plugin(engine, container, mount, volume, &record, there).await?;
                    prepared.of_plugins.insert(volume.name.clone(), data);
                    source
                }
            }
        };
        prepared.sources.push(source);
        prepared.parts.extend(part);
    }
    Ok(prepared)
}

impl Seen {
    /// What the host and others use as well: it shows the owners that it has.
    fn of_others(path: PathBuf) -> Seen {
        Seen {
            path,
            is_mapped: false,
        }
    }
}

/// The source of a mount, and what is to stay until the runtime has it.
type Place = (Seen, Option<MountPoint>);

/// The same for a volume of a plugin: where its data is besides. `there`: it is mounted for this run already.
async fn prepare_plugin(
    engine: &Arc<Inner>,
    container: &Container,
    mount: &Mount,
    volume: &VolumeSource,
    record: &VolumeRecord,
    there: Option<PathBuf>,
) -> Result<(PathBuf, Place), Error> {
    let (name, id) = (&volume.name, &container.id);
    let slot = engine.volumes.slots.of(name, id);
    engine.volumes.slots.note_plugin(name);
    let mut users = slot.lock_owned().await;
    let others = users.iter().any(|user| user != id);
    // From now on the end of this run undoes what the plugin does.
    users.insert(id.clone());
    let data = match there {
        Some(data) => data,
        None => plugin::mount(engine, &record.driver, name, &record.options, id, others).await?,
    };
    let copies = !volume.no_copy && container.runs == 0 && !others;
    let (engine, volume, id) = (Arc::clone(engine), volume.clone(), id.clone());
    let (target, owners) = (mount.target.clone(), container.request.isolation.owners.clone());
    blocking(move || {
        if copies && data.is_dir() {
            copy_up::fill(&engine.images, &id, &target, &data, true, owners.as_ref())?;
        }
        drop(users);
        if volume.subpath.is_empty() {
            return Ok((data.clone(), (Seen::of_others(data), None)));
        }
        let part = MountPoint::of_part(&data, &volume.name, &volume.subpath, &engine.config.parts())?;
        Ok((data, (Seen::of_others(part.place.clone()), Some(part))))
    })
    .await
}

async fn prepare_volume(
    engine: &Arc<Inner>,
    container: &Container,
    mount: &Mount,
    volume: &VolumeSource,
    record: &VolumeRecord,
) -> Result<Place, Error> {
    let mut options = LocalOptions::parse(&record.options)?;
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
    let owners = container.request.isolation.owners.clone();
    let is_mapped = options.as_ref().is_none_or(LocalOptions::is_memory);
    let work = move || {
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
            let shifted = owners.as_ref().filter(|_| !is_mapped);
            copy_up::fill(&engine.images, &id, &target, &data, options.is_some(), shifted)?;
        }
        if let Some(owners) = owners.filter(|_| is_mapped) {
            userns::mounts::check(&data, &owners)?;
        }
        let seen = |path| Seen { path, is_mapped };
        if subpath.is_empty() {
            return Ok((seen(data), None));
        }
        let part = MountPoint::of_part(&data, &name, &subpath, &engine.config.parts())?;
        Ok((seen(part.place.clone()), Some(part)))
    };
    // What is not only containers' may lie on another machine.
    if is_mapped {
        blocking(work).await
    } else {
        apart("volume", work).await
    }
}

/// A run of a container is over, or did not come about.
pub(crate) async fn release(engine: &Arc<Inner>, container: &str) {
    for (name, slot) in engine.volumes.slots.taken_from(container) {
        let mut users = slot.lock_owned().await;
        let was_user = users.remove(container);
        if was_user && engine.volumes.slots.is_of_plugin(&name) {
            plugin::release(engine, &name, container, !users.is_empty()).await;
            continue;
        }
        if !was_user || !users.is_empty() {
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
