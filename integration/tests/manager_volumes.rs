//! Volumes, and what containers see of them, of the host and of memory.

use integration::{Image, Layer, Manager, Sandbox};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// What `volume inspect` tells of one volume.
#[track_caller]
fn volume(manager: &Manager, name: &str) -> Value {
    let text = manager.ctl(&["volume", "inspect", name]).ok();
    let mut all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
    all[0].take()
}

#[track_caller]
fn names(manager: &Manager, flags: &[&str]) -> Vec<String> {
    let listed = manager.ctl(&[&["volume", "ls", "-q"], flags].concat()).ok();
    listed.lines().map(str::to_owned).collect()
}

fn data(manager: &Manager, name: &str) -> PathBuf {
    manager.root().join("volumes").join(name).join("_data")
}

/// The folders that there are of volumes.
fn folders(manager: &Manager) -> Vec<String> {
    let entries = fs::read_dir(manager.root().join("volumes")).expect("list the volumes' folders");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// What is mounted at a place of the host.
fn mounted_at(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4));
    targets.filter(|target| Path::new(target) == path).count()
}

/// What `sh -c script` prints in a new container.
#[track_caller]
fn sh(manager: &Manager, flags: &[&str], image: &str, script: &str) -> String {
    let args = [&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat();
    manager.ctl(&args).ok()
}

#[test]
fn volumes_are_made_listed_shown_and_removed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    assert_eq!(
        manager
            .ctl(&["volume", "create", "--label", "tier=one", "data"])
            .ok(),
        "data\n"
    );
    // Once more is the same one.
    fs::write(data(&manager, "data").join("kept"), "x").expect("write into the volume");
    assert_eq!(manager.ctl(&["volume", "create", "data"]).ok(), "data\n");
    assert!(data(&manager, "data").join("kept").exists());
    let made_up = manager.ctl(&["volume", "create"]).ok();
    let made_up = made_up.trim();
    assert_eq!(made_up.len(), 64);

    let table = manager.ctl(&["volume", "ls"]).ok();
    assert!(table.starts_with("DRIVER") && table.contains("VOLUME NAME") && table.contains("local    data"));
    let shown = volume(&manager, "data");
    assert_eq!(
        shown["mountpoint"],
        data(&manager, "data").to_string_lossy().as_ref()
    );
    assert_eq!(
        (&shown["labels"]["tier"], &shown["anonymous"]),
        (&json!("one"), &json!(false))
    );
    assert_eq!(volume(&manager, made_up)["anonymous"], true);

    // Used by a container that does not even run.
    manager
        .ctl(&["create", "--name", "user", "-v", "data:/data", &image])
        .ok();
    let user = manager.inspect("user")["id"].as_str().expect("an id").to_owned();
    let refused = manager.ctl(&["volume", "rm", "data"]).refused();
    assert!(
        refused.contains("remove data: volume is in use") && refused.contains(&user),
        "{refused}"
    );
    assert_eq!(volume(&manager, "data")["containers"], json!([user]));
    for (filter, expected) in [
        ("dangling=true", vec![made_up]),
        ("dangling=false", vec!["data"]),
        ("label=tier=one", vec!["data"]),
        ("name=at", vec!["data"]),
        ("driver=other", vec![]),
    ] {
        assert_eq!(names(&manager, &["--filter", filter]), expected, "{filter}");
    }
    // Only what nobody named, then all that nobody uses.
    let pruned = manager.ctl(&["volume", "prune", "-f"]).ok();
    assert!(
        pruned.starts_with(made_up) && pruned.contains("Total reclaimed space"),
        "{pruned}"
    );
    manager.ctl(&["rm", "-v", "user"]).ok();
    assert_eq!(names(&manager, &[]), ["data"], "it has a name, and stays");
    let pruned = manager
        .ctl(&["volume", "prune", "-af", "--filter", "label!=tier"])
        .ok();
    assert!(!pruned.contains("data"), "{pruned}");
    let pruned = manager.ctl(&["volume", "prune", "-a", "-f"]).ok();
    assert!(pruned.starts_with("data\n"), "{pruned}");
    assert_eq!(folders(&manager), [""; 0]);

    for (args, word) in [
        (&["rm", "data"][..], "no such volume: data"),
        (&["inspect", "data"], "no such volume: data"),
        (&["create", "a/b"], "a/b"),
        (&["create", "-d", "nfs", "ab"], "\"nfs\""),
        (&["create", "-o", "type=tmpfs", "ab"], "device"),
        (&["create", "-o", "colour=red", "ab"], "colour"),
        (&["ls", "--filter", "until=1h"], "until"),
    ] {
        let refused = manager.ctl(&[&["volume"], args].concat()).refused();
        assert!(refused.contains(word), "{refused}");
    }
    manager.ctl(&["volume", "rm", "-f", "data"]).ok();
}

