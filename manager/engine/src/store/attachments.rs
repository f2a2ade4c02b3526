//! What CNI plugins were asked to make, as rows. They are there from before the plugins act until they have undone it, and
//! may outlive container and network. Each function is one step inside a transaction of the owner thread.

use cni::Attachment;
use rusqlite::{Connection, params};

use super::rows::{json, text};
use crate::Error;

/// One container on one network.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) container: String,
    pub(crate) network: String,
    pub(crate) attachment: Attachment,
}

pub(super) fn put(connection: &Connection, row: &Row) -> Result<(), Error> {
    connection
        .execute(
            "INSERT OR REPLACE INTO attachments (container, network, attachment) VALUES (?1, ?2, ?3)",
            params![row.container, row.network, text(&row.attachment)?],
        )
        .map_err(Error::database("put an attachment on record"))?;
    Ok(())
}

/// It is undone.
pub(super) fn delete(connection: &Connection, container: &str, network: &str) -> Result<(), Error> {
    connection
        .execute(
            "DELETE FROM attachments WHERE container = ?1 AND network = ?2",
            [container, network],
        )
        .map_err(Error::database("forget an attachment"))?;
    Ok(())
}

/// Those of one container, or all.
pub(super) fn of(connection: &Connection, container: Option<&str>) -> Result<Vec<Row>, Error> {
    let query = || -> Result<Vec<Row>, rusqlite::Error> {
        connection
            .prepare_cached(
                "SELECT container, network, attachment FROM attachments WHERE ?1 IS NULL OR container = ?1",
            )?
            .query_map([container], |row| {
                Ok(Row {
                    container: row.get("container")?,
                    network: row.get("network")?,
                    attachment: json(row, "attachment")?,
                })
            })?
            .collect()
    };
    query().map_err(Error::database("read the attachments"))
}
