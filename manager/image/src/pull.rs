//! A pull, from top to bottom: name → manifest → config → layers, several at once → one commit.
//!
//! The work runs in a task of its own, so that it can clean up behind a caller who has gone away. Layers that several
//! pulls need at the same time are made once: the first takes the chainID's lock, the others find its result. Locks
//! cannot wait for each other in a ring, as a layer only ever waits for layers below it. The lock saves work and
//! guards nothing: who has waited for it too long, because the first one's registry is slow, goes on without. In the
//! same way pulls of one image at once let the first go ahead: what it leaves to the others is to ask whether that is
//! still what the name stands for.

mod keep;
mod layer;
mod local;
mod plan;
mod trusted;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::credentials::Credentials;
use crate::database;
use crate::digest::{Digest, chain_ids};
use crate::manifest;
use crate::patience::Config;
use crate::progress::{self, Board, Counters};
use crate::reference::Reference;
use crate::registry::Sources;
use crate::store::{Parts, Store};
use crate::trust::{self, Gate, Origin};
use crate::{Error, Kept, LayerProgress, Phase, Platform, PullOptions, Pulled, SPANS, blocking};
use layer::{Below, LayerJob, Placed};
use local::Known;
use plan::Plan;

/// Layers of one pull that are downloaded and unpacked at the same time.
const LAYERS_AT_ONCE: usize = 3;
/// Downloads of all pulls together. Each holds a thread while it waits for its registry, of those that all other work
/// of the process needs too.
const DOWNLOADS_AT_ONCE: usize = 12;

/// What all pulls share.
pub(crate) struct Pulls {
    store: Arc<Store>,
    config: Config,
    gate: Gate,
    /// By chainID: held while a layer is made.
    making: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// By reference, platform and the like: pulls that are after the same.
    running: Mutex<HashMap<String, Arc<Flight>>>,
    downloads: Semaphore,
}

/// What pulls of the same image at the same time share.
#[derive(Default)]
struct Flight {
    /// Held by the one that works.
    turn: tokio::sync::Mutex<()>,
    board: Board,
}

impl Pulls {
    pub(crate) fn new(store: Arc<Store>, config: Config, gate: Gate) -> Pulls {
        Pulls {
            store,
            config,
            gate,
            making: Mutex::new(HashMap::new()),
            running: Mutex::new(HashMap::new()),
            downloads: Semaphore::new(DOWNLOADS_AT_ONCE),
        }
    }

    /// How registries are reached.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// What each image has to pass.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Run a pull in its own task, and show its progress from here.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        reference: Reference,
        options: PullOptions,
        progress: &(dyn Fn(LayerProgress) + Send + Sync),
    ) -> Result<Pulled, Error> {
        let name = reference.to_string();
        let pull = Pull::new(self, reference, options);
        let _given_up = pull.cancelled.clone().drop_guard();
        let flight = Arc::clone(&pull.flight);
        let task = tokio::spawn(pull.run().in_current_span());
        progress::watch(task, || flight.board.read(), progress, || Error::Cancelled(name)).await
    }

    fn flight(&self, reference: &Reference, options: &PullOptions) -> Arc<Flight> {
        let key = format!(
            "{} {:?} {}",
            reference.name(),
            options.platform,
            options.all_platforms
        );
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, flight| Arc::strong_count(flight) > 1);
        Arc::clone(running.entry(key).or_default())
    }

    fn lock_of(&self, chain_id: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(making.entry(chain_id.clone()).or_default())
    }
}

/// One pull.
struct Pull {
    shared: Arc<Pulls>,
    reference: Reference,
    wanted: Option<Platform>,
    all_platforms: bool,
    images_only: bool,
    credentials: Option<Credentials>,
    cancelled: CancellationToken,
    flight: Arc<Flight>,
}

impl Pull {
    fn new(shared: &Arc<Pulls>, reference: Reference, options: PullOptions) -> Pull {
        Pull {
            flight: shared.flight(&reference, &options),
            shared: Arc::clone(shared),
            reference,
            wanted: options.platform,
            all_platforms: options.all_platforms,
            images_only: options.images_only,
            credentials: options.credentials,
            cancelled: CancellationToken::new(),
        }
    }

