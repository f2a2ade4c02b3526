//! The metadata: which images are here, what they are made of, and which containers need them.
//!
//! One connection, so one writer. Every function here is one statement or one transaction; files are dealt with by
//! [`crate::store`], which calls these in the order that keeps rows from ever naming files that are not durable.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::Error;

/// One script a version; the database's `user_version` says how many have run. Never edit one that was released.
const MIGRATIONS: [&str; 1] = [r"
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        manifest_digest TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        config_json TEXT NOT NULL
    ) STRICT;
    CREATE TABLE names (
        name TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        target_digest TEXT NOT NULL, -- what the registry had under the name: a manifest or an index
        platform TEXT NOT NULL       -- what was chosen of an index
    ) STRICT;
    CREATE INDEX names_image ON names (image_id);
    CREATE TABLE layers (
        chain_id TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE -- its folder
    ) STRICT;
    CREATE TABLE image_layers (
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,   -- 0 is the base
        chain_id TEXT NOT NULL REFERENCES layers (chain_id),
        PRIMARY KEY (image_id, position)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX image_layers_chain ON image_layers (chain_id);
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY
    ) STRICT;
    CREATE TABLE image_blobs (
        image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        digest TEXT NOT NULL REFERENCES blobs (digest),
        PRIMARY KEY (image_id, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX image_blobs_digest ON image_blobs (digest);
    CREATE TABLE leases (
        container_id TEXT PRIMARY KEY,
        image_id TEXT NOT NULL REFERENCES images (id)
    ) STRICT;
    CREATE INDEX leases_image ON leases (image_id);
"];

/// Give an `SQLite` error the action it came from.
pub(crate) fn doing(action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Database { action, source }
}

/// An image as stored.
#[derive(Clone)]
pub(crate) struct ImageRow {
    pub(crate) id: String,
    pub(crate) manifest_digest: String,
    pub(crate) size_bytes: u64,
    pub(crate) config_json: String,
    pub(crate) names: Vec<String>,
}

/// Where a name pointed when it was last pulled.
pub(crate) struct NameRow {
    pub(crate) image_id: String,
    pub(crate) target_digest: String,
    pub(crate) platform: String,
}

/// Open or create the database and bring it to the newest version.
pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    let mut connection = Connection::open(path).map_err(doing("open"))?;
    connection
        .busy_timeout(Duration::from_secs(10))
        .map_err(doing("open"))?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
        .map_err(doing("set up"))?;
    let version: usize = connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map_err(doing("read the version of"))?
        .try_into()
        .unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        let rule = format!(
            "it was written by a newer program (version {version}, this one knows {})",
            MIGRATIONS.len()
        );
        return Err(Error::Store {
            path: path.to_owned(),
            rule,
        });
    }
    for (number, script) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction().map_err(doing("migrate"))?;
        transaction.execute_batch(script).map_err(doing("migrate"))?;
        transaction
            .pragma_update(None, "user_version", number as i64 + 1)
            .map_err(doing("migrate"))?;
        transaction.commit().map_err(doing("migrate"))?;
    }
    Ok(connection)
}

/// A transaction that holds the write lock from its start.
pub(crate) fn write(connection: &mut Connection) -> Result<Transaction<'_>, Error> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(doing("begin"))
}

fn strings(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(sql)?
        .query_map(parameters, |row| row.get(0))?
        .collect()
}

pub(crate) fn images(connection: &Connection) -> Result<Vec<ImageRow>, Error> {
    let ids = strings(connection, "SELECT id FROM images ORDER BY id", []).map_err(doing("list images"))?;
    let rows: Result<Vec<_>, _> = ids.iter().map(|id| image(connection, id)).collect();
    Ok(rows?.into_iter().flatten().collect())
}

pub(crate) fn image(connection: &Connection, id: &str) -> Result<Option<ImageRow>, Error> {
    let sql = "SELECT id, manifest_digest, size_bytes, config_json FROM images WHERE id = ?";
    let row = connection
        .query_row(sql, [id], |row| {
            Ok(ImageRow {
                id: row.get(0)?,
                manifest_digest: row.get(1)?,
                size_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                config_json: row.get(3)?,
                names: Vec::new(),
            })
        })
        .optional()
        .map_err(doing("read an image"))?;
    let Some(mut row) = row else { return Ok(None) };
    row.names = names_of(connection, id)?;
    Ok(Some(row))
}

