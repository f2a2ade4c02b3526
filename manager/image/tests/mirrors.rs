//! Pulls by way of hosts.toml: who is asked for what, in which order, and what is told when nobody has it.

mod fixture;

use std::path::Path;

use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::{Reply, Server, good, header, status};
use fixture::{Place, password};
use image::{Credentials, Error, Image, Kind, PullOptions};

fn small() -> Made {
    let tar = made::tar(&[Entry::File("a", b"content")]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

/// Nobody listens there.
const DOWN: &str = "http://127.0.0.1:1";

/// hosts.toml for `registry`: each host with what stands in its table, and the registry itself over plain HTTP.
fn configure(folder: &Path, registry: &Server, hosts: &[(&str, &str)]) {
    let own = folder.join(format!("127.0.0.1:{}", registry.port));
    std::fs::create_dir_all(&own).unwrap();
    let hosts = hosts
        .iter()
        .map(|(url, fields)| format!("[host.{url:?}]\n{fields}\n"));
    let text = format!("server = \"{}\"\n{}", url(registry), hosts.collect::<String>());
    std::fs::write(own.join("hosts.toml"), text).unwrap();
}

fn url(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port)
}

async fn pull_as(place: &Place, registry: &Server, credentials: Credentials) -> Result<Image, Error> {
    let options = PullOptions {
        credentials: Some(credentials),
        ..PullOptions::default()
    };
    let reference = registry.reference();
    let pulled = place.images.pull(&reference, options, &|_| {});
    Ok(fixture::image_of(pulled.await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_has_all_spares_the_registry() {
    let (mirror, registry) = (Server::with(small()), Server::with(small()));
    let folder = tempfile::tempdir().unwrap();
    let fields = "[host.\"URL\".header]\nx-team = \"blue\"".replace("URL", &url(&mirror));
    configure(folder.path(), &registry, &[(DOWN, ""), (&url(&mirror), &fields)]);
    let place = Place::configured(folder.path()).await;
    place.pull(&registry.reference()).await.unwrap();
    assert!(registry.requests().is_empty());
    let namespace = format!("ns=127.0.0.1%3A{}", registry.port);
    for request in mirror.requests() {
        assert!(request.path.ends_with(&namespace), "{}", request.path);
        assert_eq!(request.header("x-team"), Some("blue"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_lacks_comes_from_the_registry() {
    let image = small();
    let offered = image.clone();
    let mirror = Server::start(move |request, _| {
        if request.path.contains("/blobs/") {
            status(404)
        } else {
            good(request, &offered)
        }
    });
    let registry = Server::with(image.clone());
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &registry, &[(&url(&mirror), "")]);
    let place = Place::configured(folder.path()).await;
    assert_eq!(place.pull(&registry.reference()).await.unwrap().id, image.id);
    assert_eq!(registry.count("GET", "/manifests/"), 0);
    assert_eq!(registry.count("GET", "/blobs/"), 2, "config and layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_may_only_pull_is_never_asked_what_a_tag_means() {
    let (mirror, registry) = (Server::with(small()), Server::with(small()));
    let folder = tempfile::tempdir().unwrap();
    configure(
        folder.path(),
        &registry,
        &[(&url(&mirror), "capabilities = [\"pull\"]")],
    );
    let place = Place::configured(folder.path()).await;
    place.pull(&registry.reference()).await.unwrap();
    assert_eq!(registry.requests().len(), 1, "the tag's digest, and nothing else");
    assert_eq!(registry.count("HEAD", "/manifests/v1"), 1);
    assert!(mirror.count("GET", "/manifests/sha256:") > 0);
    assert!(
        mirror
            .requests()
            .iter()
            .all(|r| !r.path.contains("/manifests/v1"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_about_a_digest_is_not_believed() {
    let image = small();
    let (offered, layer) = (image.clone(), image.layers[0].clone());
    // Of the right length, and garbage: neither the packing nor the digest is right.
    let mirror = Server::start(move |request, _| match good(request, &offered) {
        Reply::Answer(code, headers, body) if request.path.contains(&layer) => {
            Reply::Answer(code, headers, vec![b'x'; body.len()])
        }
        other => other,
    });
    let registry = Server::with(image.clone());
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &registry, &[(&url(&mirror), "")]);
    let place = Place::configured(folder.path()).await;
    assert_eq!(place.pull(&registry.reference()).await.unwrap().id, image.id);
    assert_eq!(registry.count("GET", &image.layers[0]), 1);

    // A manifest under another digest is passed over too, and the tag's right one is found.
    let other = made::image(&[made::layer(
        &made::tar(&[Entry::File("b", b"evil")]),
        Packing::Gzip,
    )]);
    let mirror = Server::start(move |_, _| {
        let (media_type, content) = &other.blobs[&other.top];
        Reply::Answer(200, vec![header("content-type", media_type)], content.clone())
    });
    configure(
        folder.path(),
        &registry,
        &[(&url(&mirror), "capabilities = [\"pull\"]")],
    );
    let place = Place::configured(folder.path()).await;
    assert_eq!(place.pull(&registry.reference()).await.unwrap().id, image.id);
    assert!(mirror.count("GET", "/manifests/") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_breaks_off_goes_on_at_the_next_server() {
    let tar = made::tar(&[Entry::File("a", &made::noise(3 << 20, 1))]);
    let image = made::image(&[made::layer(&tar, Packing::Gzip)]);
    let (offered, layer) = (image.clone(), image.layers[0].clone());
    let mirror = Server::start(move |request, before| match good(request, &offered) {
        Reply::Answer(code, headers, body) if request.path.contains(&layer) => match before {
            0 => Reply::Cut(code, headers, body, 1 << 20),
            _ => status(503),
        },
        other => other,
    });
    let registry = Server::with(image.clone());
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &registry, &[(&url(&mirror), "")]);
    let place = Place::configured(folder.path()).await;
    assert_eq!(place.pull(&registry.reference()).await.unwrap().id, image.id);
    let requests = registry.requests();
    let rest = requests
        .iter()
        .find(|r| r.path.contains(&image.layers[0]))
        .unwrap();
    assert_eq!(rest.header("range"), Some("bytes=1048576-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_error_names_each_server_that_was_tried() {
    let mirror = Server::start(|_, _| status(404));
    let registry = Server::start(|_, _| status(404));
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &registry, &[(DOWN, ""), (&url(&mirror), "")]);
    let place = Place::configured(folder.path()).await;
    for _ in 0..2 {
        let error = place.pull(&registry.reference()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        let text = error.to_string();
        for server in [DOWN, &url(&mirror), &url(&registry)] {
            assert!(text.contains(server), "{server}: {text}");
        }
    }
    assert!(place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_fails_is_left_alone_by_the_next_pull() {
    let mirror = Server::start(|_, _| status(500));
    let registry = Server::with(small());
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &registry, &[(&url(&mirror), "")]);
    let place = Place::configured(folder.path()).await;
    place.pull(&registry.reference()).await.unwrap();
    assert_eq!(
        mirror.requests().len(),
        2,
        "once more, and neither for the config nor for the layer"
    );
    place.pull(&registry.reference()).await.unwrap();
    assert_eq!(mirror.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_for_the_registry_and_never_for_a_mirror() {
    let basic = || Reply::Answer(401, vec![header("www-authenticate", "Basic realm=\"r\"")], vec![]);
    let mirror = Server::start(move |_, _| basic());
    let image = small();
    let offered = image.clone();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => good(request, &offered),
        _ => basic(),
    });
    let folder = tempfile::tempdir().unwrap();
    configure(folder.path(), &registry, &[(&url(&mirror), "")]);
    let place = Place::configured(folder.path()).await;
    let pulled = pull_as(&place, &registry, password(registry.port, "secret")).await;
    assert_eq!(pulled.unwrap().id, image.id);
    assert!(!mirror.requests().is_empty());
    assert!(
        mirror
            .requests()
            .iter()
            .all(|r| r.header("authorization").is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_needs_no_restart() {
    let (mirror, registry) = (Server::with(small()), Server::with(small()));
    let folder = tempfile::tempdir().unwrap();
    let place = Place::configured(folder.path()).await;
    place.pull(&registry.reference()).await.unwrap();
    assert!(!registry.requests().is_empty());
    registry.forget();
    configure(folder.path(), &registry, &[(&url(&mirror), "")]);
    place.pull(&registry.reference()).await.unwrap();
    assert!(registry.requests().is_empty() && !mirror.requests().is_empty());
    configure(folder.path(), &registry, &[(&url(&mirror), "capabilties = []")]);
    let error = place.pull(&registry.reference()).await.unwrap_err().to_string();
    assert!(
        error.contains("hosts.toml") && error.contains("capabilties"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_platform_that_a_mirror_has_wrong_comes_from_the_registry() {
    let [own, other] = ["amd64", "arm64"].map(|architecture| {
        let tar = made::tar(&[Entry::File("a", architecture.as_bytes())]);
        made::image_for(&[made::layer(&tar, Packing::Gzip)], architecture)
    });
    let index = made::index(&[("linux/amd64", &own), ("linux/arm64", &other)]);
    for wrong in ["content", "length"] {
        let (offered, layer) = (index.clone(), other.layers[0].clone());
        let mirror = Server::start(move |request, _| match good(request, &offered) {
            Reply::Answer(code, mut headers, mut body) if request.path.contains(&layer) => {
                body[20] ^= 1;
                if wrong == "length" {
                    // Without one announced, so that it shows at the end.
                    headers.push(header("transfer-encoding", "chunked"));
                    body = [b"400\r\n".to_vec(), vec![0; 1024], b"\r\n0\r\n\r\n".to_vec()].concat();
                }
                Reply::Answer(code, headers, body)
            }
            other => other,
        });
        let registry = Server::with(index.clone());
        let folder = tempfile::tempdir().unwrap();
        configure(folder.path(), &registry, &[(&url(&mirror), "")]);
        let place = Place::configured(folder.path()).await;
        let options = PullOptions {
            platform: Some("linux/amd64".parse().unwrap()),
            all_platforms: true,
            ..PullOptions::default()
        };
        let pulled = place.images.pull(&registry.reference(), options, &|_| {}).await;
        assert_eq!(pulled.unwrap().kept.id(), own.id, "{wrong}");
        assert_eq!(mirror.count("GET", &other.layers[0]), 1, "{wrong}");
        assert_eq!(registry.count("GET", &other.layers[0]), 1, "{wrong}");
        let hex = other.layers[0].strip_prefix("sha256:").unwrap();
        let kept = std::fs::read(place.root().join("blobs/sha256").join(hex)).unwrap();
        assert_eq!(kept, other.blobs[&other.layers[0]].1, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_looked_at_at_mirrors_and_repositories_found_at_the_registry() {
    let image = small();
    let mirror = Server::with(image.clone());
    let registry = Server::start(|request, _| match request.path.as_str() {
        "/v2/_catalog?n=1000" => Reply::Answer(200, vec![], br#"{"repositories":["team/app"]}"#.to_vec()),
        _ => status(404),
    });
    let folder = tempfile::tempdir().unwrap();
    let may = "capabilities = [\"pull\", \"resolve\"]";
    configure(folder.path(), &registry, &[(&url(&mirror), may)]);
    let place = Place::configured(folder.path()).await;
    let reference = registry.reference();
    let seen = place
        .images
        .inspect_manifest(&reference, None, false)
        .await
        .unwrap();
    assert_eq!((seen.digest, registry.requests().len()), (image.top.clone(), 0));
    let term = format!("127.0.0.1:{}/app", registry.port);
    let found = place.images.search(&term, 0, None).await.unwrap();
    assert_eq!(found[0].name, format!("127.0.0.1:{}/team/app", registry.port));
}
