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
        self.tell_of_push(&pushed);
        Ok(pushed)
    }

    /// Push all tags of a repository that are here, one after the other; `done` is called for each that is there.
    pub async fn push_all_tags(
        &self,
        repository: &str,
        credentials: Option<Credentials>,
        progress: &(dyn Fn(BlobProgress) + Send + Sync),
        done: &(dyn Fn(Pushed) + Send + Sync),
    ) -> Result<(), Error> {
        let done = |pushed: Pushed| {
            self.tell_of_push(&pushed);
            done(pushed);
        };
        let images = &self.0.images;
        Ok(images
            .push_all_tags(repository, credentials, progress, &done)
            .await?)
    }

    fn tell_of_push(&self, pushed: &Pushed) {
        let attributes = vec![("name".to_owned(), pushed.name.clone())];
        let event = Event::of_image("push", &pushed.digest, attributes);
        self.0.events.send(event);
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
