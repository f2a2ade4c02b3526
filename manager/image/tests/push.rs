//! Pushes to a registry that follows a script: what the distribution spec lets a registry answer, and what it does not.

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use fixture::made::{self, Entry, Made, Packing};
use fixture::receiver::{Fault, Head, Receiver};
use fixture::scripted::Server;
use fixture::{Place, eventually, impatient, password};
use image::{BlobPhase, Error, Images, Kind, Pushed};

fn image(megabytes: usize) -> Made {
    let content = made::noise(megabytes << 20, 3);
    let entries = [Entry::File("small", b"content"), Entry::File("large", &content)];
    made::image(&[made::layer(&made::tar(&entries), Packing::Plain)])
}

/// A store that has `image` under a name at the receiver.
struct Sender {
    place: Place,
    image: Made,
    name: String,
}

impl Sender {
    async fn of(image: Made, to: &Receiver, is_silent: bool) -> Sender {
        let server = Server::with(image.clone());
        let place = Place::with(impatient(is_silent)).await;
        place.pull(&server.reference()).await.unwrap();
        let name = to.reference("team/app:v1");
        place.images.tag(&server.reference(), &name).unwrap();
        Sender { place, image, name }
    }

    async fn push(&self) -> Result<Pushed, Error> {
        self.place.images.push(&self.name, None, &|_| {}).await
    }

