//! `notationSigned`: a Notary Project signature, made by notation with a certificate of an authority that is trusted.
//!
//! Source: the Notary Project's signature-specification.md, signing-scheme.md and trust-store-trust-policy.md. The
//! requirement has the fields of a statement in notation's trustpolicy.json; the trust stores lie beside the policy
//! as they lie in notation's folder. Revocation is not looked up: that needs the network, and an answer that does not
//! come would have to stop the pull.

mod certificates;
mod cose;
mod jws;
mod names;
mod stores;
mod timestamp;

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::Deserialize;

use super::policy::Policy;
use super::{Asked, Signature};
use crate::Error;
use crate::digest::{Digest, quote};
use certificates::Signer;
use names::Name;
use stores::{Kind, Store, Stores};

const PAYLOAD: &str = "application/vnd.cncf.notary.payload.v1+json";
const SCHEME: &str = "io.cncf.notary.signingScheme";
const EXPIRY: &str = "io.cncf.notary.expiry";
const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
const AUTHENTIC_TIME: &str = "io.cncf.notary.authenticSigningTime";
const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";
const BY_CERTIFICATE: &str = "notary.x509";
const BY_AUTHORITY: &str = "notary.x509.signingAuthority";

/// The requirement as the policy has it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(crate) struct Notation {
    stores: Vec<Store>,
    /// `None`: whoever a trusted authority has certified.
    identities: Option<Vec<Name>>,
    level: Level,
    verify_timestamp: VerifyTimestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    signature_verification: Verification,
    trust_stores: Vec<String>,
    trusted_identities: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Verification {
    level: Level,
    verify_timestamp: Option<VerifyTimestamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Level {
    #[default]
    Strict,
    /// What has expired is accepted, and logged.
    Permissive,
}

/// When a timestamp has to be there, if a store of timestamp authorities is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum VerifyTimestamp {
    #[default]
    Always,
    /// Once a certificate of the signer's has expired; till then it is not looked at.
    AfterCertExpiry,
}

impl TryFrom<Fields> for Notation {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Notation, String> {
        let stores: Vec<Store> = fields
            .trust_stores
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, String>>()?;
        let is_clock = |store: &Store| store.kind == Kind::Tsa;
        if stores.iter().all(is_clock) {
            return Err("notationSigned needs a ca: or signingAuthority: among its trustStores".into());
        }
        let Verification {
            level,
            verify_timestamp,
        } = fields.signature_verification;
        if verify_timestamp.is_some() && !stores.iter().any(is_clock) {
            return Err(
                "verifyTimestamp needs a tsa: among the trustStores: without one no timestamp is looked at"
                    .into(),
            );
        }
        let identities = match fields.trusted_identities.as_slice() {
            [] => {
                return Err(
                    "notationSigned needs trustedIdentities; [\"*\"] trusts all that its stores do".into(),
                );
            }
            [any] if any == "*" => None,
            several => Some(
                several
                    .iter()
                    .map(|text| Name::parse(text))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Notation {
            stores,
            identities,
            level,
            verify_timestamp: verify_timestamp.unwrap_or_default(),
        })
    }
}

/// What an envelope says, whatever its encoding. Nothing of it is believed before [`Envelope::verify`].
#[derive(Debug)]
pub(super) struct Envelope {
    algorithm: Algorithm,
    /// The bytes that the signature is over.
    signed: Vec<u8>,
    signature: Vec<u8>,
    payload: Vec<u8>,
    content_type: String,
    /// DER, the signer's first.
    chain: Vec<Vec<u8>>,
    attributes: Attributes,
    /// An RFC 3161 token over the signature.
    timestamp: Option<Vec<u8>>,
}

/// The signed attributes.
#[derive(Debug, Default)]
struct Attributes {
    scheme: String,
    critical: Vec<String>,
    signing_time: Option<Timestamp>,
    authentic_time: Option<Timestamp>,
    expiry: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    target_artifact: Target,
}

#[derive(Deserialize)]
struct Target {
    digest: String,
}

/// How an envelope is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Jws,
    Cose,
}

impl Encoding {
    pub(crate) fn of_media_type(media_type: &str) -> Option<Encoding> {
        match media_type {
            "application/jose+json" => Some(Encoding::Jws),
            "application/cose" => Some(Encoding::Cose),
            _ => None,
        }
    }
}

/// A requirement with its trust stores read.
pub(super) struct Judge<'a> {
    requirement: &'a Notation,
    stores: Stores,
}

impl Notation {
    pub(super) fn judge(&self, policy: &Policy) -> Result<Judge<'_>, Error> {
        Ok(Judge {
            requirement: self,
            stores: Stores::read(&self.stores, policy)?,
        })
    }
}

