//! What a container finds mounted: as its config says, and nothing of the host's beside.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use integration::{Bundle, Runtime, Sandbox, eventually, is_linux_since, run};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

/// A folder of the host with a file in it.
fn volume(sandbox: &Sandbox) -> PathBuf {
    let volume = sandbox.path().join("volume");
    fs::create_dir_all(volume.join("inner")).expect("make the volume");
    fs::write(volume.join("file"), "from the host\n").expect("write into the volume");
    volume
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A mount of the host's that goes away with the test.
struct HostMount(PathBuf);

impl HostMount {
    fn tmpfs(place: &Path, propagation: MsFlags) -> Self {
        let (none, flags) = (None::<&str>, MsFlags::empty());
        mount(Some("tmpfs"), place, Some("tmpfs"), flags, none).expect("mount a tmpfs");
        mount(none, place, none, propagation, none).expect("set its propagation");
        Self(place.to_owned())
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        while umount2(&self.0, MntFlags::MNT_DETACH).is_ok() {}
    }
}

/// The options of the mount at a place, from the text of a mountinfo.
#[track_caller]
fn options(mountinfo: &str, place: &str) -> String {
    let line = mountinfo
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {place}:\n{mountinfo}"));
    line.split(' ').nth(5).expect("options").to_owned()
}

#[test]
fn the_default_mounts_have_their_options_and_nothing_of_the_host_is_left() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "cat /proc/self/mountinfo");
    bundle
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]));
    let table = runtime.run(&bundle, sandbox.id()).ok();
    assert_eq!(options(&table, "/dev"), "rw,nosuid");
    assert_eq!(options(&table, "/dev/pts"), "rw,nosuid,noexec,relatime");
    assert_eq!(options(&table, "/dev/shm"), "rw,nosuid,nodev,noexec,relatime");
    assert_eq!(options(&table, "/sys"), "ro,nosuid,nodev,noexec,relatime");
    assert_eq!(
        options(&table, "/sys/fs/cgroup"),
        "ro,nosuid,nodev,noexec,relatime"
    );
    let outside = table.lines().filter(|line| {
        let place = line.split(' ').nth(4).expect("a place");
        place != "/" && !["/proc", "/dev", "/sys"].iter().any(|top| place.starts_with(top))
    });
    assert_eq!(outside.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(!table.contains("/mnt") && !table.contains("devtmpfs"), "{table}");
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_refuse_writes() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /secret; ls /hidden; cat /proc/timer_list; ls /sys/firmware; \
         echo x > /fixed/new || echo refused; echo x > /proc/sys/kernel/hostname || echo refused",
    );
    fs::write(bundle.rootfs().join("secret"), "secret\n").expect("write");
    fs::create_dir_all(bundle.rootfs().join("hidden/below")).expect("make");
    fs::create_dir(bundle.rootfs().join("fixed")).expect("make");
    bundle.push("/linux/maskedPaths", json!("/secret"));
    bundle.push("/linux/maskedPaths", json!("/hidden"));
    bundle.push("/linux/maskedPaths", json!("/secret/not/there"));
    bundle.push("/linux/readonlyPaths", json!("/fixed"));
    bundle.push("/linux/readonlyPaths", json!("/not/there"));
    let done = runtime.run(&bundle, sandbox.id());
    assert_eq!(done.clone().ok(), "refused\nrefused\n", "{done}");
    assert!(done.stderr.contains("Read-only file system"), "{done}");
}

#[test]
fn a_read_only_root_takes_no_writes_but_its_tmpfs_do() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "touch /new || echo refused; touch /scratch/new && echo ok; touch /dev/shm/new && echo ok; \
         touch /late/new || echo refused",
    );
    bundle.set("/root/readonly", json!(true));
    bundle.push(
        "/mounts",
        json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"}),
    );
    bundle.push(
        "/mounts",
        json!({"destination": "/late", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}),
    );
    let output = runtime.run(&bundle, sandbox.id()).ok();
    assert_eq!(output, "refused\nok\nok\nrefused\n");
}

#[test]
fn binds_of_files_and_folders_appear_where_they_should() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /data/deep/file /etc/one /etc/resolv.conf /relative/file; touch /data/deep/x || echo refused; \
         echo written > /relative/new; cat /proc/self/mountinfo | grep /etc/one",
    );
    // As in images of systemd's: a link to a file that only exists when the system runs.
    symlink(
        "../run/systemd/resolv.conf",
        bundle.rootfs().join("etc/resolv.conf"),
    )
    .expect("link");
    bundle.push("/mounts", bind(&volume, "/data/deep", &["rbind", "ro"]));
    bundle.push(
        "/mounts",
        bind(&volume.join("file"), "/etc/one", &["bind", "nosuid", "noexec"]),
    );
    bundle.push(
        "/mounts",
        bind(&volume.join("file"), "/etc/resolv.conf", &["bind"]),
    );
    bundle.push("/mounts", bind(Path::new("../volume"), "relative", &["bind"]));
    let output = runtime.run(&bundle, sandbox.id()).ok();
    assert!(
        output.starts_with(&("from the host\n".repeat(4) + "refused\n")),
        "{output}"
    );
    assert!(output.contains("nosuid,noexec"), "{output}");
    assert_eq!(fs::read_to_string(volume.join("new")).expect("read"), "written\n");
    assert!(bundle.rootfs().join("run/systemd/resolv.conf").is_file());
}

