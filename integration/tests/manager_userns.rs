//! Containers whose ids are not the host's: who they are outside, whose files they have, and what they share.

use integration::{Image, Layer, Manager, Sandbox, eventually, finish, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// The host's first id for containers that ask for nothing else, and for those that ask for ids of their own.
const FIRST: u32 = 3_000_000;
const POOL: u32 = 4_000_000;
const IDS: &str = "dockremap:3000000:65536\ncontainers:4000000:131072\n";
/// Not in any of them.
const FAR: u32 = 70_000;

/// A manager that remaps, and an image with a folder of user 33.
fn remapping(sandbox: &Sandbox) -> (Manager, String) {
    let manager = Manager::start_with_ids(sandbox, IDS, &["--userns-remap", "default"]);
    let image = image(&manager);
    (manager, image)
}

fn image(manager: &Manager) -> String {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, id, kind, content) in [
        ("data/", 33, tar::EntryType::Directory, ""),
        ("data/seed", 33, tar::EntryType::Regular, "seed\n"),
        ("far", FAR, tar::EntryType::Regular, "far\n"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
        header.set_uid(id.into());
        header.set_gid(id.into());
        layer
            .append_data(&mut header, path, content.as_bytes())
            .expect("add an entry");
    }
    let layer = Layer::from_tar(&layer.into_inner().expect("finish the layer"));
    let reference = manager
        .registry()
        .push(&Image::busybox().with_layer(layer), "owned:1");
    manager.ctl(&["pull", &reference]).ok();
    reference
}

#[track_caller]
fn start(manager: &Manager, name: &str, flags: &[&str], image: &str) {
    let args = [&["run", "-d", "--name", name], flags, &[image, "sleep", "1000"]].concat();
    manager.ctl(&args).ok();
}

#[track_caller]
fn sh(manager: &Manager, container: &str, script: &str) -> String {
    manager.ctl(&["exec", container, "sh", "-c", script]).ok()
}

fn proc(manager: &Manager, container: &str) -> PathBuf {
    Path::new("/proc").join(manager.inspect(container)["pid"].to_string())
}

fn owner(path: &Path) -> (u32, u32) {
    let status = path.symlink_metadata().expect("look");
    (status.uid(), status.gid())
}

/// `isolation` as inspect tells it.
fn isolation(manager: &Manager, container: &str) -> Value {
    fn find(value: &Value) -> Option<&Value> {
        match value {
            Value::Object(fields) => fields
                .get("uidMap")
                .map(|_| value)
                .or_else(|| fields.values().find_map(find)),
            _ => None,
        }
    }
    find(&manager.inspect(container)).expect("told").clone()
}

/// The owners in a tar archive, by path.
fn owners(archive: &Path) -> BTreeMap<String, (u64, u64)> {
    let file = fs::File::open(archive).expect("open the archive");
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().expect("entries").map(|entry| {
        let entry = entry.expect("an entry");
        let header = entry.header();
        let owner = (header.uid().expect("a user"), header.gid().expect("a group"));
        (
            entry.path().expect("a path").to_string_lossy().into_owned(),
            owner,
        )
    });
    entries.collect()
}

#[test]
fn the_root_of_a_remapped_container_is_nobody_outside_and_root_inside() {
    let sandbox = Sandbox::new();
    let (manager, image) = remapping(&sandbox);
    let (theirs, roots) = (sandbox.path().join("theirs"), sandbox.path().join("roots"));
    for (folder, uid) in [(&theirs, FIRST), (&roots, 0)] {
        fs::create_dir(folder).expect("make a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("open the folder");
        chown(folder, Some(uid), Some(uid)).expect("give the folder away");
        fs::write(folder.join("secret"), "secret").expect("write");
        fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).expect("close it");
    }
    let bind = |folder: &Path, place: &str| format!("{}:{place}", folder.display());
    let (theirs_bind, roots_bind) = (bind(&theirs, "/theirs"), bind(&roots, "/roots"));
    let flags = [
        &[
            "--init",
            "-v",
            &theirs_bind,
            "-v",
            &roots_bind,
            "--tmpfs",
            "/memory",
        ][..],
        &[
            "-p",
            "127.0.0.1:8080:80",
            "--health-cmd",
            "test $(id -u) = 0",
            "--health-interval",
            "1s",
        ],
    ]
    .concat();
    start(&manager, "web", &flags, &image);

    let proc = proc(&manager, "web");
    assert_eq!(owner(&proc), (FIRST, FIRST));
    let map = fs::read_to_string(proc.join("gid_map")).expect("read the map");
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "3000000", "65536"]
    );
    let told = isolation(&manager, "web");
    assert_eq!(
        (&told["userns"], &told["uidMap"]),
        (&Value::Null, &"0:3000000:65536".into())
    );

    let script =
        "id -u; stat -c %u:%g / /etc/hosts /etc/hostname /etc/resolv.conf /dev/shm /memory /bin/busybox";
    assert_eq!(sh(&manager, "web", script), format!("0\n{}", "0:0\n".repeat(7)));
    sh(
        &manager,
        "web",
        "echo 192.0.2.1 x >> /etc/hosts && touch /own /dev/shm/x /memory/x && chown 33 /own && \
         echo told > /dev/stderr && ping -c 1 127.0.0.1 > /dev/null",
    );
    assert_eq!(
        manager.ctl(&["exec", "-u", "33:34", "web", "id"]).ok().trim(),
        "uid=33 gid=34 groups=34"
    );
    assert_eq!(
        manager
            .ctl(&["run", "--rm", "-t", &image, "sh", "-c", "echo x > /dev/tty"])
            .ok()
            .trim(),
        "x"
    );

    // A bind shows its owners as they are.
    assert_eq!(
        sh(
            &manager,
            "web",
            "echo x > /theirs/new; cat /theirs/new; stat -c %u /theirs /roots"
        ),
        "x\n0\n65534\n"
    );
    assert_eq!(owner(&theirs.join("new")), (FIRST, FIRST));
    for script in [
        "echo x > /roots/new",
        "cat /roots/secret",
        "cat /theirs/secret",
        "rm /roots/secret",
        "chown 0 /roots",
    ] {
        manager.ctl(&["exec", "web", "sh", "-c", script]).refused();
    }
    assert_eq!(fs::read_dir(&roots).expect("list").count(), 1);

    // What others do to it goes on as before.
    eventually("it is healthy", || {
        (manager.inspect("web")["health"]["status"] == "healthy").then_some(())
    });
    assert!(manager.ctl(&["stats", "--no-stream", "web"]).ok().contains("web"));
    assert!(manager.ctl(&["top", "web"]).ok().contains("3000000"));
    manager
        .ctl(&["exec", "-d", "web", "sh", "-c", "echo here | nc -l -p 80"])
        .ok();
    eventually("its port answers", || {
        let asked = run(manager
            .inside("busybox")
            .args(["nc", "-w", "2", "127.0.0.1", "8080"]));
        asked.stdout.contains("here").then_some(())
    });

    // Only it goes through its bundle, and others see none of its files.
    let bundles = manager.state().join("bundles");
    let bundle = fs::read_dir(&bundles)
        .expect("list")
        .next()
        .expect("a bundle")
        .expect("a bundle");
    let status = bundle.metadata().expect("look");
    assert_eq!(
        (status.mode() & 0o7777, status.uid(), status.gid()),
        (0o710, 0, FIRST)
    );

    let info = manager.ctl(&["info"]).ok();
    assert!(
        info.contains("dockremap") && info.contains("0:3000000:65536"),
        "{info}"
    );
    let doctor = manager.ctl(&["system", "doctor"]).stdout;
    assert!(doctor.contains("131072 in /etc/subuid"), "{doctor}");
}

