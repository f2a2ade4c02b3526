//! A pull, from top to bottom: name → manifest → config → layers, several at once → one commit.
//!
//! The work runs in a task of its own, so that it can clean up behind a caller who has gone away. Layers that several
//! pulls need at the same time are made once: the first takes the chainID's lock, the others find its result. Locks
//! cannot wait for each other in a ring, as a layer only ever waits for layers below it. The lock saves work and
//! guards nothing: who has waited for it too long, because the first one's registry is slow, goes on without.

mod layer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::credentials::Credentials;
use crate::database::{self, ImageRow, NameRow};
use crate::digest::{Digest, chain_ids};
use crate::manifest::{self, Document, Manifest};
use crate::patience::Config;
use crate::progress::Counters;
use crate::reference::Reference;
use crate::registry::{Fetched, Sources};
use crate::store::{Held, Key, Parts, Store};
use crate::{Error, Image, LayerProgress, Phase, Platform, PullOptions, blocking};
use layer::{Below, LayerJob, Placed};

/// Layers of one pull that are downloaded and unpacked at the same time.
const LAYERS_AT_ONCE: usize = 3;
/// Indexes that point to indexes.
const INDEX_DEPTH_MAX: usize = 3;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What all pulls share.
pub(crate) struct Pulls {
    store: Arc<Store>,
    config: Config,
    /// By chainID: held while a layer is made.
    making: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Pulls {
    pub(crate) fn new(store: Arc<Store>, config: Config) -> Pulls {
        Pulls {
            store,
            config,
            making: Mutex::new(HashMap::new()),
        }
    }

    /// How registries are reached.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Run a pull in its own task, and show its progress from here.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        reference: Reference,
        options: PullOptions,
        progress: &(dyn Fn(LayerProgress) + Send + Sync),
    ) -> Result<Image, Error> {
        let cancelled = CancellationToken::new();
        let _given_up = cancelled.clone().drop_guard();
        let board = Arc::new(OnceLock::new());
        let name = reference.to_string();
        let pull = Pull {
            shared: Arc::clone(self),
            reference,
            wanted: options.platform,
            credentials: options.credentials,
            cancelled,
            board: Arc::clone(&board),
        };
        let mut task = tokio::spawn(pull.run());
        let mut shown = Vec::new();
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                result = &mut task => break result,
                _ = ticks.tick() => show(&board, &mut shown, progress),
            }
        };
        show(&board, &mut shown, progress);
        match result {
            Ok(result) => result,
            Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
            Err(_) => Err(Error::Cancelled(name)),
        }
    }

    fn lock_of(&self, chain_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(making.entry(chain_id.clone()).or_default())
    }
}

/// Report each layer that has changed since it was last shown.
fn show(
    board: &OnceLock<Vec<Arc<Counters>>>,
    shown: &mut Vec<LayerProgress>,
    progress: &(dyn Fn(LayerProgress) + Send + Sync),
) {
    for (i, counters) in board.get().into_iter().flatten().enumerate() {
        let now = counters.read();
        match shown.get_mut(i) {
            Some(before) if *before == now => continue,
            Some(before) => *before = now.clone(),
            None => shown.push(now.clone()),
        }
        progress(now);
    }
}

/// One pull.
struct Pull {
    shared: Arc<Pulls>,
    reference: Reference,
    wanted: Option<Platform>,
    credentials: Option<Credentials>,
    cancelled: CancellationToken,
    board: Arc<OnceLock<Vec<Arc<Counters>>>>,
}

/// What a manifest and its config say, fetched and checked.
struct Plan {
    manifest: Manifest,
    manifest_digest: Digest,
    config_json: String,
    diff_ids: Vec<Digest>,
    /// Manifest and config.
    documents: Vec<Arc<Held>>,
    size_bytes: u64,
    target: NameRow,
}

