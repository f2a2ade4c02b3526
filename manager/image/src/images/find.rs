//! What people write for an image: a name, a digest, an id, or the beginning of one.

use rusqlite::Connection;

use super::Kept;
use crate::database;
use crate::reference::Reference;
use crate::{Error, Platform, digest::Digest};

/// What a text stands for.
pub(crate) enum Found {
    /// A name that is here.
    Name(Reference),
    /// An image by its id, or by a digest that no name here has.
    Image(String),
}

pub(crate) fn find(connection: &Connection, text: &str) -> Result<Found, Error> {
    let reference = Reference::parse(text);
    if let Ok(reference) = &reference
        && database::target_of(connection, &reference.name())?.is_some()
    {
        return Ok(Found::Name(reference.clone()));
    }
    if let Some(id) = id_with_prefix(connection, text)? {
        return Ok(Found::Image(id));
    }
    let no_such_image = || Error::NoSuchImage(text.chars().take(200).collect());
    match reference {
        // A name by digest finds what its repository has, however that was pulled.
        Ok(
            ref reference @ Reference {
                digest: Some(ref digest),
                ..
            },
        ) => of_repository(connection, &reference.full_repository(), &digest.to_string())?
            .map(Found::Image)
            .ok_or_else(no_such_image),
        // What reads as an id is one that is not here, not a broken name.
        Err(e) if text.len() != 64 && !text.starts_with("sha256:") => Err(e),
        Err(_) => match Digest::parse(text) {
            Ok(digest) => by_manifest(connection, &digest.to_string())?
                .map(Found::Image)
                .ok_or_else(no_such_image),
            Err(_) => Err(no_such_image()),
        },
        Ok(_) => Err(no_such_image()),
    }
}

/// The one image whose id begins with `text`.
fn id_with_prefix(connection: &Connection, text: &str) -> Result<Option<String>, Error> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(is_hex) {
        return Ok(None);
    }
    let mut ids = database::ids_with_prefix(connection, &format!("sha256:{hex}"))?;
    match (ids.pop(), ids.is_empty()) {
        (Some(_), false) => Err(Error::AmbiguousId(text.to_owned())),
        (id, _) => Ok(id),
    }
}

/// The image of a repository's manifest or index: the one that a tag of it stands for, if one does.
fn of_repository(connection: &Connection, repository: &str, digest: &str) -> Result<Option<String>, Error> {
    for name in database::names_in(connection, repository, digest)? {
        if let Some(row) = database::name(connection, &name)? {
            return Ok(Some(row.image_id));
        }
    }
    let having = database::repositories_with(connection, digest)?;
    if having.iter().any(|one| one == repository) {
        return by_manifest(connection, digest);
    }
    Ok(None)
}

/// The image of a manifest or index; of several, this machine's.
fn by_manifest(connection: &Connection, digest: &str) -> Result<Option<String>, Error> {
    let ids = database::ids_by_manifest(connection, digest)?;
    for id in &ids {
        if Kept::read(connection, id)?.is_for(&Platform::host()) {
            return Ok(Some(id.clone()));
        }
    }
    Ok(ids.into_iter().next())
}

/// The id of the image that a text stands for.
pub(crate) fn image_id(connection: &Connection, text: &str) -> Result<String, Error> {
    match find(connection, text)? {
        Found::Image(id) => Ok(id),
        Found::Name(reference) => {
            let name = reference.name();
            if let Some(row) = database::name(connection, &name)? {
                return Ok(row.image_id);
            }
            let target = database::target_of(connection, &name)?.unwrap_or_default();
            let content = database::content(connection, &target)?;
            Err(Error::NotAnImage {
                name: text.to_owned(),
                media_type: content.map_or_else(|| target, |content| content.media_type),
            })
        }
    }
}