#[test]
fn remapped_containers_and_the_hosts_share_layers_and_volumes() {
    let sandbox = Sandbox::new();
    let (manager, image) = remapping(&sandbox);
    let volume = ["-v", "shared:/data"];
    start(&manager, "remapped", &volume, &image);
    start(
        &manager,
        "hosts",
        &["--userns", "host", "-v", "shared:/data"],
        &image,
    );
    start(
        &manager,
        "own",
        &["--userns", "auto", "-v", "shared:/data"],
        &image,
    );
    assert_eq!(owner(&proc(&manager, "hosts")), (0, 0));
    assert_eq!(owner(&proc(&manager, "own")), (POOL, POOL));
    assert_eq!(isolation(&manager, "hosts")["uidMap"], Value::Null);

    // Each is root, and all mean the same by their ids.
    let all = ["remapped", "hosts", "own"];
    for name in all {
        let script = format!("echo {name} > /data/{name}; touch /{name}; chown 7:8 /data/{name}");
        sh(&manager, name, &script);
    }
    for name in all {
        let script = "stat -c '%n %u:%g' /data /data/* /bin/busybox";
        let seen = "/data 33:33\n/data/hosts 7:8\n/data/own 7:8\n/data/remapped 7:8\n/data/seed 33:33\n/bin/busybox 0:0\n";
        assert_eq!(sh(&manager, name, script), seen, "{name}");
        sh(
            &manager,
            name,
            &format!("echo more >> /data/seed && chown 7:8 /data/{name}"),
        );
    }
    sh(&manager, "own", "rm /data/hosts /data/own /data/remapped");
    let data = manager.root().join("volumes/shared/_data");
    assert_eq!((owner(&data), owner(&data.join("seed"))), ((33, 33), (33, 33)));
    let containers = manager.root().join("images/containers");
    let mut uppers = BTreeMap::new();
    for container in fs::read_dir(containers).expect("list") {
        let upper = container.expect("a folder").path().join("upper");
        assert!(!upper.join("bin").exists(), "nothing is copied of the image");
        for name in all.iter().filter(|name| upper.join(name).exists()) {
            uppers.insert(*name, owner(&upper.join(name)));
        }
    }
    assert_eq!(
        uppers,
        [
            ("remapped", (FIRST, FIRST)),
            ("hosts", (0, 0)),
            ("own", (POOL, POOL))
        ]
        .into()
    );

    // A part of a volume, one in memory, and one that is a folder of the host's.
    sh(&manager, "hosts", "mkdir /data/part && chown 5:5 /data/part");
    let folder = sandbox.path().join("folder");
    fs::create_dir(&folder).expect("make a folder");
    let device = format!("device={}", folder.display());
    manager
        .ctl(&[
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            &device,
            "hosts-folder",
        ])
        .ok();
    manager
        .ctl(&[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "memory",
        ])
        .ok();
    let script = "stat -c %u /part /memory /folder; touch /part/x /memory/x && ! touch /folder/x";
    let part = "type=volume,source=shared,target=/part,volume-subpath=part";
    let args = [
        "run",
        "--rm",
        "--mount",
        part,
        "-v",
        "memory:/memory",
        "-v",
        "hosts-folder:/folder",
        &image,
        "sh",
        "-c",
        script,
    ];
    assert_eq!(manager.ctl(&args).ok(), "5\n0\n65534\n");
}