#[test]
fn anonymous_volumes_go_with_their_container_and_named_ones_stay() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let mut image = Image::busybox();
    image.config["Volumes"] = json!({"/declared": {}});
    let image = manager.registry().push(&image, "declares:1");
    manager.ctl(&["pull", &image]).ok();

    let flags = ["-v", "/own", "-v", "named:/named"];
    let script =
        "for d in /declared /own /named; do echo $d > $d/file && grep -q \" $d \" /proc/mounts; done";
    manager
        .ctl(
            &[
                &["run", "--name", "one"],
                &flags[..],
                &[&image, "sh", "-c", script],
            ]
            .concat(),
        )
        .ok();
    assert_eq!(names(&manager, &[]).len(), 3);
    // It writes on where it was.
    assert_eq!(manager.ctl(&["start", "-a", "one"]).ok(), "");
    let mounts = manager.inspect("one")["mounts"].clone();
    let of = |target: &str| {
        let mounts = mounts.as_array().into_iter().flatten();
        let mut found = mounts.filter(|mount| mount["target"] == target);
        found.next().expect("a mount")["source"]
            .as_str()
            .expect("a name")
            .to_owned()
    };
    assert_eq!(
        fs::read_to_string(data(&manager, &of("/own")).join("file")).expect("a file"),
        "/own\n"
    );

    // Another one sees them, and keeps them from going.
    let seen = "cat /declared/file /own/file /named/file; touch /own/new 2>/dev/null || echo closed";
    manager
        .ctl(&[
            "create",
            "--name",
            "two",
            "--volumes-from",
            "one:ro",
            &image,
            "sh",
            "-c",
            seen,
        ])
        .ok();
    assert_eq!(
        manager.ctl(&["start", "-a", "two"]).ok(),
        "/declared\n/own\n/named\nclosed\n"
    );
    manager.ctl(&["rm", "-v", "one"]).ok();
    assert_eq!(names(&manager, &[]).len(), 3);
    manager.ctl(&["rm", "-v", "two"]).ok();
    assert_eq!(names(&manager, &[]), ["named"]);

    sh(&manager, &flags, &image, "cat /named/file; test ! -e /own/file");
    assert_eq!(
        names(&manager, &[]),
        ["named"],
        "--rm takes along what has no name"
    );
    // Without -v they stay.
    manager
        .ctl(&["run", "--name", "three", "-v", "/own", &image, "true"])
        .ok();
    manager.ctl(&["rm", "three"]).ok();
    assert_eq!(names(&manager, &["--filter", "dangling=true"]).len(), 3);
    assert_eq!(folders(&manager), names(&manager, &[]));
}

