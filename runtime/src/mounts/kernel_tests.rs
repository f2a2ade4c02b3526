//! Plans carried out by the kernel, each in a thread with a mount namespace of its own, which takes all mounts with it
//! when it ends. They need root and say so when they are skipped.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{Context, Plan};
use crate::seccomp::Filter;

/// A bundle with a small rootfs; removed when dropped.
struct Bundle(PathBuf);

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bundle {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-mounts-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("rootfs/etc")).unwrap();
        fs::write(path.join("rootfs/etc/secret"), "secret").unwrap();
        fs::create_dir(path.join("volume")).unwrap();
        fs::write(path.join("volume/file"), "from the host").unwrap();
        Self(path)
    }

    fn rootfs(&self, path: &str) -> PathBuf {
        self.0.join("rootfs").join(path)
    }

    fn plan(&self, mounts: &Value, linux: &Value) -> crate::error::Result<Plan> {
        let spec = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "mounts": mounts,
            "linux": linux,
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        Plan::from_spec(&spec, &self.0)
    }

    /// Builds and enters the root in a namespace of its own, and looks around there.
    fn enter<T: Send>(&self, mounts: &Value, linux: &Value, look: impl FnOnce() -> T + Send) -> Option<T> {
        let built = self.try_enter(mounts, linux, look)?;
        Some(built.unwrap_or_else(|error| panic!("{error}")))
    }

    fn try_enter<T: Send>(
        &self,
        mounts: &Value,
        linux: &Value,
        look: impl FnOnce() -> T + Send,
    ) -> Option<Result<T, String>> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to make a mount namespace");
            return None;
        }
        let plan = self.plan(mounts, linux).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let context = Context {
                    cgroups: v1_groups(),
                    ..Context::default()
                };
                let enter = || {
                    let rootfs = plan.build(&context)?;
                    rootfs.pivot(false)?;
                    rootfs.finish()
                };
                enter()
                    .map(|()| look())
                    .map_err(|error: crate::error::Error| error.to_string())
            });
            Some(thread.join().unwrap())
        })
    }
}

fn v1_groups() -> BTreeMap<String, PathBuf> {
    let folders = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    folders
        .filter(|folder| folder.path().join("cgroup.procs").exists())
        // With v2 alone, these are groups and no hierarchies.
        .filter(|folder| !folder.path().with_file_name("cgroup.controllers").exists())
        .map(|folder| (folder.file_name().into_string().unwrap(), folder.path()))
        .collect()
}

fn default_mounts() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs",
         "options": ["nosuid", "noexec", "nodev", "ro"]},
    ])
}

fn with(mut mounts: Value, more: &[Value]) -> Value {
    mounts.as_array_mut().unwrap().extend(more.iter().cloned());
    mounts
}

/// The options of the topmost mount at a place: of the mount and of the superblock.
fn options(place: &str) -> (String, String) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {place}:\n{table}"));
    let (mount, superblock) = line.split_once(" - ").unwrap();
    (
        mount.split(' ').nth(5).unwrap().into(),
        superblock.rsplit(' ').next().unwrap().into(),
    )
}

fn is_read_only(path: &str) -> bool {
    let error = fs::File::create(path).map(drop).unwrap_err();
    error.raw_os_error() == Some(libc::EROFS)
}

#[test]
fn the_default_mounts_are_as_the_config_says() {
    let bundle = Bundle::new("default");
    bundle.enter(&default_mounts(), &json!({}), || {
        assert_eq!(fs::read_to_string("/etc/secret").unwrap(), "secret");
        assert!(fs::read_to_string("/proc/self/status").is_ok());
        let (mount, superblock) = options("/dev");
        assert_eq!(mount, "rw,nosuid");
        assert!(
            superblock.contains("size=65536k") && superblock.contains("mode=755"),
            "{superblock}"
        );
        assert!(options("/dev/pts").1.contains("gid=5,mode=620,ptmxmode=666"));
        assert_eq!(options("/dev/shm").0, "rw,nosuid,nodev,noexec,relatime");
        assert_eq!(options("/sys").0, "ro,nosuid,nodev,noexec,relatime");
        assert!(options("/dev/mqueue").0.contains("nodev"));
        let null = fs::metadata("/dev/null").unwrap();
        assert!(null.file_type().is_char_device());
        assert_eq!((null.rdev(), null.mode() & 0o7777), (libc::makedev(1, 3), 0o666));
        assert_eq!(fs::read_link("/dev/ptmx").unwrap(), Path::new("pts/ptmx"));
        assert_eq!(fs::read_link("/dev/stdin").unwrap(), Path::new("/proc/self/fd/0"));
        assert_eq!(fs::metadata("/dev/shm").unwrap().mode() & 0o7777, 0o1777);
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert_eq!(table.lines().count(), 7, "nothing of the host is left:\n{table}");
    });
}

