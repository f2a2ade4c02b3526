//! The index of what refers to a manifest: read from the referrers API, and read and kept under a tag where there is none.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{DOCUMENT_BYTES_MAX, INDEX_ENTRIES_MAX, OCI_INDEX, descriptor, read};
use crate::digest::Digest;

/// A manifest that names another as its subject: a signature, an attestation, an SBOM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Media type of the referring manifest.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length.
    pub size_bytes: u64,
    /// What kind of artifact it is; empty if the registry does not tell.
    pub artifact_type: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct About {
    artifact_type: Option<String>,
    config: Option<Config>,
    annotations: Option<BTreeMap<String, Value>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    media_type: Option<String>,
}

impl Referrer {
    /// How a manifest has to be listed: by its `artifactType`, or else the type of its config.
    pub(crate) fn of(content: &[u8], digest: &Digest, media_type: &str) -> Referrer {
        let about: About = serde_json::from_slice(content).unwrap_or_default();
        let annotations = about.annotations.unwrap_or_default().into_iter();
        Referrer {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size_bytes: content.len() as u64,
            artifact_type: about
                .artifact_type
                .filter(|own| !own.is_empty())
                .or_else(|| about.config?.media_type)
                .unwrap_or_default(),
            annotations: annotations
                .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
                .collect(),
        }
    }
}

/// Read such an index.
pub(crate) fn parse(content: &[u8]) -> Result<Vec<Referrer>, String> {
    let raw = read(content)?;
    if raw.media_type.is_some_and(|media_type| media_type != OCI_INDEX) {
        return Err("it is not an OCI image index".into());
    }
    let entries = raw.manifests.ok_or("it has no `manifests`")?;
    if entries.len() > INDEX_ENTRIES_MAX {
        return Err(format!(
            "it has {} entries, more than {INDEX_ENTRIES_MAX}",
            entries.len()
        ));
    }
    let each = entries.into_iter().enumerate();
    each.map(|(position, mut raw)| {
        let artifact_type = raw.artifact_type.take().unwrap_or_default();
        let annotations = raw.annotations.take().unwrap_or_default();
        let descriptor = descriptor(raw, &format!("manifests[{position}]"), DOCUMENT_BYTES_MAX)?;
        Ok(Referrer {
            media_type: descriptor.media_type,
            digest: descriptor.digest.to_string(),
            size_bytes: descriptor.size,
            artifact_type,
            annotations,
        })
    })
    .collect()
}

/// The index with one entry more; what else is in it stays as it is. `None`: it has the entry.
pub(crate) fn add(content: Option<&[u8]>, new: &Referrer) -> Result<Option<Vec<u8>>, String> {
    let old = content.map_or(Ok(Vec::new()), parse)?;
    if old.iter().any(|entry| entry.digest == new.digest) {
        return Ok(None);
    }
    if old.len() >= INDEX_ENTRIES_MAX {
        return Err(format!("it is full: it has {INDEX_ENTRIES_MAX} entries"));
    }
    let mut index: Value = match content {
        Some(content) => serde_json::from_slice(content).map_err(|e| e.to_string())?,
        None => json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}),
    };
    let mut entry = json!({"mediaType": new.media_type, "digest": new.digest, "size": new.size_bytes});
    if !new.artifact_type.is_empty() {
        entry["artifactType"] = json!(new.artifact_type);
    }
    if !new.annotations.is_empty() {
        entry["annotations"] = json!(new.annotations);
    }
    index["manifests"]
        .as_array_mut()
        .ok_or("it has no `manifests`")?
        .push(entry);
    serde_json::to_vec(&index).map(Some).map_err(|e| e.to_string())
}

/// The tag under which the index lies at a registry without the API (distribution spec, "Referrers Tag Schema").
pub(crate) fn tag(subject: &Digest) -> String {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm_name(), &hex[..hex.len().min(64)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrer(content: &str) -> Referrer {
        Referrer {
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            digest: Digest::of(content.as_bytes()).to_string(),
            size_bytes: 7,
            artifact_type: "a/signature".into(),
            annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        }
    }

    #[test]
    fn what_is_added_is_read_again_and_added_once() {
        let one = add(None, &referrer("1")).unwrap().unwrap();
        let two = add(Some(&one), &referrer("2")).unwrap().unwrap();
        assert_eq!(parse(&two).unwrap(), [referrer("1"), referrer("2")]);
        assert_eq!(add(Some(&two), &referrer("1")).unwrap(), None);
    }

    #[test]
    fn what_others_keep_in_the_index_stays() {
        let old = br#"{"schemaVersion":2,"manifests":[],"annotations":{"k":"v"},"x":1}"#;
        let new: Value = serde_json::from_slice(&add(Some(old), &referrer("1")).unwrap().unwrap()).unwrap();
        assert_eq!((&new["annotations"]["k"], &new["x"]), (&json!("v"), &json!(1)));
    }

    #[test]
    fn an_image_under_the_tag_is_not_overwritten() {
        for content in [
            r#"{"schemaVersion":2,"config":{"digest":"x","size":1},"layers":[]}"#,
            "[]",
            r#"{"schemaVersion":2,"mediaType":"a/b","manifests":[]}"#,
        ] {
            assert!(
                add(Some(content.as_bytes()), &referrer("1")).is_err(),
                "{content}"
            );
        }
    }

    #[test]
    fn an_artifact_is_listed_by_its_type_or_its_configs() {
        let digest = Digest::of(b"");
        let of = |json: &str| Referrer::of(json.as_bytes(), &digest, OCI_INDEX);
        let typed =
            of(r#"{"artifactType":"a/b","config":{"mediaType":"c/d"},"annotations":{"k":"v","n":1}}"#);
        assert_eq!(typed.artifact_type, "a/b");
        assert_eq!(
            typed.annotations,
            BTreeMap::from([("k".to_owned(), "v".to_owned())])
        );
        assert_eq!(
            of(r#"{"artifactType":"","config":{"mediaType":"c/d"}}"#).artifact_type,
            "c/d"
        );
    }

    #[test]
    fn the_tag_is_the_digest_cut_to_what_a_tag_may_be() {
        let long = Digest::parse(&format!("sha512:{}", "ab".repeat(64))).unwrap();
        assert_eq!(tag(&long), format!("sha512-{}", "ab".repeat(32)));
        assert!(tag(&Digest::of(b"")).starts_with("sha256-e3b0c4"));
    }
}