#[test]
fn what_a_container_sees_is_what_its_mounts_say() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let host = sandbox.path().join("host");
    fs::create_dir_all(host.join("sub")).expect("make a folder");
    fs::write(host.join("file"), "of the host\n").expect("write a file");
    let (source, host) = (host.display(), &host);
    let bind = |more: &str| format!("type=bind,src={source},dst=/mnt{more}");

    assert_eq!(
        sh(
            &manager,
            &["--mount", &bind("")],
            &image,
            "cat /mnt/file; touch /mnt/made"
        ),
        "of the host\n"
    );
    assert!(host.join("made").exists());
    let closed = "touch /mnt/x /mnt/sub/x 2>/dev/null || echo closed; ls /mnt/sub";
    for flags in [
        &["--mount", &bind(",readonly")][..],
        &[
            "--mount",
            &bind(",ro,bind-recursive=readonly,bind-propagation=rprivate"),
        ],
        &["-v", &format!("{source}:/mnt:ro")],
        &["-v", &format!("{source}:/mnt:ro,rslave,z,cached")],
    ] {
        assert_eq!(sh(&manager, flags, &image, closed), "closed\n");
    }
    // A source that is not there is made for -v alone.
    let missing = host.join("missing");
    let of_missing = format!("type=bind,src={},dst=/mnt", missing.display());
    let refused = manager.ctl(&["create", "--mount", &of_missing, &image]).refused();
    assert!(refused.contains("bind source path does not exist"), "{refused}");
    assert!(!missing.exists());
    sh(
        &manager,
        &["-v", &format!("{}:/mnt", missing.display())],
        &image,
        "true",
    );
    assert!(missing.is_dir());
    sh(
        &manager,
        &["--mount", &format!("{of_missing}2,bind-create-src")],
        &image,
        "true",
    );

    // A mount below is seen, unless it is not to be; it is read-only with the one above, unless it is not to be.
    let tmpfs = || {
        sh(
            &manager,
            &[
                "--mount",
                &bind(",readonly"),
                "--tmpfs",
                "/mnt/sub:size=1m,mode=700,exec",
            ],
            &image,
            "touch /mnt/sub/x && grep ' /mnt/sub ' /proc/mounts; stat -c %a /mnt/sub",
        )
    };
    let told = tmpfs();
    assert!(
        told.contains("tmpfs rw,nosuid,nodev,") && told.contains("size=1024k"),
        "{told}"
    );
    assert!(!told.contains("noexec") && told.ends_with("\n700\n"), "{told}");
    let mount = "type=tmpfs,dst=/mem,tmpfs-size=1m,tmpfs-mode=1750,ro";
    let told = sh(
        &manager,
        &["--mount", mount],
        &image,
        "grep ' /mem ' /proc/mounts; stat -c %a /mem",
    );
    assert!(
        told.contains("ro,nosuid,nodev,noexec") && told.ends_with("\n1750\n"),
        "{told}"
    );

    // Part of a volume; a link in it leads nowhere else.
    manager.ctl(&["volume", "create", "parts"]).ok();
    let parts = data(&manager, "parts");
    fs::create_dir_all(parts.join("a/b")).expect("make a part");
    fs::write(parts.join("a/b/file"), "a part\n").expect("write a file");
    symlink("a/b", parts.join("inside")).expect("make a link");
    symlink(host, parts.join("outside")).expect("make a link");
    let part = |path: &str| format!("src=parts,dst=/mnt,volume-subpath={path}");
    for path in ["a/b", "inside"] {
        assert_eq!(
            sh(&manager, &["--mount", &part(path)], &image, "cat /mnt/file"),
            "a part\n"
        );
    }
    for (path, word) in [
        ("outside", "cross-device"),
        ("nothing", "No such file"),
        ("a/../..", "within"),
    ] {
        let refused = manager
            .ctl(&["run", "--rm", "--mount", &part(path), &image, "true"])
            .refused();
        assert!(refused.contains(word) && refused.contains(path), "{refused}");
    }

    let own = ["-v", "/mnt", "--mount"];
    for (args, word) in [
        (
            &[&own[..], &["type=tmpfs,dst=/mnt/"]].concat()[..],
            "duplicate mount point",
        ),
        (&["--volumes-from", "nobody"], "no such container: nobody"),
        (&["--volume-driver", "nfs", "-v", "/mnt"], "\"nfs\""),
        (&["--tmpfs", "/mnt:fast"], "\"fast\""),
        (&["-v", "x:/mnt"], "\"x\""),
        (&["-v", "/"], "root directory"),
    ] {
        let refused = manager.ctl(&[&["create"], args, &[&image]].concat()).refused();
        assert!(refused.contains(word), "{refused}");
    }
    assert_eq!(names(&manager, &[]), ["parts"]);
}

/// An image with a folder of every kind of file, as the tar of it says.
fn furnished() -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, link: &str, text: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(4321);
        header.set_mtime(1_600_000_000);
        header.set_size(text.len() as u64);
        if link.is_empty() {
            builder
                .append_data(&mut header, path, text)
                .expect("add to the layer");
        } else {
            builder
                .append_link(&mut header, path, link)
                .expect("add to the layer");
        }
    };
    put("srv/data", tar::EntryType::Directory, 0o2751, "", b"");
    put("srv/data/sub", tar::EntryType::Directory, 0o700, "", b"");
    put(
        "srv/data/sub/file",
        tar::EntryType::Regular,
        0o4640,
        "",
        b"of the image\n",
    );
    put(
        "srv/data/again",
        tar::EntryType::Link,
        0o640,
        "srv/data/sub/file",
        b"",
    );
    put(
        "srv/data/link",
        tar::EntryType::Symlink,
        0o777,
        "../../etc/passwd",
        b"",
    );
    put("srv/data/fifo", tar::EntryType::Fifo, 0o600, "", b"");
    // A hole of two megabytes between two letters.
    let mut holed = vec![0; 2 << 20];
    holed[0] = b'a';
    holed.push(b'z');
    put("srv/data/holed", tar::EntryType::Regular, 0o600, "", &holed);
    put("data", tar::EntryType::Symlink, 0o777, "srv/data", b"");
    Layer::from_tar(&builder.into_inner().expect("finish the layer"))
}

