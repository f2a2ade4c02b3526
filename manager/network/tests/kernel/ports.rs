//! Published ports: from where they are reached, from where not, and what becomes of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use network::{Protocol, PublishedPort, Publisher, RulesWatch, Target};

use crate::namespace::{Namespace, host_with_bridge, id};
use crate::traffic::{FIRST, HOST, OUTSIDE, SECOND, outside_of};

const PUBLISHER: Publisher<'static> = Publisher { owner: "0123" };
const PATIENCE: Duration = Duration::from_mins(1);
const DROPPED: Duration = Duration::from_secs(2);

fn port(host_address: Ipv4Addr, host_port: u16) -> PublishedPort {
    PublishedPort {
        host_address: host_address.into(),
        host_port,
        protocol: Protocol::Tcp,
        container_port: 80,
    }
}

fn target<'a>(container_id: &'a str, address: Ipv4Addr, ports: &'a [PublishedPort]) -> Target<'a> {
    Target {
        container_id,
        link_id: container_id,
        address,
        v6: None,
        ports,
    }
}

/// Connects from a namespace to an address, behind which is `server`. Returns whom the server saw.
fn reach(
    from: &Namespace,
    to: (Ipv4Addr, u16),
    server: &TcpListener,
    patience: Duration,
) -> io::Result<Ipv4Addr> {
    let _client = from.run(|| TcpStream::connect_timeout(&SocketAddr::from(to), patience))?;
    match server.accept()?.1 {
        SocketAddr::V4(caller) => Ok(*caller.ip()),
        SocketAddr::V6(caller) => panic!("{caller}"),
    }
}

#[test]
fn a_port_is_reached_from_outside_from_the_host_and_from_containers() {
    let (host, bridge) = host_with_bridge();
    let (outside, first, second) = (outside_of(&host), Namespace::new(), Namespace::new());
    host.command("ip link set lo up");
    host.attach(&bridge, &id(1), FIRST, &first).unwrap();
    host.attach(&bridge, &id(2), SECOND, &second).unwrap();
    let ports = [port(Ipv4Addr::UNSPECIFIED, 8080)];
    let published = id(1);
    let target = target(&published, FIRST, &ports);
    host.run(|| PUBLISHER.publish(&target)).unwrap();
    let server = first.run(|| TcpListener::bind((FIRST, 80)).unwrap());

    let from = |from: &Namespace, to| reach(from, (to, 8080), &server, PATIENCE).unwrap();
    assert_eq!(from(&outside, HOST), OUTSIDE, "the caller's own address");
    assert_eq!(from(&host, HOST), HOST);
    assert_eq!(from(&host, bridge.gateway), bridge.gateway);
    assert_eq!(from(&host, Ipv4Addr::LOCALHOST), bridge.gateway);
    assert_eq!(from(&second, HOST), bridge.gateway, "a sibling");
    assert_eq!(from(&first, HOST), bridge.gateway, "the container itself");
    assert_eq!(from(&first, bridge.gateway), bridge.gateway);

    let shown = host.rules();
    assert!(
        shown.contains("tcp . 8080 comment") && shown.contains("172.30.0.2 . 80"),
        "{shown}"
    );
    host.run(|| PUBLISHER.withdraw(&target)).unwrap();
    host.run(|| PUBLISHER.withdraw(&target)).unwrap();
    let refused = outside.run(|| TcpStream::connect_timeout(&SocketAddr::from((HOST, 8080)), PATIENCE));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_published_on_loopback_is_for_this_machine_alone() {
    let (host, bridge) = host_with_bridge();
    let (outside, container, sibling) = (outside_of(&host), Namespace::new(), Namespace::new());
    host.command("ip link set lo up");
    host.attach(&bridge, &id(1), FIRST, &container).unwrap();
    host.attach(&bridge, &id(2), SECOND, &sibling).unwrap();
    let ports = [port(Ipv4Addr::LOCALHOST, 8080)];
    host.run(|| PUBLISHER.publish(&target(&id(1), FIRST, &ports)))
        .unwrap();
    let server = container.run(|| TcpListener::bind((FIRST, 80)).unwrap());
    reach(&host, (Ipv4Addr::LOCALHOST, 8080), &server, PATIENCE).unwrap();

    // Counted in front of the rule that drops: what is not reached was sent.
    host.command("nft insert rule inet berth ports-raw ip daddr 127.0.0.1 tcp dport 8080 counter");
    // A neighbour on the link, another container and the container itself, each sending to 127.0.0.1 by way of the host.
    let (neighbours, loopback) = ([&outside, &sibling, &container], (Ipv4Addr::LOCALHOST, 8080));
    let mut counted = String::new();
    for (neighbour, gateway) in neighbours.into_iter().zip([HOST, bridge.gateway, bridge.gateway]) {
        neighbour.command("ip link set lo down");
        neighbour.command("ip address flush dev lo");
        neighbour.run(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        });
        neighbour.command(&format!("ip route add 127.0.0.0/8 via {gateway} dev eth0"));
        let reached = reach(neighbour, loopback, &server, DROPPED);
        assert_eq!(reached.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let shown = host.command("nft list chain inet berth ports-raw");
        assert!(shown.contains("counter packets") && shown != counted, "{shown}");
        counted = shown;
    }
    let dropping = host.command("nft list chain inet berth ports-raw");
    assert!(dropping.contains("ip daddr 127.0.0.0/8 drop"), "{dropping}");

    // Without that rule the same packets arrive.
    host.command("nft flush chain inet berth ports-raw");
    reach(&outside, loopback, &server, PATIENCE).unwrap();
}

#[test]
fn an_address_of_the_host_and_udp() {
    let (host, bridge) = host_with_bridge();
    let (outside, container) = (outside_of(&host), Namespace::new());
    host.attach(&bridge, &id(1), FIRST, &container).unwrap();
    let ports = [PublishedPort {
        protocol: Protocol::Udp,
        ..port(HOST, 53)
    }];
    host.run(|| PUBLISHER.publish(&target(&id(1), FIRST, &ports)))
        .unwrap();
    let server = container.run(|| UdpSocket::bind((FIRST, 80)).unwrap());
    let client = outside.run(|| UdpSocket::bind((OUTSIDE, 0)).unwrap());
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client.send_to(b"ask", (HOST, 53)).unwrap();
    let mut buffer = [0; 16];
    let (length, caller) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], caller.ip()), (&b"ask"[..], OUTSIDE.into()));
    server.send_to(b"answer", caller).unwrap();
    let (length, answering) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], answering),
        (&b"answer"[..], (HOST, 53).into())
    );
}

