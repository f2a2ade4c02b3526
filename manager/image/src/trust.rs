//! Trust: whether an image may be here, and run, by the policy of this machine.
//!
//! ```text
//! pull ─► admit: policy.rs (rule for the name) ─► documents.rs (signatures at the registry) ─► judge ─► origins.rs
//! create ─► check: the policy as it is now ─► origins.rs (signatures kept with the image) ─► judge
//! judge.rs: for each requirement of the rule some signature has to hold: sigstore.rs, notation.rs
//! ```
//! A signature counts if it is for a digest on the way from the name to the image (the index, or the manifest chosen
//! from it), for the name that was asked for (identity.rs), and by whom the policy trusts. What was loaded, imported
//! or committed came under no registry's name: the policy's rule for local images decides on it when it is to run.

mod documents;
mod identity;
mod judge;
mod notation;
mod origins;
mod pem;
mod policy;
mod provider;
mod scope;
mod sigstore;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

pub use policy::PolicyFile;

use crate::Error;
use crate::digest::Digest;
use crate::reference::Reference;
use crate::registry::Sources;
use crate::store::Store;
use judge::{Asked, judge, judge_local, unsigned_name};
use origins::Verified;
pub(crate) use origins::{Origin, inherit};
use policy::Policy;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub(crate) use super::notation::{fuzz as notation, fuzz_certificate as certificate};
    pub(crate) use super::policy::Policy;
    pub(crate) use super::sigstore::{fuzz_bundle as bundle, fuzz_simple as simple};
}

/// Why an image is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What the name points to.
    pub digest: String,
    /// The rule that was applied, as its place in the policy.
    pub policy: String,
    /// The signatures that the rule asked for.
    pub signatures: Vec<Signature>,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// `cosign` or `notation`.
    pub kind: &'static str,
    /// A key's fingerprint, or the identity in a certificate.
    pub signer: String,
    /// The name that it is for, and that the policy has it held to; `None`: it is for the digest alone, and as good under
    /// any other name.
    pub name: Option<String>,
}

/// The gate that each image has to pass.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    place: PolicyFile,
    /// Whether a policy was there once, which does not end by the file's going.
    was_there: Arc<AtomicBool>,
}

impl Gate {
    pub(crate) fn new(place: PolicyFile) -> Gate {
        let gate = Gate {
            place,
            was_there: Arc::default(),
        };
        // To have seen it; what is wrong with it is told to who wants an image.
        let _ = gate.policy();
        gate
    }

    /// The policy as it is now.
    fn policy(&self) -> Result<Policy, Error> {
        let policy = Policy::read(&self.place);
        match (&policy, &self.place) {
            (Ok(policy), PolicyFile::IfThere(path)) if !policy.is_there() => {
                if self.was_there.load(Ordering::Relaxed) {
                    return Err(Error::Policy {
                        path: path.clone(),
                        rule: "it was here, and is gone: put it back, or restart the manager if there is to be none"
                            .into(),
                    });
                }
            }
            _ => self.was_there.store(true, Ordering::Relaxed),
        }
        policy
    }

    /// Judge an image at its registry, before anything of it is fetched but its manifests. `digests`: what the name
    /// points to first, the image's own manifest last.
    pub(crate) async fn admit(
        &self,
        registry: &Sources,
        reference: &Reference,
        digests: Vec<Digest>,
    ) -> Result<(Verdict, Origin), Error> {
        let gate = self.clone();
        let policy = crate::blocking(move || gate.policy()).await?;
        let mut documents = Vec::new();
        let mut reasons = Vec::new();
        if policy.of_registry(reference).asks_for_signatures() {
            for subject in deduplicated(&digests) {
                let (found, unreadable) = documents::fetch(registry, subject).await?;
                documents.extend(found);
                reasons.extend(unreadable);
            }
        }
        let reference = reference.clone();
        // Keys are read, and signatures take their milliseconds.
        crate::blocking(move || {
            let asked = Asked {
                reference: &reference,
                digests: &digests,
                now: Timestamp::now(),
            };
            let verdict = judge(
                &policy,
                &policy.of_registry(&reference),
                &asked,
                &documents,
                reasons,
            )?;
            let verified = Verified {
                policy: verdict.policy.clone(),
                signatures: verdict
                    .signatures
                    .iter()
                    .map(|signature| (signature.kind.to_owned(), signature.signer.clone()))
                    .collect(),
            };
            tracing::debug!(image = %reference, digest = verdict.digest, "accepted by the trust policy: {verified}");
            let origin = Origin {
                name: reference.name(),
                verified,
                digests,
                documents,
            };
            Ok((verdict, origin))
        })
        .await
    }

