//! Leases: who needs an image, until when.

use rusqlite::{Connection, OptionalExtension, params};

use super::{doing, strings};
use crate::{Error, Owners};

/// Leases that still count. A lease that has run out is as good as none; the next removal deletes its row.
const LIVE: &str = "(expires_unix_seconds IS NULL OR expires_unix_seconds > unixepoch())";

/// Some container or client that needs this image, as `container web`.
pub(crate) fn user_of(connection: &Connection, image_id: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT iif(kind = 'container', 'container ', 'lease ') || id FROM leases
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

pub(crate) fn delete_lease(connection: &Connection, container_id: &str) -> Result<(), Error> {
    connection
        .execute(
            "DELETE FROM leases WHERE kind = 'container' AND id = ?",
            [container_id],
        )
        .map(|_| ())
        .map_err(doing("give back a lease"))
}

/// A client's lease, new or renewed.
pub(crate) fn put_client_lease(
    connection: &Connection,
    id: &str,
    image_id: &str,
    seconds: u64,
) -> Result<(), Error> {
    connection
        .execute(
            "INSERT INTO leases (id, kind, image_id, expires_unix_seconds) VALUES (?1, 'client', ?2, unixepoch() + ?3)
                ON CONFLICT (kind, id) DO UPDATE SET image_id = ?2, expires_unix_seconds = unixepoch() + ?3",
            params![id, image_id, seconds.cast_signed()],
        )
        .map(|_| ())
        .map_err(doing("take a lease"))
}

/// Whether there was one that had not run out.
pub(crate) fn delete_client_lease(connection: &Connection, id: &str) -> Result<bool, Error> {
    let sql = format!("DELETE FROM leases WHERE kind = 'client' AND id = ? RETURNING {LIVE}");
    connection
        .query_row(&sql, [id], |row| row.get(0))
        .optional()
        .map(|live| live.unwrap_or(false))
        .map_err(doing("give back a lease"))
}

pub(crate) fn delete_expired_leases(connection: &Connection) -> Result<(), Error> {
    connection
        .execute(&format!("DELETE FROM leases WHERE NOT {LIVE}"), [])
        .map(|_| ())
        .map_err(doing("delete leases that have run out"))
}
