//! Envelopes in JSON: a JWS in its flattened form, RFC 7515.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Algorithm, Attributes, Envelope};
use crate::digest::quote;

#[derive(Deserialize)]
struct Jws {
    payload: String,
    protected: String,
    header: Header,
    signature: String,
}

#[derive(Deserialize)]
struct Header {
    x5c: Vec<String>,
    #[serde(rename = "io.cncf.notary.timestampSignature")]
    timestamp: Option<String>,
}

/// Strict: an attribute that is not known and not critical may be there, one that is there twice may not.
#[derive(Deserialize)]
struct Protected {
    alg: String,
    cty: String,
    #[serde(default)]
    crit: Vec<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(rename = "io.cncf.notary.signingTime")]
    signing_time: Option<Timestamp>,
    #[serde(rename = "io.cncf.notary.authenticSigningTime")]
    authentic_time: Option<Timestamp>,
    #[serde(rename = "io.cncf.notary.expiry")]
    expiry: Option<Timestamp>,
}

pub(super) fn parse(content: &[u8]) -> Result<Envelope, String> {
    let jws: Jws = serde_json::from_slice(content).map_err(|e| format!("it is not a JWS: {e}"))?;
    let url_safe = |what: &str, text: &str| {
        URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|e| format!("its {what} is not base64url: {e}"))
    };
    let protected: Protected = serde_json::from_slice(&url_safe("protected header", &jws.protected)?)
        .map_err(|e| format!("its protected header: {e}"))?;
    let standard = |what: &str, text: &str| {
        STANDARD
            .decode(text)
            .map_err(|e| format!("its {what} is not base64: {e}"))
    };
    let chain = jws.header.x5c.iter().map(|text| standard("certificate", text));
    let timestamp = jws.header.timestamp.as_deref();
    Ok(Envelope {
        algorithm: algorithm(&protected.alg)?,
        signed: format!("{}.{}", jws.protected, jws.payload).into_bytes(),
        signature: url_safe("signature", &jws.signature)?,
        payload: url_safe("payload", &jws.payload)?,
        content_type: protected.cty,
        chain: chain.collect::<Result<_, _>>()?,
        attributes: Attributes {
            scheme: protected.scheme,
            critical: protected.crit,
            signing_time: protected.signing_time,
            authentic_time: protected.authentic_time,
            expiry: protected.expiry,
        },
        timestamp: timestamp.map(|text| standard("timestamp", text)).transpose()?,
    })
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    match name {
        "PS256" => Ok(Algorithm::Ps256),
        "PS384" => Ok(Algorithm::Ps384),
        "PS512" => Ok(Algorithm::Ps512),
        "ES256" => Ok(Algorithm::Es256),
        "ES384" => Ok(Algorithm::Es384),
        other => Err(format!("its algorithm {} is not supported here", quote(other))),
    }
}
