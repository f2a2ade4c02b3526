//! A push, from top to bottom: name → what it needs → one HEAD → blobs, several at once → manifests, children first.
//!
//! The tag comes last, so that whoever pulls it meanwhile finds all of it. As a pull does, the work runs in a task of
//! its own: when the caller goes away, the uploads that are under way are aborted at the registry.

mod plan;
mod progress;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::manifest::Referrer;
use crate::patience::Config;
use crate::progress::watch;
use crate::reference::Reference;
use crate::registry::{Arrival, Blob, Registry, Session, Source};
use crate::store::Store;
use crate::{Credentials, Error, Images, blocking, database};
use plan::{Content, Plan};
use progress::Counters;
pub use progress::{BlobPhase, BlobProgress};

/// Blobs of one push that are on their way at the same time.
const BLOBS_AT_ONCE: usize = 4;

/// What a registry has after a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The full name.
    pub name: String,
    /// Digest of the manifest or index that it points to.
    pub digest: String,
    /// Bytes of that document.
    pub size_bytes: u64,
}

impl Images {
    /// Push what a name stands for to where the name says: the whole index if all of it is here, else the manifest of
    /// the platform that was pulled.
    ///
    /// `progress` is called with the state of each blob whenever it has changed, some times a second. Dropping the
    /// future gives the push up; what the registry has taken by then it keeps, but no tag points to it.
    pub async fn push(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
        progress: &(dyn Fn(BlobProgress) + Send + Sync),
    ) -> Result<Pushed, Error> {
        let reference = Reference::parse(reference)?;
        let name = reference.to_string();
        let cancelled = CancellationToken::new();
        let _given_up = cancelled.clone().drop_guard();
        let board = Arc::new(OnceLock::new());
        let push = Push {
            store: Arc::clone(&self.store),
            config: self.pulls.config().clone(),
            reference,
            credentials,
            cancelled,
            board: Arc::clone(&board),
        };
        let task = tokio::spawn(push.run());
        let read = || {
            board
                .get()
                .into_iter()
                .flatten()
                .map(|counters| counters.read())
                .collect()
        };
        watch(task, read, progress, || Error::PushCancelled(name)).await
    }

    /// Push all tags of a repository that are here, one after the other; `done` is called for each that is there. The
    /// first failure ends it.
    pub async fn push_all_tags(
        &self,
        repository: &str,
        credentials: Option<Credentials>,
        progress: &(dyn Fn(BlobProgress) + Send + Sync),
        done: &(dyn Fn(Pushed) + Send + Sync),
    ) -> Result<(), Error> {
        let repository = Reference::parse_repository(repository)?.full_repository();
        let (store, name) = (Arc::clone(&self.store), repository.clone());
        let tags = blocking(move || database::tags_of(&store.database(), &name)).await?;
        if tags.is_empty() {
            return Err(Error::NoSuchImage(repository));
        }
        for tag in tags {
            done(self.push(&tag, credentials.clone(), progress).await?);
        }
        Ok(())
    }
}

/// One push.
struct Push {
    store: Arc<Store>,
    config: Config,
    reference: Reference,
    credentials: Option<Credentials>,
    cancelled: CancellationToken,
    board: Arc<OnceLock<Vec<Arc<Counters>>>>,
}

impl Push {
    async fn run(self) -> Result<Pushed, Error> {
        let (store, reference) = (Arc::clone(&self.store), self.reference.clone());
        let plan = blocking(move || Plan::of(&store, &reference)).await?;
        let counters: Vec<Arc<Counters>> = plan
            .blobs
            .iter()
            .map(|blob| Arc::new(Counters::new(blob)))
            .collect();
        let _ = self.board.set(counters.clone());
        let registry = self
            .or_cancelled(Registry::connect(
                &self.reference,
                self.credentials.as_ref(),
                &self.config,
            ))
            .await?;
        // All at once, so that one token allows all of it.
        for repository in plan.mount_sources() {
            registry.want(repository, &["pull"]).await;
        }
        let pushed = Pushed {
            name: self.reference.to_string(),
            digest: plan.top().digest.to_string(),
            size_bytes: plan.top().size,
        };
        if self.is_there(&registry, &plan).await? {
            for counters in &counters {
                counters.enter(BlobPhase::Present);
            }
        } else {
            self.blobs(&registry, &plan, &counters).await?;
            self.or_cancelled(self.documents(&registry, &plan)).await?;
        }
        // The registry has it: what goes wrong from here on does not make that untrue.
        if let Err(error) = self.note(plan).await {
            tracing::warn!(%error, name = pushed.name, "a push is done, and could not be noted");
        }
        Ok(pushed)
    }