impl Pull {
    async fn run(self) -> Result<Image, Error> {
        let (reference, store) = (self.reference.name(), Arc::clone(&self.shared.store));
        let known = blocking(move || known(&store, &reference)).await?;
        let known = known.filter(|(row, _)| row.platform == self.platform().to_string());
        // What a digest names does not change.
        if self.reference.digest.is_some()
            && let Some((row, _)) = known
        {
            return self.present(row.image_id).await;
        }
        let registry = self.or_cancelled(self.connect()).await?;
        if let Some((row, _)) = known
            && let Some(now) = self
                .or_cancelled(registry.resolve(&self.reference.target()))
                .await?
            && now.to_string() == row.target_digest
        {
            return self.present(row.image_id).await;
        }
        let plan = self.or_cancelled(self.plan(&registry)).await?;
        failpoint::reach("pull.planned");
        let placed = self.layers(&registry, &plan).await;
        let store = Arc::clone(&self.shared.store);
        let name = self.reference.name();
        blocking(move || {
            // On an error all holds end here: what they held is removed on this thread.
            let (layers, blobs): (Vec<_>, Vec<_>) = placed?.into_iter().map(|p| (p.layer, p.blob)).unzip();
            let blobs = plan
                .documents
                .into_iter()
                .chain(blobs.into_iter().flatten())
                .collect();
            let id = plan.manifest.config.digest.to_string();
            let row = ImageRow {
                id: id.clone(),
                manifest_digest: plan.manifest_digest.to_string(),
                size_bytes: plan.size_bytes,
                config_json: plan.config_json,
                names: Vec::new(),
            };
            store.commit(&Parts {
                row,
                name: Some((name, plan.target)),
                layers,
                blobs,
            })?;
            read(&store, &id)
        })
        .await
    }

    fn platform(&self) -> Platform {
        self.wanted.clone().unwrap_or_else(Platform::host)
    }

    async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.cancelled.run_until_cancelled(work).await {
            Some(result) => result,
            None => Err(Error::Cancelled(self.reference.to_string())),
        }
    }

    /// The image is here as the registry has it: show its layers and give it.
    async fn present(&self, id: String) -> Result<Image, Error> {
        let store = Arc::clone(&self.shared.store);
        let (image, manifest) = blocking(move || {
            let image = read(&store, &id)?;
            let digest = Digest::parse(&image.manifest_digest).ok().map(Key::Blob);
            let blob = digest.map_or(Ok(None), |key| store.hold(&key))?;
            let content = blob
                .and_then(|blob| std::fs::read(blob.path()).ok())
                .unwrap_or_default();
            Ok((image, manifest::parse_stored(&content)))
        })
        .await?;
        let layers = manifest.into_iter().flat_map(|manifest| manifest.layers);
        let counters = layers.map(|layer| {
            Arc::new(Counters::new(
                layer.descriptor.digest.to_string(),
                layer.descriptor.size,
            ))
        });
        for layer in self.board.get_or_init(|| counters.collect()) {
            layer.enter(Phase::Present);
        }
        Ok(image)
    }

    async fn connect(&self) -> Result<Sources, Error> {
        Sources::connect(&self.reference, self.credentials.as_ref(), &self.shared.config).await
    }

    /// Fetch and check what says what the image is.
    async fn plan(&self, registry: &Sources) -> Result<Plan, Error> {
        let target = self.reference.target();
        let mut fetched = registry
            .manifest(&target, None, self.reference.digest.as_ref())
            .await?;
        let target_digest = fetched.digest.to_string();
        let mut indexes = 0;
        let manifest = loop {
            match parse(&fetched)? {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if indexes == INDEX_DEPTH_MAX => {
                    return Err(Error::Document {
                        what: "index",
                        digest: fetched.digest.to_string(),
                        rule: format!("indexes are nested more than {INDEX_DEPTH_MAX} deep"),
                    });
                }
                Document::Index(entries) => {
                    indexes += 1;
                    let chosen = manifest::choose(&entries, &self.platform(), &fetched.digest.to_string())?;
                    let descriptor = &chosen.descriptor;
                    let digest = descriptor.digest.to_string();
                    fetched = registry
                        .manifest(&digest, Some(descriptor), Some(&descriptor.digest))
                        .await?;
                }
            }
        };
        let config_json = self.config(registry, &manifest).await?;
        let config_digest = &manifest.config.digest;
        let (config, diff_ids) =
            manifest::parse_config(config_json.as_bytes(), config_digest, manifest.layers.len())?;
        if let Some(wanted) = &self.wanted
            && config.architecture().to_string() != wanted.architecture
        {
            return Err(Error::Document {
                what: "image config",
                digest: config_digest.to_string(),
                rule: format!("it is made for linux/{}, not for {wanted}", config.architecture()),
            });
        }
        let layers: u64 = manifest.layers.iter().map(|layer| layer.descriptor.size).sum();
        let size_bytes = layers + manifest.config.size + fetched.content.len() as u64;
        let target = NameRow {
            image_id: config_digest.to_string(),
            target_digest,
            platform: self.platform().to_string(),
        };
        let store = Arc::clone(&self.shared.store);
        let (config_digest, manifest_digest) = (config_digest.clone(), fetched.digest.clone());
        let (documents, config_json) = blocking(move || {
            let config = store.keep_bytes(&config_digest, config_json.as_bytes())?;
            Ok((
                vec![store.keep_bytes(&fetched.digest, &fetched.content)?, config],
                config_json,
            ))
        })
        .await?;
        Ok(Plan {
            manifest,
            manifest_digest,
            config_json,
            diff_ids,
            documents,
            size_bytes,
            target,
        })
    }

    async fn config(&self, registry: &Sources, manifest: &Manifest) -> Result<String, Error> {
        let content = registry.small_blob(&manifest.config).await?;
        String::from_utf8(content).map_err(|_| Error::Document {
            what: "image config",
            digest: manifest.config.digest.to_string(),
            rule: "it is not UTF-8".into(),
        })
    }

    /// Make all layers, base first in the result. If one fails, the others are stopped and waited for.
    async fn layers(&self, registry: &Sources, plan: &Plan) -> Result<Vec<Placed>, Error> {
        let counters: Vec<Arc<Counters>> = plan
            .manifest
            .layers
            .iter()
            .map(|layer| {
                Arc::new(Counters::new(
                    layer.descriptor.digest.to_string(),
                    layer.descriptor.size,
                ))
            })
            .collect();
        let _ = self.board.set(counters.clone());
        let permits = Semaphore::new(LAYERS_AT_ONCE);
        let (first, mut below) = oneshot::channel();
        let _ = first.send(Below::new());
        let mut jobs = Vec::new();
        let chain = chain_ids(&plan.diff_ids);
        let layers = plan
            .manifest
            .layers
            .iter()
            .zip(&plan.diff_ids)
            .zip(chain)
            .zip(counters);
        for (((layer, diff_id), chain_id), counters) in layers {
            let (above, next) = oneshot::channel();
            let job = LayerJob {
                pull: self,
                registry,
                layer: layer.clone(),
                diff_id: diff_id.clone(),
                chain_id,
                counters,
            };
            let below = std::mem::replace(&mut below, next);
            let permits = &permits;
            jobs.push(async move {
                let result = job.run(permits, below, above).await;
                if result.is_err() {
                    self.cancelled.cancel();
                }
                result
            });
        }
        let results = futures_util::future::join_all(jobs).await;
        // The error that stopped the others is the one to tell.
        let (placed, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let first_error = errors
            .into_iter()
            .filter_map(Result::err)
            .min_by_key(|error| matches!(error, Error::Cancelled(_)));
        if let Some(error) = first_error {
            return Err(removed_on_a_blocking_thread(placed, error).await);
        }
        Ok(placed.into_iter().flatten().collect())
    }
}

