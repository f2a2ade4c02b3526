//! Networks as rows, and which containers are on them with which address. Each function is one step inside a transaction
//! of the owner thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::leaving::Leaving;
use super::rows::{json, text};
use crate::Error;
use crate::networks::{Joined, Joining, UserNetwork, place};

/// All networks.
pub(super) fn all(connection: &Connection) -> Result<Vec<UserNetwork>, Error> {
    let query = || -> Result<Vec<UserNetwork>, rusqlite::Error> {
        connection
            .prepare("SELECT settings FROM networks")?
            .query_map([], |row| json(row, "settings"))?
            .collect()
    };
    query().map_err(Error::database("read the networks"))
}

/// All places on networks, by container and slot.
pub(super) fn joined(connection: &Connection) -> Result<BTreeMap<String, Vec<Joined>>, Error> {
    let query = || -> Result<Vec<(String, Joined)>, rusqlite::Error> {
        connection
            .prepare(
                "SELECT container, network, address, address6, slot, wanted FROM endpoints ORDER BY container, slot",
            )?
            .query_map([], |row| {
                let joined = Joined {
                    network: row.get("network")?,
                    address: Ipv4Addr::from(row.get::<_, u32>("address")?),
                    address6: row.get::<_, Option<[u8; 16]>>("address6")?.map(Ipv6Addr::from),
                    slot: row.get("slot")?,
                    wanted: json(row, "wanted")?,
                };
                Ok((row.get("container")?, joined))
            })?
            .collect()
    };
    let mut all: BTreeMap<String, Vec<Joined>> = BTreeMap::new();
    for (container, joined) in query().map_err(Error::database("read the endpoints"))? {
        all.entry(container).or_default().push(joined);
    }
    Ok(all)
}

pub(super) fn insert(connection: &Connection, network: &UserNetwork) -> Result<(), Error> {
    let inserted = connection.execute(
        "INSERT INTO networks (id, name, settings) VALUES (?1, ?2, ?3)",
        params![network.id, network.name, text(network)?],
    );
    match inserted {
        Ok(_) => Ok(()),
        Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == ErrorCode::ConstraintViolation => {
            Err(Error::NetworkExists(network.name.clone()))
        }
        Err(error) => Err(Error::database("insert a network")(error)),
    }
}

/// Forget a network that no container is on.
pub(super) fn delete(connection: &Connection, id: &str) -> Result<(), Error> {
    let users = || -> Result<Vec<String>, rusqlite::Error> {
        connection
            .prepare("SELECT name FROM endpoints JOIN containers ON container = containers.id WHERE network = ?1 ORDER BY name")?
            .query_map([id], |row| row.get(0))?
            .collect()
    };
    let containers = users().map_err(Error::database("read a network's endpoints"))?;
    let network: Option<String> = connection
        .query_row("SELECT name FROM networks WHERE id = ?1", [id], |row| row.get(0))
        .optional()
        .map_err(Error::database("read a network"))?;
    let network = network.ok_or_else(|| Error::NoSuchNetwork(id.to_owned()))?;
    if !containers.is_empty() {
        return Err(Error::NetworkInUse { network, containers });
    }
    connection
        .execute("DELETE FROM networks WHERE id = ?1", [id])
        .map_err(Error::database("delete a network"))?;
    Ok(())
}

