//! Ports of containers, between the API's messages and the engine's types.

use std::net::IpAddr;

use engine::{Error, PortRange, Ports, Protocol, Publish, PublishedPort};
use proto::v1;

pub(super) fn ports(message: Option<v1::Ports>) -> Result<Ports, Error> {
    let message = message.unwrap_or_default();
    Ok(Ports {
        publish: message
            .publish
            .into_iter()
            .map(publish)
            .collect::<Result<_, _>>()?,
        publish_all: message.publish_all,
        expose: message
            .expose
            .iter()
            .map(|range| read_range(Some(range)))
            .collect::<Result<_, _>>()?,
    })
}

fn publish(message: v1::PublishRange) -> Result<Publish, Error> {
    let host_address = match message.host_address.as_str() {
        "" => None,
        text => {
            let address: IpAddr = text
                .parse()
                .map_err(|_| invalid(format!("{text:?} is not an address of the host")))?;
            Some(address.to_canonical())
        }
    };
    let host = match message.host {
        Some(range) => Some((number(range.first)?, number(range.last)?)),
        None => None,
    };
    Ok(Publish {
        host_address,
        host,
        container: read_range(message.container.as_ref())?,
    })
}

fn read_range(message: Option<&v1::PortRange>) -> Result<PortRange, Error> {
    let message = message.ok_or_else(|| invalid("no port of the container is named".to_owned()))?;
    let protocol = match message.protocol.as_str() {
        "" => Protocol::Tcp,
        name => name.parse()?,
    };
    Ok(PortRange {
        first: number(message.first)?,
        last: number(message.last)?,
        protocol,
    })
}

fn number(port: u32) -> Result<u16, Error> {
    port.try_into()
        .map_err(|_| invalid(format!("{port} is not a port: they go up to 65535")))
}

fn invalid(rule: String) -> Error {
    Error::Invalid { field: "ports", rule }
}

/// None, if there is nothing to tell.
pub(super) fn message(ports: &Ports) -> Option<v1::Ports> {
    let range = |first: u16, last: u16, protocol: &str| v1::PortRange {
        first: first.into(),
        last: last.into(),
        protocol: protocol.to_owned(),
    };
    let of_container = |ports: &PortRange| range(ports.first, ports.last, ports.protocol.name());
    let publish = |publish: &Publish| v1::PublishRange {
        host_address: publish
            .host_address
            .map(|address| address.to_string())
            .unwrap_or_default(),
        host: publish.host.map(|(first, last)| range(first, last, "")),
        container: Some(of_container(&publish.container)),
    };
    (*ports != Ports::default()).then(|| v1::Ports {
        publish: ports.publish.iter().map(publish).collect(),
        publish_all: ports.publish_all,
        expose: ports.expose.iter().map(of_container).collect(),
    })
}

pub(super) fn published(port: &PublishedPort) -> v1::PublishedPort {
    v1::PublishedPort {
        host_address: port.host_address.to_string(),
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: port.protocol.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32, protocol: &str) -> v1::PortRange {
        v1::PortRange {
            first,
            last,
            protocol: protocol.to_owned(),
        }
    }

    #[test]
    fn ports_come_back_as_they_were_asked_for() {
        let asked = v1::Ports {
            publish: vec![
                v1::PublishRange {
                    host_address: "127.0.0.1".to_owned(),
                    host: Some(range(8000, 8001, "")),
                    container: Some(range(80, 81, "udp")),
                },
                v1::PublishRange {
                    host_address: "0.0.0.0".to_owned(),
                    host: None,
                    container: Some(range(9, 9, "sctp")),
                },
                v1::PublishRange {
                    host_address: "::".to_owned(),
                    host: None,
                    container: Some(range(9, 9, "tcp")),
                },
                v1::PublishRange {
                    host_address: String::new(),
                    host: None,
                    container: Some(range(9, 9, "tcp")),
                },
            ],
            publish_all: true,
            expose: vec![range(1, 65535, "tcp")],
        };
        assert_eq!(message(&ports(Some(asked.clone())).unwrap()), Some(asked));
        assert_eq!(message(&ports(None).unwrap()), None);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (address, container) in [
            ("fe80::1%eth0", Some(range(80, 80, ""))),
            ("", Some(range(65536, 65536, ""))),
            ("", Some(range(80, 80, "icmp"))),
            ("", None),
        ] {
            let publish = v1::PublishRange {
                host_address: address.to_owned(),
                host: None,
                container,
            };
            let asked = v1::Ports {
                publish: vec![publish],
                ..v1::Ports::default()
            };
            assert!(ports(Some(asked.clone())).is_err(), "{asked:?}");
        }
    }
}
