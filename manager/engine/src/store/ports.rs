//! Published ports as rows: those of the containers that are on record as running.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use network::PublishedPort;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use crate::Error;
use crate::container::Container;

/// Give `containers` the ports that they have.
pub(super) fn load(connection: &Connection, containers: &mut [Container]) -> Result<(), Error> {
    let query = || -> Result<Vec<(String, PublishedPort)>, rusqlite::Error> {
        connection
            .prepare("SELECT container, host_address, host_port, protocol, container_port FROM ports")?
            .query_map([], port)?
            .collect()
    };
    let mut ports: HashMap<String, Vec<PublishedPort>> = HashMap::new();
    for (container, port) in query().map_err(Error::database("read the ports"))? {
        ports.entry(container).or_default().push(port);
    }
    for container in containers {
        container.ports = ports.remove(&container.id).unwrap_or_default();
    }
    Ok(())
}

fn port(row: &Row<'_>) -> Result<(String, PublishedPort), rusqlite::Error> {
    let protocol: String = row.get("protocol")?;
    let port = PublishedPort {
        host_address: Ipv4Addr::from(row.get::<_, u32>("host_address")?),
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
    let insert = || -> Result<(), rusqlite::Error> {
        let mut statement = connection.prepare_cached(
            "INSERT OR REPLACE INTO ports (container, host_address, host_port, protocol, container_port)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for port in ports {
            statement.execute(params![
                id,
                u32::from(port.host_address),
                port.host_port,
                port.protocol.name(),
                port.container_port,
            ])?;
        }
        Ok(())
    };
    insert().map_err(Error::database("record ports"))
}

pub(super) fn delete(connection: &Connection, id: &str) -> Result<(), Error> {
    connection
        .execute("DELETE FROM ports WHERE container = ?1", [id])
        .map_err(Error::database("delete ports"))?;
    Ok(())
}
