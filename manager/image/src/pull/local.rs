//! What is here already: of what a pull is after, and of a platform that a container wants.

use std::sync::Arc;

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::{Flight, Pull, Pulls, read};
use crate::database;
use crate::digest::{Digest, chain_ids};
use crate::reference::Reference;
use crate::store::{Held, Key, Store};
use crate::{Error, Image, Kept, Platform, blocking, joined};

/// What a name points to here.
pub(super) struct Known {
    pub(super) target: Digest,
    /// The image that is wanted of it, if all of that is here.
    pub(super) image: Option<String>,
    /// Holds on the target and what it needs, and on the image's layers.
    _held: Vec<Arc<Held>>,
}

impl Pull {
    /// Look the name up. Nothing is known of a target that is not here itself: version 1 of the store kept no index.
    pub(super) async fn known(&self) -> Result<Option<Known>, Error> {
        let store = Arc::clone(&self.shared.store);
        let (name, platform, all) = (self.reference.name(), self.platform(), self.all_platforms);
        blocking(move || known(&store, &name, &platform, all)).await
    }
}

fn known(store: &Arc<Store>, name: &str, platform: &Platform, all: bool) -> Result<Option<Known>, Error> {
    let (target, row) = {
        let connection = store.database();
        let Some(target) = database::target_of(&connection, name)? else {
            return Ok(None);
        };
        let mut row = database::name(&connection, name)?.filter(|row| row.platform == platform.to_string());
        if let Some(of) = &row
            && !is_complete(&connection, &target, &of.image_id, all)?
        {
            row = None;
        }
        (target, row)
    };
    let Ok(target) = Digest::parse(&target) else {
        return Ok(None);
    };
    let Some(document) = store.hold(&Key::Blob(target.clone()))? else {
        return Ok(None);
    };
    let mut held = vec![document];
    let mut image = row.map(|row| row.image_id);
    if let Some(id) = &image {
        // What a name stands for may change without its platform's being asked for.
        let wanted = read(store, id).ok().filter(|kept| kept.is_for(platform));
        let layers = wanted.map(|kept| hold_layers(store, &kept)).transpose()?;
        match layers.flatten() {
            Some(layers) => {
                let packed = store.hold_contents(&target)?;
                held.extend(layers.into_iter().chain(packed.into_iter().map(|(_, held)| held)));
            }
            None => image = None,
        }
    }
    Ok(Some(Known {
        target,
        image,
        _held: held,
    }))
}

/// Whether what is wanted of a target is here packed too, so that it can be saved and pushed: one image, or all of it.
fn is_complete(connection: &Connection, target: &str, image: &str, all: bool) -> Result<bool, Error> {
    if all {
        return database::is_complete(connection, target);
    }
    for manifest in database::manifests_of(connection, target, image)? {
        if database::is_complete(connection, &manifest)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Holds on all layers of an image, unless it has lost one. An artifact has none.
fn hold_layers(store: &Arc<Store>, kept: &Kept) -> Result<Option<Vec<Arc<Held>>>, Error> {
    let Kept::Image(image) = kept else {
        return Ok(Some(Vec::new()));
    };
    let diff_ids: Result<Vec<Digest>, String> = image.diff_ids.iter().map(|d| Digest::parse(d)).collect();
    let Ok(diff_ids) = diff_ids else { return Ok(None) };
    chain_ids(&diff_ids)
        .into_iter()
        .map(|chain_id| store.hold(&Key::Layer(chain_id)))
        .collect()
}

impl Pulls {
    /// The image that a name has for a platform, from what is here. If only its packed layers are, they are unpacked.
    pub(crate) async fn unpack_here(
        self: &Arc<Self>,
        reference: Reference,
        platform: Platform,
    ) -> Result<Image, Error> {
        let (store, name) = (Arc::clone(&self.store), reference.name());
        let target = blocking(move || {
            let target = database::target_of(&store.database(), &name)?;
            target
                .and_then(|text| Digest::parse(&text).ok())
                .ok_or(Error::NoSuchImage(name))
        })
        .await?;
        let cancelled = CancellationToken::new();
        let _given_up = cancelled.clone().drop_guard();
        let pull = Pull {
            shared: Arc::clone(self),
            reference,
            wanted: Some(platform),
            all_platforms: false,
            images_only: true,
            credentials: None,
            cancelled,
            flight: Arc::new(Flight::default()),
        };
        // In a task of its own, as a pull is: it cleans up behind a caller who has gone away.
        let task = tokio::spawn(async move {
            let plan = pull.or_cancelled(pull.plan(None, Some(&target))).await?;
            let (store, id) = (Arc::clone(&pull.shared.store), plan.row.id.clone());
            let ready = blocking(move || {
                let Ok(kept) = read(&store, &id) else {
                    return Ok(None);
                };
                Ok(hold_layers(&store, &kept)?.map(|_held| kept))
            });
            let kept = match ready.await? {
                Some(kept) => kept,
                // The name goes on to stand for what it was pulled for.
                None => pull.make(None, plan, None).await?,
            };
            kept.into_image(&pull.reference.to_string())
        });
        joined(task.await, || Error::Cancelled("images".into()))
    }
}
