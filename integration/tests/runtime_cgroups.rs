//! Limits of containers, read back from the kernel and felt by processes; pause, update, events, ps, kill --all; and
//! that nothing of it is left behind.

use integration::{Bundle, Runtime, Sandbox, eventually, run};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a container's files of a controller are, and whether it is v1.
fn group(bundle: &Bundle, v1: &str) -> (PathBuf, bool) {
    let path = bundle.config["linux"]["cgroupsPath"]
        .as_str()
        .expect("a cgroup path");
    let below = path.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return (root.join(below), false);
    }
    (root.join(v1).join(below), true)
}

/// The text of a limit's file, by its v1 and v2 names.
#[track_caller]
fn limit(bundle: &Bundle, controller: &str, v1: &str, v2: &str) -> String {
    let (folder, is_v1) = group(bundle, controller);
    let path = folder.join(if is_v1 { v1 } else { v2 });
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

fn memory(bundle: &Bundle) -> String {
    limit(bundle, "memory", "memory.limit_in_bytes", "memory.max")
}

fn pids(bundle: &Bundle) -> String {
    limit(bundle, "pids", "pids.max", "pids.max")
}

/// A container that runs `script` detached, with `resources`.
fn started(sandbox: &Sandbox, script: &str, resources: Value) -> (Runtime, Bundle) {
    let runtime = Runtime::new(sandbox);
    let mut bundle = Bundle::new(sandbox, script);
    bundle.set("/linux/resources", resources);
    runtime.detach(&bundle, sandbox.id());
    (runtime, bundle)
}

#[test]
fn limits_are_in_the_kernel_and_gone_after_delete() {
    let sandbox = Sandbox::new();
    let resources = json!({
        "memory": {"limit": 67_108_864, "reservation": 33_554_432},
        "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 33},
    });
    let (runtime, bundle) = started(&sandbox, "sleep 1000", resources);
    assert_eq!(memory(&bundle), "67108864");
    assert_eq!(
        limit(&bundle, "memory", "memory.soft_limit_in_bytes", "memory.low"),
        "33554432"
    );
    assert_eq!(pids(&bundle), "33");
    let (_, is_v1) = group(&bundle, "cpu");
    let shares = if is_v1 { "1024" } else { "100" };
    assert_eq!(limit(&bundle, "cpu", "cpu.shares", "cpu.weight"), shares);
    let quota = if is_v1 { "50000" } else { "50000 100000" };
    assert_eq!(limit(&bundle, "cpu", "cpu.cfs_quota_us", "cpu.max"), quota);
    assert_eq!(limit(&bundle, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(runtime.exec(sandbox.id(), "nproc").ok(), "1\n");
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

#[test]
fn limits_of_bursts_idle_groups_and_disks_are_in_the_kernel() {
    let Some(disk) = disk() else {
        println!("skipped: there is no block device to limit");
        return;
    };
    let sandbox = Sandbox::new();
    let (major, minor) = disk.split_once(':').expect("two numbers");
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let rate = |rate: u64| json!([{"major": number(major), "minor": number(minor), "rate": rate}]);
    let resources = json!({
        "cpu": {"quota": 50_000, "period": 100_000, "burst": 20_000},
        "blockIO": {
            "throttleReadBpsDevice": rate(1_048_576),
            "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(100),
            "throttleWriteIOPSDevice": rate(200),
        },
    });
    let (runtime, bundle) = started(&sandbox, "sleep 1000", resources);
    assert_eq!(
        limit(&bundle, "cpu", "cpu.cfs_burst_us", "cpu.max.burst"),
        "20000"
    );
    if group(&bundle, "blkio").1 {
        for (file, rate) in [
            ("read_bps_device", "1048576"),
            ("write_bps_device", "2097152"),
            ("read_iops_device", "100"),
            ("write_iops_device", "200"),
        ] {
            let shown = limit(&bundle, "blkio", &format!("blkio.throttle.{file}"), "");
            assert_eq!(shown, format!("{disk} {rate}"), "{file}");
        }
    } else {
        let wanted = format!("{disk} rbps=1048576 wbps=2097152 riops=100 wiops=200");
        assert_eq!(limit(&bundle, "io", "", "io.max"), wanted);
    }
    runtime.delete(sandbox.id());
    let sandbox = Sandbox::new();
    let (runtime, bundle) = started(&sandbox, "sleep 1000", json!({"cpu": {"idle": 1}}));
    assert_eq!(limit(&bundle, "cpu", "cpu.idle", "cpu.idle"), "1");
    runtime.delete(sandbox.id());
}

/// `MAJOR:MINOR` of a whole block device, for limits that nobody will reach.
fn disk() -> Option<String> {
    let devices = fs::read_dir("/sys/block").ok()?.flatten();
    let mut numbers = devices.filter_map(|device| fs::read_to_string(device.path().join("dev")).ok());
    numbers.next().map(|text| text.trim().to_owned())
}

#[test]
fn memory_limits_of_v1_alone_are_in_the_kernel_or_refused_by_v2() {
    let sandbox = Sandbox::new();
    let memory =
        json!({"limit": 67_108_864, "swappiness": 10, "disableOOMKiller": true, "kernelTCP": 16_777_216});
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "sleep 1000");
    bundle.set("/linux/resources", json!({"memory": memory}));
    if !group(&bundle, "memory").1 {
        let refused = runtime.run(&bundle, sandbox.id()).refused();
        assert!(refused.contains("linux.resources.memory."), "{refused}");
        return;
    }
    runtime.detach(&bundle, sandbox.id());
    let file = |name: &str| limit(&bundle, "memory", name, "");
    assert_eq!(file("memory.swappiness"), "10");
    assert_eq!(file("memory.kmem.tcp.limit_in_bytes"), "16777216");
    assert!(file("memory.oom_control").contains("oom_kill_disable 1"));
    // What is in use already can't be the limit, when that is to be checked before.
    let update = sandbox.path().join("update.json");
    fs::write(
        &update,
        json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}).to_string(),
    )
    .expect("write");
    let args = [
        "update",
        "--resources",
        update.to_str().expect("a path"),
        sandbox.id(),
    ];
    let refused = runtime.call(&args).refused();
    assert!(refused.contains("in use (checkBeforeUpdate)"), "{refused}");
    assert_eq!(file("memory.limit_in_bytes"), "67108864");
    runtime.delete(sandbox.id());
}

#[test]
fn every_process_is_in_every_group() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = started(&sandbox, "sleep 1000 & sleep 1000", json!({}));
    let init = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();
    let path = bundle.config["linux"]["cgroupsPath"].as_str().expect("a path");
    let groups = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("its groups");
    for line in groups.lines() {
        assert!(
            line.ends_with(&format!(":{path}")),
            "process {init} is elsewhere: {line}"
        );
    }
    runtime.delete(sandbox.id());
}