#[test]
fn a_tmpfs_with_tmpcopyup_starts_with_the_images_files() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /srv/a/file; stat -c '%a %u %g' /srv/a/file; readlink /srv/link; echo gone > /srv/a/file; cat /srv/a/file",
    );
    let srv = bundle.rootfs().join("srv");
    fs::create_dir_all(srv.join("a")).expect("make");
    fs::write(srv.join("a/file"), "image\n").expect("write");
    chown(srv.join("a/file"), Some(12), Some(34)).expect("chown");
    fs::set_permissions(srv.join("a/file"), fs::Permissions::from_mode(0o2666)).expect("chmod");
    symlink("a/file", srv.join("link")).expect("link");
    bundle.push(
        "/mounts",
        json!({"destination": "/srv", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=755"]}),
    );
    let output = runtime.run(&bundle, sandbox.id()).ok();
    assert_eq!(output, "image\n2666 12 34\na/file\ngone\n");
    assert_eq!(fs::read_to_string(srv.join("a/file")).expect("read"), "image\n");
}

#[test]
fn rro_reaches_mounts_below_the_source_and_ro_does_not() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let _inner = HostMount::tmpfs(&volume.join("inner"), MsFlags::MS_PRIVATE);
    let mut bundle = Bundle::new(
        &sandbox,
        "touch /soft/inner/x && echo ok; touch /hard/inner/y || echo refused; touch /soft/z || echo refused",
    );
    bundle.push("/mounts", bind(&volume, "/soft", &["rbind", "ro"]));
    bundle.push("/mounts", bind(&volume, "/hard", &["rbind", "rro"]));
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "ok\nrefused\nrefused\n");
}

#[test]
fn each_recursive_option_reaches_mounts_below_the_source() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let (plain, closed) = (volume.join("plain"), volume.join("closed"));
    for folder in [&plain, &closed] {
        fs::create_dir(folder).expect("make");
    }
    let _plain = HostMount::tmpfs(&plain, MsFlags::MS_PRIVATE);
    let _closed = HostMount::tmpfs(&closed, MsFlags::MS_PRIVATE);
    let flags = "remount,bind,ro,nosuid,nodev,noexec,noatime,nodiratime";
    integration::run(
        std::process::Command::new("mount")
            .args(["-o", flags])
            .arg(&closed),
    )
    .ok();
    let mut bundle = Bundle::new(&sandbox, "cat /proc/self/mountinfo");
    // Each alone, on what has none of them and on what has all.
    let sets = [
        "rro",
        "rnosuid",
        "rnodev",
        "rnoexec",
        "rnoatime",
        "rnodiratime",
        "rnosymfollow",
    ];
    let clears = [
        "rrw",
        "rsuid",
        "rdev",
        "rexec",
        "rrelatime",
        "rstrictatime",
        "rdiratime",
    ];
    for option in sets.iter().chain(&clears) {
        bundle.push(
            "/mounts",
            bind(&volume, &format!("/{option}"), &["rbind", option]),
        );
    }
    let table = runtime.run(&bundle, sandbox.id()).ok();
    let has = |place: &str, option: &str| options(&table, place).split(',').any(|word| word == option);
    for option in sets {
        assert!(
            has(&format!("/{option}/plain"), &option[1..]),
            "{option}: {table}"
        );
    }
    for (option, gone) in clears.iter().zip([
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "noatime",
        "nodiratime",
    ]) {
        let place = format!("/{option}/closed");
        assert!(!has(&place, gone), "{option}: {table}");
        let kept = if gone == "nodev" { "nosuid" } else { "nodev" };
        assert!(has(&place, kept), "{option} clears nothing else: {table}");
    }
    assert!(has("/rrelatime/closed", "relatime"), "{table}");
}

