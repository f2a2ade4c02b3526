//! A netlink socket on which several requests travel as one message to the kernel.
//!
//! The kernel works a request off inside `send` and has queued its answers when `send` returns, so nothing
//! here ever waits. Requests are encoded by the netlink-packet crates. Of the answers only the attributes that
//! are asked for are read: a kernel newer than those crates may add what they cannot parse.

use std::io;
mod answer;

use std::marker::PhantomData;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::sys::socket::{SetSockOpt, sockopt};

use crate::Error;
use answer::{Answer, Content, HEADER_BYTES};
pub(crate) use answer::{each_attribute, text};

/// The kernel fills a datagram of a dump up to 32 KiB (`netlink_recvmsg`); nothing asked here answers longer.
const BUFFER_BYTES: usize = 64 << 10;
/// For some ten thousand published ports at once. The kernel takes memory only for what is sent.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// From linux/netfilter/nfnetlink.h.
const NFNLGRP_NFTABLES: u32 = 7;
/// How often a dump is repeated that others' changes made inconsistent.
const DUMP_ATTEMPTS: usize = 10;

/// Links, addresses and routes.
pub(crate) type Route = Netlink<RouteNetlinkMessage>;
/// nftables.
pub(crate) type Netfilter = Netlink<NetfilterMessage>;

/// A socket for requests of one kind.
pub(crate) struct Netlink<M> {
    socket: Socket,
    buffer: Vec<u8>,
    next_sequence: u32,
    kind: PhantomData<fn(M)>,
}

impl Netlink<RouteNetlinkMessage> {
    /// A route socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::with_protocol(NETLINK_ROUTE)
    }
}

impl Netlink<NetfilterMessage> {
    /// A netfilter socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::with_protocol(NETLINK_NETFILTER)
    }
}

impl Netlink<NetfilterMessage> {
    /// Hear of all changes of nftables in this network namespace (`NFNLGRP_NFTABLES`).
    pub(crate) fn subscribe(&mut self) -> Result<(), Error> {
        // What has no address yet has that of the kernel, which does not hear itself.
        self.socket
            .bind_auto()
            .and_then(|_| self.socket.add_membership(NFNLGRP_NFTABLES))
            .map_err(|source| Error::System {
                action: "listen to changes of nftables".to_owned(),
                source,
            })
    }