#[test]
fn an_empty_volume_gets_what_the_image_has_and_only_then() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    // Of two layers: the upper one takes a file away.
    let image = Image::busybox()
        .with_layer(Layer::from_files(&[
            ("srv/data/gone", "x"),
            ("srv/other/file", "other\n"),
        ]))
        .with_layer(furnished())
        .with_layer(Layer::from_files(&[("srv/data/.wh.gone", "")]));
    let image = manager.registry().push(&image, "furnished:1");
    manager.ctl(&["pull", &image]).ok();

    // By a link in the image.
    assert_eq!(
        sh(&manager, &["-v", "vol:/data"], &image, "cat /srv/data/sub/file"),
        "of the image\n"
    );
    let vol = data(&manager, "vol");
    let at = |path: &str| fs::symlink_metadata(vol.join(path)).expect("a file of the image");
    let looks = |path: &str| {
        (
            at(path).mode() & 0o7777,
            at(path).uid(),
            at(path).gid(),
            at(path).mtime(),
        )
    };
    assert_eq!(looks("."), (0o2751, 1234, 4321, 1_600_000_000));
    assert_eq!(looks("sub"), (0o700, 1234, 4321, 1_600_000_000));
    assert_eq!(looks("sub/file"), (0o4640, 1234, 4321, 1_600_000_000));
    assert_eq!(at("again").ino(), at("sub/file").ino());
    assert_eq!(
        fs::read_link(vol.join("link")).expect("a link"),
        Path::new("../../etc/passwd")
    );
    assert!(!vol.join("gone").exists() && vol.join("fifo").exists());
    assert_eq!(at("holed").size(), (2 << 20) + 1);
    assert!(!vol.parent().expect("its folder").join("_copied").exists());

    // What is there stays, and what was deleted too.
    fs::remove_dir_all(vol.join("sub")).expect("remove a folder");
    assert_eq!(
        sh(&manager, &["-v", "vol:/srv/data"], &image, "ls /srv/data"),
        "again\nfifo\nholed\nlink\n"
    );
    assert_eq!(
        sh(
            &manager,
            &["-v", "vol:/srv/other"],
            &image,
            "ls /srv/other | wc -l"
        ),
        "4\n"
    );
    // Nothing is copied if that is not wanted, or from nothing, or by one that has run before.
    assert_eq!(
        sh(
            &manager,
            &["-v", "bare:/srv/other:nocopy"],
            &image,
            "ls /srv/other"
        ),
        ""
    );
    assert_eq!(sh(&manager, &["-v", "bare:/nothing"], &image, "ls /nothing"), "");
    manager
        .ctl(&[
            "run",
            "--name",
            "one",
            "-v",
            "bare:/srv/other",
            &image,
            "sh",
            "-c",
            "cat /srv/other/*; rm /srv/other/*",
        ])
        .ok();
    let again = manager.ctl(&["start", "-a", "one"]).refused();
    assert!(again.contains("No such file"), "{again}");
    // Into what its options mount, too; nothing of the copy's making is left there.
    let mounted = "dst=/srv/data,volume-opt=type=tmpfs,volume-opt=device=tmpfs";
    let told = sh(
        &manager,
        &["--mount", mounted],
        &image,
        "ls -A /srv/data | wc -l; cat /srv/data/sub/file",
    );
    assert_eq!(told, "5\nof the image\n");
    // Ownership comes even with an empty folder.
    assert_eq!(
        sh(
            &manager,
            &["-v", "/srv/data"],
            &image,
            "stat -c %u /srv/data; ls /srv/data | wc -l"
        ),
        "1234\n5\n"
    );
}

