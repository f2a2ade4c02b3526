//! Which image a signature claims to be for, and whether that is the one that was asked for.
//!
//! A signature names a digest, and mostly a repository or a tag too. The digest alone does not say under which name
//! its maker wanted the image to be found: without the name, an old image that was signed could be served under the
//! tag of a new one, or in another repository.

use serde::Deserialize;

use crate::digest::quote;
use crate::reference::Reference;

/// What a signature has to say of the image's name.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum SignedIdentity {
    /// The same repository and tag.
    MatchExact {},
    /// The same repository and tag; of an image that is asked for by its digest, the repository.
    MatchRepoDigestOrExact {},
    /// The same repository, whatever the tag.
    MatchRepository {},
    /// This repository and tag, wherever the image was found.
    ExactReference { docker_reference: String },
    /// This repository, wherever the image was found.
    ExactRepository { docker_repository: String },
    /// As `matchRepoDigestOrExact`, once `prefix` of the image's name is replaced.
    RemapIdentity { prefix: String, signed_prefix: String },
    /// Nothing: the digest suffices. Berth's own, for sigstore bundles, which have no name in them.
    MatchDigest {},
}

impl Default for SignedIdentity {
    fn default() -> SignedIdentity {
        SignedIdentity::MatchRepoDigestOrExact {}
    }
}

/// A name, and whether its tag was written.
struct Claim {
    reference: Reference,
    is_tagged: bool,
}

impl Claim {
    fn parse(text: &str) -> Result<Claim, String> {
        let reference = Reference::parse(text).map_err(|e| e.to_string())?;
        let last = text.rsplit('/').next().unwrap_or_default();
        let is_tagged = last.split('@').next().is_some_and(|name| name.contains(':'));
        Ok(Claim { reference, is_tagged })
    }

    fn repository(&self) -> (&str, &str) {
        (&self.reference.host, &self.reference.repository)
    }
}

impl SignedIdentity {
    /// Whether a signature that claims to be for `claimed` is one for `image`. Gives the name that it is held to, if any.
    pub(super) fn check(&self, claimed: Option<&str>, image: &Reference) -> Result<Option<String>, String> {
        if *self == (SignedIdentity::MatchDigest {}) {
            return Ok(None);
        }
        let claimed = claimed.ok_or(
            "it is for this digest but names no repository or tag, so that it would also do for another name: \
             \"signedIdentity\": {\"type\": \"matchDigest\"} accepts that",
        )?;
        let claim = Claim::parse(claimed).map_err(|e| format!("the name it is for: {e}"))?;
        match self {
            SignedIdentity::MatchDigest {} => Ok(()),
            SignedIdentity::MatchExact {} => exact(&claim, image),
            SignedIdentity::MatchRepoDigestOrExact {} => exact_or_by_digest(&claim, image),
            SignedIdentity::MatchRepository {} => same_repository(&claim, image),
            SignedIdentity::ExactReference { docker_reference } => exact(
                &claim,
                &Reference::parse(docker_reference).map_err(|e| e.to_string())?,
            ),
            SignedIdentity::ExactRepository { docker_repository } => same_repository(
                &claim,
                &Reference::parse(docker_repository).map_err(|e| e.to_string())?,
            ),
            SignedIdentity::RemapIdentity {
                prefix,
                signed_prefix,
            } => exact_or_by_digest(&claim, &remapped(image, prefix, signed_prefix)?),
        }?;
        Ok(Some(claimed.to_owned()))
    }
}

fn exact_or_by_digest(claim: &Claim, image: &Reference) -> Result<(), String> {
    if image.digest.is_some() {
        same_repository(claim, image)
    } else {
        exact(claim, image)
    }
}

fn exact(claim: &Claim, image: &Reference) -> Result<(), String> {
    same_repository(claim, image)?;
    if !claim.is_tagged {
        return Err(format!(
            "it is for the repository {} and no tag, so that it would also do for another tag: \
             \"signedIdentity\": {{\"type\": \"matchRepository\"}} accepts that",
            name(claim.repository())
        ));
    }
    if claim.reference.tag != image.tag {
        return Err(format!("it is for {}", claim.reference));
    }
    Ok(())
}

