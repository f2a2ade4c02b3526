//! `--mount type=image`: the files of an image in a container of another one.

use integration::{Image, Layer, Manager, Sandbox};
use std::fs;

/// What `sh -c script` prints in a new container.
#[track_caller]
fn sh(manager: &Manager, flags: &[&str], image: &str, script: &str) -> String {
    let args = [&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat();
    manager.ctl(&args).ok()
}

/// An image whose upper layer takes a file away and changes one, and has links that lead out of a part of it.
fn tools(manager: &Manager) -> String {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, target) in [
        ("opt/absolute", "/data"),
        ("opt/up", "../data/own"),
        ("opt/out", "/etc/hostname"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        builder
            .append_link(&mut header, path, target)
            .expect("add to the layer");
    }
    let links = Layer::from_tar(&builder.into_inner().expect("finish the layer"));
    let image = Image::new(vec![
        Layer::from_files(&[
            ("data/kept", "kept\n"),
            ("data/gone", "gone\n"),
            ("data/own", "own\n"),
        ]),
        Layer::from_files(&[("data/.wh.gone", ""), ("data/own", "changed\n")]),
        links,
    ]);
    let reference = manager.registry().push(&image, "tools:1");
    manager.ctl(&["pull", &reference]).ok();
    reference
}

/// An image of more layers than the options of a mount have place for.
fn tall(manager: &Manager) -> String {
    let layer =
        |number: u32| Layer::from_files(&[("number", &number.to_string()), (&format!("of/{number}"), "")]);
    let reference = manager
        .registry()
        .push(&Image::new((0..120).map(layer).collect()), "tall:1");
    manager.ctl(&["pull", &reference]).ok();
    reference
}

/// How many mount points the manager has for what containers are about to see.
fn parts(manager: &Manager) -> usize {
    fs::read_dir(manager.state().join("parts")).map_or(0, Iterator::count)
}

fn assert_images_are_seen(manager: &Manager) {
    let (image, tools) = (manager.busybox(), tools(manager));
    let mount = |more: &str| format!("--mount=type=image,source={tools},target=/tools{more}");
    let look = "cd /tools; ls; cat data/*; ls data";
    assert_eq!(
        sh(manager, &[&mount("")], &image, look),
        "data\nopt\nkept\nchanged\nkept\nown\n"
    );
    let tall = format!("--mount=type=image,source={},target=/tall", tall(manager));
    let said = sh(manager, &[&tall], &image, "cat /tall/number; ls /tall/of | wc -l");
    assert_eq!(said, "119120\n");
    for asked in ["", ",readonly=false"] {
        let script = "touch /tools/new /tools/data/own 2>&1; rm /tools/data/own 2>&1; mount -o remount,rw /tools 2>&1; true";
        let said = sh(manager, &[&mount(asked)], &image, script);
        assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
    }
    // The same image twice, and its own.
    let twice = format!("type=image,src={tools},dst=/again,image-subpath=data");
    let own = format!("type=image,src={image},dst=/own");
    let said = sh(
        manager,
        &[&mount(""), "--mount", &twice, "--mount", &own],
        &image,
        "cat /again/kept /tools/data/kept; cmp /own/bin/busybox /bin/busybox && echo same",
    );
    assert_eq!(said, "kept\nkept\nsame\n");
    // Links lead where they would in a container of that image.
    assert_eq!(
        sh(
            manager,
            &[&mount(",image-subpath=opt/absolute")],
            &image,
            "cat /tools/own"
        ),
        "changed\n"
    );
    assert_eq!(
        sh(manager, &[&mount(",image-subpath=opt/up")], &image, "cat /tools"),
        "changed\n"
    );
    for (more, words) in [
        (",image-subpath=opt/out", "opt/out"),
        (",image-subpath=data/gone", "data/gone"),
        (",image-subpath=../data", "../data"),
        (",image-subpath=/data", "/data"),
    ] {
        let refused = manager
            .ctl(&["run", "--rm", &mount(more), &image, "true"])
            .refused();
        assert!(refused.contains(words), "{refused}");
    }
    let absent = "--mount=type=image,source=absent:1,target=/tools";
    let refused = manager.ctl(&["create", absent, &image, "true"]).refused();
    assert!(
        refused.contains("absent:1") && refused.contains("managerctl pull absent:1"),
        "{refused}"
    );
    let bare = manager.registry().push(&Image::new(Vec::new()), "bare:1");
    manager.ctl(&["pull", &bare]).ok();
    let nothing = format!("--mount=type=image,source={bare},target=/tools");
    let refused = manager.ctl(&["create", &nothing, &image, "true"]).refused();
    assert!(refused.contains("no layers"), "{refused}");
    assert_eq!(parts(manager), 0);
    assert_eq!(manager.ctl(&["ps", "-aq"]).ok(), "");
}

#[test]
fn a_container_sees_the_files_of_an_image_and_changes_none() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    assert_images_are_seen(&manager);
}

