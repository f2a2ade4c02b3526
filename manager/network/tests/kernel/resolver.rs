//! A container's questions for names reach the manager's sockets, whatever else the container does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use network::{RESOLVER_ADDRESS, ResolverSockets};

use crate::namespace::Namespace;

const PATIENCE: Duration = Duration::from_secs(30);
const NAMES: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(RESOLVER_ADDRESS), 53);

fn container() -> Namespace {
    let container = Namespace::new();
    container.command("ip link set lo up");
    container
}

/// Say `word` once to whoever asks by a datagram, and to whoever asks by a connection.
fn answer(sockets: ResolverSockets, word: &'static str) {
    sockets.udp.set_nonblocking(false).unwrap();
    sockets.tcp.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 100];
        let (_, from) = sockets.udp.recv_from(&mut buffer).unwrap();
        sockets.udp.send_to(word.as_bytes(), from).unwrap();
        let (mut stream, _) = sockets.tcp.accept().unwrap();
        stream.write_all(word.as_bytes()).unwrap();
    });
}

/// What is said at port 53, by both protocols. The client hears nobody else.
#[track_caller]
fn ask(container: &Namespace) -> (String, String) {
    container.run(|| {
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(NAMES).unwrap();
        client.send(b"?").unwrap();
        let mut buffer = [0; 100];
        let length = client.recv(&mut buffer).unwrap();
        let datagram = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let mut stream = TcpStream::connect_timeout(&NAMES, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (datagram, text)
    })
}

fn both(word: &str) -> (String, String) {
    (word.to_owned(), word.to_owned())
}

#[test]
fn port_53_is_the_managers_and_the_containers_own() {
    let container = container();
    answer(ResolverSockets::open(container.fd()).unwrap(), "names");
    let own = container.run(|| {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
        (udp, TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap())
    });
    assert_eq!(ask(&container), both("names"));
    // At any other address it is the container's.
    own.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let said = container.run(|| {
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        client.send_to(b"mine", (Ipv4Addr::LOCALHOST, 53)).unwrap();
        let mut buffer = [0; 100];
        let length = own.0.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    assert_eq!(said, b"mine");
}

#[test]
fn sockets_opened_anew_take_the_place_of_those_before() {
    let container = container();
    let first = ResolverSockets::open(container.fd()).unwrap();
    // A manager that was killed has closed its own; here they are still open, and hear nothing any more.
    answer(ResolverSockets::open(container.fd()).unwrap(), "anew");
    assert_eq!(ask(&container), both("anew"));
    let rules = container.rules();
    assert_eq!(rules.matches("dport 53").count(), 2, "{rules}");
    drop(first);
}

#[test]
fn a_containers_own_firewall_sees_questions_and_answers_as_one_flow() {
    let container = container();
    for line in [
        "nft add table inet own",
        "nft add chain inet own input { type filter hook input priority 0; }",
        "nft add rule inet own input ct state invalid drop",
        "nft add chain inet own output { type filter hook output priority 0; }",
        "nft add rule inet own output ct direction reply ct state != established drop",
    ] {
        container.command(line);
    }
    answer(ResolverSockets::open(container.fd()).unwrap(), "names");
    assert_eq!(ask(&container), both("names"));
}
