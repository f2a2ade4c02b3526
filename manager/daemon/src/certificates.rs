//! The certificates of the API over TCP. They are looked at whenever a client comes, so that one that was renewed counts
//! from then on; clients that are there already stay.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Files of certificates are read whole.
const PEM_MAX_BYTES: u64 = 1 << 20;

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) authorities: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What tells one file from the next of its name.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Certificates as they were read last.
pub(crate) struct Certificates {
    files: Files,
    read: Mutex<Read>,
}

struct Read {
    stamps: [Stamp; 3],
    tls: TlsAcceptor,
}

impl Certificates {
    /// Read them for the first time.
    pub(crate) fn read(files: Files) -> anyhow::Result<Certificates> {
        let stamps = files.stamps();
        let tls = files.tls()?;
        Ok(Certificates {
            files,
            read: Mutex::new(Read { stamps, tls }),
        })
    }

    /// For one client. Files that changed are read again; while they are no use (one of them is not yet there, or does
    /// not fit the others) the last ones that were count.
    pub(crate) fn current(&self) -> TlsAcceptor {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the files are read: what comes later is seen by the next client.
        let stamps = self.files.stamps();
        if stamps != read.stamps {
            read.stamps = stamps;
            match self.files.tls() {
                Ok(tls) => {
                    tracing::info!("the certificates of the API over TCP have changed and were read again");
                    read.tls = tls;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(%error, "certificates have changed and cannot be used: the earlier ones stay");
                }
            }
        }
        read.tls.clone()
    }
}

impl Files {
    fn stamps(&self) -> [Stamp; 3] {
        [&self.authorities, &self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((
                metadata.dev(),
                metadata.ino(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ))
        })
    }

    fn tls(&self) -> anyhow::Result<TlsAcceptor> {
        let Files {
            authorities,
            certificate,
            key,
        } = self;
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
                let [certificate, key] = [certificate, key].map(|path| path.display());
                format!("use the certificate {certificate} with the key {key}")
            })?;
        tls.alpn_protocols.push(b"h2".into());
        Ok(TlsAcceptor::from(Arc::new(tls)))
    }
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
