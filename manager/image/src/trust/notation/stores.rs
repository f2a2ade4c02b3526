//! The trust stores: folders with the certificates of the authorities that the policy trusts, as notation has them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::Error;
use crate::digest::quote;
use crate::trust::pem;
use crate::trust::policy::Policy;

/// Where notation keeps trust stores, below the folder of its configuration.
const FOLDER: &str = "truststore/x509";

/// The name of a trust store: `ca:acme`.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) kind: Kind,
    name: String,
}

/// What a store's authorities are trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To certify who signs.
    Ca,
    /// The same, and that they say truly when they signed.
    SigningAuthority,
    /// To certify who says when something was signed.
    Tsa,
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Store, String> {
        let refuse = || {
            format!(
                "trust store {} is not ca:, signingAuthority: or tsa: and a name of letters, digits, `_`, `.` and `-`",
                quote(text)
            )
        };
        let (kind, name) = text.split_once(':').ok_or_else(refuse)?;
        let kind = match kind {
            "ca" => Kind::Ca,
            "signingAuthority" => Kind::SigningAuthority,
            "tsa" => Kind::Tsa,
            _ => return Err(refuse()),
        };
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
            return Err(refuse());
        }
        Ok(Store {
            kind,
            name: name.to_owned(),
        })
    }
}

impl Store {
    fn folder(&self, policy: &Policy) -> PathBuf {
        let kind = match self.kind {
            Kind::Ca => "ca",
            Kind::SigningAuthority => "signingAuthority",
            Kind::Tsa => "tsa",
        };
        policy.beside(&PathBuf::from(FOLDER)).join(kind).join(&self.name)
    }
}

/// The certificates of all stores that a requirement names.
#[derive(Default)]
pub(super) struct Stores(Vec<(Kind, Vec<u8>)>);

impl Stores {
    pub(super) fn read(stores: &[Store], policy: &Policy) -> Result<Stores, Error> {
        let mut all = Vec::new();
        for store in stores {
            let folder = store.folder(policy);
            let refuse = |rule: String| Error::Policy {
                path: policy.path().to_owned(),
                rule: format!("trust store {}: {rule}", folder.display()),
            };
            let entries = std::fs::read_dir(&folder).map_err(|e| refuse(e.to_string()))?;
            let mut paths: Vec<PathBuf> = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
                .map_err(|e| refuse(e.to_string()))?;
            paths.sort();
            if paths.is_empty() {
                return Err(refuse("it has no certificates".into()));
            }
            for path in paths {
                let content = std::fs::read(&path).map_err(|e| refuse(e.to_string()))?;
                let certificates = load(&content).map_err(|e| refuse(format!("{}: {e}", path.display())))?;
                all.extend(certificates.into_iter().map(|der| (store.kind, der)));
            }
        }
        Ok(Stores(all))
    }

    pub(super) fn of(&self, wanted: Kind) -> impl Iterator<Item = &Vec<u8>> {
        self.0
            .iter()
            .filter(move |(kind, _)| *kind == wanted)
            .map(|(_, der)| der)
    }

    /// Whether an authority of this kind has certified `leaf` for `usage`, by way of `others`, and all certificates
    /// were valid at `time`.
    pub(super) fn verify_path(
        &self,
        kind: Kind,
        leaf: &[u8],
        others: &[Vec<u8>],
        usage: KeyUsage,
        time: Timestamp,
    ) -> Result<(), String> {
        // The library asks an anchor for its key and name alone, not for its dates.
        let roots: Vec<CertificateDer<'_>> = self
            .of(kind)
            .filter(|der| Certificate::from_der(der).is_ok_and(|root| is_valid_at(&root, time)))
            .map(|der| CertificateDer::from(&der[..]))
            .collect();
        if roots.is_empty() {
            return Err(format!("no certificate of the trust store is valid at {time}"));
        }
        let anchors: Vec<TrustAnchor<'_>> = roots
            .iter()
            .map(webpki::anchor_from_trusted_cert)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("a certificate of the trust store: {e}"))?;
        let leaf = CertificateDer::from(leaf);
        let others: Vec<CertificateDer<'_>> =
            others.iter().map(|der| CertificateDer::from(&der[..])).collect();
        let seconds = u64::try_from(time.as_second()).map_err(|_| "its time is before 1970")?;
        EndEntityCert::try_from(&leaf)
            .and_then(|leaf| {
                let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
                leaf.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &others, time, usage, None, None)
                    .map(|_| ())
            })
            .map_err(|e| format!("its certificate, as of {time}: {e}"))
    }
}

/// A file with one certificate in DER or several in PEM.
fn load(content: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let certificates = match Certificate::from_der(content) {
        Ok(certificate) => vec![certificate],
        Err(_) => pem::certificates(content)?,
    };
    let encoded = certificates.iter().map(x509_cert::der::Encode::to_der);
    encoded.collect::<Result<_, _>>().map_err(|e| e.to_string())
}

pub(super) fn is_valid_at(certificate: &Certificate, time: Timestamp) -> bool {
    let validity = &certificate.tbs_certificate.validity;
    let at = Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    (validity.not_before.to_unix_duration()..=validity.not_after.to_unix_duration()).contains(&at)
}
