//! What is kept under an id: a container image, or an artifact, which is whole but of no use to a container.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::Image;
use crate::database::{self, ImageRow};
use crate::digest::Digest;
use crate::links::{self, LinkKind};
use crate::manifest::{self, Part};
use crate::{Error, Platform};

/// When it was made, in an artifact's annotations. Source: OCI image spec, annotations.md.
const CREATED: &str = "org.opencontainers.image.created";

/// A container image or an artifact that is here, whole and verified.
#[derive(Debug, Clone)]
pub enum Kept {
    /// A container can be made of it.
    Image(Box<Image>),
    /// It can be pushed, saved and told about.
    Artifact(Box<Artifact>),
}

/// Something else than a container image that registries keep: a chart, a model, a signature.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Digest of its manifest.
    pub id: String,
    /// Full names that point to it.
    pub names: Vec<String>,
    /// Where registries have it, or an index that has it.
    pub repo_digests: Vec<String>,
    /// Blobs and manifest.
    pub size_bytes: u64,
    /// When it was made; 0 if its annotations do not tell.
    pub created_unix_seconds: i64,
    /// What it is; of one that does not tell, the media type of its config.
    pub artifact_type: String,
    /// What its publisher says of it.
    pub annotations: BTreeMap<String, String>,
    /// Its config: often an empty one.
    pub config: Blob,
    /// Its content.
    pub blobs: Vec<Blob>,
    /// Digest of what it says something about.
    pub subject: Option<String>,
    /// The manifest as its publisher wrote it.
    pub manifest_json: String,
}

/// A blob of an artifact, as its descriptor tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// What is in it.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length.
    pub size_bytes: u64,
    /// What its publisher says of it: its file's name, by custom, as `org.opencontainers.image.title`.
    pub annotations: BTreeMap<String, String>,
}

impl Kept {
    /// What has this id.
    pub(crate) fn read(connection: &Connection, id: &str) -> Result<Kept, Error> {
        Kept::find(connection, id)?.ok_or_else(|| Error::NoSuchImage(id.to_owned()))
    }

    /// Like [`Kept::read`]; `None` if it is not here any more.
    pub(crate) fn find(connection: &Connection, id: &str) -> Result<Option<Kept>, Error> {
        let Some(row) = database::image(connection, id)? else {
            return Ok(None);
        };
        let repo_digests = database::repo_digests(connection, id)?;
        if let Some(artifact_type) = row.artifact_type.clone() {
            return Artifact::from_row(row, artifact_type, repo_digests)
                .map(|artifact| Some(Kept::Artifact(Box::new(artifact))));
        }
        let layers = database::image_layers(connection, id)?;
        let unpacked_bytes = layers.iter().filter_map(|layer| layer.unpacked_bytes).sum();
        Image::from_row(row, repo_digests, unpacked_bytes).map(|image| Some(Kept::Image(Box::new(image))))
    }

    /// The image that a container is to be made of. `asked_for` is what the client calls it.
    pub(crate) fn into_image(self, asked_for: &str) -> Result<Image, Error> {
        match self {
            Kept::Image(image) => Ok(*image),
            Kept::Artifact(artifact) => Err(Error::Artifact {
                name: asked_for.to_owned(),
                artifact_type: artifact.artifact_type,
            }),
        }
    }

    /// Digest of an image's config, or of an artifact's manifest.
    pub fn id(&self) -> &str {
        match self {
            Kept::Image(image) => &image.id,
            Kept::Artifact(artifact) => &artifact.id,
        }
    }

    /// Full names that point to it.
    pub fn names(&self) -> &[String] {
        match self {
            Kept::Image(image) => &image.names,
            Kept::Artifact(artifact) => &artifact.names,
        }
    }

    pub(crate) fn names_mut(&mut self) -> &mut Vec<String> {
        match self {
            Kept::Image(image) => &mut image.names,
            Kept::Artifact(artifact) => &mut artifact.names,
        }
    }

    /// Digest of the manifest it was last pulled by.
    pub fn manifest_digest(&self) -> &str {
        match self {
            Kept::Image(image) => &image.manifest_digest,
            Kept::Artifact(artifact) => &artifact.id,
        }
    }

    /// When it was made; 0 if it does not tell.
    pub fn created_unix_seconds(&self) -> i64 {
        match self {
            Kept::Image(image) => image.created_unix_seconds,
            Kept::Artifact(artifact) => artifact.created_unix_seconds,
        }
    }

    /// A label of an image, or an annotation of an artifact.
    pub fn label(&self, key: &str) -> Option<&str> {
        let text = match self {
            Kept::Image(image) => image.config.config().as_ref()?.labels().as_ref()?.get(key),
            Kept::Artifact(artifact) => artifact.annotations.get(key),
        };
        text.map(String::as_str)
    }

    /// Whether it serves a machine of this platform, as an artifact serves any.
    pub(crate) fn is_for(&self, wanted: &Platform) -> bool {
        match self {
            Kept::Image(image) => image.is_for(wanted),
            Kept::Artifact(_) => true,
        }
    }

    /// The platform that it is made for; empty: none.
    pub(crate) fn platform(&self) -> String {
        match self {
            Kept::Image(image) => image.platform().to_string(),
            Kept::Artifact(_) => String::new(),
        }
    }
}

impl Artifact {
    /// What the database has of an artifact.
    pub(crate) fn row(
        digest: &Digest,
        content: Vec<u8>,
        manifest: &manifest::Artifact,
    ) -> Result<ImageRow, Error> {
        let size_bytes = manifest.blobs().iter().map(|blob| blob.size).sum::<u64>() + content.len() as u64;
        let config_json = String::from_utf8(content).map_err(|_| Error::Document {
            what: "manifest",
            digest: digest.to_string(),
            rule: "it is not UTF-8".to_owned(),
        })?;
        Ok(ImageRow {
            id: digest.to_string(),
            manifest_digest: digest.to_string(),
            size_bytes,
            config_json,
            artifact_type: Some(manifest.kind.clone()),
            names: Vec::new(),
        })
    }

    fn from_row(row: ImageRow, artifact_type: String, repo_digests: Vec<String>) -> Result<Artifact, Error> {
        let content = row.config_json.as_bytes();
        let parsed = manifest::parse_stored_artifact(content).zip(links::read(content).ok());
        let (manifest, linked) = parsed.ok_or_else(|| Error::Document {
            what: "manifest",
            digest: row.id.clone(),
            rule: "it was stored, but is not an artifact's".to_owned(),
        })?;
        let subject = linked
            .links
            .into_iter()
            .find(|link| link.kind == LinkKind::Subject);
        let created = manifest.annotations.get(CREATED);
        let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(Artifact {
            id: row.id,
            names: row.names,
            repo_digests,
            size_bytes: row.size_bytes,
            created_unix_seconds: created.map_or(0, jiff::Timestamp::as_second),
            artifact_type,
            annotations: manifest.annotations,
            config: manifest.config.into(),
            blobs: manifest.layers.into_iter().map(Blob::from).collect(),
            subject: subject.map(|link| link.target.digest.to_string()),
            manifest_json: row.config_json,
        })
    }
}

impl From<Part> for Blob {
    fn from(part: Part) -> Blob {
        Blob {
            media_type: part.descriptor.media_type,
            digest: part.descriptor.digest.to_string(),
            size_bytes: part.descriptor.size,
            annotations: part.annotations,
        }
    }
}
