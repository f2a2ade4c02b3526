//! Containers and addresses as rows. Each function is one step inside a transaction of the owner thread.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::{Subnet, volumes};
use crate::Error;
use crate::container::{Container, Exit, State};
use crate::request::CreateRequest;
use crate::restart::Next;
use crate::run::By;
use crate::volumes::own_mounts;

/// All containers, oldest first.
pub(super) fn load(connection: &Connection) -> Result<Vec<Container>, Error> {
    let read = Error::database("read the containers");
    let query = || -> Result<Vec<Container>, rusqlite::Error> {
        connection
            .prepare(
                "SELECT id, name, image_id, request, command, stop_signal, created_ns, state, runs, pid, started_ns,
                        exit_code, exit_ns, oom_killed, error, restarting, restarts, stopped_by_hand,
                        update_pending, address, slot, mounts
                 FROM containers LEFT JOIN addresses ON container = id ORDER BY created_ns",
            )?
            .query_map([], container)?
            .collect()
    };
    query().map_err(read)
}

fn container(row: &Row<'_>) -> Result<Container, rusqlite::Error> {
    let exit = match (
        row.get::<_, Option<u32>>("exit_code")?,
        row.get::<_, Option<i64>>("exit_ns")?,
    ) {
        (Some(code), Some(at_unix_nanos)) => Some(Exit {
            code,
            at_unix_nanos,
            oom_killed: row.get::<_, Option<bool>>("oom_killed")?.unwrap_or(false),
        }),
        _ => None,
    };
    let request = json(row, "request")?;
    let mounts = match row.get::<_, Option<String>>("mounts")? {
        Some(_) => json(row, "mounts")?,
        None => own_mounts(&request),
    };
    Ok(Container {
        id: row.get("id")?,
        name: row.get("name")?,
        image_id: row.get("image_id")?,
        request: Arc::new(request),
        mounts,
        command: json(row, "command")?,
        stop_signal: row.get("stop_signal")?,
        state: match row.get::<_, String>("state")?.as_str() {
            "running" => State::Running,
            "exited" if row.get("restarting")? => State::Restarting,
            "exited" => State::Exited,
            _ => State::Created,
        },
        pid: row.get("pid")?,
        runs: row.get::<_, i64>("runs")?.unsigned_abs(),
        exit,
        created_unix_nanos: row.get("created_ns")?,
        started_unix_nanos: row.get("started_ns")?,
        address: row.get::<_, Option<u32>>("address")?.map(Ipv4Addr::from),
        bridge_slot: row.get::<_, Option<u32>>("slot")?.unwrap_or(0),
        ports: Vec::new(),
        error: row.get("error")?,
        restarts: row.get::<_, i64>("restarts")?.unsigned_abs(),
        stopped_by_hand: row.get("stopped_by_hand")?,
        update_pending: row.get("update_pending")?,
        health: None,
    })
}

pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: &str,
) -> Result<T, rusqlite::Error> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

pub(super) fn insert(connection: &Connection, container: &Container) -> Result<(), Error> {
    let inserted = connection.execute(
        "INSERT INTO containers (id, name, image_id, request, command, stop_signal, created_ns, mounts, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'created')",
        params![
            container.id,
            container.name,
            container.image_id,
            text(&*container.request)?,
            text(&container.command)?,
            container.stop_signal,
            container.created_unix_nanos,
            text(&container.mounts)?,
        ],
    );
    named(connection, "insert a container", &container.name, inserted)?;
    volumes::insert_of(connection, container)
}

/// A value as JSON.
pub(super) fn text(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Database {
        what: "write a record",
        why: error.to_string(),
    })
}

/// What it is asked to be, and whether a running container has yet to become that.
pub(super) fn updated(
    connection: &Connection,
    id: &str,
    request: &CreateRequest,
    pending: bool,
) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE containers SET request = ?2, update_pending = ?3 WHERE id = ?1",
            params![id, text(request)?, pending],
        )
        .map_err(Error::database("record an update"))?;
    Ok(())
}

pub(super) fn rename(connection: &Connection, id: &str, name: &str) -> Result<(), Error> {
    let renamed = connection.execute("UPDATE containers SET name = ?2 WHERE id = ?1", [id, name]);
    named(connection, "rename a container", name, renamed)
}

/// The result of a statement that gives a container a name.
fn named(
    connection: &Connection,
    what: &'static str,
    name: &str,
    result: Result<usize, rusqlite::Error>,
) -> Result<(), Error> {
    match result {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == ErrorCode::ConstraintViolation => {
            Err(name_taken(connection, name))
        }
        Err(error) => Err(Error::database(what)(error)),
    }
}

