//! Events for containerd, in the order in which they happened, one at a time, never in the way of a task.
//!
//! They go to containerd's ttrpc events service at `TTRPC_ADDRESS`, which containerd 1.6 and 2.x have both: one small
//! message, where the publish binary would be a start of containerd's whole program for each event. The publish
//! binary is used when that address is not set. Without either (our own manager asks by Wait), events are not made.
//! While the receiver is away they queue up, bounded, and are tried again with growing pauses.

use std::collections::VecDeque;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::{Code, Request};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::reactor::{Deadline, Reactor, Token};
use crate::sys::{self, Interest};
use crate::ttrpc::{Connection, Incoming};
use crate::{shim_log, timestamp};

/// As many as containerd's own shim keeps.
const QUEUE_MAX: usize = 2048;
/// An event that its receiver refused this often is dropped.
const REFUSALS_MAX: u32 = 5;
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Receiver {
    Ttrpc { address: PathBuf },
    Binary { binary: PathBuf, address: String },
}

#[derive(Debug)]
struct Event {
    topic: &'static str,
    body: Any,
    at: SystemTime,
}

#[derive(Debug)]
enum State {
    Idle,
    /// The first event of the queue is on its way over this connection.
    Sending,
    /// A publish binary with this pid has the first event.
    Publishing(u32),
    /// A deadline is set for the next try.
    Pausing,
}

#[derive(Debug)]
pub(crate) struct Events {
    receiver: Option<Receiver>,
    namespace: String,
    queue: VecDeque<Event>,
    state: State,
    connection: Option<Connection>,
    stream: u32,
    pause: Duration,
    refusals: u32,
}

