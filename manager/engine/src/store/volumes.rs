//! Volumes as rows, and which containers use them. Each function is one step inside a transaction of the owner thread.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{json, text};
use crate::Error;
use crate::container::Container;
use crate::volumes::Volume;

/// Remember a volume. Whether it is new.
pub(super) fn insert(connection: &Connection, volume: &Volume) -> Result<bool, Error> {
    let inserted = connection
        .execute(
            "INSERT INTO volumes (name, driver, labels, options, anonymous, created_ns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO NOTHING",
            params![
                volume.name,
                volume.driver,
                text(&volume.labels)?,
                text(&volume.options)?,
                volume.anonymous,
                volume.created_unix_nanos,
            ],
        )
        .map_err(Error::database("insert a volume"))?;
    if inserted == 0 && is_marked(connection, &volume.name)? {
        return Err(Error::VolumeGoing(volume.name.clone()));
    }
    Ok(inserted > 0)
}

/// Make the volumes of a new container that are not there, and put on record that it uses them.
pub(super) fn insert_of(connection: &Connection, container: &Container) -> Result<(), Error> {
    for source in container.mounts.iter().filter_map(|mount| mount.volume()) {
        let volume = Volume {
            name: source.name.clone(),
            driver: source.driver.clone(),
            labels: source.labels.clone(),
            options: source.options.clone(),
            anonymous: source.anonymous,
            created_unix_nanos: container.created_unix_nanos,
            ..Volume::default()
        };
        insert(connection, &volume)?;
        connection
            .execute(
                "INSERT INTO container_volumes (container, volume, anonymous) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![container.id, volume.name, source.anonymous],
            )
            .map_err(Error::database("put a volume's use on record"))?;
    }
    Ok(())
}

/// All volumes, by name.
pub(super) fn all(connection: &Connection) -> Result<Vec<Volume>, Error> {
    let query = || -> Result<Vec<Volume>, rusqlite::Error> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut query = connection.prepare_cached("SELECT volume, container FROM container_volumes")?;
        for pair in query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (volume, container) = pair?;
            users.entry(volume).or_default().push(container);
        }
        connection
            .prepare_cached(
                "SELECT name, driver, labels, options, anonymous, created_ns FROM volumes WHERE NOT removed
                 ORDER BY name",
            )?
            .query_map([], |row| {
                let mut volume = volume(row)?;
                volume.containers = users.remove(&volume.name).unwrap_or_default();
                Ok(volume)
            })?
            .collect()
    };
    query().map_err(Error::database("read the volumes"))
}

fn volume(row: &Row<'_>) -> Result<Volume, rusqlite::Error> {
    Ok(Volume {
        name: row.get("name")?,
        driver: row.get("driver")?,
        labels: json(row, "labels")?,
        options: json(row, "options")?,
        anonymous: row.get("anonymous")?,
        created_unix_nanos: row.get("created_ns")?,
        ..Volume::default()
    })
}

/// What is needed of a volume to use it.
#[derive(Debug)]
pub(crate) struct VolumeRecord {
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
}

/// Whose a volume is, and with which options. None: there is none.
pub(super) fn record(connection: &Connection, name: &str) -> Result<Option<VolumeRecord>, Error> {
    connection
        .query_row(
            "SELECT driver, options FROM volumes WHERE name = ?1 AND NOT removed",
            [name],
            |row| {
                Ok(VolumeRecord {
                    driver: row.get("driver")?,
                    options: json(row, "options")?,
                })
            },
        )
        .optional()
        .map_err(Error::database("read a volume"))
}

/// Begin the removal of a volume that nobody uses: from now on it is not there any more.
pub(super) fn mark(connection: &Connection, name: &str) -> Result<(), Error> {
    let users = || -> Result<Vec<String>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT container FROM container_volumes WHERE volume = ?1")?
            .query_map([name], |row| row.get(0))?
            .collect()
    };
    let containers = users().map_err(Error::database("read a volume's users"))?;
    if !containers.is_empty() {
        return Err(Error::VolumeInUse {
            volume: name.to_owned(),
            containers,
        });
    }
    let marked = connection
        .execute(
            "UPDATE volumes SET removed = 1 WHERE name = ?1 AND NOT removed",
            [name],
        )
        .map_err(Error::database("remove a volume"))?;
    if marked == 0 {
        return Err(Error::NoSuchVolume(name.to_owned()));
    }
    Ok(())
}

/// The same for the anonymous volumes of a container that is to go, but those that others use too.
pub(super) fn mark_of(connection: &Connection, container: &str) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE volumes SET removed = 1 WHERE name IN (
                 SELECT volume FROM container_volumes mine WHERE container = ?1 AND anonymous AND NOT EXISTS (
                     SELECT 1 FROM container_volumes WHERE volume = mine.volume AND container <> ?1))",
            [container],
        )
        .map_err(Error::database("remove a container's volumes"))?;
    Ok(())
}

/// The volume stays, after all.
pub(super) fn unmark(connection: &Connection, name: &str) -> Result<(), Error> {
    connection
        .execute("UPDATE volumes SET removed = 0 WHERE name = ?1", [name])
        .map_err(Error::database("keep a volume"))?;
    Ok(())
}

/// Removals that are not finished: names and drivers.
pub(super) fn marked(connection: &Connection) -> Result<Vec<(String, String)>, Error> {
    let query = || -> Result<Vec<(String, String)>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT name, driver FROM volumes WHERE removed")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    query().map_err(Error::database("read the removed volumes"))
}

/// The folder of a removed volume is gone.
pub(super) fn forget(connection: &Connection, name: &str) -> Result<(), Error> {
    connection
        .execute("DELETE FROM volumes WHERE name = ?1 AND removed", [name])
        .map_err(Error::database("forget a volume"))?;
    connection
        .execute(
            "DELETE FROM volume_mounts WHERE volume = ?1 AND NOT EXISTS (SELECT 1 FROM volumes WHERE name = ?1)",
            [name],
        )
        .map_err(Error::database("forget a volume's mounts"))?;
    Ok(())
}

fn is_marked(connection: &Connection, name: &str) -> Result<bool, Error> {
    connection
        .query_row("SELECT removed FROM volumes WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .map_err(Error::database("read a volume"))
}
