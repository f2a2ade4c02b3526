//! Images as other tools make them: buildah, umoci, podman and mmdebstrap, and what they make of ours.

use crate::{image, inspect, path_in, saved, skopeo, stored, word};
use integration::{Manager, Peers, Registry, Sandbox, run};
use std::fs;
use std::path::Path;
use std::process::Command;

/// buildah or podman with a storage of its own. It needs no mounts for what is done here.
#[track_caller]
fn with_storage(mut command: Command, sandbox: &Sandbox, arguments: &[&str]) -> String {
    let storage = sandbox.path().join("storage");
    command
        .arg("--root")
        .arg(storage.join("root"))
        .arg("--runroot")
        .arg(storage.join("run"))
        .args(["--storage-driver", "vfs"]);
    run(command.args(arguments)).ok()
}

/// buildah in the manager's network.
#[track_caller]
fn buildah(manager: &Manager, sandbox: &Sandbox, arguments: &[&str]) -> String {
    let said = with_storage(manager.inside("buildah"), sandbox, arguments);
    said.trim().to_owned()
}

#[test]
fn images_of_buildahs_are_pulled_loaded_and_built_upon() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let policy = path_in(&sandbox, "policy.json");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).expect("write a policy");
    let files = sandbox.path().join("files");
    fs::create_dir_all(files.join("data")).expect("make a folder");
    fs::write(files.join("data/word"), "built").expect("write a file");
    for format in ["oci", "docker"] {
        let container = buildah(&manager, &sandbox, &["from", "scratch"]);
        let busybox = "/bin/busybox";
        buildah(
            &manager,
            &sandbox,
            &["copy", "-q", &container, busybox, "/bin/cat"],
        );
        let folder = files.to_str().expect("a path");
        buildah(&manager, &sandbox, &["copy", "-q", &container, folder, "/"]);
        buildah(&manager, &sandbox, &["config", "--env", "PATH=/bin", &container]);
        let name = format!("built-{format}");
        buildah(
            &manager,
            &sandbox,
            &["commit", "-q", "--format", format, &container, &name],
        );
        let pushed = format!("{}/{name}:1", Registry::HOST);
        let archive = path_in(&sandbox, &format!("{name}.tar"));
        for target in [
            format!("docker://{pushed}"),
            format!("{format}-archive:{archive}:quay.io/a/{name}:1"),
        ] {
            let push = [
                "push",
                "-q",
                "--tls-verify=false",
                "--signature-policy",
                &policy,
                &name,
                &target,
            ];
            buildah(&manager, &sandbox, &push);
        }
        assert_eq!(word(&manager, &pushed), "built", "{format}: pulled");
        // Into docker's archives it writes its own name of the image too.
        let loaded = manager.ctl(&["load", "-i", &archive]).ok();
        let expected = format!("Loaded image: quay.io/a/{name}:1\n");
        assert!(loaded.starts_with(&expected), "{loaded}");
        assert_eq!(
            word(&manager, &format!("quay.io/a/{name}:1")),
            "built",
            "{format}: loaded"
        );

        // And it builds upon what we push.
        let ours = format!("{}/ours-{format}:1", Registry::HOST);
        manager.ctl(&["tag", &pushed, &ours]).ok();
        manager.ctl(&["push", "-q", &ours]).ok();
        let from = ["from", "--tls-verify=false", "--signature-policy", &policy, &ours];
        let above = buildah(&manager, &sandbox, &from);
        let read = [
            "copy",
            "-q",
            "--from",
            &above,
            &container,
            "/data/word",
            "/copied",
        ];
        buildah(&manager, &sandbox, &read);
        buildah(&manager, &sandbox, &["rm", &above, &container]);
    }
}

