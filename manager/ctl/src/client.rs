//! The way to the manager: one lazily opened HTTP/2 connection over its UNIX socket, and what its errors mean.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};

use proto::v1::containers_client::ContainersClient;
use proto::v1::images_client::ImagesClient;
use proto::v1::system_client::SystemClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::failure::{Failure, Result};

/// A list of thousands of containers is still one message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Output of a container streams in bulk; the default of 64 KiB would make it stop and go.
const WINDOW_BYTES: u32 = 1 << 20;
/// `sun_path` of unix(7), without the zero byte at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A handle to the manager; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    socket: PathBuf,
}

impl Client {
    /// Nothing is sent, or even opened, before the first call. Must be called inside the event loop.
    pub(crate) fn new(socket: &Path) -> Result<Self> {
        let path = socket
            .to_str()
            .map(|path| path.strip_prefix("unix://").unwrap_or(path));
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Err(Failure::new(format!(
                "--socket {}: must be a path in UTF-8",
                socket.display()
            )));
        };
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(Failure::new(format!(
                "--socket {path}: the path is too long for a socket: {} bytes, and the kernel takes \
                 {SOCKET_PATH_BYTES_MAX}",
                path.len()
            )));
        }
        let channel = Endpoint::from_shared(format!("unix://{path}"))
            .map_err(|error| Failure::new(format!("--socket {path}: {error}")))?
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(4 * WINDOW_BYTES)
            .connect_lazy();
        Ok(Self {
            channel,
            socket: PathBuf::from(path),
        })
    }

    pub(crate) fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn system(&self) -> SystemClient<Channel> {
        SystemClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What a failed call means to the person.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        let socket = self.socket.display();
        // A status that has a source was made on this side: the manager never answered.
        if status.source().is_none() {
            return match status.code() {
                Code::Unimplemented if status.message().is_empty() => {
                    Failure::new("the manager does not know this request (is it older than managerctl?)")
                }
                code if status.message().is_empty() => Failure::new(code.description()),
                Code::FailedPrecondition if status.message().starts_with("the trust policy ") => {
                    Failure::new(status.message()).with_hint(
                        "take an image that its publisher signed, sign it (cosign sign, notation sign), or change the policy: \
                         `managerctl image verify IMAGE` asks again",
                    )
                }
                _ => Failure::new(status.message()),
            };
        }
        let Some(error) = io_error(status) else {
            return Failure::new(format!("the connection to the manager at {socket} was lost")).with_hint(
                "containers run on without the manager; start it again and attach, or read their logs",
            );
        };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(format!(
                "no manager answers at {socket}: {error}"
            ))
            .with_hint("start it, as root, with `manager`; or name its socket with --socket or BERTH_SOCKET"),
            io::ErrorKind::PermissionDenied => Failure::new(format!("connect to {socket}: {error}"))
                .with_hint("the socket is for root and its group"),
            _ => Failure::new(format!(
                "the connection to the manager at {socket} was lost: {error}"
            )),
        }
    }
}

/// The system's own word about a call, if that is what failed.
fn io_error(status: &Status) -> Option<&io::Error> {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
