//! Signatures as registries keep them: a manifest each, and the blobs that it points to.
//!
//! They are found in two ways: as referrers of the image's digest, and under a tag that is made of it. The same
//! documents are kept with the image, so that a policy of tomorrow can judge it without asking its registry again.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::notation::Encoding;
use crate::Error;
use crate::digest::Digest;
use crate::error::Kind;
use crate::manifest::{Descriptor, Referrer};
use crate::registry::Sources;

/// Bounds of what is fetched to judge one image.
const DOCUMENTS_MAX: usize = 64;
const BLOBS_MAX: usize = 64;
const BLOB_BYTES_MAX: u64 = 1 << 20;
const BYTES_MAX: usize = 16 << 20;

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Artifact types of signatures; cosign's second one is that of an experiment which its version 2 began.
const BUNDLE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
const COSIGN: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const NOTATION: &str = "application/vnd.cncf.notary.signature";

/// A signature's manifest and blobs, found for `subject`.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) subject: Digest,
    pub(crate) digest: Digest,
    pub(crate) content: Vec<u8>,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
}

/// One signature in a document.
pub(super) enum Candidate<'a> {
    Simple(&'a [u8], &'a BTreeMap<String, String>),
    Bundle(&'a [u8]),
    Notation(Encoding, &'a [u8]),
}

/// A signature's manifest, with what of it may be a signature.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    layers: Vec<Layer>,
    /// How many more it has, which are not looked at.
    #[serde(skip)]
    pub(super) left_out: usize,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Layer {
    fn is_signature(&self) -> bool {
        self.media_type == SIMPLE
            || self.media_type.starts_with(BUNDLE_PREFIX)
            || Encoding::of_media_type(&self.media_type).is_some()
    }

    fn descriptor(&self) -> Result<Descriptor, String> {
        if self.size > BLOB_BYTES_MAX {
            return Err(format!("a blob of it is longer than {BLOB_BYTES_MAX} bytes"));
        }
        Ok(Descriptor {
            media_type: self.media_type.clone(),
            digest: Digest::parse(&self.digest)?,
            size: self.size,
            data: None,
            urls: Vec::new(),
        })
    }
}

impl Document {
    /// What its manifest points to that may be a signature: the newest of many, for cosign puts new ones last.
    pub(super) fn manifest(content: &[u8]) -> Result<Manifest, String> {
        let mut manifest: Manifest = serde_json::from_slice(content)
            .map_err(|e| format!("it is not the manifest of a signature: {e}"))?;
        manifest.layers.retain(Layer::is_signature);
        manifest.left_out = manifest.layers.len().saturating_sub(BLOBS_MAX);
        manifest.layers.drain(..manifest.left_out);
        Ok(manifest)
    }

    /// The digests of the blobs that have to be there to judge it.
    pub(super) fn blob_digests(content: &[u8]) -> Result<Vec<Digest>, String> {
        let manifest = Document::manifest(content)?;
        manifest
            .layers
            .iter()
            .map(|layer| Digest::parse(&layer.digest))
            .collect()
    }

    pub(super) fn candidates<'a>(&'a self, manifest: &'a Manifest) -> Vec<Candidate<'a>> {
        let each = manifest.layers.iter().filter_map(|layer| {
            let content = self.blobs.get(&Digest::parse(&layer.digest).ok()?)?;
            Some(match Encoding::of_media_type(&layer.media_type) {
                Some(encoding) => Candidate::Notation(encoding, content),
                None if layer.media_type == SIMPLE => Candidate::Simple(content, &layer.annotations),
                None => Candidate::Bundle(content),
            })
        });
        each.collect()
    }
}

/// All signatures of `subject` that its repository has, and the reasons why some of them cannot be looked at.
///
/// One that is missing or broken is such a reason, for another may do; a registry that does not answer is an error.
pub(super) async fn fetch(
    registry: &Sources,
    subject: &Digest,
) -> Result<(Vec<Document>, Vec<String>), Error> {
    let mut targets = Vec::new();
    // cosign has no tag for longer digests: a tag is at most 128 characters long.
    if subject.algorithm_name() == "sha256" {
        targets.push(format!("sha256-{}.sig", subject.hex()));
    }
    for Referrer {
        artifact_type,
        digest,
        ..
    } in registry.referrers(subject).await?
    {
        if artifact_type.starts_with(BUNDLE_PREFIX) || artifact_type == COSIGN || artifact_type == NOTATION {
            targets.push(digest);
        }
    }
    let mut reasons = Vec::new();
    if targets.len() > DOCUMENTS_MAX {
        reasons.push(format!(
            "of {} places for signatures of {subject} only the first {DOCUMENTS_MAX} were looked at",
            targets.len()
        ));
    }
    let mut documents = Vec::new();
    let mut bytes = 0;
    for target in targets.iter().take(DOCUMENTS_MAX) {
        let expected = Digest::parse(target).ok();
        let fetched = match registry.manifest(target, None, expected.as_ref()).await {
            Ok(fetched) => fetched,
            // Nobody has said that there is one under the tag.
            Err(error) if error.kind() == Kind::NotFound && expected.is_none() => continue,
            Err(error) => {
                reasons.push(reason(target, error)?);
                continue;
            }
        };
        let manifest = match Document::manifest(&fetched.content) {
            Ok(manifest) => manifest,
            Err(reason) => {
                reasons.push(format!("signature {target}: {reason}"));
                continue;
            }
        };
        let mut blobs = BTreeMap::new();
        for layer in &manifest.layers {
            let descriptor = match layer.descriptor() {
                Ok(descriptor) => descriptor,
                Err(reason) => {
                    reasons.push(format!("signature {target}: {reason}"));
                    continue;
                }
            };
            match registry.small_blob(&descriptor).await {
                Ok(content) => {
                    bytes += content.len();
                    blobs.insert(descriptor.digest, content);
                }
                Err(error) => reasons.push(reason(target, error)?),
            }
            if bytes > BYTES_MAX {
                reasons.insert(
                    0,
                    format!("only {BYTES_MAX} bytes of the signatures of {subject} were looked at"),
                );
                return Ok((documents, reasons));
            }
        }
        documents.push(Document {
            subject: subject.clone(),
            digest: fetched.digest,
            content: fetched.content,
            blobs,
        });
    }
    Ok((documents, reasons))
}

/// The error as a reason, if it is about this signature and not about the registry as a whole.
fn reason(target: &str, error: Error) -> Result<String, Error> {
    match (error.kind(), &error) {
        (Kind::NotFound | Kind::Invalid, _) | (_, Error::Protocol { .. }) => {
            Ok(format!("signature {target}: {error}"))
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_a_signature_is_taken_from_a_manifest() {
        let layer = |media_type: &str| {
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{}","size":1,"annotations":{{"a":"b"}}}}"#,
                Digest::of(media_type.as_bytes())
            )
        };
        let types = [
            SIMPLE,
            "text/plain",
            "application/vnd.dev.sigstore.bundle.v0.3+json",
            "application/cose",
            "application/jose+json",
        ];
        let layers: Vec<String> = types.iter().map(|media_type| layer(media_type)).collect();
        let content = format!(r#"{{"layers":[{}]}}"#, layers.join(","));
        let blobs = Document::blob_digests(content.as_bytes()).unwrap();
        assert_eq!(blobs.len(), 4);
        let document = Document {
            subject: Digest::of(b""),
            digest: Digest::of(content.as_bytes()),
            content: content.clone().into_bytes(),
            blobs: blobs[1..]
                .iter()
                .map(|digest| (digest.clone(), b"x".to_vec()))
                .collect(),
        };
        let manifest = Document::manifest(&document.content).unwrap();
        // The first one's blob is not there.
        assert_eq!(document.candidates(&manifest).len(), 3);
        let many: Vec<String> = (0..=BLOBS_MAX)
            .map(|number| {
                let digest = Digest::of(&number.to_be_bytes());
                format!(r#"{{"mediaType":"{SIMPLE}","digest":"{digest}","size":1}}"#)
            })
            .collect();
        let many = format!(r#"{{"layers":[{}]}}"#, many.join(","));
        let newest = Document::blob_digests(many.as_bytes()).unwrap();
        assert_eq!(newest.len(), BLOBS_MAX);
        assert_eq!(newest[0], Digest::of(&1_usize.to_be_bytes()));
        assert_eq!(Document::manifest(many.as_bytes()).unwrap().left_out, 1);
    }
}
