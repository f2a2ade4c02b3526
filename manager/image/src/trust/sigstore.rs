//! `sigstoreSigned`: a signature by cosign, podman or skopeo, with a key or with a certificate of Fulcio's.
//!
//! All is verified offline, against what the policy names. A certificate lives for ten minutes; that it was valid is
//! judged at the time that the log or a timestamp authority vouches for. [`simple`] is the older form (a payload in
//! an image under a tag), [`bundle`] the newer one (a bundle as a referrer); what they have in common is here.

mod bundle;
mod root;
mod simple;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sha2::Digest as _;
use sigstore_verify::crypto::{
    KeyAlgorithm, SigningScheme, SubjectAltName, VerificationKey, verify_signature,
};
use sigstore_verify::types::{Artifact, Bundle, DerPublicKey, SignatureBytes};
use sigstore_verify::{IdentityMatcher, PublicKeyVerificationPolicy, VerificationPolicy};

use super::identity::SignedIdentity;
use super::policy::Policy;
use super::{Asked, Signature, provider};
use crate::Error;
use root::Root;
#[cfg(feature = "fuzzing")]
pub(crate) use {bundle::fuzz as fuzz_bundle, simple::fuzz as fuzz_simple};
pub(super) use {bundle::judge as judge_bundle, simple::Simple, simple::judge as judge_simple};

/// The requirement as the policy has it.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(crate) struct Sigstore {
    signer: Signer,
    root: Root,
    signed_identity: SignedIdentity,
}

/// Who has to have signed.
#[derive(Debug)]
enum Signer {
    /// The owner of one of these keys.
    Keys(Vec<Source>),
    /// Whom this issuer of identities has called so.
    Keyless { issuer: String, subject: Subject },
}

/// How an identity is named in Fulcio's certificates.
#[derive(Debug)]
enum Subject {
    Email(String),
    Uri(String),
    /// For workflows, whose names end with the branch or tag that they ran for.
    UriPrefix(String),
}

