//! The way to the manager: one lazily opened HTTP/2 connection, and what its errors mean.

use std::error::Error as _;
use std::future;
use std::io;
use std::path::Path;
use std::time::Duration;

use proto::v1::containers_client::ContainersClient;
use proto::v1::images_client::ImagesClient;
use proto::v1::networks_client::NetworksClient;
use proto::v1::system_client::SystemClient;
use proto::v1::volumes_client::VolumesClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tower::service_fn;

use crate::failure::{Failure, Result};
use crate::host::{Certificates, Host, Target};
use crate::tunnel;

/// A list of thousands of containers is still one message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Output of a container streams in bulk; the default of 64 KiB would make it stop and go.
const WINDOW_BYTES: u32 = 1 << 20;
/// A machine that is not there does not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A handle to the manager; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    host: Host,
}

impl Client {
    /// Nothing is sent, or even opened, before the first call. Must be called inside the event loop.
    pub(crate) fn new(target: &Target) -> Result<Self> {
        let wrong = |error: tonic::transport::Error| Failure::new(format!("{}: {error}", target.host));
        let endpoint = |uri: String| {
            let endpoint = Endpoint::from_shared(uri).map_err(wrong)?;
            Ok::<_, Failure>(
                endpoint
                    .initial_stream_window_size(WINDOW_BYTES)
                    .initial_connection_window_size(4 * WINDOW_BYTES),
            )
        };
        let channel = match &target.host {
            Host::Unix(path) => endpoint(format!("unix://{path}"))?.connect_lazy(),
            Host::Tcp(place) => endpoint(format!("https://{place}"))?
                .connect_timeout(CONNECT_TIMEOUT)
                // Sessions may be silent for hours, and whatever is between must not forget them.
                .http2_keep_alive_interval(KEEPALIVE)
                .tls_config(tls(target.certificates.as_ref())?)
                .map_err(wrong)?
                .connect_lazy(),
            Host::Ssh(ssh) => {
                let ssh = ssh.clone();
                endpoint("http://manager".to_owned())?
                    .connect_with_connector_lazy(service_fn(move |_| future::ready(tunnel::open(&ssh))))
            }
        };
        Ok(Self {
            channel,
            host: target.host.clone(),
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

    pub(crate) fn networks(&self) -> NetworksClient<Channel> {
        NetworksClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn volumes(&self) -> VolumesClient<Channel> {
        VolumesClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What a failed call means to the person.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        let host = &self.host;
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
            return Failure::new(format!("the connection to the manager at {host} was lost"))
                .with_hint(self.hint_of_loss());
        };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Failure::new(format!("no manager answers at {host}: {error}"))
                    .with_hint(self.hint_of_silence())
            }
            io::ErrorKind::PermissionDenied => Failure::new(format!("connect to {host}: {error}"))
                .with_hint("the socket is for root and its group"),
            _ => Failure::new(format!(
                "the connection to the manager at {host} was lost: {error}"
            ))
            .with_hint(self.hint_of_loss()),
        }
    }

    fn hint_of_silence(&self) -> &'static str {
        match self.host {
            Host::Unix(_) => {
                "start it with `manager`, as root or as the user whose containers they are; or name its socket with --socket or BERTH_SOCKET"
            }
            Host::Tcp(_) => "start it there, as root, with `manager --tcp ADDRESS:PORT` and its certificates",
            Host::Ssh(_) => "install ssh (in Debian, the package openssh-client)",
        }
    }

    fn hint_of_loss(&self) -> &'static str {
        match self.host {
            Host::Unix(_) => {
                "containers run on without the manager; start it again and attach, or read their logs"
            }
            Host::Tcp(_) => {
                "each side has to show a certificate that the other's authorities have signed (--tlscacert, --tlscert, \
                 --tlskey), and the manager's has to name this host; containers run on in any case"
            }
            Host::Ssh(_) => {
                "there, managerctl has to be in the PATH, the manager has to run, and the user has to be root or in the \
                 group of its socket; containers run on in any case"
            }
        }
    }
}

fn tls(files: Option<&Certificates>) -> Result<ClientTlsConfig> {
    let Some(files) = files else {
        return Ok(ClientTlsConfig::new());
    };
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Failure::new(format!("read {}: {error}", path.display())))
    };
    let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&files.authorities)?))
        .identity(identity))
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