#[test]
fn images_of_umocis_are_loaded_and_ours_are_changed_by_it() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let (_, archive) = saved(&manager, &sandbox);
    let layout = path_in(&sandbox, "layout");
    fs::create_dir(&layout).expect("make a folder");
    run(Command::new("tar").args(["-xf", &archive, "-C", &layout])).ok();

    // One more layer on ours, with a whiteout and a changed file.
    let (from, to, bundle) = (
        format!("{layout}:1"),
        format!("{layout}:changed"),
        path_in(&sandbox, "bundle"),
    );
    run(Command::new("umoci").args(["unpack", "--image", &from, &bundle])).ok();
    let data = Path::new(&bundle).join("rootfs/data");
    fs::write(data.join("word"), "changed").expect("write a file");
    fs::write(data.join("new"), "").expect("write a file");
    fs::remove_file(Path::new(&bundle).join("rootfs/bin/vi")).expect("remove a link");
    run(Command::new("umoci").args(["repack", "--image", &to, &bundle])).ok();
    run(Command::new("umoci").args(["config", "--image", &to, "--config.env", "BY=umoci"])).ok();
    let packed = path_in(&sandbox, "changed.tar");
    skopeo(&[
        "copy",
        "-q",
        &format!("oci:{to}"),
        &format!("oci-archive:{packed}:docker.io/library/changed:1"),
    ]);
    manager.ctl(&["load", "-i", &packed]).ok();
    assert_eq!(word(&manager, "changed:1"), "changed");
    let look = "ls /data /bin/vi 2>/dev/null; echo $BY";
    let shown = manager.ctl(&["run", "--rm", "changed:1", "sh", "-c", look]).ok();
    assert_eq!(shown, "/data:\nnew\nword\numoci\n");

    // One that has never been another tool's.
    let made = path_in(&sandbox, "made");
    let image = format!("{made}:only");
    run(Command::new("umoci").args(["init", "--layout", &made])).ok();
    run(Command::new("umoci").args(["new", "--image", &image])).ok();
    run(Command::new("umoci").args(["insert", "--image", &image, "/bin/busybox", "/bin/cat"])).ok();
    let word_file = path_in(&sandbox, "word");
    fs::write(&word_file, "inserted").expect("write a file");
    run(Command::new("umoci").args(["insert", "--image", &image, &word_file, "/data/word"])).ok();
    let tar = path_in(&sandbox, "made.tar");
    run(Command::new("tar").args(["-cf", &tar, "-C", &made, "."])).ok();
    let said = manager.ctl(&["load", "-i", &tar]).ok();
    let id = said
        .trim()
        .strip_prefix("Loaded image ID: ")
        .expect("an id")
        .to_owned();
    let read = manager.ctl(&["run", "--rm", &id, "/bin/cat", "/data/word"]).ok();
    assert_eq!(read, "inserted");
}

#[test]
fn podman_and_we_load_what_the_other_saves() {
    let sandbox = Sandbox::new();
    let Some(peers) = Peers::start(&sandbox) else {
        return;
    };
    let manager = Manager::start(&sandbox);
    let layout = path_in(&sandbox, "layout");
    image("one").write_layout(Path::new(&layout));
    let podman = |arguments: &[&str]| with_storage(peers.command("podman"), &sandbox, arguments);
    podman(&["pull", "-q", &format!("oci:{layout}:image")]);
    let id = podman(&["images", "-q", "--no-trunc"]).trim().to_owned();
    podman(&["tag", &id, "quay.io/a/saved:1"]);
    for format in ["oci-archive", "docker-archive"] {
        let archive = path_in(&sandbox, &format!("{format}.tar"));
        podman(&[
            "save",
            "-q",
            "--format",
            format,
            "-o",
            &archive,
            "quay.io/a/saved:1",
        ]);
        assert_eq!(
            manager.ctl(&["load", "-i", &archive]).ok(),
            "Loaded image: quay.io/a/saved:1\n"
        );
        assert_eq!(word(&manager, "quay.io/a/saved:1"), "one", "{format}");
        assert_eq!(inspect(&manager, "quay.io/a/saved:1")["Id"], id, "{format}");
        let again = path_in(&sandbox, &format!("{format}-again.tar"));
        manager.ctl(&["save", "-o", &again, "quay.io/a/saved:1"]).ok();
        manager.ctl(&["rmi", "quay.io/a/saved:1"]).ok();
        podman(&["rmi", "-f", "quay.io/a/saved:1"]);
        assert!(podman(&["load", "-q", "-i", &again]).contains("quay.io/a/saved:1"));
        assert_eq!(podman(&["images", "-q", "--no-trunc"]).trim(), id, "{format}");
    }
}

#[test]
fn a_root_file_system_of_mmdebstraps_is_imported_as_dpkg_left_it() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    // Two small packages, unpacked: times, owners and links of Debian's own. They come from the machine's mirror.
    let rootfs = path_in(&sandbox, "rootfs.tar.xz");
    let made = run(Command::new("mmdebstrap").args([
        "--quiet",
        "--variant=extract",
        "--include=base-files,busybox-static",
        "--aptopt=APT::Install-Recommends \"false\"",
        "bookworm",
        &rootfs,
    ]));
    made.ok();
    let before = stored(&manager);
    manager
        .ctl(&[
            "import",
            "-c",
            "CMD [\"/bin/busybox\", \"cat\", \"/etc/os-release\"]",
            &rootfs,
            "debian:1",
        ])
        .ok();
    assert_ne!(stored(&manager), before);
    assert!(
        manager
            .ctl(&["run", "--rm", "debian:1"])
            .ok()
            .contains("ID=debian")
    );
    // Each entry as tar tells it, but for what is mounted in a container.
    manager.ctl(&["create", "--name", "one", "debian:1"]).ok();
    let exported = path_in(&sandbox, "exported.tar");
    manager.ctl(&["export", "-o", &exported, "one"]).ok();
    let list = |archive: &str| -> Vec<String> {
        let listed = run(Command::new("tar").args(["--numeric-owner", "--full-time", "-tvf", archive])).ok();
        let mut lines: Vec<String> = listed.lines().map(|line| line.replace(" ./", " ")).collect();
        lines.sort();
        lines
    };
    let (theirs, ours) = (list(&rootfs), list(&exported));
    let only: Vec<&String> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    assert!(
        theirs.len() > 100 && only.is_empty(),
        "not in the export: {only:#?}"
    );
    manager.ctl(&["rm", "one"]).ok();
}
