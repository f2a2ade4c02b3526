//! Certificates of signers, and the trust stores with the authorities that may certify them.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sigstore_verify::tsa::verify_timestamp_for_authority;
use sigstore_verify::types::{DerCertificate, SignatureBytes, TimestampToken, TsaAuthority};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912::{
    ANY_EXTENDED_KEY_USAGE, ID_EC_PUBLIC_KEY, ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_EMAIL_PROTECTION,
    ID_KP_OCSP_SIGNING, ID_KP_SERVER_AUTH, ID_KP_TIME_STAMPING, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1,
};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix;

use super::names::Name;
use super::{Algorithm, timestamp};
use crate::Error;
use crate::digest::quote;
use crate::trust::policy::Policy;
use crate::trust::provider;

/// Where notation keeps trust stores, below the folder of its configuration.
const FOLDER: &str = "truststore/x509";
const CHAIN_MAX: usize = 10;
const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
/// What a key that signs images must not be for.
const OTHER_PURPOSES: [ObjectIdentifier; 6] = [
    ANY_EXTENDED_KEY_USAGE,
    ID_KP_SERVER_AUTH,
    ID_KP_CLIENT_AUTH,
    ID_KP_EMAIL_PROTECTION,
    ID_KP_TIME_STAMPING,
    ID_KP_OCSP_SIGNING,
];

/// The name of a trust store: `ca:acme`.
#[derive(Debug)]
pub(super) struct Store {
    kind: Kind,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ca,
    SigningAuthority,
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
    pub(super) fn has_signers(&self) -> bool {
        self.kind != Kind::Tsa
    }

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
        provider::install();
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

    pub(super) fn has_timestamp_authorities(&self) -> bool {
        self.0.iter().any(|(kind, _)| *kind == Kind::Tsa)
    }

    /// The time that a trusted authority says it saw `signature` at.
    pub(super) fn verify_timestamp(&self, token: &[u8], signature: &[u8]) -> Result<Timestamp, String> {
        let embedded = timestamp::certificates(token).map_err(|e| format!("its timestamp: {e}"))?;
        let token = TimestampToken::new(token.to_vec());
        let signature = SignatureBytes::new(signature.to_vec());
        let mut reason = "there is no certificate in it".to_owned();
        for root in self.of(Kind::Tsa) {
            // Stores have the roots of authorities; which certificate has signed is in the token.
            for leaf in &embedded {
                let root = DerCertificate::new(root.clone());
                let authority = TsaAuthority::new(leaf.clone(), embedded.clone(), root, None);
                match verify_timestamp_for_authority(&token, &signature, &authority) {
                    Ok(time) => {
                        return Timestamp::from_second(time.as_second())
                            .map_err(|e| format!("its timestamp: {e}"));
                    }
                    Err(e) => reason = e.to_string(),
                }
            }
        }
        Err(format!("its timestamp: {reason}"))
    }

    fn of(&self, wanted: Kind) -> impl Iterator<Item = &Vec<u8>> {
        self.0
            .iter()
            .filter(move |(kind, _)| *kind == wanted)
            .map(|(_, der)| der)
    }
}

/// A file with one certificate in DER or several in PEM.
fn load(content: &[u8]) -> Result<Vec<Vec<u8>>, x509_cert::der::Error> {
    let certificates = match Certificate::from_der(content) {
        Ok(certificate) => vec![certificate],
        Err(_) => Certificate::load_pem_chain(content)?,
    };
    certificates.iter().map(x509_cert::der::Encode::to_der).collect()
}

/// The certificate of an envelope's signer, with those that lead to its authority.
pub(super) struct Signer<'a> {
    chain: &'a [Vec<u8>],
    leaf: Certificate,
}

impl<'a> Signer<'a> {
    pub(super) fn parse(chain: &'a [Vec<u8>]) -> Result<Signer<'a>, String> {
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(format!(
                "it has {} certificates, not 1 to {CHAIN_MAX}",
                chain.len()
            ));
        }
        if chain.iter().any(|der| der.len() > CERTIFICATE_BYTES_MAX) {
            return Err(format!(
                "a certificate is longer than {CERTIFICATE_BYTES_MAX} bytes"
            ));
        }
        let leaf = Certificate::from_der(&chain[0]).map_err(|e| format!("its certificate: {e}"))?;
        Ok(Signer { chain, leaf })
    }

    pub(super) fn name(&self) -> Result<Name, String> {
        Name::of(&self.leaf.tbs_certificate.subject)
    }

