//! ttrpc: frames, and one connection's buffers.
//!
//! A frame is a 10-byte header (payload length u32, stream id u32, both big-endian, type u8, flags u8) and a payload
//! of at most 4 MiB; see the protocol text of containerd/ttrpc. The messages inside (`Request`, `Response`) are the
//! ttrpc crate's own. Its server is not used, because it serves with threads: `ttrpc::sync` has a reader and workers for
//! each connection, and a held `Wait` keeps one worker for the container's whole life. Measured with ttrpc 0.10 and
//! empty handlers: 9 threads with one client that holds one `Wait`, 27 with three clients that hold seven. This shim
//! has one thread however many wait, and `ttrpc::asynchronous` would bring tokio for what two buffers a connection do.
//!
//! Never blocks, never trusts a length, and a broken frame costs only its own connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use containerd_shim_protos::ttrpc::{Code, Request, Response};
use protobuf::Message;

use crate::status::Status;
use crate::sys;

pub const HEADER_BYTES: usize = 10;
/// The longest payload either side accepts.
pub const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// A client that lets more than this pile up is not read from until it reads.
const OUTPUT_BYTES_HIGH: usize = 1 << 20;
/// A client that lets more than this pile up is cut off.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

const TYPE_REQUEST: u8 = 1;
const TYPE_RESPONSE: u8 = 2;
const TYPE_DATA: u8 = 3;
/// Set on a request whose client will send more messages on the stream.
const FLAG_REMOTE_OPEN: u8 = 2;

/// A frame that can't be answered: the connection ends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("ttrpc frame of unknown type {0}")]
    UnknownType(u8),
    #[error("ttrpc frame of type {frame_type} is not for this side")]
    WrongDirection { frame_type: u8 },
    #[error("ttrpc response does not decode: {0}")]
    BadResponse(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    length: usize,
    stream: u32,
    frame_type: u8,
    flags: u8,
}

fn parse_header(bytes: &[u8]) -> Option<Header> {
    let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
    let [l0, l1, l2, l3, s0, s1, s2, s3, frame_type, flags] = *bytes;
    Some(Header {
        length: u32::from_be_bytes([l0, l1, l2, l3]) as usize,
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
        frame_type,
        flags,
    })
}

fn append_frame(output: &mut Vec<u8>, stream: u32, frame_type: u8, message: &impl Message) {
    let start = output.len();
    output.extend_from_slice(&[0; HEADER_BYTES]);
    // Our own messages always encode; rust-protobuf only reports writers that fail, and a Vec does not.
    let _ = message.write_to_vec(output);
    let length = (output.len() - start - HEADER_BYTES) as u32;
    output[start..start + 4].copy_from_slice(&length.to_be_bytes());
    output[start + 4..start + 8].copy_from_slice(&stream.to_be_bytes());
    output[start + 8] = frame_type;
}

/// What the bytes of a peer come to.
#[derive(Debug)]
pub enum Incoming {
    Request {
        stream: u32,
        request: Request,
    },
    /// A request that gets an error for its answer without being looked at.
    Refused {
        stream: u32,
        status: Status,
    },
    Response {
        stream: u32,
        response: Response,
    },
}

/// Cuts a stream of bytes into frames. Bounded: it holds at most one payload.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Bytes of an oversized payload still to be thrown away.
    skip: usize,
}

impl Frames {
    pub fn push(&mut self, mut bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Incoming>, FrameError> {
        loop {
            let Some(header) = parse_header(&self.buffer) else {
                return Ok(None);
            };
            if !matches!(header.frame_type, TYPE_REQUEST | TYPE_RESPONSE | TYPE_DATA) {
                return Err(FrameError::UnknownType(header.frame_type));
            }
            if header.length > PAYLOAD_BYTES_MAX {
                let here = (self.buffer.len() - HEADER_BYTES).min(header.length);
                self.buffer.drain(..HEADER_BYTES + here);
                self.skip = header.length - here;
                let message = format!(
                    "message of {} bytes, at most {PAYLOAD_BYTES_MAX} are accepted",
                    header.length
                );
                return Ok(Some(Incoming::Refused {
                    stream: header.stream,
                    status: Status::resource_exhausted(message),
                }));
            }
            if self.buffer.len() < HEADER_BYTES + header.length {
                return Ok(None);
            }
            let payload = &self.buffer[HEADER_BYTES..HEADER_BYTES + header.length];
            let incoming = match header.frame_type {
                TYPE_REQUEST => Some(decode_request(header, payload)),
                TYPE_RESPONSE => Some(Incoming::Response {
                    stream: header.stream,
                    response: Response::parse_from_bytes(payload)
                        .map_err(|error| FrameError::BadResponse(error.to_string()))?,
                }),
                // The end of a stream that was refused when it was opened.
                _ => None,
            };
            self.buffer.drain(..HEADER_BYTES + header.length);
            if self.buffer.is_empty() && self.buffer.capacity() > 4096 {
                self.buffer = Vec::new();
            }
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
    }
}

fn decode_request(header: Header, payload: &[u8]) -> Incoming {
    let stream = header.stream;
    if stream.is_multiple_of(2) {
        let status = Status::invalid_argument(format!("stream id {stream} of a client must be odd"));
        return Incoming::Refused { stream, status };
    }
    if header.flags & FLAG_REMOTE_OPEN != 0 {
        return Incoming::Refused {
            stream,
            status: Status::unimplemented("this service has no streaming calls"),
        };
    }
    match Request::parse_from_bytes(payload) {
        Ok(request) => Incoming::Request { stream, request },
        Err(error) => Incoming::Refused {
            stream,
            status: Status::invalid_argument(format!("request does not decode: {error}")),
        },
    }
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("peer hung up")]
    ByPeer,
    #[error("peer reads too slowly, {0} bytes are waiting for it")]
    TooSlow(usize),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("socket: {0}")]
    Io(#[from] io::Error),
}

/// A socket with its buffers, non-blocking in both directions.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    frames: Frames,
    output: Vec<u8>,
    /// Requests taken and not yet answered.
    pub in_flight: usize,
}

