//! Unpacked layers, by chainID.

use rusqlite::{Connection, OptionalExtension, params};

use super::doing;
use crate::Error;

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerRow {
    pub(crate) chain_id: String,
    /// Of its folder.
    pub(crate) number: u64,
    /// Of its files' content; unknown if it was unpacked before that was recorded.
    pub(crate) unpacked_bytes: Option<u64>,
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

fn rows(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<LayerRow>> {
    connection
        .prepare_cached(sql)?
        .query_map(parameters, |row| {
            Ok(LayerRow {
                chain_id: row.get(0)?,
                number: row.get::<_, i64>(1)?.cast_unsigned(),
                unpacked_bytes: row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned),
            })
        })?
        .collect()
}

pub(crate) fn layers(connection: &Connection) -> Result<Vec<LayerRow>, Error> {
    rows(
        connection,
        "SELECT chain_id, number, unpacked_bytes FROM layers",
        [],
    )
    .map_err(doing("list layers"))
}

/// Folder numbers of all layers.
pub(crate) fn layer_numbers(connection: &Connection) -> Result<Vec<u64>, Error> {
    Ok(layers(connection)?.iter().map(|layer| layer.number).collect())
}

/// An image's layers, base first.
pub(crate) fn image_layers(connection: &Connection, id: &str) -> Result<Vec<LayerRow>, Error> {
    let sql = "SELECT chain_id, number, unpacked_bytes FROM image_layers JOIN layers USING (chain_id)
        WHERE image_id = ? ORDER BY position";
    rows(connection, sql, [id]).map_err(doing("list an image's layers"))
}

/// Folder numbers of an image's layers, base first.
pub(crate) fn image_layer_numbers(connection: &Connection, id: &str) -> Result<Vec<u64>, Error> {
    Ok(image_layers(connection, id)?
        .iter()
        .map(|layer| layer.number)
        .collect())
}

/// Record the size of a layer that was unpacked when sizes were not recorded.
pub(crate) fn set_unpacked_bytes(connection: &Connection, chain_id: &str, bytes: u64) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE layers SET unpacked_bytes = ?2 WHERE chain_id = ?1",
            params![chain_id, bytes.cast_signed()],
        )
        .map(|_| ())
        .map_err(doing("record the size of a layer"))
}
