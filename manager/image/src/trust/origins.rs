//! What is kept of where an image came from: the name it was pulled under, and the signatures that were found then.
//!
//! An image without an origin was loaded, imported or committed here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};

use super::documents::Document;
use crate::Error;
use crate::database;
use crate::digest::Digest;
use crate::store::{Held, Key, Store};

/// Where an image came from, with the documents to judge it by.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The full name.
    pub(crate) name: String,
    /// What the name pointed to first, the image's own manifest last.
    pub(crate) digests: Vec<Digest>,
    pub(crate) documents: Vec<Document>,
    pub(crate) verified: Verified,
}

/// By what an image was accepted, for the record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verified {
    pub(crate) policy: String,
    /// Kind and signer.
    pub(crate) signatures: Vec<(String, String)>,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} accepted it", self.policy)?;
        for (kind, signer) in &self.signatures {
            write!(f, ", signed by {signer} ({kind})")?;
        }
        Ok(())
    }
}

/// A document as the table has it.
#[derive(Serialize, Deserialize)]
struct Pointer {
    subject: String,
    manifest: String,
}

impl Origin {
    /// Keep the documents as blobs; the holds have to live until [`Origin::insert`] is committed.
    pub(crate) fn hold_documents(&self, store: &Arc<Store>) -> Result<Vec<Arc<Held>>, Error> {
        let contents = self.documents.iter().flat_map(|document| {
            let blobs = document.blobs.iter();
            std::iter::once((&document.digest, &document.content)).chain(blobs)
        });
        contents
            .map(|(digest, content)| store.keep_bytes(digest, content))
            .collect()
    }

    /// Record the origin of an image that is recorded in the same transaction or before, blobs and all.
    pub(crate) fn insert(&self, transaction: &Transaction<'_>, image_id: &str) -> Result<(), Error> {
        let pointers: Vec<Pointer> = self
            .documents
            .iter()
            .map(|document| Pointer {
                subject: document.subject.to_string(),
                manifest: document.digest.to_string(),
            })
            .collect();
        let digests: Vec<String> = self.digests.iter().map(Digest::to_string).collect();
        let json = |value: serde_json::Result<String>| value.expect("strings are JSON");
        transaction
            .execute(
                "INSERT OR REPLACE INTO origins (image_id, name, digests, signatures, verified)
                    VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    image_id,
                    self.name,
                    json(serde_json::to_string(&digests)),
                    json(serde_json::to_string(&pointers)),
                    json(serde_json::to_string(&self.verified)),
                ],
            )
            .map(|_| ())
            .map_err(database::doing("record where an image came from"))
    }
}

/// An image that was made of an index that is here, for one more platform, came from where that index came from.
pub(crate) fn inherit(
    transaction: &Transaction<'_>,
    image_id: &str,
    name: &str,
    target_digest: &str,
    manifest_digest: &str,
) -> Result<(), Error> {
    let digests = serde_json::json!([target_digest, manifest_digest]).to_string();
    let inherit = || -> rusqlite::Result<()> {
        let from =
            "FROM origins WHERE name = ?2 AND json_extract(digests, '$[0]') = ?3 AND image_id != ?1 LIMIT 1";
        transaction.execute(
            &format!(
                "INSERT OR IGNORE INTO image_contents (image_id, digest)
                    SELECT ?1, digest FROM image_contents WHERE image_id = (SELECT image_id {from})"
            ),
            params![image_id, name, target_digest],
        )?;
        transaction.execute(
            &format!(
                "INSERT OR REPLACE INTO origins (image_id, name, digests, signatures, verified)
                    SELECT ?1, ?2, ?4, signatures, verified {from}"
            ),
            params![image_id, name, target_digest, digests],
        )?;
        Ok(())
    };
    inherit().map_err(database::doing("record where an image came from"))
}

/// All origins of an image. A document that is lost or damaged is left out: without it the image is just less signed.
pub(crate) fn of_image(store: &Arc<Store>, image_id: &str) -> Result<Vec<Origin>, Error> {
    let rows = rows(&store.database(), image_id)?;
    rows.into_iter()
        .map(|(name, digests, signatures, verified)| {
            let digests: Vec<String> = stored(&digests, image_id)?;
            let pointers: Vec<Pointer> = stored(&signatures, image_id)?;
            let documents = pointers.iter().filter_map(|pointer| read(store, pointer));
            Ok(Origin {
                name,
                digests: digests
                    .iter()
                    .filter_map(|text| Digest::parse(text).ok())
                    .collect(),
                documents: documents.collect(),
                verified: stored(&verified, image_id)?,
            })
        })
        .collect()
}

fn rows(connection: &Connection, image_id: &str) -> Result<Vec<(String, String, String, String)>, Error> {
    let list =
        || -> rusqlite::Result<Vec<_>> {
            connection
            .prepare_cached(
                "SELECT name, digests, signatures, verified FROM origins WHERE image_id = ? ORDER BY name",
            )?
            .query_map([image_id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect()
        };
    list().map_err(database::doing("read where an image came from"))
}

fn stored<T: for<'de> Deserialize<'de>>(json: &str, image_id: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|e| Error::Document {
        what: "origin of image",
        digest: image_id.to_owned(),
        rule: format!("it was stored, but cannot be read: {e}"),
    })
}

fn read(store: &Arc<Store>, pointer: &Pointer) -> Option<Document> {
    let digest = Digest::parse(&pointer.manifest).ok()?;
    let content = blob(store, &digest)?;
    let blobs = Document::blob_digests(&content).ok()?;
    let blobs: BTreeMap<Digest, Vec<u8>> = blobs
        .into_iter()
        .filter_map(|digest| Some((digest.clone(), blob(store, &digest)?)))
        .collect();
    Some(Document {
        subject: Digest::parse(&pointer.subject).ok()?,
        digest,
        content,
        blobs,
    })
}

fn blob(store: &Arc<Store>, digest: &Digest) -> Option<Vec<u8>> {
    let held = store.hold(&Key::Blob(digest.clone())).ok()??;
    let content = std::fs::read(held.path()).ok()?;
    let mut hasher = digest.hasher();
    hasher.update(&content);
    (hasher.finish() == *digest).then_some(content)
}