pub(crate) fn names_of(connection: &Connection, id: &str) -> Result<Vec<String>, Error> {
    strings(
        connection,
        "SELECT name FROM names WHERE image_id = ? ORDER BY name",
        [id],
    )
    .map_err(doing("read names"))
}

pub(crate) fn name(connection: &Connection, name: &str) -> Result<Option<NameRow>, Error> {
    let sql = "SELECT image_id, target_digest, platform FROM names WHERE name = ?";
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

/// At most two ids that begin with `prefix`, which has only hexadecimal digits and the algorithm's name.
pub(crate) fn ids_with_prefix(connection: &Connection, prefix: &str) -> Result<Vec<String>, Error> {
    strings(
        connection,
        "SELECT id FROM images WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2",
        [prefix],
    )
    .map_err(doing("find an image"))
}

/// The image that was pulled by this manifest or index under any name.
pub(crate) fn id_by_manifest(connection: &Connection, digest: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT id FROM images WHERE manifest_digest = ?1
        UNION SELECT image_id FROM names WHERE target_digest = ?1 LIMIT 1";
    connection
        .query_row(sql, [digest], |row| row.get(0))
        .optional()
        .map_err(doing("find an image"))
}

/// Store an image and point `name` to it, if it has one. Layers base first, as chainID and folder number.
pub(crate) fn insert_image(
    transaction: &Transaction<'_>,
    row: &ImageRow,
    name: Option<&(String, NameRow)>,
    layers: &[(String, u64)],
    blobs: &[String],
) -> Result<(), Error> {
    let insert = || -> rusqlite::Result<()> {
        transaction.execute(
            "INSERT INTO images (id, manifest_digest, size_bytes, config_json) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (id) DO UPDATE SET manifest_digest = ?2, size_bytes = ?3",
            params![
                row.id,
                row.manifest_digest,
                row.size_bytes.cast_signed(),
                row.config_json
            ],
        )?;
        for (position, (chain_id, number)) in layers.iter().enumerate() {
            transaction.execute(
                "INSERT INTO layers (chain_id, number) VALUES (?1, ?2)
                    ON CONFLICT (chain_id) DO UPDATE SET number = ?2",
                params![chain_id, number.cast_signed()],
            )?;
            transaction.execute(
                "INSERT OR IGNORE INTO image_layers (image_id, position, chain_id) VALUES (?1, ?2, ?3)",
                params![row.id, position as i64, chain_id],
            )?;
        }
        for digest in blobs {
            transaction.execute("INSERT OR IGNORE INTO blobs (digest) VALUES (?)", [digest])?;
            transaction.execute(
                "INSERT OR IGNORE INTO image_blobs (image_id, digest) VALUES (?1, ?2)",
                params![row.id, digest],
            )?;
        }
        if let Some((name, target)) = name {
            transaction.execute(
                "INSERT INTO names (name, image_id, target_digest, platform) VALUES (?1, ?2, ?3, ?4)
                    ON CONFLICT (name) DO UPDATE SET image_id = ?2, target_digest = ?3, platform = ?4",
                params![name, row.id, target.target_digest, target.platform],
            )?;
        }
        Ok(())
    };
    insert().map_err(doing("store an image"))
}

pub(crate) fn delete_name(transaction: &Transaction<'_>, name: &str) -> Result<(), Error> {
    transaction
        .execute("DELETE FROM names WHERE name = ?", [name])
        .map(|_| ())
        .map_err(doing("remove a name"))
}

pub(crate) fn delete_image(transaction: &Transaction<'_>, id: &str) -> Result<(), Error> {
    transaction
        .execute("DELETE FROM images WHERE id = ?", [id])
        .map(|_| ())
        .map_err(doing("remove an image"))
}

/// What no image has any more.
pub(crate) struct Garbage {
    /// By chainID, with folder numbers.
    pub(crate) layers: Vec<(String, u64)>,
    /// By digest.
    pub(crate) blobs: Vec<String>,
}

/// Delete the rows of layers and blobs that no image has.
pub(crate) fn collect_garbage(transaction: &Transaction<'_>) -> Result<Garbage, Error> {
    let collect = || -> rusqlite::Result<_> {
        let layers = transaction
            .prepare(
                "DELETE FROM layers WHERE NOT EXISTS
                    (SELECT 1 FROM image_layers WHERE image_layers.chain_id = layers.chain_id)
                    RETURNING chain_id, number",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let blobs = strings(
            transaction,
            "DELETE FROM blobs WHERE NOT EXISTS
                (SELECT 1 FROM image_blobs WHERE image_blobs.digest = blobs.digest) RETURNING digest",
            [],
        )?;
        Ok(Garbage { layers, blobs })
    };
    collect().map_err(doing("collect garbage"))
}

pub(crate) fn layer_number(connection: &Connection, chain_id: &str) -> Result<Option<u64>, Error> {
    connection
        .query_row(
            "SELECT number FROM layers WHERE chain_id = ?",
            [chain_id],
            |row| row.get::<_, i64>(0),
        )
        .optional()
        .map(|number| number.map(i64::cast_unsigned))
        .map_err(doing("find a layer"))
}

/// Folder numbers of all layers.
pub(crate) fn layer_numbers(connection: &Connection) -> Result<Vec<u64>, Error> {
    let list = || -> rusqlite::Result<Vec<u64>> {
        connection
            .prepare_cached("SELECT number FROM layers")?
            .query_map([], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?
            .collect()
    };
    list().map_err(doing("list layers"))
}

pub(crate) fn has_blob(connection: &Connection, digest: &str) -> Result<bool, Error> {
    connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?)",
            [digest],
            |row| row.get(0),
        )
        .map_err(doing("find a blob"))
}

