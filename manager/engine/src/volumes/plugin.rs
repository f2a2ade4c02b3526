//! Volumes of plugins: made, mounted for a container's run, unmounted after it, and removed by somebody else.
//!
//! A mount is on record before the plugin is asked for it, and until the plugin has said that it is undone. So after a
//! crash it is known which there may be: those of containers that run stay as they are, all others are undone. Whether
//! a plugin has got the last question before a crash nobody knows; such a mount is in doubt. A second `Unmount` does
//! nothing to a plugin that goes by ids, but one that only counts would take the volume from under another container.
//! So while others use the volume, what is in doubt is mounted once more before it is unmounted.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use plugins::{Effort, Scope, VolumeDriver, VolumeOfPlugin};

use super::{Volume, tell};
use crate::Error;
use crate::container::Container;
use crate::engine::Inner;
use crate::request::storage::{LOCAL, check_volume_options};
use crate::store::PluginMount;

/// Who only looks does not wait longer for a plugin.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Of one plugin no more are told.
const LISTED_MAX: usize = 10_000;

/// What becomes of a volume that is to be removed while its plugin is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// It stays, which whoever wants it removed is told.
    Stays,
    /// It is forgotten here.
    Forgotten,
    /// Nobody waits for it: it goes when the plugin is there again.
    Goes,
}

/// The driver of a volume that is to be used or made: that of the one that there is, or else the one that is asked for.
pub(crate) async fn driver_of(engine: &Inner, name: &str, wanted: &str) -> Result<String, Error> {
    if let Some(record) = engine.store.volume_record(name).await? {
        if !wanted.is_empty() && wanted != record.driver {
            return Err(Error::VolumeConflict {
                volume: name.to_owned(),
                driver: record.driver,
            });
        }
        return Ok(record.driver);
    }
    if !wanted.is_empty() {
        return Ok(wanted.to_owned());
    }
    let found = find(engine, name).await;
    Ok(found.map_or_else(|| LOCAL.to_owned(), |(driver, _)| driver))
}

/// The plugin that has a volume of this name, of which nothing is on record here.
pub(super) async fn find(engine: &Inner, name: &str) -> Option<(String, VolumeOfPlugin)> {
    let ask = |plugin: String| async move {
        let driver = engine.plugins.volume_driver(&plugin, Effort::Once).await.ok()?;
        Some((plugin, driver.get(name).await.ok()?))
    };
    let plugins = engine.plugins.names().into_iter();
    let asked =
        plugins.map(|plugin| async move { tokio::time::timeout(LOOK_TIMEOUT, ask(plugin)).await.ok()? });
    join_all(asked).await.into_iter().flatten().next()
}

/// Have the plugin make the volume, if it has none of this name.
pub(super) async fn ensure(
    engine: &Inner,
    plugin: &str,
    name: &str,
    options: &BTreeMap<String, String>,
    effort: Effort,
) -> Result<VolumeDriver, Error> {
    let driver = engine.plugins.volume_driver(plugin, effort).await?;
    match driver.get(name).await {
        Ok(_) => {}
        Err(error) if error.is_refusal() => driver.create(name, options).await?,
        Err(error) => return Err(error.into()),
    }
    Ok(driver)
}

/// Put a volume on record, and have its plugin make it. Gives whether it is new here.
pub(super) async fn make(engine: &Inner, volume: Volume) -> Result<bool, Error> {
    // Of a plugin that is not there nothing gets on record.
    engine.plugins.volume_driver(&volume.driver, Effort::Once).await?;
    let (name, plugin, options) = (volume.name.clone(), volume.driver.clone(), volume.options.clone());
    let slot = engine.volumes.slots.of_volume(&name);
    let turn = slot.lock().await;
    let is_new = engine.store.insert_volume(volume).await?;
    failpoint::reach("volume.recorded");
    if let Err(error) = ensure(engine, &plugin, &name, &options, Effort::Once).await {
        // A container that has found it meanwhile keeps it.
        let forgotten = if is_new && engine.store.mark_volume(&name).await.is_ok() {
            engine.store.forget_volume(&name).await
        } else {
            Ok(())
        };
        drop(turn);
        engine.volumes.slots.leave(&name, &slot);
        forgotten?;
        return Err(error);
    }
    failpoint::reach("volume.made");
    if is_new {
        tell(engine, "create", &name, &plugin);
    }
    Ok(is_new)
}