#[test]
fn more_processes_than_allowed_can_not_be_made() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo made them";
    let mut bundle = Bundle::new(&sandbox, script);
    bundle.set("/linux/resources/pids", json!({"limit": 5}));
    let done = runtime.run(&bundle, sandbox.id());
    assert!(
        done.stderr.contains("can't fork") && !done.stdout.contains("made them"),
        "{done}"
    );
    bundle.set("/linux/resources/pids", json!({"limit": -1}));
    assert!(runtime.run(&bundle, sandbox.id()).ok().contains("made them"));
}

#[test]
fn a_limit_of_no_processes_is_one_and_none_is_no_limit() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = started(&sandbox, "exec sleep 1000", json!({"pids": {"limit": 0}}));
    assert_eq!(pids(&bundle), "1");
    let file = sandbox.path().join("limits.json");
    let file = file.to_str().expect("a path");
    let update = |flags: &[&str]| {
        runtime.call(&[&["update"], flags, &[sandbox.id()]].concat()).ok();
        pids(&bundle)
    };
    assert_eq!(update(&["--pids-limit", "9"]), "9");
    fs::write(file, r#"{"pids": {}, "cpu": {"shares": 512}}"#).expect("write the limits");
    assert_eq!(update(&["--resources", file]), "9");
    assert_eq!(update(&["--pids-limit", "0"]), "1");
    runtime.delete(sandbox.id());

    let sandbox = Sandbox::new();
    let (runtime, bundle) = started(&sandbox, "exec sleep 1000", json!({"pids": {}}));
    assert_eq!(pids(&bundle), "max");
    runtime.delete(sandbox.id());
}

