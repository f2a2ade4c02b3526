//! `save`, `load` and `import`: archives that other tools read, archives and images that other tools made (`foreign`),
//! and archives that somebody made to do harm (`hostile`).

mod archive;
mod foreign;
mod hostile;

use archive::{Archive, Content, load};
use integration::{Image, Layer, Manager, Registry, Sandbox, eventually, finish, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Two layers, so that the upper one can need the lower.
fn image(word: &str) -> Image {
    Image::busybox().with_layer(Layer::from_files(&[("data/word", word)]))
}

#[track_caller]
fn skopeo(arguments: &[&str]) -> String {
    run(Command::new("skopeo").arg("--insecure-policy").args(arguments)).ok()
}

fn path_in(sandbox: &Sandbox, name: &str) -> String {
    sandbox.path().join(name).to_str().expect("a path").to_owned()
}

/// The name of an image that is here, and an archive of it.
#[track_caller]
fn saved(manager: &Manager, sandbox: &Sandbox) -> (String, String) {
    let name = manager.registry().push(&image("one"), "one:1");
    manager.ctl(&["pull", "-q", &name]).ok();
    let archive = path_in(sandbox, "one.tar");
    manager.ctl(&["save", "-o", &archive, &name]).ok();
    (name, archive)
}

/// What a running image says of itself.
#[track_caller]
fn word(manager: &Manager, image: &str) -> String {
    manager.ctl(&["run", "--rm", image, "cat", "/data/word"]).ok()
}

/// All that is told of an image but the registries that it was seen at, which an archive doesn't tell.
#[track_caller]
fn inspect(manager: &Manager, image: &str) -> Value {
    let shown = manager.ctl(&["inspect", "--type", "image", image]).ok();
    let mut all: Value = serde_json::from_str(&shown).expect("inspect prints JSON");
    all[0]["RepoDigests"].take();
    all[0].take()
}

/// Files and folders of the store that belong to images, or are in the making.
fn stored(manager: &Manager) -> Vec<String> {
    let images = manager.root().join("images");
    let mut found: Vec<String> = ["blobs/sha256", "blobs/sha512", "s", "tmp"]
        .iter()
        .flat_map(|folder| fs::read_dir(images.join(folder)).into_iter().flatten().flatten())
        .map(|entry| entry.path().display().to_string())
        .collect();
    found.sort();
    found
}

#[test]
fn a_saved_image_comes_back_with_the_same_digests() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let one = manager.registry().push(&image("one"), "group/one:1");
    let two = manager.registry().push(&image("two"), "two:latest");
    for name in [&one, &two] {
        manager.ctl(&["pull", "-q", name]).ok();
    }
    let before = [inspect(&manager, &one), inspect(&manager, &two)];
    let archive = path_in(&sandbox, "both.tar");
    manager.ctl(&["save", "-o", &archive, &one, &two]).ok();
    let again = path_in(&sandbox, "again.tar");
    manager.ctl(&["save", "-o", &again, &one, &two]).ok();
    assert_eq!(
        fs::read(&archive).unwrap(),
        fs::read(&again).unwrap(),
        "the same images, the same archive"
    );

    manager.ctl(&["rmi", &one, &two]).ok();
    let empty = stored(&manager);
    for (suffix, program) in [
        ("", "cat"),
        (".gz", "gzip -c"),
        (".zst", "zstd -qc"),
        (".xz", "xz -9c"),
        (".bz2", "bzip2 -c"),
    ] {
        let packed = format!("{archive}{suffix}.packed");
        run(Command::new("sh")
            .arg("-c")
            .arg(format!("{program} < {archive} > {packed}")))
        .ok();
        let said = manager.ctl(&["load", "-i", &packed]).ok();
        assert_eq!(said, format!("Loaded image: {one}\nLoaded image: {two}\n"));
        assert_eq!(word(&manager, &one), "one");
        assert_eq!(word(&manager, &two), "two");
        assert_eq!([inspect(&manager, &one), inspect(&manager, &two)], before);
        // The registry has it as this name's image is here: nothing to fetch.
        manager.ctl(&["pull", "-q", &one]).ok();
        manager.ctl(&["rmi", &one, &two]).ok();
        assert_eq!(stored(&manager), empty);
    }
}

