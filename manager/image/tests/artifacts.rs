//! Artifacts by their own names: kept whole, verified and durable as images are, and nothing that a container is made of.

mod fixture;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use fixture::made::{self, Made, OCI_MANIFEST};
use fixture::scripted::{Reply, Server, good};
use fixture::{Place, assert_sound, image_of};
use image::{Artifact, Error, Filters, Kept, Kind, PullOptions};
use serde_json::{Value, json};

const CHART: &str = "application/vnd.cncf.helm.config.v1+json";
const TITLE: &str = "org.opencontainers.image.title";

/// A chart of a config and these blobs; each blob's annotations tell its file's name.
fn artifact(blobs: &[&[u8]]) -> Made {
    let mut made = Made::default();
    made.id = made.add(CHART, br#"{"name":"web"}"#.to_vec());
    let mut layers = Vec::new();
    for (position, content) in blobs.iter().enumerate() {
        let digest = made.add("application/vnd.example.part", content.to_vec());
        let mut layer = made.descriptor(&digest);
        layer["annotations"] = json!({TITLE: format!("part{position}")});
        layers.push(layer);
        made.layers.push(digest);
    }
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": made.descriptor(&made.id), "layers": layers,
        "annotations": {"org.opencontainers.image.created": "2026-01-02T03:04:05Z", "team": "web"},
    });
    made.top = made.add(OCI_MANIFEST, manifest.to_string().into_bytes());
    made
}

async fn pull(place: &Place, reference: &str) -> Result<Artifact, Error> {
    let pulled = place.images.pull(reference, PullOptions::default(), &|_| {});
    match pulled.await?.kept {
        Kept::Artifact(artifact) => Ok(*artifact),
        Kept::Image(image) => panic!("an image: {image:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_kept_whole_and_told_in_full() {
    let (first, second) = (made::noise(3 << 20, 1), made::noise(100, 2));
    let made = artifact(&[&first, &second, b""]);
    let server = Server::with(made.clone());
    let place = Place::new().await;
    let told = Mutex::new(std::collections::BTreeMap::new());
    let progress = |p: image::LayerProgress| {
        told.lock().unwrap().insert(p.digest, p.downloaded_bytes);
    };
    let name = server.reference();
    let pulled = place.images.pull(&name, PullOptions::default(), &progress);
    assert_eq!(pulled.await.unwrap().digest, made.top);
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), 4, "config and blobs: {told:?}");
    assert_eq!(told[&made.layers[0]], 3 << 20);

    let kept = place.images.get_kept(&made.top).unwrap();
    let Kept::Artifact(kept) = kept else {
        panic!("{kept:?}")
    };
    let bytes: usize = made.blobs.values().map(|(_, content)| content.len()).sum();
    assert_eq!((&kept.id, &kept.names), (&made.top, &vec![server.reference()]));
    assert_eq!(
        (kept.artifact_type.as_str(), kept.size_bytes),
        (CHART, bytes as u64)
    );
    assert_eq!(kept.created_unix_seconds, 1_767_323_045);
    assert_eq!(kept.annotations["team"], "web");
    assert_eq!(kept.config.digest, made.id);
    let names: Vec<&str> = kept
        .blobs
        .iter()
        .map(|blob| blob.annotations[TITLE].as_str())
        .collect();
    assert_eq!(names, ["part0", "part1", "part2"]);
    assert_eq!(kept.blobs[1].size_bytes, 100);
    assert!(
        kept.repo_digests[0].ends_with(&format!("/app@{}", made.top)),
        "{:?}",
        kept.repo_digests
    );
    for digest in made.blobs.keys() {
        let file = place.root().join("blobs").join(digest.replace(':', "/"));
        assert_eq!(made::digest(&std::fs::read(file).unwrap()), *digest);
    }
    assert_eq!(assert_sound(&place.images).images, 1);

    // Nothing has moved: that is asked, and no more.
    server.forget();
    let place = Place::reopen(place.close()).await;
    pull(&place, &server.reference()).await.unwrap();
    let asked: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(asked, ["HEAD"]);
}

