//! Which ports of a container the host has: as it was asked for, and what that comes to with the image's.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use network::Protocol;
use serde::{Deserialize, Serialize};

use super::Network;
use crate::Error;

/// One container's ports on the host: each is an entry of the kernel's map and a row of the database.
const PORTS_MAX: usize = 16_384;

/// Ports that are published or could be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// Those that are asked for by number.
    pub publish: Vec<Publish>,
    /// Publish those that the image or `expose` names, too, each on a port that is free.
    pub publish_all: bool,
    /// Besides those that the image names.
    pub expose: Vec<PortRange>,
}

/// Ports of a container on ports of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// `0.0.0.0` or `::`: all of that family; None: all, of the families in which the container is reached.
    pub host_address: Option<IpAddr>,
    /// As many as the container's, or for one of the container some of which one is taken; None: any.
    pub host: Option<(u16, u16)>,
    /// The container's.
    pub container: PortRange,
}

/// Ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// From 1.
    pub first: u16,
    /// Not less than the first.
    pub last: u16,
    /// Their protocol.
    pub protocol: Protocol,
}

/// One port of a container that is to get one port of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) host_address: Option<IpAddr>,
    /// One of them; None: any.
    pub(crate) host: Option<RangeInclusive<u16>>,
    pub(crate) protocol: Protocol,
    pub(crate) container_port: u16,
}

impl Ports {
    /// Check what can be checked without the image.
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |rule: String| Err(Error::invalid("ports", rule));
        for publish in &self.publish {
            publish.container.check()?;
            let Some((first, last)) = publish.host else {
                continue;
            };
            if first == 0 || first > last {
                return refuse(format!("{first}-{last} is not a range of ports of the host"));
            }
            let (host, container) = (usize::from(last - first) + 1, publish.container.len());
            if container != 1 && host != container {
                return refuse(format!(
                    "{first}-{last} of the host are {host} ports, and {} of the container {container}",
                    publish.container
                ));
            }
        }
        for exposed in &self.expose {
            exposed.check()?;
        }
        let ranges = self.publish.iter().map(|publish| publish.container);
        let count: usize = ranges
            .chain(self.expose.iter().copied())
            .map(PortRange::len)
            .sum();
        if count > PORTS_MAX {
            return refuse(format!(
                "{count} are more than the {PORTS_MAX} that a container can have"
            ));
        }
        Ok(())
    }

    /// What is told of ports that nobody will reach.
    pub(crate) fn warning(&self, network: Network) -> Option<String> {
        if matches!(network, Network::Bridge | Network::User)
            || (self.publish.is_empty() && !self.publish_all)
        {
            return None;
        }
        Some(format!(
            "Published ports are discarded when using {} network mode",
            network.name()
        ))
    }

    /// All that it listens at, as far as anybody has said so.
    pub(crate) fn exposed(&self, of_image: &[String]) -> Result<BTreeSet<(u16, Protocol)>, Error> {
        let of_image = of_image.iter().map(|text| PortRange::parse(text));
        let published = self.publish.iter().map(|publish| Ok(publish.container));
        let asked = self.expose.iter().map(|range| Ok(*range));
        let mut ports = BTreeSet::new();
        for range in of_image.chain(published).chain(asked) {
            let range: PortRange = range?;
            ports.extend((range.first..=range.last).map(|port| (port, range.protocol)));
        }
        Ok(ports)
    }

    /// Each port that is to be published; the image names `exposed`, as `80/tcp`.
    pub(crate) fn wanted(&self, exposed: &[String]) -> Result<Vec<Wanted>, Error> {
        let mut wanted: Vec<Wanted> = self.publish.iter().flat_map(Publish::each).collect();
        if !self.publish_all {
            return Ok(wanted);
        }
        let mut published: BTreeSet<_> = wanted
            .iter()
            .map(|wanted| (wanted.container_port, wanted.protocol))
            .collect();
        let of_image = exposed.iter().map(|text| PortRange::parse(text));
        let exposed = of_image.chain(self.expose.iter().map(|range| Ok(*range)));
        for range in exposed.collect::<Result<Vec<_>, Error>>()? {
            let any = Publish {
                host_address: None,
                host: None,
                container: range,
            };
            wanted.extend(
                any.each()
                    .filter(|one| published.insert((one.container_port, one.protocol))),
            );
        }
        if wanted.len() > PORTS_MAX {
            return Err(Error::invalid(
                "ports",
                format!("the image's and those asked for are more than {PORTS_MAX}"),
            ));
        }
        Ok(wanted)
    }
}