#[test]
fn a_bind_with_one_flag_has_no_other_of_its_source_but_in_a_user_namespace() {
    let sandbox = Sandbox::new();
    let volume = volume(&sandbox);
    let inner = volume.join("inner");
    let _inner = HostMount::tmpfs(&inner, MsFlags::MS_PRIVATE);
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let flags = "remount,bind,ro,nosuid,noexec,noatime";
    integration::run(
        std::process::Command::new("mount")
            .args(["-o", flags])
            .arg(&inner),
    )
    .ok();
    let runtime = Runtime::new(&sandbox);
    let script = "cat /proc/self/mountinfo; mount -o remount,bind,rw /flag && echo taken away";
    let mut bundle = Bundle::new(&sandbox, script);
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
    }
    bundle
        .push("/mounts", bind(&inner, "/none", &["bind", "rprivate"]))
        .push("/mounts", bind(&inner, "/flag", &["bind", "nodev"]))
        .push("/mounts", bind(&inner, "/back", &["bind", "noatime", "atime"]));
    let table = runtime.run(&bundle, sandbox.id()).stdout;
    assert_eq!(options(&table, "/none"), "ro,nosuid,noexec,noatime");
    assert_eq!(options(&table, "/flag"), "rw,nodev,noatime");
    assert_eq!(options(&table, "/back"), "ro,nosuid,noexec,noatime");

    user_namespace(&mut bundle);
    let table = runtime.run(&bundle, sandbox.id()).stdout;
    assert_eq!(options(&table, "/none"), "ro,nosuid,noexec,noatime");
    assert_eq!(options(&table, "/flag"), "ro,nosuid,nodev,noexec,noatime");
    assert!(!table.contains("taken away"), "{table}");
    bundle.push("/mounts", bind(&inner, "/writable", &["bind", "rw"]));
    let refused = runtime.run(&bundle, sandbox.id()).refused();
    assert!(
        refused.contains("/writable") && refused.contains("user namespace"),
        "{refused}"
    );
}

#[test]
fn no_user_namespace_takes_away_what_the_host_has_set_for_a_source() {
    if !is_linux_since((6, 3), "an idmapped tmpfs") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let (volume, closed) = (volume(&sandbox), sandbox.path().join("closed"));
    fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let (open, hidden) = (volume.join("inner"), closed.join("inner"));
    fs::create_dir_all(&hidden).expect("make");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    let _mounts = [&open, &hidden].map(|place| HostMount::tmpfs(place, MsFlags::MS_PRIVATE));
    let remount = |place: &Path, flags: &str| {
        let flags = format!("remount,bind,{flags}");
        run(Command::new("mount").args(["-o", &flags]).arg(place)).ok();
    };
    for place in [&open, &hidden] {
        fs::create_dir(place.join("below")).expect("make");
        remount(place, "ro,nosuid");
    }
    let script = "for place in /volume-*; do mount -o remount,bind,rw,suid $place 2>/dev/null && echo $place taken; \
                  ls $place; done; exec sleep 1000";
    let mut bundle = Bundle::new(&sandbox, script);
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
    }
    user_namespace(&mut bundle);
    for (index, source) in [&open, &hidden].into_iter().enumerate() {
        for (name, options) in [
            ("plain", json!(["bind"])),
            ("recursive", json!(["rbind"])),
            ("mapped", json!(["bind", "idmap"])),
            ("flag", json!(["rbind", "noexec"])),
        ] {
            let mut entry = bind(source, &format!("/volume-{name}-{index}"), &[]);
            entry["options"] = options;
            bundle.push("/mounts", entry);
        }
    }
    // From a working folder of its own, to which the runtime has to come back.
    let mut command = runtime.over("run", &bundle, sandbox.id(), &["--pid-file", "pid"]);
    let output = sandbox.path().join("output");
    let child = command
        .current_dir(sandbox.path())
        .stdout(fs::File::create(&output).expect("make a file"))
        .spawn()
        .expect("start the runtime");
    let shown = eventually("the container has tried", || {
        let shown = fs::read_to_string(&output).expect("read");
        (shown.lines().count() >= 8).then_some(shown)
    });
    assert_eq!(shown, "below\n".repeat(8));
    assert!(sandbox.path().join("pid").exists());
    runtime.delete(sandbox.id());
    runtime.finish(child);

    // Without the mounts below it the host's own has to be bound, which nothing locks.
    for source in [&open, &hidden] {
        let _below = HostMount::tmpfs(&source.join("below"), MsFlags::MS_PRIVATE);
        fs::write(source.join("below/file"), "").expect("write");
        let mut bundle = Bundle::named(&sandbox, "alone", &["/bin/sh", "-c", "ls /data/below; echo end"]);
        user_namespace(&mut bundle);
        bundle.push("/mounts", bind(source, "/data", &["bind"]));
        let refused = runtime.run(&bundle, sandbox.id()).refused();
        assert!(refused.contains("bind it with rbind"), "{refused}");
        remount(source, "rw,suid");
        assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "end\n");
        fs::remove_dir_all(bundle.path()).expect("remove the bundle");
    }
}