    /// Note that the repository has it: from here other repositories of the registry can mount it. The plan's holds end
    /// here too, on a thread that may remove files.
    async fn note(&self, plan: Plan) -> Result<(), Error> {
        let (store, repository) = (Arc::clone(&self.store), self.reference.full_repository());
        blocking(move || {
            let mut connection = store.database();
            let transaction = database::write(&mut connection)?;
            database::insert_repository(&transaction, &repository, &plan.top().digest.to_string())?;
            transaction.commit().map_err(database::doing("note a push"))
        })
        .await
    }

    async fn or_cancelled<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.cancelled.run_until_cancelled(work).await {
            Some(result) => result,
            None => Err(self.cancelled()),
        }
    }

    fn cancelled(&self) -> Error {
        Error::PushCancelled(self.reference.to_string())
    }

    /// Whether the name points to the same there: then all of it is there.
    async fn is_there(&self, registry: &Registry, plan: &Plan) -> Result<bool, Error> {
        let target = self.reference.target();
        match self.or_cancelled(registry.resolve(&target)).await {
            Ok(found) => Ok(found.as_ref() == Some(&plan.top().digest)),
            Err(Error::NotAtRegistry { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bring up all blobs. If one fails, the others are stopped and their uploads aborted.
    async fn blobs(&self, registry: &Registry, plan: &Plan, counters: &[Arc<Counters>]) -> Result<(), Error> {
        let permits = Semaphore::new(BLOBS_AT_ONCE);
        let jobs = plan.blobs.iter().zip(counters).map(async |(blob, counters)| {
            let permit = async { permits.acquire().await.map_err(|_| self.cancelled()) };
            let _permit = self.or_cancelled(permit).await?;
            let result = self.blob(registry, blob, counters).await;
            if result.is_err() {
                self.cancelled.cancel();
            }
            result
        });
        let results = futures_util::future::join_all(jobs).await;
        // The error that stopped the others is the one to tell.
        let first_error = results
            .into_iter()
            .filter_map(Result::err)
            .min_by_key(|error| matches!(error, Error::PushCancelled(_)));
        first_error.map_or(Ok(()), Err)
    }

    async fn blob(
        &self,
        registry: &Registry,
        content: &Content,
        counters: &Arc<Counters>,
    ) -> Result<(), Error> {
        counters.enter(BlobPhase::Uploading);
        let source = match &content.held {
            Some(held) => {
                let (path, sent) = (held.path().to_owned(), counters.uploaded());
                Some(blocking(move || Source::open(path, sent)).await?)
            }
            None => None,
        };
        let blob = Blob {
            digest: &content.digest,
            size: content.size,
            source,
            opening: tokio::sync::Mutex::new(()),
        };
        let mut session = Session::default();
        let given_up = async {
            self.cancelled.cancelled().await;
            blob.not_opening().await;
        };
        let result = tokio::select! {
            result = registry.upload(&blob, &content.mount_from, &mut session) => result,
            () = given_up => Err(self.cancelled()),
        };
        let arrival = match result {
            Ok(arrival) => arrival,
            Err(error) => {
                registry.abort(session).await;
                return Err(error);
            }
        };
        counters.enter(match arrival {
            Arrival::Present => BlobPhase::Present,
            Arrival::Mounted => BlobPhase::Mounted,
            Arrival::Uploaded => BlobPhase::Done,
        });
        Ok(())
    }

    /// Put manifests and indexes, each after what it points to, the one that the name stands for last and by its name.
    async fn documents(&self, registry: &Registry, plan: &Plan) -> Result<(), Error> {
        for (position, document) in plan.documents.iter().enumerate() {
            let path = document.held.path().to_owned();
            let content =
                blocking(move || std::fs::read(&path).map_err(|e| Error::io("read blob", &path, e)));
            let content = Bytes::from(content.await?);
            let is_top = position + 1 == plan.documents.len();
            let target = if is_top {
                self.reference.target()
            } else {
                document.digest.to_string()
            };
            let is_noted = registry
                .put_manifest(&target, &content, &document.media_type)
                .await?;
            if let Some(subject) = &document.subject
                && !is_noted
            {
                let referrer = Referrer::of(&content, &document.digest, &document.media_type);
                registry.add_referrer(subject, &referrer).await?;
            }
        }
        Ok(())
    }
}