#[test]
fn copies_archives_and_images_of_a_container_have_the_owners_that_it_sees() {
    let sandbox = Sandbox::new();
    let (manager, image) = remapping(&sandbox);
    start(&manager, "box", &["-v", "data:/data"], &image);
    sh(
        &manager,
        "box",
        "mkdir /made && touch /made/file && chown 5:6 /made/file && chown 12 /etc/passwd && rm /etc/group",
    );

    let diff = manager.ctl(&["diff", "box"]).ok();
    assert_eq!(
        diff,
        "C /etc\nD /etc/group\nC /etc/passwd\nA /made\nA /made/file\n"
    );
    let archive = sandbox.path().join("box.tar");
    let archive_name = archive.to_string_lossy().into_owned();
    manager.ctl(&["export", "-o", &archive_name, "box"]).ok();
    let exported = owners(&archive);
    assert_eq!(
        [
            "made/",
            "made/file",
            "etc/passwd",
            "bin/busybox",
            "data/seed",
            "far"
        ]
        .map(|path| exported[path]),
        [
            (0, 0),
            (5, 6),
            (12, 0),
            (0, 0),
            (33, 33),
            (FAR.into(), FAR.into())
        ]
    );

    // The image is as good for everybody as any other.
    manager.ctl(&["commit", "box", "made:1"]).ok();
    for userns in ["host", "auto", ""] {
        let args = [
            "run",
            "--rm",
            "--userns",
            userns,
            "made:1",
            "stat",
            "-c",
            "%u:%g",
            "/made",
            "/made/file",
            "/etc/passwd",
        ];
        assert_eq!(manager.ctl(&args).ok(), "0:0\n5:6\n12:0\n", "{userns}");
    }

    let (file, mine) = (sandbox.path().join("file"), sandbox.path().join("mine"));
    for path in [&file, &mine] {
        fs::write(path, "text").expect("write");
        chown(path, Some(21), Some(22)).expect("give the file away");
    }
    chown(&mine, Some(FAR), Some(0)).expect("give the file away");
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let owner_of = |path: &str| {
        let out = manager
            .ctl_command(&["cp", path, "-"])
            .output()
            .expect("copy out");
        fs::write(&archive, out.stdout).expect("keep the archive");
        owners(&archive)
    };
    for is_running in [true, false] {
        for place in if is_running {
            &["/in", "/data/in", "/tmp/in"][..]
        } else {
            &["/in2", "/tmp/in2"]
        } {
            let to = format!("box:{place}");
            manager.ctl(&["cp", "-a", &name(&file), &to]).ok();
            let name = place.rsplit('/').next().expect("a name");
            assert_eq!(owner_of(&to)[name], (21, 22), "{place}");
        }
        assert_eq!(owner_of("box:/made")["made/file"], (5, 6));
        assert_eq!(owner_of("box:/bin/busybox")["busybox"], (0, 0));
        let refused = manager.ctl(&["cp", "-a", &name(&mine), "box:/mine"]).refused();
        assert!(
            refused.contains("70000") && refused.contains("user namespace lacks"),
            "{refused}"
        );
        if is_running {
            manager.ctl(&["stop", "-t", "0", "box"]).ok();
        }
    }
    manager.ctl(&["start", "box"]).ok();
    let script = "stat -c %u:%g /in /in2 /data/in /tmp/in2 /made/file";
    assert_eq!(sh(&manager, "box", script), "21:22\n21:22\n21:22\n21:22\n5:6\n");
    assert!(!manager.root().join("volumes/data/_data/mine").exists());
}

