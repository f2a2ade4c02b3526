//! Envelopes in CBOR: a `COSE_Sign1`, RFC 9052.

use coset::cbor::Value;
use coset::iana::{self, EnumI64 as _};
use coset::{ContentType, CoseSign1, Header, Label, RegisteredLabelWithPrivate, TaggedCborSerializable as _};
use jiff::Timestamp;

use super::{AUTHENTIC_TIME, Algorithm, Attributes, EXPIRY, Envelope, SCHEME, SIGNING_TIME, TIMESTAMP};

/// RFC 9360.
const X5CHAIN: i64 = 33;
/// RFC 8949: seconds since 1970.
const EPOCH_TIME: u64 = 1;

pub(super) fn parse(content: &[u8]) -> Result<Envelope, String> {
    let message =
        CoseSign1::from_tagged_slice(content).map_err(|e| format!("it is not a COSE_Sign1: {e}"))?;
    let signed = message.tbs_data(b"");
    let header = &message.protected.header;
    let time = |name: &str| {
        text_label(header, name)
            .map(|value| epoch_time(name, value))
            .transpose()
    };
    let chain = find(&message.unprotected, &Label::Int(X5CHAIN))
        .or_else(|| find(header, &Label::Int(X5CHAIN)))
        .ok_or("it has no certificates")?;
    let scheme = text_label(header, SCHEME)
        .and_then(Value::as_text)
        .ok_or_else(|| format!("it has no {SCHEME}"))?;
    let content_type = match &header.content_type {
        Some(ContentType::Text(text)) => text.clone(),
        _ => return Err("it does not tell the type of its payload".into()),
    };
    Ok(Envelope {
        algorithm: algorithm(header)?,
        signed,
        payload: message.payload.clone().ok_or("it has no payload")?,
        content_type,
        chain: certificates(chain)?,
        attributes: Attributes {
            scheme: scheme.to_owned(),
            critical: critical(header),
            signing_time: time(SIGNING_TIME)?,
            authentic_time: time(AUTHENTIC_TIME)?,
            expiry: time(EXPIRY)?,
        },
        timestamp: text_label(&message.unprotected, TIMESTAMP)
            .and_then(Value::as_bytes)
            .cloned(),
        signature: message.signature,
    })
}

fn find<'a>(header: &'a Header, label: &Label) -> Option<&'a Value> {
    header
        .rest
        .iter()
        .find(|(found, _)| found == label)
        .map(|(_, value)| value)
}

fn text_label<'a>(header: &'a Header, name: &str) -> Option<&'a Value> {
    find(header, &Label::Text(name.to_owned()))
}

fn epoch_time(name: &str, value: &Value) -> Result<Timestamp, String> {
    let seconds = match value {
        Value::Tag(EPOCH_TIME, inner) => inner.as_integer().and_then(|n| i64::try_from(n).ok()),
        _ => None,
    };
    seconds
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| format!("its {name} is not a time"))
}

fn critical(header: &Header) -> Vec<String> {
    let names = header.crit.iter().map(|label| match label {
        RegisteredLabelWithPrivate::Text(name) => name.clone(),
        RegisteredLabelWithPrivate::PrivateUse(number) => number.to_string(),
        RegisteredLabelWithPrivate::Assigned(known) => known.to_i64().to_string(),
    });
    names.collect()
}

fn certificates(value: &Value) -> Result<Vec<Vec<u8>>, String> {
    let one = |value: &Value| {
        value
            .as_bytes()
            .cloned()
            .ok_or_else(|| "its certificates are not bytes".to_owned())
    };
    match value {
        Value::Array(several) => several.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}

fn algorithm(header: &Header) -> Result<Algorithm, String> {
    let known = match &header.alg {
        Some(RegisteredLabelWithPrivate::Assigned(known)) => known,
        other => return Err(format!("its algorithm {other:?} is not supported here")),
    };
    match known {
        iana::Algorithm::PS256 => Ok(Algorithm::Ps256),
        iana::Algorithm::PS384 => Ok(Algorithm::Ps384),
        iana::Algorithm::PS512 => Ok(Algorithm::Ps512),
        iana::Algorithm::ES256 => Ok(Algorithm::Es256),
        iana::Algorithm::ES384 => Ok(Algorithm::Es384),
        other => Err(format!("its algorithm {other:?} is not supported here")),
    }
}
