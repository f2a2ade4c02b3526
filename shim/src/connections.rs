//! The clients of the daemon: taken, listened to, answered, and dropped when they break the protocol or hang up.

use std::io;
use std::time::Duration;

use crate::daemon::Shim;
use crate::reactor::{Deadline, Token};
use crate::status::Status;
use crate::sys::{self, Interest};
use crate::task::Reply;
use crate::ttrpc::{Closed, Connection, Incoming};
use crate::{service, shim_log};

/// Clients at once; the next one waits in the socket's queue.
const CONNECTIONS_MAX: usize = 128;
/// Calls of one connection that are not answered yet, `Wait` included.
pub(crate) const CALLS_MAX: usize = 16 << 10;

impl Shim {
    pub(crate) fn accept(&mut self) {
        while self.connections.len() < CONNECTIONS_MAX {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    shim_log::warn(format_args!("accept: {error}"));
                    break;
                }
            };
            if let Err(error) = self.admit(socket) {
                shim_log::warn(format_args!("connection refused: {error}"));
            }
        }
        // Level-triggered, so a client that can't be taken now would wake us without end.
        if self.accepting {
            self.accepting = false;
            self.reactor.forget(&self.listener);
        }
        self.reactor.after(Duration::from_millis(200), Deadline::Accept);
    }

    fn admit(&mut self, socket: std::os::unix::net::UnixStream) -> io::Result<()> {
        let uid = sys::peer_uid(&socket)?;
        if uid != 0 && uid != sys::effective_uid() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("user {uid} may not call this shim"),
            ));
        }
        socket.set_nonblocking(true)?;
        self.last_connection = self.last_connection.wrapping_add(1);
        let number = self.last_connection;
        let connection = Connection::new(socket.into());
        self.reactor
            .watch(&connection, Token::Connection(number), Interest::Readable)?;
        self.connections.insert(number, connection);
        Ok(())
    }

    pub(crate) fn connection_ready(&mut self, number: u32, readable: bool, writable: bool) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let mut result = if writable { connection.flush() } else { Ok(()) };
        let mut incoming = Vec::new();
        if result.is_ok() && readable && !connection.is_congested() {
            match connection.receive() {
                Ok(frames) => incoming = frames,
                Err(closed) => result = Err(closed),
            }
        }
        for frame in incoming {
            match frame {
                Incoming::Request { stream, request } => {
                    let reply = Reply {
                        connection: number,
                        stream,
                    };
                    let Some(connection) = self.connections.get_mut(&number) else {
                        return;
                    };
                    connection.in_flight += 1;
                    service::dispatch(self, reply, &request);
                }
                Incoming::Refused { stream, status } => {
                    let Some(connection) = self.connections.get_mut(&number) else {
                        return;
                    };
                    connection.in_flight += 1;
                    self.answer_error(
                        Reply {
                            connection: number,
                            stream,
                        },
                        status,
                    );
                }
                Incoming::Response { .. } => {
                    result = Err(Closed::Frame(crate::ttrpc::FrameError::WrongDirection {
                        frame_type: 2,
                    }));
                }
            }
        }
        match result {
            Ok(()) => self.watch_connection(number),
            Err(closed) => self.close(number, &closed),
        }
    }

    fn watch_connection(&mut self, number: u32) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let interest = match (connection.is_congested(), connection.has_output()) {
            (true, _) => Interest::Writable,
            (false, true) => Interest::Both,
            (false, false) => Interest::Readable,
        };
        let _ = self
            .reactor
            .change(connection, Token::Connection(number), interest);
    }

    /// Forgets a client; what it asked for goes on, only nobody is told.
    fn close(&mut self, number: u32, why: &Closed) {
        if !matches!(why, Closed::ByPeer) {
            shim_log::warn(format_args!("connection {number} closed: {why}"));
        }
        if let Some(connection) = self.connections.remove(&number) {
            self.reactor.forget(&connection);
        }
        for container in self.containers.values_mut() {
            for process in std::iter::once(&mut container.init).chain(container.execs.values_mut()) {
                process.waiters.retain(|reply| reply.connection != number);
            }
        }
        if let Some(sandbox) = &mut self.sandbox {
            sandbox.forget_connection(number);
        }
        self.remover_is_gone(number);
        if !self.accepting {
            self.accepting = self
                .reactor
                .watch(&self.listener, Token::Listener, Interest::Readable)
                .is_ok();
            self.reactor.cancel(&Deadline::Accept);
        }
    }

    /// The calls of a client that are not answered yet. One that gives up on a wait does not say so, and waits must not
    /// fill memory: see [`CALLS_MAX`].
    pub(crate) fn in_flight(&self, reply: Reply) -> usize {
        self.connections
            .get(&reply.connection)
            .map_or(0, |connection| connection.in_flight)
    }

    pub(crate) fn answer(&mut self, reply: Reply, message: &impl protobuf::Message) {
        match message.write_to_bytes() {
            Ok(bytes) => self.respond(reply, Ok(bytes)),
            Err(error) => self.respond(reply, Err(Status::unknown(format!("encode the answer: {error}")))),
        }
    }

    pub(crate) fn answer_error(&mut self, reply: Reply, status: Status) {
        shim_log::debug(format_args!("call refused: {status}"));
        self.respond(reply, Err(status));
    }

    fn respond(&mut self, reply: Reply, result: Result<Vec<u8>, Status>) {
        // The client may have gone meanwhile.
        let Some(connection) = self.connections.get_mut(&reply.connection) else {
            return;
        };
        connection.in_flight = connection.in_flight.saturating_sub(1);
        match connection.respond(reply.stream, result) {
            Ok(()) => self.watch_connection(reply.connection),
            Err(closed) => self.close(reply.connection, &closed),
        }
    }
}
