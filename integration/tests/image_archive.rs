//! `save` and `load`: archives that other tools read, archives that other tools wrote, and archives that somebody
//! made to do harm.

use integration::{Done, Image, Layer, Manager, Sandbox, eventually, finish, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
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

/// What a running image says of itself.
#[track_caller]
fn word(manager: &Manager, image: &str) -> String {
    manager.ctl(&["run", "--rm", image, "cat", "/data/word"]).ok()
}

#[track_caller]
fn inspect(manager: &Manager, image: &str) -> Value {
    let shown = manager.ctl(&["inspect", "--type", "image", image]).ok();
    let mut all: Value = serde_json::from_str(&shown).expect("inspect prints JSON");
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
    for (suffix, program) in [("", "cat"), (".gz", "gzip -c"), (".zst", "zstd -qc")] {
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
    let id = inspect(&manager, &name)["id"].as_str().expect("an id").to_owned();
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
    let name = manager.registry().push(&image("one"), "one:1");
    manager.ctl(&["pull", "-q", &name]).ok();
    let archive = path_in(&sandbox, "one.tar");
    manager.ctl(&["save", "-o", &archive, &name]).ok();
    let known = inspect(&manager, &name);

    let raw = skopeo(&["inspect", "--raw", &format!("oci-archive:{archive}:1")]);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(raw.as_bytes())));
    assert_eq!(digest, known["manifestDigest"].as_str().expect("a digest"));
    let config = skopeo(&[
        "inspect",
        "--config",
        "--raw",
        &format!("docker-archive:{archive}:{name}"),
    ]);
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(config.as_bytes())));
    assert_eq!(digest, known["id"].as_str().expect("an id"));
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
        let id = inspect(&manager, name)["id"].clone();
        manager.ctl(&["rmi", name]).ok();
        manager.ctl(&["load", "-i", &again]).ok();
        assert_eq!(inspect(&manager, name)["id"], id);
    }
}

/// An archive in the making: names with their contents, in their order.
#[derive(Clone)]
struct Archive(Vec<(String, Content)>);

#[derive(Clone)]
enum Content {
    File(Vec<u8>),
    Symlink(String),
    Device,
}

impl Archive {
    /// An OCI layout of an image, with index.json first.
    fn layout(sandbox: &Sandbox, image: &Image) -> Archive {
        let folder = sandbox.path().join("layout-in-the-making");
        image.write_layout(&folder);
        let mut files = Vec::new();
        for name in ["index.json", "oci-layout"] {
            files.push((
                name.to_owned(),
                Content::File(fs::read(folder.join(name)).unwrap()),
            ));
        }
        for entry in fs::read_dir(folder.join("blobs/sha256")).unwrap().flatten() {
            let name = format!("blobs/sha256/{}", entry.file_name().display());
            files.push((name, Content::File(fs::read(entry.path()).unwrap())));
        }
        fs::remove_dir_all(folder).unwrap();
        Archive(files)
    }

    fn file(&self, name: &str) -> &[u8] {
        match self.0.iter().find(|(other, _)| other == name) {
            Some((_, Content::File(content))) => content,
            _ => panic!("there is no file {name}"),
        }
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.file(name)).expect("JSON")
    }

    fn set(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.0.retain(|(other, _)| other != name);
        self.add(name, Content::File(content.into()));
    }

    fn add(&mut self, name: &str, content: Content) {
        self.0.push((name.to_owned(), content));
    }

    /// The blob that a descriptor points to.
    fn blob(descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().expect("a digest");
        format!("blobs/{}", digest.replace(':', "/"))
    }

    fn manifest(&self) -> Value {
        self.json(&Self::blob(&self.json("index.json")["manifests"][0]))
    }

    /// The same image as a docker archive, its layers plain, `<id>/layer.tar` each.
    fn docker(&self) -> Archive {
        let manifest = self.manifest();
        let config = self.file(&Self::blob(&manifest["config"]));
        let mut archive = Archive(Vec::new());
        let mut paths = Vec::new();
        for (number, layer) in manifest["layers"].as_array().expect("layers").iter().enumerate() {
            let mut tar = Vec::new();
            let mut gzip = flate2::read::GzDecoder::new(self.file(&Self::blob(layer)));
            std::io::Read::read_to_end(&mut gzip, &mut tar).expect("inflate a layer");
            archive.set(&format!("{number}/layer.tar"), tar);
            paths.push(format!("{number}/layer.tar"));
        }
        let name = format!("{}.json", hex::encode(Sha256::digest(config)));
        let items = json!([{"Config": name, "RepoTags": ["box:1", "box:2"], "Layers": paths}]);
        archive.set(&name, config);
        archive.set("manifest.json", items.to_string());
        archive
    }

    fn write(&self, path: &Path) -> PathBuf {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in &self.0 {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            let mut data: &[u8] = &[];
            match content {
                Content::File(bytes) => data = bytes,
                Content::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_link_name_literal(target).expect("a short target");
                }
                Content::Device => header.set_entry_type(tar::EntryType::Char),
            }
            header.set_size(data.len() as u64);
            // As it is: some of these names are what no honest writer has.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, data).expect("add a file");
        }
        fs::write(path, tar.into_inner().expect("end the archive")).expect("write the archive");
        path.to_owned()
    }
}

