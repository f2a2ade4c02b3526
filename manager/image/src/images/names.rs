//! Names: pointing them somewhere, and taking them away, with what nothing leads to any more.
//!
//! A name leads to one image, or by an index to one for each platform that was pulled. An image goes with the last
//! name that leads to it. By its id, it goes alone: a name that leads to others too stays, and so does the packed
//! content that its index lists.

use rusqlite::Transaction;

use super::find::{Found, find};
use super::{Kept, Removed};
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
            let Some((repository, digest)) = repository_and_digest(text) else {
                return remove_by_id(transaction, &id, text, force);
            };
            let names = database::names_in(transaction, &repository, &digest)?;
            if names.is_empty() {
                return remove_untagged(transaction, &repository, &digest, &id, force);
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

fn repository_and_digest(text: &str) -> Option<(String, String)> {
    let reference = Reference::parse(text).ok()?;
    let digest = reference.digest.as_ref()?.to_string();
    Some((reference.full_repository(), digest))
}

/// Remove what no tag of the repository points to. The image goes if nothing else has a name for it.
fn remove_untagged(
    transaction: &Transaction<'_>,
    repository: &str,
    digest: &str,
    id: &str,
    force: bool,
) -> Result<Removed, Error> {
    let text = format!("{repository}@{digest}");
    if database::names_of(transaction, id)?.is_empty() {
        return remove_by_id(transaction, id, &text, force);
    }
    if !database::delete_repository(transaction, repository, digest)? {
        return Err(Error::NoSuchImage(text));
    }
    Ok(Removed {
        untagged: vec![text],
        deleted: Vec::new(),
    })
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
                let platform = Kept::read(transaction, other)?.platform();
                database::repoint_name(transaction, &name, other, &platform)?;
            }
        }
    }
    Ok(removed)
}