#[test]
fn who_takes_more_memory_than_allowed_is_killed() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    // tail has to keep all of it.
    let script = "head -c 200m /dev/zero | tail -c 150m > /dev/null; echo ended with $?";
    let mut bundle = Bundle::new(&sandbox, script);
    bundle.set("/linux/resources/memory", json!({"limit": 33_554_432}));
    let done = runtime.run(&bundle, sandbox.id());
    assert!(done.stdout.contains("ended with 137"), "{done}");
}

#[test]
fn events_tell_of_memory_that_ran_out() {
    let sandbox = Sandbox::new();
    let script = "while [ ! -e /go ]; do sleep 0.05; done; head -c 200m /dev/zero | tail -c 150m > /dev/null; sleep 1000";
    let (runtime, bundle) = started(&sandbox, script, json!({"memory": {"limit": 33_554_432}}));
    let log = sandbox.path().join("events");
    let file = fs::File::create(&log).expect("make a file");
    let mut events = runtime
        .command(&["events", "--interval", "1h", sandbox.id()])
        .stdout(file)
        .spawn()
        .expect("start events");
    // The watch stands once the event process waits for it; a later OOM repeats, an earlier one would be lost.
    eventually("the OOM event", || {
        fs::write(bundle.rootfs().join("go"), "").expect("open the gate");
        drop(runtime.exec(sandbox.id(), "head -c 200m /dev/zero | tail -c 150m > /dev/null"));
        let text = fs::read_to_string(&log).expect("read the events");
        text.contains(r#""type":"oom""#).then_some(())
    });
    runtime.delete(sandbox.id());
    assert!(
        events.wait().expect("wait for events").success(),
        "events does not end with its container"
    );
}

#[test]
fn pause_stops_all_and_resume_lets_them_go_on() {
    let sandbox = Sandbox::new();
    let script = "while :; do echo x >> /ticks; sleep 0.01; done";
    let (runtime, bundle) = started(&sandbox, script, json!({}));
    let size = || fs::metadata(bundle.rootfs().join("ticks")).map_or(0, |file| file.len());
    eventually("it ticks", || (size() > 0).then_some(()));
    runtime.call(&["pause", sandbox.id()]).ok();
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("paused"));
    let then = size();
    // What stands still can't tick, however long we wait; a short time shows most mistakes.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(size(), then);
    assert!(runtime.exec(sandbox.id(), "true").refused().contains("paused"));
    runtime.call(&["resume", sandbox.id()]).ok();
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("running"));
    eventually("it ticks again", || (size() > then).then_some(()));
    runtime.delete(sandbox.id());
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = started(&sandbox, "sleep 1000 & sleep 1000", json!({}));
    runtime.call(&["pause", sandbox.id()]).ok();
    runtime.call(&["kill", sandbox.id(), "KILL"]).ok();
    eventually("it is dead", || {
        (runtime.status(sandbox.id())? == "stopped").then_some(())
    });
    runtime.call(&["delete", sandbox.id()]).ok();
    runtime.detach(&bundle, sandbox.id());
    runtime.call(&["pause", sandbox.id()]).ok();
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

#[test]
fn update_changes_what_it_names_or_nothing() {
    let sandbox = Sandbox::new();
    let resources = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 33}});
    let (runtime, bundle) = started(&sandbox, "sleep 1000", resources);
    runtime
        .call(&[
            "update",
            "--memory",
            "128m",
            "--memory-swap",
            "256m",
            sandbox.id(),
        ])
        .ok();
    assert_eq!(
        (memory(&bundle).as_str(), pids(&bundle).as_str()),
        ("134217728", "33")
    );
    runtime
        .call(&["update", "--memory", "32m", "--memory-swap", "64m", sandbox.id()])
        .ok();
    assert_eq!(memory(&bundle), "33554432");
    runtime
        .call(&[
            "update",
            "--pids-limit",
            "-1",
            "--cpu-quota",
            "20000",
            "--cpu-period",
            "50000",
            sandbox.id(),
        ])
        .ok();
    assert_eq!(
        (memory(&bundle).as_str(), pids(&bundle).as_str()),
        ("33554432", "max")
    );

    let file = sandbox.path().join("limits.json");
    let refused = json!({"pids": {"limit": 7}, "memory": {"limit": 50_331_648}, "cpu": {"cpus": "4000"}});
    fs::write(&file, refused.to_string()).expect("write the limits");
    let file = file.to_str().expect("a path");
    let error = runtime
        .call(&["update", "--resources", file, sandbox.id()])
        .refused();
    assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
    assert_eq!(
        (memory(&bundle).as_str(), pids(&bundle).as_str()),
        ("33554432", "max")
    );

    fs::write(file, json!({"pids": {"limit": 7}}).to_string()).expect("write the limits");
    runtime.call(&["update", "--resources", file, sandbox.id()]).ok();
    assert_eq!(pids(&bundle), "7");
    runtime.delete(sandbox.id());
}

