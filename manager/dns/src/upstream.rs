//! One question to one server: a socket of its own in the right namespace, with a port of the kernel's choice, on which
//! nobody but that server is heard.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::Semaphore;

use crate::question::{Question, Verdict, judge, set_id};
use crate::{Server, Side};

/// As many threads of the manager are in containers' namespaces to open sockets, of all containers: the stock of such
/// threads is what starts of containers need, too.
static OPENING: Semaphore = Semaphore::const_new(4);

/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65535;

thread_local! {
    /// Where a datagram is read to. Nothing waits while it holds it, so one for each thread will do.
    static DATAGRAM: RefCell<Box<[u8]>> = RefCell::new(vec![0; DATAGRAM_BYTES_MAX].into_boxed_slice());
}

/// Where sockets to servers are opened.
#[derive(Debug, Clone)]
pub(crate) struct Sides {
    /// The container's network namespace. None: the manager's own, for the tests of this crate.
    pub(crate) container: Option<Arc<OwnedFd>>,
}

/// An answer that is one, or a failure that the server has admitted.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) message: Vec<u8>,
    pub(crate) is_failure: bool,
}

impl Sides {
    async fn open<T: Send + 'static>(
        &self,
        side: Side,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (Side::Container, Some(netns)) = (side, self.container.clone()) else {
            return open();
        };
        let within = move || {
            // The namespace's own error first, then that of the socket.
            network::within(netns.as_fd(), || Ok(open()))
                .map_err(io::Error::other)
                .flatten()
        };
        let _turn = OPENING.acquire().await.map_err(io::Error::other)?;
        tokio::task::spawn_blocking(within)
            .await
            .map_err(io::Error::other)?
    }

    /// Ask by a datagram.
    pub(crate) async fn ask_udp(
        &self,
        server: Server,
        mut message: Vec<u8>,
        question: &Question,
    ) -> io::Result<Heard> {
        let any = unspecified(server.address);
        let socket = self
            .open(server.side, move || {
                let socket = std::net::UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .await?;
        let socket = UdpSocket::from_std(socket)?;
        // The kernel hands on what comes from there and nothing else, and tells if nobody listens there.
        socket.connect(server.address).await?;
        let id = rand::random();
        set_id(&mut message, id);
        socket.send(&message).await?;
        loop {
            socket.readable().await?;
            let heard: io::Result<_> = DATAGRAM.with_borrow_mut(|buffer| {
                let length = socket.try_recv(buffer)?;
                Ok(heard(&buffer[..length], id, question))
            });
            match heard {
                Ok(Some(heard)) => return Ok(heard),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ask by a connection.
    pub(crate) async fn ask_tcp(
        &self,
        server: Server,
        mut message: Vec<u8>,
        question: &Question,
    ) -> io::Result<Heard> {
        let is_ipv4 = server.address.is_ipv4();
        let open = move || {
            if is_ipv4 {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }
        };
        let socket = self.open(server.side, open).await?;
        let mut stream = socket.connect(server.address).await?;
        let id = rand::random();
        set_id(&mut message, id);
        stream.write_all(&framed(&message)).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        heard(&answer, id, question)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}

fn heard(message: &[u8], id: u16, question: &Question) -> Option<Heard> {
    let is_failure = match judge(message, id, question) {
        Verdict::Foreign => return None,
        Verdict::Answer => false,
        Verdict::Failure => true,
    };
    let mut message = message.to_vec();
    set_id(&mut message, question.metadata.id);
    Some(Heard { message, is_failure })
}

/// A message as it goes over a connection, with its length before it (RFC 1035, 4.2.2).
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    // Messages come from datagrams and frames, neither of which can be longer.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(&message[..usize::from(length)]);
    frame
}

fn unspecified(like: SocketAddr) -> SocketAddr {
    if like.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    }
}
