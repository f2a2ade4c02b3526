//! Documents of unusual shapes: embedded content, foreign layers, sha512, old schemas.

mod fixture;

use fixture::made::{self, Entry, Made, OCI_CONFIG, OCI_MANIFEST, Packing};
use fixture::receiver::Receiver;
use fixture::scripted::{Reply, Server, good, header, status};
use fixture::{Place, impatient};
use serde_json::{Value, json};

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

fn image() -> Made {
    let tar = made::tar(&[Entry::File("a", b"content")]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

fn embed(made: &Made, descriptor: &mut Value) {
    let digest = descriptor["digest"].as_str().unwrap();
    descriptor["data"] = json!(base64(&made.blobs[digest].1));
}

/// By another implementation than the one that reads it.
fn base64(content: &[u8]) -> String {
    let letters: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let mut text = String::new();
    for three in content.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(*three.get(i).unwrap_or(&0)));
        for i in 0..4 {
            let letter = letters[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= three.len() { letter } else { '=' });
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_content_is_used_and_not_asked_for() {
    let mut made = image();
    let original = made.clone();
    made.edit_manifest(|manifest| {
        embed(&original, &mut manifest["config"]);
        embed(&original, &mut manifest["layers"][0]);
    });
    let server = Server::with(made.clone());
    let pulled = Place::new().await.pull(&server.reference()).await.unwrap();
    assert_eq!(pulled.id, made.id);
    assert_eq!(server.count("GET", "/blobs/"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_content_that_is_another_is_refused() {
    for (data, rule) in [("e30=", "bytes"), ("%", "base64"), ("", "bytes")] {
        let mut made = image();
        made.edit_manifest(|manifest| manifest["config"]["data"] = json!(data));
        let server = Server::with(made);
        let place = Place::new().await;
        let error = place.pull(&server.reference()).await.unwrap_err().to_string();
        assert!(
            error.contains("config.data") && error.contains(rule),
            "{data}: {error}"
        );
        assert!(place.left_over().is_empty());
    }
    let mut made = image();
    let config = made.blobs[&made.id].1.clone();
    let other = vec![b' '; config.len()];
    made.edit_manifest(|manifest| manifest["config"]["data"] = json!(base64(&other)));
    let server = Server::with(made);
    let error = Place::new().await.pull(&server.reference()).await.unwrap_err();
    assert!(error.to_string().contains("config.data has digest"), "{error}");
}

/// An image whose layer is to be had at `url`.
fn foreign(url: &str) -> Made {
    let mut made = image();
    made.edit_manifest(|manifest| {
        manifest["layers"][0]["mediaType"] = json!(FOREIGN);
        manifest["layers"][0]["urls"] = json!([url]);
    });
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_comes_from_its_url_and_is_not_pushed() {
    let plain = image();
    let layer = plain.blobs[&plain.layers[0]].1.clone();
    let publisher = Server::start(move |request, _| match request.path.as_str() {
        "/layer" => Reply::Answer(200, Vec::new(), layer.clone()),
        _ => status(404),
    });
    let made = foreign(&format!("http://127.0.0.1:{}/layer", publisher.port));
    let registry = {
        let made = made.clone();
        Server::start(move |request, _| {
            if request.path.contains(&made.layers[0]) {
                status(404)
            } else {
                good(request, &made)
            }
        })
    };
    let place = Place::new().await;
    place.pull(&registry.reference()).await.unwrap();
    assert_eq!(publisher.count("GET", "/layer"), 1);
    assert!(
        publisher
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    let receiver = Receiver::start(|_, _| None);
    let name = receiver.reference("app:v1");
    place.images.tag(&registry.reference(), &name).unwrap();
    place.images.push(&name, None, &|_| {}).await.unwrap();
    let state = receiver.state();
    assert_eq!(
        state.blobs.keys().collect::<Vec<_>>(),
        [&made.id],
        "the config alone"
    );
    assert_eq!(state.manifests["app/v1"].1, made.blobs[&made.top].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_is_not_fetched_without_encryption() {
    for url in ["http://publisher.example/layer", "file:///etc/passwd", "layer"] {
        let server = Server::with(foreign(url));
        let place = Place::with(impatient(false)).await;
        let error = place.pull(&server.reference()).await.unwrap_err().to_string();
        assert!(error.contains("foreign layer"), "{url}: {error}");
        assert!(place.left_over().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_layer_that_its_publisher_has_no_more_may_be_in_the_registry() {
    let publisher = Server::start(|_, _| status(404));
    let server = Server::with(foreign(&format!("http://127.0.0.1:{}/layer", publisher.port)));
    Place::with(impatient(false))
        .await
        .pull(&server.reference())
        .await
        .unwrap();
    assert_eq!(publisher.count("GET", "/layer"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_named_by_sha512_too_and_pushed_by_it() {
    let tar = made::tar(&[Entry::File("a", b"content")]);
    let layer = made::layer(&tar, Packing::Gzip);
    let mut made = made::image(std::slice::from_ref(&layer));
    let (config, packed) = (made.blobs[&made.id].1.clone(), layer.packed);
    let (config_digest, layer_digest) = (made::sha512(&config), made::sha512(&packed));
    made.blobs
        .insert(config_digest.clone(), (OCI_CONFIG.into(), config));
    made.blobs
        .insert(layer_digest.clone(), (layer.media_type, packed));
    made.edit_manifest(|manifest| {
        manifest["config"]["digest"] = json!(config_digest);
        manifest["layers"][0]["digest"] = json!(layer_digest);
    });
    let server = Server::with(made.clone());
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    assert_eq!(pulled.id, config_digest);
    let receiver = Receiver::start(|_, _| None);
    let name = receiver.reference("app:v1");
    place.images.tag(&server.reference(), &name).unwrap();
    place.images.push(&name, None, &|_| {}).await.unwrap();
    let state = receiver.state();
    assert!(state.blobs.contains_key(&config_digest) && state.blobs.contains_key(&layer_digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_of_schema_1_are_refused_by_name() {
    let old =
        json!({"schemaVersion": 1, "name": "app", "tag": "v1", "fsLayers": [], "history": []}).to_string();
    for media_type in ["v1+json", "v1+prettyjws"] {
        let content = old.clone().into_bytes();
        let server = Server::start(move |_, _| {
            let media_type = format!("application/vnd.docker.distribution.manifest.{media_type}");
            let headers = vec![
                header("content-type", &media_type),
                // The signatures are part of what is sent, and not of what the digest is of.
                header("docker-content-digest", &made::digest(b"without signatures")),
            ];
            Reply::Answer(200, headers, content.clone())
        });
        let place = Place::new().await;
        let error = place.pull(&server.reference()).await.unwrap_err();
        assert_eq!(error.kind(), image::Kind::Invalid);
        let error = error.to_string();
        assert!(error.contains("schema version 1 is not supported"), "{error}");
        assert!(error.contains(&server.reference()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_image_is_listed_by_the_api_page_by_page() {
    let entry = |n: u32| {
        json!({"mediaType": OCI_MANIFEST, "digest": format!("sha256:{n:064}"), "size": n,
        "artifactType": "a/b", "annotations": {"n": n.to_string()}})
    };
    let page = move |n: u32, next: Option<&str>| {
        let index = json!({"schemaVersion": 2, "mediaType": made::OCI_INDEX, "manifests": [entry(n)]});
        let mut headers = vec![header("content-type", made::OCI_INDEX)];
        headers.extend(next.map(|next| header("link", &format!("<{next}>; rel=\"next\""))));
        Reply::Answer(200, headers, index.to_string().into_bytes())
    };
    let made = image();
    let server = Server::start(move |request, _| match request.path.as_str() {
        path if path.ends_with("?page=2") => page(2, None),
        path if path.contains("/referrers/") => page(1, Some("?page=2")),
        _ => good(request, &made),
    });
    let place = Place::new().await;
    let found = place
        .images
        .inspect_manifest(&server.reference(), None, true)
        .await
        .unwrap();
    let sizes: Vec<u64> = found
        .referrers
        .iter()
        .map(|referrer| referrer.size_bytes)
        .collect();
    assert_eq!(sizes, [1, 2]);
    assert_eq!(found.referrers[0].artifact_type, "a/b");
    assert_eq!(found.referrers[1].annotations["n"], "2");
}

/// The image's layer is unpacked from another blob, and its own has to be here all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_whose_layers_are_here_in_another_packing_is_whole() {
    let tar = made::tar(&[Entry::File("a", &made::noise(100_000, 1))]);
    let gzip = made::image(&[made::layer(&tar, Packing::Gzip)]);
    let zstd = made::image(&[made::layer(&tar, Packing::Zstd)]);
    let (first, second) = (Server::with(gzip), Server::with(zstd.clone()));
    let mut place = Place::new().await;
    place.pull(&first.reference()).await.unwrap();
    let reference = second.reference();
    let blob = |place: &Place| {
        let hex = zstd.layers[0].strip_prefix("sha256:").unwrap();
        std::fs::read(place.root().join("blobs/sha256").join(hex)).ok()
    };
    for round in ["just pulled", "without what a store of an older version lacks"] {
        let image = place.pull(&reference).await.unwrap();
        assert_eq!(
            blob(&place).as_ref(),
            Some(&zstd.blobs[&zstd.layers[0]].1),
            "{round}"
        );
        let mut archive = Vec::new();
        place
            .images
            .save(std::slice::from_ref(&reference), &mut archive)
            .unwrap();
        assert!(archive.len() > 100_000, "{round}");
        let receiver = Receiver::start(|_, _| None);
        let name = receiver.reference("team/app:v1");
        place.images.tag(&image.id, &name).unwrap();
        place.images.push(&name, None, &|_| {}).await.unwrap();
        let pushed = receiver.state().blobs.contains_key(&zstd.layers[0]);
        assert!(pushed, "{round}");
        second.forget();
        place.pull(&reference).await.unwrap();
        assert_eq!(
            second.requests().len(),
            1,
            "{round}: an unchanged tag costs a HEAD"
        );
        place.images.remove(&name, false).unwrap();

        let folder = place.close();
        let database = rusqlite::Connection::open(folder.path().join("images.db")).unwrap();
        let lost = "DELETE FROM contents WHERE digest = ?";
        assert_eq!(database.execute(lost, [&zstd.layers[0]]).unwrap(), 1);
        drop(database);
        place = Place::reopen(folder).await;
    }
}
