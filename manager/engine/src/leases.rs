//! Leases of clients: images that stay while somebody outside works with them.

use std::sync::Arc;

use image::Lease;

use crate::engine::{Engine, blocking};
use crate::{Error, names};

/// How long a lease lasts whose client does not say: a day, as of `ctr leases create`.
const DEFAULT_SECONDS: u64 = 24 * 3600;
/// Of an id that is made up: short enough to be typed, long enough never to be another's.
const ID_LENGTH: usize = 16;

impl Engine {
    /// Keep images for a client. An empty `id`: one is made up; no `seconds`: a day. See [`image::Images::lease`].
    pub async fn lease_images(
        &self,
        mut id: String,
        names_or_ids: Vec<String>,
        seconds: u64,
    ) -> Result<Lease, Error> {
        if id.is_empty() {
            id = names::random_id()?;
            id.truncate(ID_LENGTH);
        }
        let seconds = if seconds == 0 { DEFAULT_SECONDS } else { seconds };
        let engine = Arc::clone(&self.0);
        blocking(move || Ok(engine.images.lease(&id, &names_or_ids, seconds)?)).await
    }

    /// Clients' leases that have not run out, in the order of their ids.
    pub async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let engine = Arc::clone(&self.0);
        blocking(move || Ok(engine.images.client_leases()?)).await
    }

    /// Give a lease back. A removal is to follow, so a full disk has room for it.
    pub async fn end_lease(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.remove_with_room(move |images| images.end_lease(&id)).await
    }
}
