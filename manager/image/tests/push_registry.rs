//! Pushes to real registries, read by another tool, and what another tool pushed: every shape of image and artifact.

mod fixture;

use std::process::Command;

use fixture::docker_registry::Registry;
use fixture::made::{self, Entry, Made, OCI_MANIFEST, Packing};
use fixture::{Place, password};
use image::{BlobPhase, Image, Kept, PullOptions};
use serde_json::{Value, json};

const PASSWORD_FILE: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn image(seed: u64) -> Made {
    let large = made::noise(5 << 20, seed);
    let base = made::tar(&[Entry::Folder("./", 0o755), Entry::File("base", &large)]);
    let top = made::tar(&[Entry::File("top", b"top")]);
    made::image(&[
        made::layer(&base, Packing::Gzip),
        made::layer(&top, Packing::Zstd),
    ])
}

/// What skopeo says of an image.
fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(arguments).output();
    let output = output.expect("skopeo has to be installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The manifest or index as skopeo fetches it.
fn raw(reference: &str) -> Vec<u8> {
    skopeo(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{reference}"),
    ])
}

async fn pull_all(place: &Place, reference: &str) -> Image {
    let options = PullOptions {
        all_platforms: true,
        ..PullOptions::default()
    };
    let pulled = place.images.pull(reference, options, &|_| {}).await;
    fixture::image_of(pulled.unwrap())
}