pub(crate) fn blobs(connection: &Connection) -> Result<Vec<String>, Error> {
    strings(connection, "SELECT digest FROM blobs", []).map_err(doing("list blobs"))
}

/// Folder numbers of an image's layers, base first.
pub(crate) fn image_layer_numbers(connection: &Connection, id: &str) -> Result<Vec<u64>, Error> {
    let list = || -> rusqlite::Result<Vec<u64>> {
        connection
            .prepare_cached(
                "SELECT layers.number FROM image_layers JOIN layers USING (chain_id)
                    WHERE image_id = ? ORDER BY position",
            )?
            .query_map([id], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))?
            .collect()
    };
    list().map_err(doing("list an image's layers"))
}

/// Some container that needs this image.
pub(crate) fn user_of(connection: &Connection, image_id: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT container_id FROM leases WHERE image_id = ? ORDER BY container_id LIMIT 1";
    connection
        .query_row(sql, [image_id], |row| row.get(0))
        .optional()
        .map_err(doing("read leases"))
}

pub(crate) fn leases(connection: &Connection) -> Result<Vec<String>, Error> {
    strings(
        connection,
        "SELECT container_id FROM leases ORDER BY container_id",
        [],
    )
    .map_err(doing("list leases"))
}

/// The image that a container holds a lease on.
pub(crate) fn lease(connection: &Connection, container_id: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT image_id FROM leases WHERE container_id = ?";
    connection
        .query_row(sql, [container_id], |row| row.get(0))
        .optional()
        .map_err(doing("read a lease"))
}

pub(crate) fn insert_lease(connection: &Connection, container_id: &str, image_id: &str) -> Result<(), Error> {
    connection
        .execute(
            "INSERT INTO leases (container_id, image_id) VALUES (?1, ?2)",
            [container_id, image_id],
        )
        .map(|_| ())
        .map_err(doing("take a lease"))
}

pub(crate) fn delete_lease(connection: &Connection, container_id: &str) -> Result<(), Error> {
    connection
        .execute("DELETE FROM leases WHERE container_id = ?", [container_id])
        .map(|_| ())
        .map_err(doing("give back a lease"))
}
