//! The older form: a "simple signing" payload, and its signature and certificate as annotations.
//!
//! Source: cosign's `SIGNATURE_SPEC.md`; the payload is that of containers-signature(5).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sigstore_verify::types::{Bundle, SignatureBytes};
use x509_cert::der::Encode as _;

use super::Judge;
use crate::digest::{Digest, quote};
use crate::trust::{Asked, Signature, pem, provider};

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
const CERTIFICATES_MAX: usize = 10;

/// A payload and its annotations, as found; nothing of it is believed yet.
#[derive(Debug)]
pub(crate) struct Simple<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) annotations: &'a BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

/// What a log promised when it took the signature in.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LogEntry {
    signed_entry_timestamp: String,
    payload: Entry,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Timestamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    signed: String,
}

/// Whether it is a signature that `judge` accepts, for `digest` and for the name that was asked for.
pub(crate) fn judge(
    simple: &Simple<'_>,
    digest: &Digest,
    asked: &Asked<'_>,
    judge: &Judge<'_>,
) -> Result<Signature, String> {
    let text = simple
        .annotations
        .get(SIGNATURE)
        .ok_or_else(|| format!("it has no annotation {SIGNATURE}"))?;
    let signature = STANDARD
        .decode(text)
        .map_err(|e| format!("its signature is not base64: {e}"))?;
    let signer = if judge.needs_log() {
        let has_authority = judge.root.as_ref().is_some_and(|r| r.has_timestamp_authorities);
        let bundle = as_bundle(simple, &signature, has_authority)?;
        provider::with_message(simple.payload, || judge.verify_bundle(simple.payload, &bundle))?
    } else {
        judge.verify_with_key(simple.payload, &SignatureBytes::new(signature))?
    };
    // Only now is it worth reading.
    let payload: Payload = serde_json::from_slice(simple.payload)
        .map_err(|e| format!("its payload is not that of a signature: {e}"))?;
    let critical = payload.critical;
    if critical.kind != "cosign container image signature" && critical.kind != "atomic container signature" {
        return Err(format!("it is of type {}", quote(&critical.kind)));
    }
    if critical.image.docker_manifest_digest != digest.to_string() {
        return Err(format!(
            "it is for {}",
            quote(&critical.image.docker_manifest_digest)
        ));
    }
    judge.signature(signer, Some(&critical.identity.docker_reference), asked)
}

/// The same in the form of a bundle, for there is one way to verify those.
fn as_bundle(simple: &Simple<'_>, signature: &[u8], with_timestamp: bool) -> Result<Bundle, String> {
    let annotation = |name: &str| simple.annotations.get(name).filter(|text| !text.is_empty());
    let entry = annotation(LOG_ENTRY)
        .map(|text| log_entry(text).map_err(|e| format!("its annotation {LOG_ENTRY}: {e}")))
        .transpose()?
        .ok_or("it is in no transparency log, which the policy asks for")?;
    let mut material = match annotation(CERTIFICATE) {
        Some(leaf) => {
            let chain = annotation(CHAIN).map_or("", String::as_str);
            let text = format!("{leaf}\n{chain}");
            json!({"x509CertificateChain": {"certificates": certificates(&text)?}})
        }
        None => json!({"publicKey": {"hint": ""}}),
    };
    material["tlogEntries"] = json!([entry]);
    if let Some(text) = annotation(TIMESTAMP).filter(|_| with_timestamp) {
        let timestamp: Timestamp =
            serde_json::from_str(text).map_err(|e| format!("its annotation {TIMESTAMP}: {e}"))?;
        material["timestampVerificationData"] =
            json!({"rfc3161Timestamps": [{"signedTimestamp": timestamp.signed}]});
    }
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1",
        "verificationMaterial": material,
        "messageSignature": {
            "messageDigest": {
                "algorithm": "SHA2_256",
                "digest": STANDARD.encode(Sha256::digest(simple.payload)),
            },
            "signature": STANDARD.encode(signature),
        },
    });
    Bundle::from_json(&bundle.to_string()).map_err(|e| e.to_string())
}

fn certificates(text: &str) -> Result<Vec<Value>, String> {
    let refuse = |e: String| format!("its certificates: {e}");
    let chain = pem::certificates(text.as_bytes()).map_err(refuse)?;
    if chain.len() > CERTIFICATES_MAX {
        return Err(format!("it has {} certificates", chain.len()));
    }
    let der = chain
        .iter()
        .map(|one| one.to_der().map_err(|e| refuse(e.to_string())));
    der.map(|der| Ok(json!({"rawBytes": STANDARD.encode(der?)})))
        .collect()
}

fn log_entry(text: &str) -> Result<Value, String> {
    let LogEntry {
        signed_entry_timestamp,
        payload,
    } = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let body = STANDARD.decode(&payload.body).map_err(|e| e.to_string())?;
    let kind: Kind = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    let log_id = hex::decode(&payload.log_id).map_err(|e| e.to_string())?;
    Ok(json!({
        "logIndex": payload.log_index.to_string(),
        "logId": {"keyId": STANDARD.encode(log_id)},
        "kindVersion": {"kind": kind.kind, "version": kind.api_version},
        "integratedTime": payload.integrated_time.to_string(),
        "inclusionPromise": {"signedEntryTimestamp": signed_entry_timestamp},
        "canonicalizedBody": payload.body,
    }))
}

/// The parsers, before anything is verified.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(content: &[u8]) {
    let _ = serde_json::from_slice::<Payload>(content);
    let Ok(text) = std::str::from_utf8(content) else {
        return;
    };
    let _ = log_entry(text);
    let _ = certificates(text);
    let _ = serde_json::from_str::<Timestamp>(text);
}