/// Put a container on a network, with the address it wants or a free one; addresses of `leaving` are in use though no
/// row has them.
pub(super) fn join(
    connection: &Connection,
    container: &str,
    network: &UserNetwork,
    wanted: &Joining,
    leaving: Leaving,
) -> Result<Joined, Error> {
    let is_there: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM networks WHERE id = ?1)",
            [&network.id],
            |row| row.get(0),
        )
        .map_err(Error::database("read a network"))?;
    if !is_there {
        return Err(Error::NoSuchNetwork(network.name.clone()));
    }
    let numbers = |query: &str, key: &str| -> Result<BTreeSet<u32>, Error> {
        let read = || -> Result<BTreeSet<u32>, rusqlite::Error> {
            connection
                .prepare_cached(query)?
                .query_map([key], |row| row.get(0))?
                .collect()
        };
        read().map_err(Error::database("read the endpoints"))
    };
    let mut taken = numbers("SELECT address FROM endpoints WHERE network = ?1", &network.id)?;
    taken.extend(leaving.v4);
    let address = network.choose(wanted.address, &taken)?;
    let mut taken6 = match network.v6 {
        Some(_) => taken6(connection, &network.id)?,
        None => BTreeSet::new(),
    };
    taken6.extend(leaving.v6);
    check_link_local(connection, network, wanted)?;
    let joined = Joined {
        network: network.id.clone(),
        address,
        address6: network.choose6(wanted.address6, address, &taken6)?,
        slot: wanted.slot(&links(connection, container)?)?,
        wanted: wanted.clone(),
    };
    let inserted = connection.execute(
        "INSERT INTO endpoints (container, network, address, slot, wanted, address6)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            container,
            network.id,
            u32::from(joined.address),
            joined.slot,
            text(wanted)?,
            joined.address6.map(|address| address.octets()),
        ],
    );
    match inserted {
        Ok(_) => Ok(joined),
        Err(rusqlite::Error::SqliteFailure(failure, _)) if failure.code == ErrorCode::ConstraintViolation => {
            let rule = format!("the container is on network {} already", network.name);
            Err(Error::invalid("network", rule))
        }
        Err(error) => Err(Error::database("take a place on a network")(error)),
    }
}

/// Addresses that are valid on a link alone are given by their users: no two on a network may have the same.
fn check_link_local(connection: &Connection, network: &UserNetwork, wanted: &Joining) -> Result<(), Error> {
    if wanted.link_local.is_empty() {
        return Ok(());
    }
    let read = || -> Result<Vec<Joining>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT wanted FROM endpoints WHERE network = ?1")?
            .query_map([&network.id], |row| json(row, "wanted"))?
            .collect()
    };
    let others = read().map_err(Error::database("read the endpoints"))?;
    let mut taken = others.iter().flat_map(|other| &other.link_local);
    match taken.find(|address| wanted.link_local.contains(address)) {
        Some(address) => {
            let rule = format!("{address}: address already in use on network {}", network.name);
            Err(Error::invalid("link-local-ip", rule))
        }
        None => Ok(()),
    }
}

/// The links that a container has, by number.
fn links(connection: &Connection, container: &str) -> Result<Vec<(u32, String)>, Error> {
    let read = || -> Result<Vec<(u32, String)>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT slot, wanted FROM endpoints WHERE container = ?1")?
            .query_map([container], |row| {
                let slot = row.get("slot")?;
                Ok((slot, place::inside(&json(row, "wanted")?, slot)))
            })?
            .collect()
    };
    let mut links = read().map_err(Error::database("read the endpoints"))?;
    let on_bridge: Option<u32> = connection
        .prepare_cached("SELECT slot FROM addresses WHERE container = ?1")
        .and_then(|mut query| query.query_row([container], |row| row.get(0)).optional())
        .map_err(Error::database("read the addresses"))?;
    links.extend(on_bridge.map(|slot| (slot, place::numbered(slot))));
    Ok(links)
}

/// The number of a link that comes to those that a container has.
pub(super) fn next_slot(connection: &Connection, container: &str) -> Result<u32, Error> {
    Joining::default().slot(&links(connection, container)?)
}

fn taken6(connection: &Connection, network: &str) -> Result<BTreeSet<u128>, Error> {
    let read = || -> Result<BTreeSet<u128>, rusqlite::Error> {
        connection
            .prepare_cached("SELECT address6 FROM endpoints WHERE network = ?1 AND address6 IS NOT NULL")?
            .query_map([network], |row| {
                row.get::<_, [u8; 16]>(0).map(u128::from_be_bytes)
            })?
            .collect()
    };
    read().map_err(Error::database("read the endpoints"))
}

pub(super) fn leave(connection: &Connection, container: &str, network: &str) -> Result<(), Error> {
    connection
        .execute(
            "DELETE FROM endpoints WHERE container = ?1 AND network = ?2",
            [container, network],
        )
        .map_err(Error::database("give a place on a network up"))?;
    Ok(())
}
