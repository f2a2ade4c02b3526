//! Images that are unpacked here, artifacts, the names that lead to them, and where they came from.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{LayerRow, doing, strings};
use crate::Error;

/// An image as stored.
#[derive(Clone)]
pub(crate) struct ImageRow {
    pub(crate) id: String,
    pub(crate) manifest_digest: String,
    pub(crate) size_bytes: u64,
    /// An artifact's manifest, which takes the config's place.
    pub(crate) config_json: String,
    /// `None`: it is a container image.
    pub(crate) artifact_type: Option<String>,
    pub(crate) names: Vec<String>,
}

/// Where a name pointed when it was last pulled.
#[derive(Debug, Clone)]
pub(crate) struct NameRow {
    pub(crate) image_id: String,
    pub(crate) target_digest: String,
    pub(crate) platform: String,
}

pub(crate) fn image_ids(connection: &Connection) -> Result<Vec<String>, Error> {
    strings(connection, "SELECT id FROM images ORDER BY id", []).map_err(doing("list images"))
}

pub(crate) fn image(connection: &Connection, id: &str) -> Result<Option<ImageRow>, Error> {
    let sql = "SELECT id, manifest_digest, size_bytes, config_json, artifact_type FROM images WHERE id = ?";
    let row = connection
        .query_row(sql, [id], |row| {
            Ok(ImageRow {
                id: row.get(0)?,
                manifest_digest: row.get(1)?,
                size_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                config_json: row.get(3)?,
                artifact_type: row.get(4)?,
                names: Vec::new(),
            })
        })
        .optional()
        .map_err(doing("read an image"))?;
    let Some(mut row) = row else { return Ok(None) };
    row.names = names_of(connection, id)?;
    Ok(Some(row))
}

/// The names that lead to an image: directly, or by an index that has it for one of its platforms.
pub(crate) fn names_of(connection: &Connection, id: &str) -> Result<Vec<String>, Error> {
    let sql = "WITH RECURSIVE above (digest) AS (
            SELECT manifest_digest FROM images WHERE id = ?1
            UNION SELECT parent FROM links JOIN above ON child = digest WHERE kind = 'manifest'
        ) SELECT name FROM names WHERE image_id = ?1 OR target_digest IN above ORDER BY name";
    strings(connection, sql, [id]).map_err(doing("read names"))
}

/// The images that a name leads to.
pub(crate) fn images_of(connection: &Connection, name: &str) -> Result<Vec<String>, Error> {
    let sql = "WITH RECURSIVE below (digest) AS (
            SELECT target_digest FROM names WHERE name = ?1
            UNION SELECT child FROM links JOIN below ON parent = digest WHERE kind = 'manifest'
        ) SELECT id FROM images WHERE manifest_digest IN below
        UNION SELECT image_id FROM names WHERE name = ?1 AND image_id IS NOT NULL";
    strings(connection, sql, [name]).map_err(doing("read the images of a name"))
}

/// What a name points to, if that is an image.
pub(crate) fn name(connection: &Connection, name: &str) -> Result<Option<NameRow>, Error> {
    let sql = "SELECT image_id, target_digest, platform FROM names WHERE name = ? AND image_id IS NOT NULL";
    connection
        .query_row(sql, [name], |row| {
            Ok(NameRow {
                image_id: row.get(0)?,
                target_digest: row.get(1)?,
                platform: row.get(2)?,
            })
        })
        .optional()
        .map_err(doing("read a name"))
}

/// The digest that a name points to, whatever it is of.
pub(crate) fn target_of(connection: &Connection, name: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT target_digest FROM names WHERE name = ?";
    connection
        .query_row(sql, [name], |row| row.get(0))
        .optional()
        .map_err(doing("read a name"))
}

/// Names of a repository, `docker.io/library/debian`, that point to `digest`.
pub(crate) fn names_in(
    connection: &Connection,
    repository: &str,
    digest: &str,
) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM names WHERE target_digest = ?2 AND length(name) > length(?1)
        AND substr(name, 1, length(?1)) = ?1 AND substr(name, length(?1) + 1, 1) IN (':', '@') ORDER BY name";
    strings(connection, sql, [repository, digest]).map_err(doing("read names"))
}

/// Names of a repository by its tags, `docker.io/library/debian:12`.
pub(crate) fn tags_of(connection: &Connection, repository: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM names WHERE substr(name, 1, length(?1) + 1) = ?1 || ':' ORDER BY name";
    strings(connection, sql, [repository]).map_err(doing("read names"))
}

/// At most two ids that begin with `prefix`, which has only hexadecimal digits and the algorithm's name.
pub(crate) fn ids_with_prefix(connection: &Connection, prefix: &str) -> Result<Vec<String>, Error> {
    strings(
        connection,
        "SELECT id FROM images WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2",
        [prefix],
    )
    .map_err(doing("find an image"))
}

/// The images that were pulled by this manifest or index under any name.
pub(crate) fn ids_by_manifest(connection: &Connection, digest: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT id FROM images WHERE manifest_digest = ?1 OR target_digest = ?1
        UNION SELECT image_id FROM names WHERE target_digest = ?1 AND image_id IS NOT NULL";
    strings(connection, sql, [digest]).map_err(doing("find an image"))
}