#[test]
fn in_somebody_elses_user_namespace_a_bind_keeps_what_is_locked() {
    // As under rootless podman: the config has no user namespace, but the caller is in one.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let inner = volume.join("inner");
    let _inner = HostMount::tmpfs(&inner, MsFlags::MS_PRIVATE);
    let flags = "remount,bind,nosuid,nodev,noexec";
    run(Command::new("mount").args(["-o", flags]).arg(&inner)).ok();
    let mut bundle = Bundle::new(&sandbox, "cat /proc/self/mountinfo");
    for entry in bundle.config["mounts"].as_array_mut().expect("mounts") {
        if entry["destination"] == "/dev/pts" {
            // The namespace has one group.
            entry["options"] = json!(["nosuid", "noexec", "newinstance"]);
        }
    }
    bundle
        .push("/mounts", bind(&inner, "/writable", &["rbind", "rw", "rprivate"]))
        .push("/mounts", bind(&inner, "/fixed", &["bind", "ro"]))
        .push("/mounts", bind(&inner, "/programs", &["bind", "exec"]));
    let run_in_namespace = |bundle: &Bundle| {
        let inner = runtime.over("run", bundle, sandbox.id(), &[]);
        let mut command = Command::new("unshare");
        command
            .arg("-Urm")
            .arg(inner.get_program())
            .args(inner.get_args());
        run(&mut command)
    };
    let refused = run_in_namespace(&bundle).refused();
    assert!(
        refused.contains("/programs") && refused.contains("not permitted"),
        "{refused}"
    );
    // The hint is for a user namespace of the config's.
    assert!(!refused.contains("no user namespace"), "{refused}");
    bundle.config["mounts"].as_array_mut().expect("mounts").pop();
    let table = run_in_namespace(&bundle).ok();
    assert_eq!(options(&table, "/writable"), "rw,nosuid,nodev,noexec,relatime");
    assert_eq!(options(&table, "/fixed"), "ro,nosuid,nodev,noexec,relatime");
}

#[test]
fn idmap_is_for_the_top_mount_and_ridmap_for_all_below() {
    if !is_linux_since((6, 3), "an idmapped tmpfs") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let _inner = HostMount::tmpfs(&volume.join("inner"), MsFlags::MS_PRIVATE);
    fs::write(volume.join("inner/file"), "").expect("write");
    let mut bundle = Bundle::new(
        &sandbox,
        "stat -c %u:%g /top/file /top/inner/file /all/file /all/inner/file",
    );
    for (destination, option) in [("/top", "idmap"), ("/all", "ridmap")] {
        let mut entry = bind(&volume, destination, &["rbind", option]);
        // Several ranges, too.
        entry["uidMappings"] = json!([
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 5000, "size": 10}
        ]);
        entry["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 1}]);
        bundle.push("/mounts", entry);
    }
    let text = runtime.run(&bundle, sandbox.id()).ok();
    assert_eq!(text, "1000:2000\n0:0\n1000:2000\n1000:2000\n");
}

#[test]
fn idmapped_binds_show_and_write_other_owners() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    chown(volume.join("file"), Some(5), Some(6)).expect("chown");
    chown(&volume, Some(0), Some(0)).expect("chown");
    let mut bundle = Bundle::new(&sandbox, "stat -c '%u %g' /mapped/file /plain/file");
    let mut mapped = bind(&volume, "/mapped", &["bind", "idmap"]);
    mapped["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    mapped["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 100}]);
    bundle.push("/mounts", mapped);
    bundle.push("/mounts", bind(&volume, "/plain", &["bind"]));
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "1005 2006\n5 6\n");
}

