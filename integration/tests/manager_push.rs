//! Images from here to a registry, and what registries tell without a pull, by `managerctl`.

use integration::{Manager, Registry, Sandbox, run};
use serde_json::Value;

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
