//! The engine: what there is, and the short operations. The longer ones have files of their own.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::Images;
use network::{Bridge, RulesWatch};
use plugins::Plugins;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::cgroup_parents::CgroupParents;
use crate::commit::{Pauses, Turn};
use crate::config::Config;
use crate::container::{Container, State};
use crate::defaults::Current;
use crate::events::{Events, EventsRequest, Listener};
use crate::lifecycle::Handle;
use crate::logs::pack::Packer;
use crate::logs::watch::Watcher;
use crate::name_servers::NameServers;
use crate::networks::{self, Networks};
use crate::ports::Claims;
use crate::registry::Registry;
use crate::request::UpdateRequest;
use crate::signals::SIGKILL;
use crate::spec::{self, cgroups::Cgroups};
use crate::store::Store;
use crate::tally::Tally;
use crate::volumes::Volumes;
use crate::{Error, bundle, names, owner, reconcile, userns};

/// As many containers are started by their policies at once.
const STARTS_AT_ONCE: usize = 8;

/// Between a change of the host's rules by somebody and a look at what is left of ours.
const FLUSHED_PATIENCE: Duration = Duration::from_millis(50);

/// All that operations share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) images: Images,
    pub(crate) store: Store,
    pub(crate) containers: Registry,
    pub(crate) events: Events,
    pub(crate) log_watcher: Watcher,
    pub(crate) log_packer: Packer,
    pub(crate) pauses: Pauses,
    pub(crate) volumes: Volumes,
    pub(crate) plugins: Plugins,
    /// Starts that nobody waits for take turns, and none has one before reconcile is done.
    pub(crate) starts: Semaphore,
    /// One at a time walks through files to measure them, however many ask.
    pub(crate) walks: Arc<Semaphore>,
    pub(crate) ports: Claims,
    pub(crate) cgroup_parents: CgroupParents,
    pub(crate) name_servers: NameServers,
    pub(crate) networks: Networks,
    pub(crate) defaults: Current,
    pub(crate) tally: Tally,
    pub(crate) userns_claims: userns::Claims,
}

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

/// All that is known of a container.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its record.
    pub container: Arc<Container>,
    /// The config.json of its run; empty while it is not running.
    pub bundle_config_json: String,
    /// Where its output is kept; empty: nowhere.
    pub log_path: std::path::PathBuf,
}

impl Engine {
    /// Open the engine, and put right what a manager before this one has left: containers that still run are
    /// watched again, those that ended get their exits, and what has no owner is removed.
    pub async fn open(mut config: Config) -> Result<Engine, Error> {
        config.defaults.check()?;
        owner::check_before(&config)?;
        for folder in [
            config.images(),
            config.containers(),
            config.bundles(),
            config.volumes(),
            config.runtime_root(),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(Error::file("make the folder", &folder))?;
        }
        open_way(&config)?;
        hide_databases(&config);
        let (store, containers, networks) = Store::open(&config.database())?;
        owner::claim(&config, store.root_id())?;
        store.root_id().clone_into(&mut config.bridge.owner);
        let images =
            Images::open_under(&config.images(), config.of_images(), config.trust_policy.clone()).await?;
        config.bridge.ensure()?;
        warn_of_dropping_chains();
        let engine = Arc::new(Inner {
            images,
            store,
            containers: Registry::default(),
            events: Events::new(),
            log_watcher: Watcher::new()?,
            log_packer: Packer::new()?,
            pauses: Pauses::default(),
            volumes: Volumes::default(),
            plugins: Plugins::new(config.plugins.clone()),
            starts: Semaphore::new(0),
            walks: Arc::new(Semaphore::new(1)),
            ports: Claims::new(&config),
            cgroup_parents: CgroupParents::default(),
            name_servers: NameServers::default(),
            networks,
            defaults: Current::new(config.defaults.clone()),
            tally: Tally::default(),
            userns_claims: userns::Claims::default(),
            config,
        });
        reconcile::all(&engine, containers).await?;
        // A run that ended meanwhile may be followed by another now: volumes and ports are as they should be.
        engine.starts.add_permits(STARTS_AT_ONCE);
        keep_rules(&engine);
        Ok(Engine(engine))
    }

