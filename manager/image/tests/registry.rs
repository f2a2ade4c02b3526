//! Pulls from a real registry, filled by another tool: both manifest families, all packings, passwords and TLS.

mod fixture;

use std::path::PathBuf;
use std::process::Command;

use fixture::docker_registry::Registry;
use fixture::made::{self, Entry, Made, Packing};
use fixture::{Place, password};
use image::{Kind, PullOptions};

const PASSWORD_FILE: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn image(packing: Packing) -> Made {
    let base = made::tar(&[
        Entry::Folder("./", 0o755),
        Entry::File("base", &made::noise(2 << 20, 4)),
    ]);
    let top = made::tar(&[Entry::File("top", b"top"), Entry::File(".wh.base", b"")]);
    made::image(&[made::layer(&base, packing), made::layer(&top, packing)])
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_both_families_are_pulled() {
    let registry = Registry::plain().await;
    registry.fill(&image(Packing::Gzip), "oci/gzip:1", &[]);
    registry.fill(&image(Packing::Zstd), "oci/zstd:1", &[]);
    registry.fill(&image(Packing::Gzip), "docker/gzip:1", &["--format", "v2s2"]);
    let amd = image(Packing::Gzip);
    registry.fill(
        &made::index(&[("linux/arm64", &amd), ("linux/amd64", &amd)]),
        "oci/index:1",
        &[],
    );
    let place = Place::new().await;
    for name in ["oci/gzip:1", "oci/zstd:1", "docker/gzip:1", "oci/index:1"] {
        let pulled = place
            .pull(&registry.reference(name))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(pulled.diff_ids.len(), 2, "{name}");
        let rootfs = place.images.prepare(&pulled, "c").unwrap();
        assert_eq!(
            std::fs::read(rootfs.lower[1].join("base")).unwrap(),
            made::noise(2 << 20, 4),
            "{name}"
        );
        place.images.release("c").unwrap();
    }
    assert_eq!(
        std::fs::read_dir(place.root().join("s")).unwrap().count(),
        3,
        "the same layers, whatever the packing"
    );
    assert_eq!(
        place
            .pull(&registry.reference("none:1"))
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_passwords_wants_the_right_one() {
    let registry = Registry::start(|folder| {
        let file = folder.join("passwords");
        std::fs::write(&file, PASSWORD_FILE).unwrap();
        format!("auth: {{htpasswd: {{realm: r, path: {}}}}}\n", file.display())
    })
    .await;
    registry.fill(&image(Packing::Gzip), "private:1", &["--dest-creds", "me:secret"]);
    let place = Place::new().await;
    let pull = async |secret: Option<&str>| {
        let credentials = secret.map(|secret| password(registry.port, secret));
        let options = PullOptions {
            platform: None,
            credentials,
            ..PullOptions::default()
        };
        place
            .images
            .pull(&registry.reference("private:1"), options, &|_| {})
            .await
    };
    for wrong in [None, Some("wrong")] {
        let error = pull(wrong).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("denied"), "{error}");
    }
    assert!(place.left_over().is_empty());
    pull(Some("secret")).await.unwrap();
}

/// The part of other tests that needs another environment than their process began with. Alone it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pull_with_this_environment() {
    let Ok(reference) = std::env::var("PULL_REFERENCE") else {
        return;
    };
    let place = Place::with(fixture::impatient(false)).await;
    let result = place.pull(&reference).await;
    println!(
        "result: {}",
        result.map_or_else(|e| e.to_string(), |image| image.id)
    );
}

fn pull_elsewhere(reference: &str, environment: &[(&str, PathBuf)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pull_with_this_environment", "--nocapture"])
        .env("PULL_REFERENCE", reference)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .find_map(|line| Some(line.split_once("result: ")?.1.to_owned()))
        .unwrap_or(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_against_the_machines_authorities() {
    let registry = Registry::start(|folder| {
        let (key, certificate) = (folder.join("key.pem"), folder.join("certificate.pem"));
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-days",
                "3650",
                "-subj",
                "/CN=registry",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl has to be installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        format!(
            "  tls: {{certificate: {}, key: {}}}\n",
            certificate.display(),
            key.display()
        )
    })
    .await;
    let made = image(Packing::Gzip);
    registry.fill(&made, "secure:1", &[]);
    let reference = registry.reference("secure:1");
    let trusted = pull_elsewhere(
        &reference,
        &[("SSL_CERT_FILE", registry.folder.path().join("certificate.pem"))],
    );
    assert_eq!(trusted, made.id);
    let strange = pull_elsewhere(&reference, &[]);
    assert!(strange.contains("not trusted"), "{strange}");
}
