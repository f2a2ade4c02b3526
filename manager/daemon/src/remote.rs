//! The API over TCP, for clients on other machines. Who may use it may do all that root may, so each side has to show a
//! certificate: there is no way to serve it without.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::accept;
use crate::handshakes::Handshakes;

/// Who connects and does not say who it is may do so for this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that is gone without a word (its machine, or the way there) is noticed after this and the timeout below;
/// else what it had open would stay so.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Files of certificates are read whole.
const PEM_MAX_BYTES: u64 = 1 << 20;

/// Where, and with which certificates.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct RemoteOptions {
    /// Serve the API at this address too, over TLS, to clients whose certificate --tlscacert has signed.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) tcp: Option<SocketAddr>,
    /// The authorities that sign clients' certificates, in PEM.
    #[arg(long, value_name = "PATH")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// This manager's certificate, and those between it and its authority, in PEM.
    #[arg(long, value_name = "PATH")]
    pub(crate) tlscert: Option<PathBuf>,
    /// The key of this manager's certificate, in PEM.
    #[arg(long, value_name = "PATH")]
    pub(crate) tlskey: Option<PathBuf>,
}

/// A server that is set up, and who connects to it, having shown a certificate.
pub(crate) struct Remote {
    pub(crate) server: Server,
    pub(crate) incoming: ReceiverStream<io::Result<TlsStream<TcpStream>>>,
    /// The certificates of those who connect from now on.
    pub(crate) certificates: watch::Sender<TlsAcceptor>,
}

impl RemoteOptions {
    /// All of them or none.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let certificates = [&self.tlscacert, &self.tlscert, &self.tlskey];
        if self.tcp.is_some() {
            ensure!(
                certificates.iter().all(|path| path.is_some()),
                "--tcp is for clients that show a certificate: --tlscacert, --tlscert and --tlskey have to be given too"
            );
            self.tls()?;
        } else {
            ensure!(
                certificates.iter().all(|path| path.is_none()),
                "--tlscacert, --tlscert and --tlskey are for --tcp, which is not given"
            );
        }
        Ok(())
    }

    /// The certificates, as their files have them now.
    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        Ok(TlsAcceptor::from(Arc::new(self.tls()?)))
    }

    /// Listen, if that is asked for.
    pub(crate) async fn listen(&self) -> anyhow::Result<Option<Remote>> {
        let Some(address) = self.tcp else {
            return Ok(None);
        };
        let (certificates, tls) = watch::channel(self.acceptor()?);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen at {address}"))?;
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
        // One at a time: each is taken when it comes.
        let (known, incoming) = mpsc::channel(1);
        tokio::spawn(take(listener, tls, known));
        tracing::info!(%address, "serves clients with a certificate");
        Ok(Some(Remote {
            server,
            incoming: ReceiverStream::new(incoming),
            certificates,
        }))
    }

    fn tls(&self) -> anyhow::Result<ServerConfig> {
        // It is checked that none is missing.
        let [authorities, certificate, key] = [&self.tlscacert, &self.tlscert, &self.tlskey]
            .map(|path| path.as_deref().unwrap_or(Path::new("")));
        let mut roots = RootCertStore::empty();
        for root in certificates("--tlscacert", authorities)? {
            roots
                .add(root)
                .with_context(|| format!("--tlscacert {}", authorities.display()))?;
        }
        let clients = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .with_context(|| format!("--tlscacert {}", authorities.display()))?;
        let own = certificates("--tlscert", certificate)?;
        let own_key = PrivateKeyDer::from_pem_slice(&read("--tlskey", key)?)
            .with_context(|| format!("--tlskey {}: find a key in PEM in it", key.display()))?;
        let mut tls = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(own, own_key)
            .with_context(|| {
                let [certificate, key] = [certificate, key].map(Path::display);
                format!("use the certificate {certificate} with the key {key}")
            })?;
        tls.alpn_protocols.push(b"h2".into());
        Ok(tls)
    }
}

/// Take who connects, and hand on who shows a certificate, until nobody asks for them any more.
async fn take(
    listener: TcpListener,
    tls: watch::Receiver<TlsAcceptor>,
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
        let (tls, known) = (tls.borrow().clone(), known.clone());
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

fn certificates(option: &str, path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let pem = read(option, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.with_context(|| format!("{option} {}: read certificates in PEM", path.display()))?;
    ensure!(
        !all.is_empty(),
        "{option} {}: there is no certificate in PEM in it",
        path.display()
    );
    Ok(all)
}

fn read(option: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let what = || format!("{option} {}", path.display());
    let length = std::fs::metadata(path).with_context(what)?.len();
    ensure!(
        length <= PEM_MAX_BYTES,
        "{}: longer than {PEM_MAX_BYTES} bytes",
        what()
    );
    std::fs::read(path).with_context(what)
}