    /// Start the containers whose restart policy says so at the manager's start. Returns at once: those who ask for
    /// something meanwhile are answered.
    pub fn bring_back(&self) {
        for handle in self.0.containers.all() {
            if handle.snapshot().container.state == State::Restarting {
                tokio::spawn(async move {
                    // It may be gone by now.
                    let _ = handle.come_back().await;
                });
            }
        }
    }

    /// Start a container. Nothing happens if it is running.
    pub async fn start(&self, container: &str) -> Result<(), Error> {
        self.0.containers.find(container)?.start().await
    }

    /// Stop all processes of a running container where they are.
    pub async fn pause(&self, container: &str) -> Result<(), Error> {
        let handle = self.0.containers.find(container)?;
        let turn = Turn::wait(&self.0, &handle.id).await;
        handle.pause(turn).await
    }

    /// Let the processes of a paused container run on.
    pub async fn unpause(&self, container: &str) -> Result<(), Error> {
        let handle = self.0.containers.find(container)?;
        let turn = Turn::wait(&self.0, &handle.id).await;
        handle.unpause(turn).await
    }

    /// Give a container another name, which no other may have.
    pub async fn rename(&self, container: &str, name: &str) -> Result<(), Error> {
        names::check(name)?;
        self.0.containers.find(container)?.rename(name.to_owned()).await
    }

    /// Change the limits or the restart policy of a container, running or not. What of the changes this kernel cannot do
    /// is told, a sentence each.
    pub async fn update(&self, container: &str, changes: UpdateRequest) -> Result<Vec<String>, Error> {
        let handle = self.0.containers.find(container)?;
        let before = handle.snapshot().container;
        handle.update(changes).await?;
        let after = handle.snapshot().container;
        blocking(move || {
            let cgroups = Cgroups::of_this_machine();
            let (_, known) = spec::resources::usable(&before.request, &cgroups);
            let (_, mut warnings) = spec::resources::usable(&after.request, &cgroups);
            warnings.retain(|warning| !known.contains(warning));
            Ok(warnings)
        })
        .await
    }

    /// Remove a container and its writable layer, with its anonymous volumes if `volumes` says so; one that is running
    /// only if `force` does.
    pub async fn remove(&self, container: &str, force: bool, volumes: bool) -> Result<(), Error> {
        let handle = self.0.containers.find(container)?;
        if force && let Some(shim) = handle.snapshot().shim {
            handle.held.set(handle.snapshot().container.runs);
            // At once, and not behind what its owner is at: a restart waits for an end as long as its client wants.
            let _ = shim.kill("", SIGKILL).await;
        }
        match handle.remove(force, volumes).await {
            // It was to remove itself at its end, and has.
            Err(Error::NoSuchContainer(_)) if force && handle.snapshot().gone => Ok(()),
            removed => removed,
        }
    }

    /// The containers, newest first; without `all` only those that run or are about to.
    pub fn list(&self, all: bool) -> Vec<Arc<Container>> {
        let handles = self.0.containers.all();
        let mut containers: Vec<_> = handles
            .iter()
            .map(|handle| handle.snapshot())
            .filter(|snapshot| !snapshot.gone && (all || snapshot.container.is_up()))
            .map(|snapshot| snapshot.container)
            .collect();
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_unix_nanos));
        containers
    }

    /// All that is known of a container.
    pub async fn inspect(&self, container: &str) -> Result<Inspection, Error> {
        let handle = self.0.containers.find(container)?;
        let container = handle.snapshot().container;
        let (engine, id) = (Arc::clone(&self.0), handle.id.clone());
        // While it ends or begins, the file may just not be there.
        let config =
            blocking(move || Ok(bundle::config(&engine.config.bundle(&id)).unwrap_or_default())).await?;
        let is_kept = container.request.logging.plan()?.file.kept;
        let log_path = if is_kept {
            self.0.config.log(&container.id)
        } else {
            std::path::PathBuf::new()
        };
        Ok(Inspection {
            container,
            bundle_config_json: config,
            log_path,
        })
    }

    /// What happens from now on, and what is kept of before.
    pub fn events(&self, request: EventsRequest) -> Result<Listener, Error> {
        self.0.events.listen(request)
    }

    /// The length of the prefix that all addresses of containers share.
    pub fn subnet_prefix(&self) -> u8 {
        self.0.config.bridge.prefix
    }
}