#[track_caller]
fn load(manager: &Manager, sandbox: &Sandbox, archive: &Archive) -> Done {
    let path = archive.write(&sandbox.path().join("loaded.tar"));
    manager.ctl(&["load", "-i", path.to_str().expect("a path")])
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
    assert_eq!(inspect(&manager, "box:1")["id"], id.as_str());
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
fn what_breaks_a_rule_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let before = stored(&manager);
    let good = Archive::layout(&sandbox, &image("one"));
    let docker = good.docker();
    let manifest = Archive::blob(&good.json("index.json")["manifests"][0]);
    let layer = Archive::blob(&good.manifest()["layers"][1]);
    let changed = |archive: &Archive, change: &dyn Fn(&mut Archive)| {
        let mut archive = archive.clone();
        change(&mut archive);
        archive
    };
    let with_index = |change: &dyn Fn(&mut Value)| {
        let mut index = good.json("index.json");
        change(&mut index);
        changed(&good, &|archive| archive.set("index.json", index.to_string()))
    };
    let hostile = Image::busybox().with_layer(Layer::from_tar(escaping()));
    let cases: Vec<(&str, Archive, &str)> = vec![
        (
            "no image at all",
            Archive(vec![("readme".into(), Content::File(b"x".into()))]),
            "neither an OCI image layout",
        ),
        (
            "a layer with a flipped bit",
            changed(&good, &|archive| {
                let mut content = archive.file(&layer).to_vec();
                content[20] ^= 1;
                archive.set(&layer, content);
            }),
            "the content's digest is",
        ),
        (
            "a layer that is missing",
            changed(&good, &|archive| archive.0.retain(|(name, _)| *name != layer)),
            "is not in it",
        ),
        (
            "a manifest that is missing",
            changed(&good, &|archive| archive.0.retain(|(name, _)| *name != manifest)),
            "is not in it",
        ),
        (
            "a size that is wrong",
            with_index(&|index| index["manifests"][0]["size"] = 7.into()),
            "descriptor says 7",
        ),
        (
            "a name that is none",
            with_index(&|index| {
                index["manifests"][0]["annotations"]["io.containerd.image.name"] = "NO NAME".into();
            }),
            "invalid image reference",
        ),
        (
            "a second image that is missing",
            with_index(&|index| {
                let entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 3,
                "digest": format!("sha256:{}", "0".repeat(64))});
                index["manifests"].as_array_mut().unwrap().push(entry);
            }),
            "is not in it",
        ),
        (
            "an index of nothing",
            with_index(&|index| index["manifests"] = json!([])),
            "names no image",
        ),
        (
            "a path that climbs",
            changed(&good, &|archive| archive.set("../evil", "x")),
            "leads out",
        ),
        (
            "an absolute path",
            changed(&good, &|archive| archive.set("/etc/evil", "x")),
            "absolute",
        ),
        (
            "a device",
            changed(&good, &|archive| archive.add("null", Content::Device)),
            "devices",
        ),
        (
            "one name twice",
            changed(&good, &|archive| {
                archive.add("oci-layout", Content::File(b"{}".into()));
            }),
            "twice",
        ),
        (
            "a layout of the future",
            changed(&good, &|archive| {
                archive.set("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
            }),
            "2.0.0",
        ),
        (
            "a link out",
            changed(&docker, &|archive| {
                archive.0.retain(|(name, _)| name != "1/layer.tar");
                archive.add("1/layer.tar", Content::Symlink("../../etc/passwd".into()));
            }),
            "leads out",
        ),
        (
            "links in a ring",
            changed(&docker, &|archive| {
                archive.0.retain(|(name, _)| name != "1/layer.tar");
                archive.add("1/layer.tar", Content::Symlink("layer2.tar".into()));
                archive.add("1/layer2.tar", Content::Symlink("layer.tar".into()));
            }),
            "without an end",
        ),
        (
            "layers in the wrong order",
            changed(&docker, &|archive| {
                let mut items = archive.json("manifest.json");
                items[0]["Layers"].as_array_mut().unwrap().reverse();
                archive.set("manifest.json", items.to_string());
            }),
            "unpacked layer",
        ),
        (
            "a config under another's digest",
            changed(&docker, &|archive| {
                let name = archive.json("manifest.json")[0]["Config"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                archive.set(&name, "{}");
            }),
            "the content's digest is",
        ),
        (
            "a layer that escapes",
            Archive::layout(&sandbox, &hostile),
            "`..`",
        ),
    ];
    for (what, archive, words) in cases {
        println!("{what}");
        let error = load(&manager, &sandbox, &archive).refused();
        assert!(error.contains(words), "{what}: {error}");
        assert_eq!(stored(&manager), before, "{what} left something");
    }
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");

    // Cut off, in the middle and near the end.
    let whole = fs::read(good.write(&sandbox.path().join("whole.tar"))).unwrap();
    for bytes in [700, whole.len() / 2, whole.len() - 1500] {
        let cut = path_in(&sandbox, "cut.tar");
        fs::write(&cut, &whole[..bytes]).unwrap();
        manager.ctl(&["load", "-i", &cut]).refused();
        assert_eq!(
            stored(&manager),
            before,
            "an archive of {bytes} bytes left something"
        );
    }
    load(&manager, &sandbox, &good).ok();
}