/// Give what is at `from` the name `to`, and push it.
async fn push_as(place: &Place, from: &str, to: &str) -> Vec<BlobPhase> {
    place.images.tag(from, to).unwrap();
    let last = std::sync::Mutex::new(std::collections::BTreeMap::new());
    place
        .images
        .push(to, None, &|blob| {
            last.lock().unwrap().insert(blob.digest, blob.phase);
        })
        .await
        .unwrap_or_else(|error| panic!("{to}: {error}"));
    last.into_inner().unwrap().into_values().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_what_another_tool_finds() {
    for registry in Registry::of_both_versions(|_| String::new()).await {
        let (from, to) = (
            registry.reference("their/app:1"),
            registry.reference("ours/app:1"),
        );
        registry.fill(&image(1), "their/app:1", &["--preserve-digests"]);
        let place = Place::new().await;
        place.pull(&from).await.unwrap();
        let phases = push_as(&place, &from, &to).await;
        assert_eq!(
            phases,
            [BlobPhase::Mounted; 3],
            "from the repository that it was pulled from"
        );
        assert_eq!(raw(&to), raw(&from), "byte for byte");
        // Into a registry that has nothing of it, all is uploaded.
        let empty = Registry::plain().await;
        let fresh = empty.reference("ours/app:1");
        assert_eq!(push_as(&place, &from, &fresh).await, [BlobPhase::Done; 3]);
        assert_eq!(push_as(&place, &from, &fresh).await, [BlobPhase::Present; 3]);
        let copied = tempfile::tempdir().unwrap();
        let target = format!("dir:{}", copied.path().display());
        skopeo(&[
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{fresh}"),
            &target,
        ]);
        let layer = image(1).layers[0].replace("sha256:", "");
        assert_eq!(
            std::fs::read(copied.path().join(&layer)).unwrap(),
            image(1).blobs[&image(1).layers[0]].1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_pushed_whole_where_all_of_them_is_here() {
    let inner = made::index(&[("linux/amd64", &image(1)), ("linux/arm64", &image(2))]);
    let mut outer = inner.clone();
    let mut entry = outer.descriptor(&inner.top);
    entry["annotations"] = json!({"org.example.kind": "nested"});
    let index = json!({"schemaVersion": 2, "mediaType": made::OCI_INDEX, "manifests": [entry],
        "annotations": {"org.example.Spaced  key": "\u{e4}"}});
    outer.top = outer.add(made::OCI_INDEX, serde_json::to_vec_pretty(&index).unwrap());
    let registry = Registry::plain().await;
    registry.fill(&inner, "their/index:1", &["--preserve-digests"]);
    // What another tool does not push, as an index in an index, is handed in as an archive.
    let layout = tempfile::tempdir().unwrap();
    outer.write_layout(layout.path(), &registry.reference("their/nested:1"));
    let archive = layout.path().join("../nested.tar");
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(layout.path())
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    let place = Place::new().await;
    let from = registry.reference("their/index:1");
    pull_all(&place, &from).await;
    let to = registry.reference("ours/index:1");
    push_as(&place, &from, &to).await;
    assert_eq!(raw(&to), raw(&from));
    // Of one platform only its manifest can be pushed, as docker does.
    let place = Place::new().await;
    place.pull(&from).await.unwrap();
    let one = registry.reference("ours/one:1");
    push_as(&place, &from, &one).await;
    assert_eq!(made::digest(&raw(&one)), image(1).top);
    let images = place.images.clone();
    let loaded = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(&archive).unwrap();
        images
            .load(file, None)
            .map(|_| std::fs::remove_file(&archive).unwrap())
    });
    loaded.await.unwrap().unwrap();
    let to = registry.reference("ours/nested:1");
    push_as(&place, &registry.reference("their/nested:1"), &to).await;
    assert_eq!(made::digest(&raw(&to)), outer.top, "annotations and all");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_in_an_index_is_listed_with_its_subject() {
    let subject = image(1);
    let mut made = subject.clone();
    let config = made.add("application/vnd.oci.empty.v1+json", b"{}".to_vec());
    let sbom = made.add("text/spdx", b"SPDXVersion: SPDX-2.3".to_vec());
    let artifact = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/vnd.example.sbom",
        "config": made.descriptor(&config), "layers": [made.descriptor(&sbom)],
        "subject": made.descriptor(&subject.top), "annotations": {"org.example.tool": "test"},
    });
    let artifact = made.add(OCI_MANIFEST, artifact.to_string().into_bytes());
    let mut image_entry = made.descriptor(&subject.top);
    image_entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let mut artifact_entry = made.descriptor(&artifact);
    artifact_entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index =
        json!({"schemaVersion": 2, "mediaType": made::OCI_INDEX, "manifests": [image_entry, artifact_entry]});
    made.top = made.add(made::OCI_INDEX, index.to_string().into_bytes());
    let registry = Registry::plain().await;
    registry.fill(&made, "their/signed:1", &["--preserve-digests"]);
    let (from, to) = (
        registry.reference("their/signed:1"),
        registry.reference("ours/signed:1"),
    );
    let place = Place::new().await;
    pull_all(&place, &from).await;
    push_as(&place, &from, &to).await;
    let name = format!("{}@{}", registry.reference("ours/signed"), subject.top);
    let found = place.images.inspect_manifest(&name, None, true).await.unwrap();
    assert_eq!(found.digest, subject.top);
    assert_eq!(found.referrers.len(), 1, "{:?}", found.referrers);
    let referrer = &found.referrers[0];
    assert_eq!(
        (&referrer.digest, referrer.artifact_type.as_str()),
        (&artifact, "application/vnd.example.sbom")
    );
    assert_eq!(referrer.annotations["org.example.tool"], "test");
    // This registry does not have the API: others find it under the tag.
    let tag = subject.top.replace(':', "-");
    let listed: Value =
        serde_json::from_slice(&raw(&registry.reference(&format!("ours/signed:{tag}")))).unwrap();
    assert_eq!(listed["manifests"][0]["digest"], json!(artifact));
    // It came along with the index, and is known by its own name once that is asked for.
    let alone = format!("{}@{artifact}", registry.reference("ours/signed"));
    let pulled = place.images.pull(&alone, PullOptions::default(), &|_| {}).await;
    let Kept::Artifact(kept) = pulled.unwrap().kept else {
        panic!("it is no image");
    };
    assert_eq!(kept.subject.as_deref(), Some(subject.top.as_str()));
    assert_eq!(kept.artifact_type, "application/vnd.example.sbom");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_passwords_takes_a_push_of_who_has_one() {
    let with_passwords = |folder: &std::path::Path| {
        let file = folder.join("passwords");
        std::fs::write(&file, PASSWORD_FILE).unwrap();
        format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", file.display())
    };
    let open = Registry::plain().await;
    open.fill(&image(1), "app:1", &[]);
    let place = Place::new().await;
    place.pull(&open.reference("app:1")).await.unwrap();
    for registry in Registry::of_both_versions(with_passwords).await {
        let to = registry.reference("private:1");
        place.images.tag(&open.reference("app:1"), &to).unwrap();
        for wrong in [None, Some(password(registry.port, "wrong"))] {
            let error = place.images.push(&to, wrong, &|_| {}).await.unwrap_err();
            assert!(error.to_string().contains("denied"), "{error}");
        }
        let right = Some(password(registry.port, "secret"));
        place.images.push(&to, right.clone(), &|_| {}).await.unwrap();
        let found = place
            .images
            .search(&registry.reference("priv"), 0, right)
            .await
            .unwrap();
        assert_eq!(found[0].name, registry.reference("private"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_without_layers_and_of_dockers_kind_are_pushed_as_they_are() {
    let registry = Registry::plain().await;
    registry.fill(&made::image(&[]), "their/empty:1", &["--preserve-digests"]);
    let tar = made::tar(&[Entry::File("a", b"a")]);
    let gzip = made::image(&[made::layer(&tar, Packing::Gzip)]);
    registry.fill(&gzip, "their/docker:1", &["--format", "v2s2"]);
    let place = Place::new().await;
    for name in ["empty:1", "docker:1"] {
        let (from, to) = (
            registry.reference(&format!("their/{name}")),
            registry.reference(&format!("ours/{name}")),
        );
        place.pull(&from).await.unwrap();
        push_as(&place, &from, &to).await;
        assert_eq!(raw(&to), raw(&from), "{name}");
    }
    let manifest: Value = serde_json::from_slice(&raw(&registry.reference("ours/docker:1"))).unwrap();
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.docker.distribution.manifest.v2+json"
    );
}
