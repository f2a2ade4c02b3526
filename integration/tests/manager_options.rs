//! docker run's options of resources, security, namespaces and process: read back from inside the container, and
//! from its cgroups.

use integration::{Manager, Sandbox, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The setting of a running container, by version 1's name or version 2's.
#[track_caller]
fn setting(manager: &Manager, container: &str, v1: (&str, &str), v2: &str) -> String {
    let pid = manager.inspect(container)["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
    let path = |controller: &str| {
        let line = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers
                .split(',')
                .any(|name| name == controller)
                .then_some(path)
        });
        line.map(|path| path.trim_start_matches('/').to_owned())
    };
    let (controller, file) = v1;
    let root = Path::new("/sys/fs/cgroup");
    let file: PathBuf = match path(controller) {
        Some(path) => root.join(controller).join(path).join(file),
        None => root.join(path("").expect("a group of version 2")).join(v2),
    };
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.trim().to_owned()
}

/// `run --rm` with `flags`, and what `script` prints there.
#[track_caller]
fn printed(manager: &Manager, image: &str, flags: &[&str], script: &str) -> String {
    let args = [&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat();
    manager.ctl(&args).ok()
}

/// What `create` says to flags that it refuses.
#[track_caller]
fn refused(manager: &Manager, image: &str, flags: &[&str]) -> String {
    let args = [&["create"], flags, &[image, "true"]].concat();
    let done = manager.ctl(&args);
    assert_ne!(done.code, 0, "{flags:?}: {done}");
    done.stderr
}

#[test]
fn limits_are_what_the_kernel_is_told() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let flags = [
        "run",
        "-d",
        "--name",
        "limited",
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "-c",
        "512",
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "20000",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
        "--oom-score-adj",
        "345",
        "--device-read-bps",
        "/dev/null:1m",
    ];
    let args = [&flags[..flags.len() - 2], &[&image, "sleep", "1000"]].concat();
    manager.ctl(&args).ok();
    let told = |controller, v1, v2| setting(&manager, "limited", (controller, v1), v2);
    assert_eq!(
        told("memory", "memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string()
    );
    assert_eq!(
        told("memory", "memory.soft_limit_in_bytes", "memory.low"),
        (32 << 20).to_string()
    );
    let shares = told("cpu", "cpu.shares", "cpu.weight");
    assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
    let quota = told("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(["20000", "20000 50000"].contains(&quota.as_str()), "{quota}");
    assert_eq!(told("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(told("cpuset", "cpuset.mems", "cpuset.mems"), "0");
    let score = manager.ctl(&["exec", "limited", "cat", "/proc/1/oom_score_adj"]);
    assert_eq!(score.ok(), "345\n");

    // A limit of a disk is one of a disk.
    let args = [&["run", "--rm"], &flags[flags.len() - 2..], &[&image, "true"]].concat();
    let done = manager.ctl(&args);
    assert!(
        done.code != 0 && done.stderr.contains("/dev/null is no block device"),
        "{done}"
    );
}

#[test]
fn processes_have_their_ulimits_and_the_container_its_shm_and_cgroup_parent() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let limits = [
        "--ulimit",
        "nofile=100:200",
        "--ulimit",
        "core=0",
        "--shm-size",
        "5m",
    ];
    let script = "ulimit -S -n; ulimit -H -n; ulimit -c; df -k /dev/shm | tail -1 | awk '{print $2}'";
    assert_eq!(printed(&manager, &image, &limits, script), "100\n200\n0\n5120\n");
    assert_eq!(
        printed(
            &manager,
            &image,
            &["--ulimit", "nofile=9", "--ulimit", "nofile=11"],
            "ulimit -n"
        ),
        "11\n",
        "the later holds"
    );
    // An exec has them as well.
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "few",
            "--ulimit",
            "nofile=99",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    assert_eq!(
        manager.ctl(&["exec", "few", "sh", "-c", "ulimit -n"]).ok(),
        "99\n"
    );

    let parent = format!("berth-parent-{}", sandbox.id());
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "below",
            "--cgroup-parent",
            &parent,
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let pid = manager.inspect("below")["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the container runs");
    assert!(groups.contains(&format!("/{parent}/")), "{groups}");
    manager.ctl(&["rm", "-f", "below"]).ok();
}

/// In which hierarchies there is a group.
fn hierarchies_with(group: &str) -> usize {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).expect("cgroups").flatten();
    let places = hierarchies.map(|entry| entry.path()).chain([root.to_owned()]);
    places.filter(|place| place.join(group).is_dir()).count()
}

#[test]
fn a_group_made_for_containers_goes_with_the_last_one() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let parent = format!("berth-parent-{}", sandbox.id());
    let run = |manager: &Manager, name: &str, below: &str| {
        let group = format!("/{parent}{below}/");
        let run = ["run", "-d", "--name", name, "--cgroup-parent", &group, &image];
        manager.ctl(&[&run[..], &["sleep", "1000"]].concat()).ok();
    };
    run(&manager, "one", "");
    run(&manager, "two", "/deep/down");
    let everywhere = hierarchies_with(&parent);
    assert!(everywhere > 0);
    manager.ctl(&["rm", "-f", "one"]).ok();
    assert_eq!(hierarchies_with(&parent), everywhere, "the other one is below it");
    // One whose end no manager has seen.
    let pid = manager.inspect("two")["pid"].as_i64().expect("a pid") as i32;
    manager.kill();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .expect("end it");
    manager.start_again();
    assert_eq!(hierarchies_with(&parent), 0);
    // The next manager knows who is in it.
    manager.ctl(&["start", "two"]).ok();
    manager.kill();
    manager.start_again();
    assert_eq!(hierarchies_with(&parent), everywhere);
    manager.ctl(&["stop", "-t", "0", "two"]).ok();
    integration::eventually("the groups are gone", || {
        (hierarchies_with(&parent) == 0).then_some(())
    });
    // What somebody else has made stays.
    let hierarchy = ["pids", "unified", ""].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let theirs = hierarchy
        .iter()
        .find(|path| path.is_dir())
        .expect("a hierarchy")
        .join(&parent);
    fs::create_dir(&theirs).expect("make a cgroup");
    manager.ctl(&["start", "two"]).ok();
    manager.ctl(&["rm", "-f", "two"]).ok();
    assert!(theirs.is_dir());
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
        let _ = fs::remove_dir(hierarchy.path().join(&parent).join("deep"));
        let _ = fs::remove_dir(hierarchy.path().join(&parent));
    }
    let _ = fs::remove_dir(&theirs);
}

