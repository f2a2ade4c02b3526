//! The tables, and how an older database becomes a newer one: one step a version, numbered by `user_version`.

use rusqlite::Connection;

use crate::Error;

/// Step `n` brings a database from version `n` to `n + 1`.
pub(super) const STEPS: [&str; 10] = [
    "
    CREATE TABLE containers (
        id          TEXT PRIMARY KEY,
        name        TEXT NOT NULL UNIQUE,
        image_id    TEXT NOT NULL,
        request     TEXT NOT NULL,              -- CreateRequest as JSON
        command     TEXT NOT NULL,              -- JSON array
        stop_signal INTEGER NOT NULL,
        created_ns  INTEGER NOT NULL,
        state       TEXT NOT NULL CHECK (state IN ('created', 'running', 'exited')),
        runs        INTEGER NOT NULL DEFAULT 0,
        pid         INTEGER NOT NULL DEFAULT 0,
        started_ns  INTEGER NOT NULL DEFAULT 0,
        exit_code   INTEGER,                    -- of the last run that ended
        exit_ns     INTEGER,
        oom_killed  INTEGER,
        error       TEXT NOT NULL DEFAULT ''
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE addresses (
        address     INTEGER PRIMARY KEY,        -- IPv4, as a number
        container   TEXT NOT NULL UNIQUE REFERENCES containers (id) ON DELETE CASCADE
    ) STRICT;
",
    "
    CREATE TABLE root (id TEXT NOT NULL) STRICT;    -- one row
    INSERT INTO root VALUES (lower(hex(randomblob(8))));
",
    "
    CREATE TABLE volumes (
        name        TEXT PRIMARY KEY,
        driver      TEXT NOT NULL,
        labels      TEXT NOT NULL,              -- JSON object
        options     TEXT NOT NULL,              -- JSON object
        anonymous   INTEGER NOT NULL,
        created_ns  INTEGER NOT NULL,
        removed     INTEGER NOT NULL DEFAULT 0  -- only its folder may still be there
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE container_volumes (
        container   TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
        volume      TEXT NOT NULL REFERENCES volumes (name),
        anonymous   INTEGER NOT NULL,           -- it may go with the container
        PRIMARY KEY (container, volume)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX container_volumes_by_volume ON container_volumes (volume);
    ALTER TABLE containers ADD COLUMN mounts TEXT;  -- JSON; of an older manager's containers: none but their binds
",
    "
    ALTER TABLE containers ADD COLUMN restarting      INTEGER NOT NULL DEFAULT 0;  -- ended, to be started by its policy
    ALTER TABLE containers ADD COLUMN restarts        INTEGER NOT NULL DEFAULT 0;  -- by its policy, since a start by hand
    ALTER TABLE containers ADD COLUMN stopped_by_hand INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE containers ADD COLUMN update_pending  INTEGER NOT NULL DEFAULT 0;  -- the request is newer than the run
",
    "
    CREATE TABLE ports (                        -- of containers that run
        protocol       TEXT NOT NULL,
        host_port      INTEGER NOT NULL,
        host_address   INTEGER NOT NULL,        -- IPv4, as a number; 0: all
        container_port INTEGER NOT NULL,
        container      TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
        PRIMARY KEY (protocol, host_port, host_address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX ports_of ON ports (container);
",
    "
    CREATE TABLE networks (                     -- that users made
        id          TEXT PRIMARY KEY,
        name        TEXT NOT NULL UNIQUE,
        settings    TEXT NOT NULL               -- UserNetwork as JSON
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE endpoints (                    -- who is on them
        container   TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
        network     TEXT NOT NULL REFERENCES networks (id),
        address     INTEGER NOT NULL,           -- IPv4, as a number
        slot        INTEGER NOT NULL,           -- the number of its link inside
        wanted      TEXT NOT NULL,              -- Attachment as JSON
        PRIMARY KEY (container, network),
        UNIQUE (network, address)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE volume_mounts (                -- by plugins, for runs of containers; they may outlive both
        volume      TEXT NOT NULL,
        container   TEXT NOT NULL,              -- the ID that the plugin was told
        plugin      TEXT NOT NULL,
        in_doubt    INTEGER NOT NULL,           -- whether it is mounted is not known
        PRIMARY KEY (volume, container)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE endpoints ADD COLUMN address6 BLOB;     -- IPv6, 16 bytes; NULL: none
    CREATE UNIQUE INDEX endpoints_by_address6 ON endpoints (network, address6);
    CREATE TABLE ports6 (                       -- as ports, on addresses of IPv6
        protocol       TEXT NOT NULL,
        host_port      INTEGER NOT NULL,
        host_address   BLOB NOT NULL,           -- 16 bytes; 0: all
        container_port INTEGER NOT NULL,
        container      TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
        PRIMARY KEY (protocol, host_port, host_address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX ports6_of ON ports6 (container);
",
    "
    CREATE TABLE attachments (                  -- by CNI plugins; they may outlive container and network
        container   TEXT NOT NULL,
        network     TEXT NOT NULL,
        attachment  TEXT NOT NULL,              -- as JSON: what plugins are told again to undo it
        PRIMARY KEY (container, network)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE addresses ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;   -- of the link, among those of endpoints
",
];

/// Set the connection up and bring the schema up to date.
///
/// It is locked for this connection alone before the journal is looked at: then the journal's index is in memory
/// (<https://www.sqlite.org/wal.html#noshm>). The file that it would be in is mapped, and on a full disk with blocks
/// smaller than a page a store into it ends the process by a signal.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Error> {
    connection
        .execute_batch(
            "PRAGMA busy_timeout = 5000;
             PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA cache_size = -512;",
        )
        .map_err(Error::database("set the journal mode"))?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(Error::database("read the schema version"))?;
    if found < 0 || found > known {
        return Err(Error::SchemaTooNew { found, known });
    }
    for (version, step) in (0..).zip(STEPS).skip(usize::try_from(found).unwrap_or(0)) {
        let transaction = connection
            .transaction()
            .map_err(Error::database("begin a migration"))?;
        transaction
            .execute_batch(step)
            .map_err(Error::database("migrate the schema"))?;
        transaction
            .pragma_update(None, "user_version", version + 1)
            .map_err(Error::database("set the schema version"))?;
        transaction
            .commit()
            .map_err(Error::database("commit a migration"))?;
    }
    Ok(())
}

/// The id that this root got when its database was made.
pub(super) fn root_id(connection: &Connection) -> Result<String, Error> {
    connection
        .query_row("SELECT id FROM root", [], |row| row.get(0))
        .map_err(Error::database("read the root's id"))
}
