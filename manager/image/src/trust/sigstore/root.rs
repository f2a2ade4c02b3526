//! What vouches for a certificate and for its time: a certificate authority, logs, timestamp authorities.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::DerPublicKey;
use x509_cert::Certificate;
use x509_cert::der::Encode as _;

use super::{Source, wrong};
use crate::Error;
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
        let root = TrustedRoot::from_json(&json).map_err(|e| refuse(e.to_string()))?;
        let material = sigstore_verify::Verifier::new(&root).map_err(|e| refuse(e.to_string()))?;
        Ok(Some(Verifier {
            material,
            has_certificate_logs: !root.ctlogs.is_empty(),
            has_timestamp_authorities: !root.timestamp_authorities.is_empty(),
        }))
    }
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
        let certificates = Certificate::load_pem_chain(text.as_bytes())
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
