//! Pulls from a registry that follows a script: what is honest arrives whole, what is not leaves nothing.

mod fixture;

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::{Reply, Request, Server, good, header, status};
use fixture::{Place, eventually, impatient, password, patient};
use image::{Config, Kind, Phase, PullOptions};

fn small() -> Made {
    made::image(&[made::layer(
        &made::tar(&[Entry::File("a", b"content")]),
        Packing::Gzip,
    )])
}

fn large() -> Made {
    made::image(&[made::layer(
        &made::tar(&[Entry::File("a", &made::noise(3 << 20, 1))]),
        Packing::Gzip,
    )])
}

fn is_layer(request: &Request, image: &Made) -> bool {
    image
        .layers
        .iter()
        .any(|digest| request.path.ends_with(digest.as_str()))
}

/// Its parts of a good answer.
fn parts(request: &Request, image: &Made) -> (u16, Vec<(String, String)>, Vec<u8>) {
    match good(request, image) {
        Reply::Answer(code, headers, body) => (code, headers, body),
        _ => unreachable!("a good answer is an answer"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_every_packing_arrive_and_shape_the_root() {
    let base = made::tar(&[
        Entry::Folder("./", 0o755),
        Entry::Folder("etc/", 0o750),
        Entry::File("etc/old", b"old"),
        Entry::File("etc/kept", b"kept"),
        Entry::Symlink("bin", "/usr/bin"),
    ]);
    let middle = made::tar(&[Entry::File("etc/.wh.old", b""), Entry::File("etc/new", b"new")]);
    let top = made::tar(&[Entry::File("top", b"top"), Entry::HardLink("again", "top")]);
    let image = made::image(&[
        made::layer(&base, Packing::Gzip),
        made::layer(&middle, Packing::Zstd),
        made::layer(&top, Packing::Plain),
    ]);
    let (id, size): (String, usize) = (
        image.id.clone(),
        image.blobs.values().map(|(_, content)| content.len()).sum(),
    );
    let server = Server::with(image.clone());
    let place = Place::new().await;
    let shown = Mutex::new(Vec::new());
    let pulled = place
        .images
        .pull(&server.reference(), PullOptions::default(), &|p| {
            shown.lock().unwrap().push(p);
        })
        .await
        .unwrap();
    assert_eq!((&pulled.name, &pulled.digest), (&server.reference(), &image.top));
    let pulled = fixture::image_of(pulled);
    assert_eq!(pulled.id, id);
    assert_eq!(pulled.names, [server.reference()]);
    assert_eq!(pulled.size_bytes, size as u64);
    assert_eq!(pulled.created_unix_seconds, 1_767_323_045);
    assert_eq!(
        (pulled.architecture.as_str(), pulled.os.as_str()),
        ("amd64", "linux")
    );
    assert_eq!(
        pulled.config.config().as_ref().unwrap().cmd().as_ref().unwrap(),
        &["/bin/sh"]
    );
    let shown = shown.into_inner().unwrap();
    for digest in &image.layers {
        let last = shown.iter().rfind(|p| p.digest == *digest).unwrap();
        assert_eq!(
            (last.phase, last.downloaded_bytes),
            (Phase::Done, last.total_bytes)
        );
    }
    let rootfs = place.images.prepare(&pulled, "c1").unwrap();
    let [top, middle, base] = rootfs.lower.as_slice() else {
        panic!("{rootfs:?}")
    };
    assert_eq!(std::fs::read(base.join("etc/kept")).unwrap(), b"kept");
    assert_eq!(std::fs::read(middle.join("etc/new")).unwrap(), b"new");
    assert_eq!(std::fs::read(top.join("again")).unwrap(), b"top");
    let implied = middle.join("etc").metadata().unwrap();
    assert_eq!(
        implied.mode() & 0o7777,
        0o750,
        "a folder without an entry looks like the one below"
    );
    assert_eq!(place.images.list().unwrap().len(), 1);
    assert!(
        std::fs::read_dir(place.root().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
}

/// A change of what is offered, and what the error has to say.
type Case = (&'static str, Box<dyn Fn() -> Server>, Kind, &'static str);

fn case(
    name: &'static str,
    kind: Kind,
    part: &'static str,
    make: impl Fn() -> Made + 'static,
    script: impl Fn(&Request, &Made) -> Option<Reply> + Clone + Send + Sync + 'static,
) -> Case {
    let start = move || {
        let (image, script) = (make(), script.clone());
        Server::start(move |request, _| script(request, &image).unwrap_or_else(|| good(request, &image)))
    };
    (name, Box::new(start), kind, part)
}

/// An image whose only layer has these entries.
fn with_entries(entries: &[Entry]) -> Made {
    made::image(&[made::layer(&made::tar(entries), Packing::Gzip)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_right_is_refused_with_one_error_and_leaves_nothing() {
    let none = |_: &Request, _: &Made| None;
    let on_layer = |reply: fn(&Request, &Made) -> Reply| {
        move |request: &Request, image: &Made| is_layer(request, image).then(|| reply(request, image))
    };
    let on_manifest = |reply: fn(&Request, &Made) -> Reply| {
        move |request: &Request, image: &Made| {
            request
                .path
                .contains("/manifests/")
                .then(|| reply(request, image))
        }
    };
    let cases: Vec<Case> = vec![
        case(
            "no such tag",
            Kind::NotFound,
            "has no manifest v1",
            small,
            on_manifest(|_, _| status(404)),
        ),
        case(
            "no such layer",
            Kind::NotFound,
            "has no layer",
            small,
            on_layer(|_, _| status(404)),
        ),
        case(
            "server error",
            Kind::Unavailable,
            "after 2 attempts",
            small,
            on_layer(|_, _| status(500)),
        ),
        case(
            "a hang before the head",
            Kind::Unavailable,
            "nothing arrived",
            small,
            on_layer(|_, _| Reply::Silence),
        ),
        case(
            "a hang of the manifest",
            Kind::Unavailable,
            "nothing arrived",
            small,
            on_manifest(|_, _| Reply::Silence),
        ),
        case(
            "a hang in the body",
            Kind::Unavailable,
            "nothing arrived",
            large,
            on_layer(|r, i| {
                let (code, headers, body) = parts(r, i);
                Reply::Stall(code, headers, body, 100)
            }),
        ),
        case(
            "a body that always breaks off at once",
            Kind::Unavailable,
            "broke off",
            large,
            on_layer(|r, i| {
                let (code, headers, body) = parts(r, i);
                Reply::Cut(code, headers, body, 0)
            }),
        ),
        case(
            "too many requests, for an hour",
            Kind::Unavailable,
            "429",
            small,
            |r, i| is_layer(r, i).then(|| Reply::Answer(429, vec![header("retry-after", "3600")], vec![])),
        ),
        case(
            "other content of the same length",
            Kind::Invalid,
            "digest is sha256",
            large,
            on_layer(|r, i| {
                let (code, headers, mut body) = parts(r, i);
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                Reply::Answer(code, headers, body)
            }),
        ),
        case(
            "shorter content",
            Kind::Unavailable,
            "its manifest says",
            small,
            on_layer(|_, _| Reply::Answer(200, vec![], b"x".to_vec())),
        ),
        case(
            "endless content",
            Kind::Invalid,
            "longer than",
            small,
            on_layer(|r, i| {
                let (_, _, mut body) = parts(r, i);
                let chunk = format!("{:x}\r\n", body.len() + 5).into_bytes();
                body.extend_from_slice(b"extra\r\n0\r\n\r\n");
                let body = [chunk, body].concat();
                Reply::Answer(200, vec![header("transfer-encoding", "chunked")], body)
            }),
        ),
        case(
            "a manifest with another digest",
            Kind::Invalid,
            "manifest sha256:",
            small,
            on_manifest(|r, i| {
                let (code, headers, mut body) = parts(r, i);
                body.push(b' ');
                Reply::Answer(code, headers, body)
            }),
        ),
        case(
            "a manifest of the first schema",
            Kind::Invalid,
            "schema version 1",
            small,
            on_manifest(|_, _| {
                let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
                let body = br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec();
                Reply::Answer(200, vec![header("content-type", kind)], body)
            }),
        ),
        case(
            "a manifest without end",
            Kind::Unavailable,
            "longer than",
            small,
            on_manifest(|_, _| Reply::Answer(200, vec![], vec![b' '; 5 << 20])),
        ),
        case("a web page", Kind::Invalid, "not the JSON", small, |r, _| {
            r.path
                .contains("/manifests/")
                .then(|| Reply::Answer(200, vec![header("content-type", "text/html")], b"<html>".to_vec()))
        }),
        case(
            "a diffID of something else",
            Kind::Invalid,
            "unpacked layer",
            || {
                let mut layer = made::layer(&made::tar(&[Entry::File("a", b"1")]), Packing::Gzip);
                layer.diff_id = made::digest(b"something else");
                made::image(&[layer])
            },
            none,
        ),
        case(
            "gzip that is none",
            Kind::Invalid,
            "media type",
            || {
                let mut layer = made::layer(&made::tar(&[]), Packing::Plain);
                layer.media_type.push_str("+gzip");
                made::image(&[layer])
            },
            none,
        ),
        case(
            "zstd that is none",
            Kind::Invalid,
            "media type",
            || {
                let mut layer = made::layer(&made::tar(&[]), Packing::Gzip);
                layer.media_type = layer.media_type.replace("gzip", "zstd");
                made::image(&[layer])
            },
            none,
        ),
        case(
            "gzip that ends early",
            Kind::Invalid,
            "media type",
            || {
                let mut layer = made::layer(
                    &made::tar(&[Entry::File("a", &made::noise(9999, 2))]),
                    Packing::Gzip,
                );
                layer.packed.truncate(5000);
                made::image(&[layer])
            },
            none,
        ),
        case(
            "a layer type of the future",
            Kind::Invalid,
            "layers[0].mediaType",
            || {
                let mut layer = made::layer(&made::tar(&[]), Packing::Gzip);
                layer.media_type = "application/vnd.oci.image.layer.v1.tar+brotli".into();
                made::image(&[layer])
            },
            none,
        ),
        case(
            "a size that is not the content's",
            Kind::Unavailable,
            "its manifest says",
            || {
                let mut image = small();
                image.edit_manifest(|m| m["layers"][0]["size"] = 7.into());
                image
            },
            none,
        ),
        case(
            "a file above the root",
            Kind::Invalid,
            "entry \"../escape\"",
            || with_entries(&[Entry::File("../escape", b"x")]),
            none,
        ),
        case(
            "a link out of the root",
            Kind::Invalid,
            "leads out of the layer",
            || with_entries(&[Entry::Symlink("escape", "../../etc/passwd")]),
            none,
        ),
        case(
            "a hard link out of the root",
            Kind::Invalid,
            "neither in this layer",
            || with_entries(&[Entry::HardLink("escape", "/etc/passwd")]),
            none,
        ),
        case(
            "a file through a link",
            Kind::Invalid,
            "symbolic link",
            || with_entries(&[Entry::Symlink("s", "/etc"), Entry::File("s/escape", b"x")]),
            none,
        ),
        case(
            "a bad layer above a good one",
            Kind::Invalid,
            "entry \"../escape\"",
            || {
                let good = made::layer(&made::tar(&[Entry::File("good", b"")]), Packing::Gzip);
                let bad = made::layer(&made::tar(&[Entry::File("../escape", b"")]), Packing::Gzip);
                made::image(&[good.clone(), bad, good])
            },
            none,
        ),
        case(
            "a redirect into the open",
            Kind::Unavailable,
            "without https",
            small,
            on_layer(|_, _| {
                Reply::Answer(
                    307,
                    vec![header("location", "http://registry.example/blob")],
                    vec![],
                )
            }),
        ),
        case(
            "a redirect in a circle",
            Kind::Unavailable,
            "redirects more than",
            small,
            on_layer(|r, _| Reply::Answer(307, vec![header("location", &r.path)], vec![])),
        ),
        case(
            "credentials wanted",
            Kind::Unavailable,
            "none were given",
            small,
            |_, _| {
                Some(Reply::Answer(
                    401,
                    vec![header("www-authenticate", "Basic realm=\"r\"")],
                    vec![],
                ))
            },
        ),
        case(
            "a token server without https",
            Kind::Unavailable,
            "https",
            small,
            |_, _| {
                let challenge = "Bearer realm=\"http://token.example/\"";
                Some(Reply::Answer(
                    401,
                    vec![header("www-authenticate", challenge)],
                    vec![],
                ))
            },
        ),
    ];
    for (name, start, kind, part) in cases {
        let server = start();
        let place = Place::with(impatient(part == "nothing arrived")).await;
        let error = place.pull(&server.reference()).await.expect_err(name);
        let text = error.to_string();
        assert!(text.contains(part), "{name}: wanted {part:?}, got: {text}");
        assert_eq!(error.kind(), kind, "{name}: {text}");
        assert!(!text.contains('\n'), "{name}: {text}");
        assert_eq!(place.left_over(), Vec::<std::path::PathBuf>::new(), "{name}");
        assert!(place.images.list().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_goes_on_where_it_broke() {
    for ignores_range in [false, true] {
        let image = large();
        let offered = image.clone();
        let server = Server::start(move |request, before| {
            if !is_layer(request, &offered) {
                return good(request, &offered);
            }
            match before {
                0 => {
                    let (code, headers, body) = parts(request, &offered);
                    Reply::Cut(code, headers, body, 1 << 20)
                }
                1 => Reply::Answer(503, vec![header("retry-after", "0")], vec![]),
                _ if ignores_range => {
                    let body = offered.blobs[&offered.layers[0]].1.clone();
                    Reply::Answer(200, vec![], body)
                }
                _ => good(request, &offered),
            }
        });
        let place = Place::new().await;
        let pulled = place.pull(&server.reference()).await.unwrap();
        let rootfs = place.images.prepare(&pulled, "c").unwrap();
        assert_eq!(
            std::fs::read(rootfs.lower[0].join("a")).unwrap(),
            made::noise(3 << 20, 1)
        );
        let ranges: Vec<_> = server
            .requests()
            .iter()
            .filter(|r| is_layer(r, &image))
            .map(|r| r.header("range").map(ToOwned::to_owned))
            .collect();
        assert_eq!(ranges[0], None);
        assert!(ranges[2].as_ref().unwrap().starts_with("bytes="), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_busy_is_asked_again_when_it_says() {
    let image = small();
    let server = Server::start(move |request, before| match before {
        0 => Reply::Answer(429, vec![header("retry-after", "1")], vec![]),
        _ => good(request, &image),
    });
    let place = Place::new().await;
    place.pull(&server.reference()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_follow_no_redirect_to_another_host() {
    let image = small();
    let stored = image.clone();
    let storage = Server::start(move |request, _| good(request, &stored));
    let (storage_port, offered) = (storage.port, image.clone());
    let server = Server::start(move |request, _| {
        if request.header("authorization") != Some("Basic bWU6c2VjcmV0") {
            return Reply::Answer(401, vec![header("www-authenticate", "Basic realm=\"r\"")], vec![]);
        }
        if request.path.contains("/blobs/") {
            let location = format!("http://127.0.0.1:{storage_port}{}", request.path);
            return Reply::Answer(307, vec![header("location", &location)], vec![]);
        }
        good(request, &offered)
    });
    let place = Place::new().await;
    let credentials = Some(password(server.port, "secret"));
    let options = PullOptions {
        platform: None,
        credentials,
        ..PullOptions::default()
    };
    place
        .images
        .pull(&server.reference(), options, &|_| {})
        .await
        .unwrap();
    assert_eq!(storage.count("GET", "/blobs/"), 2, "config and layer");
    assert!(
        storage
            .requests()
            .iter()
            .all(|r| r.header("authorization").is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_with_the_password_and_renewed_when_it_is_refused() {
    let image = large();
    let port = Arc::new(Mutex::new(0));
    let own_port = Arc::clone(&port);
    let offered = image.clone();
    let server = Server::start(move |request, before| {
        if request.path.starts_with("/token?") {
            let body = format!(r#"{{"token":"t{before}","expires_in":3600}}"#);
            return Reply::Answer(200, vec![], body.into_bytes());
        }
        // The layer is behind a newer token: the first has run out by then.
        let wanted = if is_layer(request, &offered) {
            "Bearer t1"
        } else {
            "Bearer t0"
        };
        if request.header("authorization") != Some(wanted) {
            let port = *own_port.lock().unwrap();
            let challenge = format!(
                "Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"s\",scope=\"repository:app:pull\""
            );
            return Reply::Answer(401, vec![header("www-authenticate", &challenge)], vec![]);
        }
        good(request, &offered)
    });
    *port.lock().unwrap() = server.port;
    let place = Place::new().await;
    let credentials = Some(password(server.port, "secret"));
    let options = PullOptions {
        platform: None,
        credentials,
        ..PullOptions::default()
    };
    place
        .images
        .pull(&server.reference(), options, &|_| {})
        .await
        .unwrap();
    let tokens: Vec<Request> = server
        .requests()
        .into_iter()
        .filter(|r| r.path.starts_with("/token"))
        .collect();
    assert_eq!(tokens.len(), 2);
    assert_eq!(
        tokens[0].path,
        "/token?service=s&scope=repository%3Aapp%3Apull&client_id=berth&account=me"
    );
    assert_eq!(tokens[0].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    let with_password = server
        .requests()
        .iter()
        .filter(|r| r.header("authorization").is_some_and(|a| a.starts_with("Basic")))
        .count();
    assert_eq!(with_password, 2, "the password goes to the token server only");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tag_costs_one_head_request() {
    let server = Server::with(small());
    let place = Place::new().await;
    let first = place.pull(&server.reference()).await.unwrap();
    server.forget();
    let phases = Mutex::new(Vec::new());
    let second = place
        .images
        .pull(&server.reference(), PullOptions::default(), &|p| {
            phases.lock().unwrap().push(p.phase);
        })
        .await
        .unwrap();
    assert_eq!(
        (first.id.as_str(), &first.manifest_digest),
        (second.kept.id(), &second.digest)
    );
    assert_eq!(phases.into_inner().unwrap(), [Phase::Present]);
    assert_eq!(
        (server.requests().len(), server.count("HEAD", "/manifests/v1")),
        (1, 1)
    );
    let by_digest = format!("127.0.0.1:{}/app@{}", server.port, first.manifest_digest);
    place.pull(&by_digest).await.unwrap();
    server.forget();
    let third = place.pull(&by_digest).await.unwrap();
    assert!(server.requests().is_empty(), "what a digest names cannot change");
    assert_eq!(third.names.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_at_the_same_time_do_the_work_once() {
    let image = large();
    let server = Server::with(image.clone());
    let place = Place::new().await;
    let reference = server.reference();
    let pulls = (0..10).map(|_| place.pull(&reference));
    for result in futures_util::future::join_all(pulls).await {
        assert_eq!(result.unwrap().id, image.id);
    }
    assert_eq!(server.count("GET", &image.layers[0]), 1);
    assert!(
        std::fs::read_dir(place.root().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    );
    assert_eq!(std::fs::read_dir(place.root().join("s")).unwrap().count(), 2);
}

/// A registry that gives away its layers one byte at a time.
fn dripping(image: &Made) -> Server {
    let offered = image.clone();
    Server::start(move |request, _| {
        if !is_layer(request, &offered) {
            return good(request, &offered);
        }
        let (code, headers, body) = parts(request, &offered);
        Reply::Drip(code, headers, body, Duration::from_millis(20))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_drips_is_given_up() {
    let server = dripping(&large());
    let place = Place::with(Config {
        bytes_per_second_min: 100_000,
        ..impatient(true)
    })
    .await;
    let error = place.pull(&server.reference()).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Unavailable, "{text}");
    assert!(
        text.contains("arrived") && text.ends_with("(gave up after 2 attempts)"),
        "{text}"
    );
    assert!(place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_registry_holds_nobody_up_who_has_a_better_one() {
    let image = large();
    let (slow, fast) = (dripping(&image), Server::with(image.clone()));
    let place = Place::with(Config {
        share_timeout: Duration::from_millis(200),
        ..patient()
    })
    .await;
    let (images, reference) = (place.images.clone(), slow.reference());
    let waiting = tokio::spawn(async move {
        images
            .pull(&reference, PullOptions::default(), &|_| {})
            .await
            .map(drop)
    });
    eventually("the slow pull has begun", || {
        slow.count("GET", &image.layers[0]) == 1
    })
    .await;
    assert_eq!(place.pull(&fast.reference()).await.unwrap().id, image.id);
    assert!(!waiting.is_finished());
    waiting.abort();
    eventually("the slow pull has cleaned up", || {
        std::fs::read_dir(place.root().join("tmp"))
            .unwrap()
            .next()
            .is_none()
    })
    .await;
    assert_eq!(place.images.list().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_is_asked_twice() {
    let server = Server::start(|_, _| Reply::Silence);
    let place = Place::with(Config {
        attempts: 9,
        ..impatient(true)
    })
    .await;
    let text = place.pull(&server.reference()).await.unwrap_err().to_string();
    assert!(
        text.contains("nothing arrived") && text.ends_with("(gave up after 2 attempts)"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_for_too_long_a_wait_is_quoted() {
    let server = Server::start(|_, _| Reply::Answer(429, vec![header("retry-after", "3600")], vec![]));
    let place = Place::new().await;
    let text = place.pull(&server.reference()).await.unwrap_err().to_string();
    assert!(
        text.ends_with("it asks to wait 3600s before the next try (gave up after 1 attempt)"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pull_that_fails_does_not_take_the_layer_of_another() {
    let shared = made::layer(
        &made::tar(&[Entry::File("shared", &made::noise(1 << 20, 3))]),
        Packing::Gzip,
    );
    let good_image = made::image(std::slice::from_ref(&shared));
    let bad = made::layer(&made::tar(&[Entry::File("../escape", b"")]), Packing::Gzip);
    let bad_image = made::image(&[shared, bad]);
    let (good_server, bad_server) = (Server::with(good_image), Server::with(bad_image));
    for _ in 0..10 {
        let place = Place::new().await;
        let (good_reference, bad_reference) = (good_server.reference(), bad_server.reference());
        let (fine, refused) = tokio::join!(place.pull(&good_reference), place.pull(&bad_reference));
        refused.unwrap_err();
        let rootfs = place.images.prepare(&fine.unwrap(), "c").unwrap();
        assert_eq!(
            std::fs::read(rootfs.lower[0].join("shared")).unwrap().len(),
            1 << 20
        );
        place.images.release("c").unwrap();
        place.images.remove(&good_reference, false).unwrap();
        assert!(place.left_over().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_the_image_of_the_platform() {
    let of = |content: &[u8], architecture: &str| {
        made::image_for(
            &[made::layer(
                &made::tar(&[Entry::File("a", content)]),
                Packing::Gzip,
            )],
            architecture,
        )
    };
    let (arm, amd) = (of(b"arm", "arm64"), of(b"amd", "amd64"));
    let inner = made::index(&[("linux/amd64", &amd), ("linux/arm64/v8", &arm)]);
    let outer = made::index(&[
        ("linux/s390x", &arm),
        ("linux/amd64", &inner),
        ("linux/arm64", &arm),
    ]);
    let top = outer.top.clone();
    let server = Server::with(outer);
    let place = Place::new().await;
    for (platform, id) in [
        ("linux/amd64", &amd.id),
        ("linux/arm64", &arm.id),
        ("linux/amd64/v3", &amd.id),
    ] {
        let options = PullOptions {
            platform: Some(platform.parse().unwrap()),
            credentials: None,
            ..PullOptions::default()
        };
        let pulled = place
            .images
            .pull(&server.reference(), options, &|_| {})
            .await
            .unwrap();
        assert_eq!(pulled.kept.id(), id, "{platform}");
        assert_eq!(pulled.digest, top, "what the name points to, {platform}");
    }
    let options = PullOptions {
        platform: Some("linux/riscv64".parse().unwrap()),
        credentials: None,
        ..PullOptions::default()
    };
    let error = place
        .images
        .pull(&server.reference(), options, &|_| {})
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("linux/riscv64") && error.contains("linux/s390x"),
        "{error}"
    );
    let options = PullOptions {
        platform: Some("linux/s390x".parse().unwrap()),
        credentials: None,
        ..PullOptions::default()
    };
    let error = place
        .images
        .pull(&server.reference(), options, &|_| {})
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("made for linux/arm64"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waits_for_cleans_up() {
    let image = large();
    let offered = image.clone();
    let server = Server::start(move |request, _| {
        if is_layer(request, &offered) {
            let (code, headers, body) = parts(request, &offered);
            return Reply::Stall(code, headers, body, 2 << 20);
        }
        good(request, &offered)
    });
    let place = Place::new().await;
    {
        let reference = server.reference();
        let pull = place.pull(&reference);
        tokio::pin!(pull);
        tokio::select! {
            _ = &mut pull => panic!("the layer never ends"),
            () = eventually("the layer is being unpacked", || !place.left_over().is_empty()) => {}
        }
    }
    eventually("nothing is left", || place.left_over().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_leaves_the_old_image_without_a_name() {
    let (old, new) = (small(), large());
    let current = Arc::new(Mutex::new(old.clone()));
    let offered = Arc::clone(&current);
    let server = Server::start(move |request, _| good(request, &offered.lock().unwrap()));
    let place = Place::new().await;
    place.pull(&server.reference()).await.unwrap();
    *current.lock().unwrap() = new.clone();
    assert_eq!(place.pull(&server.reference()).await.unwrap().id, new.id);
    assert_eq!(place.images.get(&server.reference()).unwrap().id, new.id);
    assert!(place.images.get(&old.id).unwrap().names.is_empty());
    assert_eq!(place.images.remove(&old.id, false).unwrap().deleted, [old.id]);
    assert_eq!(place.images.list().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_layers_has_an_empty_root() {
    let server = Server::with(made::image(&[]));
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    let rootfs = place.images.prepare(&pulled, "c").unwrap();
    assert_eq!(rootfs.lower, [place.root().join("s/0")]);
}