    /// Verify a signature by the certificate's key. The key says which algorithm that is; an envelope that says
    /// another one is refused.
    pub(super) fn verify(&self, claimed: Algorithm, signed: &[u8], signature: &[u8]) -> Result<(), String> {
        let info = &self.leaf.tbs_certificate.subject_public_key_info;
        let key = info.subject_public_key.raw_bytes();
        let own = match info.algorithm.oid {
            RSA_ENCRYPTION => match modulus_bits(key).map_err(|e| format!("its key: {e}"))? {
                2048 => Algorithm::Ps256,
                3072 => Algorithm::Ps384,
                4096 => Algorithm::Ps512,
                bits => return Err(format!("its RSA key has {bits} bits, not 2048, 3072 or 4096")),
            },
            ID_EC_PUBLIC_KEY => {
                let curve = info.algorithm.parameters.as_ref();
                match curve.and_then(|curve| curve.decode_as().ok()) {
                    Some(SECP_256_R_1) => Algorithm::Es256,
                    Some(SECP_384_R_1) => Algorithm::Es384,
                    _ => {
                        return Err(
                            "its key is on a curve that is not supported here, only P-256 and P-384 are"
                                .into(),
                        );
                    }
                }
            }
            other => {
                return Err(format!(
                    "its key is of a kind that Notary signatures do not have ({other})"
                ));
            }
        };
        if own != claimed {
            return Err(format!("it says {claimed:?}, its key is one for {own:?}"));
        }
        let algorithm: &dyn VerificationAlgorithm = match own {
            Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        };
        UnparsedPublicKey::new(algorithm, key)
            .verify(signed, signature)
            .map_err(|_| "it is not a signature by its certificate's key".to_owned())
    }

    /// Whether an authority in the stores has certified the signer, and all certificates were valid at `time`.
    pub(super) fn verify_chain(
        &self,
        stores: &Stores,
        by_authority: bool,
        time: Timestamp,
    ) -> Result<(), String> {
        self.check_usage()?;
        let kind = if by_authority {
            Kind::SigningAuthority
        } else {
            Kind::Ca
        };
        if self.chain.len() == 1 && stores.of(kind).any(|trusted| *trusted == self.chain[0]) {
            return self.check_validity(time);
        }
        // The library asks an anchor for its key and name alone, not for its dates.
        let anchors: Vec<CertificateDer<'_>> = stores
            .of(kind)
            .filter(|der| Certificate::from_der(der).is_ok_and(|root| is_valid_at(&root, time)))
            .map(|der| CertificateDer::from(&der[..]))
            .collect();
        if anchors.is_empty() {
            return Err(format!("no certificate of the trust store is valid at {time}"));
        }
        let anchors: Vec<TrustAnchor<'_>> = anchors
            .iter()
            .map(webpki::anchor_from_trusted_cert)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("a certificate of the trust store: {e}"))?;
        let leaf = CertificateDer::from(&self.chain[0][..]);
        let others: Vec<CertificateDer<'_>> = self.chain[1..]
            .iter()
            .map(|der| CertificateDer::from(&der[..]))
            .collect();
        let seconds = u64::try_from(time.as_second()).map_err(|_| "its time is before 1970")?;
        EndEntityCert::try_from(&leaf)
            .and_then(|leaf| {
                leaf.verify_for_usage(
                    ALL_VERIFICATION_ALGS,
                    &anchors,
                    &others,
                    UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                    KeyUsage::required_if_present(ID_KP_CODE_SIGNING.as_bytes()),
                    None,
                    None,
                )
                .map(|_| ())
            })
            .map_err(|e| format!("its certificate, as of {time}: {e}"))
    }

    fn check_validity(&self, time: Timestamp) -> Result<(), String> {
        let validity = &self.leaf.tbs_certificate.validity;
        if !is_valid_at(&self.leaf, time) {
            return Err(format!(
                "its certificate is valid from {} to {}, not at {time}",
                validity.not_before, validity.not_after
            ));
        }
        Ok(())
    }

    /// That the key is one for signatures, and not one that makes certificates.
    fn check_usage(&self) -> Result<(), String> {
        let refuse = |e: x509_cert::der::Error| format!("its certificate: {e}");
        let certificate = &self.leaf.tbs_certificate;
        let (_, usage) = certificate
            .get::<pkix::KeyUsage>()
            .map_err(refuse)?
            .ok_or("its certificate does not say what its key is for (keyUsage)")?;
        if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() || usage.key_encipherment()
        {
            return Err("its certificate is not one for signatures alone (keyUsage)".into());
        }
        if let Some((_, extended)) = certificate.get::<pkix::ExtendedKeyUsage>().map_err(refuse)?
            && extended.0.iter().any(|purpose| OTHER_PURPOSES.contains(purpose))
        {
            return Err("its certificate is for other purposes than signing code (extendedKeyUsage)".into());
        }
        Ok(())
    }
}

/// Source: RFC 8017, appendix A.1.1.
fn modulus_bits(key: &[u8]) -> Result<usize, x509_cert::der::Error> {
    let mut reader = SliceReader::new(key)?;
    let bits = reader.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        UintRef::decode(reader)?;
        let bytes = modulus.as_bytes();
        let zeros = bytes.first().map_or(0, |byte| byte.leading_zeros() as usize);
        Ok(bytes.len() * 8 - zeros)
    })?;
    reader.finish(bits)
}

fn is_valid_at(certificate: &Certificate, time: Timestamp) -> bool {
    let validity = &certificate.tbs_certificate.validity;
    let at = Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    (validity.not_before.to_unix_duration()..=validity.not_after.to_unix_duration()).contains(&at)
}