#[test]
fn an_image_without_a_name_goes_by_its_id() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let name = manager.registry().push(&image("one"), "one:1");
    manager.ctl(&["pull", "-q", &name]).ok();
    let id = inspect(&manager, &name)["Id"].as_str().expect("an id").to_owned();
    let archive = path_in(&sandbox, "one.tar");
    manager.ctl(&["save", "-o", &archive, &id]).ok();
    manager.ctl(&["rmi", &name]).ok();
    // From stdin, as in a pipe.
    let input = fs::File::open(&archive).expect("open the archive");
    let mut command = manager.ctl_command(&["load"]);
    let client = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let said = finish(client.expect("start managerctl"), "managerctl load".into()).ok();
    assert_eq!(said, format!("Loaded image ID: {id}\n"));
    assert_eq!(word(&manager, &id), "one");
    manager.ctl(&["load", "-q", "-i", &archive]).ok();
}

#[test]
fn skopeo_and_umoci_read_what_is_saved() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let (name, archive) = saved(&manager, &sandbox);
    let known = inspect(&manager, &name);

    let raw = skopeo(&["inspect", "--raw", &format!("oci-archive:{archive}:1")]);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(raw.as_bytes())));
    assert_eq!(digest, known["Descriptor"]["digest"].as_str().expect("a digest"));
    let config = skopeo(&[
        "inspect",
        "--config",
        "--raw",
        &format!("docker-archive:{archive}:{name}"),
    ]);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(config.as_bytes())));
    assert_eq!(digest, known["Id"].as_str().expect("an id"));
    // With all layers, in both forms.
    for source in [
        format!("oci-archive:{archive}"),
        format!("docker-archive:{archive}"),
    ] {
        let copy = path_in(&sandbox, "copy");
        skopeo(&["copy", "-q", &source, &format!("dir:{copy}")]);
        fs::remove_dir_all(copy).expect("remove the copy");
    }

    let layout = path_in(&sandbox, "layout");
    fs::create_dir(&layout).expect("make a folder");
    run(Command::new("tar").args(["-xf", &archive, "-C", &layout])).ok();
    let listed = run(Command::new("umoci").args(["ls", "--layout", &layout])).ok();
    assert_eq!(listed, "1\n");
    let bundle = path_in(&sandbox, "bundle");
    run(Command::new("umoci").args(["unpack", "--image", &format!("{layout}:1"), &bundle])).ok();
    assert_eq!(
        fs::read_to_string(format!("{bundle}/rootfs/data/word")).unwrap(),
        "one"
    );
}

#[test]
fn archives_of_skopeos_are_loaded_under_their_names() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let layout = path_in(&sandbox, "layout");
    image("one").write_layout(Path::new(&layout));
    let source = format!("oci:{layout}:image");
    for (kind, name) in [
        ("oci-archive", "quay.io/a/oci:1"),
        ("docker-archive", "quay.io/a/docker:1"),
    ] {
        let archive = path_in(&sandbox, &format!("{kind}.tar"));
        skopeo(&["copy", "-q", &source, &format!("{kind}:{archive}:{name}")]);
        assert_eq!(
            manager.ctl(&["load", "-i", &archive]).ok(),
            format!("Loaded image: {name}\n")
        );
        assert_eq!(word(&manager, name), "one");
        // What was loaded can be saved again, and is still what it was.
        let again = path_in(&sandbox, &format!("{kind}-again.tar"));
        manager.ctl(&["save", "-o", &again, name]).ok();
        let id = inspect(&manager, name)["Id"].clone();
        manager.ctl(&["rmi", name]).ok();
        manager.ctl(&["load", "-i", &again]).ok();
        assert_eq!(inspect(&manager, name)["Id"], id);
    }
}