fn user_namespace(bundle: &mut Bundle) {
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    for ids in ["/linux/uidMappings", "/linux/gidMappings"] {
        bundle.set(ids, json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    }
    chown_all(&bundle.rootfs());
}

fn chown_all(path: &Path) {
    std::os::unix::fs::lchown(path, Some(100_000), Some(100_000)).expect("chown");
    if path.symlink_metadata().expect("stat").is_dir() {
        for entry in fs::read_dir(path).expect("list").flatten() {
            chown_all(&entry.path());
        }
    }
}

#[test]
fn a_bind_may_come_from_an_earlier_mount_of_the_container() {
    let owners = [
        (false, false, "5:6"),
        (true, false, "65534:65534"),
        (false, true, "100005:100006"),
        (true, true, "5:6"),
    ];
    for (in_user_namespace, mapped, owner) in owners {
        let sandbox = Sandbox::new();
        let runtime = Runtime::new(&sandbox);
        let volume = volume(&sandbox);
        chown(volume.join("file"), Some(5), Some(6)).expect("chown");
        // Whoever writes to the volume can put a link there; what it names is the container's, not the host's.
        symlink("/etc", volume.join("link")).expect("link");
        let script = "cat /again/file /taken/mark; stat -c %u:%g /again/file; cat /whole/again/file";
        let mut bundle = Bundle::new(&sandbox, script);
        let rootfs = bundle.rootfs();
        fs::write(rootfs.join("etc/mark"), "of the image\n").expect("write");
        if in_user_namespace {
            user_namespace(&mut bundle);
        }
        let mut again = bind(&rootfs.join("data"), "/again", &["bind"]);
        if mapped {
            for ids in ["uidMappings", "gidMappings"] {
                again[ids] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            }
        }
        // A destination as the host has it is one in the rootfs, too.
        let taken = rootfs.join("taken");
        bundle
            .push("/mounts", bind(&volume, "/data", &["bind"]))
            .push("/mounts", again)
            .push(
                "/mounts",
                bind(
                    &rootfs.join("data/link"),
                    taken.to_str().expect("a path"),
                    &["bind"],
                ),
            )
            .push("/mounts", bind(&rootfs, "/whole", &["rbind"]));
        assert_eq!(
            runtime.run(&bundle, sandbox.id()).ok(),
            format!("from the host\nof the image\n{owner}\nfrom the host\n"),
            "user namespace: {in_user_namespace}, mapped: {mapped}"
        );
    }
}

#[test]
fn more_mounts_than_the_container_may_open_files_in_a_user_namespace() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "cat /volume-29/file; exec sleep 1000");
    user_namespace(&mut bundle);
    for index in 0..30 {
        let mut entry = bind(&volume, &format!("/volume-{index}"), &["bind", "idmap"]);
        for ids in ["uidMappings", "gidMappings"] {
            entry[ids] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
        bundle.push("/mounts", entry);
    }
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 20}]),
    );
    runtime.detach(&bundle, sandbox.id());
    let inside = runtime.exec(
        sandbox.id(),
        "ulimit -Sn; ulimit -Hn; cat /volume-0/file; grep files /proc/1/limits",
    );
    let limits = inside.ok();
    let lines: Vec<Vec<&str>> = limits
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[..2], [["20"], ["20"]], "{limits}");
    assert_eq!(lines[2], ["from", "the", "host"], "{limits}");
    assert_eq!(
        lines[3],
        ["Max", "open", "files", "20", "20", "files"],
        "{limits}"
    );
    runtime.delete(sandbox.id());
}

#[test]
fn a_user_namespace_gets_devices_and_binds_from_where_its_root_may_not_look() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let closed = sandbox.path().join("closed");
    fs::create_dir(&closed).expect("make");
    fs::rename(&volume, closed.join("volume")).expect("move");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /data/file /one; echo x > /dev/null && head -c 3 /dev/zero | wc -c; stat -c '%t %T' /dev/null /dev/tty; \
         cat /proc/self/uid_map; readlink /dev/ptmx; ls /dev/pts",
    );
    user_namespace(&mut bundle);
    bundle.push("/mounts", bind(&closed.join("volume"), "/data", &["rbind", "ro"]));
    bundle.push("/mounts", bind(&closed.join("volume/file"), "/one", &["bind"]));
    let output = runtime.run(&bundle, sandbox.id()).ok();
    assert!(
        output.starts_with("from the host\nfrom the host\n3\n1 3\n5 0\n"),
        "{output}"
    );
    assert!(output.contains("pts/ptmx\nptmx\n"), "{output}");
}

#[test]
fn idmap_without_mappings_takes_the_containers() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "stat -c '%u %g' /mapped/file; echo x > /mapped/new; id -u",
    );
    user_namespace(&mut bundle);
    bundle.push("/mounts", bind(&volume, "/mapped", &["rbind", "ridmap"]));
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "0 0\n0\n");
    let new = fs::metadata(volume.join("new")).expect("what the container wrote");
    assert_eq!(
        (new.uid(), new.gid()),
        (0, 0),
        "owned by root on disk, not by the mapped user"
    );
}

#[test]
fn a_user_namespace_on_the_hosts_network_still_has_a_sys() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "ls -d /sys/class/net/lo; touch /sys/x 2>/dev/null || echo refused",
    );
    user_namespace(&mut bundle);
    let namespaces = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .clone();
    let others: Vec<Value> = namespaces
        .into_iter()
        .filter(|n| n["type"] != "network")
        .collect();
    bundle.set("/linux/namespaces", json!(others));
    assert_eq!(
        runtime.run(&bundle, sandbox.id()).ok(),
        "/sys/class/net/lo\nrefused\n"
    );
}