/// A layer with a file above its root.
fn escaping() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    header.as_old_mut().name[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    tar.append(&header, &b"x"[..]).expect("add a file");
    tar.into_inner().expect("end the layer")
}

#[test]
fn a_client_that_dies_leaves_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let before = stored(&manager);
    let whole =
        fs::read(Archive::layout(&sandbox, &image("one")).write(&sandbox.path().join("whole.tar"))).unwrap();
    let mut command = manager.ctl_command(&["load"]);
    let mut client = command.stdin(Stdio::piped()).spawn().expect("start managerctl");
    let mut input = client.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, &whole[..whole.len() / 2]).expect("send half");
    eventually("the half is there", || (stored(&manager) != before).then_some(()));
    client.kill().expect("kill managerctl");
    client.wait().expect("wait for managerctl");
    eventually("the half is gone", || (stored(&manager) == before).then_some(()));
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
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
    assert!(layer["manifestDigest"].is_string(), "{layer}");
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
    let proc = PathBuf::from(format!("/proc/{}", manager.pid()));
    let peak_bytes = |arguments: &[&str]| -> u64 {
        // Begin to count anew: proc_pid_clear_refs(5).
        fs::write(proc.join("clear_refs"), "5").expect("reset the peak");
        manager.ctl(arguments).ok();
        let status = fs::read_to_string(proc.join("status")).expect("look at the manager");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kilobytes
            .expect("a peak")
            .trim()
            .parse::<u64>()
            .expect("a number")
            << 10
    };
    // Stopped on the way, nothing of the file stays.
    let mut command = manager.ctl_command(&["export", "-o", &rootfs, "heavy"]);
    let client = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start managerctl");
    let parts = || {
        let entries = fs::read_dir(sandbox.path()).expect("list the folder").flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().contains("rootfs.tar"))
            .count()
    };
    eventually("it has begun", || (parts() == 1).then_some(()));
    kill(Pid::from_raw(client.id() as i32), Signal::SIGINT).expect("interrupt managerctl");
    let error = finish(client, "managerctl export".into()).refused();
    assert!(error.contains("interrupted"), "{error}");
    assert_eq!(parts(), 0);
    for arguments in [
        &["export", "-o", &rootfs, "heavy"][..],
        &["commit", "heavy", "made:1"],
        &["save", "-o", &saved, "made:1"],
        &["rmi", "made:1"],
        &["load", "-i", &saved],
        &["import", &rootfs, "made:2"],
    ] {
        let peak = peak_bytes(arguments);
        println!("{}: {} MiB", arguments[0], peak >> 20);
        assert!(peak < 56 << 20, "{} took {} MiB", arguments[0], peak >> 20);
    }
}