impl Judge<'_> {
    /// When the signer's certificates have to be valid: when it was signed, where somebody vouches for that, or now.
    fn time(
        &self,
        envelope: &Envelope,
        signer: &Signer<'_>,
        now: Timestamp,
    ) -> Result<RangeInclusive<Timestamp>, String> {
        if let Some(time) = envelope.attributes.authentic_time {
            return Ok(time..=time);
        }
        let is_asked_for = match self.requirement.verify_timestamp {
            VerifyTimestamp::Always => true,
            VerifyTimestamp::AfterCertExpiry => signer.has_expired(now),
        };
        if !is_asked_for || self.stores.of(Kind::Tsa).next().is_none() {
            return Ok(now..=now);
        }
        let token = envelope.timestamp.as_ref().ok_or(
            "it has no timestamp, which the policy asks for with a tsa: store (\"verifyTimestamp\": \
             \"afterCertExpiry\" asks only once its certificate has expired)",
        )?;
        timestamp::verify(token, &envelope.signature, &self.stores)
    }
}

/// Whether it is a signature that `judge` accepts, for `digest`.
pub(super) fn judge(
    encoding: Encoding,
    content: &[u8],
    digest: &Digest,
    asked: &Asked<'_>,
    judge: &Judge<'_>,
) -> Result<Signature, String> {
    let envelope = match encoding {
        Encoding::Jws => jws::parse(content)?,
        Encoding::Cose => cose::parse(content)?,
    };
    let signer = Signer::parse(&envelope.chain)?;
    signer.verify(envelope.algorithm, &envelope.signed, &envelope.signature)?;
    let attributes = &envelope.attributes;
    attributes.check()?;
    if envelope.content_type != PAYLOAD {
        return Err(format!(
            "its payload is {}, not {PAYLOAD}",
            quote(&envelope.content_type)
        ));
    }
    let lenient = judge.requirement.level == Level::Permissive;
    let or_log = |result: Result<(), String>| match result {
        Err(reason) if lenient => {
            tracing::warn!(image = %asked.reference, reason, "accepted, for the policy is permissive");
            Ok(())
        }
        other => other,
    };
    let by_authority = attributes.scheme == BY_AUTHORITY;
    let certified = judge
        .time(&envelope, &signer, asked.now)
        .and_then(|time| signer.verify_chain(&judge.stores, by_authority, &time));
    match certified {
        // Permissive is about time alone: an expired chain still has to be a chain, at the time it claims.
        Err(reason) if lenient => {
            let claimed = attributes.signing_time.ok_or_else(|| reason.clone())?;
            signer.verify_chain(&judge.stores, by_authority, &(claimed..=claimed))?;
            or_log(Err(reason))?;
        }
        other => other?,
    }
    let name = signer.name()?;
    if let Some(trusted) = &judge.requirement.identities
        && !trusted.iter().any(|trusted| trusted.is_within(&name))
    {
        return Err(format!(
            "its signer is {name}, which is none of the trustedIdentities"
        ));
    }
    if let Some(expiry) = attributes.expiry.filter(|expiry| *expiry <= asked.now) {
        or_log(Err(format!("it expired at {expiry}")))?;
    }
    // Only now is it worth reading.
    let payload: Payload = serde_json::from_slice(&envelope.payload)
        .map_err(|e| format!("its payload is not that of a signature: {e}"))?;
    if payload.target_artifact.digest != digest.to_string() {
        return Err(format!("it is for {}", quote(&payload.target_artifact.digest)));
    }
    Ok(Signature {
        kind: "notation",
        signer: name.to_string(),
        // There is none in it.
        name: None,
    })
}

impl Attributes {
    /// The rules of the two signing schemes, and for what has to be understood.
    fn check(&self) -> Result<(), String> {
        let known = [SCHEME, EXPIRY, AUTHENTIC_TIME];
        if let Some(unknown) = self.critical.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!(
                "its attribute {} is critical and not known here{}",
                quote(unknown),
                if unknown.contains("verificationPlugin") {
                    ": verification plugins are not supported"
                } else {
                    ""
                }
            ));
        }
        let is_critical = |name: &str| self.critical.iter().any(|critical| critical == name);
        let by_authority = match self.scheme.as_str() {
            BY_CERTIFICATE => false,
            BY_AUTHORITY => true,
            other => return Err(format!("its signing scheme is {}", quote(other))),
        };
        for (name, is_there) in [
            (SCHEME, true),
            (EXPIRY, self.expiry.is_some()),
            (AUTHENTIC_TIME, self.authentic_time.is_some()),
        ] {
            if is_there != is_critical(name) {
                return Err(format!(
                    "its attribute {name} has to be critical where it is there, and only there"
                ));
            }
        }
        if by_authority != self.authentic_time.is_some() || by_authority == self.signing_time.is_some() {
            return Err(format!(
                "scheme {} has {}",
                self.scheme,
                if by_authority {
                    AUTHENTIC_TIME
                } else {
                    SIGNING_TIME
                }
            ));
        }
        Ok(())
    }
}