#[tokio::test]
async fn a_container_is_not_made_of_an_artifact() {
    let made = artifact(&[b"part"]);
    let server = Server::with(made.clone());
    let place = Place::new().await;
    let for_a_container = || PullOptions {
        images_only: true,
        ..PullOptions::default()
    };
    let refusal = |error: Error| {
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        let error = error.to_string();
        assert!(
            error.contains("no container can be made of it") && error.contains(CHART),
            "{error}"
        );
    };
    let name = server.reference();
    let refused = place.images.pull(&name, for_a_container(), &|_| {}).await;
    refusal(refused.unwrap_err());
    assert_eq!(
        server.count("GET", "/blobs/"),
        0,
        "its type was clear from its manifest"
    );
    assert!(place.left_over().is_empty());

    pull(&place, &name).await.unwrap();
    refusal(place.images.get(&name).unwrap_err());
    refusal(place.images.get(&made.top[7..19]).unwrap_err());
    refusal(place.images.history(&name).unwrap_err());
    // It is here, and unmoved.
    let again = place.images.pull(&name, for_a_container(), &|_| {}).await;
    refusal(again.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_blob_goes_on_where_it_broke_and_a_false_one_leaves_nothing() {
    let large = made::noise(2 << 20, 3);
    let made = artifact(&[&large, b"other"]);
    let (image, layer) = (made.clone(), made.layers[0].clone());
    let cut = Server::start(move |request, before| match good(request, &image) {
        Reply::Answer(200, headers, body) if before == 0 && request.path.contains(&layer) => {
            Reply::Cut(200, headers, body, 1 << 20)
        }
        other => other,
    });
    let place = Place::new().await;
    pull(&place, &cut.reference()).await.unwrap();
    let requests = cut.requests();
    let rest: Vec<_> = requests
        .iter()
        .filter_map(|request| request.header("range"))
        .collect();
    assert_eq!(rest, ["bytes=1048576-"]);

    let layer = made.layers[1].clone();
    let false_blob = Server::start(move |request, _| match good(request, &made) {
        Reply::Answer(200, headers, _) if request.path.contains(&layer) => {
            Reply::Answer(200, headers, b"0ther".into())
        }
        other => other,
    });
    let place = Place::new().await;
    let error = pull(&place, &false_blob.reference()).await.unwrap_err();
    assert!(error.to_string().contains("digest"), "{error}");
    assert!(place.images.list().unwrap().is_empty());
    // The writer of the other blob ends by itself.
    fixture::eventually("nothing is left", || place.left_over().is_empty()).await;
}

#[tokio::test]
async fn a_manifest_that_lies_of_a_size_is_refused_though_the_blob_is_here() {
    let made = artifact(&[b"part"]);
    let mut other = made.clone();
    other.edit_manifest(|manifest| manifest["layers"][0]["size"] = json!(5));
    let place = Place::new().await;
    pull(&place, &Server::with(made).reference()).await.unwrap();
    let error = pull(&place, &Server::with(other).reference()).await.unwrap_err();
    assert!(error.to_string().contains("not 5 bytes long"), "{error}");
    assert_eq!(place.images.list().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_name_leaves_the_older_artifact_for_prune() {
    let (old, new) = (artifact(&[b"shared", b"old"]), artifact(&[b"shared", b"new"]));
    let moved = std::sync::Arc::new(AtomicBool::new(false));
    let (flag, first, second) = (std::sync::Arc::clone(&moved), old.clone(), new.clone());
    let server = Server::start(move |request, _| {
        let now = if flag.load(Ordering::SeqCst) {
            &second
        } else {
            &first
        };
        good(request, now)
    });
    let place = Place::new().await;
    let name = server.reference();
    pull(&place, &name).await.unwrap();
    place.images.tag(&name, "example.com/kept:1").unwrap();
    place.images.remove("example.com/kept:1", false).unwrap();
    moved.store(true, Ordering::SeqCst);
    server.forget();
    assert_eq!(pull(&place, &name).await.unwrap().id, new.top);
    assert_eq!(server.count("GET", "/blobs/"), 1, "what they share is here");
    let dangling = Filters::parse(&["dangling=true".to_owned()]).unwrap();
    let listed = place.images.list_some(&dangling).unwrap();
    assert_eq!(listed.iter().map(Kept::id).collect::<Vec<_>>(), [&old.top]);
    let (removed, _) = place.images.prune(false, &Filters::default()).unwrap();
    assert_eq!(removed.deleted, std::slice::from_ref(&old.top));
    let usage = place.images.usage().unwrap();
    let sizes = new.blobs.values().map(|(_, content)| content.len() as u64);
    assert_eq!(
        (usage.images.len(), usage.images[0].content_bytes),
        (1, sizes.sum())
    );
    assert_eq!(assert_sound(&place.images).images, 1);
    place.images.remove(&name, false).unwrap();
    fixture::eventually("nothing is left", || place.left_over().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_saved_and_loaded_beside_an_image() {
    let made = artifact(&[b"part"]);
    let layer = made::layer(&made::tar(&[made::Entry::File("f", b"f")]), made::Packing::Gzip);
    let image = made::image(&[layer]);
    let (of_artifact, of_image) = (Server::with(made.clone()), Server::with(image.clone()));
    let names = [of_artifact.reference(), of_image.reference()];
    let place = Place::new().await;
    pull(&place, &names[0]).await.unwrap();
    let pulled = place.images.pull(&names[1], PullOptions::default(), &|_| {});
    assert_eq!(image_of(pulled.await.unwrap()).id, image.id);
    let mut archive = Vec::new();
    place.images.save(&names, &mut archive).unwrap();

    let elsewhere = Place::new().await;
    let images = elsewhere.images.clone();
    let loaded = tokio::task::spawn_blocking(move || images.load(&archive[..], None));
    let loaded = loaded.await.unwrap().unwrap();
    let mut found: Vec<_> = loaded
        .iter()
        .map(|kept| (kept.id(), kept.names()[0].as_str()))
        .collect();
    found.sort_by_key(|(_, name)| names.iter().position(|one| one == name));
    assert_eq!(
        found,
        [(made.top.as_str(), names[0].as_str()), (&image.id, &names[1])]
    );
    assert!(
        matches!(elsewhere.images.get_kept(&names[0]).unwrap(), Kept::Artifact(a) if a.artifact_type == CHART)
    );
    assert_eq!(assert_sound(&elsewhere.images).images, 2);
}

#[tokio::test]
async fn the_trust_policy_judges_artifacts_too() {
    let server = Server::with(artifact(&[b"part"]));
    let place = Place::under(&json!({"default": [{"type": "reject"}]})).await;
    let error = pull(&place, &server.reference()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(server.count("GET", "/blobs/"), 0);
    assert!(place.images.list().unwrap().is_empty());
}

#[tokio::test]
async fn what_could_be_an_image_and_an_artifact_is_neither() {
    let both = |key: &str, value: Value| {
        let mut made = artifact(&[b"part"]);
        made.edit_manifest(|manifest| manifest[key] = value);
        Server::with(made)
    };
    let place = Place::new().await;
    for (server, reason) in [
        (
            both("rootfs", json!({"type": "layers", "diff_ids": []})),
            "image config",
        ),
        (both("manifests", json!([])), "index"),
        (both("artifactType", json!("a\nb")), "printable"),
    ] {
        let error = pull(&place, &server.reference()).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{reason}: {error}");
        assert!(place.left_over().is_empty());
    }
}
