//! TLS as hosts.toml and docker's certificate folders want it: own authorities, client certificates, no check at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::hosts::read_bounded;

/// What is wanted of TLS with one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Files of authorities, trusted beside the machine's.
    pub(super) authorities: Vec<PathBuf>,
    /// Files of certificates that we show, each with the file of its key: none, if it is in the same.
    pub(super) clients: Vec<(PathBuf, Option<PathBuf>)>,
    pub(super) skip_verify: bool,
}

impl Tls {
    /// How to speak with the host itself. Blocks on files; an error names the one that cannot be used.
    pub(super) fn with_host(&self) -> Result<ClientConfig, String> {
        let keys: Result<Vec<_>, String> = self
            .clients
            .iter()
            .map(|(certificate, key)| client_key(certificate, key.as_deref()).map(Arc::new))
            .collect();
        let keys = keys?;
        let mut config = self.elsewhere()?;
        if self.skip_verify {
            config
                .dangerous()
                .set_certificate_verifier(Arc::new(Anybody(provider())));
        }
        if !keys.is_empty() {
            config.client_auth_cert_resolver = Arc::new(ClientKeys(keys));
        }
        Ok(config)
    }

    /// How to speak with hosts that this one sends us to, its storage or token server: they may be signed by its
    /// authorities, but see nothing of ours, and have to prove who they are.
    pub(super) fn elsewhere(&self) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        Ok(builder
            .with_root_certificates(self.trusted()?)
            .with_no_client_auth())
    }

    /// The machine's authorities (`SSL_CERT_FILE` and `SSL_CERT_DIR` included) and those of this host.
    fn trusted(&self) -> Result<RootCertStore, String> {
        let mut store = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in native.errors {
            tracing::debug!(%error, "a certificate of this machine cannot be used");
        }
        store.add_parsable_certificates(native.certs);
        for path in &self.authorities {
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|e| format!("{}: a certificate cannot be used: {e}", path.display()))?;
            }
        }
        Ok(store)
    }
}

/// How to speak with a server that is no registry, by files of PEM: an authority beside the machine's, and a certificate
/// to show with its key; an empty path names none. Blocks on files; an error names the one that cannot be used.
pub fn client_tls(
    authority: &Path,
    certificate: &Path,
    key: &Path,
    skip_verify: bool,
) -> Result<ClientConfig, String> {
    let given = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    let tls = Tls {
        authorities: given(authority).into_iter().collect(),
        clients: given(certificate)
            .map(|certificate| (certificate, given(key)))
            .into_iter()
            .collect(),
        skip_verify,
    };
    tls.with_host()
}

fn provider() -> CryptoProvider {
    crypto::ring::default_provider()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let content = read_bounded(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} has no certificate in PEM", path.display())),
        Err(e) => Err(format!("{} is not PEM: {e}", path.display())),
    }
}

fn client_key(certificate: &Path, key: Option<&Path>) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let path = key.unwrap_or(certificate);
    let wrong = |e: &dyn std::fmt::Display| format!("{}: the key cannot be used: {e}", path.display());
    let key = PrivateKeyDer::from_pem_slice(&read_bounded(path)?).map_err(|e| wrong(&e))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|e| wrong(&e))
}

/// Shows the certificate that the server's authorities have signed, or the first that fits the handshake.
#[derive(Debug)]
struct ClientKeys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientKeys {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // A certificate holds its issuer's name in the very bytes in which the server tells it.
        let is_known = |key: &&Arc<CertifiedKey>| {
            key.cert
                .iter()
                .any(|c| issuers.iter().any(|name| !name.is_empty() && contains(c, name)))
        };
        let mut fitting = self.0.iter().filter(fits);
        fitting.clone().find(is_known).or_else(|| fitting.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

/// Takes every certificate, for `skip_verify`; the handshake's signatures still have to fit it.
#[derive(Debug)]
struct Anybody(CryptoProvider);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