    /// Wait for a message about a change; `read` gets type and payload of each in it. False: messages were lost.
    pub(crate) fn hear(&mut self, mut read: impl FnMut(u16, &[u8])) -> Result<bool, Error> {
        let error = |source| Error::System {
            action: "hear of changes of nftables".to_owned(),
            source,
        };
        let length = loop {
            match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(false),
                Err(source) => return Err(error(source)),
            }
        };
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        let whole = !rest.is_empty();
        while let Ok(header) = NetlinkBuffer::new_checked(rest) {
            let end = header.length() as usize;
            read(
                header.message_type(),
                rest.get(HEADER_BYTES..end).unwrap_or_default(),
            );
            rest = rest.get(end.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(whole)
    }
}

/// One request: what it is, in words for an error, and as the kernel reads it.
pub(crate) struct Request<M> {
    pub(crate) action: String,
    pub(crate) message: M,
    pub(crate) flags: u16,
}

impl<M: NetlinkSerializable> Netlink<M> {
    fn with_protocol(protocol: isize) -> Result<Self, Error> {
        let error = |source| Error::System {
            action: "open a netlink socket".to_owned(),
            source,
        };
        let socket = Socket::new(protocol).map_err(error)?;
        // Asks for the kernel's own words beside the number of an error.
        socket.set_ext_ack(true).map_err(error)?;
        // A transaction is one message, however many ports are in it. Who may not have it so long gets its error then.
        let _ = sockopt::SndBufForce.set(&socket, &SEND_BUFFER_BYTES);
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_BYTES],
            next_sequence: 1,
            kind: PhantomData,
        })
    }

    /// Carries out `requests` in their order, sent as one. The first that is refused is the error; those after
    /// it may have been carried out (of a netfilter batch, nothing is).
    pub(crate) fn change(&mut self, mut requests: Vec<Request<M>>) -> Result<(), Error> {
        // An error is always answered. One acknowledgement, of the last, tells that all were worked off; only
        // the end of a netfilter batch gets none from older kernels, and there another asks for it.
        let asks = requests.iter().any(|request| request.flags & NLM_F_ACK != 0);
        if let (false, Some(last)) = (asks, requests.last_mut()) {
            last.flags |= NLM_F_ACK;
        }
        self.exchange(requests, |_| Ok(()))
    }

    /// Asks for one object; `None` if there is none. `read` gets the answer's payload.
    pub(crate) fn get<T>(
        &mut self,
        request: Request<M>,
        mut read: impl FnMut(&[u8]) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let mut found = None;
        let result = self.exchange(vec![request], |payload| {
            found = Some(read(payload)?);
            Ok(())
        });
        match result {
            Err(error) if matches!(error.errno(), Some(libc::ENODEV | libc::ENOENT)) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Lists objects; `read` gets each answer's payload and chooses. A list that was changed by others while
    /// it was read is read again.
    pub(crate) fn dump<T>(
        &mut self,
        mut request: impl FnMut() -> Request<M>,
        mut read: impl FnMut(&[u8]) -> Result<Option<T>, String>,
    ) -> Result<Vec<T>, Error> {
        let mut attempt = 1;
        loop {
            let mut found = Vec::new();
            let mut request = request();
            request.flags |= NLM_F_DUMP;
            let result = self.exchange(vec![request], |payload| {
                found.extend(read(payload)?);
                Ok(())
            });
            match result {
                Err(error) if error.errno() == Some(libc::EINTR) && attempt < DUMP_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(()) => return Ok(found),
            }
        }
    }

    /// Sends `requests` as one and gives each object that the kernel answers with to `read`.
    fn exchange(
        &mut self,
        requests: Vec<Request<M>>,
        mut read: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), Error> {
        let sent = self.send(requests)?;
        let mut refusal = None;
        loop {
            let length = match self
                .socket
                .recv(&mut &mut self.buffer[..], libc::MSG_DONTWAIT | libc::MSG_TRUNC)
            {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A netfilter batch that is refused as a whole gets one answer, to its first message.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && refusal.is_some() => break,
                Err(source) => {
                    return Err(Error::System {
                        action: sent.action(sent.end),
                        source,
                    });
                }
            };
            let malformed = |reason| Error::Malformed {
                action: sent.action(sent.end),
                reason,
            };
            let mut rest = self
                .buffer
                .get(..length)
                .ok_or_else(|| malformed(format!("{length} bytes do not fit into {BUFFER_BYTES}")))?;
            let mut ended = false;
            while let Some((answer, following)) = Answer::split(rest).map_err(malformed)? {
                rest = following;
                if !sent.covers(answer.sequence) {
                    continue;
                }
                match answer.content {
                    Content::Object(payload) => read(payload).map_err(malformed)?,
                    Content::Acknowledged => {}
                    Content::Refused { errno, message } => {
                        refusal.get_or_insert_with(|| Error::Kernel {
                            action: sent.action(answer.sequence),
                            message,
                            source: io::Error::from_raw_os_error(errno),
                        });
                    }
                }
                if answer.inconsistent {
                    refusal.get_or_insert_with(|| Error::System {
                        action: sent.action(answer.sequence),
                        source: io::Error::from_raw_os_error(libc::EINTR),
                    });
                }
                ended |= answer.ends && answer.sequence == sent.end;
            }
            if ended {
                break;
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    fn send(&mut self, requests: Vec<Request<M>>) -> Result<Sent, Error> {
        let first = self.next_sequence;
        let mut sent = Sent {
            first,
            end: first,
            actions: Vec::with_capacity(requests.len()),
        };
        let mut bytes = Vec::new();
        for request in requests {
            if request.flags & (NLM_F_ACK | NLM_F_DUMP) != 0 {
                sent.end = self.next_sequence;
            }
            encode(&mut bytes, request.message, request.flags, self.next_sequence);
            sent.actions.push(request.action);
            self.next_sequence = self.next_sequence.wrapping_add(1);
        }
        loop {
            match self.socket.send(&bytes, 0) {
                Ok(_) => return Ok(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::System {
                        action: sent.action(sent.end),
                        source,
                    });
                }
            }
        }
    }
}

/// Requests under way: their sequence numbers begin at `first`, and the answer to `end` is the last.
struct Sent {
    first: u32,
    end: u32,
    actions: Vec<String>,
}

impl Sent {
    fn covers(&self, sequence: u32) -> bool {
        (sequence.wrapping_sub(self.first) as usize) < self.actions.len()
    }

    fn action(&self, sequence: u32) -> String {
        self.actions
            .get(sequence.wrapping_sub(self.first) as usize)
            .cloned()
            .unwrap_or_default()
    }
}

fn encode<M: NetlinkSerializable>(bytes: &mut Vec<u8>, message: M, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}