#[test]
fn ids_of_its_own_are_nobody_elses_and_come_back() {
    let sandbox = Sandbox::new();
    let (manager, image) = remapping(&sandbox);
    // At the same time, from one pool.
    let names = ["c0", "c1", "c2", "c3"];
    let starting = names.map(|name| {
        let args = [
            "run",
            "-d",
            "--name",
            name,
            "--userns",
            "auto:size=1000",
            &image,
            "sleep",
            "1000",
        ];
        manager.ctl_spawned(&args)
    });
    for child in starting {
        finish(child, "run".to_owned()).ok();
    }
    let mut owned: Vec<u32> = names.iter().map(|name| owner(&proc(&manager, name)).0).collect();
    owned.sort_unstable();
    assert_eq!(owned, [0, 1000, 2000, 3000].map(|behind| POOL + behind));
    start(&manager, "large", &["--userns", "auto"], &image);
    assert_eq!(owner(&proc(&manager, "large")), (POOL + 4000, POOL + 4000));
    let refused = manager.ctl(&["create", "--userns", "auto", &image]).refused();
    assert!(
        refused.contains("no 65536 ids in a row left") && refused.contains("auto:size="),
        "{refused}"
    );
    manager.ctl(&["rm", "-f", "large"]).ok();
    manager.ctl(&["create", "--userns", "auto", &image]).ok();

    // Another one in the same namespace, with or without anything else of it.
    for (name, flags) in [
        ("user", &["--userns", "container:c0"][..]),
        (
            "net",
            &[
                "--userns",
                "container:c0",
                "--network",
                "container:c0",
                "--pid",
                "container:c0",
            ],
        ),
    ] {
        start(&manager, name, flags, &image);
        for kind in ["user", "net", "pid"] {
            let of = |container: &str| {
                fs::read_link(proc(&manager, container).join("ns").join(kind)).expect("a namespace")
            };
            assert_eq!(
                of(name) == of("c0"),
                kind == "user" || name == "net",
                "{name} {kind}"
            );
        }
        sh(
            &manager,
            name,
            "touch /x && chown 5 /x && echo 192.0.2.1 x >> /etc/hosts",
        );
    }
    assert!(sh(&manager, "net", "ps").contains("sleep 1000"));
    // The root of the host may enter anybody's.
    let args = [
        "run",
        "--rm",
        "--userns",
        "host",
        "--network",
        "container:c0",
        "--pid",
        "container:c0",
        &image,
        "ps",
    ];
    assert!(manager.ctl(&args).ok().contains("sleep 1000"));
    manager.ctl(&["stop", "-t", "0", "c0"]).ok();
    manager.ctl(&["stop", "-t", "0", "user"]).ok();
    let refused = manager.ctl(&["start", "user"]).refused();
    assert!(
        refused.contains("user namespace of c0") && refused.contains("not running"),
        "{refused}"
    );
    manager.ctl(&["start", "c0"]).ok();
    manager.ctl(&["start", "user"]).ok();
}

