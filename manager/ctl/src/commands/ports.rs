//! `-p` and its like, `port`, and how published ports are shown.

use proto::v1::{InspectContainerRequest, PortRange, Ports, PublishRange, PublishedPort};

use crate::cli::{Port, PortFlags};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::output;

pub(super) async fn port(client: &Client, flags: Port) -> Result<u8> {
    let request = InspectContainerRequest {
        container: flags.container,
        ..InspectContainerRequest::default()
    };
    let reply = client.containers().inspect(request).await;
    let reply = reply.map_err(|status| client.failure(&status))?;
    let container = reply.into_inner().container.unwrap_or_default();
    let host = |port: &PublishedPort| format!("{}:{}", bracketed(&port.host_address), port.host_port);
    let Some(asked) = &flags.port else {
        for port in &container.ports {
            let line = format!("{}/{} -> {}", port.container_port, port.protocol, host(port));
            output::print_line(&line)?;
        }
        return Ok(0);
    };
    let asked = range(asked, &format!("port {asked}"))?;
    let is_asked =
        |port: &&PublishedPort| (port.container_port, &port.protocol) == (asked.first, &asked.protocol);
    let found: Vec<_> = container.ports.iter().filter(is_asked).collect();
    if found.is_empty() {
        return Err(Failure::new(format!(
            "No public port '{}/{}' published for {}",
            asked.first, asked.protocol, container.name
        )));
    }
    for port in found {
        output::print_line(&host(port))?;
    }
    Ok(0)
}

/// An address as it stands before a port.
fn bracketed(address: &str) -> String {
    if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    }
}

/// The ports that the flags ask for, if they ask for any.
pub(super) fn parse(flags: &PortFlags) -> Result<Option<Ports>> {
    let publish = flags.publish.iter().map(|argument| publish(argument));
    let expose = flags
        .expose
        .iter()
        .map(|argument| range(argument, &format!("--expose {argument}")));
    let ports = Ports {
        publish: publish.collect::<Result<_>>()?,
        publish_all: flags.publish_all,
        expose: expose.collect::<Result<_>>()?,
    };
    Ok((ports != Ports::default()).then_some(ports))
}

/// Reads `[[IP:][PORT]:]CONTAINER_PORT[/PROTOCOL]`, in which both ports may be ranges; an address of IPv6 is in
/// brackets.
fn publish(argument: &str) -> Result<PublishRange> {
    let what = format!("-p {argument}");
    let (host, container) = argument.rsplit_once(':').unwrap_or(("", argument));
    let (address, port) = host.rsplit_once(':').unwrap_or(("", host));
    let bracketed = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'));
    if bracketed.is_none() && address.contains(':') {
        return Err(Failure::new(format!("{what}: it has too many colons"))
            .with_hint("an address of IPv6 is written in brackets"));
    }
    if port.contains('/') {
        return Err(Failure::new(format!("{what}: the protocol stands at the end")));
    }
    let host = match port {
        "" => None,
        port => Some(PortRange {
            protocol: String::new(),
            ..range(port, &what)?
        }),
    };
    Ok(PublishRange {
        host_address: bracketed.unwrap_or(address).to_owned(),
        host,
        container: Some(range(container, &what)?),
    })
}

/// Reads `FIRST[-LAST][/PROTOCOL]`.
fn range(text: &str, what: &str) -> Result<PortRange> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(u32::from(port)),
        _ => Err(Failure::new(format!(
            "{what}: {text:?} is not a port, from 1 to 65535"
        ))),
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(Failure::new(format!("{what}: {ports} ends before it begins")));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(Failure::new(format!(
            "{what}: {protocol:?} is not a protocol with ports: tcp, udp or sctp"
        )));
    }
    Ok(PortRange {
        first,
        last,
        protocol,
    })
}

/// In docker's words, with ports that follow each other as a range: `0.0.0.0:8080-8081->80-81/tcp, …`.
pub(super) fn shown(ports: &[PublishedPort]) -> String {
    let mut ports: Vec<_> = ports.iter().collect();
    ports.sort_by_key(|port| {
        (
            &port.host_address,
            &port.protocol,
            port.container_port,
            port.host_port,
        )
    });
    let follows = |before: &&PublishedPort, after: &&PublishedPort| {
        let next = |port: &PublishedPort| (port.container_port + 1, port.host_port + 1);
        (&before.host_address, &before.protocol) == (&after.host_address, &after.protocol)
            && next(before) == (after.container_port, after.host_port)
    };
    let runs = ports
        .chunk_by(follows)
        .filter_map(|run| Some((run.first()?, run.last()?)));
    let shown = runs.map(|(first, last)| {
        let range = |first: u32, last: u32| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        };
        format!(
            "{}:{}->{}/{}",
            bracketed(&first.host_address),
            range(first.host_port, last.host_port),
            range(first.container_port, last.container_port),
            first.protocol
        )
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out in full: address, the host's range, the container's, and the protocol.
    fn full(argument: &str) -> String {
        let publish = publish(argument).unwrap();
        let range = |range: &PortRange| format!("{}-{}", range.first, range.last);
        let container = publish.container.unwrap();
        format!(
            "{} {} {} {}",
            publish.host_address,
            publish.host.as_ref().map(range).unwrap_or_default(),
            range(&container),
            container.protocol
        )
    }

    #[test]
    fn ports_are_written_as_for_docker() {
        for (argument, expected) in [
            ("80", "  80-80 tcp"),
            ("8080:80", " 8080-8080 80-80 tcp"),
            (":80", "  80-80 tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080-8080 80-80 tcp"),
            ("127.0.0.1::80", "127.0.0.1  80-80 tcp"),
            ("8000-8005:80", " 8000-8005 80-80 tcp"),
            ("8000-8005:80-85/UDP", " 8000-8005 80-85 udp"),
            ("[::1]:8080:80", "::1 8080-8080 80-80 tcp"),
        ] {
            assert_eq!(full(argument), expected, "{argument}");
        }
        for argument in [
            "",
            "x",
            "0",
            "65536",
            "80/icmp",
            "9-8",
            "80/tcp:80",
            "::1:80:80",
            "1:2:",
            "80-",
        ] {
            assert!(publish(argument).is_err(), "{argument}");
        }
    }

    #[test]
    fn ports_that_follow_each_other_are_shown_as_a_range() {
        let port = |host_address: &str, host_port, container_port| PublishedPort {
            host_address: host_address.to_owned(),
            host_port,
            container_port,
            protocol: "tcp".to_owned(),
        };
        let ports = [
            port("127.0.0.1", 9000, 90),
            port("0.0.0.0", 8001, 81),
            port("0.0.0.0", 8000, 80),
            port("0.0.0.0", 8003, 82),
            port("::", 8003, 82),
        ];
        assert_eq!(
            shown(&ports),
            "0.0.0.0:8000-8001->80-81/tcp, 0.0.0.0:8003->82/tcp, 127.0.0.1:9000->90/tcp, [::]:8003->82/tcp"
        );
        assert_eq!(shown(&[]), "");
    }
}
