//! A container's name server: one task that owns its sockets and all that it has begun.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use network::ResolverSockets;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::View;
use crate::answer::{Outcome, Transport, outcome, refusal};
use crate::connection;
use crate::forward::Forwarder;
use crate::totals;
use crate::upstream::Sides;

/// Longer datagrams are no questions.
const QUESTION_BYTES_MAX: usize = 4096;
/// As many datagrams are answered before others have their turn.
const DATAGRAMS_AT_ONCE: usize = 32;
/// As many questions of one container are passed on at once, each with sockets of its own. docker allows 1024.
const FORWARDS_MAX: usize = 256;
/// As many of all containers, before one that has `FORWARDS_OWED` already is refused more: each takes descriptors of the
/// manager, of which there is one stock for all.
const FORWARDS_OF_ALL_MAX: usize = 2048;
/// What a container has under way at least, however busy others are.
const FORWARDS_OWED: usize = 8;
/// As many connections one container has at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 32;
/// After an error of a socket: when descriptors or memory have run out, trying at once would only make it worse.
const PAUSE: Duration = Duration::from_millis(100);

/// How many questions are passed on at present, of all containers.
static FORWARDS: AtomicUsize = AtomicUsize::new(0);

/// A question that is being passed on.
struct UnderWay;

impl UnderWay {
    fn begin() -> Self {
        FORWARDS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        FORWARDS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a container that has `own` questions under way, of `all`, may have one more.
fn may_pass_on(own: usize, all: usize) -> bool {
    own < FORWARDS_OWED || (own < FORWARDS_MAX && all < FORWARDS_OF_ALL_MAX)
}

/// A name server that answers until this is dropped; then its sockets are closed.
#[derive(Debug)]
pub struct Service(JoinHandle<()>);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answer what comes to `sockets`, as `view` has it. `netns` is the container's network namespace, from which servers of
/// the outside are asked; None: they are asked from the manager's own.
///
/// # Errors
/// The sockets could not be registered with the runtime, which has to be there.
pub fn serve(sockets: ResolverSockets, netns: Option<OwnedFd>, view: Arc<dyn View>) -> io::Result<Service> {
    let sides = Sides {
        container: netns.map(Arc::new),
    };
    let server = Server {
        udp: Arc::new(UdpSocket::from_std(sockets.udp)?),
        tcp: TcpListener::from_std(sockets.tcp)?,
        forwarder: Arc::new(Forwarder::new(view, sides)),
        forwards: JoinSet::new(),
        connections: JoinSet::new(),
    };
    Ok(Service(tokio::spawn(server.run())))
}

struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    forwarder: Arc<Forwarder>,
    /// They end with this value.
    forwards: JoinSet<()>,
    connections: JoinSet<()>,
}

impl Server {
    async fn run(mut self) {
        loop {
            let done = tokio::select! {
                ready = self.udp.readable() => ready.and_then(|()| self.answer_datagrams()),
                accepted = self.tcp.accept(), if self.connections.len() < CONNECTIONS_MAX => {
                    accepted.map(|(stream, _)| {
                        let forwarder = Arc::clone(&self.forwarder);
                        self.connections.spawn(async move { connection::serve(stream, &forwarder).await });
                    })
                }
                Some(_) = self.connections.join_next() => Ok(()),
                Some(_) = self.forwards.join_next() => Ok(()),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a container's name server waits a moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Answer what has come, or begin to.
    fn answer_datagrams(&mut self) -> io::Result<()> {
        let mut buffer = [0; QUESTION_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_AT_ONCE {
            match self.udp.try_recv_from(&mut buffer) {
                // What fills the buffer may have been longer.
                Ok((length, client)) if length < buffer.len() => self.answer(&buffer[..length], client),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn answer(&mut self, message: &[u8], client: SocketAddr) {
        let question = match outcome(message, Transport::Udp, &*self.forwarder.view) {
            Outcome::Ignore => return,
            Outcome::Answer(answer) => return send(&self.udp, &answer, client),
            Outcome::Forward(question) => question,
        };
        while self.forwards.try_join_next().is_some() {}
        if !may_pass_on(self.forwards.len(), FORWARDS.load(Ordering::Relaxed)) {
            totals::count(&totals::REFUSED);
            return send(&self.udp, &refusal(&question, ResponseCode::Refused), client);
        }
        let (udp, forwarder) = (Arc::clone(&self.udp), Arc::clone(&self.forwarder));
        let message = message.to_vec();
        let under_way = UnderWay::begin();
        self.forwards.spawn(async move {
            let _under_way = under_way;
            let answer = forwarder.ask(&message, &question, Transport::Udp).await;
            send(&udp, &answer, client);
        });
    }
}

/// Send an answer, or let it be lost where there is no room for it: the client asks again, and nobody else waits.
fn send(udp: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = udp.try_send_to(answer, client) {
        tracing::debug!(%error, "an answer to a container is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_ask_little_are_served_when_others_flood() {
        assert!(may_pass_on(FORWARDS_MAX - 1, FORWARDS_OF_ALL_MAX - 1));
        assert!(!may_pass_on(FORWARDS_MAX, 0));
        assert!(!may_pass_on(FORWARDS_OWED, FORWARDS_OF_ALL_MAX));
        assert!(may_pass_on(FORWARDS_OWED - 1, FORWARDS_OF_ALL_MAX * 2));
    }
}
