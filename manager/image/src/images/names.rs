//! Names: pointing them somewhere, and taking them away, with what nothing leads to any more.
//!
//! A name leads to one image, or by an index to one for each platform that was pulled. An image goes with the last
//! name that leads to it. By its id, it goes alone: a name that leads to others too stays, and so does the packed
//! content that its index lists.

use rusqlite::Transaction;

use super::Removed;
use super::find::{Found, find};
use crate::Error;
use crate::database;
use crate::reference::Reference;

/// Point `name` to what `source` stands for.
pub(super) fn tag(transaction: &Transaction<'_>, source: &str, name: &str) -> Result<String, Error> {
    let reference = Reference::parse_new_name(name)?;
    let full = reference.name();
    match find(transaction, source)? {
        Found::Name(source) => database::copy_name(transaction, &source.name(), &full)?,
        Found::Image(id) => {
            let image =
                database::image(transaction, &id)?.ok_or_else(|| Error::NoSuchImage(source.to_owned()))?;
            database::put_name(transaction, &full, &image.manifest_digest, Some(&id), "")?;
        }
    }
    failpoint::reach("tag.changed");
    Ok(full)
}

pub(super) fn remove(transaction: &Transaction<'_>, text: &str, force: bool) -> Result<Removed, Error> {
    let going = match find(transaction, text)? {
        Found::Name(reference) => vec![reference.name()],
        Found::Image(id) => {
            let names = names_by_digest(transaction, text)?;
            if names.is_empty() {
                return remove_by_id(transaction, &id, text, force);
            }
            names
        }
    };
    let mut removed = Removed::default();
    let mut affected = Vec::new();
    for name in &going {
        affected.extend(database::images_of(transaction, name)?);
    }
    for name in &going {
        database::delete_name(transaction, name)?;
    }
    affected.sort();
    affected.dedup();
    for id in affected {
        if !database::names_of(transaction, &id)?.is_empty() {
            continue;
        }
        match database::user_of(transaction, &id)? {
            // The transaction is not committed: the names stay.
            Some(user) if !force => {
                return Err(Error::InUse {
                    image: text.to_owned(),
                    user,
                });
            }
            Some(_) => {}
            None => {
                database::delete_image(transaction, &id)?;
                removed.deleted.push(id);
            }
        }
    }
    removed.untagged = going;
    Ok(removed)
}

/// The tags that `repository@digest` means.
fn names_by_digest(transaction: &Transaction<'_>, text: &str) -> Result<Vec<String>, Error> {
    match Reference::parse(text) {
        Ok(reference) => match &reference.digest {
            Some(digest) => {
                database::names_in(transaction, &reference.full_repository(), &digest.to_string())
            }
            None => Ok(Vec::new()),
        },
        Err(_) => Ok(Vec::new()),
    }
}

/// Remove an image, and the names that lead to nothing else.
pub(super) fn remove_by_id(
    transaction: &Transaction<'_>,
    id: &str,
    asked_for: &str,
    force: bool,
) -> Result<Removed, Error> {
    let names = database::names_of(transaction, id)?;
    if names.len() > 1 && !force {
        return Err(Error::SeveralNames {
            id: id.to_owned(),
            names: names.join(", "),
        });
    }
    let user = database::user_of(transaction, id)?;
    if let Some(user) = user.as_ref().filter(|_| !force) {
        return Err(Error::InUse {
            image: asked_for.to_owned(),
            user: user.clone(),
        });
    }
    let mut removed = Removed::default();
    let mut shared = Vec::new();
    for name in names {
        if database::images_of(transaction, &name)?.len() > 1 {
            shared.push(name);
        } else {
            database::delete_name(transaction, &name)?;
            removed.untagged.push(name);
        }
    }
    if user.is_none() {
        database::delete_image(transaction, id)?;
        removed.deleted.push(id.to_owned());
        for name in shared {
            if let Some(other) = database::images_of(transaction, &name)?.first() {
                database::repoint_name(transaction, &name, other)?;
            }
        }
    }
    Ok(removed)
}