#[test]
fn a_device_can_be_used_as_far_as_it_was_given() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // A device without a driver: the kernel looks for that only after the cgroup has allowed the opening.
    let folder = sandbox.path().join("devices");
    fs::create_dir(&folder).expect("make a folder");
    let node = folder.join("sample");
    run(Command::new("mknod").arg(&node).args(["c", "42", "7"])).ok();
    let given = |source: &Path, rest: &str| format!("{}:{rest}", source.display());
    let open = "(: < /dev/mine) 2>&1; (: > /dev/mine) 2>&1; true";
    let outcome =
        |told: &str| -> Vec<bool> { told.lines().map(|line| line.contains("not permitted")).collect() };
    let told = printed(
        &manager,
        &image,
        &["--device", &given(&node, "/dev/mine:r")],
        open,
    );
    assert_eq!(outcome(&told), [false, true], "{told}");
    let told = printed(&manager, &image, &["--device", &given(&node, "/dev/mine")], open);
    assert_eq!(outcome(&told), [false, false], "{told}");
    let make = "mknod /dev/mine c 42 7; (: < /dev/mine) 2>&1; true";
    assert_eq!(outcome(&printed(&manager, &image, &[], make)), [true]);
    let by_rule = ["--device-cgroup-rule", "c 42:* r"];
    assert_eq!(outcome(&printed(&manager, &image, &by_rule, make)), [false]);
    // A folder stands for the devices in it.
    run(Command::new("mknod")
        .arg(folder.join("zero"))
        .args(["c", "1", "5"]))
    .ok();
    let all = given(&folder, "/dev/all");
    let read = "head -c 3 /dev/all/zero | wc -c; test -c /dev/all/sample && echo both";
    assert_eq!(printed(&manager, &image, &["--device", &all], read), "3\nboth\n");

    let missing = manager.ctl(&["run", "--rm", "--device", "/dev/no-such", &image, "true"]);
    let told = missing
        .stderr
        .contains("gather information about device /dev/no-such: No such file");
    assert!(missing.code != 0 && told, "{missing}");
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn limits_that_contradict_each_other_are_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (flags, words) in [
        (&["--memory-swap", "64m"][..], "always set the memory limit"),
        (
            &["-m", "64m", "--memory-swap", "32m"],
            "larger than the memory limit",
        ),
        (
            &["-m", "64m", "--memory-reservation", "65m"],
            "can not be less than the reservation",
        ),
        (&["--cpus", "1", "--cpu-quota", "5000"], "conflicting options"),
        (&["--cpu-period", "10"], "less than 1ms"),
        (&["--cpuset-cpus", "0-4096"], "CPUs are not available"),
        (&["--blkio-weight", "9"], "from 10 to 1000"),
        (&["--oom-score-adj", "-1001"], "[-1000, 1000]"),
        (&["--ulimit", "nofile=9:3"], "soft limit"),
        (&["--device-cgroup-rule", "c 1"], "invalid device cgroup rule"),
        (&["--cgroup-parent", "../up"], "no path of a cgroup"),
    ] {
        let told = refused(&manager, &image, flags);
        assert!(told.contains(words), "{flags:?}: {told}");
    }
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn processes_are_confined_as_asked_for() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let status = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    let confined = |option: &str| printed(&manager, &image, &["--security-opt", option], status);
    assert_eq!(printed(&manager, &image, &[], status), "NoNewPrivs:0 Seccomp:2 ");
    assert_eq!(confined("no-new-privileges"), "NoNewPrivs:1 Seccomp:2 ");
    assert_eq!(confined("seccomp=unconfined"), "NoNewPrivs:0 Seccomp:0 ");

    let masked = "mount | grep -c ' on /proc/'; true";
    assert_ne!(printed(&manager, &image, &[], masked), "0\n");
    assert_eq!(
        printed(
            &manager,
            &image,
            &["--security-opt", "systempaths=unconfined"],
            masked
        ),
        "0\n"
    );

    let groups = ["-u", "1000:1000", "--group-add", "77", "--group-add", "88"];
    assert_eq!(printed(&manager, &image, &groups, "id -G"), "1000 77 88\n");
    let sysctls = [
        "--sysctl",
        "net.ipv4.ip_forward=0",
        "--sysctl",
        "kernel.shmmni=99",
    ];
    let read = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni";
    assert_eq!(printed(&manager, &image, &sysctls, read), "0\n99\n");

    for (flags, words) in [
        (&["--security-opt", "fly"][..], "invalid --security-opt"),
        (
            &["--security-opt", "seccomp=/profile.json"],
            "the seccomp profile /profile.json: No such file",
        ),
        (
            &["--group-add", "no-such-group"],
            "unable to find group no-such-group",
        ),
        (&["--sysctl", "kernel.panic=1"], "not allowed"),
        (
            &["--network", "host", "--sysctl", "net.core.somaxconn=9"],
            "host network namespace",
        ),
        (
            &["--uts", "host", "-h", "name"],
            "conflicting options: hostname and the UTS mode",
        ),
        (&["--pid", "container:other"], "no such container: other"),
        (&["--ipc", "mine"], "invalid mode"),
    ] {
        let told = refused(&manager, &image, flags);
        assert!(told.contains(words), "{flags:?}: {told}");
    }
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}

