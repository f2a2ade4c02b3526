//! Artifacts by managerctl: a chart that curl put into a registry comes here, is told about, and goes on, with skopeo
//! as the judge; containers are not made of it.

use integration::{Manager, Registry, Sandbox, run};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::process::Command;

const TYPE: &str = "application/vnd.cncf.helm.config.v1+json";

fn json_of(manager: &Manager, args: &[&str]) -> Value {
    serde_json::from_str(&manager.ctl(args).ok()).expect("JSON")
}

fn skopeo(manager: &Manager, args: &[&str]) -> String {
    run(manager.inside("skopeo").arg("--insecure-policy").args(args)).ok()
}

/// Put content into the repository `charts/web`, as the distribution specification tells; gives its descriptor.
fn upload(manager: &Manager, sandbox: &Sandbox, media_type: &str, content: &[u8]) -> Value {
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(content)));
    let file = sandbox.path().join("uploaded");
    fs::write(&file, content).expect("write what curl sends");
    let curl = |args: &[&str]| {
        let mut curl = manager.inside("curl");
        run(curl
            .args(["-sSf", "-o", "/dev/null", "-w", "%header{location}"])
            .args(args))
        .ok()
    };
    let there = format!("http://{}/v2/charts/web", Registry::HOST);
    let (send, kind) = (
        format!("@{}", file.display()),
        format!("Content-Type: {media_type}"),
    );
    if media_type.contains("manifest") {
        curl(&[
            "-X",
            "PUT",
            "-H",
            &kind,
            "--data-binary",
            &send,
            &format!("{there}/manifests/1.0"),
        ]);
    } else {
        let place = curl(&["-X", "POST", &format!("{there}/blobs/uploads/")]);
        let place = format!("{place}&digest={digest}");
        curl(&[
            "-X",
            "PUT",
            "-H",
            "Content-Type: application/octet-stream",
            "--data-binary",
            &send,
            &place,
        ]);
    }
    json!({"mediaType": media_type, "digest": digest, "size": content.len()})
}

/// A chart of two files; its name, and its manifest.
fn chart(manager: &Manager, sandbox: &Sandbox) -> (String, String) {
    let config = upload(manager, sandbox, TYPE, br#"{"name":"web","version":"1.0"}"#);
    let mut layers = Vec::new();
    for (name, size) in [("web-1.0.tgz", 3_000_000), ("web-1.0.tgz.prov", 10)] {
        let mut layer = upload(
            manager,
            sandbox,
            "application/vnd.cncf.helm.part",
            &vec![b'x'; size],
        );
        layer["annotations"] = json!({"org.opencontainers.image.title": name});
        layers.push(layer);
    }
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers,
        "annotations": {"org.opencontainers.image.created": "2026-01-02T03:04:05Z"},
    });
    let manifest = manifest.to_string();
    upload(manager, sandbox, manifest_type, manifest.as_bytes());
    (format!("{}/charts/web:1.0", Registry::HOST), manifest)
}

