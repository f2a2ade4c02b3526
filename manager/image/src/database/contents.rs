//! Content by digest, and the links by which content keeps content.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{doing, strings};
use crate::Error;
use crate::links::Link;

/// What the store knows of one blob, manifest or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContentRow {
    pub(crate) digest: String,
    /// Empty if nothing that points to it has told.
    pub(crate) media_type: String,
    pub(crate) size_bytes: u64,
}

impl ContentRow {
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ContentRow> {
        Ok(ContentRow {
            digest: row.get(0)?,
            media_type: row.get(1)?,
            size_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    }
}

/// Record content and what it points to. What is known of it already stays, unless this knows more.
pub(crate) fn insert_content(
    transaction: &Transaction<'_>,
    digest: &str,
    media_type: &str,
    size_bytes: Option<u64>,
    links: &[Link],
) -> Result<(), Error> {
    let insert = || -> rusqlite::Result<()> {
        transaction
            .prepare_cached(
                "INSERT INTO contents (digest, media_type, size_bytes) VALUES (?1, ?2, coalesce(?3, 0))
                    ON CONFLICT (digest) DO UPDATE SET
                        media_type = iif(media_type = '', ?2, media_type), size_bytes = coalesce(?3, size_bytes)",
            )?
            .execute(params![digest, media_type, size_bytes.map(u64::cast_signed)])?;
        for (position, link) in links.iter().enumerate() {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO links (parent, position, kind, child) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    digest,
                    position as i64,
                    link.kind.as_str(),
                    link.target.digest.to_string()
                ])?;
        }
        Ok(())
    };
    insert().map_err(doing("store content"))
}

/// Make content an image's, whatever points to it: it stays as long as the image does.
pub(crate) fn insert_blobs(
    transaction: &Transaction<'_>,
    image_id: &str,
    digests: &[String],
) -> rusqlite::Result<()> {
    for digest in digests {
        transaction.execute(
            "INSERT OR IGNORE INTO image_contents (image_id, digest) VALUES (?1, ?2)",
            params![image_id, digest],
        )?;
    }
    Ok(())
}

pub(crate) fn content(connection: &Connection, digest: &str) -> Result<Option<ContentRow>, Error> {
    let sql = "SELECT digest, media_type, size_bytes FROM contents WHERE digest = ?";
    connection
        .query_row(sql, [digest], ContentRow::from_row)
        .optional()
        .map_err(doing("find content"))
}

pub(crate) fn has_blob(connection: &Connection, digest: &str) -> Result<bool, Error> {
    Ok(content(connection, digest)?.is_some())
}

pub(crate) fn blobs(connection: &Connection) -> Result<Vec<String>, Error> {
    strings(connection, "SELECT digest FROM contents", []).map_err(doing("list blobs"))
}

pub(crate) fn all_contents(connection: &Connection) -> Result<Vec<ContentRow>, Error> {
    let list = || -> rusqlite::Result<Vec<ContentRow>> {
        connection
            .prepare_cached("SELECT digest, media_type, size_bytes FROM contents")?
            .query_map([], ContentRow::from_row)?
            .collect()
    };
    list().map_err(doing("list content"))
}

/// All content that `digest` needs and that is here, itself first. Neither its subject nor its referrers.
pub(crate) fn contents_of(connection: &Connection, digest: &str) -> Result<Vec<ContentRow>, Error> {
    let list = || -> rusqlite::Result<Vec<ContentRow>> {
        connection
            .prepare_cached(
                "WITH RECURSIVE needed (digest) AS (
                    VALUES (?)
                    UNION SELECT child FROM links JOIN needed ON parent = digest WHERE kind != 'subject'
                ) SELECT digest, media_type, size_bytes FROM needed JOIN contents USING (digest)",
            )?
            .query_map([digest], ContentRow::from_row)?
            .collect()
    };
    list().map_err(doing("list content"))
}

/// All content that is here for an image: what its manifest needs, and the index that it was chosen from; signatures.
pub(crate) fn contents_of_image(connection: &Connection, id: &str) -> Result<Vec<ContentRow>, Error> {
    let list = || -> rusqlite::Result<Vec<ContentRow>> {
        connection
            .prepare_cached(
                "WITH RECURSIVE needed (digest) AS (
                    SELECT manifest_digest FROM images WHERE id = ?1
                    UNION SELECT target_digest FROM images WHERE id = ?1
                    UNION SELECT target_digest FROM names WHERE image_id = ?1
                    UNION SELECT digest FROM image_contents WHERE image_id = ?1
                    UNION SELECT child FROM links JOIN needed ON parent = digest WHERE kind != 'subject'
                ) SELECT digest, media_type, size_bytes FROM needed JOIN contents USING (digest)",
            )?
            .query_map([id], ContentRow::from_row)?
            .collect()
    };
    list().map_err(doing("list content"))
}

