//! Removal of all images that nothing needs.

use rusqlite::Transaction;

use super::filter::Filters;
use super::{Kept, Removed, names};
use crate::{Error, database};

/// Remove the images that pass `filters` and that neither a container nor a lease needs: those without a name, or
/// with `all` those with names too.
pub(super) fn prune(transaction: &Transaction<'_>, all: bool, filters: &Filters) -> Result<Removed, Error> {
    let ready = filters.ready(transaction)?;
    let mut removed = Removed::default();
    for id in database::image_ids(transaction)? {
        let mut kept = Kept::read(transaction, &id)?;
        if (!all && !kept.names().is_empty())
            || !ready.pass(&mut kept)
            || database::user_of(transaction, &id)?.is_some()
        {
            continue;
        }
        let one = names::remove_by_id(transaction, &id, &id, true)?;
        removed.untagged.extend(one.untagged);
        removed.deleted.extend(one.deleted);
    }
    if all && filters.is_empty() {
        // Packed content that no container can be made of as it is.
        for name in database::names_without_image(transaction)? {
            if database::images_of(transaction, &name)?.is_empty() {
                database::delete_name(transaction, &name)?;
                removed.untagged.push(name);
            }
        }
    }
    failpoint::reach("prune.changed");
    Ok(removed)
}
