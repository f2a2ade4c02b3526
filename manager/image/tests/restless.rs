//! Registries that do not stay as they are while they are asked: tags that move, content that goes, connections that are
//! reset, types that are not what was announced.

mod fixture;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::{Reply, Server, good, status};
use fixture::{Place, impatient};
use image::{Image, Kind};

fn image(seed: u64) -> Made {
    let tar = made::tar(&[Entry::File("a", &made::noise(2 << 20, seed))]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

fn assert_whole(place: &Place, pulled: &Image, seed: u64) {
    let rootfs = place.images.prepare(pulled, &seed.to_string()).unwrap();
    let content = std::fs::read(rootfs.lower[0].join("a")).unwrap();
    assert!(content == made::noise(2 << 20, seed));
}

/// Has both images by digest, and lets the tag move from the first to the second when its manifest has been given.
fn moving(old: &Made, new: &Made, keeps_old: bool) -> Server {
    let (old, new, has_moved) = (old.clone(), new.clone(), AtomicBool::new(false));
    Server::start(move |request, _| {
        let is_tag = request.path.contains("/manifests/v1");
        let after = has_moved.load(Ordering::Relaxed);
        let of_old = match good(request, &old) {
            Reply::Answer(200 | 206, headers, body) if keeps_old || !after => {
                Some(Reply::Answer(200, headers, body))
            }
            _ => None,
        };
        if is_tag && !after {
            has_moved.store(request.method == "GET", Ordering::Relaxed);
            return of_old.unwrap();
        }
        match good(request, &new) {
            Reply::Answer(404, ..) => of_old.unwrap_or_else(|| status(404)),
            reply => reply,
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_in_the_middle_of_a_pull_gives_one_image_whole() {
    let (old, new) = (image(1), image(2));
    let server = moving(&old, &new, true);
    let place = Place::new().await;
    let first = place.pull(&server.reference()).await.unwrap();
    assert_eq!(first.id, old.id, "all of what its first answer named");
    assert_whole(&place, &first, 1);
    let second = place.pull(&server.reference()).await.unwrap();
    assert_eq!(second.id, new.id, "the next pull sees that it has moved");
    assert_whole(&place, &second, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_goes_with_a_moved_tag_is_one_error_and_the_next_pull_is_right() {
    let (old, new) = (image(1), image(2));
    let server = moving(&old, &new, false);
    let place = Place::with(impatient(false)).await;
    let error = place.pull(&server.reference()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(error.to_string().contains(&old.id), "{error}");
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
    assert!(place.images.list().unwrap().is_empty());
    let pulled = place.pull(&server.reference()).await.unwrap();
    assert_eq!(pulled.id, new.id);
    assert_whole(&place, &pulled, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_between_its_digest_and_its_manifest_is_taken_as_it_was_given() {
    let (first, second, third) = (image(1), image(2), image(3));
    let offered = Arc::new(Mutex::new(first.clone()));
    let (now, next) = (Arc::clone(&offered), third.clone());
    let server = Server::start(move |request, _| {
        let mut now = now.lock().unwrap();
        let reply = good(request, &now);
        if request.method == "HEAD" {
            *now = next.clone();
        }
        reply
    });
    let place = Place::new().await;
    let old = place.pull(&server.reference()).await.unwrap();
    *offered.lock().unwrap() = second;
    let pulled = place.pull(&server.reference()).await.unwrap();
    assert_eq!((&pulled.id, &pulled.manifest_digest), (&third.id, &third.top));
    assert_whole(&place, &pulled, 3);
    let before = place.images.get(&old.id).unwrap();
    assert!(before.names.is_empty(), "it lost its name and nothing else");
    assert_whole(&place, &before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_reset_costs_its_rest_once_and_one_error_for_ever() {
    let image = image(1);
    for is_once in [true, false] {
        let offered = image.clone();
        let server = Server::start(move |request, before| match good(request, &offered) {
            Reply::Answer(code, headers, body)
                if request.path.contains(&offered.layers[0]) && (before == 0 || !is_once) =>
            {
                Reply::Reset(code, headers, body, 1000 * usize::from(before == 0))
            }
            reply => reply,
        });
        let place = Place::with(impatient(false)).await;
        let pulled = place.pull(&server.reference()).await;
        if is_once {
            assert_whole(&place, &pulled.unwrap(), 1);
            assert_eq!(server.count("GET", &image.layers[0]), 2);
        } else {
            let error = pulled.unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), Kind::Unavailable, "{text}");
            assert!(text.contains("gave up") && !text.contains('\n'), "{text}");
            assert_eq!(place.left_over(), Vec::<PathBuf>::new());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_type_than_its_index_says_is_refused() {
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let image = image(1);
    let index = made::index(&[("linux/amd64", &image)]);
    let offered = index.clone();
    let manifest = image.top.clone();
    let server = Server::start(move |request, _| match good(request, &offered) {
        Reply::Answer(code, mut headers, body) if request.path.ends_with(&manifest) => {
            headers.retain(|(name, _)| name != "content-type");
            headers.push(fixture::scripted::header("content-type", DOCKER));
            Reply::Answer(code, headers, body)
        }
        reply => reply,
    });
    let place = Place::with(impatient(false)).await;
    let error = place.pull(&server.reference()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&image.top) && text.contains(DOCKER) && text.contains(made::OCI_MANIFEST),
        "{text}"
    );
    assert_eq!(place.left_over(), Vec::<PathBuf>::new());
}
