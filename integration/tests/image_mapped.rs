//! One unpacked image under containers of different user namespaces at once: the layers as the manager's store has
//! them, mounted by the shim.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use image::{Config, Description, Images, Layers, Owners, Platform, Rootfs, tree_bytes};
use integration::{Bundle, Sandbox, Shim, Streams, busybox_rootfs, patience};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A store with one image, of busybox, whose `/` belongs to `owner`.
fn store(sandbox: &Sandbox, owner: u32) -> (Images, image::Image) {
    store_keeping(sandbox, owner, Config::default()).expect("open the store")
}

fn store_keeping(
    sandbox: &Sandbox,
    owner: u32,
    config: Config,
) -> Result<(Images, image::Image), image::Error> {
    let folder = sandbox.path().join("content");
    busybox_rootfs(&folder);
    chown(&folder, Some(owner), None).expect("give the root away");
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", &folder).expect("pack the image");
    let archive = archive.into_inner().expect("pack the image");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let opened = runtime
        .expect("a runtime")
        .block_on(Images::open_with(&sandbox.path().join("store"), config));
    let images = opened?;
    let description = Description {
        name: Some("busybox:1".into()),
        author: String::new(),
        comment: String::new(),
        created_by: String::new(),
        config: json!({}),
        platform: Some(Platform::host()),
    };
    let image = images.import(&archive[..], &description).expect("import");
    Ok((images, image))
}

fn owners(uids: &str, gids: &str) -> Owners {
    Owners {
        uids: uids.parse().expect("a map"),
        gids: gids.parse().expect("a map"),
    }
}

/// A shim whose container runs on `rootfs`, in a user namespace if that has mapped owners.
fn started(sandbox: &Sandbox, name: &str, rootfs: &Rootfs) -> Shim {
    let id = format!("{}-{name}", sandbox.id());
    let mut bundle = Bundle::named(sandbox, name, &["sleep", "1000"]);
    bundle.set("/linux/cgroupsPath", json!(format!("/berth-test/{id}")));
    if let Some(owners) = &rootfs.owners {
        bundle.push("/linux/namespaces", json!({"type": "user"}));
        bundle.set("/linux/uidMappings", lines(&owners.uids.to_string()));
        bundle.set("/linux/gidMappings", lines(&owners.gids.to_string()));
    }
    // The shim mounts the root over an empty folder.
    fs::remove_dir_all(bundle.rootfs()).expect("empty the root");
    fs::create_dir(bundle.rootfs()).expect("empty the root");
    let shim = Shim::start_as(sandbox, bundle.path(), &id, &bundle);
    let mut request = shim.request();
    let mut mount = Mount::new();
    mount.type_ = "overlay".into();
    mount.source = "overlay".into();
    mount.options = rootfs.overlay_options();
    request.rootfs = vec![mount];
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    shim
}

/// The mappings of a config.json.
fn lines(map: &str) -> Value {
    let range = |text: &str| {
        let numbers: Vec<u32> = text.split(':').map(|n| n.parse().expect("a number")).collect();
        json!({"containerID": numbers[0], "hostID": numbers[1], "size": numbers[2]})
    };
    map.split(',').map(range).collect()
}

/// What a script says in the running container.
fn says(shim: &Shim, script: &str) -> String {
    let streams = Streams {
        stdout: shim.log_uri(),
        ..Streams::default()
    };
    shim.add_exec("script", script, &streams).expect("exec");
    shim.start_process("script");
    assert_eq!(shim.wait("script"), 0, "{script}");
    shim.delete("script").expect("delete the exec");
    let said = shim.logged("stdout");
    fs::remove_file(shim.log()).expect("forget what was said");
    said
}

/// Owner, mode, change time and content. The change time tells of what is put back afterwards, too.
type Looks = ((u32, u32), u32, (i64, i64), Vec<u8>);

/// All below `root`, by path.
fn look(root: &Path) -> BTreeMap<PathBuf, Looks> {
    let mut found = BTreeMap::new();
    // That of a mounted image is a link.
    let mut waiting = vec![root.join(".")];
    while let Some(path) = waiting.pop() {
        let status = path.symlink_metadata().expect("look");
        let mut content = Vec::new();
        if status.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .expect("list")
                    .map(|e| e.expect("list").path()),
            );
        } else if status.is_file() {
            content = fs::read(&path).expect("read");
        }
        let owner = (status.uid(), status.gid());
        let changed = (status.ctime(), status.ctime_nsec());
        let looks = (owner, status.mode(), changed, content);
        found.insert(path.strip_prefix(root).expect("below").to_owned(), looks);
    }
    found
}

#[test]
fn containers_of_different_user_namespaces_share_one_unpacked_image() {
    let sandbox = Sandbox::new();
    share(&sandbox, store(&sandbox, 0));
}

