//! What registries are asked and given, beside pulls.

use image::{BlobProgress, Credentials, Pushed, RemoteManifest, SearchResult};

use crate::Error;
use crate::engine::Engine;
use crate::events::Event;

impl Engine {
    /// Push what a name stands for; `progress` is called for each blob as it goes on.
    pub async fn push(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
        progress: &(dyn Fn(BlobProgress) + Send + Sync),
    ) -> Result<Pushed, Error> {
        let pushed = self.0.images.push(reference, credentials, progress).await?;
        let attributes = vec![("name".to_owned(), pushed.name.clone())];
        self.0
            .events
            .send(Event::of_image("push", &pushed.digest, attributes));
        Ok(pushed)
    }

    /// Find repositories.
    pub async fn search(
        &self,
        term: &str,
        limit: usize,
        credentials: Option<Credentials>,
    ) -> Result<Vec<SearchResult>, Error> {
        Ok(self.0.images.search(term, limit, credentials).await?)
    }

    /// What a registry has under a name, without pulling it.
    pub async fn inspect_manifest(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
        with_referrers: bool,
    ) -> Result<RemoteManifest, Error> {
        let images = &self.0.images;
        Ok(images
            .inspect_manifest(reference, credentials, with_referrers)
            .await?)
    }
}
