//! Pushes to a real registry, as other tools see them.

use integration::{Manager, Registry, Sandbox, run};
use serde_json::Value;

/// What skopeo finds under a name.
#[track_caller]
fn skopeo(manager: &Manager, args: &[&str]) -> Value {
    let mut command = manager.inside("skopeo");
    let found = run(command.args(args)).ok();
    serde_json::from_str(&found).expect("skopeo prints JSON")
}

fn digest_of(manager: &Manager, image: &str) -> String {
    let shown = manager.ctl(&["image", "inspect", image]).ok();
    let shown: Value = serde_json::from_str(&shown).expect("inspect prints JSON");
    shown[0]["manifestDigest"].as_str().expect("a digest").to_owned()
}

#[test]
fn a_pushed_image_is_what_others_find_and_comes_back_the_same() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let pulled = manager.busybox();
    let pushed = format!("{}/team/app:2", Registry::HOST);
    manager.ctl(&["tag", &pulled, &pushed]).ok();
    let digest = digest_of(&manager, &pushed);
    let said = manager.ctl(&["push", &pushed]).ok();
    assert_eq!(said, format!("Digest: {digest}\n{pushed}\n"));

    let found = skopeo(
        &manager,
        &["inspect", "--tls-verify=false", &format!("docker://{pushed}")],
    );
    assert_eq!(found["Digest"], digest.as_str());
    let looked = manager.ctl(&["manifest", "inspect", &pushed]).ok();
    let looked: Value = serde_json::from_str(&looked).expect("it prints JSON");
    assert_eq!(looked["layers"][0]["digest"], found["Layers"][0]);
    let searched = manager.ctl(&["search", &format!("{}/app", Registry::HOST)]).ok();
    assert!(searched.contains("team/app"), "{searched}");

    manager.ctl(&["rmi", &pulled, &pushed]).ok();
    manager.ctl(&["pull", &pushed]).ok();
    assert_eq!(digest_of(&manager, &pushed), digest);
    let ran = manager
        .ctl(&["run", "--rm", "--network", "none", &pushed, "echo", "back"])
        .ok();
    assert_eq!(ran, "back\n");
}

#[test]
fn what_a_container_wrote_is_pushed_and_pulled_as_one_more_layer() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let base = manager.busybox();
    manager
        .ctl(&["run", "--name", "writer", &base, "sh", "-c", "echo new > /word"])
        .ok();
    let committed = format!("{}/committed:1", Registry::HOST);
    manager.ctl(&["commit", "writer", &committed]).ok();
    manager.ctl(&["rm", "writer"]).ok();
    manager.ctl(&["push", &committed]).ok();
    let found = skopeo(
        &manager,
        &["inspect", "--tls-verify=false", &format!("docker://{committed}")],
    );
    assert_eq!(found["Layers"].as_array().map(Vec::len), Some(2));
    manager.ctl(&["rmi", &committed]).ok();
    let ran = manager
        .ctl(&["run", "--rm", "--network", "none", &committed, "cat", "/word"])
        .ok();
    assert_eq!(ran, "new\n");
}