    /// The receiver has all of the image, and nothing half.
    fn assert_arrived(&self, at: &Receiver) {
        let state = at.state();
        for (digest, (_, content)) in &self.image.blobs {
            if *digest != self.image.top {
                assert!(
                    state.blobs.get(digest) == Some(content),
                    "{digest} did not arrive"
                );
            }
        }
        let (_, content) = &self.image.blobs[&self.image.top];
        assert_eq!(&state.manifests["team/app/v1"].1, content, "byte for byte");
        assert!(state.sessions.is_empty(), "an upload is left open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_brings_blobs_then_the_tag_and_the_next_one_costs_a_head() {
    let receiver = Receiver::start(|_, _| None);
    let sender = Sender::of(image(6), &receiver, false).await;
    let shown = Mutex::new(Vec::new());
    let pushed = sender
        .place
        .images
        .push(&sender.name, None, &|blob| shown.lock().unwrap().push(blob))
        .await
        .unwrap();
    assert_eq!((&pushed.name, &pushed.digest), (&sender.name, &sender.image.top));
    sender.assert_arrived(&receiver);
    let shown = shown.into_inner().unwrap();
    for digest in sender.image.layers.iter().chain([&sender.image.id]) {
        let last = shown.iter().rfind(|blob| blob.digest == *digest).unwrap();
        assert_eq!(
            (last.phase, last.uploaded_bytes),
            (BlobPhase::Done, last.total_bytes)
        );
    }
    {
        let state = receiver.state();
        let last = state.requests.last().unwrap();
        assert!(last.is("PUT", "/manifests/v1"), "the tag comes last: {last:?}");
        let puts = state.requests.iter().filter(|head| head.is("PUT", "/blobs/"));
        assert!(
            puts.clone().count() == 2 && puts.clone().all(|put| put.path.contains("_state=a%3Db&digest="))
        );
        let chunks: Vec<&Head> = state
            .requests
            .iter()
            .filter(|head| head.is("PATCH", ""))
            .collect();
        assert_eq!(chunks.len(), 1, "only the large blob needs a request more");
        assert!(
            !chunks[0].headers.contains_key("content-range"),
            "all of it at once is no part"
        );
    }
    receiver.state().requests.clear();
    sender.push().await.unwrap();
    let requests: Vec<String> = receiver
        .state()
        .requests
        .iter()
        .map(|head| head.method.clone())
        .collect();
    // The first finds out whether this registry on the same machine speaks TLS: it never gets here.
    assert_eq!(requests.last().map(String::as_str), Some("HEAD"));
    assert_eq!(requests.len(), 1, "{requests:?}");
}

/// What a registry does wrong, at which request.
type Script = fn(&Head, usize) -> Option<Fault>;
/// What happens, and the script that makes it happen once.
type Case = (&'static str, Script);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_may_answer_or_fail_at_once_does_not_fail_a_push() {
    let cases: Vec<Case> = vec![
        ("a reset in the middle of a blob", |head, before| {
            (head.is("PATCH", "") && before == 0).then_some(Fault::Cut(3 << 20))
        }),
        ("a session that is lost with the connection", |head, before| {
            if head.is("PATCH", "") && before == 0 {
                return Some(Fault::Cut(100));
            }
            (head.is("GET", "/uploads/") && before == 0).then(|| Fault::Answer(404, Vec::new()))
        }),
        ("a reset of the last request", |head, before| {
            (head.is("PUT", "/blobs/") && before == 0).then_some(Fault::Cut(0))
        }),
        ("a server error with Retry-After", |head, before| {
            (head.is("PATCH", "") && before == 0)
                .then(|| Fault::Answer(503, vec![("retry-after", "0".into())]))
        }),
        ("a part that does not follow", |head, before| {
            (head.is("PATCH", "") && before == 0).then(|| Fault::Answer(416, Vec::new()))
        }),
        ("a proxy that takes no more than some megabytes", |head, _| {
            let length: u64 = head.headers.get("content-length")?.parse().ok()?;
            (length > 4 << 20).then(|| Fault::Answer(413, Vec::new()))
        }),
        ("a wish for chunks of some length", |head, _| {
            head.is("POST", "")
                .then(|| Fault::Headers(vec![("oci-chunk-min-length", "1000000".into())]))
        }),
        ("no digest in the answer to a blob", |head, _| {
            head.is("PUT", "/blobs/")
                .then(|| Fault::Headers(vec![("docker-content-digest", String::new())]))
        }),
        ("no range in the answer to a part", |head, _| {
            head.is("PATCH", "")
                .then(|| Fault::Headers(vec![("range", String::new())]))
        }),
        ("a content that arrives wrong once", |head, before| {
            (head.is("PUT", "/blobs/") && before == 0).then(|| Fault::Answer(400, Vec::new()))
        }),
        ("a tag that is not taken at once", |head, before| {
            (head.is("PUT", "/manifests/") && before == 0).then(|| Fault::Answer(429, Vec::new()))
        }),
        ("no HEAD for blobs", |head, _| {
            head.is("HEAD", "/blobs/").then(|| Fault::Answer(405, Vec::new()))
        }),
    ];
    let made = image(6);
    for (name, script) in cases {
        println!("{name}");
        let receiver = Receiver::start(script);
        let sender = Sender::of(made.clone(), &receiver, false).await;
        sender
            .push()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        sender.assert_arrived_but_for(&receiver, name);
    }
}

impl Sender {
    /// A registry that lost or refused a session may keep it: it cannot be told which.
    fn assert_arrived_but_for(&self, at: &Receiver, case: &str) {
        if case.contains("lost") || case.contains("wrong once") {
            at.state().sessions.clear();
        }
        self.assert_arrived(at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_from_where_the_registry_has_it() {
    let receiver =
        Receiver::start(|head, before| (head.is("PATCH", "") && before == 0).then_some(Fault::Cut(3 << 20)));
    let sender = Sender::of(image(6), &receiver, false).await;
    sender.push().await.unwrap();
    let state = receiver.state();
    let ranges: Vec<Option<&String>> = state
        .requests
        .iter()
        .filter(|head| head.is("PATCH", ""))
        .map(|head| head.headers.get("content-range"))
        .collect();
    let size = sender.image.blobs[&sender.image.layers[0]].1.len();
    assert_eq!(ranges, [None, Some(&format!("{}-{}", 3 << 20, size - 1))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_one_error_and_leaves_no_upload_open() {
    let refused: Vec<(&str, bool, Kind, &str, Script)> = vec![
        (
            "server errors for ever",
            false,
            Kind::Unavailable,
            "after 2 attempts",
            |head, _| head.is("PATCH", "").then(|| Fault::Answer(500, Vec::new())),
        ),
        ("a stall", true, Kind::Unavailable, "took", |head, _| {
            head.is("PATCH", "").then_some(Fault::Silence)
        }),
        ("a refusal", false, Kind::Unavailable, "denied", |head, _| {
            head.is("POST", "").then(|| Fault::Answer(403, Vec::new()))
        }),
        (
            "no such repository",
            false,
            Kind::Unavailable,
            "404",
            |head, _| head.is("POST", "").then(|| Fault::Answer(404, Vec::new())),
        ),
        (
            "no place to upload to",
            false,
            Kind::Unavailable,
            "Location",
            |head, _| head.is("POST", "").then(|| Fault::Answer(202, Vec::new())),
        ),
        (
            "a place without encryption",
            false,
            Kind::Unavailable,
            "without https",
            |head, _| {
                head.is("POST", "")
                    .then(|| Fault::Answer(202, vec![("location", "http://registry.example/u".into())]))
            },
        ),
        ("another digest", false, Kind::Unavailable, "stored", |head, _| {
            let other = format!("sha256:{}", "0".repeat(64));
            head.is("PUT", "")
                .then(|| Fault::Headers(vec![("docker-content-digest", other)]))
        }),
        (
            "more than was sent",
            false,
            Kind::Unavailable,
            "range",
            |head, _| {
                head.is("PATCH", "")
                    .then(|| Fault::Headers(vec![("range", "0-99999999".into())]))
            },
        ),
        (
            "a redirect that loses the method",
            false,
            Kind::Unavailable,
            "redirect",
            |head, _| {
                head.is("PUT", "/manifests/")
                    .then(|| Fault::Answer(302, vec![("location", "/v2/team/app/manifests/v2".into())]))
            },
        ),
    ];
    let made = image(6);
    for (name, is_silent, kind, part, script) in refused {
        println!("{name}");
        let receiver = Receiver::start(script);
        let sender = Sender::of(made.clone(), &receiver, is_silent).await;
        let error = sender.push().await.expect_err(name);
        assert!(
            error.kind() == kind && error.to_string().contains(part),
            "{name}: {error}"
        );
        let state = receiver.state();
        assert!(
            !state.manifests.contains_key("team/app/v1"),
            "{name}: the tag was moved"
        );
        assert!(state.sessions.is_empty(), "{name}: an upload is left open");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_an_upload_to_another_host() {
    let elsewhere = Receiver::start(|_, _| None);
    let place = format!("http://127.0.0.1:{}/v2/team/app/blobs/uploads/1", elsewhere.port);
    let receiver = Receiver::start(move |head, _| {
        if !head.headers.contains_key("authorization") {
            return Some(Fault::Answer(
                401,
                vec![("www-authenticate", "Basic realm=\"r\"".into())],
            ));
        }
        head.is("POST", "")
            .then(|| Fault::Answer(202, vec![("location", place.clone())]))
    });
    let sender = Sender::of(image(1), &receiver, false).await;
    let credentials = password(receiver.port, "secret");
    // There is no such upload there, so that it fails: what matters is what was sent.
    sender
        .place
        .images
        .push(&sender.name, Some(credentials), &|_| {})
        .await
        .unwrap_err();
    assert!(receiver.count("POST", "/uploads/") > 0 && elsewhere.count("PUT", "/uploads/1") > 0);
    for head in &elsewhere.state().requests {
        assert!(!head.headers.contains_key("authorization"), "{head:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_repository_is_mounted() {
    let receiver = Receiver::start(|_, _| None);
    let sender = Sender::of(image(6), &receiver, false).await;
    sender.push().await.unwrap();
    let other = receiver.reference("team/copy:v1");
    sender.place.images.tag(&sender.name, &other).unwrap();
    // This registry knows blobs by repository no more than it has to: the new one is told to have none.
    receiver.state().requests.clear();
    let shown = Mutex::new(Vec::new());
    sender
        .place
        .images
        .push(&other, None, &|blob| shown.lock().unwrap().push(blob))
        .await
        .unwrap();
    let phases: Vec<BlobPhase> = shown
        .into_inner()
        .unwrap()
        .iter()
        .map(|blob| blob.phase)
        .collect();
    assert!(phases.contains(&BlobPhase::Present), "{phases:?}");
    assert_eq!(receiver.count("PATCH", ""), 0);
    let mounting =
        Receiver::start(|head, _| (head.is("HEAD", "/copy/blobs/")).then(|| Fault::Answer(404, Vec::new())));
    let sender = Sender::of(image(1), &mounting, false).await;
    sender.push().await.unwrap();
    let other = mounting.reference("team/copy:v1");
    sender.place.images.tag(&sender.name, &other).unwrap();
    sender.place.images.push(&other, None, &|_| {}).await.unwrap();
    assert_eq!(mounting.count("POST", "/copy/blobs/uploads/?mount=sha256%3A"), 2);
    assert_eq!(mounting.count("PUT", "/copy/blobs/"), 0, "nothing is sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_given_up_aborts_its_uploads() {
    let receiver = Receiver::start(|head, _| head.is("PATCH", "").then_some(Fault::Silence));
    let sender = Sender::of(image(6), &receiver, false).await;
    let (images, name) = (sender.place.images.clone(), sender.name.clone());
    let push = tokio::spawn(async move { images.push(&name, None, &|_| {}).await });
    eventually("the upload has begun", || receiver.count("PATCH", "") == 1).await;
    push.abort();
    eventually("the upload is aborted", || receiver.state().sessions.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_found_when_the_registry_refuses_it() {
    let receiver = Receiver::start(|_, _| None);
    let sender = Sender::of(image(1), &receiver, false).await;
    let hex = sender.image.layers[0].strip_prefix("sha256:").unwrap();
    let path = sender.place.root().join("blobs/sha256").join(hex);
    let mut content = std::fs::read(&path).unwrap();
    content[1000] ^= 1;
    std::fs::write(&path, &content).unwrap();
    let error = sender.push().await.unwrap_err();
    assert!(error.to_string().starts_with("stored blob sha256:"), "{error}");
    assert!(receiver.state().manifests.is_empty());
    content[1000] ^= 1;
    std::fs::write(&path, &content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_are_found_where_the_registry_knows_how() {
    let receiver = Receiver::start(|head, _| {
        let page = |body: &str, link: Option<&str>| {
            let mut headers = vec![("body", body.to_owned())];
            headers.extend(link.map(|link| ("link", link.to_owned())));
            Some(Fault::Answer(200, headers))
        };
        match head.path.as_str() {
            "/v2/_catalog?n=1000" => page(
                r#"{"repositories":["team/app","team/base"]}"#,
                Some(r#"</v2/_catalog?last=x>; rel="next""#),
            ),
            "/v2/_catalog?last=x" => page(r#"{"repositories":["z/app"]}"#, None),
            _ => None,
        }
    });
    let place = Place::new().await;
    let found = place
        .images
        .search(&receiver.reference("app"), 0, None)
        .await
        .unwrap();
    let names: Vec<String> = found.into_iter().map(|one| one.name).collect();
    assert_eq!(
        names,
        [receiver.reference("team/app"), receiver.reference("z/app")]
    );
    let without = Receiver::start(|_, _| None);
    let error = place
        .images
        .search(&without.reference("app"), 0, None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("cannot be searched"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_allows_a_push_and_the_mounts_that_are_worth_it() {
    let (asks, port) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::<u16>::new()));
    let (now, own) = (Arc::clone(&asks), Arc::clone(&port));
    let receiver = Receiver::start(move |head, _| {
        if head.path.starts_with("/token") {
            return Some(Fault::Answer(200, vec![("body", r#"{"token":"t"}"#.into())]));
        }
        let is_asked = now.load(Ordering::Relaxed) && !head.headers.contains_key("authorization");
        is_asked.then(|| {
            let realm = format!("http://127.0.0.1:{}/token", own.get().unwrap());
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
            Fault::Answer(401, vec![("www-authenticate", challenge)])
        })
    });
    port.set(receiver.port).unwrap();
    let sender = Sender::of(image(1), &receiver, false).await;
    let images = &sender.place.images;
    for repository in 0..20 {
        let name = receiver.reference(&format!("team/base{repository}:v1"));
        images.tag(&sender.name, &name).unwrap();
        images.push(&name, None, &|_| {}).await.unwrap();
    }
    asks.store(true, Ordering::Relaxed);
    receiver.state().blobs.clear();
    receiver.state().requests.clear();
    sender.push().await.unwrap();
    assert_eq!(receiver.count("GET", "/token"), 1);
    let state = receiver.state();
    let asked = state.requests.iter().find(|head| head.path.starts_with("/token"));
    let scopes = asked.unwrap().path.matches("scope=repository").count();
    assert_eq!(
        scopes,
        3,
        "its own and two to mount from: {:?}",
        asked.unwrap().path
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_an_image_that_is_removed_meanwhile_is_done() {
    let images = Arc::new(OnceLock::<Images>::new());
    let doomed = Arc::clone(&images);
    let receiver = Receiver::start(move |head, _| {
        if head.is("PUT", "/manifests/") {
            let images = doomed.get().unwrap();
            for image in images.list().unwrap() {
                images.remove(image.id(), true).unwrap();
            }
        }
        None
    });
    let sender = Sender::of(image(1), &receiver, false).await;
    images.set(sender.place.images.clone()).ok();
    let pushed = sender.push().await.unwrap();
    assert_eq!(pushed.digest, sender.image.top);
    sender.assert_arrived(&receiver);
    assert!(sender.place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_of_a_repository_are_pushed_and_no_others() {
    let receiver = Receiver::start(|_, _| None);
    let sender = Sender::of(image(1), &receiver, false).await;
    let images = &sender.place.images;
    for name in [
        "team/app:v2",
        "team/app:latest",
        "team/app2:v1",
        "team/app/more:v1",
    ] {
        images.tag(&sender.name, &receiver.reference(name)).unwrap();
    }
    let done = Mutex::new(Vec::new());
    let note = |pushed: Pushed| done.lock().unwrap().push(pushed);
    let repository = receiver.reference("team/app");
    images
        .push_all_tags(&repository, None, &|_| {}, &note)
        .await
        .unwrap();
    let done = done.into_inner().unwrap();
    let names: Vec<&str> = done.iter().map(|pushed| pushed.name.as_str()).collect();
    let tag = |tag: &str| format!("{repository}:{tag}");
    assert_eq!(names, [tag("latest"), tag("v1"), tag("v2")]);
    assert!(done.iter().all(|pushed| pushed.digest == sender.image.top));
    let at_registry: Vec<String> = receiver.state().manifests.keys().cloned().collect();
    for tag in ["latest", "v1", "v2"] {
        assert!(
            at_registry.contains(&format!("team/app/{tag}")),
            "{at_registry:?}"
        );
    }
    assert!(
        !at_registry
            .iter()
            .any(|name| name.contains("app2") || name.contains("more"))
    );
    for (wrong, part) in [
        (tag("v1"), "names one"),
        (format!("{repository}@{}", sender.image.top), "names one"),
        (receiver.reference("team/none"), "no such image"),
    ] {
        let error = images
            .push_all_tags(&wrong, None, &|_| {}, &|_| {})
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{wrong}: {error}");
    }
}
