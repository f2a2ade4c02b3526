//! Certificates of signers: what their keys are for, and whom they name.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use webpki::KeyUsage;
use x509_cert::Certificate;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912::{
    ANY_EXTENDED_KEY_USAGE, ID_EC_PUBLIC_KEY, ID_KP_CLIENT_AUTH, ID_KP_CODE_SIGNING, ID_KP_EMAIL_PROTECTION,
    ID_KP_OCSP_SIGNING, ID_KP_SERVER_AUTH, ID_KP_TIME_STAMPING, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1,
};
use x509_cert::der::{Decode as _, Reader as _, SliceReader};
use x509_cert::ext::pkix;

use super::Algorithm;
use super::names::Name;
use super::stores::{Kind, Stores, is_valid_at};

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

    /// Whether an authority in the stores has certified the signer, and all certificates were valid all that `time`.
    pub(super) fn verify_chain(
        &self,
        stores: &Stores,
        by_authority: bool,
        time: &RangeInclusive<Timestamp>,
    ) -> Result<(), String> {
        self.check_usage()?;
        let kind = if by_authority {
            Kind::SigningAuthority
        } else {
            Kind::Ca
        };
        let is_trusted_itself =
            self.chain.len() == 1 && stores.of(kind).any(|trusted| *trusted == self.chain[0]);
        for time in [*time.start(), *time.end()] {
            if is_trusted_itself {
                self.check_validity(time)?;
            } else {
                let usage = KeyUsage::required_if_present(ID_KP_CODE_SIGNING.as_bytes());
                stores.verify_path(kind, &self.chain[0], &self.chain[1..], usage, time)?;
            }
        }
        Ok(())
    }

    /// Whether one of its certificates is no longer valid at `now`.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        self.chain.iter().any(|der| {
            Certificate::from_der(der).is_ok_and(|certificate| {
                let until = certificate.tbs_certificate.validity.not_after;
                until.to_unix_duration().as_secs() < now
            })
        })
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