/// Drop what was made, which removes files, and give the error for which that is done.
async fn removed_on_a_blocking_thread<T: Send + 'static>(made: T, error: Error) -> Error {
    let removal = blocking(move || {
        drop(made);
        Ok(())
    });
    removal.await.err().unwrap_or(error)
}

fn parse(fetched: &Fetched) -> Result<Document, Error> {
    manifest::parse(&fetched.content, &fetched.media_type, &fetched.digest.to_string())
}

/// What a name points to here, and holds on its layers.
type Known = (NameRow, Vec<Arc<Held>>);

/// Look a name up; nothing is known of an image that has lost a layer.
fn known(store: &Arc<Store>, name: &str) -> Result<Option<Known>, Error> {
    let Some(row) = database::name(&store.database(), name)? else {
        return Ok(None);
    };
    let Ok(image) = read(store, &row.image_id) else {
        return Ok(None);
    };
    let diff_ids: Result<Vec<Digest>, String> = image.diff_ids.iter().map(|d| Digest::parse(d)).collect();
    let Ok(diff_ids) = diff_ids else { return Ok(None) };
    let mut held = Vec::new();
    for chain_id in chain_ids(&diff_ids) {
        match store.hold(&Key::Layer(chain_id))? {
            Some(layer) => held.push(layer),
            None => return Ok(None),
        }
    }
    Ok(Some((row, held)))
}

fn read(store: &Store, id: &str) -> Result<Image, Error> {
    let row = database::image(&store.database(), id)?.ok_or_else(|| Error::NoSuchImage(id.to_owned()))?;
    Image::from_row(row)
}