/// Before a container is on record: find out whose its volumes are, and have those that are not anonymous made.
pub(crate) async fn settle_drivers(engine: &Inner, container: &mut Container) -> Result<(), Error> {
    let created_unix_nanos = container.created_unix_nanos;
    for source in container.mounts.iter_mut().filter_map(|mount| mount.volume_mut()) {
        if !source.anonymous {
            source.driver = driver_of(engine, &source.name, &source.driver).await?;
        }
        check_volume_options(&source.driver, &source.options)?;
        if source.driver == LOCAL {
            continue;
        }
        if source.anonymous {
            // Of a plugin that is not there nothing gets on record.
            engine.plugins.volume_driver(&source.driver, Effort::Once).await?;
            continue;
        }
        let volume = Volume {
            name: source.name.clone(),
            driver: source.driver.clone(),
            labels: source.labels.clone(),
            options: source.options.clone(),
            created_unix_nanos,
            ..Volume::default()
        };
        make(engine, volume).await?;
    }
    Ok(())
}

/// After it is on record: have its anonymous volumes made.
pub(crate) async fn make_anonymous(engine: &Inner, container: &Container) -> Result<(), Error> {
    for source in container.mounts.iter().filter_map(|mount| mount.volume()) {
        if source.anonymous && source.driver != LOCAL {
            ensure(
                engine,
                &source.driver,
                &source.name,
                &source.options,
                Effort::Once,
            )
            .await?;
        }
    }
    Ok(())
}

/// Mount a volume for a container's run; where it is then. The caller has the volume's turn; `others` use it already.
pub(super) async fn mount(
    engine: &Inner,
    plugin: &str,
    name: &str,
    options: &BTreeMap<String, String>,
    container: &str,
    others: bool,
) -> Result<PathBuf, Error> {
    if let Some(left) = engine.store.plugin_mount(name, container).await? {
        match unmount(engine, &left, others, Effort::Patient).await {
            Err(Error::Plugin(error)) if error.is_refusal() => {
                tracing::warn!(volume = name, %error, "of the container's run before this one");
            }
            other => other?,
        }
    }
    let driver = ensure(engine, plugin, name, options, Effort::Patient).await?;
    engine.store.mounting(name, container, plugin).await?;
    failpoint::reach("plugin.mount-recorded");
    match driver.mount(name, container).await {
        Ok(path) => {
            failpoint::reach("plugin.mounted");
            engine.store.mount_in_doubt(name, container, false).await?;
            Ok(path)
        }
        Err(error) => {
            // Of any other error nobody knows what it has done: the end of this start undoes it.
            if error.is_refusal() || error.was_not_reached() {
                engine.store.unmounted(name, container).await?;
            }
            Err(error.into())
        }
    }
}

/// Undo a mount. The caller has the volume's turn; `others` use it besides.
async fn unmount(engine: &Inner, mount: &PluginMount, others: bool, effort: Effort) -> Result<(), Error> {
    let PluginMount {
        volume,
        container,
        plugin,
        in_doubt,
    } = mount;
    let driver = engine.plugins.volume_driver(plugin, effort).await?;
    engine.store.mount_in_doubt(volume, container, true).await?;
    failpoint::reach("plugin.unmount-recorded");
    if *in_doubt && others {
        driver.mount(volume, container).await?;
    }
    match driver.unmount(volume, container).await {
        Ok(()) => {}
        Err(error) if *in_doubt && error.is_refusal() => {
            tracing::debug!(volume, container, %error, "it was not mounted, it seems");
        }
        Err(error) => {
            if !in_doubt && (error.is_refusal() || error.was_not_reached()) {
                engine.store.mount_in_doubt(volume, container, false).await?;
            }
            return Err(error.into());
        }
    }
    failpoint::reach("plugin.unmounted");
    engine.store.unmounted(volume, container).await
}