/// Store an image, as last pulled by `target_digest`. Layers base first.
pub(crate) fn insert_image(
    transaction: &Transaction<'_>,
    row: &ImageRow,
    target_digest: &str,
    layers: &[LayerRow],
) -> Result<(), Error> {
    let insert = || -> rusqlite::Result<()> {
        transaction.execute(
            "INSERT INTO images (id, manifest_digest, size_bytes, config_json, target_digest, artifact_type)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT (id) DO UPDATE SET manifest_digest = ?2, size_bytes = ?3, target_digest = ?5",
            params![
                row.id,
                row.manifest_digest,
                row.size_bytes.cast_signed(),
                row.config_json,
                target_digest,
                row.artifact_type
            ],
        )?;
        for (position, layer) in layers.iter().enumerate() {
            transaction
                .prepare_cached(
                    "INSERT INTO layers (chain_id, number, unpacked_bytes) VALUES (?1, ?2, ?3)
                        ON CONFLICT (chain_id) DO UPDATE SET
                            number = ?2, unpacked_bytes = coalesce(?3, unpacked_bytes)",
                )?
                .execute(params![
                    layer.chain_id,
                    layer.number.cast_signed(),
                    layer.unpacked_bytes.map(u64::cast_signed)
                ])?;
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO image_layers (image_id, position, chain_id) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![row.id, position as i64, layer.chain_id])?;
        }
        Ok(())
    };
    insert().map_err(doing("store an image"))
}

/// Point a name to a target, and to an image if it has one. One statement: a name is never without a target.
pub(crate) fn put_name(
    transaction: &Transaction<'_>,
    name: &str,
    target_digest: &str,
    image_id: Option<&str>,
    platform: &str,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT INTO names (name, image_id, target_digest, platform) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (name) DO UPDATE SET image_id = ?2, target_digest = ?3, platform = ?4",
            params![name, image_id, target_digest, platform],
        )
        .map(|_| ())
        .map_err(doing("store a name"))
}

/// Point `to` to what `from` points to.
pub(crate) fn copy_name(transaction: &Transaction<'_>, from: &str, to: &str) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT OR REPLACE INTO names (name, target_digest, image_id, platform)
                SELECT ?2, target_digest, image_id, platform FROM names WHERE name = ?1",
            [from, to],
        )
        .map(|_| ())
        .map_err(doing("store a name"))
}

/// Make a name stand for another of its images, after the one it stood for is gone.
pub(crate) fn repoint_name(
    transaction: &Transaction<'_>,
    name: &str,
    image_id: &str,
    platform: &str,
) -> Result<(), Error> {
    transaction
        .execute(
            "UPDATE names SET image_id = ?2, platform = ?3 WHERE name = ?1 AND image_id IS NULL",
            [name, image_id, platform],
        )
        .map(|_| ())
        .map_err(doing("store a name"))
}

/// Names of content of which nothing is unpacked.
pub(crate) fn names_without_image(connection: &Connection) -> Result<Vec<String>, Error> {
    strings(
        connection,
        "SELECT name FROM names WHERE image_id IS NULL ORDER BY name",
        [],
    )
    .map_err(doing("list names"))
}

pub(crate) fn delete_name(transaction: &Transaction<'_>, name: &str) -> Result<(), Error> {
    transaction
        .execute("DELETE FROM names WHERE name = ?", [name])
        .map(|_| ())
        .map_err(doing("remove a name"))
}

pub(crate) fn delete_image(transaction: &Transaction<'_>, id: &str) -> Result<(), Error> {
    // One may have run out since the transaction began.
    super::delete_expired_leases(transaction)?;
    transaction
        .execute("DELETE FROM images WHERE id = ?", [id])
        .map(|_| ())
        .map_err(doing("remove an image"))
}

/// Note that a repository, `docker.io/library/debian`, has had this manifest or index. Nothing is noted of what is not
/// here any more.
pub(crate) fn insert_repository(
    transaction: &Transaction<'_>,
    repository: &str,
    digest: &str,
) -> Result<(), Error> {
    transaction
        .execute(
            "INSERT OR IGNORE INTO repositories (repository, digest)
                SELECT ?1, digest FROM contents WHERE digest = ?2",
            [repository, digest],
        )
        .map(|_| ())
        .map_err(doing("note where content is from"))
}

/// Forget that a repository has had this; whether it had.
pub(crate) fn delete_repository(
    transaction: &Transaction<'_>,
    repository: &str,
    digest: &str,
) -> Result<bool, Error> {
    transaction
        .execute(
            "DELETE FROM repositories WHERE repository = ?1 AND digest = ?2",
            [repository, digest],
        )
        .map(|deleted| deleted > 0)
        .map_err(doing("forget where content is from"))
}

/// Where registries have an image, as `repository@digest`.
pub(crate) fn repo_digests(connection: &Connection, id: &str) -> Result<Vec<String>, Error> {
    let sql = "WITH RECURSIVE above (digest) AS (
            SELECT manifest_digest FROM images WHERE id = ?1
            UNION SELECT parent FROM links JOIN above ON child = digest WHERE kind = 'manifest'
        ) SELECT repository || '@' || digest FROM repositories WHERE digest IN above ORDER BY 1";
    strings(connection, sql, [id]).map_err(doing("read where an image is from"))
}

/// Repositories that have had something which needs `digest`: from there it can be mounted in place of uploaded.
pub(crate) fn repositories_with(connection: &Connection, digest: &str) -> Result<Vec<String>, Error> {
    let sql = "WITH RECURSIVE above (digest) AS (
            VALUES (?)
            UNION SELECT parent FROM links JOIN above ON child = digest WHERE kind != 'subject'
        ) SELECT DISTINCT repository FROM repositories WHERE digest IN above ORDER BY repository";
    strings(connection, sql, [digest]).map_err(doing("read where content is from"))
}