/// The root of a container with a user namespace goes through here to its bundle, which is open to it alone. An older
/// manager made the folder for root alone.
fn open_way(config: &Config) -> Result<(), Error> {
    let bundles = config.bundles();
    std::fs::set_permissions(&bundles, std::fs::Permissions::from_mode(0o711))
        .map_err(Error::file("let containers' roots through", &bundles))
}

/// The databases tell containers' environments, with what secrets are in them. An older manager made them
/// readable for all.
fn hide_databases(config: &Config) {
    let databases = [config.database(), config.images().join("images.db")];
    for database in databases {
        for end in ["", "-wal", "-shm"] {
            let mut path = database.clone().into_os_string();
            path.push(end);
            let hidden = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
            if let Err(error) = hidden
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "its permissions stay as they were");
            }
        }
    }
}

/// Put the host's rules back whenever somebody has taken some away. The thread ends with the process.
fn keep_rules(engine: &Arc<Inner>) {
    let engine = Arc::downgrade(engine);
    let watch = RulesWatch::open().map_err(Error::from);
    let started = watch.and_then(|mut watch| {
        let watching = move || {
            loop {
                if let Err(error) = watch.wait() {
                    tracing::warn!(%error, "the watch over the host's rules has ended, and begins anew");
                    std::thread::sleep(FLUSHED_PATIENCE.max(Duration::from_secs(1)));
                    match RulesWatch::open() {
                        Ok(another) => watch = another,
                        Err(_) if engine.strong_count() > 0 => continue,
                        Err(_) => return,
                    }
                }
                let Some(engine) = engine.upgrade() else { return };
                // Who flushes them loads others next, in the same breath.
                std::thread::sleep(FLUSHED_PATIENCE);
                networks::reconcile::ensure_all(&engine);
                if let Err(error) = engine.ports.mend(&engine.config) {
                    tracing::error!(%error, "the host's rules were changed, and cannot be put back");
                }
            }
        };
        std::thread::Builder::new()
            .name("rules".to_owned())
            .stack_size(256 << 10)
            .spawn(watching)
            .map_err(|source| Error::file("start the thread that watches", "nftables".as_ref())(source))
    });
    if let Err(error) = started {
        tracing::warn!(%error, "nobody watches the host's rules");
    }
}

/// Firewalls of others may keep containers from the outside, and nothing of ours can overrule them.
fn warn_of_dropping_chains() {
    match Bridge::dropping_forward_chains() {
        Ok(chains) => {
            for chain in chains {
                tracing::warn!(
                    chain,
                    "drops forwarded packets by policy: containers reach the outside only if it accepts the bridge's"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look for chains that drop forwarded packets"),
    }
}

impl Inner {
    pub(crate) fn adopt(self: &Arc<Self>, handle: Arc<Handle>) {
        self.containers.insert(handle);
    }
}

/// Run work that waits for the kernel where it holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::task::spawn_blocking(work)).await
}

/// Do work that may wait for others, on a thread of its own: those of [`blocking`] are a stock for all. It goes on
/// when nobody waits for it any more.
pub(crate) async fn apart<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || tell.send(catch_unwind(AssertUnwindSafe(work))))
        .map_err(Error::file("start the thread", Path::new(name)))?;
    match told.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(Error::ShuttingDown),
    }
}

/// Do work to its end, whether or not who asked for it still waits: a client that goes away takes only its question
/// with it.
pub(crate) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    joined(tokio::spawn(work.in_current_span())).await
}

/// Wait for a task, as if its work had been done here.
pub(crate) async fn joined<T>(task: JoinHandle<Result<T, Error>>) -> Result<T, Error> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => Err(Error::ShuttingDown),
        },
    }
}
