//! The end of a run: what the start made goes, whether the run ended by itself or its shim is lost. Errors are
//! logged and the rest is done; what cannot be removed now is found again by reconcile.

use std::sync::Arc;

use crate::container::{Container, Exit, now_unix_nanos};
use crate::engine::{Inner, blocking};
use crate::request::Network;
use crate::restart::Next;
use crate::shim::{self, Shim};
use crate::{Error, bundle, networks, volumes};

/// Nobody saw how it ended; docker tells it so too.
const UNKNOWN: u32 = 255;

/// See a run out whose end its shim has told: the exit goes on record while what the run had goes away. The
/// bundle stays; it is to be removed when the exit is on record, for it keeps the exit until then.
pub(crate) async fn settle(
    engine: &Arc<Inner>,
    container: &Container,
    shim: &Shim,
    exit: Exit,
    next: Next,
) -> Result<(), Error> {
    // Its record may be gone before its links.
    let keep = || {
        engine
            .store
            .keep_addresses(container, &engine.networks.of(&container.id))
    };
    let _kept = (next == Next::Removal).then(keep);
    let (recorded, ()) = tokio::join!(
        record(engine, container, exit, "", next),
        release(engine, container, shim)
    );
    recorded
}

/// Put an end on record; for a container that removes itself with it, that is the end of its record.
pub(crate) async fn record(
    engine: &Inner,
    container: &Container,
    exit: Exit,
    error: &str,
    next: Next,
) -> Result<(), Error> {
    match next {
        Next::Removal if !container.has_volumes() => engine.store.delete_ended(&container.id).await,
        Next::Removal => engine.store.delete(&container.id, true).await,
        next => engine.store.exited(&container.id, exit, error, next).await,
    }
}

/// Let the shim of an ended run remove the container and end itself, and disconnect the network. The bundle
/// stays: in it is the only record of the exit until the database has it.
async fn release(engine: &Arc<Inner>, container: &Container, shim: &Shim) {
    let id = container.id.as_str();
    // Its sockets would keep the network namespace there.
    engine.name_servers.close(id);
    let runtime = async {
        match shim.delete("").await {
            Ok(()) => shim.shutdown().await,
            Err(error) => {
                tracing::warn!(id, %error, "the shim could not delete its container; cleaning up after it");
                report(id, shim::clean_up(&engine.config, id).await);
            }
        }
    };
    let network = async {
        if matches!(container.request.network, Network::Bridge | Network::User) {
            disconnect_network(engine, id).await;
        }
    };
    tokio::join!(runtime, network);
    failpoint::reach("exit.released");
}

/// End whatever there is of a run that did not get far or whose shim is lost, and say how it ended. The bundle
/// stays here, too.
pub(crate) async fn end(engine: &Arc<Inner>, id: &str) -> Exit {
    engine.name_servers.close(id);
    let folder = engine.config.bundle(id);
    let lost = || Exit {
        code: UNKNOWN,
        at_unix_nanos: now_unix_nanos(),
        oom_killed: false,
    };
    if !folder.exists() {
        disconnect_network(engine, id).await;
        return lost();
    }
    // What the shim wrote itself is truer than what is found out afterwards.
    let told = bundle::exit(&folder);
    let (cleaned, ()) = tokio::join!(shim::clean_up(&engine.config, id), disconnect_network(engine, id));
    report(id, cleaned);
    failpoint::reach("end.cleaned");
    told.or_else(|| bundle::exit(&folder)).unwrap_or_else(lost)
}

/// End what there is of a run, and remove its bundle: nothing of it is to be remembered.
pub(crate) async fn discard(engine: &Arc<Inner>, id: &str) {
    end(engine, id).await;
    remove_bundle(engine, id).await;
}

/// Remove the bundle; the exit is on record. The run's volumes are needed no longer.
pub(crate) async fn remove_bundle(engine: &Arc<Inner>, id: &str) {
    volumes::release(engine, id).await;
    let (of, owned) = (Arc::clone(engine), id.to_owned());
    let removed = blocking(move || {
        let left = of.cgroup_parents.leave(&of.config, &owned);
        bundle::remove(&of.config.bundle(&owned))?;
        left
    });
    report(id, removed.await);
}

async fn disconnect_network(engine: &Arc<Inner>, id: &str) {
    networks::cni::release(engine, id).await;
    let (engine, owned) = (Arc::clone(engine), id.to_owned());
    let disconnected = blocking(move || {
        let withdrawn = engine.ports.withdraw(&engine.config, &owned);
        let detached = networks::detach_all(&engine, &owned);
        engine.config.bridge.detach(&owned)?;
        detached.and(withdrawn)
    });
    report(id, disconnected.await);
}

fn report(id: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(id, %error, "left behind, until the next start of the manager");
    }
}
