//! Limits and policies that change after a container's creation: in the kernel at once, and on record.

use integration::{Docker, Manager, Sandbox, eventually};
use std::fs;
use std::path::Path;

/// What a file of the container's cgroup says, under its name in version 1 or 2.
fn limit(id: &str, controller: &str, old: &str, new: &str) -> String {
    let root = Path::new("/sys/fs/cgroup");
    let places = [
        root.join(controller).join("berth").join(id).join(old),
        root.join("berth").join(id).join(new),
        root.join("unified/berth").join(id).join(new),
    ];
    let mut texts = places.iter().filter_map(|path| fs::read_to_string(path).ok());
    texts.next().expect("the group has its limits").trim().to_owned()
}

fn limits(id: &str) -> (String, String, String) {
    (
        limit(id, "memory", "memory.limit_in_bytes", "memory.max"),
        limit(id, "cpu", "cpu.cfs_quota_us", "cpu.max"),
        limit(id, "pids", "pids.max", "pids.max"),
    )
}

#[test]
fn limits_change_in_the_kernel_and_on_record() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run = ["run", "-d", "--name", "one", "-m", "64m", &image, "sleep", "1000"];
    let id = manager.ctl(&run).ok().trim().to_owned();
    let update = [
        "update",
        "-m",
        "128m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "40",
        "one",
    ];
    assert_eq!(manager.ctl(&update).ok(), "one\n");
    let pid = manager.inspect("one")["pid"].clone();
    let (memory, quota, pids) = limits(&id);
    assert_eq!((memory.as_str(), pids.as_str()), ("134217728", "40"));
    assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    // Less than it was, and nothing that limits any more.
    manager
        .ctl(&["update", "-m", "32m", "--pids-limit", "-1", "one"])
        .ok();
    let (memory, _, pids) = limits(&id);
    assert_eq!((memory.as_str(), pids.as_str()), ("33554432", "max"));
    let found = manager.inspect("one");
    assert_eq!((&found["state"], &found["pid"]), (&"running".into(), &pid));
    assert_eq!(found["request"]["memoryBytes"], 32 << 20);
    assert_eq!(found["request"]["cpuQuotaMillis"], 500);

    manager.kill();
    manager.start_again();
    manager.ctl(&["restart", "-t", "0", "one"]).ok();
    let (memory, quota, pids) = limits(&id);
    assert_eq!((memory.as_str(), pids.as_str()), ("33554432", "max"));
    assert!(quota.starts_with("50000"), "{quota}");
    // Docker's way to say nothing of a limit.
    let nothing = ["update", "-m", "0", "--cpus", "0", "--cpuset-cpus", "", "-c", "0"];
    manager.ctl(&["update", "--pids-limit", "40", "one"]).ok();
    manager
        .ctl(&[&nothing[..], &["--pids-limit", "0", "one"]].concat())
        .ok();
    assert_eq!(limits(&id), (memory, quota, "40".to_owned()));
    manager.ctl(&["update", "--pids-limit", "0", "one"]).ok();
    manager.ctl(&["update", "--pids-limit", "0", "no-such"]).refused();
}

#[test]
fn a_refused_update_changes_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run = [
        "run",
        "-d",
        "--name",
        "one",
        "--pids-limit",
        "50",
        &image,
        "sleep",
        "1000",
    ];
    let id = manager.ctl(&run).ok().trim().to_owned();
    let before = limits(&id);
    for (flags, reason) in [
        (&["-m", "1m"][..], "6 MiB"),
        (&["--cpus", "100000"], "CPUs"),
        (&["--restart", "often"], "no restart policy"),
        (&[], "nothing is to be changed"),
    ] {
        let refused = manager.ctl(&[&["update"], flags, &["one"]].concat()).refused();
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    assert_eq!(limits(&id), before);
    let found = manager.inspect("one");
    assert_eq!(found["request"]["memoryBytes"], serde_json::Value::Null);
    assert_eq!(
        (&found["request"]["pidsLimit"], &found["state"]),
        (&50.into(), &"running".into())
    );
}

