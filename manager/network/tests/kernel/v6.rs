//! Bridges with IPv6 besides: what passes and what does not, and what the host is told to do for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use network::{Bridge, Bridge6, Endpoint, Error, Protocol, PublishedPort, Publisher, Target, Target6};

use crate::namespace::{Namespace, host_with_bridge, id};
use crate::traffic::{FIRST, SECOND, outside_of, talk};

const PUBLISHER: Publisher<'static> = Publisher { owner: "0123" };
const PATIENCE: Duration = Duration::from_mins(1);
const DROPPED: Duration = Duration::from_secs(2);

fn six(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn bridge6() -> Bridge {
    Bridge {
        v6: Some(Bridge6 {
            gateway: six("fd00:be::1"),
            prefix: 64,
        }),
        ..Bridge::default()
    }
}

fn host_with_bridge6() -> (Namespace, Bridge) {
    let (host, bridge) = (Namespace::new(), bridge6());
    host.command("ip link set lo up");
    host.run(|| bridge.ensure()).unwrap();
    (host, bridge)
}

/// As `traffic::outside_of`, with IPv6 on the link between them: the host is `2001:db8::1`.
fn outside6_of(host: &Namespace) -> Namespace {
    let outside = outside_of(host);
    host.command("ip address add 2001:db8::1/64 dev uplink nodad");
    outside.command("ip address add 2001:db8::2/64 dev eth0 nodad");
    outside
}

fn attach(host: &Namespace, bridge: &Bridge, number: u32, to: &Namespace) -> Result<(), Error> {
    let (address, address6) = [(FIRST, "fd00:be::2"), (SECOND, "fd00:be::3")][number as usize - 1];
    let (id, address6) = (id(number), six(address6));
    host.run(|| {
        bridge.attach(&Endpoint {
            address6: Some(address6),
            default_route6: true,
            ..Endpoint::only(&id, address, to.fd())
        })
    })
}

fn setting(namespace: &Namespace, link: &str, setting: &str) -> String {
    let text = namespace.command(&format!("cat /proc/sys/net/ipv6/conf/{link}/{setting}"));
    text.trim().to_owned()
}

fn addresses(namespace: &Namespace, link: &str) -> Vec<String> {
    let found = namespace.json(&format!("ip -j -6 address show dev {link}"));
    let infos = found[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let text =
        |info: &serde_json::Value| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]);
    infos.iter().map(text).collect()
}

#[test]
fn containers_reach_the_host_each_other_and_the_outside_as_the_host() {
    let (host, bridge) = host_with_bridge6();
    let (outside, first, second) = (outside6_of(&host), Namespace::new(), Namespace::new());
    attach(&host, &bridge, 1, &first).unwrap();
    attach(&host, &bridge, 2, &second).unwrap();
    let (one, two) = (six("fd00:be::2"), six("fd00:be::3"));
    assert_eq!(talk(&first, &host, six("fd00:be::1")).unwrap(), one);
    assert_eq!(talk(&host, &first, one).unwrap(), six("fd00:be::1"));
    assert_eq!(talk(&first, &second, two).unwrap(), one);
    assert_eq!(talk(&first, &second, SECOND).unwrap(), FIRST);
    assert_eq!(
        talk(&first, &first, Ipv6Addr::LOCALHOST).unwrap(),
        Ipv6Addr::LOCALHOST
    );
    assert_eq!(
        talk(&first, &outside, six("2001:db8::2")).unwrap(),
        six("2001:db8::1")
    );
    // All that was there stays as it is.
    let before = (host.rules(), addresses(&host, "berth0"));
    host.run(|| bridge.ensure()).unwrap();
    assert_eq!((host.rules(), addresses(&host, "berth0")), before);
    assert_eq!(
        before.1,
        ["fd00:be::1/64", "fe80::1/64"],
        "no address that nobody gave it"
    );
    host.run(|| bridge.remove()).unwrap();
    assert_eq!(host.rules(), "");
}

#[test]
fn nobody_outside_begins_to_talk_to_a_container() {
    let (host, bridge) = host_with_bridge6();
    let (outside, container) = (outside6_of(&host), Namespace::new());
    attach(&host, &bridge, 1, &container).unwrap();
    outside.command("ip route add fd00:be::/64 via 2001:db8::1");
    assert!(talk(&container, &outside, six("2001:db8::2")).is_ok());
    let listener = container.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap());
    let address = SocketAddr::from((six("fd00:be::2"), listener.local_addr().unwrap().port()));
    let refused = outside.run(|| TcpStream::connect_timeout(&address, DROPPED));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
    host.command("nft flush chain inet berth berth0-forward");
    outside
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))
        .unwrap();
}