    async fn run(self) -> Result<Pulled, Error> {
        let patience = self.shared.config.share_timeout;
        let turn = async { Ok(tokio::time::timeout(patience, self.flight.turn.lock()).await.ok()) };
        let _turn = self.or_cancelled(turn).await?;
        let known = self.known().await?;
        self.renew(known.as_ref()).await
    }

    /// Bring what the name has here to what it has at its registry.
    async fn renew(&self, known: Option<&Known>) -> Result<Pulled, Error> {
        let trusted = match known.and_then(|known| known.image.clone()) {
            Some(id) => self.is_still_accepted(id).await?,
            None => false,
        };
        // What a digest names does not change.
        if self.reference.digest.is_some()
            && trusted
            && let Some(known) = known
            && let Some(pulled) = self.present(known).await?
        {
            return Ok(pulled);
        }
        let registry = self.or_cancelled(self.connect()).await?;
        // Of a target that is here and has not moved, only what is missing is asked for.
        let unmoved = match known {
            Some(known) if self.is_unmoved(&registry, known).await? => Some(known),
            _ => None,
        };
        if let Some(known) = unmoved
            && (trusted || self.is_accepted_again(&registry, known).await?)
            && let Some(pulled) = self.present(known).await?
        {
            return Ok(pulled);
        }
        let unmoved = unmoved.map(|known| &known.target);
        let planning = self.or_cancelled(self.plan(Some(&registry), unmoved));
        let span = tracing::trace_span!(target: SPANS, "pull.plan");
        let plan = planning.instrument(span).await?;
        let admitting = self.or_cancelled(self.admit(&registry, &plan));
        let span = tracing::trace_span!(target: SPANS, "pull.verify");
        let admitted = admitting.instrument(span).await;
        let origin = match admitted {
            Ok(origin) => origin,
            Err(error) => {
                let error = removed_on_a_blocking_thread(plan.documents, error).await;
                let pointed_to = known.map(|known| known.target.to_string());
                return Err(error.of_moved_tag(pointed_to.as_deref()));
            }
        };
        failpoint::reach("pull.planned");
        let (name, target) = (self.reference.name(), plan.target.target_digest.clone());
        let making = self.make(Some((&registry, origin)), plan, Some(name));
        let span = tracing::trace_span!(target: SPANS, "pull.layers");
        let kept = making.instrument(span).await?;
        self.pulled(target, kept)
    }

    /// Whether the name still points to what it has here.
    async fn is_unmoved(&self, registry: &Sources, known: &Known) -> Result<bool, Error> {
        let now = match &self.reference.digest {
            Some(digest) => Some(digest.clone()),
            None => {
                self.or_cancelled(registry.resolve(&self.reference.target()))
                    .await?
            }
        };
        Ok(now.as_ref() == Some(&known.target))
    }

    fn pulled(&self, digest: String, kept: Kept) -> Result<Pulled, Error> {
        let name = self.reference.to_string();
        let kept = if self.images_only {
            Kept::Image(Box::new(kept.into_image(&name)?))
        } else {
            kept
        };
        Ok(Pulled { name, digest, kept })
    }