#[test]
fn shares_sets_and_periods_change_too() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run = [
        "run",
        "-d",
        "--name",
        "one",
        "-m",
        "64m",
        "--cpuset-cpus",
        "0-1",
        &image,
    ];
    let id = manager
        .ctl(&[&run[..], &["sleep", "1000"]].concat())
        .ok()
        .trim()
        .to_owned();
    let shares = || limit(&id, "cpu", "cpu.shares", "cpu.weight");
    let before = shares();
    let update = "update -c 512 --cpu-period 50000 --cpu-quota 20000 --cpuset-cpus 0 --cpuset-mems 0";
    let update: Vec<&str> = update.split(' ').collect();
    manager
        .ctl(&[&update[..], &["--memory-reservation", "32m", "one"]].concat())
        .ok();
    for restart in [false, true] {
        if restart {
            manager.kill();
            manager.start_again();
            manager.ctl(&["restart", "-t", "0", "one"]).ok();
        }
        assert_ne!(shares(), before);
        assert_eq!(limit(&id, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        let quota = limit(&id, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(quota == "20000" || quota == "20000 50000", "{quota}");
        let kept = limit(&id, "memory", "memory.soft_limit_in_bytes", "memory.low");
        assert_eq!(kept, (32 << 20).to_string());
    }
    for (flags, reason) in [
        (&["--cpuset-cpus", "900"][..], "not available"),
        (&["--cpus", "1"], "cannot both be set"),
        (&["--memory-swap", "8m"], "larger than the memory limit"),
        (&["--blkio-weight", "5"], "from 10 to 1000"),
    ] {
        let refused = manager.ctl(&[&["update"], flags, &["one"]].concat()).refused();
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    assert_eq!(limit(&id, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
}

/// The kernel of cgroup v1 refuses a limit below what is held; that of v2 would kill.
#[test]
fn what_the_kernel_refuses_is_as_it_was() {
    if !Path::new("/sys/fs/cgroup/memory").is_dir() {
        println!("skipped: a refusal of the kernel needs memory in a hierarchy of cgroup v1");
        return;
    }
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=40; echo held; sleep 1000";
    let run = ["run", "-d", "--name", "one", "--pids-limit", "50", &image];
    let id = manager
        .ctl(&[&run[..], &["sh", "-c", script]].concat())
        .ok()
        .trim()
        .to_owned();
    eventually("it holds memory", || {
        manager
            .ctl(&["logs", "one"])
            .ok()
            .contains("held\n")
            .then_some(())
    });
    let before = limits(&id);
    let refused = manager
        .ctl(&["update", "-m", "8m", "--pids-limit", "60", "one"])
        .refused();
    assert!(refused.contains("memory.limit_in_bytes"), "{refused}");
    for _ in 0..2 {
        assert_eq!(limits(&id), before);
        let found = manager.inspect("one");
        assert_eq!(found["request"]["memoryBytes"], serde_json::Value::Null);
        assert_eq!(
            (&found["request"]["pidsLimit"], &found["state"]),
            (&50.into(), &"running".into())
        );
        manager.kill();
        manager.start_again();
    }
}

#[test]
fn a_new_policy_counts_from_the_next_end_on() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.ctl(&["create", "--name", "one", &image, "false"]).ok();
    manager
        .ctl(&["update", "--restart", "on-failure:2", "-m", "16m", "one"])
        .ok();
    manager.ctl(&["start", "one"]).ok();
    let ended = eventually("it is given up", || {
        let found = manager.inspect("one");
        (found["state"] == "exited" && found["restartCount"] == 2).then_some(found)
    });
    assert_eq!(ended["request"]["memoryBytes"], 16 << 20);
    let run = ["run", "-d", "--rm", "--name", "two", &image, "sleep", "1000"];
    manager.ctl(&run).ok();
    let refused = manager.ctl(&["update", "--restart", "always", "two"]).refused();
    assert!(refused.contains("removes itself"), "{refused}");
}

/// The limits that a container's cgroup has, of the hierarchies of version 1.
fn all_limits(group: &str, id: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let files = [
        "memory/memory.limit_in_bytes",
        "memory/memory.memsw.limit_in_bytes",
        "memory/memory.soft_limit_in_bytes",
        "cpu/cpu.cfs_quota_us",
        "cpu/cpu.cfs_period_us",
        "cpu/cpu.shares",
        "pids/pids.max",
        "cpuset/cpuset.cpus",
    ];
    let read = |file: &str| {
        let (controller, name) = file.split_once('/').expect("a controller");
        let text = fs::read_to_string(root.join(controller).join(group).join(id).join(name));
        format!("{name} {}", text.unwrap_or_default().trim())
    };
    files.into_iter().map(read).collect()
}

#[test]
fn zeros_mean_what_they_mean_to_docker() {
    if !Path::new("/sys/fs/cgroup/memory").is_dir() {
        println!("skipped: this machine has no cgroups of version 1 to compare");
        return;
    }
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let Some(docker) = Docker::start_with_runc(&sandbox) else {
        return;
    };
    for cpu in [&["--cpu-quota=50000", "--cpu-period=200000"][..], &["--cpus=0.5"]] {
        let limits = [
            "-m=64m",
            "--memory-reservation=32m",
            "--memory-swap=96m",
            "--cpu-shares=512",
            "--pids-limit=40",
            "--cpuset-cpus=0",
        ];
        let run = |image| {
            [
                &["run", "-d", "--name", "one"],
                &limits[..],
                cpu,
                &[image, "sleep", "1000"],
            ]
            .concat()
        };
        let ours = manager.ctl(&run(&image)).ok();
        let theirs = docker.call(&run("box")).ok();
        let compare = |what: &str| {
            let ours = all_limits("berth", ours.trim());
            assert_eq!(ours, all_limits(sandbox.id(), theirs.trim()), "after {what}");
        };
        compare("run");
        for change in [
            "--memory=0",
            "--memory-reservation=0",
            "--memory-swap=0",
            "--cpus=0",
            "--cpu-quota=0",
            "--cpu-period=0",
            "--cpu-shares=0",
            "--cpuset-cpus=",
            "--blkio-weight=0",
            "--pids-limit=0",
            "--pids-limit=30",
            "--pids-limit=-1",
            "--cpu-quota=-1",
            "--memory=128m",
        ] {
            let update = ["update", change, "one"];
            let (ours, theirs) = (manager.ctl(&update), docker.call(&update));
            assert_eq!(ours.code == 0, theirs.code == 0, "{ours}\n{theirs}");
            compare(change);
        }
        manager.ctl(&["rm", "-f", "one"]).ok();
        docker.call(&["rm", "-f", "one"]).ok();
    }
}

/// A group above containers that this test has made, in one hierarchy: the manager then leaves it in all of them.
struct Above(String);

impl Drop for Above {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        for hierarchy in hierarchies {
            let _ = fs::remove_dir(hierarchy.path().join(&self.0));
        }
    }
}

#[test]
fn real_time_is_given_by_group_where_the_group_above_has_some() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let parent = format!("rt-{}", sandbox.id());
    let folder = Path::new("/sys/fs/cgroup/cpu").join(&parent);
    let run = |runtime: &str| {
        let flags = ["run", "-d", "--name", "one", "--cgroup-parent", &parent];
        let real = ["--cpu-rt-period=1000000", runtime, &image, "sleep", "1000"];
        manager.ctl(&[&flags[..], &real].concat())
    };
    if !Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        let refused = run("--cpu-rt-runtime=1000").refused();
        assert!(refused.contains("CONFIG_RT_GROUP_SCHED"), "{refused}");
        return;
    }
    let refused = run("--cpu-rt-runtime=2000000").refused();
    assert!(refused.contains("cannot be higher"), "{refused}");
    let refused = run("--cpu-rt-runtime=1000").refused();
    assert!(
        refused.contains("0 µs of the group above") && refused.contains("cpu.rt_runtime_us"),
        "{refused}"
    );
    manager.ctl(&["rm", "one"]).ok();
    fs::create_dir(&folder).expect("make the group above");
    let above = Above(parent.clone());
    fs::write(folder.join("cpu.rt_runtime_us"), "2000").expect("give it real-time");
    let id = run("--cpu-rt-runtime=1000").ok().trim().to_owned();
    let has =
        || fs::read_to_string(folder.join(&id).join("cpu.rt_runtime_us")).expect("the group's real-time");
    assert_eq!(has().trim(), "1000");
    manager.ctl(&["update", "--cpu-rt-runtime", "1500", "one"]).ok();
    assert_eq!(has().trim(), "1500");
    let refused = manager
        .ctl(&["update", "--cpu-rt-runtime", "3000", "one"])
        .refused();
    assert!(refused.contains("3000 µs are more than the 2000 µs"), "{refused}");
    manager.ctl(&["rm", "-f", "one"]).ok();
    drop(above);
}