#[test]
fn ports_are_published_all_or_none_and_each_once() {
    let (host, bridge) = host_with_bridge();
    let (one, two) = (id(1), id(2));
    let (first, second) = (Namespace::new(), Namespace::new());
    host.attach(&bridge, &one, FIRST, &first).unwrap();
    host.attach(&bridge, &two, SECOND, &second).unwrap();
    let many: Vec<_> = (1000..3000)
        .map(|number| port(Ipv4Addr::UNSPECIFIED, number))
        .collect();
    host.run(|| PUBLISHER.publish(&target(&one, FIRST, &many)))
        .unwrap();
    let clash = [port(Ipv4Addr::UNSPECIFIED, 80), port(Ipv4Addr::UNSPECIFIED, 2999)];
    let error = host.run(|| PUBLISHER.publish(&target(&two, SECOND, &clash)));
    let error = error.unwrap_err().to_string();
    for told in ["0.0.0.0:2999/tcp", "172.30.0.2:80", &one] {
        assert!(error.contains(told), "{told} is not in {error}");
    }
    assert!(!host.rules().contains(&SECOND.to_string()));
    host.run(|| PUBLISHER.withdraw(&target(&one, FIRST, &many)))
        .unwrap();
    host.run(|| PUBLISHER.publish(&target(&two, SECOND, &clash)))
        .unwrap();
}