#[test]
fn the_same_of_layers_that_are_images() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_keeping(&sandbox, "auto");
    assert_images_are_seen(&manager);
}

#[test]
fn a_mounted_image_is_held_through_the_ends_of_container_and_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start_keeping(&sandbox, "auto");
    let (image, tools) = (manager.busybox(), tools(&manager));
    let mount = format!("--mount=type=image,source={tools},target=/tools,image-subpath=data");
    let run = ["run", "-d", "--name", "one", &mount, &image, "sleep", "1000"];
    manager.ctl(&run).ok();
    manager
        .ctl(&[
            "create",
            "--name",
            "other",
            "--volumes-from",
            "one",
            &image,
            "cat",
            "/tools/own",
        ])
        .ok();
    let told = manager.inspect("one");
    assert_eq!(
        (&told["mounts"][0]["type"], &told["mounts"][0]["source"]),
        (&"image".into(), &tools.as_str().into()),
        "{told}"
    );
    assert_eq!(told["mounts"][0]["readOnly"], true, "{told}");

    let seen = |manager: &Manager| manager.ctl(&["exec", "one", "cat", "/tools/own"]).ok();
    manager.kill();
    manager.start_again();
    assert_eq!(seen(&manager), "changed\n");
    let refused = manager.ctl(&["rmi", &tools]).refused();
    assert!(refused.contains("container "), "{refused}");
    manager.ctl(&["image", "prune", "-af"]).ok();
    // By force only its name goes.
    manager.ctl(&["rmi", "-f", &tools]).ok();
    manager.ctl(&["image", "prune", "-af"]).ok();
    manager.ctl(&["restart", "-t", "0", "one"]).ok();
    assert_eq!(seen(&manager), "changed\n");

    // One that dies in the middle of a start leaves nothing mounted.
    manager.ctl(&["kill", "one"]).ok();
    manager.ctl(&["wait", "one"]).ok();
    manager.kill();
    manager.set_failpoint(Some("start.volumes-ready"));
    manager.start_again();
    manager.ctl(&["start", "one"]).refused();
    manager.await_end();
    assert!(parts(&manager) > 0);
    manager.set_failpoint(None);
    manager.start_again();
    assert_eq!(parts(&manager), 0);
    manager.ctl(&["start", "one"]).ok();
    assert_eq!(seen(&manager), "changed\n");

    manager.ctl(&["rm", "-f", "one"]).ok();
    // The other one holds it still.
    manager.ctl(&["image", "prune", "-af"]).ok();
    assert_eq!(manager.ctl(&["start", "-a", "other"]).ok(), "changed\n");
    manager.ctl(&["rm", "other"]).ok();
    manager.ctl(&["image", "prune", "-af"]).ok();
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");

    // Nor does one hold it that was never made.
    for reference in [&image, &tools] {
        manager.ctl(&["pull", reference]).ok();
    }
    manager.kill();
    manager.set_failpoint(Some("lease.recorded"));
    manager.start_again();
    manager.ctl(&["create", &mount, &image, "true"]).refused();
    manager.await_end();
    manager.set_failpoint(None);
    manager.start_again();
    manager.ctl(&["rmi", &tools, &image]).ok();
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
}

#[test]
fn a_container_of_other_ids_sees_the_owners_that_the_image_has() {
    let sandbox = Sandbox::new();
    let ids = "dockremap:3000000:65536\n";
    let manager = Manager::start_with_ids(&sandbox, ids, &["--userns-remap", "default"]);
    let (image, tools) = (manager.busybox(), tools(&manager));
    let tall = format!("--mount=type=image,source={},target=/tall", tall(&manager));
    assert_eq!(
        sh(&manager, &[&tall], &image, "cat /tall/number; stat -c %u /tall"),
        "1190\n"
    );
    for more in ["", ",image-subpath=data"] {
        let mount = format!("--mount=type=image,source={tools},target=/tools{more}");
        let script = "stat -c %u:%g /tools; touch /tools/new 2>&1; find /tools -name own -exec cat {} +";
        let said = sh(&manager, &[&mount], &image, script);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!((lines[0], lines[2]), ("0:0", "changed"), "{said}");
        assert!(lines[1].contains("Read-only"), "{said}");
    }
}