/// Where PEM or JSON is.
#[derive(Debug)]
pub(super) enum Source {
    Path(PathBuf),
    Data(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<Fulcio>,
    pki: Option<serde::de::IgnoredAny>,
    rekor_public_key_path: Option<PathBuf>,
    rekor_public_key_paths: Option<Vec<PathBuf>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    /// Berth's own: sigstore's file of all that it vouches with, as `cosign --trusted-root` takes it.
    trusted_root_path: Option<PathBuf>,
    #[serde(default)]
    signed_identity: SignedIdentity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fulcio {
    #[serde(rename = "caPath")]
    ca_path: Option<PathBuf>,
    #[serde(rename = "caData")]
    ca_data: Option<String>,
    #[serde(rename = "oidcIssuer")]
    oidc_issuer: String,
    #[serde(rename = "subjectEmail")]
    subject_email: Option<String>,
    /// Berth's own, as is the next: who signs in a workflow has no mail address.
    #[serde(rename = "subjectURI")]
    subject_uri: Option<String>,
    #[serde(rename = "subjectURIPrefix")]
    subject_uri_prefix: Option<String>,
}

impl TryFrom<Fields> for Sigstore {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Sigstore, String> {
        if fields.pki.is_some() {
            return Err("sigstoreSigned with pki is not supported here: use keyPath or fulcio".into());
        }
        let keys = sources(
            "keyPath, keyPaths, keyData, keyDatas or fulcio",
            (fields.key_path, fields.key_paths),
            (fields.key_data, fields.key_datas),
        )?;
        let rekor = sources(
            "rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData or rekorPublicKeyDatas",
            (fields.rekor_public_key_path, fields.rekor_public_key_paths),
            (fields.rekor_public_key_data, fields.rekor_public_key_datas),
        )?;
        let (signer, authority) = match (keys, fields.fulcio) {
            (Some(keys), None) => (Signer::Keys(keys), None),
            (None, Some(fulcio)) => fulcio.signer()?,
            _ => {
                return Err(
                    "sigstoreSigned needs exactly one of keyPath, keyPaths, keyData, keyDatas and fulcio"
                        .into(),
                );
            }
        };
        let root = match (fields.trusted_root_path, authority, rekor) {
            (Some(path), None, None) => Root::Whole(Source::Path(path)),
            (Some(_), ..) => {
                return Err(
                    "trustedRootPath takes the place of caPath, caData and the rekorPublicKeys".into(),
                );
            }
            (None, authority, Some(logs)) => Root::Parts { authority, logs },
            (None, None, None) if matches!(signer, Signer::Keys(_)) => Root::Nothing,
            (None, ..) => {
                return Err(
                    "fulcio needs caPath or caData and a rekorPublicKey, or trustedRootPath in their place"
                        .into(),
                );
            }
        };
        if matches!(
            (&signer, &root),
            (Signer::Keyless { .. }, Root::Parts { authority: None, .. })
        ) {
            return Err("fulcio needs caPath or caData".into());
        }
        Ok(Sigstore {
            signer,
            root,
            signed_identity: fields.signed_identity,
        })
    }
}

/// Whether a prefix ends where a part of a URI's path does, and not in its host.
fn ends_a_part(prefix: &str) -> bool {
    let path = prefix
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'))
        .map_or("", |(_, path)| path);
    path.ends_with(['/', '@', '#'])
}

impl Fulcio {
    fn signer(self) -> Result<(Signer, Option<Source>), String> {
        let subject = match (self.subject_email, self.subject_uri, self.subject_uri_prefix) {
            (Some(email), None, None) => Subject::Email(email),
            (None, Some(uri), None) => Subject::Uri(uri),
            (None, None, Some(prefix)) if !ends_a_part(&prefix) => {
                return Err(format!(
                    "subjectURIPrefix {prefix:?} has to end a part of a path, with / or @ or #: else \
                     \"…/team\" would stand for \"…/team-of-others\" too"
                ));
            }
            (None, None, Some(prefix)) => Subject::UriPrefix(prefix),
            _ => {
                return Err(
                    "fulcio needs exactly one of subjectEmail, subjectURI and subjectURIPrefix".into(),
                );
            }
        };
        let authority = sources("caPath or caData", (self.ca_path, None), (self.ca_data, None))?;
        let signer = Signer::Keyless {
            issuer: self.oidc_issuer,
            subject,
        };
        Ok((signer, authority.and_then(|mut one| one.pop())))
    }
}

/// At most one of the ways to name files.
fn sources(
    fields: &str,
    (path, paths): (Option<PathBuf>, Option<Vec<PathBuf>>),
    (data, datas): (Option<String>, Option<Vec<String>>),
) -> Result<Option<Vec<Source>>, String> {
    let given = [path.is_some(), paths.is_some(), data.is_some(), datas.is_some()];
    match given.iter().filter(|is_given| **is_given).count() {
        0 => return Ok(None),
        1 => {}
        _ => return Err(format!("sigstoreSigned takes exactly one of {fields}")),
    }
    let paths = path.into_iter().chain(paths.into_iter().flatten());
    let datas = data.into_iter().chain(datas.into_iter().flatten());
    let mut sources: Vec<Source> = paths.map(Source::Path).collect();
    for data in datas {
        let bytes = STANDARD
            .decode(data)
            .map_err(|e| format!("one of {fields} is not base64: {e}"))?;
        sources.push(Source::Data(bytes));
    }
    if sources.is_empty() {
        return Err(format!("the list of {fields} is empty"));
    }
    Ok(Some(sources))
}

impl Source {
    /// What is there; a relative path begins beside the policy.
    fn read(&self, policy: &Policy) -> Result<String, Error> {
        let bytes = match self {
            Source::Data(bytes) => bytes.clone(),
            Source::Path(path) => {
                let path = policy.beside(path);
                std::fs::read(&path).map_err(|e| wrong(policy, format!("{}: {e}", path.display())))?
            }
        };
        String::from_utf8(bytes).map_err(|_| wrong(policy, format!("{} is not text", self.name())))
    }

    fn name(&self) -> String {
        match self {
            Source::Path(path) => path.display().to_string(),
            Source::Data(_) => "inline data".to_owned(),
        }
    }
}

fn wrong(policy: &Policy, rule: String) -> Error {
    Error::Policy {
        path: policy.path().to_owned(),
        rule,
    }
}

/// A requirement with all that it names read.
pub(super) struct Judge<'a> {
    keys: Vec<DerPublicKey>,
    keyless: Option<(VerificationPolicy, Option<&'a str>)>,
    root: Option<root::Verifier>,
    signed_identity: &'a SignedIdentity,
}

impl Sigstore {
    pub(super) fn judge(&self, policy: &Policy) -> Result<Judge<'_>, Error> {
        provider::install();
        let root = self.root.read(policy)?;
        let mut keys = Vec::new();
        let keyless = match &self.signer {
            Signer::Keys(sources) => {
                for source in sources {
                    let text = source.read(policy)?;
                    let key = DerPublicKey::from_pem(&text)
                        .and_then(|key| {
                            KeyAlgorithm::from_spki(&key)
                                .map(|_| key)
                                .map_err(|e| sigstore_verify::types::Error::InvalidEncoding(e.to_string()))
                        })
                        .map_err(|e| wrong(policy, format!("public key {}: {e}", source.name())))?;
                    keys.push(key);
                }
                None
            }
            Signer::Keyless { issuer, subject } => {
                let required = VerificationPolicy::any_identity().require_issuer(issuer);
                let (required, prefix) = match subject {
                    Subject::Email(email) => (
                        required.require_identity(IdentityMatcher::Email(email.clone())),
                        None,
                    ),
                    Subject::Uri(uri) => (required.require_identity(IdentityMatcher::Uri(uri.clone())), None),
                    Subject::UriPrefix(prefix) => (required, Some(prefix.as_str())),
                };
                let has_sct = root.as_ref().is_some_and(|root| root.has_certificate_logs);
                let required = if has_sct { required } else { required.skip_sct() };
                Some((required, prefix))
            }
        };
        Ok(Judge {
            keys,
            keyless,
            root,
            signed_identity: &self.signed_identity,
        })
    }
}

impl Judge<'_> {
    /// Whether a log has to have the signature.
    fn needs_log(&self) -> bool {
        self.root.is_some()
    }

