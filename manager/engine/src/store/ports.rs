//! Published ports as rows: those of the containers that are on record as running. Those on addresses of IPv6 have a table
//! of their own.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use network::PublishedPort;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, ToSql, params};

use crate::Error;
use crate::container::Container;

/// Give `containers` the ports that they have.
pub(super) fn load(connection: &Connection, containers: &mut [Container]) -> Result<(), Error> {
    let query = |table: &str, address: fn(&Row<'_>) -> Result<IpAddr, rusqlite::Error>| {
        connection
            .prepare(&format!(
                "SELECT container, host_address, host_port, protocol, container_port FROM {table}"
            ))?
            .query_map([], |row| port(row, address(row)?))?
            .collect::<Result<Vec<_>, rusqlite::Error>>()
    };
    let v4 = query("ports", |row| {
        Ok(Ipv4Addr::from(row.get::<_, u32>("host_address")?).into())
    });
    let v6 = query("ports6", |row| {
        Ok(Ipv6Addr::from(row.get::<_, [u8; 16]>("host_address")?).into())
    });
    let mut ports: HashMap<String, Vec<PublishedPort>> = HashMap::new();
    for found in [v4, v6] {
        for (container, port) in found.map_err(Error::database("read the ports"))? {
            ports.entry(container).or_default().push(port);
        }
    }
    for container in containers {
        container.ports = ports.remove(&container.id).unwrap_or_default();
    }
    Ok(())
}

fn port(row: &Row<'_>, host_address: IpAddr) -> Result<(String, PublishedPort), rusqlite::Error> {
    let protocol: String = row.get("protocol")?;
    let port = PublishedPort {
        host_address,
        host_port: row.get("host_port")?,
        protocol: protocol
            .parse()
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?,
        container_port: row.get("container_port")?,
    };
    Ok((row.get("container")?, port))
}

/// The ports of a run that has begun. A port that is on record as another container's is no longer that one's: its
/// end could not be put on record.
pub(super) fn insert(connection: &Connection, id: &str, ports: &[PublishedPort]) -> Result<(), Error> {
    delete(connection, id)?;
    let insert = |table: &str, address: &dyn ToSql, port: &PublishedPort| {
        let statement = format!(
            "INSERT OR REPLACE INTO {table} (container, host_address, host_port, protocol, container_port)
             VALUES (?1, ?2, ?3, ?4, ?5)"
        );
        connection.prepare_cached(&statement)?.execute(params![
            id,
            address,
            port.host_port,
            port.protocol.name(),
            port.container_port,
        ])
    };
    for port in ports {
        let inserted = match port.host_address {
            IpAddr::V4(address) => insert("ports", &u32::from(address), port),
            IpAddr::V6(address) => insert("ports6", &address.octets(), port),
        };
        inserted.map_err(Error::database("record ports"))?;
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: &str) -> Result<(), Error> {
    for statement in [
        "DELETE FROM ports WHERE container = ?1",
        "DELETE FROM ports6 WHERE container = ?1",
    ] {
        connection
            .execute(statement, [id])
            .map_err(Error::database("delete ports"))?;
    }
    Ok(())
}
