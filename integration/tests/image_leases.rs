//! Leases of clients, by managerctl: what they keep from removals, how long, and what is refused.

use integration::{Image, Layer, Manager, Sandbox, eventually};
use serde_json::{Value, json};

fn leases(manager: &Manager) -> Value {
    let listed = manager.ctl(&["lease", "ls", "--format", "json"]).ok();
    serde_json::from_str(&listed).expect("JSON")
}

#[test]
fn a_lease_keeps_its_images_until_it_is_given_back() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let busybox = manager.busybox();
    let above = Image::busybox().with_layer(Layer::from_files(&[("a", "b")]));
    let other = manager.registry().push(&above, "other:1");
    manager.ctl(&["pull", &other]).ok();
    let id = manager.ctl(&["images", "-q", "--no-trunc", &other]).ok();
    let id = id.trim();

    let lease = ["lease", "create", "--ttl", "1h", "--id", "build.1", &busybox, id];
    assert_eq!(manager.ctl(&lease).ok(), "build.1\n");
    let pruned = manager.ctl(&["image", "prune", "--all"]).ok();
    assert!(!pruned.contains("sha256:"), "{pruned}");
    let refused = manager.ctl(&["rmi", &other]);
    assert_eq!(
        (refused.code, &*refused.stderr),
        (
            1,
            &*format!("managerctl: image {other} is in use by lease build.1\n")
        )
    );
    let untagged = manager.ctl(&["rmi", "--force", &other]).ok();
    assert_eq!(untagged, format!("Untagged: {other}\n"));

    manager.kill();
    manager.start_again();
    let pruned = manager.ctl(&["image", "prune"]).ok();
    assert!(
        !pruned.contains("sha256:"),
        "it has no name, but a lease: {pruned}"
    );
    manager
        .ctl(&["run", "--rm", "--network", "none", id, "cat", "/a"])
        .ok();
    let listed = leases(&manager);
    let images = listed[0]["images"].as_array().expect("a list");
    assert_eq!((listed.as_array().map(Vec::len), images.len()), (Some(1), 2));
    assert!(images.contains(&json!({"id": id, "names": []})), "{listed:#}");
    let table = manager.ctl(&["lease", "ls"]).ok();
    let of_busybox = table.lines().find(|line| line.contains(&busybox));
    let line = of_busybox.unwrap_or_else(|| panic!("{table}"));
    assert!(line.starts_with("build.1 ") && line.contains("  in "), "{table}");

    // Renewed for one of them: the other one goes.
    manager
        .ctl(&["lease", "create", "--id", "build.1", &busybox])
        .ok();
    let pruned = manager.ctl(&["image", "prune", "--all"]).ok();
    assert!(pruned.starts_with(&format!("Deleted: {id}\n")), "{pruned}");
    let made_up = manager.ctl(&["lease", "create", &busybox]).ok();
    let removed = manager.ctl(&["lease", "rm", "build.1", "nobody", made_up.trim()]);
    assert_eq!(
        (removed.code, removed.stdout, &*removed.stderr),
        (
            1,
            format!("build.1\n{made_up}"),
            "managerctl: no such lease: nobody\n"
        )
    );
    assert_eq!(manager.ctl(&["lease", "ls", "-q"]).ok(), "");
    let pruned = manager.ctl(&["image", "prune", "--all"]).ok();
    assert!(pruned.contains("Deleted: sha256:"), "{pruned}");
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
}

#[test]
fn a_lease_runs_out_and_what_breaks_a_rule_is_refused() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let busybox = manager.busybox();
    manager.ctl(&["lease", "create", "--id", "long", &busybox]).ok();
    for (args, said) in [
        (&["--id", "long", "nobody:1"][..], "no such image: nobody:1"),
        (
            &["--id", "../x", &busybox],
            "invalid lease \"../x\": an id is letters, digits, `_`, `.` and `-`, at most 128 of them, no leading mark",
        ),
        (
            &["--id", "x", "--ttl", "8785h", &busybox],
            "invalid lease \"x\": it may last from 1 to 31622400 seconds (366 days), not 31626000",
        ),
        (
            &[&["--id", "x"][..], &[&*busybox; 101]].concat(),
            "invalid lease \"x\": it may hold 100 images, not 101",
        ),
    ] {
        let refused = manager.ctl(&[&["lease", "create"], args].concat());
        assert_eq!(
            (refused.code, &*refused.stderr),
            (1, &*format!("managerctl: {said}\n"))
        );
    }
    // What was refused has changed nothing.
    assert_eq!(manager.ctl(&["lease", "ls", "-q"]).ok(), "long\n");
    manager
        .ctl(&["lease", "create", "--id", "long", "--ttl", "1s", &busybox])
        .ok();
    eventually("the lease runs out", || {
        (leases(&manager) == json!([])).then_some(())
    });
    let ended = manager.ctl(&["lease", "rm", "long"]);
    assert_eq!(
        (ended.code, &*ended.stderr),
        (1, "managerctl: no such lease: long\n")
    );
    manager.ctl(&["rmi", &busybox]).ok();
}
