//! What images, containers and volumes take of the disk, what nobody needs of it, and whether it is what it should be.

use std::io;
use std::sync::Arc;

use image::{AuditCounts, AuditEvent, Filters, Removed, Step, Usage};

use crate::Error;
use crate::container::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::events::Event;
use crate::volumes::{Volume, VolumeFilters};

/// What one container takes, beside its image.
#[derive(Debug, Clone)]
pub struct ContainerUsage {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Files that it has written or changed.
    pub upper_bytes: u64,
    /// What is kept of its output.
    pub log_bytes: u64,
    /// Whether it runs.
    pub is_running: bool,
}

impl ContainerUsage {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.upper_bytes + self.log_bytes
    }
}

/// What one container has on the disk by the lengths of its files, as docker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerSize {
    /// Files that it has written or changed.
    pub upper_bytes: u64,
    /// Those, and the files of its image's layers.
    pub root_bytes: u64,
}

/// What one volume takes.
#[derive(Debug, Clone)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// Its files, without what is mounted; 0 for one with options, which is.
    pub bytes: u64,
    /// How many containers use it, running or not.
    pub containers: usize,
}

/// What all take of the disk.
#[derive(Debug, Clone)]
pub struct DiskUsage {
    /// Images, with what is kept of them.
    pub images: Usage,
    /// Each container, running or not.
    pub containers: Vec<ContainerUsage>,
    /// Each volume.
    pub volumes: Vec<VolumeUsage>,
}

impl Inner {
    /// What a container takes. One that goes meanwhile takes nothing.
    pub(crate) fn usage_of(&self, container: &Container) -> ContainerUsage {
        let log = self.config.container(&container.id);
        ContainerUsage {
            upper_bytes: self.upper_bytes(container).unwrap_or(0),
            log_bytes: image::tree_bytes(&log).unwrap_or(0),
            is_running: container.is_up(),
            id: container.id.clone(),
            name: container.name.clone(),
        }
    }

    /// Bytes of what a container has written. One that goes meanwhile has nothing.
    fn upper_bytes(&self, container: &Container) -> Result<u64, Error> {
        let upper = match self.images.rootfs(&container.id) {
            Ok(rootfs) => rootfs.upper,
            Err(image::Error::NoSuchLease(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        match image::tree_bytes(&upper) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            measured => measured.map_err(Error::file("measure", &upper)),
        }
    }

    fn sizes(&self, containers: &[Arc<Container>]) -> Result<Vec<ContainerSize>, Error> {
        let size = |container: &Arc<Container>| {
            let upper_bytes = self.upper_bytes(container)?;
            let image_bytes = self.images.layers_bytes(&container.image_id)?;
            Ok(ContainerSize {
                upper_bytes,
                root_bytes: upper_bytes.saturating_add(image_bytes),
            })
        };
        containers.iter().map(size).collect()
    }
}

/// Walk through files where it holds nobody up, and as the only one: many that ask would wear the disk, and take all
/// threads. A walk keeps its turn to its end, though nobody may wait for it any more.
async fn walk<T: Send + 'static>(
    engine: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let turn = Arc::clone(&engine.walks).acquire_owned().await;
    let engine = Arc::clone(engine);
    blocking(move || {
        let _turn = turn;
        work(&engine)
    })
    .await
}

impl Engine {
    /// What each of these containers has on the disk. Walks through their writable layers.
    pub async fn sizes(&self, containers: &[Arc<Container>]) -> Result<Vec<ContainerSize>, Error> {
        let containers = containers.to_vec();
        walk(&self.0, move |engine| engine.sizes(&containers)).await
    }

    /// What images, containers and volumes take of the disk. Walks through the containers' writable layers, and through
    /// the volumes.
    pub async fn disk_usage(&self) -> Result<DiskUsage, Error> {
        let containers = self.list(true);
        let volumes = self.recorded_volumes(&VolumeFilters::default()).await?;
        walk(&self.0, move |engine| {
            let of_volume = |volume: Volume| VolumeUsage {
                bytes: if volume.options.is_empty() {
                    // One that goes meanwhile takes nothing.
                    image::tree_bytes(&engine.config.volume_data(&volume.name)).unwrap_or(0)
                } else {
                    // It may be of a server, which has it on its own disk and may be away; docker leaves them out too.
                    0
                },
                containers: volume.containers.len(),
                name: volume.name,
            };
            Ok(DiskUsage {
                images: engine.images.usage()?,
                containers: containers
                    .iter()
                    .map(|container| engine.usage_of(container))
                    .collect(),
                volumes: volumes.into_iter().map(of_volume).collect(),
            })
        })
        .await
    }

    /// Check images, by name or id, or everything that is kept of images. `tell` says whether anybody still listens.
    pub async fn check_images(
        &self,
        images: Vec<String>,
        mut tell: impl FnMut(AuditEvent) -> bool + Send + 'static,
    ) -> Result<AuditCounts, Error> {
        let engine = Arc::clone(&self.0);
        blocking(move || Ok(engine.images.audit(&images, &mut tell)?)).await
    }

    /// Remove images that neither a container nor a lease needs. Gives how many bytes that frees.
    pub async fn prune_images(&self, all: bool, filters: Filters) -> Result<(Removed, u64), Error> {
        let pruned = self.remove_with_room(move |images| images.prune(all, &filters));
        let (removed, bytes) = pruned.await?;
        self.tell_of_removal(&removed);
        Ok((removed, bytes))
    }

    /// Give an image one more name; gives the name in full.
    pub async fn tag_image(&self, name_or_id: &str, name: &str) -> Result<String, Error> {
        let (engine, wanted, name) = (Arc::clone(&self.0), name_or_id.to_owned(), name.to_owned());
        let (name, id) = blocking(move || {
            let name = engine.images.tag(&wanted, &name)?;
            // A name of an index may have no image.
            let id = engine
                .images
                .get_kept(&name)
                .map_or_else(|_| name.clone(), |kept| kept.id().to_owned());
            Ok((name, id))
        })
        .await?;
        let attributes = vec![("name".to_owned(), name.clone())];
        self.0.events.send(Event::of_image("tag", &id, attributes));
        Ok(name)
    }

    /// How an image was built, base first.
    pub async fn image_history(&self, name_or_id: &str) -> Result<Vec<Step>, Error> {
        let (engine, wanted) = (Arc::clone(&self.0), name_or_id.to_owned());
        blocking(move || Ok(engine.images.history(&wanted)?)).await
    }
}
