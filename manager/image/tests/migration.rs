//! A store that version 1 of the database describes: everything is still there, and what version 1 did not keep is
//! fetched by the next pull.

mod fixture;

use fixture::Place;
use fixture::made::{self, Entry, Packing};
use fixture::scripted::Server;
use image::Images;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_version_1_loses_nothing() {
    let tar = made::tar(&[Entry::File("a", b"contents")]);
    let image = made::image(&[made::layer(&tar, Packing::Gzip)]);
    let index = made::index(&[("linux/amd64", &image)]);
    let server = Server::with(index.clone());
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let folder = place.close();
    let root = folder.path();
    as_version_1(root, &server.reference(), &pulled, &index.top);

    let images = Images::open(root).await.unwrap();
    let found = images.get(&server.reference()).unwrap();
    assert_eq!((found.id.as_str(), found.names.len()), (pulled.id.as_str(), 1));
    assert_eq!(images.leases().unwrap(), ["c"]);
    images.prune(true, &image::Filters::default()).unwrap();
    for digest in [&image.top, &image.id, &image.layers[0]] {
        let blob = root
            .join("blobs/sha256")
            .join(digest.strip_prefix("sha256:").unwrap());
        assert!(blob.exists(), "{digest} is needed");
    }
    assert_eq!(
        images.history(&pulled.id).unwrap()[0].size_bytes,
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

/// Describe the same files by a database of version 1, made by its own script.
fn as_version_1(root: &std::path::Path, name: &str, image: &image::Image, target: &str) {
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
