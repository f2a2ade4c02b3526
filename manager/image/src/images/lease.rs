//! Leases of clients: images that stay for a bounded time, whatever others remove.
//!
//! A lease holds what its images are made of. Names can be taken away meanwhile, and an image that has lost them stays
//! after the lease, too, until a removal takes it.

use std::collections::HashMap;

use rusqlite::Connection;

use super::find;
use crate::rootfs::{self, ID_MAX_BYTES};
use crate::store::Store;
use crate::{Error, database};

/// At once. A client that asks for more has lost count of its own.
const LEASES_MAX: u32 = 1000;
/// In one lease.
const IMAGES_MAX: usize = 100;
/// A year: who still works with an image renews its lease.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

/// A client's lease that has not run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its client's choice.
    pub id: String,
    /// What it holds, in the order of their ids.
    pub images: Vec<LeasedImage>,
    /// When it ends by itself.
    pub expires_unix_seconds: i64,
}

/// An image that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedImage {
    /// Digest of the config, `sha256:…`.
    pub id: String,
    /// Full names that point to it now; there need not be any.
    pub names: Vec<String>,
}

/// Take a lease, or make the one of this id what is asked for now. As a whole, or not at all.
pub(super) fn take(store: &Store, id: &str, names_or_ids: &[String], seconds: u64) -> Result<Lease, Error> {
    check(id, names_or_ids, seconds)?;
    let mut connection = store.database();
    let transaction = database::write(&mut connection)?;
    // In this order none stays that runs out in between.
    database::delete_client_lease(&transaction, id)?;
    database::delete_expired_leases(&transaction)?;
    if database::count_client_leases(&transaction)? >= LEASES_MAX {
        return Err(Error::TooManyLeases(LEASES_MAX));
    }
    let expires = jiff::Timestamp::now()
        .as_second()
        .saturating_add_unsigned(seconds);
    for image in names_or_ids {
        let image = find::image_id(&transaction, image)?;
        database::insert_client_lease(&transaction, id, &image, expires)?;
    }
    let lease = list(&transaction, Some(id))?.pop();
    transaction.commit().map_err(database::doing("commit a lease"))?;
    lease.ok_or_else(|| Error::NoSuchClientLease(id.to_owned()))
}

/// All of them, or the one of this id.
pub(super) fn list(connection: &Connection, id: Option<&str>) -> Result<Vec<Lease>, Error> {
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    let mut leases: Vec<Lease> = Vec::new();
    for (id, expires_unix_seconds, image) in database::client_leases(connection, id)? {
        if !names.contains_key(&image) {
            names.insert(image.clone(), database::names_of(connection, &image)?);
        }
        let held = LeasedImage {
            names: names[&image].clone(),
            id: image,
        };
        match leases.last_mut().filter(|last| last.id == id) {
            Some(lease) => lease.images.push(held),
            None => leases.push(Lease {
                id,
                images: vec![held],
                expires_unix_seconds,
            }),
        }
    }
    Ok(leases)
}

pub(super) fn end(store: &Store, id: &str) -> Result<(), Error> {
    check_id(id)?;
    if database::delete_client_lease(&store.database(), id)? {
        return Ok(());
    }
    Err(Error::NoSuchClientLease(id.to_owned()))
}

fn check(id: &str, names_or_ids: &[String], seconds: u64) -> Result<(), Error> {
    check_id(id)?;
    let rule = if names_or_ids.is_empty() {
        "it has to hold an image".to_owned()
    } else if names_or_ids.len() > IMAGES_MAX {
        format!("it may hold {IMAGES_MAX} images, not {}", names_or_ids.len())
    } else if !(1..=SECONDS_MAX).contains(&seconds) {
        format!("it may last from 1 to {SECONDS_MAX} seconds (366 days), not {seconds}")
    } else {
        return Ok(());
    };
    Err(Error::Lease {
        id: id.to_owned(),
        rule,
    })
}

/// The rule of containers' ids.
fn check_id(id: &str) -> Result<(), Error> {
    if rootfs::is_id(id) {
        return Ok(());
    }
    Err(Error::Lease {
        id: id.chars().take(ID_MAX_BYTES).collect(),
        rule: format!(
            "an id is letters, digits, `_`, `.` and `-`, at most {ID_MAX_BYTES} of them, no leading mark"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_asks_for_is_bounded() {
        let one = ["busybox".to_owned()];
        for id in ["a", "CI.build_1-x", &"x".repeat(ID_MAX_BYTES)] {
            check(id, &one, 1).unwrap();
        }
        for id in [
            "",
            ".hidden",
            "-flag",
            "a b",
            "ü",
            "a/b",
            &"x".repeat(ID_MAX_BYTES + 1),
        ] {
            assert!(matches!(check(id, &one, 1), Err(Error::Lease { .. })), "{id}");
        }
        let many = vec!["busybox".to_owned(); IMAGES_MAX + 1];
        check("a", &many[1..], SECONDS_MAX).unwrap();
        for (images, seconds) in [
            (&one[..], 0),
            (&one, SECONDS_MAX + 1),
            (&one, u64::MAX),
            (&[], 1),
            (&many, 1),
        ] {
            assert!(check("a", images, seconds).is_err(), "{} {seconds}", images.len());
        }
    }
}
