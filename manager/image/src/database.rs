//! The metadata: which content is here, what images are made of, what names point to, and who needs them.
//!
//! ```text
//! names ──► contents (an index, a manifest, an artifact) ──links──► contents (manifests, configs, layers)
//!   └─────► images ──► layers (unpacked)            repositories: which registries have it
//!              ▲
//!           leases (containers and clients)
//! ```
//! One connection, so one writer. Every function here is one statement, or part of a caller's transaction; files are
//! dealt with by [`crate::store`], which calls these in the order that keeps rows from ever naming files that are not
//! durable.

mod contents;
mod images;
mod layers;
mod leases;
mod schema;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::Error;

pub use contents::Stored;
pub(crate) use contents::*;
pub(crate) use images::*;
pub(crate) use layers::*;
pub(crate) use leases::*;

/// Give an `SQLite` error the action it came from.
pub(crate) fn doing(action: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Database { action, source }
}

/// Open or create the database of the store at `root`, for this connection alone, and bring it to the newest version.
/// As nobody else has it, the journal's index is in memory (<https://www.sqlite.org/wal.html#noshm>): a mapped file of it
/// would end the process by a signal on some full disks.
pub(crate) fn open(root: &Path) -> Result<Connection, Error> {
    let path = root.join("images.db");
    let mut connection = Connection::open(&path).map_err(doing("open"))?;
    connection
        .busy_timeout(Duration::from_secs(10))
        .map_err(doing("open"))?;
    connection
        .execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;",
        )
        .map_err(doing("set up"))?;
    schema::migrate(&mut connection, root)?;
    Ok(connection)
}

/// A transaction that holds the write lock from its start.
pub(crate) fn write(connection: &mut Connection) -> Result<Transaction<'_>, Error> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(doing("begin"))
}

/// Do `work`, whose commits need not be on disk when it returns: they outlive this process, and are on disk with the next
/// commit that is to be. For what the next start does anyhow when it is lost. Of a database with a write-ahead log
/// (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
///
/// # Errors
/// Those of `work`, and when the connection can't be told.
pub fn without_waiting_for_the_disk<T>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    let done = work();
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    done
}

/// Is this how `SQLite` says that the disk is full? For its shared memory it only says that the call failed.
pub fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        error.code == rusqlite::ErrorCode::DiskFull
            || error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE
    })
}

/// What is wrong with the database itself; nothing in one that is well.
pub(crate) fn faults(connection: &Connection) -> Result<Vec<String>, Error> {
    let mut faults = strings(connection, "PRAGMA integrity_check", []).map_err(doing("check"))?;
    faults.retain(|line| line != "ok");
    let sql = "SELECT 'row ' || coalesce(rowid, '?') || ' of ' || \"table\" || ' names a row of ' || parent || ' that is not there'
        FROM pragma_foreign_key_check";
    faults.extend(strings(connection, sql, []).map_err(doing("check"))?);
    Ok(faults)
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
