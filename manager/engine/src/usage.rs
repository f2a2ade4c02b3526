//! What images, containers and volumes take of the disk, what nobody needs of it, and whether it is what it should be.

use std::path::Path;
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
        let bytes = |path: &Path| image::tree_bytes(path).unwrap_or(0);
        let rootfs = self.images.rootfs(&container.id);
        ContainerUsage {
            upper_bytes: rootfs.map_or(0, |rootfs| bytes(&rootfs.upper)),
            log_bytes: bytes(&self.config.container(&container.id)),
            is_running: container.is_up(),
            id: container.id.clone(),
            name: container.name.clone(),
        }
    }
}

impl Engine {
    /// What images, containers and volumes take of the disk. Walks through the containers' writable layers, and through
    /// the volumes.
    pub async fn disk_usage(&self) -> Result<DiskUsage, Error> {
        let containers = self.list(true);
        let volumes = self.recorded_volumes(&VolumeFilters::default()).await?;
        let engine = Arc::clone(&self.0);
        blocking(move || {
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
