//! `managerctl system check`: whatever is damaged in the store is told by its path, and nothing else.

use integration::{Image, Layer, Manager, Sandbox, run};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree with whatever a layer can have, as a layer above busybox; GNU tar writes it.
fn image(sandbox: &Sandbox) -> Image {
    let script = "mkdir -p files/deep/er bin && cd files
        for name in flip mode gone owner dated grown; do echo \"this is $name\" >$name; done
        ln flip linked && ln -s flip link && mkfifo pipe && mknod device c 1 3
        touch attribute && setfattr -n user.color -v red attribute
        chmod 4755 mode && chown 12:34 owner && touch -d 2001-02-03T04:05:06.789 dated
        : >deep/.wh.nothing && : >deep/er/.wh..wh..opq && : >../bin/.wh.ls
        head -c 300000 /dev/urandom >large";
    let tree = sandbox.path().join("tree");
    fs::create_dir(&tree).expect("make a folder");
    run(Command::new("sh").arg("-ec").arg(script).current_dir(&tree)).ok();
    let tar = sandbox.path().join("layer.tar");
    run(Command::new("tar")
        .args(["--format=pax", "--xattrs", "-C"])
        .arg(&tree)
        .arg("-cf")
        .arg(&tar)
        // `bin` has no entry of its own.
        .args(["./files", "bin/.wh.ls"]))
    .ok();
    Image::busybox().with_layer(Layer::from_tar(&fs::read(&tar).expect("read the layer")))
}

/// What a check prints as JSON, and its exit code.
fn check(manager: &Manager, images: &[&str]) -> (Value, i32) {
    let done = manager.ctl(&[&["--format", "json", "system", "check"], images].concat());
    let found = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done}"));
    (found, done.code)
}

/// The folder of the layer with this file.
fn layer_with(manager: &Manager, file: &str) -> PathBuf {
    let layers = fs::read_dir(manager.root().join("images/s")).expect("list the layers");
    let mut layers = layers.flatten().map(|layer| layer.path());
    layers
        .find(|layer| layer.join(file).symlink_metadata().is_ok())
        .expect("a layer has the file")
}

fn flip(file: &Path, offset: u64) {
    let open = fs::File::options()
        .read(true)
        .write(true)
        .open(file)
        .expect("open");
    let mut byte = [0];
    open.read_exact_at(&mut byte, offset).expect("read");
    open.write_all_at(&[!byte[0]], offset).expect("write");
}

#[test]
fn what_is_damaged_is_told_by_its_path() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let reference = manager.registry().push(&image(&sandbox), "all:1");
    manager.ctl(&["pull", &reference]).ok();
    let said = manager.ctl(&["system", "check"]).ok();
    assert!(
        said.contains("images 1, layers 2") && said.ends_with("all well\n"),
        "{said}"
    );

    let layer = layer_with(&manager, "files/flip");
    let at = |path: &str| layer.join(path);
    let shell = |script: &str| run(Command::new("sh").arg("-ec").arg(script).current_dir(&layer)).ok();
    flip(&at("files/large"), 200_000);
    // A change that keeps the time, as bad memory does.
    shell(
        "touch -r files/large t && touch -r files/dated files/large && rm t && touch -d '2001-02-03 04:05' files/dated",
    );
    fs::set_permissions(at("files/mode"), fs::Permissions::from_mode(0o755)).expect("change a mode");
    fs::remove_file(at("files/gone")).expect("remove a file");
    fs::write(at("files/deep/new"), "").expect("add a file");
    fs::remove_file(at("files/link")).expect("remove a link");
    symlink("/etc/passwd", at("files/link")).expect("make a link");
    shell(
        "chown 0:34 files/owner; echo >>files/grown; setfattr -n user.color -v blue files/attribute
        cp -a files/linked files/copy && mv files/copy files/linked
        rm files/pipe files/device && mknod files/device c 1 5 && touch files/pipe
        setfattr -x trusted.overlay.opaque files/deep/er; rm bin/ls",
    );
    let (found, code) = check(&manager, &[&reference]);
    assert_eq!(code, 1);
    let findings = found["findings"].as_array().expect("a list");
    for (path, what) in [
        ("files/large", "its content differs from byte 200000 on"),
        ("files/dated", "its time is "),
        ("files/mode", "its mode is 755, not 4755"),
        ("files/gone", "it is not there"),
        ("files/deep/new", "the layer has no such file"),
        ("files/deep", "its time is "),
        ("files/link", "it leads to \"/etc/passwd\", not to \"flip\""),
        ("files/owner", "its owner is 0:34, not 12:34"),
        ("files/grown", "it has 15 bytes, not 14"),
        ("files/attribute", "its extended attribute \"user.color\" differs"),
        ("files/flip", "it has 1 names, not 2"),
        ("files/linked", "it has 1 names, not 2"),
        ("files/device", "it is device 1:5, not 1:3"),
        ("files/pipe", "it is a file, not a fifo"),
        (
            "files/deep/er",
            "its extended attribute \"trusted.overlay.opaque\" differs",
        ),
        ("bin/ls", "it is not there"),
    ] {
        let finding = findings.iter().find(|finding| finding["path"] == path);
        let finding = finding.unwrap_or_else(|| panic!("{path} is not told: {findings:#?}"));
        let said = finding["what"].as_str().expect("text");
        assert!(said.contains(what), "{path}: {said}");
        assert_eq!(
            (&finding["kind"], &finding["image"]),
            (&"file".into(), &reference.clone().into())
        );
    }
    let others: Vec<_> = findings
        .iter()
        // The folders that the test has written in.
        .filter(|finding| !["", "files", "bin"].map(Value::from).contains(&finding["path"]))
        .collect();
    assert_eq!(others.len(), 16, "{others:#?}");

    manager.ctl(&["rmi", &reference]).ok();
    manager.ctl(&["pull", &reference]).ok();
    let (found, code) = check(&manager, &[]);
    assert_eq!(
        (found["findings"].as_array().map(Vec::len), code),
        (Some(0), 0),
        "{found:#}"
    );
}