#[test]
fn events_stats_have_the_form_of_runc() {
    let sandbox = Sandbox::new();
    let resources = json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 33}});
    let (runtime, _bundle) = started(&sandbox, "sleep 1000", resources);
    let text = runtime.call(&["events", "--stats", sandbox.id()]).ok();
    let event: Value = serde_json::from_str(&text).expect("stats are JSON");
    assert_eq!(
        (&event["type"], &event["id"]),
        (&json!("stats"), &json!(sandbox.id()))
    );
    let data = &event["data"];
    assert_eq!(data["pids"], json!({"current": 1, "limit": 33}));
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    for number in ["/cpu/usage/total", "/memory/usage/usage"] {
        assert!(
            data.pointer(number).and_then(Value::as_u64) > Some(0),
            "{number}: {data}"
        );
    }
    for part in ["cpuset", "blkio", "hugetlb", "intel_rdt"] {
        assert!(data[part].is_object(), "{part}: {data}");
    }
    runtime.delete(sandbox.id());
}

#[test]
fn ps_lists_the_processes_of_the_container_alone() {
    let sandbox = Sandbox::new();
    let (runtime, _bundle) = started(&sandbox, "sleep 1001 & sleep 1002 & wait", json!({}));
    let listed = || -> Vec<i64> {
        let text = runtime.call(&["ps", "--format", "json", sandbox.id()]).ok();
        serde_json::from_str(&text).expect("a list of pids")
    };
    eventually("three processes", || (listed().len() == 3).then_some(()));
    let init = runtime.state(sandbox.id()).expect("a container")["pid"]
        .as_i64()
        .expect("a pid");
    assert!(listed().contains(&init));
    let table = runtime.call(&["ps", sandbox.id()]).ok();
    assert!(
        table.contains("sleep 1001") && table.contains("sleep 1002"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 4, "{table}");
    runtime.delete(sandbox.id());
}

#[test]
fn kill_all_reaches_every_process() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    // On the host's pid namespace nobody else takes the children down with init.
    let mut bundle = Bundle::new(
        &sandbox,
        "trap : TERM; sleep 1000 & sleep 1000 & while :; do wait; done",
    );
    let namespaces = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .clone();
    let kept: Vec<Value> = namespaces
        .into_iter()
        .filter(|each| each["type"] != "pid")
        .collect();
    bundle.set("/linux/namespaces", json!(kept));
    runtime.detach(&bundle, sandbox.id());
    let (folder, _) = group(&bundle, "pids");
    let count = || fs::read_to_string(folder.join("cgroup.procs")).map_or(0, |text| text.lines().count());
    eventually("three processes", || (count() == 3).then_some(()));
    runtime.call(&["kill", "--all", sandbox.id(), "TERM"]).ok();
    eventually("the sleepers are dead", || (count() == 1).then_some(()));
    runtime.call(&["kill", "--all", sandbox.id(), "KILL"]).ok();
    eventually("all are dead", || (count() == 0).then_some(()));
    runtime.delete(sandbox.id());
}

