//! What vouches for a certificate and for its time: a certificate authority, logs, timestamp authorities.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{DerPublicKey, TimeRange};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _, Tag};

use super::{Source, wrong};
use crate::Error;
use crate::trust::pem;
use crate::trust::policy::Policy;

/// As the policy has it.
#[derive(Debug)]
pub(super) enum Root {
    /// A key suffices.
    Nothing,
    /// As in containers-policy.json(5).
    Parts {
        authority: Option<Source>,
        logs: Vec<Source>,
    },
    /// Sigstore's own `trusted_root.json`.
    Whole(Source),
}

/// Read, and ready to judge by.
pub(super) struct Verifier {
    pub(super) material: sigstore_verify::Verifier,
    /// Whether certificates have to be in a certificate transparency log.
    pub(super) has_certificate_logs: bool,
    /// Whether times other than the log's can be judged.
    pub(super) has_timestamp_authorities: bool,
}

impl Root {
    pub(super) fn read(&self, policy: &Policy) -> Result<Option<Verifier>, Error> {
        let json = match self {
            Root::Nothing => return Ok(None),
            Root::Whole(source) => source.read(policy)?,
            Root::Parts { authority, logs } => assemble(authority.as_ref(), logs, policy)?.to_string(),
        };
        let refuse = |e: String| wrong(policy, format!("sigstore's root of trust: {e}"));
        let mut root = TrustedRoot::from_json(&json).map_err(|e| refuse(e.to_string()))?;
        keep_to_dates(&mut root).map_err(|e| refuse(e.to_string()))?;
        let material = sigstore_verify::Verifier::new(&root).map_err(|e| refuse(e.to_string()))?;
        Ok(Some(Verifier {
            material,
            has_certificate_logs: !root.ctlogs.is_empty(),
            has_timestamp_authorities: !root.timestamp_authorities.is_empty(),
        }))
    }
}

/// Have each authority trusted no longer than its certificates are valid: the library goes by the time that the file
/// gives to an authority alone, and takes each certificate of a chain for one that may have the last word.
fn keep_to_dates(root: &mut TrustedRoot) -> x509_cert::der::Result<()> {
    for authority in std::mem::take(&mut root.certificate_authorities) {
        for entry in &authority.cert_chain.certificates {
            let mut one = authority.clone();
            one.valid_for = Some(narrowed(one.valid_for, entry.raw_bytes.as_bytes())?);
            one.cert_chain.certificates = vec![entry.clone()];
            root.certificate_authorities.push(one);
        }
    }
    for authority in &mut root.timestamp_authorities {
        for entry in &authority.cert_chain.certificates {
            authority.valid_for = Some(narrowed(authority.valid_for, entry.raw_bytes.as_bytes())?);
        }
    }
    // What is left of no time is refused by the library as a mistake in the file.
    let is_some_time = |window: &Option<TimeRange>| {
        window.is_none_or(|window| window.end.is_none_or(|end| window.start <= end))
    };
    root.certificate_authorities
        .retain(|authority| is_some_time(&authority.valid_for));
    root.timestamp_authorities
        .retain(|authority| is_some_time(&authority.valid_for));
    Ok(())
}

fn narrowed(window: Option<TimeRange>, certificate: &[u8]) -> x509_cert::der::Result<TimeRange> {
    let validity = Certificate::from_der(certificate)?.tbs_certificate.validity;
    let mut own = TimeRange::new(
        validity
            .not_before
            .to_string()
            .parse()
            .map_err(|_| Tag::GeneralizedTime.value_error())?,
        // What lies beyond the library's calendar is "for ever" (RFC 5280, section 4.1.2.5).
        validity.not_after.to_string().parse().ok(),
    );
    if let Some(window) = window {
        own.start = own.start.max(window.start);
        own.end = [own.end, window.end].into_iter().flatten().min();
    }
    Ok(own)
}

/// The parts in the form of a `trusted_root.json`.
fn assemble(authority: Option<&Source>, logs: &[Source], policy: &Policy) -> Result<Value, Error> {
    let mut tlogs = Vec::new();
    for source in logs {
        let key = DerPublicKey::from_pem(&source.read(policy)?)
            .map_err(|e| wrong(policy, format!("log key {}: {e}", source.name())))?;
        tlogs.push(json!({
            "baseUrl": "",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": STANDARD.encode(key.as_bytes()), "keyDetails": "PUBLIC_KEY_DETAILS_UNSPECIFIED"},
            // A log is called by the hash of its key.
            "logId": {"keyId": STANDARD.encode(Sha256::digest(key.as_bytes()))},
        }));
    }
    let mut authorities = Vec::new();
    if let Some(source) = authority {
        let text = source.read(policy)?;
        let certificates = pem::certificates(text.as_bytes())
            .map_err(|e| wrong(policy, format!("certificates {}: {e}", source.name())))?;
        let mut entries = Vec::new();
        for certificate in certificates {
            let der = certificate
                .to_der()
                .map_err(|e| wrong(policy, format!("certificates {}: {e}", source.name())))?;
            entries.push(json!({"rawBytes": STANDARD.encode(der)}));
        }
        authorities.push(json!({"uri": "", "certChain": {"certificates": entries}}));
    }
    Ok(json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": tlogs,
        "certificateAuthorities": authorities,
    }))
}
