//! `image verify`: what the trust policy makes of an image.

use proto::v1::VerifyRequest;
use serde::Serialize;

use super::credentials;
use crate::cli::Format;
use crate::client::Client;
use crate::failure::Result;
use crate::output;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Verdict {
    digest: String,
    policy: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Signature {
    kind: String,
    signer: String,
    /// Empty: it is for the digest alone.
    name: String,
}

pub(super) async fn verify(client: &Client, reference: String, format: Format) -> Result<u8> {
    let request = VerifyRequest {
        credentials: credentials::of_registry(&reference)?,
        reference,
    };
    let reply = client
        .images()
        .verify(request)
        .await
        .map_err(|status| client.failure(&status))?
        .into_inner();
    let verdict = Verdict {
        digest: reply.digest,
        policy: reply.policy,
        signatures: reply
            .signatures
            .into_iter()
            .map(|signature| Signature {
                kind: signature.kind,
                signer: signature.signer,
                name: signature.name,
            })
            .collect(),
    };
    if format == Format::Json {
        output::print_json(&verdict)?;
        return Ok(0);
    }
    output::print_line(&format!("Digest: {}", verdict.digest))?;
    output::print_line(&format!("Accepted by: {}", verdict.policy))?;
    if verdict.signatures.is_empty() {
        output::print_line("Signed by: nobody, which the policy does not ask for")?;
    }
    for signature in &verdict.signatures {
        output::print_line(&format!("Signed by: {} ({})", signature.signer, signature.kind))?;
        output::print_line(&match signature.name.as_str() {
            "" => "Signed for: this digest, under any name".to_owned(),
            name => format!("Signed for: {name}"),
        })?;
    }
    Ok(0)
}
