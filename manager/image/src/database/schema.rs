//! The tables, version by version, and the way from one version to the next.

use std::path::Path;

use rusqlite::{Connection, Transaction, params};

use super::{doing, insert_content, insert_repository, strings};
use crate::Error;
use crate::digest::Digest;
use crate::links;
use crate::reference::Reference;

/// One step a version; the database's `user_version` says how many have run. Never edit one that was released.
struct Step {
    script: &'static str,
    /// What SQL alone cannot do, in the same transaction.
    complete: fn(&Transaction<'_>, &Path) -> Result<(), Error>,
}

const STEPS: [Step; 6] = [
    Step {
        script: include_str!("schema/1.sql"),
        complete: |_, _| Ok(()),
    },
    Step {
        script: include_str!("schema/2.sql"),
        complete: describe_contents,
    },
    Step {
        script: include_str!("schema/3.sql"),
        complete: |_, _| Ok(()),
    },
    Step {
        script: include_str!("schema/4.sql"),
        complete: |_, _| Ok(()),
    },
    Step {
        script: include_str!("schema/5.sql"),
        complete: |_, _| Ok(()),
    },
    Step {
        script: include_str!("schema/6.sql"),
        complete: |_, _| Ok(()),
    },
];

pub(super) fn migrate(connection: &mut Connection, root: &Path) -> Result<(), Error> {
    let version: usize = connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map_err(doing("read the version of"))?
        .try_into()
        .unwrap_or(usize::MAX);
    if version > STEPS.len() {
        let rule = format!(
            "it was written by a newer program (version {version}, this one knows {})",
            STEPS.len()
        );
        return Err(Error::Store {
            path: root.join("images.db"),
            rule,
        });
    }
    for (number, step) in STEPS.iter().enumerate().skip(version) {
        let transaction = connection.transaction().map_err(doing("migrate"))?;
        transaction.execute_batch(step.script).map_err(doing("migrate"))?;
        (step.complete)(&transaction, root)?;
        transaction
            .pragma_update(None, "user_version", number as i64 + 1)
            .map_err(doing("migrate"))?;
        failpoint::reach("migrate.changed");
        transaction.commit().map_err(doing("migrate"))?;
    }
    Ok(())
}

/// Version 1 knew which blobs an image has, but not what they are: their manifests tell. A manifest that cannot be
/// read keeps the links that the script made of version 1's rows, so that nothing of an image goes.
fn describe_contents(transaction: &Transaction<'_>, root: &Path) -> Result<(), Error> {
    let digests = strings(transaction, "SELECT digest FROM contents", []).map_err(doing("migrate"))?;
    for text in &digests {
        let Some(path) = blob(root, text) else { continue };
        let size = path.metadata().map_or(0, |metadata| metadata.len());
        transaction
            .execute(
                "UPDATE contents SET size_bytes = ?2 WHERE digest = ?1",
                params![text, size.cast_signed()],
            )
            .map_err(doing("migrate"))?;
    }
    let manifests =
        strings(transaction, "SELECT manifest_digest FROM images", []).map_err(doing("migrate"))?;
    for text in &manifests {
        let content = blob(root, text).and_then(|path| std::fs::read(path).ok());
        let Some(document) = content.and_then(|content| links::read(&content).ok()) else {
            continue;
        };
        transaction
            .execute("DELETE FROM links WHERE parent = ?", [text])
            .map_err(doing("migrate"))?;
        insert_content(transaction, text, &document.media_type, None, &document.links)?;
    }
    // The registry has the manifest too, wherever it had the index that version 1 did not keep.
    let sql = "SELECT name || ' ' || manifest_digest FROM names JOIN images ON images.id = image_id
        WHERE manifest_digest IN (SELECT digest FROM contents)";
    for row in strings(transaction, sql, []).map_err(doing("migrate"))? {
        if let Some((name, digest)) = row.split_once(' ')
            && let Ok(reference) = Reference::parse(name)
        {
            insert_repository(transaction, &reference.full_repository(), digest)?;
        }
    }
    Ok(())
}

fn blob(root: &Path, digest: &str) -> Option<std::path::PathBuf> {
    let digest = Digest::parse(digest).ok()?;
    Some(
        root.join("blobs")
            .join(digest.algorithm_name())
            .join(digest.hex()),
    )
}