    /// Judge an image that is here by the policy as it is now, without asking anybody. `reference` is the name it was
    /// asked for by, `None` where that was its id.
    ///
    /// Under a name that it was pulled by, that name's rule decides. So it does under one that it was given here, if the
    /// rule asks for anything: its signatures have to be good for that name. Under any other, one of its origins has to
    /// do: who gave it another name here has not made it another image. An image without origins has a name that asks
    /// for signatures only where the policy has a rule for local images.
    pub(crate) fn check(
        &self,
        store: &Arc<Store>,
        image_id: &str,
        reference: Option<&Reference>,
    ) -> Result<Verdict, Error> {
        let policy = self.policy()?;
        let mut origins = origins::of_image(store, image_id)?;
        if let Some(name) = reference.map(Reference::name)
            && origins.iter().any(|origin| origin.name == name)
        {
            origins.retain(|origin| origin.name == name);
        } else if let Some(reference) = reference
            && let Some(requirement) = policy.of_registry(reference).asks_for()
        {
            if origins.is_empty() && !policy.has_local_rule() {
                return Err(unsigned_name(&policy, requirement, reference));
            }
            for origin in &mut origins {
                origin.name = reference.name();
            }
        }
        let mut refusal = None;
        for origin in &origins {
            match judge_origin(&policy, origin) {
                Ok(verdict) => return Ok(verdict),
                Err(error) => refusal = Some(error),
            }
        }
        match refusal {
            Some(error) => Err(error),
            None => judge_local(&policy, image_id, reference),
        }
    }

    /// Whether an image was pulled as `reference` and is accepted as that by the policy as it is now. If it is not,
    /// its registry may by now have signatures that are not here.
    pub(crate) fn is_still_accepted(
        &self,
        store: &Arc<Store>,
        image_id: &str,
        reference: &Reference,
    ) -> Result<bool, Error> {
        let policy = self.policy()?;
        let name = reference.name();
        let origins = origins::of_image(store, image_id)?;
        match origins.iter().find(|origin| origin.name == name) {
            None => Ok(false),
            Some(origin) => match judge_origin(&policy, origin) {
                Ok(_) => Ok(true),
                Err(Error::Refused(_)) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

/// Judge an image by the signatures that are kept with it.
fn judge_origin(policy: &Policy, origin: &Origin) -> Result<Verdict, Error> {
    let reference = Reference::parse(&origin.name)?;
    let asked = Asked {
        reference: &reference,
        digests: &origin.digests,
        now: Timestamp::now(),
    };
    let rule = policy.of_registry(&reference);
    judge(policy, &rule, &asked, &origin.documents, Vec::new()).map_err(|error| match error {
        Error::Refused(mut refusal) => {
            refusal.reason = format!("{}; when it was pulled, {}", refusal.reason, origin.verified);
            Error::Refused(refusal)
        }
        other => other,
    })
}

fn deduplicated(digests: &[Digest]) -> Vec<&Digest> {
    let mut seen = Vec::new();
    for digest in digests {
        if !seen.contains(&digest) {
            seen.push(digest);
        }
    }
    seen
}