/// A run of a container is over: undo its mount of a volume. What does not work is tried again later.
pub(super) async fn release(engine: &Arc<Inner>, name: &str, container: &str, others: bool) {
    let undone = match engine.store.plugin_mount(name, container).await {
        Ok(Some(mount)) => unmount(engine, &mount, others, Effort::Once).await,
        Ok(None) => return,
        Err(error) => Err(error),
    };
    if let Err(error) = undone {
        tracing::warn!(id = container, volume = name, %error, "it stays mounted, and is tried again");
        super::retry::keep_trying(engine);
    }
}

/// Undo a mount that is left of a container that does not run. False: it is in use, or undone already.
pub(super) async fn undo_left(engine: &Inner, left: &PluginMount) -> Result<bool, Error> {
    let slot = engine.volumes.slots.of_volume(&left.volume);
    let users = slot.lock().await;
    if users.contains(&left.container) {
        return Ok(false);
    }
    let Some(left) = engine.store.plugin_mount(&left.volume, &left.container).await? else {
        return Ok(false);
    };
    unmount(engine, &left, !users.is_empty(), Effort::Once).await?;
    Ok(true)
}

/// Remove a volume that is on record. With `force`, it is forgotten if its plugin is not there.
pub(super) async fn remove(engine: &Inner, plugin: &str, name: &str, force: bool) -> Result<(), Error> {
    engine.store.mark_volume(name).await?;
    failpoint::reach("volume.marked");
    let absent = if force { Absent::Forgotten } else { Absent::Stays };
    finish_removal(engine, plugin, name, absent).await
}

/// The row is marked. It is unmarked if the plugin keeps the volume: then that is there as before.
pub(super) async fn finish_removal(
    engine: &Inner,
    plugin: &str,
    name: &str,
    absent: Absent,
) -> Result<(), Error> {
    let slot = engine.volumes.slots.of_volume(name);
    let turn = slot.lock().await;
    let finished = finish_removal_now(engine, plugin, name, absent).await;
    drop(turn);
    engine.volumes.slots.leave(name, &slot);
    if finished? {
        failpoint::reach("volume.forgotten");
        tell(engine, "destroy", name, plugin);
    }
    Ok(())
}

/// Whether it was there to be removed.
async fn finish_removal_now(engine: &Inner, plugin: &str, name: &str, absent: Absent) -> Result<bool, Error> {
    // Somebody else may have finished it, and another volume may have its name by now.
    let marked = engine.store.marked_volumes().await?;
    if !marked.iter().any(|(marked, _)| marked == name) {
        return Ok(false);
    }
    match remove_there(engine, plugin, name).await {
        Err(Error::Plugin(error)) if absent == Absent::Forgotten && error.is_absence() => {
            tracing::warn!(volume = name, %error, "it is forgotten here, and its plugin may have it still");
        }
        // Somebody has removed it already, with its container.
        Err(Error::Plugin(error)) if absent == Absent::Goes && !error.is_refusal() => {
            return Err(error.into());
        }
        Err(error) => {
            engine.store.unmark_volume(name).await?;
            return Err(error);
        }
        Ok(()) => {}
    }
    failpoint::reach("plugin.removed");
    engine.store.forget_volume(name).await?;
    Ok(true)
}

async fn remove_there(engine: &Inner, plugin: &str, name: &str) -> Result<(), Error> {
    for left in engine.store.plugin_mounts().await? {
        if left.volume == name
            && let Err(error) = unmount(engine, &left, false, Effort::Once).await
        {
            tracing::warn!(volume = name, %error, "it is mounted still");
        }
    }
    let driver = engine.plugins.volume_driver(plugin, Effort::Once).await?;
    let Err(error) = driver.remove(name).await else {
        return Ok(());
    };
    // A manager that died has removed it, or somebody else has.
    if error.is_refusal() && driver.get(name).await.is_err_and(|error| error.is_refusal()) {
        return Ok(());
    }
    Err(error.into())
}

