//! Mounts of volumes by plugins, as rows. Each function is one step inside a transaction of the owner thread.

use rusqlite::{Connection, Row, params};

use crate::Error;

/// A volume that a plugin has mounted for a container, or was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginMount {
    pub(crate) volume: String,
    pub(crate) container: String,
    pub(crate) plugin: String,
    /// Whether the plugin has got the last question is not known.
    pub(crate) in_doubt: bool,
}

/// A plugin is about to be asked to mount.
pub(super) fn insert(
    connection: &Connection,
    volume: &str,
    container: &str,
    plugin: &str,
) -> Result<(), Error> {
    connection
        .execute(
            "INSERT OR REPLACE INTO volume_mounts (volume, container, plugin, in_doubt) VALUES (?1, ?2, ?3, 1)",
            params![volume, container, plugin],
        )
        .map_err(Error::database("put a mount on record"))?;
    Ok(())
}

pub(super) fn set_in_doubt(
    connection: &Connection,
    volume: &str,
    container: &str,
    in_doubt: bool,
) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE volume_mounts SET in_doubt = ?3 WHERE volume = ?1 AND container = ?2",
            params![volume, container, in_doubt],
        )
        .map_err(Error::database("put a mount on record"))?;
    Ok(())
}

/// It is undone.
pub(super) fn delete(connection: &Connection, volume: &str, container: &str) -> Result<(), Error> {
    connection
        .execute(
            "DELETE FROM volume_mounts WHERE volume = ?1 AND container = ?2",
            [volume, container],
        )
        .map_err(Error::database("forget a mount"))?;
    Ok(())
}

pub(super) fn all(connection: &Connection) -> Result<Vec<PluginMount>, Error> {
    let query = || -> Result<Vec<PluginMount>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT volume, container, plugin, in_doubt FROM volume_mounts")?
            .query_map([], mount)?
            .collect()
    };
    query().map_err(Error::database("read the mounts of plugins"))
}

fn mount(row: &Row<'_>) -> Result<PluginMount, rusqlite::Error> {
    Ok(PluginMount {
        volume: row.get("volume")?,
        container: row.get("container")?,
        plugin: row.get("plugin")?,
        in_doubt: row.get("in_doubt")?,
    })
}
