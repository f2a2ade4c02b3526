//! Archives that say of an image what is not so.

mod fixture;

use fixture::Place;
use fixture::made;
use fixture::raw::Tar;
use serde_json::json;

/// A docker archive of one image with one layer.
fn archive(layer: &[u8], diff_id: &str, name: &str) -> Vec<u8> {
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": [name]}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let tar = Tar::default()
        .file("config.json", &config.to_string())
        .file("manifest.json", &manifest.to_string())
        .raw(b'0', b"layer.tar", b"", layer, 0o644);
    tar.bytes(&[0; 1024]).0
}

fn layer(name: &str) -> Vec<u8> {
    Tar::default().file(name, "x").bytes(&[0; 1024]).0
}

async fn load(place: &Place, archive: Vec<u8>) -> Result<(), image::Error> {
    let images = place.images.clone();
    let loaded = tokio::task::spawn_blocking(move || images.load(&archive[..], None).map(|_| ()));
    loaded.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_a_digest_is_not_an_archives_to_give() {
    let place = Place::new().await;
    let tar = layer("a");
    let name = format!("r.example/team/app@sha256:{}", "ab".repeat(32));
    let error = load(&place, archive(&tar, &made::digest(&tar), &name))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("a digest cannot be given"), "{error}");
    assert!(place.images.list().unwrap().is_empty());
}

/// Whoever saves or pushes the image sends the archive's blob, and not what the layer was unpacked from.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_here_already_is_looked_at_all_the_same() {
    let place = Place::new().await;
    let (good, evil) = (layer("good"), layer("evil"));
    load(&place, archive(&good, &made::digest(&good), "a/good:1"))
        .await
        .unwrap();
    let error = load(&place, archive(&evil, &made::digest(&good), "a/evil:1"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&made::digest(&good)), "{error}");
    assert!(place.images.get("a/evil:1").is_err());
}