fn name_taken(connection: &Connection, name: &str) -> Error {
    let holder = connection
        .query_row("SELECT id FROM containers WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional();
    match holder {
        Ok(Some(holder)) => Error::NameTaken {
            name: name.to_owned(),
            holder,
        },
        Ok(None) => Error::Database {
            what: "insert a container",
            why: "its id is taken".to_owned(),
        },
        Err(error) => Error::database("look who has a name")(error),
    }
}

/// Give the lowest free address of `subnet` to the container, whose link has the number `slot`; none of `leaving`, which are
/// in use though no row has them.
pub(super) fn allocate(
    connection: &Connection,
    id: &str,
    subnet: Subnet,
    slot: u32,
    leaving: &BTreeSet<u32>,
) -> Result<Ipv4Addr, Error> {
    let taken = || -> Result<Vec<u32>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT address FROM addresses ORDER BY address")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    let mut taken = taken().map_err(Error::database("read the addresses"))?;
    if !leaving.is_empty() {
        taken.extend(leaving);
        taken.sort_unstable();
        taken.dedup();
    }
    let address = lowest_free(subnet, &taken)
        .ok_or_else(|| Error::NoAddress(format!("{}/{}", subnet.gateway, subnet.prefix)))?;
    connection
        .execute(
            "INSERT INTO addresses (address, container, slot) VALUES (?1, ?2, ?3)",
            params![u32::from(address), id, slot],
        )
        .map_err(Error::database("take an address"))?;
    Ok(address)
}

/// Give a container's address up.
pub(super) fn give_up(connection: &Connection, id: &str) -> Result<(), Error> {
    connection
        .execute("DELETE FROM addresses WHERE container = ?1", [id])
        .map_err(Error::database("give an address up"))?;
    Ok(())
}

/// The lowest address of the subnet that is neither its first, its last, the gateway, nor in `taken` (sorted).
fn lowest_free(subnet: Subnet, taken: &[u32]) -> Option<Ipv4Addr> {
    let gateway = u32::from(subnet.gateway);
    let host_bits = 32u32.checked_sub(u32::from(subnet.prefix))?;
    let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
    let (network, broadcast) = (gateway & mask, gateway | !mask);
    let first = network.checked_add(1)?;
    let mut taken = taken
        .iter()
        .copied()
        .skip_while(|&address| address < first)
        .peekable();
    (first..broadcast)
        .find(|&address| {
            let used = taken.next_if_eq(&address).is_some();
            !used && address != gateway
        })
        .map(Ipv4Addr::from)
}

pub(super) fn started(
    connection: &Connection,
    id: &str,
    pid: u32,
    at_unix_nanos: i64,
    by: By,
) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE containers SET state = 'running', pid = ?2, started_ns = ?3, runs = runs + 1, error = '',
                 restarting = 0, stopped_by_hand = 0, update_pending = 0,
                  restarts = CASE WHEN ?4 THEN restarts ELSE 0 END
             WHERE id = ?1",
            params![id, pid, at_unix_nanos, by == By::Policy],
        )
        .map_err(Error::database("record a start"))?;
    Ok(())
}

pub(super) fn start_failed(connection: &Connection, id: &str, error: &str) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE containers SET error = ?2 WHERE id = ?1",
            params![id, error],
        )
        .map_err(Error::database("record a failed start"))?;
    Ok(())
}

pub(super) fn exited(
    connection: &Connection,
    id: &str,
    exit: Exit,
    error: &str,
    next: Next,
) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE containers
             SET state = 'exited', pid = 0, exit_code = ?2, exit_ns = ?3, oom_killed = ?4, error = ?5
             WHERE id = ?1",
            params![id, exit.code, exit.at_unix_nanos, exit.oom_killed, error],
        )
        .map_err(Error::database("record an exit"))?;
    followed(connection, id, next)
}

/// Somebody has asked the run of now to end, if it is number `run`.
pub(super) fn ended_by_hand(connection: &Connection, id: &str, run: u64) -> Result<(), Error> {
    connection
        .execute(
            "UPDATE containers SET stopped_by_hand = 1 WHERE id = ?1 AND runs = ?2 AND state = 'running'",
            params![id, i64::try_from(run).unwrap_or(i64::MAX)],
        )
        .map_err(Error::database("record a kill"))?;
    Ok(())
}

/// What follows the last end.
pub(super) fn followed(connection: &Connection, id: &str, next: Next) -> Result<(), Error> {
    let by_hand = next == Next::Rest { by_hand: true };
    connection
        .execute(
            "UPDATE containers SET restarting = ?2, restarts = restarts + ?2, stopped_by_hand = ?3 WHERE id = ?1",
            params![id, next == Next::Restart, by_hand],
        )
        .map_err(Error::database("record what follows an end"))?;
    Ok(())
}

/// Forget a container, and with `volumes` begin the removal of its anonymous volumes.
pub(super) fn delete(connection: &Connection, id: &str, volumes: bool) -> Result<(), Error> {
    if volumes {
        volumes::mark_of(connection, id)?;
    }
    connection
        .execute("DELETE FROM containers WHERE id = ?1", [id])
        .map_err(Error::database("delete a container"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(prefix: u8) -> Subnet {
        Subnet {
            gateway: Ipv4Addr::new(172, 30, 0, 1),
            prefix,
        }
    }

    fn number(last: u8) -> u32 {
        u32::from(Ipv4Addr::new(172, 30, 0, last))
    }

    #[test]
    fn the_lowest_free_address_fills_gaps_and_skips_the_gateway() {
        assert_eq!(lowest_free(subnet(16), &[]), Some(Ipv4Addr::new(172, 30, 0, 2)));
        assert_eq!(
            lowest_free(subnet(16), &[number(2), number(4)]),
            Some(Ipv4Addr::new(172, 30, 0, 3))
        );
        assert_eq!(
            lowest_free(subnet(16), &[number(2), number(3)]),
            Some(Ipv4Addr::new(172, 30, 0, 4))
        );
        // Addresses of an earlier configuration of the bridge do not disturb.
        assert_eq!(
            lowest_free(subnet(16), &[1, number(2)]),
            Some(Ipv4Addr::new(172, 30, 0, 3))
        );
    }

    #[test]
    fn a_full_subnet_has_no_address() {
        assert_eq!(lowest_free(subnet(30), &[number(2)]), None);
        assert_eq!(lowest_free(subnet(32), &[]), None);
        assert_eq!(lowest_free(subnet(31), &[]), None);
    }
}