#[test]
fn kill_all_ends_a_container_that_forks_all_the_time() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "for i in 1 2 3 4 5 6 7 8; do while :; do /bin/true; done & done; wait",
    );
    let namespaces = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .clone();
    let kept: Vec<Value> = namespaces
        .into_iter()
        .filter(|each| each["type"] != "pid")
        .collect();
    bundle.set("/linux/namespaces", json!(kept));
    runtime.detach(&bundle, sandbox.id());
    let (folder, _) = group(&bundle, "pids");
    let count = || fs::read_to_string(folder.join("cgroup.procs")).map_or(0, |text| text.lines().count());
    eventually("it forks", || (count() > 8).then_some(()));
    runtime.call(&["kill", "--all", sandbox.id(), "KILL"]).ok();
    eventually("all are dead", || (count() == 0).then_some(()));
    runtime.delete(sandbox.id());
}

#[test]
fn devices_without_a_rule_can_be_made_but_not_opened() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let script = "mknod /kmsg c 1 11 && echo made; (: < /kmsg) 2>/dev/null && echo opened; : < /dev/null && : < /dev/urandom && echo usual";
    let mut bundle = Bundle::new(&sandbox, script);
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
    }
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "made\nusual\n");
    fs::remove_file(bundle.rootfs().join("kmsg")).expect("remove the node");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    bundle.push("/linux/resources/devices", rule);
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "made\nopened\nusual\n");
    // A letter that old configurations have gives nothing.
    fs::remove_file(bundle.rootfs().join("kmsg")).expect("remove the node");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "wa"});
    bundle.set("/linux/resources/devices", json!([rule]));
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "made\nusual\n");
}

#[test]
fn groups_that_the_container_made_go_with_it() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = started(&sandbox, "sleep 1000", json!({}));
    // From outside, as the container's own view is read-only by default.
    for controller in ["memory", "pids", "devices", "cpuset"] {
        let (folder, _) = group(&bundle, controller);
        fs::create_dir_all(folder.join("a/b/c")).expect("make groups below");
    }
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

#[test]
fn a_container_that_can_not_start_leaves_no_group() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/no/such/program"]);
    runtime.run(&bundle, sandbox.id()).refused();
    sandbox.assert_clean();
    // The kernel refuses this limit when the groups are there already.
    bundle.set("/process/args", json!(["/bin/true"]));
    bundle.set("/linux/resources/cpu", json!({"cpus": "4000"}));
    let error = runtime.run(&bundle, sandbox.id()).refused();
    assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
    sandbox.assert_clean();
}

#[test]
fn wrong_limits_are_refused_by_field() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    let usual = bundle.config.clone();
    for (pointer, value) in [
        ("/linux/resources/memory", json!({"limit": -5})),
        ("/linux/resources/memory", json!({"limit": 100, "swap": 50})),
        ("/linux/resources/pids", json!({"limit": -5})),
        ("/linux/resources/cpu", json!({"idle": 7})),
        ("/linux/resources/blockIO", json!({"weight": 5})),
        ("/linux/resources/devices", json!([{"allow": true, "type": "p"}])),
        ("/linux/resources/rdma", json!({"mlx": {"hcaHandles": 3}})),
        ("/linux/resources/unified", json!({"../memory.max": "1"})),
        ("/linux/cgroupsPath", json!("/..")),
    ] {
        bundle.config = usual.clone();
        bundle.set(pointer, value);
        let error = runtime.run(&bundle, sandbox.id()).refused();
        let field = pointer[1..].replace('/', ".");
        assert!(error.contains(&field), "{field}: {error}");
        sandbox.assert_clean();
    }
}

#[test]
fn a_group_that_is_in_use_is_not_shared() {
    let sandbox = Sandbox::new();
    let (runtime, mut bundle) = started(&sandbox, "sleep 1000", json!({}));
    bundle.set("/process/args", json!(["/bin/true"]));
    let second = format!("{}-b", sandbox.id());
    let error = runtime.run(&bundle, &second).refused();
    assert!(error.contains("exists already"), "{error}");
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("running"));
    runtime.delete(sandbox.id());
}

#[test]
fn without_a_path_the_group_has_the_containers_name() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "sleep 1000");
    bundle.config["linux"]
        .as_object_mut()
        .expect("linux")
        .remove("cgroupsPath");
    runtime.detach(&bundle, sandbox.id());
    let init = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("its groups");
    assert!(
        groups
            .lines()
            .all(|line| line.ends_with(&format!("/{}", sandbox.id()))),
        "{groups}"
    );
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