#[test]
fn masked_and_read_only_paths_hold() {
    let bundle = Bundle::new("masked");
    fs::create_dir_all(bundle.rootfs("etc/dir/below")).unwrap();
    let linux = json!({
        "maskedPaths": ["/proc/version", "/proc/no/such/thing", "/etc/secret/below", "/etc/secret", "/etc/dir", "/sys/kernel"],
        "readonlyPaths": ["/proc/sys", "/no/such/thing", "/proc/sysrq-trigger"],
    });
    bundle.enter(&default_mounts(), &linux, || {
        assert_eq!(fs::read("/etc/secret").unwrap(), b"");
        assert_eq!(fs::read("/proc/version").unwrap(), b"");
        assert_eq!(fs::read_dir("/etc/dir").unwrap().count(), 0);
        assert_eq!(fs::read_dir("/sys/kernel").unwrap().count(), 0);
        assert!(is_read_only("/etc/dir/new"));
        assert!(options("/proc/sys").0.starts_with("ro"));
        let hostname = fs::OpenOptions::new()
            .write(true)
            .open("/proc/sys/kernel/hostname");
        assert_eq!(hostname.unwrap_err().raw_os_error(), Some(libc::EROFS));
    });
}

#[test]
fn a_false_null_device_is_not_used_as_a_mask() {
    let bundle = Bundle::new("null");
    let mounts = json!([{"destination": "/dev", "type": "bind", "source": "fake", "options": ["bind"]}]);
    fs::create_dir(bundle.0.join("fake")).unwrap();
    fs::write(bundle.0.join("fake/null"), "not null").unwrap();
    let linux = json!({"maskedPaths": ["/etc/secret"]});
    if let Some(result) = bundle.try_enter(&mounts, &linux, || ()) {
        assert!(
            result
                .unwrap_err()
                .contains("/dev/null of the container is not the null device")
        );
    }
    fs::remove_file(bundle.0.join("fake/null")).unwrap();
    symlink("/etc/secret", bundle.0.join("fake/null")).unwrap();
    if let Some(result) = bundle.try_enter(&mounts, &linux, || ()) {
        assert!(
            result
                .unwrap_err()
                .contains("/dev/null of the container is not the null device")
        );
    }
}

#[test]
fn binds_of_files_and_folders_keep_their_kind() {
    let bundle = Bundle::new("binds");
    symlink("../run/deep/resolv.conf", bundle.rootfs("etc/resolv.conf")).unwrap();
    let mounts = with(
        default_mounts(),
        &[
            json!({"destination": "/data/new", "type": "bind", "source": "volume", "options": ["rbind", "ro"]}),
            json!({"destination": "/etc/file", "source": "volume/file", "options": ["bind", "nosuid"]}),
            json!({"destination": "/etc/resolv.conf", "source": "volume/file", "options": ["bind"]}),
            json!({"destination": "top", "source": "volume", "options": ["bind"]}),
            json!({"destination": "/dev/file", "source": "volume/file", "options": ["bind"]}),
        ],
    );
    let host = bundle.rootfs("run/deep/resolv.conf");
    bundle.enter(&mounts, &json!({}), || {
        assert_eq!(fs::read_to_string("/data/new/file").unwrap(), "from the host");
        assert!(is_read_only("/data/new/x"));
        assert_eq!(fs::read_to_string("/etc/file").unwrap(), "from the host");
        assert_eq!(
            fs::read_to_string("/run/deep/resolv.conf").unwrap(),
            "from the host"
        );
        assert_eq!(fs::read_to_string("/dev/file").unwrap(), "from the host");
        fs::write("/top/written", "by the container").unwrap();
        assert!(options("/etc/file").0.contains("nosuid"));
    });
    assert_eq!(
        fs::read_to_string(host).unwrap_or_default(),
        "",
        "the image has only the empty file"
    );
}