#[test]
fn the_container_sees_its_own_cgroups_only() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let script = "for group in $(find /sys/fs/cgroup -name cgroup.procs); do \
                  grep -c . $group; done | sort -u; cat /proc/self/mountinfo | grep /sys/fs/cgroup";
    for namespace in [false, true] {
        let name = format!("bundle-{namespace}");
        let mut bundle = Bundle::named(&sandbox, &name, &["/bin/sh", "-c", script]);
        let namespaces = bundle.config["linux"]["namespaces"]
            .as_array()
            .expect("namespaces");
        let mut others = namespaces.clone();
        others.retain(|each| each["type"] != "cgroup");
        bundle.set("/linux/namespaces", json!(others));
        if namespace {
            bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
        }
        let output = runtime.run(&bundle, sandbox.id()).ok();
        if !namespace && Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            // With v2 alone only a namespace hides the host's groups, as with all runtimes; but none can be changed.
            let read_only = output.lines().filter(|line| line.contains(" - cgroup2 "));
            assert!(
                read_only.clone().count() == 1 && read_only.clone().all(|line| line.contains(" ro,")),
                "{output}"
            );
            continue;
        }
        // The shell and its helpers, and no processes of anybody else: a handful.
        let counts: Vec<u32> = output.lines().map_while(|line| line.parse().ok()).collect();
        assert!(
            !counts.is_empty() && counts.iter().all(|count| *count <= 8),
            "{output}"
        );
        let groups = output.lines().filter(|line| line.contains(" - cgroup"));
        for line in groups {
            let root = line.split(' ').nth(3).expect("a root");
            let own = if namespace {
                root == "/"
            } else {
                root.contains(sandbox.id())
            };
            assert!(own, "shows {root}: {line}");
            assert!(line.contains(" ro,nosuid,nodev,noexec"), "{line}");
        }
    }
}

#[test]
fn propagation_goes_as_far_as_the_config_says() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let volume = volume(&sandbox);
    let _shared = HostMount::tmpfs(&volume, MsFlags::MS_SHARED);
    fs::create_dir_all(volume.join("from-host")).expect("make");
    fs::create_dir_all(volume.join("from-container")).expect("make");
    let is_mount = |place: &Path| {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("read");
        table.lines().any(|line| line.split(' ').nth(4) == place.to_str())
    };
    for (root, option, comes_in, goes_out) in [
        (None, "rprivate", false, false),
        (None, "rslave", true, false),
        (Some("rshared"), "rshared", true, true),
    ] {
        let mut bundle = Bundle::named(
            &sandbox,
            &format!("bundle-{option}"),
            &[
                "/bin/sh",
                "-c",
                "mount -t tmpfs tmpfs /data/from-container && touch /ready && sleep 1000",
            ],
        );
        for set in ["bounding", "effective", "permitted"] {
            bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
        }
        if let Some(root) = root {
            bundle.set("/linux/rootfsPropagation", json!(root));
        }
        bundle.push("/mounts", bind(&volume, "/data", &["rbind", option]));
        runtime.detach(&bundle, sandbox.id());
        let ready = bundle.rootfs().join("ready");
        eventually("the container's mount", || ready.exists().then_some(()));
        assert_eq!(
            is_mount(&volume.join("from-container")),
            goes_out,
            "{option}: out to the host"
        );
        let host = HostMount::tmpfs(&volume.join("from-host"), MsFlags::MS_PRIVATE);
        let seen = runtime
            .exec(
                sandbox.id(),
                "grep -c ' /data/from-host ' /proc/self/mountinfo; true",
            )
            .ok();
        assert_eq!(seen.trim() != "0", comes_in, "{option}: in from the host: {seen}");
        drop(host);
        runtime.delete(sandbox.id());
        let _ = umount2(&volume.join("from-container"), MntFlags::MNT_DETACH);
    }
}

#[test]
fn without_pivot_the_host_is_out_of_sight_too() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "ls /; cat /proc/self/mountinfo | grep -c ' /proc '");
    fs::write(bundle.rootfs().join("marker"), "").expect("write");
    let output = runtime.run_with(&bundle, sandbox.id(), &["--no-pivot"]).ok();
    assert!(
        output.contains("marker\n") && !output.contains("boot\n"),
        "{output}"
    );
    assert!(output.ends_with("\n1\n"), "{output}");
}

/// Place and propagation of every mount outside the sandbox.
fn mounts_of_the_host(sandbox: &Sandbox) -> Vec<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read");
    let parts = table.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let tags = words[6..].iter().take_while(|word| **word != "-");
        (words[4].to_owned(), tags.copied().collect::<Vec<_>>().join(" "))
    });
    // Other tests come and go beside this one.
    parts
        .filter(|(place, _)| !place.starts_with("/tmp") && !place.contains(sandbox.id()))
        .collect()
}

