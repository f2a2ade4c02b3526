//! Ports of containers.

use proto::v1;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublishedPort {
    host_address: String,
    host_port: u32,
    container_port: u32,
    protocol: String,
}

impl From<&v1::PublishedPort> for PublishedPort {
    fn from(port: &v1::PublishedPort) -> Self {
        Self {
            host_address: port.host_address.clone(),
            host_port: port.host_port,
            container_port: port.container_port,
            protocol: port.protocol.clone(),
        }
    }
}

/// What was asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ports {
    publish: Vec<Publish>,
    publish_all: bool,
    expose: Vec<Range>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Publish {
    host_address: String,
    host: Option<Range>,
    container: Option<Range>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Range {
    first: u32,
    last: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    protocol: String,
}

impl From<&v1::PortRange> for Range {
    fn from(range: &v1::PortRange) -> Self {
        Self {
            first: range.first,
            last: range.last,
            protocol: range.protocol.clone(),
        }
    }
}

impl From<&v1::Ports> for Ports {
    fn from(ports: &v1::Ports) -> Self {
        let publish = |publish: &v1::PublishRange| Publish {
            host_address: publish.host_address.clone(),
            host: publish.host.as_ref().map(Range::from),
            container: publish.container.as_ref().map(Range::from),
        };
        Self {
            publish: ports.publish.iter().map(publish).collect(),
            publish_all: ports.publish_all,
            expose: ports.expose.iter().map(Range::from).collect(),
        }
    }
}