#[test]
fn nothing_leaves_or_enters_an_internal_one() {
    let host = Namespace::new();
    let bridge = Bridge {
        internal: true,
        ..bridge6()
    };
    host.run(|| bridge.ensure()).unwrap();
    assert_eq!(
        setting(&host, "all", "forwarding"),
        "0",
        "nothing is to be forwarded"
    );
    host.command("sysctl -q net.ipv6.conf.all.forwarding=1");
    let (outside, first, second) = (outside6_of(&host), Namespace::new(), Namespace::new());
    attach(&host, &bridge, 1, &first).unwrap();
    attach(&host, &bridge, 2, &second).unwrap();
    assert!(talk(&first, &second, six("fd00:be::3")).is_ok());
    assert_eq!(
        first
            .json("ip -j -6 route show default")
            .as_array()
            .unwrap()
            .len(),
        0
    );
    first.command("ip -6 route add default via fd00:be::1");
    outside.command("ip route add fd00:be::/64 via 2001:db8::1");
    let server = outside.run(|| TcpListener::bind((six("2001:db8::2"), 0)).unwrap());
    let to = server.local_addr().unwrap();
    let refused = first.run(|| TcpStream::connect_timeout(&to, DROPPED));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

/// A host that forwards is a router to the kernel, which would not hear any more of the routers that it has its address of.
#[test]
fn the_host_goes_on_listening_to_its_routers_and_to_no_container() {
    let host = Namespace::new();
    host.add_link("uplink");
    host.add_link("deaf");
    host.command("sysctl -q net.ipv6.conf.uplink.accept_ra=1 net.ipv6.conf.deaf.accept_ra=0");
    let bridge = bridge6();
    host.run(|| bridge.ensure()).unwrap();
    assert_eq!(setting(&host, "all", "forwarding"), "1");
    assert_eq!(setting(&host, "uplink", "accept_ra"), "2");
    assert_eq!(setting(&host, "deaf", "accept_ra"), "0");
    let container = Namespace::new();
    attach(&host, &bridge, 1, &container).unwrap();
    for (namespace, link) in [(&host, "berth0"), (&container, "eth0")] {
        assert_eq!(setting(namespace, link, "accept_ra"), "0", "{link}");
        assert_eq!(setting(namespace, link, "autoconf"), "0", "{link}");
    }
}

#[test]
fn a_bridge_without_ipv6_changes_nothing_of_it() {
    let (host, bridge) = host_with_bridge();
    assert_eq!(setting(&host, "all", "forwarding"), "0");
    assert_eq!(setting(&host, "berth0", "disable_ipv6"), "1");
    assert!(!host.rules().contains("ip6"), "{}", host.rules());
    let refused = attach(&host, &bridge, 1, &Namespace::new())
        .unwrap_err()
        .to_string();
    assert!(refused.contains("bridge berth0 has no IPv6"), "{refused}");
}

#[test]
fn subnets_and_addresses_that_cannot_be_are_refused() {
    let host = Namespace::new();
    host.add_link("uplink");
    host.command("ip address add fd00:be::1:0:0:1/80 dev uplink nodad");
    let refused = host.run(|| bridge6().ensure()).unwrap_err().to_string();
    assert!(
        refused.contains("subnet fd00:be::/64") && refused.contains("fd00:be::1:0:0:1/80"),
        "{refused}"
    );
    assert!(
        !host.links().contains(&"berth0".to_owned()),
        "it is taken away again"
    );
    let free = host.run(|| {
        let candidates = [
            (six("fd00:be::"), 64),
            (six("fd00:be:0:1::"), 64),
            (six("fd00:be:0:2::"), 64),
        ];
        Bridge::free_subnet6(candidates, &[(six("fd00:be:0:1::"), 64)])
    });
    assert_eq!(free.unwrap(), Some((six("fd00:be:0:2::"), 64)));

    let (host, bridge) = host_with_bridge6();
    let container = Namespace::new();
    for address in ["fd00:be::1", "fd00:be::", "fd00:bf::2"] {
        let endpoint = Endpoint {
            address6: Some(six(address)),
            ..Endpoint::only("a", FIRST, container.fd())
        };
        let refused = host.run(|| bridge.attach(&endpoint)).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("address {address}:")), "{refused}");
    }
}

fn port(host_address: &str, host_port: u16, protocol: Protocol) -> PublishedPort {
    PublishedPort {
        host_address: host_address.parse().unwrap(),
        host_port,
        protocol,
        container_port: 80,
    }
}

