//! A store that version 1 of the database describes: everything is still there, and what version 1 did not keep is
//! fetched by the next pull.

mod fixture;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use fixture::Place;
use fixture::made::{self, Entry, Packing};
use fixture::scripted::Server;
use image::Images;

/// The store that a process of this test opens, to die on its way.
const DIES_OVER: &str = "BERTH_TEST_STORE";
const SIGABRT: i32 = 6;

/// An image in a store of version 1, and the registry that it came from.
struct Old {
    server: Server,
    made: made::Made,
    pulled: image::Image,
    folder: tempfile::TempDir,
}

impl Old {
    async fn new() -> Old {
        let tar = made::tar(&[Entry::File("a", b"contents")]);
        let made = made::image(&[made::layer(&tar, Packing::Gzip)]);
        let index = made::index(&[("linux/amd64", &made)]);
        let server = Server::with(index.clone());
        let place = Place::new().await;
        let pulled = place.pull(&server.reference()).await.unwrap();
        let folder = place.close();
        as_version_1(folder.path(), &server.reference(), &pulled, &index.top);
        Old {
            server,
            made,
            pulled,
            folder,
        }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Open it, which brings it to the newest version, and look whether all is there.
    async fn open(&self) -> Images {
        let images = Images::open(self.root()).await.unwrap();
        let found = images.get(&self.server.reference()).unwrap();
        assert_eq!(
            (found.id.as_str(), found.names.len()),
            (self.pulled.id.as_str(), 1)
        );
        assert_eq!(images.leases().unwrap(), ["c"]);
        images.prune(true, &image::Filters::default()).unwrap();
        for digest in [&self.made.top, &self.made.id, &self.made.layers[0]] {
            let hex = digest.strip_prefix("sha256:").unwrap();
            let blob = self.root().join("blobs/sha256").join(hex);
            assert!(blob.exists(), "{digest} is needed");
        }
        let counts = fixture::assert_sound(&images);
        assert_eq!((counts.layers, counts.blobs), (1, 3));
        images
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_version_1_loses_nothing() {
    let old = Old::new().await;
    let (images, server) = (old.open().await, &old.server);
    assert_eq!(
        images.history(&old.pulled.id).unwrap()[0].size_bytes,
        8,
        "measured now"
    );
    // The index was not kept; nothing but that is fetched.
    server.forget();
    let pull = async || {
        images
            .pull(&server.reference(), image::PullOptions::default(), &|_| {})
            .await
    };
    pull().await.unwrap();
    assert_eq!(
        (server.count("GET", "manifests/v1"), server.requests().len()),
        (1, 1)
    );
    server.forget();
    pull().await.unwrap();
    assert_eq!(
        (server.count("HEAD", "manifests/v1"), server.requests().len()),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_is_killed_goes_on_where_it_was() {
    if let Some(root) = std::env::var_os(DIES_OVER) {
        let opened = Images::open(Path::new(&root)).await;
        panic!("it should have died at its failpoint: {:?}", opened.err());
    }
    let old = Old::new().await;
    // Each process dies before its first step is committed, or its second.
    for (failpoint, version) in [
        ("migrate.changed", 1),
        ("migrate.changed:2", 2),
        ("migrate.changed", 2),
        ("migrate.changed:2", 3),
    ] {
        let mut dying = Command::new(std::env::current_exe().unwrap());
        dying
            .args(["--exact", "a_migration_that_is_killed_goes_on_where_it_was"])
            .env("BERTH_FAILPOINT", failpoint)
            .env(DIES_OVER, old.root());
        let ended = dying.output().unwrap();
        assert_eq!(ended.status.signal(), Some(SIGABRT), "{ended:?}");
        // Opened by somebody who looks, and does not migrate.
        let database = rusqlite::Connection::open(old.root().join("images.db")).unwrap();
        let is: i64 = database
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(is, version, "after {failpoint}");
    }
    old.open().await;
}

/// Describe the same files by a database of version 1, made by its own script.
fn as_version_1(root: &Path, name: &str, image: &image::Image, target: &str) {
    let new = rusqlite::Connection::open(root.join("images.db")).unwrap();
    let text = |sql: &str| -> Vec<String> {
        let mut statement = new.prepare(sql).unwrap();
        statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let chain_id = &text("SELECT chain_id FROM layers")[0];
    let number: i64 = new
        .query_row("SELECT number FROM layers", [], |row| row.get(0))
        .unwrap();
    let blobs: Vec<String> = text("SELECT digest FROM contents")
        .into_iter()
        .filter(|digest| digest != target)
        .collect();
    new.close().unwrap();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(root.join(format!("images.db{end}")));
    }
    let old = rusqlite::Connection::open(root.join("images.db")).unwrap();
    old.execute_batch(include_str!("../src/database/schema/1.sql"))
        .unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let run = |sql: &str, values: &[&str]| {
        old.execute(sql, rusqlite::params_from_iter(values)).unwrap();
    };
    run(
        "INSERT INTO images VALUES (?, ?, 1, ?)",
        &[&image.id, &image.manifest_digest, &image.config_json],
    );
    run(
        "INSERT INTO names VALUES (?, ?, ?, ?)",
        &[name, &image.id, target, &image::Platform::host().to_string()],
    );
    old.execute(
        "INSERT INTO layers VALUES (?, ?)",
        rusqlite::params![chain_id, number],
    )
    .unwrap();
    run(
        "INSERT INTO image_layers VALUES (?, 0, ?)",
        &[&image.id, chain_id],
    );
    for digest in &blobs {
        run("INSERT INTO blobs VALUES (?)", &[digest]);
        run("INSERT INTO image_blobs VALUES (?, ?)", &[&image.id, digest]);
    }
    run("INSERT INTO leases VALUES ('c', ?)", &[&image.id]);
    std::fs::create_dir_all(root.join("containers/c/upper")).unwrap();
}
