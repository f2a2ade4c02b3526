//! Mounts of plugins that could not be undone, and volumes that could not be removed with their containers, are tried
//! again, until there are none, or the plugin has said no often enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::plugin;
use crate::Error;
use crate::engine::Inner;
use crate::request::storage::LOCAL;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// A plugin that says no this often means it, until the manager's next start.
const REFUSALS_MAX: u32 = 5;

/// By volume and container.
type Refusals = BTreeMap<(String, String), u32>;

/// Begin to try, unless somebody is at it.
pub(super) fn keep_trying(engine: &Arc<Inner>) {
    engine.volumes.left.store(true, Ordering::SeqCst);
    if engine.volumes.is_trying.swap(true, Ordering::SeqCst) {
        return;
    }
    let engine = Arc::downgrade(engine);
    tokio::spawn(async move {
        let (mut wait, mut refusals) = (FIRST_WAIT, Refusals::new());
        loop {
            // Nobody else keeps it: it is the manager's end.
            let Some(engine) = engine.upgrade() else { return };
            if engine.volumes.left.swap(false, Ordering::SeqCst) {
                wait = FIRST_WAIT;
            }
            let mut is_done = undo_all(&engine, &mut refusals).await;
            is_done &= remove_all(&engine).await;
            if is_done && !engine.volumes.left.load(Ordering::SeqCst) {
                engine.volumes.is_trying.store(false, Ordering::SeqCst);
                // Somebody may have found it at work in between.
                if engine.volumes.left.load(Ordering::SeqCst) {
                    keep_trying(&engine);
                }
                return;
            }
            drop(engine);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    });
}

/// Remove what went with containers. Whether nothing remains to be tried.
async fn remove_all(engine: &Arc<Inner>) -> bool {
    let marked = match engine.store.marked_volumes().await {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%error, "cannot look for volumes to be removed");
            return false;
        }
    };
    let mut is_done = true;
    for (name, driver) in marked.iter().filter(|(_, driver)| driver != LOCAL) {
        match plugin::finish_removal(engine, driver, name, plugin::Absent::Goes).await {
            Err(Error::Plugin(error)) if !error.is_refusal() => {
                is_done = false;
                tracing::debug!(volume = name, %error, "it is removed later");
            }
            Err(error) => tracing::warn!(volume = name, %error, "it stays"),
            Ok(()) => {}
        }
    }
    is_done
}

/// Undo what is left. Whether nothing remains to be tried.
async fn undo_all(engine: &Arc<Inner>, refusals: &mut Refusals) -> bool {
    let mounts = match engine.store.plugin_mounts().await {
        Ok(mounts) => mounts,
        Err(error) => {
            tracing::warn!(%error, "cannot look for mounts of plugins");
            return false;
        }
    };
    let mut is_done = true;
    for left in mounts {
        let refused = refusals
            .entry((left.volume.clone(), left.container.clone()))
            .or_default();
        if *refused >= REFUSALS_MAX {
            continue;
        }
        match plugin::undo_left(engine, &left).await {
            Ok(true) => tracing::info!(
                volume = left.volume,
                id = left.container,
                "unmounted what was left"
            ),
            Ok(false) => {}
            Err(error) => {
                if matches!(&error, Error::Plugin(error) if error.is_refusal()) {
                    *refused += 1;
                }
                is_done &= *refused >= REFUSALS_MAX;
                tracing::warn!(volume = left.volume, id = left.container, %error, "it stays mounted");
            }
        }
    }
    is_done
}