#[test]
fn links_of_the_image_do_not_lead_out() {
    let bundle = Bundle::new("escape");
    symlink("../../../../../../../../..", bundle.rootfs("up")).unwrap();
    let mounts = json!([
        {"destination": "/up/berth-escape-test/x", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/up/tmp", "type": "bind", "source": "volume", "options": ["bind"]},
    ]);
    bundle.enter(&mounts, &json!({}), || {
        assert!(Path::new("/berth-escape-test/x").is_dir());
        assert!(Path::new("/tmp/file").is_file());
    });
    assert!(!Path::new("/berth-escape-test").exists());
}

#[test]
fn proc_is_not_mounted_through_a_link() {
    let bundle = Bundle::new("proclink");
    fs::create_dir(bundle.rootfs("elsewhere")).unwrap();
    symlink("elsewhere", bundle.rootfs("proc")).unwrap();
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    if let Some(result) = bundle.try_enter(&mounts, &json!({}), || ()) {
        let error = result.unwrap_err();
        assert!(
            error.contains("mounts[0].destination") && error.contains("symbolic link"),
            "{error}"
        );
    }
}

#[test]
fn nothing_is_mounted_into_proc_through_a_link() {
    let bundle = Bundle::new("intoproc");
    symlink("/proc", bundle.rootfs("innocent")).unwrap();
    let mounts = with(
        json!([{"destination": "/proc", "type": "proc", "source": "proc"}]),
        &[json!({"destination": "/innocent/sys", "source": "volume", "options": ["bind"]})],
    );
    if let Some(result) = bundle.try_enter(&mounts, &json!({}), || ()) {
        assert!(
            result
                .unwrap_err()
                .contains("mounts[1].destination: leads into /proc")
        );
    }
    let mounts = json!([{"destination": "/proc", "source": "volume", "options": ["bind"]}]);
    if let Some(result) = bundle.try_enter(&mounts, &json!({}), || ()) {
        assert!(result.unwrap_err().contains("only a procfs"));
    }
}

#[test]
fn tmpcopyup_starts_with_what_the_image_has() {
    let bundle = Bundle::new("copyup");
    fs::create_dir_all(bundle.rootfs("etc/a/b")).unwrap();
    fs::write(bundle.rootfs("etc/a/b/script"), "#!").unwrap();
    fs::set_permissions(
        bundle.rootfs("etc/a/b/script"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    symlink("b/script", bundle.rootfs("etc/a/link")).unwrap();
    let mounts = json!([
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]},
        {"destination": "/none", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    ]);
    let before = fs::metadata(bundle.rootfs("etc/a/b/script")).unwrap();
    bundle.enter(&mounts, &json!({}), || {
        let after = fs::metadata("/etc/a/b/script").unwrap();
        assert_eq!(
            (after.mode(), after.mtime_nsec()),
            (before.mode(), before.mtime_nsec())
        );
        assert_eq!(fs::read_link("/etc/a/link").unwrap(), Path::new("b/script"));
        assert_eq!(fs::read_to_string("/etc/secret").unwrap(), "secret");
        assert!(is_read_only("/etc/new"));
    });
}

#[test]
fn a_read_only_tmpfs_still_gets_the_mounts_below_it() {
    let bundle = Bundle::new("late");
    let mounts = json!([
        {"destination": "/top", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        {"destination": "/top/below/it", "type": "tmpfs", "source": "tmpfs"},
    ]);
    bundle.enter(&mounts, &json!({}), || {
        assert!(is_read_only("/top/new"));
        fs::write("/top/below/it/new", "").unwrap();
    });
}

#[test]
fn recursive_read_only_reaches_the_mounts_below_the_source() {
    let bundle = Bundle::new("rro");
    fs::create_dir(bundle.0.join("volume/inner")).unwrap();
    let volume = bundle.0.join("volume");
    let mounts = json!([
        {"destination": "/base", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/plain", "source": volume, "options": ["rbind", "ro"]},
        {"destination": "/hard", "source": volume, "options": ["rbind", "rro"]},
    ]);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to make a mount namespace");
        return;
    }
    let plan = bundle.plan(&mounts, &json!({})).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            let inner = volume.join("inner");
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("tmpfs"), &inner, Some("tmpfs"), flags, None::<&str>).unwrap();
            let rootfs = plan.build(&Context::default()).unwrap();
            rootfs.pivot(false).unwrap();
            rootfs.finish().unwrap();
            fs::write("/plain/inner/x", "").unwrap();
            assert!(is_read_only("/hard/inner/y"));
        });
    });
}

