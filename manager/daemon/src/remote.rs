//! The API over TCP, for clients on other machines. Who may use it may do all that root may, so each side has to show a
//! certificate: there is no way to serve it without.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// Who connects and does not say who it is may do so for this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that is gone without a word (its machine, or the way there) is noticed after this and the timeout below;
/// else what it had open would stay so.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Files of certificates are read whole.
const PEM_MAX_BYTES: u64 = 1 << 20;

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

/// A server that is set up, and who connects to it.
pub(crate) struct Remote {
    pub(crate) server: Server,
    pub(crate) incoming: TcpIncoming,
}

impl RemoteOptions {
    /// Listen, if that is asked for. The certificates are read now: newer ones need a newer manager.
    pub(crate) fn listen(&self) -> anyhow::Result<Option<Remote>> {
        let (Some(address), Some(authorities), Some(certificate), Some(key)) =
            (self.tcp, &self.tlscacert, &self.tlscert, &self.tlskey)
        else {
            return Ok(None);
        };
        let tls = ServerTlsConfig::new()
            .client_ca_root(Certificate::from_pem(read("--tlscacert", authorities)?))
            .identity(Identity::from_pem(
                read("--tlscert", certificate)?,
                read("--tlskey", key)?,
            ))
            .timeout(HANDSHAKE_TIMEOUT);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .tls_config(tls)
            .with_context(|| {
                let [authorities, certificate, key] =
                    [authorities, certificate, key].map(|path| path.display());
                format!("use the certificates {authorities} and {certificate} with the key {key}")
            })?;
        let incoming = TcpIncoming::bind(address)
            .with_context(|| format!("listen at {address}"))?
            .with_nodelay(Some(true))
            .with_keepalive(Some(KEEPALIVE));
        tracing::info!(%address, "serves clients with a certificate");
        Ok(Some(Remote { server, incoming }))
    }
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