fn target<'a>(container_id: &'a str, ports: &'a [PublishedPort]) -> Target<'a> {
    Target {
        container_id,
        link_id: container_id,
        address: FIRST,
        v6: Some(Target6 {
            link_id: container_id,
            address: six("fd00:be::2"),
        }),
        ports,
    }
}

#[test]
fn a_port_is_reached_by_ipv6_from_outside_from_the_host_and_from_containers() {
    let (host, bridge) = host_with_bridge6();
    let (outside, first, second) = (outside6_of(&host), Namespace::new(), Namespace::new());
    attach(&host, &bridge, 1, &first).unwrap();
    attach(&host, &bridge, 2, &second).unwrap();
    let published = id(1);
    let ports = [
        port("0.0.0.0", 8080, Protocol::Tcp),
        port("::", 8080, Protocol::Tcp),
        port("2001:db8::1", 9090, Protocol::Tcp),
    ];
    let target = target(&published, &ports);
    host.run(|| PUBLISHER.publish(&target)).unwrap();
    let server = first.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap());
    let reach = |from: &Namespace, to: &str, port| -> io::Result<IpAddr> {
        let to = SocketAddr::new(to.parse().unwrap(), port);
        let _client = from.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        Ok(server.accept()?.1.ip().to_canonical())
    };
    let gateway = IpAddr::from(six("fd00:be::1"));
    assert_eq!(reach(&outside, "2001:db8::1", 8080).unwrap(), six("2001:db8::2"));
    assert_eq!(reach(&outside, "2001:db8::1", 9090).unwrap(), six("2001:db8::2"));
    assert_eq!(
        reach(&outside, "192.0.2.1", 8080).unwrap(),
        Ipv4Addr::new(192, 0, 2, 2)
    );
    assert_eq!(reach(&host, "fd00:be::1", 8080).unwrap(), gateway);
    assert_eq!(reach(&second, "2001:db8::1", 8080).unwrap(), gateway, "a sibling");
    assert_eq!(
        reach(&first, "2001:db8::1", 8080).unwrap(),
        gateway,
        "the container itself"
    );
    // Who asks for localhost goes on to the next address at once.
    let refused = reach(&host, "::1", 8080).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(reach(&host, "127.0.0.1", 8080).is_ok());
    assert!(
        reach(&host, "fd00:be::1", 9090).is_err(),
        "published on another address"
    );

    let clash = [port("::", 8080, Protocol::Tcp)];
    let other = id(2);
    let refused = host.run(|| {
        PUBLISHER.publish(&Target {
            container_id: &other,
            ports: &clash,
            v6: Some(Target6 {
                link_id: &other,
                address: six("fd00:be::3"),
            }),
            ..target
        })
    });
    assert!(
        matches!(&refused, Err(Error::PortTaken { port, .. }) if port == "[::]:8080/tcp"),
        "{refused:?}"
    );

    // Somebody flushes the host's rules.
    host.command("nft flush ruleset");
    host.run(|| {
        bridge.ensure().unwrap();
        PUBLISHER.restore(&[target]).unwrap();
    });
    assert!(reach(&outside, "2001:db8::1", 8080).is_ok());
    host.run(|| PUBLISHER.restore(&[])).unwrap();
    assert!(reach(&outside, "2001:db8::1", 8080).is_err());
    host.run(|| PUBLISHER.withdraw(&target)).unwrap();
}

#[test]
fn datagrams_reach_whoever_has_the_port_now() {
    let (host, bridge) = host_with_bridge6();
    let (outside, first) = (outside6_of(&host), Namespace::new());
    attach(&host, &bridge, 1, &first).unwrap();
    let one = id(1);
    let ports = [port("::", 53, Protocol::Udp)];
    let client = outside.run(|| UdpSocket::bind((six("2001:db8::2"), 0)).unwrap());
    let server = |namespace: &Namespace, port| {
        let socket = namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let (of_host, inside) = (server(&host, 53), server(&first, 80));
    let arrives = |server: &UdpSocket, text: &str| {
        client.send_to(text.as_bytes(), (six("2001:db8::1"), 53)).unwrap();
        let mut buffer = [0; 32];
        let length = server
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(&buffer[..length], text.as_bytes());
    };
    arrives(&of_host, "to the host");
    let target = target(&one, &ports);
    host.run(|| PUBLISHER.publish(&target)).unwrap();
    arrives(&inside, "to the container");
    host.run(|| PUBLISHER.withdraw(&target)).unwrap();
    arrives(&of_host, "to the host again");
}