#[test]
fn namespaces_of_the_host_are_the_hosts() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (flag, name) in [
        ("--pid", "pid"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--cgroupns", "cgroup"),
    ] {
        let link = format!("/proc/{}/ns/{name}", manager.pid());
        let of_host = fs::read_link(link)
            .expect("the manager runs")
            .display()
            .to_string();
        let script = format!("readlink /proc/self/ns/{name}");
        assert_eq!(
            printed(&manager, &image, &[flag, "host"], &script).trim(),
            of_host
        );
        assert_ne!(
            printed(&manager, &image, &[flag, "private"], &script).trim(),
            of_host
        );
    }
    let shm = "mount | grep -c ' on /dev/shm '; true";
    assert_eq!(printed(&manager, &image, &[], shm), "1\n");
    assert_eq!(printed(&manager, &image, &["--ipc", "none"], shm), "0\n");
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").expect("the host has a name");
    assert_eq!(
        printed(
            &manager,
            &image,
            &["--uts", "host"],
            "hostname; cat /etc/hostname"
        ),
        host_name.repeat(2)
    );

    // What the container's process has left in the host's namespace ends with it.
    let leave = "sleep 98765 & sleep 0.1";
    printed(&manager, &image, &["--pid", "host"], leave);
    let commands = fs::read_dir("/proc").expect("proc").flatten();
    let mut commands = commands.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    assert!(
        !commands.any(|command| command == "sleep\x0098765\0"),
        "a process was left behind"
    );
}

