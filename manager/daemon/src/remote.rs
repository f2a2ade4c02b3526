//! The API over TCP, for clients on other machines. Who may use it may do all that root may, so each side has to show a
//! certificate: there is no way to serve it without.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::accept;
use crate::certificates::{Certificates, Files};
use crate::handshakes::Handshakes;

/// Who connects and does not say who it is may do so for this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that is gone without a word (its machine, or the way there) is noticed after this and the timeout below;
/// else what it had open would stay so.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where, and with which certificates.
#[derive(Debug, Args)]
pub(crate) struct RemoteOptions {
    /// Serve the API at this address too, over TLS, to clients whose certificate --tlscacert has signed.
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["tlscacert", "tlscert", "tlskey"])]
    tcp: Option<SocketAddr>,
    /// The authorities that sign clients' certificates, in PEM.
    #[arg(long, value_name = "PATH", requires = "tcp")]
    tlscacert: Option<PathBuf>,
    /// This manager's certificate, and those between it and its authority, in PEM.
    #[arg(long, value_name = "PATH", requires = "tcp")]
    tlscert: Option<PathBuf>,
    /// The key of this manager's certificate, in PEM.
    #[arg(long, value_name = "PATH", requires = "tcp")]
    tlskey: Option<PathBuf>,
}

/// A server that is set up, and who connects to it, having shown a certificate.
pub(crate) struct Remote {
    pub(crate) server: Server,
    pub(crate) incoming: ReceiverStream<io::Result<TlsStream<TcpStream>>>,
}

impl RemoteOptions {
    /// Listen, if that is asked for, with certificates that can be used.
    pub(crate) async fn listen(&self) -> anyhow::Result<Option<Remote>> {
        let Some(address) = self.tcp else {
            return Ok(None);
        };
        // clap has seen to it that none is missing.
        let path = |given: &Option<PathBuf>| given.clone().unwrap_or_default();
        let certificates = Certificates::read(Files {
            authorities: path(&self.tlscacert),
            certificate: path(&self.tlscert),
            key: path(&self.tlskey),
        })?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen at {address}"))?;
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
        // One at a time: each is taken when it comes.
        let (known, incoming) = mpsc::channel(1);
        tokio::spawn(take(listener, certificates, known));
        tracing::info!(%address, "serves clients with a certificate");
        Ok(Some(Remote {
            server,
            incoming: ReceiverStream::new(incoming),
        }))
    }
}

/// Take who connects, and hand on who shows a certificate, until nobody asks for them any more.
async fn take(
    listener: TcpListener,
    certificates: Certificates,
    known: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let handshakes = Arc::new(Handshakes::default());
    loop {
        let next = async {
            let (stream, from) = accept::tcp(&listener).await;
            (handshakes.enter(from.ip()).await, stream, from)
        };
        let (place, stream, from) = tokio::select! {
            next = next => next,
            () = known.closed() => return,
        };
        let (tls, known) = (certificates.current(), known.clone());
        let (address, number) = place.key();
        let task = tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(stream, &tls)).await;
            match shaken {
                Ok(Ok(stream)) => {
                    // It is known now, and nobody's place any more: it is not ended for another's sake.
                    tokio::spawn(async move {
                        drop(place);
                        // Nobody takes it at the manager's end.
                        drop(known.send(Ok(stream)).await);
                    });
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "a client is not let in"),
                Err(_) => tracing::debug!(%from, "a client has not said in time who it is"),
            }
        });
        handshakes.begun(address, number, task.abort_handle());
    }
}

async fn greet(stream: TcpStream, tls: &TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &(KEEPALIVE.as_secs() as u32))?;
    tls.accept(stream).await
}
