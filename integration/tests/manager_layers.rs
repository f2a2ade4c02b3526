//! Layers that are EROFS images: containers live on them as on folders, and a store may have both.

use integration::{Image, Layer, Manager, Sandbox, binary, run};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A manager that keeps layers as images, or why this kernel has none.
fn started(sandbox: &Sandbox) -> Option<Manager> {
    let store = sandbox.path().join("probe");
    let config = image::Config {
        layers: image::Layers::Erofs,
        ..image::Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let opened = runtime
        .expect("a runtime")
        .block_on(image::Images::open_with(&store, config));
    match opened {
        Ok(_) => Some(Manager::start_keeping(sandbox, "erofs")),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// An image with two more layers, the second of which changes what is in the first.
fn with_changes(base: Image) -> Image {
    let files = Layer::from_files(&[("data/kept", "kept"), ("data/gone", "gone"), ("data/own", "own")]);
    let changes = Layer::from_files(&[("data/.wh.gone", ""), ("data/own", "changed")]);
    base.with_layer(files).with_layer(changes)
}

/// The layers that are files, and those that are folders; the empty one left out.
fn layers(manager: &Manager) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let all = fs::read_dir(manager.root().join("images/s")).expect("list the layers");
    all.map(|layer| layer.expect("list the layers").path())
        .filter(|layer| !layer.ends_with("0"))
        .partition(|layer| layer.is_file())
}

#[test]
fn a_container_lives_on_images_as_on_folders() {
    let sandbox = Sandbox::new();
    let Some(mut manager) = started(&sandbox) else {
        return;
    };
    let image = with_changes(Image::busybox());
    let reference = manager.registry().push(&image, "layers:1");
    manager.ctl(&["pull", &reference]).ok();
    let (images, folders) = layers(&manager);
    assert_eq!((images.len(), folders.len()), (3, 0));
    for image in &images {
        run(Command::new("fsck.erofs").arg("--extract").arg(image)).ok();
    }
    manager
        .ctl(&["run", "-d", "--name", "one", &reference, "sleep", "1000"])
        .ok();
    let said = |manager: &Manager, script: &str| manager.ctl(&["exec", "one", "sh", "-c", script]).ok();
    assert_eq!(said(&manager, "cd /data; cat *; ls"), "keptchangedkept\nown\n");
    // A file keeps its number when it is copied up, and is on the one file system of all others.
    let look = "stat -c %d:%i /data/kept /data /bin/busybox";
    let before = said(&manager, look);
    assert_eq!(
        said(&manager, &format!("echo more >> /data/kept; {look}")),
        before
    );
    said(&manager, "rm /data/own; mkdir /new; mv /data/kept /new/moved");
    assert_eq!(
        manager.ctl(&["diff", "one"]).ok(),
        "C /data\nD /data/kept\nD /data/own\nA /new\nA /new/moved\n"
    );

    manager.kill();
    manager.start_again();
    assert_eq!(said(&manager, "cat /new/moved"), "keptmore\n");
    manager.ctl(&["commit", "one", "two:1"]).ok();
    let committed = ["run", "--rm", "two:1", "sh", "-c", "ls /data; cat /new/moved"];
    assert_eq!(manager.ctl(&committed).ok(), "keptmore\n");
    let checked = manager.ctl(&["system", "check"]);
    assert_eq!(checked.code, 0, "{checked:?}");

    manager.ctl(&["rmi", &reference]).refused();
    manager.ctl(&["rm", "-f", "one"]).ok();
    manager.ctl(&["rmi", &reference, "two:1"]).ok();
    assert_eq!(layers(&manager), (Vec::new(), Vec::new()));
}

#[test]
fn a_store_may_have_layers_of_both_forms() {
    let sandbox = Sandbox::new();
    let Some(mut manager) = started(&sandbox) else {
        return;
    };
    let base = Image::busybox();
    let first = manager.registry().push(&base, "base:1");
    let second = manager.registry().push(&with_changes(base), "layers:1");
    manager.ctl(&["pull", &first]).ok();
    manager.stop();
    manager.set_layers("folders");
    manager.start_again();
    manager.ctl(&["pull", &second]).ok();
    let (images, folders) = layers(&manager);
    assert_eq!((images.len(), folders.len()), (1, 2));
    assert_eq!(
        manager.ctl(&["run", "--rm", &first, "echo", "image"]).ok(),
        "image\n"
    );
    let script = "cd /data; cat *; stat -c %d / kept /bin/busybox | sort -u | wc -l";
    assert_eq!(
        manager.ctl(&["run", "--rm", &second, "sh", "-c", script]).ok(),
        "keptchanged1\n"
    );
}

#[test]
fn an_unknown_form_is_refused() {
    let sandbox = Sandbox::new();
    let mut command = Command::new(binary("manager"));
    command
        .args(["--layers", "squashfs", "--root"])
        .arg(sandbox.path());
    let done = run(&mut command);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("folders, erofs or auto"), "{}", done.stderr);
}