#[test]
fn the_own_cgroups_are_shown_by_hierarchy() {
    if v1_groups().is_empty() {
        eprintln!("skipped: the host has no cgroup v1 hierarchies");
        return;
    }
    let bundle = Bundle::new("cgroup");
    let mounts = with(
        default_mounts(),
        &[
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
        ],
    );
    bundle.enter(&mounts, &json!({}), || {
        assert!(Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists());
        assert_eq!(options("/sys/fs/cgroup").0, "ro,nosuid,nodev,noexec,relatime");
        assert_eq!(
            options("/sys/fs/cgroup/memory").0,
            "ro,nosuid,nodev,noexec,relatime"
        );
    });
}

#[test]
fn the_kernels_reason_is_in_the_error() {
    let bundle = Bundle::new("reason");
    let mounts =
        json!([{"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["colour=blue"]}]);
    if let Some(result) = bundle.try_enter(&mounts, &json!({}), || ()) {
        let error = result.unwrap_err();
        assert!(
            error.starts_with("mounts[0]: mount tmpfs at /x (tmpfs: Unknown parameter 'colour')"),
            "{error}"
        );
    }
    let mounts = json!([{"destination": "/x", "type": "nosuchfs", "source": "x"}]);
    if let Some(result) = bundle.try_enter(&mounts, &json!({}), || ()) {
        assert!(
            result
                .unwrap_err()
                .contains("mount nosuchfs at /x: No such device")
        );
    }
}

#[test]
fn options_longer_than_fsconfig_takes_still_work() {
    let bundle = Bundle::new("long");
    let lower: Vec<String> = (0..12).map(|n| format!("lower-with-a-long-name-{n}")).collect();
    for name in lower.iter().map(String::as_str).chain(["upper", "work"]) {
        fs::create_dir(bundle.0.join(name)).unwrap();
    }
    fs::write(bundle.0.join(&lower[3]).join("three"), "3").unwrap();
    let path = |name: &str| bundle.0.join(name).display().to_string();
    let lower: Vec<String> = lower.iter().map(|name| path(name)).collect();
    let mounts = json!([{"destination": "/merged", "type": "overlay", "source": "overlay", "options": [
        format!("lowerdir={}", lower.join(":")), format!("upperdir={}", path("upper")), format!("workdir={}", path("work")),
    ]}]);
    bundle.enter(&mounts, &json!({}), || {
        assert_eq!(fs::read_to_string("/merged/three").unwrap(), "3");
    });
}

#[test]
fn devices_get_their_number_mode_and_owner() {
    let bundle = Bundle::new("devices");
    let linux = json!({"devices": [
        {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o20640, "uid": 7, "gid": 8},
        {"path": "/srv/pipe", "type": "p", "fileMode": 0o600},
    ]});
    bundle.enter(&default_mounts(), &linux, || {
        let own = fs::metadata("/dev/own").unwrap();
        assert_eq!(
            (own.rdev(), own.mode() & 0o7777, own.uid(), own.gid()),
            (libc::makedev(1, 5), 0o640, 7, 8)
        );
        assert!(fs::metadata("/srv/pipe").unwrap().file_type().is_fifo());
    });
}

#[test]
fn broken_fields_are_named() {
    let bundle = Bundle::new("broken");
    let mount = |mount: Value| bundle.plan(&json!([mount]), &json!({})).unwrap_err().to_string();
    let linux = |linux: Value| bundle.plan(&json!([]), &linux).unwrap_err().to_string();
    for (error, path) in [
        (
            mount(json!({"destination": "/", "type": "tmpfs"})),
            "mounts[0].destination",
        ),
        (mount(json!({"destination": "/x"})), "mounts[0].type"),
        (
            mount(json!({"destination": "/x", "type": "bind"})),
            "mounts[0].source",
        ),
        (
            mount(json!({"destination": "/x", "type": "bind", "source": "a", "options": ["size=1"]})),
            "mounts[0].options",
        ),
        (
            mount(json!({"destination": "/x", "type": "tmpfs", "options": ["idmap"]})),
            "mounts[0].options",
        ),
        (
            mount(json!({"destination": "/x", "type": "proc", "options": ["tmpcopyup"]})),
            "mounts[0].options",
        ),
        (
            mount(json!({"destination": "/proc/sys", "type": "tmpfs"})),
            "mounts[0].destination",
        ),
        (
            mount(json!({"destination": "/x", "type": "bind", "source": "a",
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]})),
            "mounts[0].gidMappings",
        ),
        (
            linux(json!({"maskedPaths": ["relative"]})),
            "linux.maskedPaths[0]",
        ),
        (
            linux(json!({"readonlyPaths": ["/a", "/"]})),
            "linux.readonlyPaths[1]",
        ),
        (
            linux(json!({"rootfsPropagation": "sharedish"})),
            "linux.rootfsPropagation",
        ),
        (
            linux(json!({"devices": [{"path": "/dev/x", "type": "c", "major": 4096, "minor": 0}]})),
            "linux.devices[0].major",
        ),
        (
            linux(json!({"devices": [{"path": "dev/x", "type": "c", "major": 1, "minor": 0}]})),
            "linux.devices[0].path",
        ),
    ] {
        assert!(
            error.starts_with(&format!("config.json: {path}: ")),
            "{error} should name {path}"
        );
    }
    fs::remove_dir_all(bundle.rootfs("")).unwrap();
    let error = bundle.plan(&json!([]), &json!({})).unwrap_err().to_string();
    assert!(
        error.starts_with("rootfs ") && error.contains("No such file"),
        "{error}"
    );
}

#[test]
fn idmapped_binds_show_other_owners() {
    let bundle = Bundle::new("idmap");
    let mounts = json!([{"destination": "/mapped", "source": "volume", "options": ["bind", "idmap"],
        "uidMappings": [{"containerID": 0, "hostID": 4000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 5000, "size": 10}]}]);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to make a mount namespace");
        return;
    }
    let plan = bundle.plan(&mounts, &json!({})).unwrap();
    let sources = plan.open_sources().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let rootfs = plan
                .build(&Context {
                    sources,
                    ..Context::default()
                })
                .unwrap();
            rootfs.pivot(false).unwrap();
            rootfs.finish().unwrap();
            let file = fs::metadata("/mapped/file").unwrap();
            assert_eq!((file.uid(), file.gid()), (4000, 5000));
        });
    });
}