/// The command, where it sees a host with cgroup v2 alone: on a hybrid one, the cgroup2 hierarchy is mounted over
/// /sys/fs/cgroup in a mount namespace of its own. Few controllers are left then, but everything else is as on v2.
fn on_v2(command: &Command) -> Command {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return same;
    }
    let mut wrapped = Command::new("unshare");
    let script = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    wrapped
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    wrapped
}

#[test]
fn cgroup_v2_alone_works_from_create_to_delete() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    let root = if hybrid.exists() {
        hybrid
    } else {
        Path::new("/sys/fs/cgroup")
    };
    if !root.join("cgroup.controllers").exists() {
        println!("skipped: needs a mounted cgroup2 hierarchy");
        return;
    }
    let folder = root.join("berth-test").join(sandbox.id());
    let script =
        "mknod /kmsg c 1 11; (: < /kmsg) 2>/dev/null && echo opened; : < /dev/null && echo usual; sleep 1000";
    let mut bundle = Bundle::new(&sandbox, script);
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYSLOG"));
    }
    let offered = fs::read_to_string(root.join("cgroup.controllers")).expect("the controllers");
    let hugetlb = offered.contains("hugetlb");
    let huge = |bytes: u64| json!({"hugepageLimits": [{"pageSize": "2MB", "limit": bytes}]});
    if hugetlb {
        bundle.set(
            "/linux/resources/hugepageLimits",
            huge(4_194_304)["hugepageLimits"].clone(),
        );
    }
    let call = |args: &[&str]| run(&mut on_v2(&runtime.command(args)));
    let log = sandbox.path().join("log");
    let output = fs::File::create(&log).expect("make a file");
    let mut start = on_v2(&runtime.over("run", &bundle, sandbox.id(), &["--detach"]));
    let started = start.stdout(output).status().expect("run the runtime");
    assert!(started.success(), "run on v2 failed");

    let file = |name: &str| fs::read_to_string(folder.join(name)).expect("read a cgroup file");
    let init = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("its groups");
    assert!(
        groups.contains(&format!("0::/berth-test/{}\n", sandbox.id())),
        "{groups}"
    );
    eventually("the script has tried its devices", || {
        fs::read_to_string(&log)
            .expect("read the log")
            .contains("usual")
            .then_some(())
    });
    assert_eq!(
        fs::read_to_string(&log).expect("read the log"),
        "usual\n",
        "a device without a rule was opened"
    );

    call(&[
        "exec",
        sandbox.id(),
        "/bin/sh",
        "-c",
        "sleep 1000 & cat /proc/self/cgroup",
    ])
    .ok();
    eventually("the process of exec is in the group", || {
        (file("cgroup.procs").lines().count() == 2).then_some(())
    });
    call(&["pause", sandbox.id()]).ok();
    assert!(file("cgroup.events").contains("frozen 1"));
    call(&["resume", sandbox.id()]).ok();
    assert!(file("cgroup.events").contains("frozen 0"));

    let limits = sandbox.path().join("limits.json");
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let mut update = if hugetlb { huge(2_097_152) } else { json!({}) };
    update["devices"] = json!([rule]);
    fs::write(&limits, update.to_string()).expect("write the limits");
    call(&[
        "update",
        "--resources",
        limits.to_str().expect("a path"),
        sandbox.id(),
    ])
    .ok();
    if hugetlb {
        assert_eq!(file("hugetlb.2MB.max"), "2097152\n");
    }
    call(&["exec", sandbox.id(), "/bin/sh", "-c", ": < /kmsg"]).ok();
    let stats = call(&["events", "--stats", sandbox.id()]).ok();
    let stats: Value = serde_json::from_str(&stats).expect("stats are JSON");
    assert!(
        stats["data"]["cpu"]["usage"]["total"].as_u64() > Some(0),
        "{stats}"
    );

    fs::create_dir_all(folder.join("a/b")).expect("make groups below");
    call(&["kill", "--all", sandbox.id(), "KILL"]).ok();
    eventually("all are dead", || file("cgroup.procs").is_empty().then_some(()));
    call(&["delete", sandbox.id()]).ok();
    sandbox.assert_clean();
}