impl Publish {
    fn each(&self) -> impl Iterator<Item = Wanted> + use<> {
        let (publish, container) = (*self, self.container);
        (container.first..=container.last).map(move |container_port| Wanted {
            host_address: publish.host_address,
            host: publish.host.map(|(first, last)| {
                if container.len() == 1 {
                    first..=last
                } else {
                    let port = first + (container_port - container.first);
                    port..=port
                }
            }),
            protocol: container.protocol,
            container_port,
        })
    }
}

impl PortRange {
    fn check(self) -> Result<(), Error> {
        if self.first == 0 || self.first > self.last {
            return Err(Error::invalid(
                "ports",
                format!("{self} is not a range of ports of a container"),
            ));
        }
        Ok(())
    }

    fn len(self) -> usize {
        usize::from(self.last.saturating_sub(self.first)) + 1
    }

    /// Read what an image says: `80`, `80/tcp`, `8000-8010/udp`.
    fn parse(text: &str) -> Result<PortRange, Error> {
        let malformed = || {
            Error::invalid(
                "ports",
                format!("the image exposes {text:?}, which is not a port, as 80/tcp"),
            )
        };
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse().map_err(|_| malformed());
        let range = PortRange {
            first: number(first)?,
            last: number(last)?,
            protocol: protocol.to_ascii_lowercase().parse().map_err(|_| malformed())?,
        };
        range.check().map_err(|_| malformed())?;
        Ok(range)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}/{}", self.first, self.protocol)
        } else {
            write!(f, "{}-{}/{}", self.first, self.last, self.protocol)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(host: Option<(u16, u16)>, first: u16, last: u16) -> Ports {
        let container = PortRange {
            first,
            last,
            protocol: Protocol::Tcp,
        };
        Ports {
            publish: vec![Publish {
                host_address: None,
                host,
                container,
            }],
            ..Ports::default()
        }
    }

    fn hosts(ports: &Ports) -> Vec<Option<RangeInclusive<u16>>> {
        let wanted = ports.wanted(&[]).unwrap();
        wanted.into_iter().map(|wanted| wanted.host).collect()
    }

    #[test]
    fn a_range_of_the_host_goes_one_by_one_or_is_a_choice() {
        let each = publish(Some((8000, 8001)), 80, 81);
        assert_eq!(hosts(&each), [Some(8000..=8000), Some(8001..=8001)]);
        assert_eq!(hosts(&publish(Some((8000, 8001)), 80, 80)), [Some(8000..=8001)]);
        assert_eq!(hosts(&publish(None, 80, 81)), [None, None]);
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        for (host, first, last) in [
            (None, 0, 0),
            (None, 81, 80),
            (Some((0, 0)), 80, 80),
            (Some((9, 8)), 80, 80),
            (Some((8000, 8002)), 80, 81),
            (None, 1, 65535),
        ] {
            publish(host, first, last).check().unwrap_err();
        }
        publish(None, 1, 1000).check().unwrap();
    }

    #[test]
    fn what_is_exposed_is_published_once() {
        let mut ports = publish(Some((8080, 8080)), 80, 80);
        let exposed = ["80/tcp".to_owned(), "53/udp".to_owned(), "53".to_owned()];
        assert_eq!(ports.wanted(&exposed).unwrap().len(), 1);
        ports.publish_all = true;
        let wanted = ports.wanted(&exposed).unwrap();
        let shown: Vec<_> = wanted
            .iter()
            .map(|wanted| (wanted.container_port, wanted.protocol, wanted.host.is_some()))
            .collect();
        let expected = [
            (80, Protocol::Tcp, true),
            (53, Protocol::Udp, false),
            (53, Protocol::Tcp, false),
        ];
        assert_eq!(shown, expected);
        for hostile in ["", "0", "65536/tcp", "80/icmp", "9-8", "80/tcp/tcp"] {
            assert!(ports.wanted(&[hostile.to_owned()]).is_err(), "{hostile}");
        }
    }
}
