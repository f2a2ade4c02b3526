//! Leases: who needs an image, until when.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{doing, strings};
use crate::{Error, Owners};

/// Leases that still count. A lease that has run out is as good as none; the next removal, lease or start deletes its
/// rows.
const LIVE: &str = "(expires_unix_seconds IS NULL OR expires_unix_seconds > unixepoch())";

/// Some container or client that needs this image, as `container web`.
pub(crate) fn user_of(connection: &Connection, image_id: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT iif(kind = 'client', 'lease ', 'container ') || id FROM leases
            WHERE image_id = ? AND {LIVE} ORDER BY kind = 'client', id LIMIT 1"
    );
    connection
        .query_row(&sql, [image_id], |row| row.get(0))
        .optional()
        .map_err(doing("read leases"))
}

/// How many containers need this image.
pub(crate) fn containers_of(connection: &Connection, image_id: &str) -> Result<u32, Error> {
    let sql = "SELECT count(*) FROM leases WHERE image_id = ? AND kind = 'container'";
    connection
        .query_row(sql, [image_id], |row| row.get(0))
        .map_err(doing("read leases"))
}

/// Ids of the containers that hold one.
pub(crate) fn leases(connection: &Connection) -> Result<Vec<String>, Error> {
    strings(
        connection,
        "SELECT id FROM leases WHERE kind = 'container' ORDER BY id",
        [],
    )
    .map_err(doing("list leases"))
}

/// The image that a container holds a lease on.
pub(crate) fn lease(connection: &Connection, container_id: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT image_id FROM leases WHERE kind = 'container' AND id = ?";
    connection
        .query_row(sql, [container_id], |row| row.get(0))
        .optional()
        .map_err(doing("read a lease"))
}

/// The mappings of a container that has a user namespace of its own.
pub(crate) fn lease_owners(connection: &Connection, container_id: &str) -> Result<Option<Owners>, Error> {
    let sql = "SELECT uidmap, gidmap FROM leases
        WHERE kind = 'container' AND id = ? AND uidmap IS NOT NULL";
    let maps: Option<(String, String)> = connection
        .query_row(sql, [container_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(doing("read a lease"))?;
    maps.map(|(uids, gids)| {
        Ok(Owners {
            uids: uids.parse()?,
            gids: gids.parse()?,
        })
    })
    .transpose()
}

pub(crate) fn insert_lease(
    connection: &Connection,
    container_id: &str,
    image_id: &str,
    owners: Option<&Owners>,
) -> Result<(), Error> {
    let uids = owners.map(|owners| owners.uids.to_string());
    let gids = owners.map(|owners| owners.gids.to_string());
    connection
        .execute(
            "INSERT INTO leases (id, kind, image_id, uidmap, gidmap) VALUES (?, 'container', ?, ?, ?)",
            params![container_id, image_id, uids, gids],
        )
        .map(|_| ())
        .map_err(doing("take a lease"))
}

/// A container holds one more image, whose files it mounts. Its lease has to be there.
pub(crate) fn insert_mounted(
    connection: &Connection,
    container_id: &str,
    image_id: &str,
) -> Result<(), Error> {
    connection
        .execute(
            "INSERT OR IGNORE INTO leases (id, kind, image_id) VALUES (?, 'mounted', ?)",
            params![container_id, image_id],
        )
        .map(|_| ())
        .map_err(doing("take a lease"))
}

/// With what it holds besides. Not on disk when this returns: a lease that is back after a power cut has no container, and the engine gives it back
/// when it starts.
pub(crate) fn delete_lease(connection: &Connection, container_id: &str) -> Result<(), Error> {
    let sql = "DELETE FROM leases WHERE kind IN ('container', 'mounted') AND id = ?";
    super::without_waiting_for_the_disk(connection, || connection.execute(sql, [container_id]))
        .map(|_| ())
        .map_err(doing("give back a lease"))
}

/// A client's lease holds one more image; all rows of a lease end at the same moment.
pub(crate) fn insert_client_lease(
    transaction: &Transaction<'_>,
    id: &str,
    image_id: &str,
    expires_unix_seconds: i64,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT OR IGNORE INTO leases (id, kind, image_id, expires_unix_seconds) VALUES (?, 'client', ?, ?)",
            params![id, image_id, expires_unix_seconds],
        )
        .map(|_| ())
        .map_err(doing("take a lease"))
}

/// Clients' leases that still count, or the one of this id, as id, end and image; rows of one lease follow each other.
pub(crate) fn client_leases(
    connection: &Connection,
    id: Option<&str>,
) -> Result<Vec<(String, i64, String)>, Error> {
    let sql = format!(
        "SELECT id, expires_unix_seconds, image_id FROM leases
            WHERE kind = 'client' AND (?1 IS NULL OR id = ?1) AND {LIVE} ORDER BY id, image_id"
    );
    let list = || -> rusqlite::Result<_> {
        connection
            .prepare_cached(&sql)?
            .query_map([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    };
    list().map_err(doing("list leases"))
}

/// How many clients' leases there are.
pub(crate) fn count_client_leases(connection: &Connection) -> Result<u32, Error> {
    let sql = "SELECT count(DISTINCT id) FROM leases WHERE kind = 'client'";
    connection
        .query_row(sql, [], |row| row.get(0))
        .map_err(doing("count leases"))
}

/// Whether there was one that had not run out.
pub(crate) fn delete_client_lease(connection: &Connection, id: &str) -> Result<bool, Error> {
    let sql = format!("DELETE FROM leases WHERE kind = 'client' AND id = ? AND {LIVE}");
    connection
        .execute(&sql, [id])
        .map(|rows| rows > 0)
        .map_err(doing("give back a lease"))
}

/// Delete the rows of leases that have run out: they hold nothing, and must not stand in the way of an image's.
pub(crate) fn delete_expired_leases(connection: &Connection) -> Result<(), Error> {
    connection
        .execute(&format!("DELETE FROM leases WHERE NOT {LIVE}"), [])
        .map(|_| ())
        .map_err(doing("delete leases that have run out"))
}