#[test]
fn without_a_mount_namespace_the_mounts_are_the_hosts_until_delete() {
    if !is_linux_since((6, 8), "a container without a mount namespace") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let id = sandbox.id();
    // The rootfs lies on a shared mount, as on a host with systemd.
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make");
    let _shared = HostMount::tmpfs(&shared, MsFlags::MS_SHARED);
    let before = mounts_of_the_host(&sandbox);
    let script = "readlink /proc/self/ns/mnt; ls /; echo $$; touch /proc/x /root/x 2>&1; \
                  stat -c %F /dev/null; touch /up; exec sleep 1000";
    let mut bundle = Bundle::named(&sandbox, "shared/bundle", &["/bin/sh", "-c", script]);
    bundle.without_mount_namespace();
    let child = runtime.spawn(&bundle, id);
    eventually("the container runs", || {
        bundle.rootfs().join("up").exists().then_some(())
    });
    let own = fs::read_link("/proc/self/ns/mnt")
        .expect("read")
        .display()
        .to_string();
    assert!(
        bundle.rootfs().join("proc/uptime").exists(),
        "the mounts are the host's"
    );
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read");
    let inside = table.lines().filter(|line| {
        line.split(' ')
            .nth(4)
            .is_some_and(|place| place.starts_with(&*bundle.rootfs().to_string_lossy()))
    });
    let inside: Vec<_> = inside.collect();
    assert!(inside.len() > 5, "{inside:?}");
    assert!(inside.iter().all(|line| !line.contains("shared:")), "{inside:?}");
    let exec = runtime
        .exec(id, "ls /; pwd; readlink /proc/self/ns/mnt; cat /etc/passwd")
        .ok();
    assert!(
        exec.contains("up\n") && exec.contains("var\n/\n") && exec.contains(&own) && exec.contains("alice"),
        "{exec}"
    );
    runtime.delete(id);
    let text = runtime.finish(child).stdout;
    assert!(text.starts_with(&own) && !text.contains("boot"), "{text}");
    assert!(
        text.contains("\n1\n") && text.contains("character special file"),
        "{text}"
    );
    assert_eq!(
        mounts_of_the_host(&sandbox),
        before,
        "the host's mounts are as they were"
    );
    assert!(!bundle.rootfs().join("proc/uptime").exists());
    assert!(bundle.rootfs().join("bin/busybox").exists(), "the image is whole");
}

#[test]
fn without_a_mount_namespace_a_failed_create_leaves_no_mount_and_neither_hides_nor_shares() {
    if !is_linux_since((6, 8), "a container without a mount namespace") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let cases = [
        (
            "/linux/maskedPaths",
            json!(["/proc/kcore"]),
            "linux.maskedPaths: needs a mount namespace",
        ),
        (
            "/linux/readonlyPaths",
            json!(["/proc/sys"]),
            "linux.readonlyPaths: needs a mount namespace",
        ),
        (
            "/linux/rootfsPropagation",
            json!("rshared"),
            "linux.rootfsPropagation: needs a mount namespace",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "user"}, {"type": "pid"}, {"type": "uts"}]),
            "linux.namespaces: a user namespace needs a mount namespace",
        ),
        // The mounts are there by then.
        ("/hooks/createContainer", json!([{"path": "/bin/false"}]), "hook"),
        ("/process/args", json!(["no-such-program"]), "no-such-program"),
    ];
    for (number, (pointer, value, words)) in cases.into_iter().enumerate() {
        let mut bundle = Bundle::named(&sandbox, &format!("bundle-{number}"), &["/bin/true"]);
        bundle.without_mount_namespace();
        bundle.set(pointer, value);
        let refused = runtime.create(&bundle, sandbox.id()).refused();
        assert!(refused.contains(words), "{pointer}: {refused}");
        assert!(bundle.rootfs().join("bin/busybox").exists(), "the image is whole");
        sandbox.assert_clean();
    }
}

#[test]
fn without_a_mount_namespace_a_read_only_root_is_read_only_inside() {
    if !is_linux_since((6, 8), "a container without a mount namespace") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo wrote",
    );
    bundle.without_mount_namespace();
    bundle.set("/root/readonly", json!(true));
    // It would put the host's own root away.
    let output = runtime.run_with(&bundle, sandbox.id(), &["--no-pivot"]).ok();
    assert_eq!(output, "refused\nwrote\n");
    fs::write(bundle.rootfs().join("x"), "").expect("the image itself stays writable");
}

#[test]
fn devices_of_the_config_are_made() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "stat -c '%n %F %t:%T %a %u:%g' /dev/own /srv/deep/pipe /dev/null; readlink /dev/stderr",
    );
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/srv/deep/pipe", "type": "p", "fileMode": 0o600},
        ]),
    );
    let output = runtime.run(&bundle, sandbox.id()).ok();
    assert!(
        output.contains("/dev/own character special file 1:5 640 7:8\n"),
        "{output}"
    );
    assert!(output.contains("/srv/deep/pipe fifo"), "{output}");
    assert!(
        output.contains("/dev/null character special file 1:3 666 0:0\n/proc/self/fd/2\n"),
        "{output}"
    );
}

