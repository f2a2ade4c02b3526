//! The check of the store: whether what lies here is what its digests say, file by file.
//!
//! Each blob is hashed. Each layer is unpacked once more, by the same pass as in a pull, into a folder of its own, and
//! that is compared with the layer in its place: there is no second set of rules for what a tar makes. So a check
//! needs as much free space as the largest layer takes; memory does not grow with it. All of an image is held while it
//! is checked, and nothing is held or locked between two images: pulls and removals go on beside it.

mod finding;
mod layer;
mod trees;

pub use finding::{Difference, Fault, Finding};

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::database::{self, LayerRow};
use crate::digest::{Digest, chain_ids};
use crate::images::image_id;
use crate::manifest::{self, Layer};
use crate::reaper::give_way;
use crate::store::{Held, Key, Sought, Store, View};
use crate::{Artifact, Error, Image, Kept};

/// What is hashed at once; after each it is told how far the check is.
const PIECE_BYTES: usize = 1 << 20;

/// What a check tells while it goes on.
#[derive(Debug)]
pub enum AuditEvent {
    /// What was checked so far.
    Progress(AuditCounts),
    /// Something is not as it should be.
    Finding(Finding),
    /// A layer whose files could not be compared.
    NotChecked {
        /// The image.
        image: String,
        /// The layer's diffID.
        layer: String,
        /// Why.
        reason: String,
    },
}

/// What was checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Images.
    pub images: u64,
    /// Manifests, configs, compressed layers and other content, each hashed.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Files, folders and the like in them.
    pub files: u64,
    /// Bytes of blobs and files.
    pub bytes: u64,
}

/// Check images by name or id, or if there are none, all that is in the store. `tell` says whether anybody still
/// listens: without a listener the check is given up.
pub(crate) fn audit(
    store: &Arc<Store>,
    images: &[String],
    tell: &mut (dyn FnMut(AuditEvent) -> bool + Send),
) -> Result<AuditCounts, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("image-audit".into())
            .spawn_scoped(scope, || {
                give_way();
                let mut audit = Audit {
                    store,
                    tell,
                    counts: AuditCounts::default(),
                    blobs: HashMap::new(),
                    layers: HashMap::new(),
                };
                audit.run(images)?;
                Ok(audit.counts)
            });
        let thread = thread.map_err(|e| Error::io("start a thread to check", store.root(), e))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Audit<'a> {
    store: &'a Arc<Store>,
    tell: &'a mut (dyn FnMut(AuditEvent) -> bool + Send),
    counts: AuditCounts,
    /// Whether content is whole, by digest.
    blobs: HashMap<Digest, bool>,
    /// By chainID.
    layers: HashMap<Digest, Checked>,
}

/// What is known of a layer.
enum Checked {
    /// It was compared; the paths where it differs.
    Compared(HashSet<Vec<u8>>),
    /// It was not, and why. Another image may have its blob.
    Not {
        image: String,
        layer: Digest,
        reason: String,
    },
}