#[test]
fn files_may_come_in_any_order_and_through_links() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let mut archive = Archive::layout(&sandbox, &image("one"));
    archive.0.reverse();
    let said = load(&manager, &sandbox, &archive).ok();
    let id = said
        .trim()
        .strip_prefix("Loaded image ID: ")
        .expect("an id")
        .to_owned();
    assert_eq!(word(&manager, &id), "one");
    manager.ctl(&["rmi", &id]).ok();

    // Docker wrote equal layers once, and links to them.
    let mut archive = archive.docker();
    let layer = archive.file("1/layer.tar").to_vec();
    archive.set("shared/layer.tar", layer);
    archive.0.retain(|(name, _)| name != "1/layer.tar");
    archive.add("1/layer.tar", Content::Symlink("../shared/layer.tar".into()));
    archive.0.reverse();
    let said = load(&manager, &sandbox, &archive).ok();
    assert_eq!(
        said,
        "Loaded image: docker.io/library/box:1\nLoaded image: docker.io/library/box:2\n"
    );
    assert_eq!(word(&manager, "box:2"), "one");
    assert_eq!(inspect(&manager, "box:1")["Id"], id.as_str());
}

#[test]
fn archives_from_before_docker_1_10_are_loaded() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let modern = Archive::layout(&sandbox, &image("old")).docker();
    let mut archive = Archive(Vec::new());
    let (base, top) = ("b".repeat(64), "a".repeat(64));
    for (id, number, more) in [
        (&base, 0, json!({})),
        (
            &top,
            1,
            json!({"parent": base, "config": {"Cmd": ["cat", "/data/word"], "Env": ["PATH=/bin"]}}),
        ),
    ] {
        let mut step =
            json!({"id": id, "created": "2014-01-02T03:04:05Z", "architecture": "amd64", "os": "linux"});
        step.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        archive.set(&format!("{id}/VERSION"), "1.0");
        archive.set(&format!("{id}/json"), step.to_string());
        archive.set(
            &format!("{id}/layer.tar"),
            modern.file(&format!("{number}/layer.tar")),
        );
    }
    archive.set("repositories", json!({"box": {"old": top}}).to_string());
    let said = load(&manager, &sandbox, &archive).ok();
    assert_eq!(said, "Loaded image: docker.io/library/box:old\n");
    assert_eq!(manager.ctl(&["run", "--rm", "box:old"]).ok(), "old");
}

#[test]
fn what_cannot_be_saved_leaves_no_file() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let archive = path_in(&sandbox, "none.tar");
    let error = manager.ctl(&["save", "-o", &archive, "no-such-image"]).refused();
    assert!(error.contains("no such image"), "{error}");
    let name = manager.registry().push(&image("one"), "one:1");
    manager.ctl(&["pull", "-q", &name]).ok();
    // Bytes that have changed on this disk do not travel on.
    let layer = inspect(&manager, &name);
    assert!(layer["Descriptor"]["digest"].is_string(), "{layer}");
    let blobs = manager.root().join("images/blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .flatten()
        .max_by_key(|entry| entry.metadata().unwrap().len());
    let path = largest.expect("a blob").path();
    let mut content = fs::read(&path).unwrap();
    content[100] ^= 1;
    fs::write(&path, content).unwrap();
    let error = manager.ctl(&["save", "-o", &archive, &name]).refused();
    assert!(error.contains("the content's digest is"), "{error}");
    let left = fs::read_dir(sandbox.path()).unwrap().flatten();
    let left: Vec<_> = left
        .filter(|entry| entry.file_name().to_string_lossy().contains(".tar"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn archives_go_through_the_manager_and_not_into_its_memory() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let name = manager.busybox();
    let fill = "dd if=/dev/urandom of=/heavy bs=1M count=64 2>/dev/null";
    manager
        .ctl(&["run", "--name", "heavy", &name, "sh", "-c", fill])
        .ok();
    let (rootfs, saved) = (path_in(&sandbox, "rootfs.tar"), path_in(&sandbox, "saved.tar"));
    for arguments in [
        &["export", "-o", &rootfs, "heavy"][..],
        &["commit", "heavy", "made:1"],
        &["save", "-o", &saved, "made:1"],
        &["rmi", "made:1"],
        &["load", "-i", &saved],
        &["import", &rootfs, "made:2"],
    ] {
        let (_, peak) = manager.peak_bytes(|| manager.ctl(arguments).ok());
        println!("{}: {} MiB", arguments[0], peak >> 20);
        assert!(peak < 56 << 20, "{} took {} MiB", arguments[0], peak >> 20);
    }
}

#[test]
fn an_interrupted_save_leaves_no_file() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let name = manager.busybox();
    let archive = path_in(&sandbox, "never.tar");
    let parts = || {
        let entries = fs::read_dir(sandbox.path()).expect("list the folder").flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().contains("never.tar"))
            .count()
    };
    // It answers when all is over.
    let pid = Pid::from_raw(manager.pid() as i32);
    kill(pid, Signal::SIGSTOP).expect("stop the manager");
    let mut command = manager.ctl_command(&["save", "-o", &archive, &name]);
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let client = client.expect("start managerctl");
    eventually("it has begun", || (parts() == 1).then_some(()));
    kill(Pid::from_raw(client.id() as i32), Signal::SIGINT).expect("interrupt managerctl");
    let done = finish(client, "managerctl save".into());
    kill(pid, Signal::SIGCONT).expect("let the manager run on");
    let error = done.refused();
    assert!(error.contains("interrupted"), "{error}");
    assert_eq!(parts(), 0);
}

