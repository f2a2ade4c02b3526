//! Images as the engine's clients see them: the store's operations, with events.

use std::sync::Arc;

use image::{Credentials, Filters, Images, Kept, LayerProgress, PullOptions, Pulled, Removed, Verdict};

use crate::Error;
use crate::engine::{Engine, blocking};
use crate::events::Event;

/// Many errors name a digest or a file; who asked for an image knows neither.
fn pull_failed(reference: &str, error: image::Error) -> Error {
    match error {
        image::Error::Reference { .. }
        | image::Error::Cancelled(_)
        | image::Error::Refused(_)
        | image::Error::Artifact { .. } => Error::Image(error),
        source => Error::Pull {
            reference: reference.to_owned(),
            source,
        },
    }
}

impl Engine {
    /// Pull an image; `progress` is called for each layer as it goes on.
    pub async fn pull(
        &self,
        reference: &str,
        options: PullOptions,
        progress: &(dyn Fn(LayerProgress) + Send + Sync),
    ) -> Result<Pulled, Error> {
        let pulled = self.0.images.pull(reference, options, progress).await;
        let pulled = pulled.map_err(|error| pull_failed(reference, error))?;
        let attributes = vec![("name".to_owned(), reference.to_owned())];
        let event = Event::of_image("pull", pulled.kept.id(), attributes);
        self.0.events.send(event);
        Ok(pulled)
    }

    /// Ask a registry whether it takes `credentials`; the identity token to keep in a password's place, if it gave one.
    pub async fn login(&self, registry: &str, credentials: Credentials) -> Result<Option<String>, Error> {
        Ok(self.0.images.login(registry, credentials).await?)
    }

    /// Judge an image at its registry by the trust policy, without pulling it.
    pub async fn verify(&self, reference: &str, options: PullOptions) -> Result<Verdict, Error> {
        let verified = self.0.images.verify(reference, options).await;
        verified.map_err(|error| match error {
            image::Error::Reference { .. } | image::Error::Refused(_) => Error::Image(error),
            source => Error::Verify {
                reference: reference.to_owned(),
                source,
            },
        })
    }

    /// The images and artifacts that pass filters.
    pub async fn images(&self, filters: Filters) -> Result<Vec<Kept>, Error> {
        let engine = Arc::clone(&self.0);
        blocking(move || Ok(engine.images.list_some(&filters)?)).await
    }

    /// One image or artifact, by name, id or unique prefix of an id.
    pub async fn kept(&self, name_or_id: &str) -> Result<Kept, Error> {
        let (engine, wanted) = (Arc::clone(&self.0), name_or_id.to_owned());
        blocking(move || Ok(engine.images.get_kept(&wanted)?)).await
    }

    /// Take a name from an image, and the image away with its last one.
    pub async fn remove_image(&self, name_or_id: &str, force: bool) -> Result<Removed, Error> {
        let wanted = name_or_id.to_owned();
        let removed = self.remove_with_room(move |images| images.remove(&wanted, force));
        let removed = removed.await?;
        self.tell_of_removal(&removed);
        Ok(removed)
    }

    /// Remove what makes room, for which a full disk has what was set aside.
    pub(crate) async fn remove_with_room<T: Send + 'static>(
        &self,
        remove: impl Fn(&Images) -> Result<T, image::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let engine = Arc::clone(&self.0);
        blocking(move || match remove(&engine.images) {
            Err(error) if error.is_disk_full() && engine.store.throw_off_ballast() => {
                let removed = remove(&engine.images)?;
                engine.images.settle_removals();
                engine.store.keep_ballast();
                Ok(removed)
            }
            removed => Ok(removed?),
        })
        .await
    }

    pub(crate) fn tell_of_removal(&self, removed: &Removed) {
        for name in &removed.untagged {
            let attributes = vec![("name".to_owned(), name.clone())];
            self.0.events.send(Event::of_image("untag", name, attributes));
        }
        for id in &removed.deleted {
            self.0.events.send(Event::of_image("delete", id, Vec::new()));
        }
    }
}
