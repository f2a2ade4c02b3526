//! What passes: to the host, to other containers, out by NAT, and not in.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::namespace::{Namespace, host_with_bridge, id};

const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 3);
/// The host's and the outside's addresses on the link between them.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A namespace behind the host which knows no route to the containers.
pub(crate) fn outside_of(host: &Namespace) -> Namespace {
    let outside = Namespace::new();
    host.command(&format!(
        "ip link add uplink type veth peer name eth0 netns {}",
        outside.path()
    ));
    host.command("ip address add 192.0.2.1/24 dev uplink");
    host.command("ip link set uplink up");
    outside.command("ip address add 192.0.2.2/24 dev eth0");
    outside.command("ip link set eth0 up");
    outside
}

/// Sends a line from one namespace to a server in another and back. Returns whom the server saw.
pub(crate) fn talk(
    from: &Namespace,
    to: &Namespace,
    address: impl Into<IpAddr> + Copy + Send,
) -> io::Result<IpAddr> {
    let address = address.into();
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut client = from.run(|| TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE))?;
    let (mut server, peer) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
    }
    client.write_all(b"hello")?;
    let mut hello = [0; 5];
    server.read_exact(&mut hello)?;
    server.write_all(&hello)?;
    client.read_exact(&mut hello)?;
    assert_eq!(&hello, b"hello");
    Ok(peer.ip())
}

#[test]
fn containers_reach_the_host_each_other_and_themselves() {
    let (host, bridge) = host_with_bridge();
    let (first, second) = (Namespace::new(), Namespace::new());
    host.attach(&bridge, &id(1), FIRST, &first).unwrap();
    host.attach(&bridge, &id(2), SECOND, &second).unwrap();
    assert_eq!(talk(&first, &host, bridge.gateway).unwrap(), FIRST);
    assert_eq!(talk(&host, &first, FIRST).unwrap(), bridge.gateway);
    assert_eq!(talk(&first, &second, SECOND).unwrap(), FIRST);
    assert_eq!(
        talk(&first, &first, Ipv4Addr::LOCALHOST).unwrap(),
        Ipv4Addr::LOCALHOST
    );
}

#[test]
fn what_leaves_has_the_hosts_address() {
    let (host, bridge) = host_with_bridge();
    let (outside, container) = (outside_of(&host), Namespace::new());
    host.attach(&bridge, &id(1), FIRST, &container).unwrap();
    assert_eq!(talk(&container, &outside, OUTSIDE).unwrap(), HOST);
    container.command("busybox ping -c 1 -w 60 192.0.2.2");
}

#[test]
fn nobody_outside_begins_to_talk_to_a_container() {
    let (host, bridge) = host_with_bridge();
    let (outside, container) = (outside_of(&host), Namespace::new());
    host.attach(&bridge, &id(1), FIRST, &container).unwrap();
    outside.command("ip route add 172.30.0.0/16 via 192.0.2.1");
    // A neighbour that is answered shows that the way is there, and that only the rule closes it.
    assert_eq!(talk(&container, &outside, OUTSIDE).unwrap(), HOST);

    let listener = container.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    let address = SocketAddr::from((FIRST, listener.local_addr().unwrap().port()));
    let dropped = |host: &Namespace| {
        host.command("nft list chain inet berth berth0-forward")
            .contains("drop")
    };
    assert!(dropped(&host));
    let refused = outside.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(3)));
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::TimedOut);

    host.command("nft flush chain inet berth berth0-forward");
    outside
        .run(|| TcpStream::connect_timeout(&address, PATIENCE))
        .unwrap();
}

#[test]
fn an_address_used_again_is_reached_at_once() {
    let (host, bridge) = host_with_bridge();
    let neighbour = Namespace::new();
    host.attach(&bridge, &id(1), SECOND, &neighbour).unwrap();
    for number in 2..6 {
        let container = Namespace::new();
        host.attach(&bridge, &id(number), FIRST, &container).unwrap();
        assert_eq!(talk(&neighbour, &container, FIRST).unwrap(), SECOND);
        assert_eq!(talk(&host, &container, FIRST).unwrap(), bridge.gateway);
        host.run(|| bridge.detach(&id(number))).unwrap();
    }
}

#[test]
fn a_start_interrupts_no_connection() {
    let (host, bridge) = host_with_bridge();
    let (outside, container) = (outside_of(&host), Namespace::new());
    host.attach(&bridge, &id(1), FIRST, &container).unwrap();
    let listener = outside.run(|| TcpListener::bind((OUTSIDE, 0)).unwrap());
    let mut client = container.run(|| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|_| host.run(|| bridge.ensure()).unwrap()));
        for number in 0..200_u8 {
            client.write_all(&[number]).unwrap();
            let mut read = [0];
            server.read_exact(&mut read).unwrap();
            assert_eq!(read, [number]);
        }
    });
}
