//! Images of several platforms: what is kept of their index, byte for byte, and what is unpacked when.

mod fixture;

use fixture::Place;
use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::Server;
use image::{Image, Kind, Phase, PullOptions};

fn image_for(architecture: &str) -> Made {
    let tar = made::tar(&[Entry::File("architecture", architecture.as_bytes())]);
    made::image_for(&[made::layer(&tar, Packing::Gzip)], architecture)
}

/// An index of two platforms, and the images in it.
fn both() -> (Made, Made, Made) {
    let (amd64, arm64) = (image_for("amd64"), image_for("arm64"));
    let index = made::index(&[("linux/amd64", &amd64), ("linux/arm64/v8", &arm64)]);
    (index, amd64, arm64)
}

async fn pull(place: &Place, reference: &str, platform: &str, all_platforms: bool) -> Image {
    let options = PullOptions {
        platform: Some(platform.parse().unwrap()),
        all_platforms,
        ..PullOptions::default()
    };
    let pulled = place.images.pull(reference, options, &|_| {}).await;
    fixture::image_of(pulled.unwrap())
}

fn blob(place: &Place, digest: &str) -> Option<Vec<u8>> {
    let hex = digest.strip_prefix("sha256:").unwrap();
    std::fs::read(place.root().join("blobs/sha256").join(hex)).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_keeps_the_index_as_it_was_published_and_its_own_content_only() {
    let (index, amd64, arm64) = both();
    let server = Server::with(index.clone());
    let place = Place::new().await;
    let pulled = pull(&place, &server.reference(), "linux/amd64", false).await;
    assert_eq!(pulled.id, amd64.id);
    assert_eq!(blob(&place, &index.top).unwrap(), index.blobs[&index.top].1);
    assert_eq!(
        pulled.repo_digests,
        [format!("127.0.0.1:{}/app@{}", server.port, index.top)]
    );
    for digest in [&arm64.top, &arm64.id, &arm64.layers[0]] {
        assert_eq!(blob(&place, digest), None);
        assert_eq!(server.count("GET", digest), 0);
    }
    // The other platform needs its own documents and layers, and nothing that is here.
    server.forget();
    let other = pull(&place, &server.reference(), "linux/arm64", false).await;
    assert_eq!(
        (other.id.as_str(), server.count("GET", &index.top)),
        (arm64.id.as_str(), 0)
    );
    assert_eq!(
        place.images.list().unwrap().len(),
        2,
        "both are images of the name"
    );
    assert!(
        place
            .images
            .list()
            .unwrap()
            .iter()
            .all(|kept| kept.names() == [server.reference()])
    );
    let removed = place.images.remove(&server.reference(), false).unwrap();
    assert_eq!(removed.deleted.len(), 2);
    assert!(place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_are_kept_packed_and_unpacked_when_one_is_wanted() {
    let (index, amd64, arm64) = both();
    let server = Server::with(index.clone());
    let place = Place::new().await;
    let pulled = pull(&place, &server.reference(), "linux/amd64", true).await;
    assert_eq!(pulled.id, amd64.id);
    for (digest, (_, content)) in &index.blobs {
        assert_eq!(blob(&place, digest).as_ref(), Some(content), "{digest}");
    }
    assert_eq!(place.images.list().unwrap().len(), 1, "one of them is unpacked");
    server.forget();
    pull(&place, &server.reference(), "linux/amd64", true).await;
    let requests: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    assert_eq!(requests, ["HEAD"], "nothing is missing");

    server.forget();
    let arm = "linux/arm64".parse().unwrap();
    let other = place.images.get_for(&server.reference(), arm).await.unwrap();
    assert_eq!(
        (other.id.as_str(), server.requests().len()),
        (arm64.id.as_str(), 0)
    );
    let rootfs = place.images.prepare(&other, "c").unwrap();
    assert_eq!(
        std::fs::read(rootfs.lower[0].join("architecture")).unwrap(),
        b"arm64"
    );
    let usual = place.images.get(&server.reference()).unwrap();
    assert_eq!(
        usual.id, amd64.id,
        "the name goes on to stand for what was pulled"
    );
    place.images.release("c").unwrap();
    place.images.remove(&server.reference(), false).unwrap();
    assert!(place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_not_here_is_named_with_those_that_are() {
    let server = Server::with(both().0);
    let place = Place::new().await;
    let pulled = pull(&place, &server.reference(), "linux/amd64", false).await;
    for (text, platform) in [(&server.reference(), "linux/arm64"), (&pulled.id, "linux/s390x")] {
        let error = place
            .images
            .get_for(text, platform.parse().unwrap())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        let told = error.to_string();
        assert!(
            told.contains("here for linux/amd64") && told.contains(platform),
            "{told}"
        );
    }
    let same = place
        .images
        .get_for(&pulled.id, "linux/amd64".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(same.id, pulled.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_goes_alone_by_its_id() {
    let (index, amd64, arm64) = both();
    let server = Server::with(index);
    let place = Place::new().await;
    pull(&place, &server.reference(), "linux/amd64", false).await;
    pull(&place, &server.reference(), "linux/arm64", false).await;
    let removed = place.images.remove(&arm64.id, false).unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec![], vec![arm64.id.clone()])
    );
    assert_eq!(place.images.get(&server.reference()).unwrap().id, amd64.id);
    // The name stands for another platform now, and each is what is asked for.
    let again = pull(&place, &server.reference(), "linux/arm64", false).await;
    assert_eq!(again.id, arm64.id);
    server.forget();
    let other = pull(&place, &server.reference(), "linux/amd64", false).await;
    assert_eq!((other.id, server.count("GET", "")), (amd64.id, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_by_its_digest_is_the_image_of_its_tag_and_else_this_machines() {
    let host = usize::from(cfg!(target_arch = "aarch64"));
    // By their ids, the other platform's comes first.
    let (index, images) = (0..1000)
        .map(|seed: u32| {
            let of = |architecture: &str| {
                let tar = made::tar(&[Entry::File(architecture, &seed.to_le_bytes())]);
                made::image_for(&[made::layer(&tar, Packing::Gzip)], architecture)
            };
            let images = [of("amd64"), of("arm64")];
            let index = made::index(&[("linux/amd64", &images[0]), ("linux/arm64/v8", &images[1])]);
            (index, images)
        })
        .find(|(_, images)| images[1 - host].id < images[host].id)
        .unwrap();
    let server = Server::with(index.clone());
    let place = Place::new().await;
    for platform in ["linux/amd64", "linux/arm64"] {
        pull(&place, &server.reference(), platform, false).await;
    }
    let by_digest = format!("127.0.0.1:{}/app@{}", server.port, index.top);
    assert_eq!(place.images.get(&by_digest).unwrap().id, images[1].id);
    place.images.tag(&server.reference(), "mine").unwrap();
    place.images.remove(&server.reference(), false).unwrap();
    assert_eq!(place.images.get(&by_digest).unwrap().id, images[host].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_blob_that_is_wrong_leaves_nothing_of_the_pull() {
    let (mut index, _, arm64) = both();
    index.blobs.get_mut(&arm64.layers[0]).unwrap().1[20] ^= 1;
    let server = Server::with(index);
    let place = Place::with(fixture::impatient(false)).await;
    let options = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        all_platforms: true,
        ..PullOptions::default()
    };
    let error = place
        .images
        .pull(&server.reference(), options, &|_| {})
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&arm64.layers[0]), "{error}");
    assert!(place.left_over().is_empty() && place.images.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pulls_at_once_do_the_work_once_and_all_show_it() {
    let (index, amd64, _) = both();
    let server = Server::with(index.clone());
    let place = Place::new().await;
    let pulls = (0..10).map(|_| async {
        let seen = std::sync::Mutex::new(Vec::new());
        let options = PullOptions {
            platform: Some("linux/amd64".parse().unwrap()),
            ..PullOptions::default()
        };
        let progress = |layer: image::LayerProgress| seen.lock().unwrap().push(layer.phase);
        place
            .images
            .pull(&server.reference(), options, &progress)
            .await
            .unwrap();
        seen.into_inner().unwrap()
    });
    let seen = futures_util::future::join_all(pulls).await;
    for part in ["manifests/v1", &amd64.top, &amd64.id, &amd64.layers[0]] {
        assert_eq!(server.count("GET", part), 1, "{part}");
    }
    assert!(server.count("HEAD", "manifests/v1") <= 9);
    let last: Vec<Option<&Phase>> = seen.iter().map(|phases| phases.last()).collect();
    assert!(
        last.iter()
            .all(|phase| matches!(phase, Some(Phase::Done | Phase::Present))),
        "{last:?}"
    );
}

/// An index of an image for this machine and of another one's with so many layers of a size, which nobody has.
fn with_other(manifests: usize, layers: usize, size: u64) -> Made {
    let own = image_for("amd64");
    let others: Vec<Made> = (0..manifests)
        .map(|number| {
            let mut other = image_for("arm64");
            other.edit_manifest(|manifest| {
                let layers = (0..layers).map(|layer| {
                    let digest = made::digest(format!("{number}/{layer}").as_bytes());
                    serde_json::json!({"mediaType": "a/b", "digest": digest, "size": size})
                });
                manifest["layers"] = layers.collect();
            });
            other
        })
        .collect();
    let own = std::iter::once(("linux/amd64", &own));
    let all: Vec<_> = own
        .chain(others.iter().map(|other| ("linux/arm64", other)))
        .collect();
    made::index(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_together_have_bounds() {
    for (case, index) in [
        ("too many", with_other(3, 1900, 1)),
        ("too large", with_other(1, 17, 64 << 30)),
        ("sizes that run over", with_other(1, 3, u64::MAX / 2)),
    ] {
        let server = Server::with(index);
        let place = Place::new().await;
        let options = PullOptions {
            platform: Some("linux/amd64".parse().unwrap()),
            all_platforms: true,
            ..PullOptions::default()
        };
        let pulled = place.images.pull(&server.reference(), options, &|_| {}).await;
        let error = pulled.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{case}: {error}");
        assert!(error.to_string().contains("more than"), "{case}: {error}");
        assert_eq!(server.count("GET", "/blobs/"), 1, "{case}: but for the config");
        assert!(place.left_over().is_empty(), "{case}");
        // One platform of it is an image like others.
        pull(&place, &server.reference(), "linux/amd64", false).await;
    }
}