impl Events {
    pub(crate) fn new(receiver: Option<Receiver>, namespace: &str) -> Self {
        Self {
            receiver,
            namespace: namespace.to_owned(),
            queue: VecDeque::new(),
            state: State::Idle,
            connection: None,
            stream: 1,
            pause: Duration::from_secs(1),
            refusals: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues an event. `kind` is its protobuf name.
    pub(crate) fn publish(
        &mut self,
        topic: &'static str,
        kind: &str,
        message: &impl Message,
        reactor: &mut Reactor,
    ) {
        if self.receiver.is_none() {
            return;
        }
        if self.queue.len() >= QUEUE_MAX {
            // Not the first: it may be on its way.
            if let Some(lost) = self.queue.remove(1) {
                shim_log::error(format_args!(
                    "event {} dropped: {QUEUE_MAX} others wait",
                    lost.topic
                ));
            }
        }
        let mut body = Any::new();
        kind.clone_into(&mut body.type_url);
        body.value = message.write_to_bytes().unwrap_or_default();
        self.queue.push_back(Event {
            topic,
            body,
            at: SystemTime::now(),
        });
        self.send(reactor);
    }

    /// The pause is over.
    pub(crate) fn retry(&mut self, reactor: &mut Reactor) {
        if matches!(self.state, State::Pausing) {
            self.state = State::Idle;
            self.send(reactor);
        }
    }

    fn send(&mut self, reactor: &mut Reactor) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        let (Some(event), Some(receiver)) = (self.queue.front(), &self.receiver) else {
            return;
        };
        let result = match receiver {
            Receiver::Ttrpc { address } => {
                let request = forward(event, &self.namespace);
                let connection = match &mut self.connection {
                    Some(connection) => Ok(connection),
                    None => connect(address, reactor).map(|connection| self.connection.insert(connection)),
                };
                self.stream = self.stream.wrapping_add(2);
                connection.and_then(|connection| {
                    connection
                        .request(self.stream, &request)
                        .map_err(|error| error.to_string())?;
                    watch_output(connection, reactor);
                    self.state = State::Sending;
                    Ok(())
                })
            }
            Receiver::Binary { binary, address } => start_binary(binary, address, &self.namespace, event)
                .map(|pid| self.state = State::Publishing(pid)),
        };
        if let Err(error) = result {
            self.disconnect(reactor);
            self.pause(&error, reactor);
        }
    }

    fn pause(&mut self, why: &str, reactor: &mut Reactor) {
        shim_log::debug(format_args!("events wait {:?}: {why}", self.pause));
        self.state = State::Pausing;
        reactor.after(self.pause, Deadline::Publish);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn disconnect(&mut self, reactor: &Reactor) {
        if let Some(connection) = self.connection.take() {
            reactor.forget(&connection);
        }
    }

    /// The connection can be read or written.
    pub(crate) fn ready(&mut self, reactor: &mut Reactor) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let received = connection.flush().and_then(|()| connection.receive());
        match received {
            Ok(incoming) => {
                watch_output(connection, reactor);
                for message in incoming {
                    if let Incoming::Response { stream, response } = message
                        && stream == self.stream
                        && matches!(self.state, State::Sending)
                    {
                        let code = response.status().code();
                        self.settle(code == Code::OK, response.status().message(), reactor);
                    }
                }
            }
            Err(closed) => {
                self.disconnect(reactor);
                if matches!(self.state, State::Sending) {
                    self.pause(&closed.to_string(), reactor);
                }
            }
        }
    }

    /// True when the child was a publish binary of ours.
    pub(crate) fn child_ended(&mut self, pid: u32, status: u32, reactor: &mut Reactor) -> bool {
        if !matches!(self.state, State::Publishing(ours) if ours == pid) {
            return false;
        }
        self.settle(
            status == 0,
            &format!("publish binary: exit status {status}"),
            reactor,
        );
        true
    }

    /// The first event was taken or refused.
    fn settle(&mut self, taken: bool, why: &str, reactor: &mut Reactor) {
        self.state = State::Idle;
        if taken {
            self.pause = Duration::from_secs(1);
        } else {
            self.refusals += 1;
            if self.refusals < REFUSALS_MAX {
                self.pause(why, reactor);
                return;
            }
            let topic = self.queue.front().map_or("", |event| event.topic);
            shim_log::error(format_args!(
                "event {topic} dropped after {REFUSALS_MAX} refusals: {why}"
            ));
        }
        self.refusals = 0;
        self.queue.pop_front();
        self.send(reactor);
    }
}

fn connect(address: &std::path::Path, reactor: &Reactor) -> Result<Connection, String> {
    let failed = |error: std::io::Error| format!("connect to {}: {error}", address.display());
    let connection = Connection::new(sys::connect_unix(address).map_err(failed)?);
    reactor
        .watch(&connection, Token::Publisher, Interest::Readable)
        .map_err(failed)?;
    Ok(connection)
}

fn watch_output(connection: &Connection, reactor: &Reactor) {
    let interest = if connection.has_output() {
        Interest::Both
    } else {
        Interest::Readable
    };
    let _ = reactor.change(connection, Token::Publisher, interest);
}

fn forward(event: &Event, namespace: &str) -> Request {
    let mut envelope = Envelope::new();
    envelope.timestamp = Some(timestamp::protobuf(event.at)).into();
    namespace.clone_into(&mut envelope.namespace);
    event.topic.clone_into(&mut envelope.topic);
    envelope.event = Some(event.body.clone()).into();
    let mut forward = ForwardRequest::new();
    forward.envelope = Some(envelope).into();
    let mut request = Request::new();
    request.service = "containerd.services.events.ttrpc.v1.Events".into();
    request.method = "Forward".into();
    request.payload = forward.write_to_bytes().unwrap_or_default();
    request
}

fn start_binary(binary: &PathBuf, address: &str, namespace: &str, event: &Event) -> Result<u32, String> {
    let failed = |error: std::io::Error| format!("start {}: {error}", binary.display());
    let mut input = sys::memfd("event").map_err(failed)?;
    input
        .write_all(&event.body.write_to_bytes().unwrap_or_default())
        .map_err(failed)?;
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    Command::new(binary)
        .args([
            "--address",
            address,
            "publish",
            "--topic",
            event.topic,
            "--namespace",
            namespace,
        ])
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(|child| child.id())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_queued_without_a_receiver() {
        let mut reactor = Reactor::new().unwrap();
        let mut events = Events::new(None, "berth");
        events.publish(
            "/tasks/exit",
            "containerd.events.TaskExit",
            &Any::new(),
            &mut reactor,
        );
        assert!(events.is_empty());
    }

    #[test]
    fn the_queue_is_bounded_and_keeps_its_first_event() {
        let mut reactor = Reactor::new().unwrap();
        let receiver = Receiver::Ttrpc {
            address: "/nonexistent/socket".into(),
        };
        let mut events = Events::new(Some(receiver), "berth");
        for topic in std::iter::once("/first").chain(std::iter::repeat_n("/other", QUEUE_MAX + 10)) {
            events.publish(topic, "x", &Any::new(), &mut reactor);
        }
        assert_eq!(events.queue.len(), QUEUE_MAX);
        assert_eq!(events.queue[0].topic, "/first");
    }
}
