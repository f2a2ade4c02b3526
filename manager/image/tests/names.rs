//! Names, filters, leases and prunes: what people do with images that are here.

mod fixture;

use std::time::{Duration, Instant};

use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::Server;
use fixture::{Place, eventually};
use image::{Filters, Images, Kind};

fn made(name: &str) -> Made {
    let tar = made::tar(&[Entry::File(name, name.as_bytes())]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

fn ids(place: &Place, filters: &[&str]) -> Vec<String> {
    let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let images = place
        .images
        .list_some(&Filters::parse(&filters).unwrap())
        .unwrap();
    images.into_iter().map(|kept| kept.id().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_and_what_it_left_is_dangling_until_it_is_pruned() {
    let (a, b) = (made("a"), made("b"));
    let (server_a, server_b) = (Server::with(a.clone()), Server::with(b.clone()));
    let place = Place::new().await;
    place.pull(&server_a.reference()).await.unwrap();
    place.pull(&server_b.reference()).await.unwrap();
    assert_eq!(
        place.images.tag(&a.id, "mine").unwrap(),
        "docker.io/library/mine:latest"
    );
    assert_eq!(place.images.get("mine").unwrap().id, a.id);
    place.images.remove(&server_a.reference(), false).unwrap();
    place.images.tag(&server_b.reference(), "mine").unwrap();
    assert_eq!(place.images.get("mine").unwrap().id, b.id);
    assert_eq!(ids(&place, &["dangling=true"]), std::slice::from_ref(&a.id));
    assert_eq!(ids(&place, &["reference=mine"]), std::slice::from_ref(&b.id));
    let (removed, freed) = place.images.prune(false, &Filters::default()).unwrap();
    assert_eq!(removed.deleted, [a.id]);
    assert!(freed > 0);
    assert_eq!(ids(&place, &[]), [b.id]);
    for (source, name) in [("mine", "x@sha256:00"), ("nothing", "x"), ("mine", "UPPER/..")] {
        place.images.tag(source, name).unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_of_its_own_repository() {
    let a = made("a");
    let server = Server::with(a.clone());
    let place = Place::new().await;
    place.pull(&server.reference()).await.unwrap();
    place.images.tag(&server.reference(), "mine").unwrap();
    let own = format!("127.0.0.1:{}/app@{}", server.port, a.top);
    assert_eq!(place.images.get(&own).unwrap().id, a.id);
    let foreign = format!("other/app@{}", a.top);
    assert_eq!(place.images.get(&foreign).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(
        place.images.remove(&foreign, true).unwrap_err().kind(),
        Kind::NotFound
    );
    place.images.remove(&server.reference(), false).unwrap();
    // No tag of this repository is left, and those of others are not its to take.
    let removed = place.images.remove(&own, true).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![own.clone()], vec![]));
    let left = place.images.get("mine").unwrap();
    assert_eq!((left.id, left.repo_digests), (a.id, vec![]));
    assert_eq!(
        place.images.remove(&own, true).unwrap_err().kind(),
        Kind::NotFound
    );
    place.images.remove("mine", false).unwrap();
    assert!(place.left_over().is_empty());

    // What has no name at all goes by its digest.
    place.pull(&server.reference()).await.unwrap();
    let b = Server::with(made("b"));
    place.pull(&b.reference()).await.unwrap();
    place.images.tag(&b.reference(), &server.reference()).unwrap();
    assert_eq!(place.images.remove(&own, false).unwrap().deleted.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_or_a_lease_needs_is_not_pruned() {
    let (a, b) = (made("a"), made("b"));
    let (server_a, server_b) = (Server::with(a.clone()), Server::with(b.clone()));
    let place = Place::new().await;
    let pulled = place.pull(&server_a.reference()).await.unwrap();
    place.pull(&server_b.reference()).await.unwrap();
    place.images.prepare(&pulled, "c").unwrap();
    let of_b = [b.id.clone()];
    let lease = place.images.lease("ci", &of_b, 3600).unwrap();
    assert_eq!(place.images.client_leases().unwrap(), [lease]);
    let none = Filters::default();
    assert!(place.images.prune(true, &none).unwrap().0.deleted.is_empty());
    let error = place.images.remove(&b.id, false).unwrap_err();
    assert!(
        error.kind() == Kind::InUse && error.to_string().contains("lease ci"),
        "{error}"
    );
    let unknown = ["nobody".to_owned()];
    let error = place.images.lease("ci", &unknown, 3600).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert_eq!(place.images.client_leases().unwrap().len(), 1, "it is as it was");
    // A lease that has run out holds nothing.
    place.images.lease("ci", &of_b, 1).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(place.images.client_leases().unwrap(), []);
    assert_eq!(place.images.prune(true, &none).unwrap().0.deleted, [b.id]);
    assert_eq!(place.images.end_lease("ci").unwrap_err().kind(), Kind::NotFound);
    place.images.release("c").unwrap();
    assert_eq!(place.images.prune(true, &none).unwrap().0.deleted, [a.id]);
    assert!(place.left_over().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_bounded_and_a_start_forgets_those_that_have_run_out() {
    let server = Server::with(made("a"));
    let place = Place::new().await;
    let image = place.pull(&server.reference()).await.unwrap();
    let folder = place.close();
    let database = rusqlite::Connection::open(folder.path().join("images.db")).unwrap();
    let insert =
        "WITH RECURSIVE numbers (n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
        INSERT INTO leases (id, kind, image_id, expires_unix_seconds)
        SELECT n, 'client', ?, unixepoch() + iif(n < 2, 0, 3600) FROM numbers";
    database.execute(insert, [&image.id]).unwrap();
    // An open store has its database for itself.
    database.close().unwrap();
    let folder = Place::reopen(folder).await.close();
    let database = rusqlite::Connection::open(folder.path().join("images.db")).unwrap();
    let rows: u32 = database
        .query_row("SELECT count(*) FROM leases", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 999);
    database.close().unwrap();
    let place = Place::reopen(folder).await;
    let name = [server.reference()];
    place.images.lease("one", &name, 60).unwrap();
    let error = place.images.lease("more", &name, 60).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
    place.images.lease("one", &name, 90).unwrap();
    place.images.end_lease("one").unwrap();
    place.images.lease("more", &name, 60).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_tells_shared_layers_from_those_of_one_image() {
    let layer = |name: &str, bytes: usize| {
        made::layer(
            &made::tar(&[Entry::File(name, &vec![b'x'; bytes])]),
            Packing::Gzip,
        )
    };
    let base = layer("base", 1000);
    let a = Server::with(made::image(&[base.clone(), layer("a", 20)]));
    let b = Server::with(made::image(&[base, layer("b", 3)]));
    let place = Place::new().await;
    let pulled = place.pull(&a.reference()).await.unwrap();
    place.pull(&b.reference()).await.unwrap();
    place.images.prepare(&pulled, "c").unwrap();
    let usage = place.images.usage().unwrap();
    assert_eq!(usage.layers_bytes, 1023);
    let mut told: Vec<_> = usage
        .images
        .iter()
        .map(|i| (i.shared_bytes, i.unique_bytes, i.containers))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(1000, 3, 0), (1000, 20, 1)]);
    let freed = place
        .images
        .remove(&b.reference(), false)
        .map(|_| place.images.usage().unwrap())
        .unwrap();
    let before = usage.layers_bytes + usage.content_bytes;
    assert_eq!(
        before - usage.reclaimable_bytes,
        freed.layers_bytes + freed.content_bytes
    );
    let sizes: Vec<u64> = place
        .images
        .history(&pulled.id)
        .unwrap()
        .iter()
        .map(|step| step.size_bytes)
        .collect();
    assert_eq!(sizes, [1000, 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_very_many_files_holds_nobody_up_and_goes_on_after_a_restart() {
    let server = Server::with(made("a"));
    let place = Place::new().await;
    let pulled = place.pull(&server.reference()).await.unwrap();
    // Beside what was unpacked, as an unpack of so many files is not what is measured.
    let layer = place.images.prepare(&pulled, "c").unwrap().lower[0].clone();
    place.images.release("c").unwrap();
    for folder in 0..100 {
        let folder = layer.join(folder.to_string());
        std::fs::create_dir(&folder).unwrap();
        for file in 0..300 {
            std::fs::File::create(folder.join(file.to_string())).unwrap();
        }
    }
    let began = Instant::now();
    place.images.remove(&server.reference(), false).unwrap();
    let removed_in = began.elapsed();
    let trash = place.root().join("trash");
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        assert!(place.images.list().unwrap().is_empty());
        slowest = slowest.max(began.elapsed());
    }
    let left = std::fs::read_dir(&trash).unwrap().count();
    println!("removed in {removed_in:?}, slowest list meanwhile {slowest:?}, {left} in trash");
    assert!(left > 0, "its files are being removed yet");
    assert!(place.left_over().is_empty(), "nothing of it is in sight");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let folder = place.close();
    let _images = Images::open(folder.path()).await.unwrap();
    eventually("all is removed", || {
        std::fs::read_dir(folder.path().join("trash"))
            .unwrap()
            .next()
            .is_none()
    })
    .await;
}