impl Audit<'_> {
    fn run(&mut self, images: &[String]) -> Result<(), Error> {
        let is_whole = images.is_empty();
        let ids = self.ids(images)?;
        let strangers = if is_whole {
            self.database()?;
            self.store.strangers()?
        } else {
            HashSet::new()
        };
        for id in ids {
            if let Some(view) = self.store.view(&id)? {
                self.kept(&view)?;
            }
        }
        for checked in std::mem::take(&mut self.layers).into_values() {
            if let Checked::Not { image, layer, reason } = checked {
                let layer = layer.to_string();
                self.say(AuditEvent::NotChecked { image, layer, reason })?;
            }
        }
        if is_whole {
            self.other_contents()?;
            let mut leftovers: Vec<_> = self
                .store
                .strangers()?
                .intersection(&strangers)
                .cloned()
                .collect();
            leftovers.sort();
            for path in leftovers {
                self.find(Finding::Leftover { path })?;
            }
        }
        Ok(())
    }

    fn ids(&self, images: &[String]) -> Result<Vec<String>, Error> {
        let connection = self.store.database();
        if images.is_empty() {
            return database::image_ids(&connection);
        }
        let mut ids = Vec::new();
        for image in images {
            let id = image_id(&connection, image)?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn database(&mut self) -> Result<(), Error> {
        let faults = database::faults(&self.store.database())?;
        for rule in faults {
            self.find(Finding::Record { image: None, rule })?;
        }
        Ok(())
    }

    /// Everything of one image or artifact.
    fn kept(&mut self, view: &View) -> Result<(), Error> {
        let id = view.kept.id().to_owned();
        let name = view.kept.names().first().unwrap_or(&id);
        for (row, held) in &view.contents {
            let held = held.as_ref();
            self.blob(Some(name), &row.digest, held.map(|held| held.path()))?;
        }
        match &view.kept {
            Kept::Image(image) => self.layers(name, image, view)?,
            Kept::Artifact(artifact) => self.artifact(name, artifact)?,
        }
        self.counts.images += 1;
        self.say(AuditEvent::Progress(self.counts))
    }

    /// An artifact has no more than its blobs, but all of them.
    fn artifact(&mut self, name: &str, artifact: &Artifact) -> Result<(), Error> {
        let mut rules = Vec::new();
        if !Digest::parse(&artifact.id).is_ok_and(|id| id.is_of(artifact.manifest_json.as_bytes())) {
            rules.push("the manifest in the database is not the one that the artifact's id is the digest of");
        }
        if !database::is_complete(&self.store.database(), &artifact.id)? {
            rules.push("the database does not have all of the artifact's blobs");
        }
        self.broken_rules(name, &rules)
    }

    fn layers(&mut self, name: &str, image: &Image, view: &View) -> Result<(), Error> {
        let diff_ids = self.diff_ids(name, image, view)?;
        let layers = self.manifest_layers(image)?;
        let mut below: Vec<(Digest, Arc<Held>)> = Vec::new();
        for (position, (diff_id, (row, held))) in diff_ids.iter().zip(&view.layers).enumerate() {
            let Some(held) = held else {
                let fault = Fault::Missing;
                let (image, layer) = (name.to_owned(), diff_id.to_string());
                self.find(Finding::Layer { image, layer, fault })?;
                continue;
            };
            let chain_id = held.digest();
            if !matches!(self.layers.get(chain_id), Some(Checked::Compared(_))) {
                let checked = if below.len() < position {
                    not_checked(name, diff_id, "a layer below it is not there")
                } else {
                    let packed = layers.get(position);
                    self.layer(view, name, packed, diff_id, (row, held), &below)?
                };
                self.layers.insert(chain_id.clone(), checked);
            }
            below.push((chain_id.clone(), Arc::clone(held)));
        }
        Ok(())
    }

    /// The layers' diffIDs by the config, if the database says the same of them.
    fn diff_ids(&mut self, name: &str, image: &Image, view: &View) -> Result<Vec<Digest>, Error> {
        let mut rules = Vec::new();
        let is_config = Digest::parse(&image.id).is_ok_and(|id| id.is_of(image.config_json.as_bytes()));
        if !is_config {
            rules.push("the config in the database is not the one that the image's id is the digest of");
        }
        let diff_ids: Vec<Digest> = image
            .diff_ids
            .iter()
            .filter_map(|text| Digest::parse(text).ok())
            .collect();
        let expected = chain_ids(&diff_ids);
        let recorded = view.layers.iter().map(|(row, _)| row.chain_id.clone());
        let is_same = expected.iter().map(Digest::to_string).eq(recorded);
        if !is_same {
            rules.push("the layers in the database are not those of the image's config");
        }
        self.broken_rules(name, &rules)?;
        Ok(if is_same { diff_ids } else { Vec::new() })
    }

    fn broken_rules(&mut self, name: &str, rules: &[&str]) -> Result<(), Error> {
        for rule in rules {
            let image = Some(name.to_owned());
            let rule = (*rule).to_owned();
            self.find(Finding::Record { image, rule })?;
        }
        Ok(())
    }

    /// As the manifest says, base first; none if it is not whole.
    fn manifest_layers(&self, image: &Image) -> Result<Vec<Layer>, Error> {
        let digest = Digest::parse(&image.manifest_digest).ok();
        let Some(digest) = digest.filter(|digest| self.is_whole(digest)) else {
            return Ok(Vec::new());
        };
        let content = self.store.document(&digest)?;
        let manifest = content.and_then(|content| manifest::parse_stored(&content));
        Ok(manifest.map(|manifest| manifest.layers).unwrap_or_default())
    }

    fn is_whole(&self, digest: &Digest) -> bool {
        self.blobs.get(digest).copied().unwrap_or(false)
    }

    /// Content that belongs to no image: indexes, artifacts, signatures.
    fn other_contents(&mut self) -> Result<(), Error> {
        let digests = database::blobs(&self.store.database())?;
        for text in digests {
            let Ok(digest) = Digest::parse(&text) else {
                continue;
            };
            if self.blobs.contains_key(&digest) {
                continue;
            }
            match self.store.seek(&Key::Blob(digest))? {
                Sought::Held(held) => self.blob(None, &text, Some(held.path()))?,
                Sought::Lost => self.blob(None, &text, None)?,
                Sought::Removed => {}
            }
        }
        Ok(())
    }

    /// Hash one blob, if that is not done; `None`: it is not there.
    fn blob(&mut self, image: Option<&String>, text: &str, path: Option<&Path>) -> Result<(), Error> {
        let Ok(digest) = Digest::parse(text) else {
            let rule = format!("{text:?} is no digest of content");
            let image = image.cloned();
            return self.find(Finding::Record { image, rule });
        };
        if self.blobs.contains_key(&digest) {
            return Ok(());
        }
        let fault = match path {
            None => Some(Fault::Missing),
            Some(path) => self.hash(path, &digest)?,
        };
        self.blobs.insert(digest, fault.is_none());
        self.counts.blobs += 1;
        if let Some(fault) = fault {
            let (image, digest) = (image.cloned(), text.to_owned());
            self.find(Finding::Blob { image, digest, fault })?;
        }
        Ok(())
    }

    fn hash(&mut self, path: &Path, digest: &Digest) -> Result<Option<Fault>, Error> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(Fault::Missing)),
            Err(e) => return Ok(Some(Fault::Unreadable(e))),
        };
        let (mut hasher, mut piece) = (digest.hasher(), vec![0; PIECE_BYTES]);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(got) => {
                    hasher.update(&piece[..got]);
                    self.counts.bytes += got as u64;
                    self.say(AuditEvent::Progress(self.counts))?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Ok(Some(Fault::Unreadable(e))),
            }
        }
        let actual = hasher.finish();
        Ok((actual != *digest).then(|| Fault::Content(actual.to_string())))
    }

    fn find(&mut self, finding: Finding) -> Result<(), Error> {
        self.say(AuditEvent::Finding(finding))
    }

    fn say(&mut self, event: AuditEvent) -> Result<(), Error> {
        if (self.tell)(event) {
            return Ok(());
        }
        Err(Error::CheckCancelled)
    }
}

fn not_checked(image: &str, layer: &Digest, reason: &str) -> Checked {
    Checked::Not {
        image: image.to_owned(),
        layer: layer.clone(),
        reason: reason.to_owned(),
    }
}

/// What a layer's row and its place are.
type InPlace<'a> = (&'a LayerRow, &'a Arc<Held>);