fn same_repository(claim: &Claim, image: &Reference) -> Result<(), String> {
    if claim.repository() == (&image.host, &image.repository) {
        Ok(())
    } else {
        Err(format!("it is for {}", name(claim.repository())))
    }
}

fn name((host, repository): (&str, &str)) -> String {
    format!("{host}/{repository}")
}

/// The image under the name that its signer knows it by.
fn remapped(image: &Reference, prefix: &str, signed_prefix: &str) -> Result<Reference, String> {
    let written = image.to_string();
    let Some(rest) = written.strip_prefix(prefix) else {
        return Ok(image.clone());
    };
    // A prefix ends where a component of the name does.
    if !rest.is_empty() && !rest.starts_with(['/', ':', '@']) {
        return Ok(image.clone());
    }
    if rest.starts_with(':') && !prefix.contains('/') {
        return Ok(image.clone());
    }
    let text = format!("{signed_prefix}{rest}");
    Reference::parse(&text).map_err(|e| format!("signedPrefix makes {}: {e}", quote(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(identity: &str, claimed: &str, image: &str) -> bool {
        let identity: SignedIdentity = serde_json::from_str(identity).unwrap();
        let claimed = (!claimed.is_empty()).then_some(claimed);
        identity.check(claimed, &Reference::parse(image).unwrap()).is_ok()
    }

    #[test]
    fn a_claim_is_compared_as_the_policy_says() {
        let by_digest = format!("r.io/a/b@{DIGEST}");
        let exact = r#"{"type": "matchExact"}"#;
        let default = r#"{"type": "matchRepoDigestOrExact"}"#;
        let repository = r#"{"type": "matchRepository"}"#;
        let reference = r#"{"type": "exactReference", "dockerReference": "s.io/x:1"}"#;
        let one_repository = r#"{"type": "exactRepository", "dockerRepository": "s.io/x"}"#;
        let remap = r#"{"type": "remapIdentity", "prefix": "r.io/a", "signedPrefix": "s.io/team"}"#;
        let digest = r#"{"type": "matchDigest"}"#;
        for (identity, claimed, image, expected) in [
            (exact, "r.io/a/b:1", "r.io/a/b:1", true),
            (exact, "r.io/a/b:2", "r.io/a/b:1", false),
            (exact, "r.io/a/b", "r.io/a/b:latest", false),
            (exact, "r.io/a/b:1", &by_digest, false),
            (default, "r.io/a/b:1", "r.io/a/b:1", true),
            (default, "r.io/a/b:2", "r.io/a/b:1", false),
            (default, "r.io/a/b:2", &by_digest, true),
            (default, "r.io/a/c:2", &by_digest, false),
            (default, "", &by_digest, false),
            (default, "index.docker.io/library/debian:12", "debian:12", true),
            (repository, "r.io/a/b", "r.io/a/b:1", true),
            (repository, "r.io/a/b:2", "r.io/a/b:1", true),
            (repository, "r.io/a/bb", "r.io/a/b:1", false),
            (reference, "s.io/x:1", "r.io/a/b:1", true),
            (reference, "s.io/x:2", "r.io/a/b:1", false),
            (one_repository, "s.io/x:2", "r.io/a/b:1", true),
            (one_repository, "s.io/y:2", "r.io/a/b:1", false),
            (remap, "s.io/team/b:1", "r.io/a/b:1", true),
            (remap, "s.io/team/b:1", "r.io/ab/b:1", false),
            (remap, "r.io/ab/b:1", "r.io/ab/b:1", true),
            (digest, "", "r.io/a/b:1", true),
            (digest, "anything at all", "r.io/a/b:1", true),
            (default, "not a NAME", "r.io/a/b:1", false),
        ] {
            assert_eq!(
                check(identity, claimed, image),
                expected,
                "{identity}: {claimed:?} for {image}"
            );
        }
    }

    #[test]
    fn unknown_ways_to_match_are_refused() {
        for text in [
            r#"{"type": "matchAll"}"#,
            r#"{"type": "matchExact", "x": 1}"#,
            r#"{"type": "exactReference"}"#,
            "{}",
        ] {
            assert!(serde_json::from_str::<SignedIdentity>(text).is_err(), "{text}");
        }
    }
}