    /// Make what is planned, and commit it. `from`: the registry, and what was found there to judge it by, unless all
    /// of it is here. `name` is to point to it.
    async fn make(
        &self,
        from: Option<(&Sources, Origin)>,
        plan: Plan,
        name: Option<String>,
    ) -> Result<Kept, Error> {
        let (registry, origin) = from.unzip();
        let counters = |descriptor: &manifest::Descriptor| {
            Arc::new(Counters::new(descriptor.digest.to_string(), descriptor.size))
        };
        let layers = plan.layers.iter();
        let unpacked: Vec<_> = layers.map(|(layer, _)| counters(&layer.descriptor)).collect();
        let kept: Vec<_> = plan.others.iter().map(counters).collect();
        self.flight.board.set([unpacked.clone(), kept.clone()].concat());
        let placed = self.layers(registry, &plan, unpacked).await;
        let others = match &placed {
            Ok(_) => self.keep_all(registry, plan.others.clone(), kept).await,
            Err(_) => Ok(Vec::new()),
        };
        let (store, flight) = (Arc::clone(&self.shared.store), Arc::clone(&self.flight));
        let repository = registry.map(|_| self.reference.full_repository());
        let pulled_as = self.reference.name();
        blocking(move || {
            // On an error all holds end here: what they held is removed on this thread.
            let (placed, others) = (placed?, others?);
            let (layers, blobs): (Vec<_>, Vec<_>) = placed.into_iter().map(|p| (p.layer, p.blob)).unzip();
            let signatures = match &origin {
                Some(origin) => origin.hold_documents(&store)?,
                None => Vec::new(),
            };
            let blobs = plan
                .documents
                .into_iter()
                .chain(blobs.into_iter().flatten())
                .chain(others)
                .chain(signatures)
                .collect();
            let id = plan.row.id.clone();
            let parts = Parts {
                row: plan.row,
                name: name.map(|name| (name, plan.target.clone())),
                layers,
                blobs,
            };
            let target = &plan.target.target_digest;
            let manifest = &parts.row.manifest_digest;
            store.commit_with(&parts, |transaction| {
                match &origin {
                    Some(origin) => origin.insert(transaction, &id)?,
                    None => trust::inherit(transaction, &id, &pulled_as, target, manifest)?,
                }
                match &repository {
                    Some(repository) => database::insert_repository(transaction, repository, target),
                    None => Ok(()),
                }
            })?;
            flight.board.committed();
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

    /// Wait until one more download may have its thread.
    async fn download(&self) -> Result<SemaphorePermit<'_>, Error> {
        let permit = async {
            let permit = self.shared.downloads.acquire().await;
            permit.map_err(|_| Error::Cancelled(self.reference.to_string()))
        };
        self.or_cancelled(permit).await
    }

    /// The image is here as the registry has it: show its layers and give it. `None`: it has been removed since it was
    /// looked for.
    async fn present(&self, known: &Known) -> Result<Option<Pulled>, Error> {
        let Some(id) = known.image.clone() else {
            return Ok(None);
        };
        let store = Arc::clone(&self.shared.store);
        let found = blocking(move || {
            let Some(kept) = Kept::find(&store.database(), &id)? else {
                return Ok(None);
            };
            let digest = Digest::parse(kept.manifest_digest()).ok();
            let content = digest.map_or(Ok(None), |digest| store.document(&digest))?;
            Ok(Some((kept, manifest::stored_blobs(&content.unwrap_or_default()))))
        })
        .await?;
        let Some((kept, blobs)) = found else {
            return Ok(None);
        };
        let counters = blobs
            .into_iter()
            .map(|blob| Arc::new(Counters::new(blob.digest.to_string(), blob.size)));
        let counters: Vec<_> = counters.collect();
        for blob in &counters {
            blob.enter(Phase::Present);
        }
        self.flight.board.set(counters);
        self.pulled(known.target.to_string(), kept).map(Some)
    }

    async fn connect(&self) -> Result<Sources, Error> {
        Sources::connect(&self.reference, self.credentials.as_ref(), &self.shared.config).await
    }

    /// Make all layers, base first in the result. If one fails, the others are stopped and waited for.
    async fn layers(
        &self,
        registry: Option<&Sources>,
        plan: &Plan,
        counters: Vec<Arc<Counters>>,
    ) -> Result<Vec<Placed>, Error> {
        let permits = Semaphore::new(LAYERS_AT_ONCE);
        let (first, mut below) = oneshot::channel();
        let _ = first.send(Below::new());
        let mut jobs = Vec::new();
        let diff_ids: Vec<Digest> = plan.layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let layers = plan.layers.iter().zip(chain_ids(&diff_ids)).zip(counters);
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

fn read(store: &Store, id: &str) -> Result<Kept, Error> {
    Kept::read(&store.database(), id)
}
