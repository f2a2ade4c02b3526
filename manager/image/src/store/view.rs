//! What the store says it has, for who checks it against what is there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::{Held, Key, Store, lock};
use crate::database::{self, ContentRow, LayerRow};
use crate::digest::Digest;
use crate::{Error, Kept, reconcile};

/// What became of something that the database named.
pub(crate) enum Sought {
    Held(Arc<Held>),
    /// The database names it, and it is not there.
    Lost,
    /// It was removed.
    Removed,
}

/// All of an image or artifact at one moment. It stays as long as this does; what is not there is `None`.
pub(crate) struct View {
    pub(crate) kept: Kept,
    /// Base first.
    pub(crate) layers: Vec<(LayerRow, Option<Arc<Held>>)>,
    pub(crate) contents: Vec<(ContentRow, Option<Arc<Held>>)>,
}

impl Store {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Hold all that an image needs; `None` if it was removed.
    pub(crate) fn view(self: &Arc<Self>, image_id: &str) -> Result<Option<View>, Error> {
        // Declared before the lock, so that on an error they are dropped after it: a hold's end takes the lock itself.
        let (mut layers, mut contents) = (Vec::new(), Vec::new());
        // One lock over all, so that nothing is removed in between.
        let mut held = lock(&self.held);
        let (kept, layer_rows, content_rows) = {
            let connection = self.database();
            let Some(kept) = Kept::find(&connection, image_id)? else {
                return Ok(None);
            };
            let layers = database::image_layers(&connection, image_id)?;
            (kept, layers, database::contents_of_image(&connection, image_id)?)
        };
        let mut find = |key: Option<Key>| match key {
            Some(key) => self.hold_locked(&mut held, &key),
            None => Ok(None),
        };
        for row in layer_rows {
            let found = find(Digest::parse(&row.chain_id).ok().map(Key::Layer))?;
            layers.push((row, found));
        }
        for row in content_rows {
            let found = find(Digest::parse(&row.digest).ok().map(Key::Blob))?;
            contents.push((row, found));
        }
        Ok(Some(View {
            kept,
            layers,
            contents,
        }))
    }

    /// A hold on what the database has named a moment ago.
    pub(crate) fn seek(self: &Arc<Self>, key: &Key) -> Result<Sought, Error> {
        let mut held = lock(&self.held);
        if let Some(held) = self.hold_locked(&mut held, key)? {
            return Ok(Sought::Held(held));
        }
        let connection = self.database();
        let is_named = match key {
            Key::Blob(digest) => database::has_blob(&connection, &digest.to_string())?,
            Key::Layer(chain_id) => database::layer_number(&connection, &chain_id.to_string())?.is_some(),
        };
        Ok(if is_named { Sought::Lost } else { Sought::Removed })
    }

    /// Files and folders that neither the database names nor anybody makes or holds. What is let go of at this
    /// moment can be among them: only what is so twice is left over.
    pub(crate) fn strangers(&self) -> Result<HashSet<PathBuf>, Error> {
        // Dropped after the lock, as above.
        let mut live: Vec<Arc<Held>> = Vec::new();
        let held = lock(&self.held);
        live.extend(held.values().filter_map(Weak::upgrade));
        let scratch = self.scratch.all();
        let strangers = reconcile::strangers(&self.root, &self.database())?;
        drop(held);
        let known: HashSet<PathBuf> = live.iter().map(|held| held.path.clone()).chain(scratch).collect();
        Ok(strangers
            .into_iter()
            .filter(|path| !known.contains(path))
            .collect())
    }
}