#[test]
fn what_others_did_to_the_rules_is_mended() {
    let (host, bridge) = host_with_bridge();
    let (one, two, three) = (id(1), id(2), id(3));
    let containers = [Namespace::new(), Namespace::new(), Namespace::new()];
    for (number, container) in (1..).zip(&containers) {
        let address = Ipv4Addr::from_bits(FIRST.to_bits() + number);
        host.attach(&bridge, &id(number), address, container).unwrap();
    }
    let ports = [port(Ipv4Addr::UNSPECIFIED, 80)];
    let others = [port(Ipv4Addr::UNSPECIFIED, 90)];
    let other = Publisher { owner: "4567" };
    host.run(|| other.publish(&target(&three, FIRST, &others)))
        .unwrap();
    host.run(|| PUBLISHER.publish(&target(&one, FIRST, &ports)))
        .unwrap();
    // Another container has the port now, of which the kernel was not told.
    host.run(|| PUBLISHER.restore(&[target(&two, SECOND, &ports)]))
        .unwrap();
    let shown = host.rules();
    assert!(
        shown.contains("172.30.0.3 . 80") && shown.contains("tcp . 90"),
        "{shown}"
    );
    assert!(!shown.contains(&id(1)), "{shown}");

    host.command("nft flush ruleset");
    host.run(|| PUBLISHER.withdraw(&target(&two, SECOND, &ports)))
        .unwrap();
    let error = host
        .run(|| PUBLISHER.publish(&target(&two, SECOND, &ports)))
        .unwrap_err();
    assert!(error.rules_are_gone(), "{error}");
    host.run(|| bridge.ensure()).unwrap();
    host.run(|| PUBLISHER.restore(&[target(&two, SECOND, &ports)]))
        .unwrap();
    assert!(host.rules().contains("172.30.0.3 . 80"));
}

#[test]
fn a_refused_publish_takes_nothing_from_who_has_the_port() {
    let (host, bridge) = host_with_bridge();
    let (one, two) = (id(1), id(2));
    let (first, second) = (Namespace::new(), Namespace::new());
    host.attach(&bridge, &one, FIRST, &first).unwrap();
    host.attach(&bridge, &two, SECOND, &second).unwrap();
    let ports = [port(Ipv4Addr::UNSPECIFIED, 80)];
    let other = Publisher { owner: "4567" };
    host.run(|| other.publish(&target(&two, SECOND, &ports))).unwrap();
    let before = host.rules();
    let ours = target(&one, FIRST, &ports);
    let error = host.run(|| PUBLISHER.publish(&ours)).unwrap_err();
    assert!(error.to_string().contains("172.30.0.3:80"), "{error}");
    host.run(|| PUBLISHER.withdraw(&ours)).unwrap();
    assert_eq!(host.rules(), before);
}

#[test]
fn a_flush_by_others_is_heard_and_a_port_that_goes_is_not() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    host.attach(&bridge, &id(1), FIRST, &container).unwrap();
    let ports = [port(Ipv4Addr::UNSPECIFIED, 80)];
    let mut watch = host.run(|| RulesWatch::open().unwrap());
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || while watch.wait().is_ok() && tell.send(()).is_ok() {});
    let published = id(1);
    let target = target(&published, FIRST, &ports);
    host.run(|| PUBLISHER.publish(&target)).unwrap();
    host.run(|| PUBLISHER.withdraw(&target)).unwrap();
    host.command("nft add table inet other");
    host.command("nft delete table inet other");
    assert!(heard.recv_timeout(Duration::from_millis(200)).is_err());
    host.command("nft flush chain inet berth ports-raw");
    heard.recv_timeout(PATIENCE).unwrap();
    host.command("nft flush ruleset");
    heard.recv_timeout(PATIENCE).unwrap();
}

/// Who goes on sending from one port has one flow for the kernel, whatever becomes of the other end.
#[test]
fn datagrams_reach_whoever_has_the_port_now() {
    let (host, bridge) = host_with_bridge();
    let (outside, first, second) = (outside_of(&host), Namespace::new(), Namespace::new());
    let (one, two) = (id(1), id(2));
    host.attach(&bridge, &one, FIRST, &first).unwrap();
    host.attach(&bridge, &two, SECOND, &second).unwrap();
    let ports = [PublishedPort {
        protocol: Protocol::Udp,
        ..port(Ipv4Addr::UNSPECIFIED, 53)
    }];
    let client = outside.run(|| UdpSocket::bind((OUTSIDE, 0)).unwrap());
    let server = |namespace: &Namespace, port| {
        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let of_host = server(&host, 53);
    let servers = [server(&first, 80), server(&second, 80)];
    let arrives = |server: &UdpSocket, text: &str| {
        client.send_to(text.as_bytes(), (HOST, 53)).unwrap();
        let mut buffer = [0; 32];
        let length = server
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(&buffer[..length], text.as_bytes());
    };
    arrives(&of_host, "to the host");
    for (id, address, server) in [(&one, FIRST, &servers[0]), (&two, SECOND, &servers[1])] {
        let target = target(id, address, &ports);
        host.run(|| PUBLISHER.publish(&target)).unwrap();
        arrives(server, "to a container");
        host.run(|| PUBLISHER.withdraw(&target)).unwrap();
        arrives(&of_host, "to the host again");
    }
}