/// Both parsers, and those of the certificates and the timestamp inside.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(content: &[u8]) {
    timestamp::fuzz(content);
    for parsed in [jws::parse(content), cose::parse(content)] {
        let Ok(envelope) = parsed else { continue };
        let _ = envelope.attributes.check();
        if let Some(token) = &envelope.timestamp {
            timestamp::fuzz(token);
        }
        if let Ok(signer) = Signer::parse(&envelope.chain) {
            let _ = signer.verify(envelope.algorithm, &envelope.signed, &envelope.signature);
        }
    }
}

/// A certificate, and the names in it.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_certificate(content: &[u8]) {
    if let Ok(signer) = Signer::parse(&[content.to_vec()]) {
        let _ = signer.name().map(|name| name.to_string());
        let _ = signer.verify_chain(
            &Stores::default(),
            false,
            &(Timestamp::UNIX_EPOCH..=Timestamp::UNIX_EPOCH),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_to_fit_their_scheme() {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let good = || Attributes {
            scheme: BY_CERTIFICATE.into(),
            critical: text(&[SCHEME]),
            signing_time: Some(Timestamp::UNIX_EPOCH),
            ..Attributes::default()
        };
        assert_eq!(good().check(), Ok(()));
        let plugin = "io.cncf.notary.verificationPlugin";
        for (attributes, part) in [
            (
                Attributes {
                    critical: text(&[]),
                    ..good()
                },
                "critical where",
            ),
            (
                Attributes {
                    critical: text(&[SCHEME, EXPIRY]),
                    ..good()
                },
                "critical where",
            ),
            (
                Attributes {
                    critical: text(&[SCHEME, "x"]),
                    ..good()
                },
                "not known",
            ),
            (
                Attributes {
                    critical: text(&[SCHEME, plugin]),
                    ..good()
                },
                "plugins are not",
            ),
            (
                Attributes {
                    expiry: Some(Timestamp::MAX),
                    ..good()
                },
                "critical where",
            ),
            (
                Attributes {
                    signing_time: None,
                    ..good()
                },
                "signingTime",
            ),
            (
                Attributes {
                    scheme: BY_AUTHORITY.into(),
                    ..good()
                },
                "authenticSigningTime",
            ),
            (
                Attributes {
                    scheme: "other".into(),
                    ..good()
                },
                "signing scheme",
            ),
        ] {
            let error = attributes.check().unwrap_err();
            assert!(error.contains(part), "{attributes:?}: {error}");
        }
    }

    #[test]
    fn a_requirement_is_checked_when_it_is_read() {
        let parse = |text: &str| serde_json::from_str::<Notation>(text).map_err(|e| e.to_string());
        assert!(parse(r#"{"trustStores": ["ca:acme"], "trustedIdentities": ["*"]}"#).is_ok());
        for (text, part) in [
            (
                r#"{"trustStores": [], "trustedIdentities": ["*"]}"#,
                "needs a ca:",
            ),
            (
                r#"{"trustStores": ["tsa:a"], "trustedIdentities": ["*"]}"#,
                "needs a ca:",
            ),
            (
                r#"{"trustStores": ["ca:../a"], "trustedIdentities": ["*"]}"#,
                "trust store",
            ),
            (
                r#"{"trustStores": ["x:a"], "trustedIdentities": ["*"]}"#,
                "trust store",
            ),
            (
                r#"{"trustStores": ["ca:a"], "trustedIdentities": []}"#,
                "trustedIdentities",
            ),
            (
                r#"{"trustStores": ["ca:a"], "trustedIdentities": ["*", "*"]}"#,
                "x509.subject",
            ),
            (
                r#"{"trustStores": ["ca:a"], "trustedIdentities": ["x509.subject: CN=a"]}"#,
                "C, ST and O",
            ),
            (
                r#"{"trustStores": ["ca:a"], "trustedIdentities": ["*"], "signatureVerification": {"level": "skip"}}"#,
                "skip",
            ),
            (
                r#"{"trustStores": ["ca:a"], "trustedIdentities": ["*"], "signatureVerification": {"level": "strict", "verifyTimestamp": "always"}}"#,
                "needs a tsa:",
            ),
            (
                r#"{"trustStores": ["ca:a", "tsa:a"], "trustedIdentities": ["*"], "signatureVerification": {"level": "strict", "verifyTimestamp": "never"}}"#,
                "unknown variant `never`",
            ),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