/// Remove a volume of which only a plugin knows.
pub(super) async fn remove_unknown(engine: &Inner, name: &str) -> Result<(), Error> {
    let Some((plugin, _)) = find(engine, name).await else {
        return Err(Error::NoSuchVolume(name.to_owned()));
    };
    let slot = engine.volumes.slots.of_volume(name);
    let turn = slot.lock().await;
    // Whoever had the turn before may have taken it into use.
    if engine.store.volume_record(name).await?.is_some() {
        drop(turn);
        return remove(engine, &plugin, name, false).await;
    }
    let removed = async {
        let driver = engine.plugins.volume_driver(&plugin, Effort::Once).await?;
        driver.remove(name).await
    };
    let removed = removed.await;
    drop(turn);
    engine.volumes.slots.leave(name, &slot);
    removed?;
    tell(engine, "destroy", name, &plugin);
    Ok(())
}

/// One volume of which a plugin knows. The record stays as it is if the plugin says nothing; then there is a warning.
pub(super) async fn describe(engine: &Inner, volume: &mut Volume) -> Option<String> {
    let looked = async {
        let driver = engine.plugins.volume_driver(&volume.driver, Effort::Once).await?;
        Ok::<_, plugins::Error>((driver.get(&volume.name).await?, driver.scope().await?))
    };
    match tokio::time::timeout(LOOK_TIMEOUT, looked).await {
        Ok(Ok((found, scope))) => {
            add(volume, found, scope);
            None
        }
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some(silent(&volume.driver)),
    }
}

/// Add what the plugins know of volumes, those among them of which nothing is on record. What they fail to say is
/// told: a sentence each.
pub(super) async fn describe_all(engine: &Inner, volumes: &mut Vec<Volume>) -> Vec<String> {
    let mut names = engine.plugins.names();
    names.extend(volumes.iter().map(|volume| volume.driver.clone()));
    names.remove(LOCAL);
    let ask = |plugin: String| async move {
        let asked = async {
            let driver = engine.plugins.volume_driver(&plugin, Effort::Once).await?;
            Ok::<_, plugins::Error>((driver.list().await?, driver.scope().await?))
        };
        let answer = tokio::time::timeout(LOOK_TIMEOUT, asked).await;
        (plugin, answer)
    };
    let mut warnings = Vec::new();
    for (plugin, answer) in join_all(names.into_iter().map(ask)).await {
        match answer {
            Ok(Ok((listed, scope))) => {
                if listed.len() > LISTED_MAX {
                    warnings.push(format!(
                        "plugin {plugin}: of its {} volumes the first {LISTED_MAX} are shown",
                        listed.len()
                    ));
                }
                merge(volumes, &plugin, listed, scope);
            }
            // It has nothing to do with volumes.
            Ok(Err(plugins::Error::NotAVolumeDriver { .. })) => {}
            Ok(Err(error)) => warnings.push(error.to_string()),
            Err(_) => warnings.push(silent(&plugin)),
        }
    }
    volumes.sort_by(|one, other| one.name.cmp(&other.name));
    warnings
}

fn merge(volumes: &mut Vec<Volume>, plugin: &str, listed: Vec<VolumeOfPlugin>, scope: Scope) {
    let named = |(place, volume): (usize, &Volume)| (volume.name.clone(), place);
    let mut places: HashMap<String, usize> = volumes.iter().enumerate().map(named).collect();
    for found in listed.into_iter().take(LISTED_MAX) {
        match places.get(&found.name).map(|place| &mut volumes[*place]) {
            Some(volume) if volume.driver == plugin => add(volume, found, scope),
            None if crate::names::check(&found.name).is_ok() => {
                places.insert(found.name.clone(), volumes.len());
                volumes.push(unknown(plugin, found, scope));
            }
            // The one on record is meant by the name; and what has no name that can be used cannot be used.
            Some(_) | None => {}
        }
    }
}

/// A volume of which only its plugin knows.
fn unknown(plugin: &str, found: VolumeOfPlugin, scope: Scope) -> Volume {
    let mut volume = Volume {
        name: found.name.clone(),
        driver: plugin.to_owned(),
        ..Volume::default()
    };
    add(&mut volume, found, scope);
    volume
}

fn add(volume: &mut Volume, found: VolumeOfPlugin, scope: Scope) {
    volume.mountpoint = found.mountpoint;
    volume.is_global = scope == Scope::Global;
    if !found.status.is_null() {
        volume.status_json = found.status.to_string();
    }
}

fn silent(plugin: &str) -> String {
    format!("plugin {plugin}: no answer within {} s", LOOK_TIMEOUT.as_secs())
}