#[test]
fn containers_of_different_user_namespaces_share_one_mounted_image() {
    let sandbox = Sandbox::new();
    let config = Config {
        layers: Layers::Erofs,
        ..Config::default()
    };
    match store_keeping(&sandbox, 0, config) {
        Ok(store) => share(&sandbox, store),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

fn share(sandbox: &Sandbox, (images, image): (Images, image::Image)) {
    let store = sandbox.path().join("store");
    let layers_bytes = || tree_bytes(&store.join("s")).expect("measure the layers");
    let before_bytes = layers_bytes();
    // Each with its owner of what its root writes, on the host.
    let first = owners("0:100000:65536", "0:200000:65536");
    let second = owners("0:1000:1,1:300000:65535", "0:400000:65536");
    let rootfs = [
        ("plain", images.prepare(&image, "plain"), (0, 0)),
        (
            "first",
            images.prepare_with_mounts(&image, "first", Some(&first), &[]),
            (100_000, 200_000),
        ),
        (
            "second",
            images.prepare_with_mounts(&image, "second", Some(&second), &[]),
            (1000, 400_000),
        ),
    ]
    .map(|(name, prepared, owner)| (name, prepared.expect("prepare"), owner));
    let layer = &rootfs[0].1.lower[0];
    let before = look(layer);
    let shims = rootfs
        .each_ref()
        .map(|(name, rootfs, _)| started(sandbox, name, rootfs));

    // All of them run from here on.
    let maps = shims.each_ref().map(|shim| says(shim, "cat /proc/self/uid_map"));
    assert!(maps[0] != maps[1] && maps[1] != maps[2], "{maps:?}");
    for (shim, (name, _, _)) in shims.iter().zip(&rootfs) {
        let script = format!(
            "stat -c %u:%g / /bin/busybox /etc/passwd; \
             echo of {name} > /own; chmod 600 /etc/passwd; rm /etc/group; mkdir /made; touch /made/file"
        );
        assert_eq!(says(shim, &script), "0:0\n0:0\n0:0\n");
    }
    for (shim, (name, _, _)) in shims.iter().zip(&rootfs) {
        let script = "cat /own; stat -c %u:%g:%a /own /etc/passwd /made/file; ls /etc";
        let expected = format!("of {name}\n0:0:644\n0:0:600\n0:0:644\npasswd\n");
        assert_eq!(says(shim, script), expected);
    }
    for (_, rootfs, (uid, gid)) in &rootfs {
        for path in ["", "own", "etc", "etc/passwd", "made", "made/file"] {
            let status = rootfs.upper.join(path).metadata().expect("look");
            assert_eq!((status.uid(), status.gid()), (*uid, *gid), "{path}");
        }
        let work = rootfs.work.metadata().expect("look");
        assert_eq!((work.uid(), work.gid()), (*uid, *gid));
        // What was not written was not copied.
        assert!(!rootfs.upper.join("bin").exists());
        assert!(tree_bytes(&rootfs.upper).expect("measure") < before_bytes / 10);
        assert_eq!(&rootfs.lower[0], layer);
    }
    assert_eq!(layers_bytes(), before_bytes);
    assert!(look(layer) == before, "the image's files are as they were");

    for (shim, (name, rootfs, _)) in shims.into_iter().zip(&rootfs) {
        assert_eq!(
            images.rootfs(name).expect("find"),
            *rootfs,
            "a restart finds the mappings"
        );
        shim.kill("", 9).expect("kill");
        shim.wait("");
        shim.end();
        images.release(name).expect("release");
    }
    assert!(look(layer) == before, "the image's files are as they were");
}

#[test]
fn a_mapping_without_the_owner_of_the_images_root_leaves_nothing() {
    let sandbox = Sandbox::new();
    let (images, image) = store(&sandbox, 70_000);
    let mapping = owners("0:100000:65536", "0:100000:65536");
    let refused = images
        .prepare_with_mounts(&image, "c", Some(&mapping), &[])
        .expect_err("refused");
    assert_eq!(refused.kind(), image::Kind::Invalid);
    assert!(refused.to_string().contains("it lacks 70000"), "{refused}");
    assert_eq!(images.leases().expect("list"), Vec::<String>::new());
    assert!(!sandbox.path().join("store/containers/c").exists());
}

#[test]
fn a_container_is_exported_with_the_owners_that_it_sees() {
    let sandbox = Sandbox::new();
    let (images, image) = store(&sandbox, 0);
    let mapping = owners("0:100000:10", "0:200000:10");
    let rootfs = images
        .prepare_with_mounts(&image, "c", Some(&mapping), &[])
        .expect("prepare");
    let written = [
        ("theirs", (100_005, 200_006), (5, 6)),
        ("others", (7, 8), (65_534, 65_534)),
    ];
    for (name, (uid, gid), _) in written {
        fs::write(rootfs.upper.join(name), name).expect("write");
        std::os::unix::fs::chown(rootfs.upper.join(name), Some(uid), Some(gid)).expect("chown");
    }
    let mut archive = Vec::new();
    images
        .export("c", &CancellationToken::new(), &mut archive)
        .expect("export");
    let mut seen = BTreeMap::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().expect("entries") {
        let entry = entry.expect("an entry");
        let header = entry.header();
        let ids = (header.uid().expect("a user"), header.gid().expect("a group"));
        seen.insert(entry.path().expect("a path").into_owned(), ids);
    }
    for (name, _, owner) in written {
        assert_eq!(seen[Path::new(name)], owner, "{name}");
    }
    assert_eq!(seen[Path::new("bin/busybox")], (0, 0));
}