#[test]
fn the_namespaces_of_a_remapped_container_are_entered_with_its_ids() {
    let sandbox = Sandbox::new();
    let (manager, image) = remapping(&sandbox);
    start(&manager, "web", &["--ipc", "shareable"], &image);
    start(&manager, "hosts", &["--userns", "host"], &image);
    start(&manager, "own", &["--userns", "auto"], &image);
    for (flag, kind) in [("--network", "net"), ("--pid", "pid"), ("--ipc", "ipc")] {
        start(&manager, kind, &[flag, "container:web"], &image);
        for kind in ["user", kind] {
            let of = |container: &str| {
                fs::read_link(proc(&manager, container).join("ns").join(kind)).expect("a namespace")
            };
            assert_eq!(
                of("web"),
                of(kind
                    .replace("user", flag.trim_start_matches("--"))
                    .replace("network", "net")
                    .as_str())
            );
        }
        for (other, next) in [("hosts", "--userns host"), ("own", "--userns container:own")] {
            let refused = manager
                .ctl(&["create", flag, &format!("container:{other}"), &image])
                .refused();
            assert!(
                refused.contains("another user namespace") && refused.contains(next),
                "{refused}"
            );
        }
    }
    sh(&manager, "web", "echo web > /dev/shm/file");
    assert_eq!(
        sh(&manager, "ipc", "cat /dev/shm/file; touch /dev/shm/more"),
        "web\n"
    );
    // Two that have the same ids, in namespaces of their own.
    start(&manager, "other", &[], &image);
    let refused = manager
        .ctl(&[
            "run",
            "--rm",
            "--network",
            "container:web",
            "--pid",
            "container:other",
            &image,
            "true",
        ])
        .refused();
    assert!(refused.contains("another user namespace than web"), "{refused}");
    // What the host has and a container may see without its user namespace.
    let script = "hostname; touch /dev/shm/x && rm /dev/shm/x; id -u";
    let args = [
        "run",
        "--rm",
        "--ipc",
        "host",
        "--uts",
        "host",
        "--cgroupns",
        "host",
        &image,
        "sh",
        "-c",
        script,
    ];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(manager.ctl(&args).ok(), format!("{}\n0\n", host.trim()));
}

#[test]
fn what_needs_the_hosts_ids_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let (mut manager, image) = remapping(&sandbox);
    for (flags, words) in [
        (
            &["--privileged"][..],
            &[
                "privileged mode is incompatible with user namespaces",
                "--userns host",
            ][..],
        ),
        (
            &["--network", "host"],
            &["cannot share the host's network namespace", "--userns host"],
        ),
        (
            &["--pid", "host"],
            &["cannot share the host PID namespace", "--userns host"],
        ),
        (
            &["--userns", "auto", "--privileged"],
            &["privileged mode is incompatible"],
        ),
        (&["--userns", "private"], &["invalid mode", "auto:size=N"]),
        (&["--userns", "auto:uidmapping=0:1:2"], &["size=N"]),
        (&["--userns", "container:"], &["container:<name|id>"]),
        (&["--user", "70000"], &["lacks the user 70000", "0:3000000:65536"]),
        (&["--group-add", "70000"], &["lacks the group 70000"]),
    ] {
        let args = [&["create"], flags, &[&image]].concat();
        let refused = manager.ctl(&args).refused();
        assert!(
            words.iter().all(|word| refused.contains(word)),
            "{flags:?}: {refused}"
        );
    }
    let args = [
        "run",
        "--rm",
        "--privileged",
        "--network",
        "host",
        "--pid",
        "host",
        "--userns",
        "host",
    ];
    manager.ctl(&[&args[..], &[&image, "true"]].concat()).ok();
    start(&manager, "box", &[], &image);
    let refused = manager.ctl(&["exec", "-u", "70000", "box", "true"]).refused();
    assert!(refused.contains("lacks the user 70000"), "{refused}");

    // A file system that cannot map, and a way that is closed.
    manager.ctl(&["volume", "create", "odd"]).ok();
    let data = manager.root().join("volumes/odd/_data");
    run(manager.inside("mount").args(["-t", "ramfs", "ramfs"]).arg(&data)).ok();
    let refused = manager
        .ctl(&["run", "--rm", "-v", "odd:/odd", &image, "true"])
        .refused();
    assert!(
        refused.contains("map the owners of") && refused.contains("ext4, xfs"),
        "{refused}"
    );
    manager
        .ctl(&["run", "--rm", "-v", "odd:/odd", &image, "touch", "/odd/x"])
        .ok();
    assert_eq!(
        owner(&data.join("x")),
        (0, 0),
        "on the manager's own file system it can"
    );
    let state = manager.state();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("close the folder");
    let refused = manager.ctl(&["run", "--rm", &image, "true"]).refused();
    assert!(
        refused.contains(&format!("chmod o+x {}", state.display())),
        "{refused}"
    );
    fs::set_permissions(&state, fs::Permissions::from_mode(0o711)).expect("open the folder");
    manager.ctl(&["run", "--rm", &image, "true"]).ok();

    // Who is nobody, or has no ids.
    for (remap, words) in [
        (
            "nobody-here",
            &[
                "/etc/subuid gives nobody-here no ids",
                "useradd",
                "usermod --add-subuids",
            ][..],
        ),
        ("root", &["root cannot be remapped to itself"]),
        ("dockremap:no-such-group", &["no group no-such-group"]),
    ] {
        let program = integration::binary("manager");
        let mut check = manager.inside(&program.to_string_lossy());
        check
            .args(["--check-config", "--userns-remap", remap, "--shim"])
            .arg(integration::binary("shim"));
        let refused = run(&mut check).refused();
        assert!(
            words.iter().all(|word| refused.contains(word)),
            "{remap}: {refused}"
        );
    }
    manager.kill();
    manager.set_options(&[]);
    manager.start_again();
    assert!(!manager.ctl(&["info"]).ok().contains("dockremap"));
}