#[test]
fn what_can_not_be_mounted_is_named_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let fails = |name: &str, entry: Value, says: &[&str]| {
        let mut bundle = Bundle::named(&sandbox, name, &["/bin/true"]);
        let index = bundle.config["mounts"].as_array().expect("mounts").len();
        bundle.push("/mounts", entry);
        let error = runtime.run(&bundle, sandbox.id()).refused();
        assert!(error.contains(&format!("mounts[{index}]")), "{error}");
        assert!(says.iter().all(|part| error.contains(part)), "{error}");
        sandbox.assert_clean();
    };
    fails(
        "source",
        bind(Path::new("/no/such/folder"), "/x", &["bind"]),
        &["/no/such/folder", "No such file"],
    );
    fails(
        "type",
        json!({"destination": "/x", "type": "nosuchfs", "source": "x"}),
        &["nosuchfs", "No such device"],
    );
    fails(
        "option",
        json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["colour=blue"]}),
        &["Unknown parameter 'colour'"],
    );
    fails(
        "proc",
        bind(sandbox.path(), "/proc/sys", &["bind"]),
        &["destination", "/proc"],
    );
    fails(
        "data",
        bind(sandbox.path(), "/x", &["bind", "size=5"]),
        &["options", "size=5"],
    );
    fails(
        "over",
        bind(sandbox.path(), "/etc/passwd", &["bind"]),
        &["/etc/passwd"],
    );
}

#[test]
fn a_link_that_comes_and_goes_during_the_mount_leads_nowhere() {
    // CVE-2021-30465, CVE-2024-45310: another container that shares the volume exchanges a folder and a link while we
    // mount, and make folders and files to mount onto.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let outside = sandbox.path().join("outside");
    fs::create_dir(&outside).expect("make");
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/bin/true"]);
    let shared = bundle.rootfs().join("shared");
    fs::create_dir_all(shared.join("folder")).expect("make");
    symlink(&outside, shared.join("link")).expect("link");
    for number in 0..4 {
        bundle.push(
            "/mounts",
            bind(
                Path::new("/bin/busybox"),
                &format!("/shared/folder/file-{number}"),
                &["bind"],
            ),
        );
        bundle.push(
            "/mounts",
            json!({"destination": format!("/shared/folder/{number}/deep"), "type": "tmpfs", "source": "tmpfs"}),
        );
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            while !stop.load(Ordering::Relaxed) {
                let (one, other) = (shared.join("folder"), shared.join("link"));
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).expect("exchange");
            }
        });
        for _ in 0..25 {
            // Works or is refused, as the moment has it.
            let _ = runtime.run(&bundle, sandbox.id());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        fs::read_dir(&outside).expect("list").count(),
        0,
        "something was made outside the rootfs"
    );
    sandbox.assert_clean();
}

#[test]
fn a_tmpfs_has_the_mode_of_the_folder_below_it_unless_it_is_told_another() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "stat -c %a /closed /told /new");
    for name in ["closed", "told"] {
        let folder = bundle.rootfs().join(name);
        fs::create_dir(&folder).expect("make a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).expect("close the folder");
    }
    for (destination, options) in [
        ("/closed", json!([])),
        ("/told", json!(["mode=700"])),
        ("/new", json!([])),
    ] {
        let mount =
            json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options});
        bundle.push("/mounts", mount);
    }
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "711\n700\n1777\n");
}

#[test]
fn containers_on_the_hosts_mounts_share_no_rootfs_and_take_all_back() {
    if !is_linux_since((6, 8), "a container without a mount namespace") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "exec sleep 1000");
    bundle.without_mount_namespace();
    let ids = ["1", "2"].map(|number| format!("{}-{number}", sandbox.id()));
    runtime.detach(&bundle, &ids[0]);
    bundle.set("/linux/cgroupsPath", json!(format!("/berth-test/{}", ids[1])));
    let error = runtime.run(&bundle, &ids[1]).refused();
    assert!(
        error.contains(&format!("that of container {}", ids[0])),
        "{error}"
    );
    // What the host has mounted over it meanwhile must not hide it from delete.
    let rootfs = bundle.rootfs();
    mount(
        Some("none"),
        &rootfs,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("cover the rootfs");
    let error = runtime.call(&["delete", "--force", &ids[0]]).refused();
    assert!(error.contains("unmount that first"), "{error}");
    umount2(&rootfs, MntFlags::MNT_DETACH).expect("uncover the rootfs");
    runtime.call(&["delete", "--force", &ids[0]]).ok();
    sandbox.assert_clean();
}