#[test]
fn an_index_keeps_all_its_platforms() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let archive = Archive::of_platforms(
        &sandbox,
        &[("amd64", &image("amd64")), ("arm64", &image("arm64"))],
    );
    let said = load(&manager, &sandbox, &archive).ok();
    assert_eq!(said, "Loaded image: quay.io/a/multi:1\n");
    assert_eq!(
        word(&manager, "quay.io/a/multi:1"),
        std::env::consts::ARCH
            .replace("x86_64", "amd64")
            .replace("aarch64", "arm64")
    );

    // As a push brings it to a registry: with the digest of its publisher's index.
    let pushed = format!("{}/a/multi:1", Registry::HOST);
    manager.ctl(&["tag", "quay.io/a/multi:1", &pushed]).ok();
    let said = manager.ctl(&["push", &pushed]).ok();
    let digest = &archive.json("index.json")["manifests"][0]["digest"];
    assert_eq!(
        said,
        format!("Digest: {}\n{pushed}\n", digest.as_str().expect("a digest"))
    );
    manager.ctl(&["rmi", &pushed]).ok();

    let saved = path_in(&sandbox, "saved.tar");
    manager.ctl(&["save", "-o", &saved, "quay.io/a/multi:1"]).ok();
    let blobs = |text: String| -> Vec<String> {
        let mut names: Vec<String> = text
            .lines()
            .filter(|name| name.starts_with("blobs/sha256/"))
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    let ours = blobs(run(Command::new("tar").args(["-tf", &saved])).ok());
    let names: Vec<&str> = archive.0.iter().map(|(name, _)| name.as_str()).collect();
    let theirs = blobs(names.join("\n"));
    assert_eq!(ours, theirs);
    let index = run(Command::new("tar").args(["-xOf", &saved, "index.json"])).ok();
    let index: Value = serde_json::from_str(&index).expect("JSON");
    assert_eq!(
        index["manifests"][0]["digest"],
        archive.json("index.json")["manifests"][0]["digest"]
    );
    for architecture in ["amd64", "arm64"] {
        let config = skopeo(&[
            "inspect",
            "--override-arch",
            architecture,
            "--config",
            &format!("oci-archive:{saved}:1"),
        ]);
        let config: Value = serde_json::from_str(&config).expect("JSON");
        assert_eq!(config["architecture"], architecture);
    }

    // The other platform is as good, for who asks for it.
    manager.ctl(&["rmi", "quay.io/a/multi:1"]).ok();
    let path = archive.write(&sandbox.path().join("loaded.tar"));
    let path = path.to_str().expect("a path");
    manager
        .ctl(&["load", "--platform", "linux/arm64", "-i", path])
        .ok();
    assert_eq!(inspect(&manager, "quay.io/a/multi:1")["Architecture"], "arm64");
    let error = manager
        .ctl(&["load", "--platform", "linux/s390x", "-i", path])
        .refused();
    assert!(
        error.contains("no image for linux/s390x") && error.contains("linux/arm64"),
        "{error}"
    );
}