/// Older kernels, and the filters of outer containers, lack some calls: the mounts come out the same. A missing call is
/// remembered for the whole process, so each set is tried in one of its own.
#[test]
fn a_missing_call_is_replaced_by_mount() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root to make a mount namespace");
        return;
    }
    for missing in [
        "mount_setattr",
        "fsopen",
        "open_tree",
        "mount_setattr,fsopen,open_tree",
    ] {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "mounts::kernel_tests::with_missing_calls",
                "--ignored",
                "--nocapture",
            ])
            .env("BERTH_MISSING_CALLS", missing)
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(
            child.status.success() && text.contains("1 passed"),
            "without {missing}: {text}"
        );
    }
}

#[test]
#[ignore = "started by a_missing_call_is_replaced_by_mount"]
fn with_missing_calls() {
    let missing = std::env::var("BERTH_MISSING_CALLS").unwrap();
    let missing: Vec<&str> = missing.split(',').collect();
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": missing, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}]});
    Filter::from_spec(&serde_json::from_value(profile).unwrap())
        .unwrap()
        .load()
        .unwrap();
    let bundle = Bundle::new("missing");
    for folder in ["etc/dir/below", "etc/other/below"] {
        fs::create_dir_all(bundle.rootfs(folder)).unwrap();
    }
    let mounts = with(
        default_mounts(),
        &[
            json!({"destination": "/data", "source": "volume", "options": ["rbind", "ro", "nosuid", "rprivate"]}),
            json!({"destination": "/etc/file", "source": "volume/file", "options": ["bind", "noexec"]}),
            json!({"destination": "/late", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}),
        ],
    );
    let linux = json!({
        "maskedPaths": ["/etc/secret", "/etc/dir", "/no/such/thing", "/etc/other"],
        "readonlyPaths": ["/proc/sys", "/no/such/thing"],
        "rootfsPropagation": "private",
    });
    bundle.enter(&mounts, &linux, || {
        assert_eq!(options("/dev").0, "rw,nosuid");
        assert!(options("/dev/pts").1.contains("ptmxmode=666"));
        assert!(options("/sys").0.starts_with("ro,nosuid,nodev,noexec"));
        assert!(options("/data").0.starts_with("ro,nosuid"));
        assert!(options("/etc/file").0.contains("noexec"));
        assert!(is_read_only("/data/x") && is_read_only("/late/x"));
        assert_eq!(fs::read_to_string("/etc/file").unwrap(), "from the host");
        assert_eq!(fs::read("/etc/secret").unwrap(), b"");
        assert_eq!(fs::read_dir("/etc/dir").unwrap().count(), 0);
        assert_eq!(fs::read_dir("/etc/other").unwrap().count(), 0);
        assert!(options("/proc/sys").0.starts_with("ro"));
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        fs::write("/dev/shm/x", "").unwrap();
    });
}
