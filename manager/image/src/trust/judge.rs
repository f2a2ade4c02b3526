//! The judgement: for each requirement of a rule some signature has to hold.
//!
//! Nothing is fetched here: what there is of signatures is given.

use jiff::Timestamp;

use super::documents::{Candidate, Document};
use super::policy::{Policy, Requirement, Rule};
use super::{Signature, Verdict, notation, sigstore};
use crate::Error;
use crate::digest::Digest;
use crate::error::Refusal;
use crate::reference::Reference;

/// Reasons that an error tells of many.
const REASONS_MAX: usize = 5;

/// What is to be judged.
pub(super) struct Asked<'a> {
    pub(super) reference: &'a Reference,
    /// What the name points to first, the image's own manifest last.
    pub(super) digests: &'a [Digest],
    pub(super) now: Timestamp,
}

impl Rule<'_> {
    pub(super) fn asks_for_signatures(&self) -> bool {
        let asks = |requirement: &Requirement| {
            matches!(
                requirement,
                Requirement::SigstoreSigned(_) | Requirement::NotationSigned(_)
            )
        };
        self.requirements.iter().any(asks) && !self.requirements.iter().any(Requirement::refuses_all)
    }
}

impl Requirement {
    fn refuses_all(&self) -> bool {
        matches!(self, Requirement::Reject(_) | Requirement::SignedBy(_))
    }
}

/// Whether for each requirement there is a signature that holds.
pub(super) fn judge(
    policy: &Policy,
    rule: &Rule<'_>,
    asked: &Asked<'_>,
    documents: &[Document],
    unreadable: Vec<String>,
) -> Result<Verdict, Error> {
    let mut signatures = Vec::new();
    for requirement in rule.requirements {
        let result = match requirement {
            Requirement::InsecureAcceptAnything(_) => continue,
            Requirement::Reject(_) => Err(vec!["all images there are refused".to_owned()]),
            Requirement::SignedBy(_) => Err(vec![
                "GPG signatures are not supported here: sigstoreSigned and notationSigned are".to_owned(),
            ]),
            Requirement::SigstoreSigned(sigstore) => {
                let judge = sigstore.judge(policy)?;
                any(asked, documents, |candidate, digest| match candidate {
                    Candidate::Simple(payload, annotations) => {
                        let simple = sigstore::Simple { payload, annotations };
                        Some(sigstore::judge_simple(&simple, digest, asked, &judge))
                    }
                    Candidate::Bundle(content) => {
                        Some(sigstore::judge_bundle(content, digest, asked, &judge))
                    }
                    Candidate::Notation(..) => None,
                })
            }
            Requirement::NotationSigned(notation) => {
                let judge = notation.judge(policy)?;
                any(asked, documents, |candidate, digest| match candidate {
                    Candidate::Notation(encoding, content) => {
                        Some(notation::judge(encoding, content, digest, asked, &judge))
                    }
                    _ => None,
                })
            }
        };
        match result {
            Ok(signature) => signatures.push(signature),
            Err(found) => {
                // First what tells that there may be more than was judged.
                let reasons = [unreadable, found].concat();
                return Err(refusal(policy, rule, requirement, asked, &reasons));
            }
        }
    }
    Ok(Verdict {
        digest: asked.digests.first().map(Digest::to_string).unwrap_or_default(),
        policy: rule.place.clone(),
        signatures,
    })
}

/// The first signature that holds, or why none does.
fn any(
    asked: &Asked<'_>,
    documents: &[Document],
    verify: impl Fn(Candidate<'_>, &Digest) -> Option<Result<Signature, String>>,
) -> Result<Signature, Vec<String>> {
    let mut reasons = Vec::new();
    for document in documents
        .iter()
        .filter(|document| asked.digests.contains(&document.subject))
    {
        let manifest = match Document::manifest(&document.content) {
            Ok(manifest) => manifest,
            Err(reason) => {
                reasons.push(format!("signature {}: {reason}", document.digest));
                continue;
            }
        };
        if manifest.left_out > 0 {
            reasons.push(format!(
                "signature {}: {} older ones in it were not looked at",
                document.digest, manifest.left_out
            ));
        }
        for candidate in document.candidates(&manifest) {
            match verify(candidate, &document.subject) {
                Some(Ok(signature)) => return Ok(signature),
                Some(Err(reason)) => reasons.push(format!("signature {}: {reason}", document.digest)),
                None => {}
            }
        }
    }
    Err(reasons)
}

fn refusal(
    policy: &Policy,
    rule: &Rule<'_>,
    requirement: &Requirement,
    asked: &Asked<'_>,
    reasons: &[String],
) -> Error {
    let digest = asked.digests.first().map(Digest::to_string).unwrap_or_default();
    let reason = match reasons {
        [] => format!("there is no signature of {digest} that the rule is about"),
        few if few.len() <= REASONS_MAX => few.join("; "),
        many => format!(
            "{}; and {} more",
            many[..REASONS_MAX].join("; "),
            many.len() - REASONS_MAX
        ),
    };
    Error::Refused(Box::new(Refusal {
        image: asked.reference.to_string(),
        policy: policy.path().to_owned(),
        rule: format!("{}, {}", rule.place, requirement.name()),
        reason,
    }))
}

/// A name whose rule asks for signatures, of an image that can have none.
pub(super) fn unsigned_name(policy: &Policy, requirement: &Requirement, reference: &Reference) -> Error {
    let rule = policy.of_registry(reference);
    Error::Refused(Box::new(Refusal {
        image: reference.to_string(),
        policy: policy.path().to_owned(),
        rule: format!("{}, {}", rule.place, requirement.name()),
        reason: "it was given this name here, by a load, import, commit or tag, so that there are no signatures of it; \
                 pull it from its registry, or have a rule for \"containers-storage\" in the policy that accepts such \
                 images"
            .to_owned(),
    }))
}

/// An image of no registry has no name that anybody could have signed: it is accepted as a whole or not at all.
pub(super) fn judge_local(
    policy: &Policy,
    image_id: &str,
    reference: Option<&Reference>,
) -> Result<Verdict, Error> {
    let rule = policy.of_local();
    match rule.asks_for() {
        None => Ok(Verdict {
            digest: image_id.to_owned(),
            policy: rule.place,
            signatures: Vec::new(),
        }),
        Some(requirement) => Err(Error::Refused(Box::new(Refusal {
            image: reference.map_or_else(|| image_id.to_owned(), Reference::to_string),
            policy: policy.path().to_owned(),
            rule: format!("{}, {}", rule.place, requirement.name()),
            reason: "it was loaded, imported or committed here (or pulled before its signatures were kept: pull it \
                     again), so that there are no signatures of it; a rule for \"containers-storage\" in the policy \
                     can accept such images"
                .to_owned(),
        }))),
    }
}
