//! Images from here to a registry, and what registries tell without a pull, by `managerctl`.

use integration::{Image, Layer, Manager, Registry, Sandbox, run};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What skopeo finds under a name in the manager's network.
fn skopeo_inspect(manager: &Manager, reference: &str) -> Vec<u8> {
    let mut skopeo = manager.inside("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false"]);
    run(skopeo.arg(format!("docker://{reference}"))).ok().into_bytes()
}

#[test]
fn an_image_is_tagged_pushed_and_run_from_where_it_was_pushed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let from = manager.busybox();
    let to = format!("{}/team/box:2", Registry::HOST);
    manager.ctl(&["tag", &from, &to]).ok();
    let pushed = manager.ctl(&["push", &to]);
    let progress = pushed.stderr.clone();
    let output = pushed.ok();
    let lines: Vec<&str> = output.lines().collect();
    assert!(
        lines[0].starts_with("Digest: sha256:") && lines[1] == to,
        "{output}"
    );
    assert!(progress.contains("mounted from another repository"), "{progress}");
    assert_eq!(skopeo_inspect(&manager, &to), skopeo_inspect(&manager, &from));
    let again = manager.ctl(&["push", &to]);
    assert!(again.stderr.contains("already there"), "{}", again.stderr);
    assert_eq!(again.ok(), output, "an unchanged push tells the same");
    manager.ctl(&["rmi", "-f", &from, &to]).ok();
    assert_eq!(
        manager.ctl(&["run", "--rm", &to, "echo", "pushed"]).ok(),
        "pushed\n"
    );
}

#[test]
fn what_a_container_wrote_is_pushed_and_pulled_as_one_more_layer() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let base = manager.busybox();
    let write = ["run", "--name", "writer", &base, "sh", "-c", "echo new > /word"];
    manager.ctl(&write).ok();
    let committed = format!("{}/committed:1", Registry::HOST);
    manager.ctl(&["commit", "writer", &committed]).ok();
    manager.ctl(&["rm", "writer"]).ok();
    manager.ctl(&["push", &committed]).ok();
    let found: Value = serde_json::from_slice(&skopeo_inspect(&manager, &committed)).unwrap();
    assert_eq!(found["layers"].as_array().map(Vec::len), Some(2));
    manager.ctl(&["rmi", &committed]).ok();
    assert_eq!(
        manager.ctl(&["run", "--rm", &committed, "cat", "/word"]).ok(),
        "new\n"
    );
}

#[test]
fn a_push_that_cannot_be_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let name = manager.busybox();
    let missing = manager.ctl(&["push", "127.0.0.1:5000/none:1"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("no such image"), "{}", missing.stderr);
    manager.stop_registry();
    let failed = manager.ctl(&["push", "-q", &name]);
    assert_eq!(
        (failed.code, failed.stderr.lines().count()),
        (1, 1),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("127.0.0.1:5000"), "{}", failed.stderr);
}

#[test]
fn registries_are_searched_and_their_manifests_shown() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let name = manager.busybox();
    let table = manager.ctl(&["search", &format!("{}/busy", Registry::HOST)]).ok();
    assert!(
        table.starts_with("NAME") && table.contains("127.0.0.1:5000/busybox"),
        "{table}"
    );
    let none = manager
        .ctl(&["--format", "json", "search", &format!("{}/none", Registry::HOST)])
        .ok();
    assert_eq!(
        serde_json::from_str::<Value>(&none).unwrap(),
        Value::Array(Vec::new())
    );
    let raw = manager.ctl(&["manifest", "inspect", "--raw", &name]).ok();
    assert_eq!(raw.as_bytes(), skopeo_inspect(&manager, &name));
    let shown: Value = serde_json::from_str(&manager.ctl(&["manifest", "inspect", &name]).ok()).unwrap();
    assert_eq!(shown, serde_json::from_str::<Value>(&raw).unwrap());
    let with = manager.ctl(&["manifest", "inspect", "--referrers", &name]).ok();
    let with: Value = serde_json::from_str(&with).unwrap();
    assert_eq!(with["manifest"], shown);
    assert_eq!(with["referrers"], Value::Array(Vec::new()));
    assert!(
        manager.ctl(&["images", "-q"]).ok().lines().count() == 1,
        "looking pulls nothing"
    );
}

#[test]
fn all_tags_of_a_repository_are_pushed_at_once() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let from = manager.busybox();
    let repository = format!("{}/team/box", Registry::HOST);
    for name in ["team/box:1", "team/box:2", "team/boxes:1"] {
        manager
            .ctl(&["tag", &from, &format!("{}/{name}", Registry::HOST)])
            .ok();
    }
    let output = manager.ctl(&["push", "--all-tags", &repository]).ok();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        (lines.len(), lines[1], lines[3]),
        (
            4,
            format!("{repository}:1").as_str(),
            format!("{repository}:2").as_str()
        ),
        "{output}"
    );
    for tag in ["1", "2"] {
        let there = skopeo_inspect(&manager, &format!("{repository}:{tag}"));
        assert_eq!(there, skopeo_inspect(&manager, &from));
    }
    let other = format!("{}/team/boxes:1", Registry::HOST);
    assert_eq!(manager.ctl(&["manifest", "inspect", &other]).code, 1);
    let refused = manager.ctl(&["push", "-a", &format!("{repository}:1")]);
    assert!(
        refused.code == 1 && refused.stderr.contains("all tags"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_pull_tells_the_end_of_each_layer_and_what_was_asked_for() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let layer = |number: usize| {
        let (name, text) = (format!("file{number}"), number.to_string());
        Layer::from_files(&[(&name, &text)])
    };
    let image = Image::new((0..100).map(layer).collect());
    let name = manager.registry().push(&image, "many:1");
    let other = manager.registry().push(&image, "again/many:1");
    for (reference, end) in [(&name, ": done"), (&other, ": already here")] {
        let pulled = manager.ctl(&["pull", reference]);
        let ended = pulled.stderr.lines().filter(|line| line.contains(end)).count();
        assert_eq!(ended, 100, "{}", pulled.stderr);
        let digest = Sha256::digest(skopeo_inspect(&manager, reference));
        let told = format!("Digest: sha256:{}\n{reference}\n", hex::encode(digest));
        assert_eq!(pulled.ok(), told);
    }
}