    /// Verify with a certificate or with a log, by sigstore's own rules. Gives the signer.
    fn verify_bundle<'b>(
        &self,
        artifact: impl Into<Artifact<'b>> + Clone,
        bundle: &Bundle,
    ) -> Result<String, String> {
        let root = self.root.as_ref().ok_or("the policy names no log")?;
        if let Some((required, prefix)) = &self.keyless {
            let verified = root
                .material
                .verify(artifact, bundle, required)
                .map_err(|e| e.to_string())?;
            let identity = verified.identity().ok_or("its certificate names nobody")?;
            if let Some(prefix) = prefix
                && !matches!(identity, SubjectAltName::Uri(uri) if uri.starts_with(prefix))
            {
                return Err(format!(
                    "its signer is {identity}, which does not begin with {prefix}"
                ));
            }
            return Ok(format!("{identity} ({})", verified.issuer().unwrap_or_default()));
        }
        self.by_any_key(|key| {
            let required = PublicKeyVerificationPolicy::new(key.clone());
            root.material
                .verify(artifact.clone(), bundle, &required)
                .map(|_| ())
                .map_err(|e| e.to_string())
        })
    }

    /// Verify with a key alone.
    fn verify_with_key(&self, message: &[u8], signature: &SignatureBytes) -> Result<String, String> {
        self.by_any_key(|key| {
            let algorithm = KeyAlgorithm::from_spki(key).map_err(|e| e.to_string())?;
            let mut result = Err(String::new());
            for scheme in schemes(algorithm) {
                result = verify_signature(key, message, signature, *scheme).map_err(|e| e.to_string());
                if *scheme == SigningScheme::Ed25519 {
                    result = result.or_else(|reason| verify_ed25519ph(key, message, signature).ok_or(reason));
                }
                if result.is_ok() {
                    break;
                }
            }
            result
        })
    }

    fn by_any_key(&self, verify: impl Fn(&DerPublicKey) -> Result<(), String>) -> Result<String, String> {
        let mut reason = "it is signed with a key, not with a certificate".to_owned();
        for key in &self.keys {
            match verify(key) {
                Ok(()) => return Ok(fingerprint(key)),
                Err(e) => reason = e,
            }
        }
        if self.keys.len() > 1 {
            reason = format!("by none of the {} keys: {reason}", self.keys.len());
        }
        Err(reason)
    }

    /// The signature that holds, if it is for the name that was asked for.
    fn signature(
        &self,
        signer: String,
        claimed: Option<&str>,
        asked: &Asked<'_>,
    ) -> Result<Signature, String> {
        Ok(Signature {
            kind: "cosign",
            signer,
            name: self.signed_identity.check(claimed, asked.reference)?,
        })
    }
}

/// Ed25519 over the message's hash (RFC 8032, section 5.1), which cosign 3 has taken to and ring does not have.
fn verify_ed25519ph(key: &DerPublicKey, message: &[u8], signature: &SignatureBytes) -> Option<()> {
    let key = VerificationKey::from_spki(key).ok()?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes().try_into().ok()?).ok()?;
    let signature = ed25519_dalek::Signature::from_slice(signature.as_bytes()).ok()?;
    let hash = sha2::Sha512::new_with_prefix(message);
    key.verify_prehashed_strict(hash, None, &signature).ok()
}

/// The hash functions that signers use with a kind of key: cosign long took SHA-256 for each.
fn schemes(algorithm: KeyAlgorithm) -> &'static [SigningScheme] {
    match algorithm {
        KeyAlgorithm::EcdsaP256 => &[SigningScheme::EcdsaP256Sha256],
        KeyAlgorithm::EcdsaP384 => &[SigningScheme::EcdsaP384Sha384, SigningScheme::EcdsaP384Sha256],
        KeyAlgorithm::Ed25519 => &[SigningScheme::Ed25519],
        KeyAlgorithm::Rsa => &[
            SigningScheme::RsaPkcs1Sha256,
            SigningScheme::RsaPkcs1Sha384,
            SigningScheme::RsaPkcs1Sha512,
        ],
        _ => &[],
    }
}

/// Of the key's `SubjectPublicKeyInfo`.
fn fingerprint(key: &DerPublicKey) -> String {
    format!("key sha256:{}", hex::encode(sha2::Sha256::digest(key.as_bytes())))
}
