//! The newer form: a sigstore bundle with an in-toto statement in it, as cosign 3 makes it by default.

use sigstore_verify::types::{Bundle, DsseEnvelope, Sha256Hash, Sha512Hash, SignatureContent};

use super::Judge;
use crate::digest::{Digest, quote};
use crate::trust::{Asked, Signature};

const STATEMENT: &str = "application/vnd.in-toto+json";
/// That the statement is a signature of an image. Others tell how it was built, or what is in it: who signs those
/// need not want it to be run.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// Whether it is a signature that `judge` accepts, for `digest` and for the name that was asked for.
pub(crate) fn judge(
    content: &[u8],
    digest: &Digest,
    asked: &Asked<'_>,
    judge: &Judge<'_>,
) -> Result<Signature, String> {
    let bundle = parse(content)?;
    let envelope = envelope(&bundle)?;
    let signer = if judge.needs_log() {
        let artifact = Sha256Hash::from_hex(digest.hex())
            .map_err(|_| format!("sigstore bundles are for sha256 digests, not {digest}"))?;
        judge.verify_bundle(artifact, &bundle)?
    } else {
        judge.verify_with_key(&envelope.pae(), &envelope.signature.sig)?
    };
    // Only now is it worth reading.
    let statement: sigstore_verify::types::Statement = serde_json::from_slice(envelope.payload.as_bytes())
        .map_err(|e| format!("it is not an in-toto statement: {e}"))?;
    if statement.predicate_type != PREDICATE {
        return Err(format!(
            "it is a statement of type {}, not a signature",
            quote(&statement.predicate_type)
        ));
    }
    let subject = statement.subject.iter().find(|subject| {
        let named = match digest.algorithm_name() {
            "sha256" => subject.digest.sha256.as_ref().map(Sha256Hash::to_hex),
            _ => subject.digest.sha512.as_ref().map(Sha512Hash::to_hex),
        };
        named.as_deref() == Some(digest.hex())
    });
    let subject = subject.ok_or("it is for another digest")?;
    let name = Some(subject.name.as_str()).filter(|name| !name.is_empty());
    judge.signature(signer, name, asked)
}

fn parse(content: &[u8]) -> Result<Bundle, String> {
    let text = std::str::from_utf8(content).map_err(|_| "the bundle is not UTF-8")?;
    Bundle::from_json(text).map_err(|e| format!("it is not a sigstore bundle: {e}"))
}

fn envelope(bundle: &Bundle) -> Result<&DsseEnvelope, String> {
    match &bundle.content {
        SignatureContent::DsseEnvelope(envelope) if envelope.payload_type == STATEMENT => Ok(envelope),
        SignatureContent::DsseEnvelope(envelope) => Err(format!(
            "its payload is {}, not {STATEMENT}",
            quote(&envelope.payload_type)
        )),
        _ => Err("it is a bundle for a file, not for an image".into()),
    }
}

/// The parsers, and sigstore's rules for what they give, against logs and authorities that sign nothing.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(content: &[u8]) {
    let Ok(bundle) = parse(content) else { return };
    if let Some(certificate) = bundle.signing_certificate() {
        let _ = sigstore_verify::crypto::parse_certificate_info(certificate);
    }
    let _ = envelope(&bundle).map(DsseEnvelope::pae);
}