#[test]
fn a_chart_comes_is_told_about_and_goes_on() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let busybox = manager.busybox();
    let (name, manifest) = chart(&manager, &sandbox);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(manifest.as_bytes())));
    let pulled = manager.ctl(&["pull", &name]).ok();
    assert!(pulled.contains(&digest), "{pulled}");

    let table = manager.ctl(&["images"]).ok();
    let row = |of: &str| {
        table
            .lines()
            .find(|line| line.contains(of))
            .map(ToOwned::to_owned)
    };
    assert!(
        row("REPOSITORY").is_some_and(|header| header.trim_end().ends_with("TYPE")),
        "{table}"
    );
    assert!(
        row("charts/web").is_some_and(|row| row.contains(TYPE) && row.contains("MB")),
        "{table}"
    );
    assert!(
        row("busybox").is_some_and(|row| row.trim_end().ends_with("image")),
        "{table}"
    );
    let listed = json_of(
        &manager,
        &["images", "--format", "json", "--filter", "reference=*/charts/*"],
    );
    assert_eq!(listed[0]["artifactType"], TYPE);

    let found = &json_of(&manager, &["image", "inspect", &name])[0];
    let written: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(
        (&found["Id"], &found["RepoTags"]),
        (&json!(digest), &json!([name]))
    );
    assert_eq!(
        (&found["Config"], &found["Artifact"]["artifactType"]),
        (&Value::Null, &json!(TYPE))
    );
    assert_eq!(found["Artifact"]["layers"], written["layers"], "titles and all");
    assert_eq!(found["Artifact"]["config"]["mediaType"], TYPE);

    let copy = format!("{}/copies/web:2", Registry::HOST);
    manager.ctl(&["tag", &name, &copy]).ok();
    manager.ctl(&["push", &copy]).ok();
    let there = skopeo(
        &manager,
        &[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{copy}"),
        ],
    );
    assert_eq!(there, manifest);

    // A layout that others read, and that comes back as it went.
    let archive = sandbox.path().join("web.tar").display().to_string();
    manager.ctl(&["save", "-o", &archive, &name, &busybox]).ok();
    let folder = sandbox.path().join("copied");
    let from = format!("oci-archive:{archive}:1.0");
    skopeo(
        &manager,
        &["copy", "-q", &from, &format!("dir:{}", folder.display())],
    );
    assert_eq!(
        fs::read_to_string(folder.join("manifest.json")).expect("a manifest"),
        manifest
    );
    manager.ctl(&["rmi", &name, &copy, &busybox]).ok();
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
    let loaded = manager.ctl(&["load", "-i", &archive]).ok();
    assert!(loaded.contains(&name), "{loaded}");
    let again = &json_of(&manager, &["image", "inspect", &name])[0];
    assert_eq!(again["Artifact"], found["Artifact"]);
    manager
        .ctl(&["run", "--rm", "--network", "none", &busybox, "true"])
        .ok();
    let checked = json_of(&manager, &["--format", "json", "system", "check"]);
    assert_eq!(checked["checked"]["images"], 2, "{checked:#}");
}

#[test]
fn no_container_is_made_of_a_chart() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let (name, _) = chart(&manager, &sandbox);
    for is_here in [false, true] {
        if is_here {
            manager.ctl(&["pull", "-q", &name]).ok();
        }
        for command in ["run", "create"] {
            let error = manager.ctl(&[command, &name, "true"]).refused();
            assert!(
                error.contains(TYPE) && error.contains("not a container image"),
                "{error}"
            );
        }
        let listed = manager.ctl(&["images", "-q"]).ok();
        assert_eq!(
            listed.lines().count(),
            usize::from(is_here),
            "run pulls none: {listed}"
        );
    }

    // Without a name it is waste, like an image.
    let id = manager.ctl(&["images", "-q", "--no-trunc"]).ok();
    let blobs = || {
        fs::read_dir(manager.root().join("images/blobs/sha256"))
            .expect("blobs")
            .count()
    };
    assert_eq!(blobs(), 4, "manifest, config and two files");
    let layer = Command::new("find")
        .arg(manager.root())
        .args(["-size", "3000000c"])
        .output();
    assert!(!layer.expect("find").stdout.is_empty(), "kept as it came");
    manager.ctl(&["lease", "create", "--id", "mine", &name]).ok();
    let pruned = manager.ctl(&["image", "prune", "--all", "--force"]).ok();
    assert!(!pruned.contains("sha256:"), "a lease holds it: {pruned}");
    manager.ctl(&["lease", "rm", "mine"]).ok();
    let pruned = manager.ctl(&["image", "prune", "--all", "--force"]).ok();
    assert!(pruned.contains(id.trim()) && pruned.contains("3MB"), "{pruned}");
    integration::eventually("the blobs go", || (blobs() == 0).then_some(()));
}