impl Connection {
    /// `socket` must be non-blocking.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            frames: Frames::default(),
            output: Vec::new(),
            in_flight: 0,
        }
    }

    /// Whether there are bytes the socket did not take yet.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the peer should read before it is listened to again.
    pub fn is_congested(&self) -> bool {
        self.output.len() > OUTPUT_BYTES_HIGH
    }

    /// Reads once and returns the whole frames that this completed.
    pub fn receive(&mut self) -> Result<Vec<Incoming>, Closed> {
        let mut bytes = [0u8; 4096];
        match sys::read(&self.socket, &mut bytes) {
            Ok(0) => return Err(Closed::ByPeer),
            Ok(count) => self.frames.push(&bytes[..count]),
            Err(error) if is_transient(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let mut incoming = Vec::new();
        while let Some(frame) = self.frames.next_frame()? {
            incoming.push(frame);
        }
        Ok(incoming)
    }

    /// Queues an answer and sends what the socket takes.
    pub fn respond(&mut self, stream: u32, result: Result<Vec<u8>, Status>) -> Result<(), Closed> {
        let mut response = Response::new();
        match result {
            Ok(payload) => {
                response.set_status(
                    Status {
                        code: Code::OK,
                        message: String::new(),
                    }
                    .into_rpc(),
                );
                response.payload = payload;
            }
            Err(status) => response.set_status(status.into_rpc()),
        }
        append_frame(&mut self.output, stream, TYPE_RESPONSE, &response);
        self.flush()
    }

    /// Queues a call and sends what the socket takes.
    pub fn request(&mut self, stream: u32, request: &Request) -> Result<(), Closed> {
        append_frame(&mut self.output, stream, TYPE_REQUEST, request);
        self.flush()
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<(), Closed> {
        let mut sent = 0;
        while sent < self.output.len() {
            match sys::write(&self.socket, &self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..sent);
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        if self.output.len() > OUTPUT_BYTES_MAX {
            return Err(Closed::TooSlow(self.output.len()));
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u32, frame_type: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(&[frame_type, 0]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn request(service: &str) -> Vec<u8> {
        let mut request = Request::new();
        request.service = service.into();
        request.write_to_bytes().unwrap()
    }

    #[test]
    fn a_request_may_arrive_byte_by_byte() {
        let mut frames = Frames::default();
        let bytes = frame(3, TYPE_REQUEST, &request("s"));
        for byte in &bytes[..bytes.len() - 1] {
            frames.push(&[*byte]);
            assert!(frames.next_frame().unwrap().is_none());
        }
        frames.push(&bytes[bytes.len() - 1..]);
        let Some(Incoming::Request { stream: 3, request }) = frames.next_frame().unwrap() else {
            panic!()
        };
        assert_eq!(request.service, "s");
    }

    #[test]
    fn an_oversized_message_is_refused_and_skipped() {
        let mut frames = Frames::default();
        let size = PAYLOAD_BYTES_MAX + 1;
        frames.push(&frame(1, TYPE_REQUEST, &vec![0; size])[..100]);
        let Some(Incoming::Refused { stream: 1, status }) = frames.next_frame().unwrap() else {
            panic!()
        };
        assert_eq!(status.code, Code::RESOURCE_EXHAUSTED);
        frames.push(&vec![0; size - 90]);
        frames.push(&frame(3, TYPE_REQUEST, &request("next")));
        assert!(matches!(
            frames.next_frame().unwrap(),
            Some(Incoming::Request { stream: 3, .. })
        ));
    }

    #[test]
    fn an_unknown_type_ends_the_connection() {
        let mut frames = Frames::default();
        frames.push(&frame(1, 9, b""));
        assert_eq!(frames.next_frame().unwrap_err(), FrameError::UnknownType(9));
    }

    #[test]
    fn an_even_stream_id_or_garbage_gets_an_answer() {
        let mut frames = Frames::default();
        frames.push(&frame(2, TYPE_REQUEST, &request("s")));
        frames.push(&frame(5, TYPE_REQUEST, &[0xff; 8]));
        for expected in [2, 5] {
            let Some(Incoming::Refused { stream, status }) = frames.next_frame().unwrap() else {
                panic!()
            };
            assert_eq!((stream, status.code), (expected, Code::INVALID_ARGUMENT));
        }
    }
}