#[test]
fn a_container_is_called_as_asked_for() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let (labels, cidfile) = (sandbox.path().join("labels"), sandbox.path().join("cid"));
    fs::write(&labels, "# of a file\none=1\ntwo=2\nHOME\n").expect("write the labels");
    let (labels, cid) = (labels.display().to_string(), cidfile.display().to_string());
    let flags = [
        "create",
        "--name",
        "called",
        "--domainname",
        "realm",
        "--label-file",
        &labels,
        "-l",
        "two=over",
        "--annotation",
        "org.example.note=x",
        "--cidfile",
        &cid,
        "--stop-timeout",
        "1",
        &image,
        "sh",
        "-c",
        "trap '' TERM; cat /proc/sys/kernel/domainname; while :; do sleep 1; done",
    ];
    let id = manager.ctl(&flags).ok();
    assert_eq!(
        fs::read_to_string(&cidfile).expect("a file with the ID"),
        id.trim()
    );
    let told = manager.inspect("called");
    assert_eq!(
        told["labels"],
        serde_json::json!({"one": "1", "two": "over", "HOME": ""})
    );

    let again = manager.ctl(&["create", "--cidfile", &cid, &image, "true"]);
    assert!(
        again.code != 0 && again.stderr.contains("container ID file found"),
        "{again}"
    );
    let missing = sandbox.path().join("none").display().to_string();
    assert_ne!(
        manager
            .ctl(&[
                "create",
                "--cidfile",
                &missing,
                "--pull",
                "never",
                "no-image",
                "true"
            ])
            .code,
        0
    );
    assert!(!Path::new(&missing).exists(), "no container, no file");

    manager.ctl(&["start", "called"]).ok();
    integration::eventually("the process runs", || {
        manager
            .ctl(&["logs", "called"])
            .stdout
            .contains("realm")
            .then_some(())
    });
    let config = fs::read_to_string(
        manager
            .state()
            .join("bundles")
            .join(id.trim())
            .join("config.json"),
    );
    let config: serde_json::Value = serde_json::from_str(&config.expect("the bundle")).expect("JSON");
    assert_eq!(config["annotations"]["org.example.note"], "x");
    let asked = Instant::now();
    manager.ctl(&["stop", "called"]).ok();
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "its own patience is a second, not ten"
    );
}
