//! A container's name server on this machine's loopback, a client, and servers that do as they are told.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dns::{Server, Service, Side, View, serve};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use network::ResolverSockets;
use tokio::runtime::Runtime;

/// Longer than anything is to take; only a fault waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the container knows.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
    pub(crate) servers: Vec<Server>,
    pub(crate) completes_names: bool,
}

struct Shared(Arc<Mutex<Known>>);

impl View for Shared {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.0.lock().unwrap().names.get(name).cloned()
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let known = self.0.lock().unwrap();
        let mut names = known.names.iter();
        names
            .find(|(_, addresses)| addresses.contains(&address))
            .map(|(name, _)| format!("{name}.net"))
    }

    fn servers(&self) -> Vec<Server> {
        self.0.lock().unwrap().servers.clone()
    }

    fn completes_names(&self) -> bool {
        self.0.lock().unwrap().completes_names
    }
}

pub(crate) struct World {
    pub(crate) known: Arc<Mutex<Known>>,
    pub(crate) address: SocketAddr,
    service: Option<Service>,
    runtime: Runtime,
}

impl World {
    pub(crate) fn new(names: &[(&str, &[&str])], servers: &[&Upstream]) -> Self {
        let known = Known {
            names: names
                .iter()
                .map(|(name, addresses)| ((*name).to_owned(), parsed(addresses)))
                .collect(),
            servers: servers.iter().map(|server| server.server()).collect(),
            completes_names: false,
        };
        let known = Arc::new(Mutex::new(known));
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let service = serve(
            ResolverSockets { udp, tcp },
            None,
            Arc::new(Shared(Arc::clone(&known))),
        )
        .unwrap();
        drop(entered);
        Self {
            known,
            address,
            service: Some(service),
            runtime,
        }
    }

    pub(crate) fn close(&mut self) {
        self.service = None;
    }

    /// A client's socket, with some patience.
    pub(crate) fn client(&self) -> UdpSocket {
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Ask by a datagram.
    pub(crate) fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.exchange(&query(name, kind).to_vec().unwrap())
    }

    pub(crate) fn exchange(&self, message: &[u8]) -> Message {
        let client = self.client();
        client.send(message).unwrap();
        let answer = receive(&client);
        assert_eq!(
            answer.metadata.id.to_be_bytes(),
            message[..2],
            "an answer has the id of its question"
        );
        answer
    }

    /// Ask by a connection of its own.
    pub(crate) fn ask_by_tcp(&self, name: &str, kind: RecordType) -> Message {
        let mut stream = self.connect();
        write(&mut stream, &query(name, kind).to_vec().unwrap());
        read(&mut stream).expect("an answer")
    }
}

pub(crate) fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

pub(crate) fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

pub(crate) fn receive(client: &UdpSocket) -> Message {
    let mut buffer = vec![0; 65535];
    let length = client.recv(&mut buffer).expect("an answer");
    Message::from_vec(&buffer[..length]).expect("an answer that can be read")
}

pub(crate) fn write(stream: &mut TcpStream, message: &[u8]) {
    let mut frame = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(message);
    stream.write_all(&frame).unwrap();
}

pub(crate) fn read(stream: &mut TcpStream) -> Option<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(Message::from_vec(&message).expect("an answer that can be read"))
}

pub(crate) fn addresses(answer: &Message) -> Vec<String> {
    let mut found: Vec<_> = answer
        .answers
        .iter()
        .filter_map(|record| Some(record.data.ip_addr()?.to_string()))
        .collect();
    found.sort();
    found
}

/// The answer of an honest server.
pub(crate) fn honest(question: &Message, addresses: &[&str]) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.metadata.recursion_available = true;
    for query in &question.queries {
        answer.add_query(query.clone());
        for address in parsed(addresses) {
            answer.add_answer(Record::from_rdata(query.name().clone(), 300, address.into()));
        }
    }
    answer
}

pub(crate) fn failing(question: &Message, code: ResponseCode) -> Message {
    let mut answer = honest(question, &[]);
    answer.metadata.response_code = code;
    answer
}

/// A server on this machine, for datagrams and connections.
pub(crate) struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// What a server sees of a datagram, and with what it may answer.
pub(crate) struct Asked<'a> {
    pub(crate) question: Message,
    pub(crate) raw: &'a [u8],
    pub(crate) socket: &'a UdpSocket,
    pub(crate) from: SocketAddr,
}

impl Asked<'_> {
    pub(crate) fn say(&self, answer: &Message) {
        self.socket.send_to(&answer.to_vec().unwrap(), self.from).unwrap();
    }
}

impl Upstream {
    /// One that answers datagrams by `datagram` and connections by `stream`.
    pub(crate) fn new(
        datagram: impl Fn(&Asked<'_>) + Send + 'static,
        stream: impl Fn(&Message, &mut TcpStream) + Send + 'static,
    ) -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // They end with the process.
        thread::spawn(move || {
            let mut buffer = vec![0; 65535];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let raw = &buffer[..length];
                let question = Message::from_vec(raw).unwrap();
                datagram(&Asked {
                    question,
                    raw,
                    socket: &udp,
                    from,
                });
            }
        });
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            for connection in tcp.incoming() {
                let mut connection = connection.unwrap();
                if let Some(question) = read(&mut connection) {
                    count.fetch_add(1, Ordering::SeqCst);
                    stream(&question, &mut connection);
                }
            }
        });
        Self { address, asked }
    }

    /// One that answers datagrams alone.
    pub(crate) fn of_datagrams(datagram: impl Fn(&Asked<'_>) + Send + 'static) -> Self {
        Self::new(datagram, |_, _| {})
    }

    /// One that knows `addresses` for every name.
    pub(crate) fn knowing(addresses: &'static [&'static str]) -> Self {
        Self::new(
            move |asked| asked.say(&honest(&asked.question, addresses)),
            move |question, stream| write(stream, &honest(question, addresses).to_vec().unwrap()),
        )
    }

    /// One that always says `code`.
    pub(crate) fn saying(code: ResponseCode) -> Self {
        Self::of_datagrams(move |asked| asked.say(&failing(&asked.question, code)))
    }

    /// One that never says anything.
    pub(crate) fn silent() -> Self {
        Self::new(|_| {}, |_, _| thread::sleep(PATIENCE))
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn server(&self) -> Server {
        Server {
            address: self.address,
            side: Side::Host,
        }
    }
}