#[test]
fn remapped_containers_outlive_the_manager_and_keep_their_ids_under_another_setting() {
    let sandbox = Sandbox::new();
    let (mut manager, image) = remapping(&sandbox);
    start(
        &manager,
        "box",
        &["-v", "data:/data", "--restart", "always"],
        &image,
    );
    start(&manager, "own", &["--userns", "auto"], &image);
    sh(&manager, "box", "touch /data/before /before");
    let before = proc(&manager, "box");
    manager.kill();
    assert_eq!(owner(&before), (FIRST, FIRST), "it runs on");
    // Without the setting, what is there stays as it is.
    manager.set_options(&[]);
    manager.start_again();
    assert_eq!(proc(&manager, "box"), before);
    sh(&manager, "box", "touch /data/after");
    assert_eq!(manager.ctl(&["diff", "box"]).ok(), "A /before\n");
    manager.ctl(&["restart", "-t", "0", "box"]).ok();
    assert_eq!(owner(&proc(&manager, "box")), (FIRST, FIRST));
    assert_eq!(
        sh(&manager, "box", "stat -c %u /before /data/before /data/after"),
        "0\n0\n0\n"
    );
    start(&manager, "new", &["-v", "data:/data"], &image);
    assert_eq!(owner(&proc(&manager, "new")), (0, 0));
    assert_eq!(sh(&manager, "new", "stat -c %u /data/before"), "0\n");
    // Ids that are taken are known to be.
    start(&manager, "own2", &["--userns", "auto"], &image);
    assert_eq!(owner(&proc(&manager, "own2")), (POOL + 65_536, POOL + 65_536));

    // Killed at once, and at each step of a start: what is left is put right.
    for failpoint in [
        "create.leased",
        "start.files-written",
        "start.created",
        "start.process-started",
    ] {
        manager.kill();
        manager.set_options(&["--userns-remap", "default"]);
        manager.set_failpoint(Some(failpoint));
        manager.start_again();
        let mut cut = manager.ctl_spawned(&[
            "run",
            "-d",
            "--name",
            "cut",
            "-v",
            "cut:/data",
            &image,
            "sleep",
            "1000",
        ]);
        manager.await_end();
        cut.wait().expect("the client ends");
        manager.set_failpoint(None);
        manager.start_again();
        manager
            .ctl_command(&["rm", "-f", "cut"])
            .output()
            .expect("remove what there is");
        start(&manager, "cut", &["-v", "cut:/data"], &image);
        assert_eq!(owner(&proc(&manager, "cut")), (FIRST, FIRST));
        assert_eq!(
            sh(&manager, "cut", "stat -c %u /data/seed"),
            "33\n",
            "{failpoint}"
        );
        manager.ctl(&["rm", "-f", "cut"]).ok();
    }
}