#[test]
fn a_volume_with_options_is_mounted_while_containers_use_it() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,noexec"];
    manager
        .ctl(&[&["volume", "create"], &options[..], &["mem"]].concat())
        .ok();
    assert_eq!(volume(&manager, "mem")["options"]["o"], "size=1m,noexec");
    let place = data(&manager, "mem");
    let run = |name: &str| {
        manager
            .ctl(&[
                "run", "-d", "--name", name, "-v", "mem:/etc", &image, "sleep", "1000",
            ])
            .ok();
    };
    run("one");
    run("two");
    assert_eq!(mounted_at(&place), 1);
    manager.ctl(&["exec", "one", "touch", "/etc/made"]).ok();
    manager.ctl(&["exec", "two", "ls", "/etc/made"]).ok();
    let told = manager
        .ctl(&["exec", "two", "grep", " /etc ", "/proc/mounts"])
        .ok();
    assert!(told.contains("noexec") && told.contains("size=1024k"), "{told}");
    // The next manager knows for whom it is mounted.
    manager.kill();
    manager.start_again();
    manager.ctl(&["rm", "-f", "one"]).ok();
    assert_eq!(mounted_at(&place), 1);
    manager.ctl(&["stop", "-t", "0", "two"]).ok();
    integration::eventually("the volume is unmounted", || {
        (mounted_at(&place) == 0).then_some(())
    });
    // One that dies while the last container ends leaves that to the next.
    manager.ctl(&["start", "two"]).ok();
    let pid = manager.inspect("two")["pid"].as_i64().expect("a pid") as i32;
    manager.kill();
    assert_eq!(mounted_at(&place), 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("end it");
    manager.start_again();
    assert_eq!(mounted_at(&place), 0);

    // A directory of the host, which outlives its volume.
    let host = sandbox.path().join("host");
    fs::create_dir(&host).expect("make a folder");
    let device = format!("device={}", host.display());
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
            "there",
        ])
        .ok();
    sh(&manager, &["-v", "there:/mnt"], &image, "echo kept > /mnt/file");
    manager.ctl(&["volume", "rm", "there"]).ok();
    assert_eq!(fs::read_to_string(host.join("file")).expect("its file"), "kept\n");
    // What cannot be mounted is told by name.
    let options = ["-o", "type=none", "-o", "o=bind", "-o", "device=/nothing/there"];
    manager
        .ctl(&[&["volume", "create"], &options[..], &["lost"]].concat())
        .ok();
    let refused = manager
        .ctl(&["run", "--rm", "-v", "lost:/mnt", &image, "true"])
        .refused();
    assert!(
        refused.contains("mount /nothing/there") && refused.contains("No such file"),
        "{refused}"
    );
}

/// Whoever mounts something in a volume's folder keeps what is in it.
#[test]
fn nothing_is_deleted_through_a_mount() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    manager.ctl(&["volume", "create", "vol"]).ok();
    let precious = sandbox.path().join("precious");
    fs::create_dir(&precious).expect("make a folder");
    fs::write(precious.join("file"), "x").expect("write a file");
    let place = data(&manager, "vol").join("place");
    fs::create_dir(&place).expect("make a mount point");
    integration::run(
        std::process::Command::new("mount")
            .arg("--bind")
            .args([&precious, &place]),
    )
    .ok();
    manager.ctl(&["volume", "rm", "vol"]).ok();
    assert!(precious.join("file").exists());
    // Its name is free; what is mounted keeps the folder, until somebody takes that away.
    manager.ctl(&["volume", "create", "vol"]).ok();
    let trash = folders(&manager);
    let trash = trash
        .iter()
        .find(|name| name.starts_with(".removed-"))
        .expect("the folder is kept");
    let place = manager.root().join("volumes").join(trash).join("_data/place");
    integration::run(std::process::Command::new("umount").arg(&place)).ok();
    manager.kill();
    manager.start_again();
    assert_eq!(folders(&manager), ["vol"]);
    assert!(precious.join("file").exists());
}

#[test]
fn disk_usage_tells_of_volumes() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let fill = "dd if=/dev/zero of=/data/file bs=1000 count=300";
    manager
        .ctl(&[
            "run",
            "--name",
            "user",
            "-v",
            "used:/data",
            &image,
            "sh",
            "-c",
            fill,
        ])
        .ok();
    manager
        .ctl(&["run", "--rm", "-v", "idle:/data", &image, "sh", "-c", fill])
        .ok();
    let usage = manager.ctl(&["system", "df", "--format", "json"]).ok();
    let usage: serde_json::Value = serde_json::from_str(&usage).expect("JSON");
    let volumes = usage["volumes"].as_array().expect("volumes");
    let of = |name: &str| {
        let volume = volumes.iter().find(|volume| volume["name"] == name).expect(name);
        let bytes = volume["bytes"].as_u64().expect("a number");
        assert!((300_000..400_000).contains(&bytes), "{volume}");
        volume["containers"].clone()
    };
    assert_eq!((of("used"), of("idle")), (1.into(), 0.into()));
    let table = manager.ctl(&["system", "df"]).ok();
    let row = table
        .lines()
        .find(|line| line.starts_with("Local Volumes"))
        .expect(&table);
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[2..4], ["2", "1"], "{row}");
    assert_ne!(cells[4], cells[5], "what is in use is not reclaimable: {row}");
    let each = manager.ctl(&["system", "df", "-v"]).ok();
    assert!(each.contains("VOLUME NAME") && each.contains("idle"), "{each}");
}
