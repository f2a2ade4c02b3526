//! Volumes, when the manager dies between a row and its folder, or in the middle of a copy.

use crate::failpoints::Point;
use crate::{assert_no_strays, entries};
use integration::{Image, Layer, Manager, Sandbox};
use std::fs;

pub(crate) const CREATE_VOLUME: &[Point] = &[
    ("store.before-commit", false),
    ("store.after-commit", true),
    ("volume.recorded", true),
    ("volume.made", true),
];
pub(crate) const REMOVE_VOLUME: &[Point] = &[
    ("store.before-commit", false),
    ("store.after-commit", true),
    ("volume.marked", true),
    ("volume.moved", true),
    ("volume.forgotten", true),
];
/// Of a container with volumes: whether it is there.
pub(crate) const CREATE_WITH: &[Point] = &[("create.volumes-recorded", true), ("create.recorded", true)];
/// Until then, the copy is nothing; afterwards it is whole.
pub(crate) const COPY_UP: &[Point] = &[
    ("volume.mounted", false),
    ("copy-up.copied", false),
    ("copy-up.whole", true),
    ("copy-up.moved", true),
    ("start.volumes-ready", true),
];

fn names(manager: &Manager) -> String {
    manager.ctl(&["volume", "ls", "-q"]).ok()
}

#[test]
fn a_volume_is_there_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    for (point, on_record) in CREATE_VOLUME {
        println!("{point}");
        manager.die_at(point, |manager| {
            manager.ctl(&["volume", "create", "data"]).refused();
        });
        assert_no_strays(&manager);
        assert_eq!(names(&manager), if *on_record { "data\n" } else { "" });
        manager.ctl(&["volume", "create", "data"]).ok();
        manager.ctl(&["volume", "rm", "data"]).ok();
    }
    for (point, is_gone) in REMOVE_VOLUME {
        println!("{point}");
        manager.ctl(&["volume", "create", "data"]).ok();
        let file = manager.root().join("volumes/data/_data/file");
        fs::write(&file, "x").expect("write into the volume");
        manager.die_at(point, |manager| {
            manager.ctl(&["volume", "rm", "data"]).refused();
        });
        assert_no_strays(&manager);
        assert_eq!((names(&manager).is_empty(), !file.exists()), (*is_gone, *is_gone));
    }
}

#[test]
fn volumes_are_on_record_with_the_container_that_uses_them() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (point, _) in CREATE_WITH {
        println!("{point}");
        let create = [
            "create",
            "--name",
            "one",
            "-v",
            "data:/data",
            "-v",
            "/own",
            &image,
            "true",
        ];
        manager.die_at(point, |manager| {
            manager.ctl(&create).refused();
        });
        assert_no_strays(&manager);
        assert_eq!(names(&manager).lines().count(), 2);
        manager.ctl(&["start", "-a", "one"]).ok();
        // The anonymous one goes in the transaction that removes the container.
        manager.die_at("remove.recorded", |manager| {
            manager.ctl(&["rm", "-v", "one"]).refused();
        });
        assert_no_strays(&manager);
        assert_eq!(names(&manager), "data\n");
        manager.ctl(&["volume", "rm", "data"]).ok();
    }
}

#[test]
fn half_of_a_copy_is_never_used() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = Image::busybox().with_layer(Layer::from_files(&[("srv/a", "1"), ("srv/b/c", "2")]));
    let image = manager.registry().push(&image, "furnished:1");
    manager.ctl(&["pull", &image]).ok();
    for (point, is_whole) in COPY_UP {
        println!("{point}");
        manager
            .ctl(&[
                "create",
                "--name",
                "one",
                "-v",
                "data:/srv",
                &image,
                "find",
                "/srv",
                "-type",
                "f",
            ])
            .ok();
        manager.die_at(point, |manager| {
            manager.ctl(&["start", "one"]).refused();
        });
        assert_no_strays(&manager);
        let folder = manager.root().join("volumes/data");
        assert_eq!(entries(&folder).into_iter().collect::<Vec<_>>(), ["_data"]);
        let expected = if *is_whole { 2 } else { 0 };
        assert_eq!(entries(&folder.join("_data")).len(), expected);
        let mut found: Vec<_> = manager
            .ctl(&["start", "-a", "one"])
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        found.sort();
        assert_eq!(found, ["/srv/a", "/srv/b/c"]);
        manager.ctl(&["rm", "one"]).ok();
        manager.ctl(&["volume", "rm", "data"]).ok();
    }
}