/// Whether all that `digest` needs is here, but for what registries do not have either.
pub(crate) fn is_complete(connection: &Connection, digest: &str) -> Result<bool, Error> {
    let sql = "WITH RECURSIVE needed (digest) AS (
            VALUES (?)
            UNION SELECT child FROM links JOIN needed ON parent = digest WHERE kind NOT IN ('subject', 'foreign')
        ) SELECT NOT EXISTS (SELECT 1 FROM needed WHERE digest NOT IN (SELECT digest FROM contents))";
    connection
        .query_row(sql, [digest], |row| row.get(0))
        .map_err(doing("look for content"))
}

/// The manifests that a target has for an image: itself, or entries of an index. An artifact's id is its manifest's.
pub(crate) fn manifests_of(
    connection: &Connection,
    target: &str,
    image_id: &str,
) -> Result<Vec<String>, Error> {
    let sql = "WITH RECURSIVE below (digest) AS (
            VALUES (?1)
            UNION SELECT child FROM links JOIN below ON parent = digest WHERE kind = 'manifest'
        ) SELECT DISTINCT parent FROM links JOIN below ON parent = digest
        WHERE parent = ?2 OR (kind = 'config' AND child = ?2)";
    strings(connection, sql, [target, image_id]).map_err(doing("look for manifests"))
}

/// What no name and no image needs any more.
pub(crate) struct Garbage {
    /// By chainID, with folder numbers.
    pub(crate) layers: Vec<(String, u64)>,
    /// By digest.
    pub(crate) blobs: Vec<String>,
    /// Bytes of both together, as far as they are known.
    pub(crate) bytes: u64,
}

/// Delete the rows of layers and content that nothing needs, and leases that have run out.
pub(crate) fn collect_garbage(transaction: &Transaction<'_>) -> Result<Garbage, Error> {
    let collect = || -> rusqlite::Result<_> {
        let mut bytes = 0i64;
        let layers = transaction
            .prepare_cached(
                "DELETE FROM layers WHERE NOT EXISTS
                    (SELECT 1 FROM image_layers WHERE image_layers.chain_id = layers.chain_id)
                    RETURNING chain_id, number, coalesce(unpacked_bytes, 0)",
            )?
            .query_map([], |row| {
                bytes += row.get::<_, i64>(2)?;
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        // A referrer stays as long as its subject, which it does not keep.
        let blobs = transaction
            .prepare_cached(
                "WITH RECURSIVE needed (digest) AS (
                    SELECT target_digest FROM names
                    UNION SELECT target_digest FROM images
                    UNION SELECT manifest_digest FROM images
                    UNION SELECT digest FROM image_contents
                    UNION SELECT child FROM links JOIN needed ON parent = digest WHERE kind != 'subject'
                    UNION SELECT parent FROM links JOIN needed ON child = digest WHERE kind = 'subject'
                ) DELETE FROM contents WHERE digest NOT IN needed RETURNING digest, size_bytes",
            )?
            .query_map([], |row| {
                bytes += row.get::<_, i64>(1)?;
                row.get(0)
            })?
            .collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(Garbage {
            layers,
            blobs,
            bytes: bytes.cast_unsigned(),
        })
    };
    collect().map_err(doing("collect garbage"))
}

/// How much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Images and artifacts.
    pub images: u64,
    /// Compressed blobs.
    pub content_bytes: u64,
    /// Unpacked layers, as far as their sizes are on record.
    pub layers_bytes: u64,
}

pub(crate) fn stored(connection: &Connection) -> Result<Stored, Error> {
    let sums = "SELECT (SELECT count(*) FROM images), (SELECT coalesce(sum(size_bytes), 0) FROM contents),
        (SELECT coalesce(sum(unpacked_bytes), 0) FROM layers)";
    let ask = || -> rusqlite::Result<Stored> {
        connection.prepare_cached(sums)?.query_row([], |row| {
            Ok(Stored {
                images: row.get::<_, i64>(0)?.cast_unsigned(),
                content_bytes: row.get::<_, i64>(1)?.cast_unsigned(),
                layers_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })
    };
    ask().map_err(doing("sum up what is kept"))
}
