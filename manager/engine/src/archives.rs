//! Images and containers as tar archives, and a container's differences from its image. The image store does the
//! work; here are names, and events.
//!
//! An archive comes and goes as fast as its client does, who may as well do nothing. So it has a thread of its own:
//! those that containers are run by are never held by a client.

use std::io::{self, Read, Write};
use std::sync::Arc;

use image::{Description, FileChange, Image, Kept, Platform, apply_instructions};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::{Engine, apart};
use crate::events::Event;
use crate::{Error, spec};

/// Archives that are read or written at the same time. More wait for their turn.
const ARCHIVES_AT_ONCE: usize = 16;
static TURNS: Semaphore = Semaphore::const_new(ARCHIVES_AT_ONCE);

/// Run work that waits for a client. It goes on when nobody waits for it any more, until it notices by itself.
pub(crate) async fn with_client<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let turn = TURNS.acquire().await.map_err(|_| Error::ShuttingDown)?;
    apart("archive", move || {
        let _turn = turn;
        work()
    })
    .await
}

/// A root file system that is to become an image.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    /// The image's name; empty: none.
    pub name: String,
    /// A comment in the image's history.
    pub message: String,
    /// Dockerfile instructions that make the image's config.
    pub changes: Vec<String>,
    /// What it runs on; the machine's own if `None`.
    pub platform: Option<Platform>,
}

impl Engine {
    /// Write images, by name or id, into one archive.
    pub async fn save(&self, images: Vec<String>, archive: impl Write + Send + 'static) -> Result<(), Error> {
        let engine = Arc::clone(&self.0);
        let saved = images.clone();
        with_client(move || Ok(engine.images.save(&images, archive)?)).await?;
        for name in saved {
            self.0.events.send(Event::of_image("save", &name, Vec::new()));
        }
        Ok(())
    }

    /// Take the images and artifacts of an archive. Of an index, the image for `platform` is unpacked.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        platform: Option<Platform>,
    ) -> Result<Vec<Kept>, Error> {
        let engine = Arc::clone(&self.0);
        let all = with_client(move || Ok(engine.images.load(archive, platform.as_ref())?)).await?;
        for kept in &all {
            let attributes = kept.names().iter().map(|name| ("name".to_owned(), name.clone()));
            self.0
                .events
                .send(Event::of_image("load", kept.id(), attributes.collect()));
        }
        Ok(all)
    }

    /// Make an image of one layer from a tar archive of a root file system.
    pub async fn import(
        &self,
        archive: impl Read + Send + 'static,
        request: ImportRequest,
    ) -> Result<Image, Error> {
        let mut config = json!({});
        // Before anything is read: the archive may be large.
        apply_instructions(&mut config, &request.changes)?;
        let description = Description {
            name: Some(request.name).filter(|name| !name.is_empty()),
            author: String::new(),
            comment: request.message,
            created_by: "import of a root file system".to_owned(),
            config,
            platform: request.platform,
        };
        let engine = Arc::clone(&self.0);
        let image = with_client(move || Ok(engine.images.import(archive, &description)?)).await?;
        let attributes = image.names.iter().map(|name| ("name".to_owned(), name.clone()));
        self.0
            .events
            .send(Event::of_image("import", &image.id, attributes.collect()));
        Ok(image)
    }

    /// Write a container's whole root file system, without what is mounted in it, as a tar archive.
    pub async fn export(&self, container: &str, archive: impl Write + Send + 'static) -> Result<(), Error> {
        let container = self.0.containers.find(container)?.snapshot().container;
        let (engine, id) = (Arc::clone(&self.0), container.id.clone());
        let (cancelled, _guard) = until_dropped();
        with_client(move || Ok(engine.images.export(&id, &cancelled, archive)?)).await?;
        self.0.events.tell(&container, "export", &[]);
        Ok(())
    }

    /// Tell `visit` what differs between a container's root file system and its image: a folder before what is in it,
    /// sorted in each. An error of its ends the walk.
    pub async fn diff(
        &self,
        container: &str,
        mut visit: impl FnMut(FileChange) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let container = self.0.containers.find(container)?.snapshot().container;
        let engine = Arc::clone(&self.0);
        let (cancelled, _guard) = until_dropped();
        with_client(move || {
            let mount_points = spec::mount_points(&container.request);
            Ok(engine
                .images
                .diff(&container.id, &mount_points, &cancelled, &mut visit)?)
        })
        .await
    }
}

/// For work on another thread, which has to end when nobody waits for it any more: that is when the guard is dropped.
pub(crate) fn until_dropped() -> (CancellationToken, DropGuard) {
    let cancelled = CancellationToken::new();
    (cancelled.clone(), cancelled.drop_guard())
}
