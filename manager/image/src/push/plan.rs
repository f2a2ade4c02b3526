//! What a push consists of: every document and blob that the name stands for, found in the store and held.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::Error;
use crate::database;
use crate::digest::Digest;
use crate::links::{self, LinkKind};
use crate::reference::Reference;
use crate::registry::MOUNTS_MAX;
use crate::store::{Held, Key, Store};

/// Indexes that point to indexes, and the manifests below them.
const DEPTH_MAX: usize = 5;
/// Bound of the content of one push.
const CONTENTS_MAX: usize = 50_000;

/// Other repositories that one push reads from.
const MOUNT_SOURCES_MAX: usize = 8;

/// A manifest or index.
pub(super) struct Document {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) media_type: String,
    /// What it is a signature, an SBOM or the like of.
    pub(super) subject: Option<Digest>,
    pub(super) held: Arc<Held>,
}

/// A config or layer.
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// `None`: the layer came unpacked with another image, and this blob was never fetched.
    pub(super) held: Option<Arc<Held>>,
    /// Repositories of the same registry that have it as far as is known here.
    pub(super) mount_from: Vec<String>,
}

/// All that a push brings up.
pub(super) struct Plan {
    /// Each after all that it points to; the last is what the name stands for. Never empty.
    pub(super) documents: Vec<Document>,
    pub(super) blobs: Vec<Content>,
}

impl Plan {
    /// Find what a name stands for. Blocks.
    pub(super) fn of(store: &Arc<Store>, reference: &Reference) -> Result<Plan, Error> {
        let name = reference.name();
        let (target, image) = {
            let connection = store.database();
            let target = database::target_of(&connection, &name)?;
            let row = database::name(&connection, &name)?;
            let image = row.map_or(Ok(None), |row| database::image(&connection, &row.image_id))?;
            (target, image)
        };
        let target = target.ok_or_else(|| Error::NoSuchImage(name.clone()))?;
        let rule = match Gathering::start(store, reference, &target)? {
            Ok(plan) => return Ok(plan),
            Err(rule) => rule,
        };
        // As docker does: what was pulled of an index is one platform, and that is pushed.
        let rule = match image.filter(|image| reference.digest.is_none() && image.manifest_digest != target) {
            Some(image) => match Gathering::start(store, reference, &image.manifest_digest)? {
                Ok(plan) => return Ok(plan),
                Err(rule) => rule,
            },
            None => rule,
        };
        Err(Error::NotWhole { name, rule })
    }

    /// The other repositories that its blobs are mounted from.
    pub(super) fn mount_sources(&self) -> BTreeSet<&str> {
        let repositories = self.blobs.iter().flat_map(|blob| &blob.mount_from);
        repositories.map(String::as_str).collect()
    }

    /// Keep of what each blob could be mounted from the few that have most of the others too: each repository is one
    /// more that the push's token has to allow, and one more that a blob may have to be asked for in.
    fn choose_mounts(&mut self) {
        let mut blobs_of: HashMap<&str, usize> = HashMap::new();
        for repository in self.blobs.iter().flat_map(|blob| &blob.mount_from) {
            *blobs_of.entry(repository).or_default() += 1;
        }
        let mut ranked: Vec<(&str, usize)> = blobs_of.into_iter().collect();
        ranked.sort_unstable_by_key(|&(repository, blobs)| (Reverse(blobs), repository));
        ranked.truncate(MOUNT_SOURCES_MAX);
        let ranked: Vec<String> = ranked
            .into_iter()
            .map(|(repository, _)| repository.to_owned())
            .collect();
        for blob in &mut self.blobs {
            let has = &blob.mount_from;
            let chosen = ranked.iter().filter(|repository| has.contains(repository));
            blob.mount_from = chosen.take(MOUNTS_MAX).cloned().collect();
        }
    }

    pub(super) fn top(&self) -> &Document {
        self.documents
            .last()
            .expect("a plan has the document that it began with")
    }
}

struct Gathering<'a> {
    store: &'a Arc<Store>,
    reference: &'a Reference,
    seen: HashSet<Digest>,
    plan: Plan,
}

/// The inner error says what is not here.
type Gathered<T> = Result<Result<T, String>, Error>;

impl Gathering<'_> {
    fn start(store: &Arc<Store>, reference: &Reference, top: &str) -> Gathered<Plan> {
        let mut gathering = Gathering {
            store,
            reference,
            seen: HashSet::new(),
            plan: Plan {
                documents: Vec::new(),
                blobs: Vec::new(),
            },
        };
        let digest = match Digest::parse(top) {
            Ok(digest) => digest,
            Err(rule) => return Ok(Err(rule)),
        };
        if let Err(rule) = gathering.document(&digest, 0)? {
            return Ok(Err(rule));
        }
        let mut plan = gathering.plan;
        plan.choose_mounts();
        // Of one image a layer may lie at the registry alone; an index with a hole was pulled for one platform.
        let missing = plan.blobs.iter().find(|blob| blob.held.is_none());
        Ok(match missing {
            Some(blob) if plan.documents.len() > 1 => Err(format!("blob {} is not here", blob.digest)),
            _ => Ok(plan),
        })
    }

    fn document(&mut self, digest: &Digest, depth: usize) -> Gathered<()> {
        if !self.seen.insert(digest.clone()) {
            return Ok(Ok(()));
        }
        if depth > DEPTH_MAX || self.seen.len() > CONTENTS_MAX {
            return Ok(Err("its indexes are too many, or too deep".into()));
        }
        let Some(held) = self.store.hold(&Key::Blob(digest.clone()))? else {
            return Ok(Err(format!("manifest {digest} is not here")));
        };
        let content = self.store.document(digest)?.unwrap_or_default();
        let linked = match links::read(&content) {
            Ok(linked) => linked,
            Err(rule) => return Ok(Err(format!("manifest {digest}: {rule}"))),
        };
        let mut subject = None;
        for link in linked.links {
            let target = link.target;
            match link.kind {
                LinkKind::Manifest => {
                    if let Err(rule) = self.document(&target.digest, depth + 1)? {
                        return Ok(Err(rule));
                    }
                }
                LinkKind::Config | LinkKind::Layer => self.blob(target.digest, target.size)?,
                // It stays where its publisher gives it out.
                LinkKind::Foreign => {}
                LinkKind::Subject => subject = Some(target.digest),
            }
        }
        self.plan.documents.push(Document {
            digest: digest.clone(),
            size: content.len() as u64,
            media_type: linked.media_type,
            subject,
            held,
        });
        Ok(Ok(()))
    }

    fn blob(&mut self, digest: Digest, size: u64) -> Result<(), Error> {
        if !self.seen.insert(digest.clone()) {
            return Ok(());
        }
        let known = database::repositories_with(&self.store.database(), &digest.to_string())?;
        let host = format!("{}/", self.reference.host);
        let mount_from = known
            .iter()
            .filter_map(|full| full.strip_prefix(&host))
            .filter(|repository| *repository != self.reference.repository)
            .map(ToOwned::to_owned)
            .collect();
        let held = self.store.hold(&Key::Blob(digest.clone()))?;
        self.plan.blobs.push(Content {
            digest,
            size,
            held,
            mount_from,
        });
        Ok(())
    }
}
