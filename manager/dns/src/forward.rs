//! Passing a question on: to the servers in their order, to the next one when one fails or is slow, until one answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::ResponseCode;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::answer::{Transport, refusal};
use crate::question::Question;
use crate::totals;
use crate::upstream::{Heard, Sides};
use crate::{Server, View};

/// The C library gives up after 5 s; what comes later is for nobody.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(4500);
/// So long one server has the question for itself.
const HEAD_START: Duration = Duration::from_secs(1);
/// As many servers are asked, as the C library would.
const SERVERS_MAX: usize = 3;
/// A server that answered where the first did not is asked first for so long.
const PREFERENCE: Duration = Duration::from_secs(30);

/// Passes on the questions of one container.
pub(crate) struct Forwarder {
    pub(crate) view: Arc<dyn View>,
    sides: Sides,
    preferred: Mutex<Option<(SocketAddr, Instant)>>,
}

impl Forwarder {
    pub(crate) fn new(view: Arc<dyn View>, sides: Sides) -> Self {
        Self {
            view,
            sides,
            preferred: Mutex::new(None),
        }
    }

    /// The answer to `question`, which came as `message`: that of a server as it said it, but for the id; or that there
    /// is none.
    pub(crate) async fn ask(&self, message: &[u8], question: &Question, transport: Transport) -> Vec<u8> {
        totals::count(&totals::FORWARDED);
        let servers = self.in_order();
        let mut waiting = servers.iter();
        let mut asked = FuturesUnordered::new();
        let mut admitted = None;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut next_at = Instant::now();
        let answer = timeout_at(deadline, async {
            loop {
                if let Some(server) = waiting.next() {
                    asked.push(self.ask_one(*server, message.to_vec(), question, transport));
                    next_at = Instant::now() + HEAD_START;
                }
                if asked.is_empty() {
                    return None;
                }
                let is_last = waiting.len() == 0;
                tokio::select! {
                    Some((server, heard)) = asked.next() => match heard {
                        Some(heard) if !heard.is_failure => {
                            self.prefer(server, &servers);
                            return Some(heard.message);
                        }
                        Some(heard) => admitted = Some(heard.message),
                        None => {}
                    },
                    () = sleep_until(next_at), if !is_last => {}
                }
            }
        });
        let answer = answer.await.ok().flatten();
        // What a server said of its failure tells more than we could.
        answer
            .or(admitted)
            .unwrap_or_else(|| refusal(question, ResponseCode::ServFail))
    }

    async fn ask_one(
        &self,
        server: Server,
        message: Vec<u8>,
        question: &Question,
        transport: Transport,
    ) -> (Server, Option<Heard>) {
        let heard = match transport {
            Transport::Udp => self.sides.ask_udp(server, message, question).await,
            Transport::Tcp => self.sides.ask_tcp(server, message, question).await,
        };
        if let Err(error) = &heard {
            tracing::debug!(server = %server.address, %error, "a name server did not answer");
        }
        (server, heard.ok())
    }

    /// The servers, beginning with the one that answers at present.
    fn in_order(&self) -> Vec<Server> {
        let mut servers = self.view.servers();
        servers.truncate(SERVERS_MAX);
        let preferred = *self.preferred.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, until)) = preferred
            && Instant::now() < until
            && let Some(place) = servers.iter().position(|server| server.address == address)
        {
            servers[..=place].rotate_right(1);
        }
        servers
    }

    fn prefer(&self, server: Server, order: &[Server]) {
        if order.first() == Some(&server) {
            return;
        }
        let until = Instant::now() + PREFERENCE;
        *self.preferred.lock().unwrap_or_else(PoisonError::into_inner) = Some((server.address, until));
    }
}