#[test]
fn content_and_what_is_left_over_is_told() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let base = Image::busybox();
    let reference = manager.registry().push(&base, "base:1");
    let layer = Layer::from_files(&[("a", "b")]);
    let other = manager.registry().push(&base.with_layer(layer), "other:1");
    for image in [&reference, &other] {
        manager.ctl(&["pull", image]).ok();
    }
    let root = manager.root().join("images");
    for stray in ["tmp/1", "s/4711", "blobs/sha256/stray", "containers/nobody"] {
        fs::write(root.join(stray), "").expect("leave something over");
    }
    let (found, code) = check(&manager, &[]);
    let findings = found["findings"].as_array().expect("a list");
    let of_kind = |findings: &[Value], kind: &str| findings.iter().filter(|f| f["kind"] == kind).count();
    assert_eq!(
        (code, findings.len(), of_kind(findings, "leftover")),
        (1, 4, 4),
        "{findings:#?}"
    );

    // The one compressed layer that both have.
    let blobs = fs::read_dir(root.join("blobs/sha256")).expect("list the blobs");
    let largest = blobs
        .flatten()
        .max_by_key(|blob| blob.metadata().map_or(0, |metadata| metadata.len()))
        .expect("there is one");
    flip(&largest.path(), 100);
    let (found, _) = check(&manager, &[&reference, &other]);
    let findings = found["findings"].as_array().expect("a list");
    assert_eq!(
        (findings.len(), of_kind(findings, "blob")),
        (1, 1),
        "{findings:#?}"
    );
    assert_eq!(
        findings[0]["digest"].as_str().expect("it has one"),
        format!("sha256:{}", largest.file_name().to_string_lossy())
    );
    assert!(
        findings[0]["what"]
            .as_str()
            .is_some_and(|what| what.contains("digest is sha256:"))
    );
    let unchecked = found["notChecked"].as_array().expect("a list");
    assert!(
        unchecked.len() == 1
            && unchecked[0]["reason"]
                .as_str()
                .is_some_and(|r| r.contains("broken"))
    );
    assert_eq!(
        found["checked"]["layers"], 1,
        "the other layer was compared: {found:#}"
    );

    fs::remove_file(largest.path()).expect("remove a blob");
    fs::remove_dir_all(layer_with(&manager, "bin/busybox")).expect("remove a layer");
    let said = manager.ctl(&["system", "check", &reference]);
    assert_eq!(said.code, 1);
    assert!(
        said.stdout.contains(": blob sha256:") && said.stdout.contains(": layer sha256:"),
        "{said}"
    );
    assert_eq!(said.stdout.matches("it is not there").count(), 2, "{said}");
    let unknown = manager.ctl(&["system", "check", "nobody:1"]);
    assert!(
        unknown.code == 1 && unknown.stderr.contains("no such image"),
        "{unknown}"
    );
}

#[test]
fn a_check_goes_on_beside_pulls_and_removals() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let base = Image::busybox();
    let references: Vec<String> = (0..4)
        .map(|number| {
            let text = number.to_string().repeat(100_000);
            let files: Vec<(String, &str)> = (0..50).map(|i| (format!("files/{i}"), &*text)).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, *text)).collect();
            let image = base.clone().with_layer(Layer::from_files(&files));
            manager.registry().push(&image, &format!("busy-{number}:1"))
        })
        .collect();
    std::thread::scope(|scope| {
        for reference in &references {
            scope.spawn(|| {
                for _ in 0..5 {
                    manager.ctl(&["pull", reference]).ok();
                    manager.ctl(&["rmi", reference]).ok();
                }
                manager.ctl(&["pull", reference]).ok();
            });
        }
        for _ in 0..10 {
            let said = manager.ctl(&["system", "check"]).ok();
            assert!(said.ends_with("all well\n"), "{said}");
        }
    });
    let (found, _) = check(
        &manager,
        &references.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(found["checked"]["layers"], 5, "{found:#}");
}
