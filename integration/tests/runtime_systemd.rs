//! `--systemd-cgroup`: each container is a scope of systemd's. These tests run where systemd is process 1 (hack/vm-tests
//! boots such machines), most of them with cgroups v2 alone; elsewhere they say why they do not, and try the refusal.

use integration::{Bundle, Done, Runtime, Sandbox, command_exists, eventually, run};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether systemd can make groups here; if not, the reason is printed.
fn is_systemd_here() -> bool {
    let here =
        Path::new("/run/systemd/system").is_dir() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !here {
        println!("skipped: needs systemd as process 1, and cgroup v2 alone (hack/vm-tests has both)");
    }
    here
}

/// The same with v1 hierarchies, alone or beside systemd's own in v2.
fn is_systemd_with_v1_here() -> bool {
    let here =
        Path::new("/run/systemd/system").is_dir() && !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !here {
        println!(
            "skipped: needs systemd as process 1, and cgroup v1 (hack/vm-tests --boot legacy or hybrid)"
        );
    }
    here
}

/// `runtime --systemd-cgroup VERB …`.
fn call(runtime: &Runtime, args: &[&str]) -> Done {
    run(&mut runtime.command(&[&["--systemd-cgroup"], args].concat()))
}

/// `runtime --systemd-cgroup VERB` over a bundle.
fn over(runtime: &Runtime, verb: &[&str], bundle: &Bundle, id: &str) -> Done {
    bundle.write();
    let path = bundle.path().to_str().expect("a path");
    call(runtime, &[verb, &["--bundle", path, id]].concat())
}

/// A bundle for a scope named `berth-ID.scope` in a slice.
fn bundle(sandbox: &Sandbox, slice: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::new(sandbox, script);
    bundle.set(
        "/linux/cgroupsPath",
        json!(format!("{slice}:berth:{}", sandbox.id())),
    );
    bundle
}

fn scope(sandbox: &Sandbox) -> String {
    format!("berth-{}.scope", sandbox.id())
}

/// A property as `systemctl show` tells it.
fn property(unit: &str, name: &str) -> String {
    let value = run(Command::new("systemctl").args(["show", "--value", "-p", name, unit])).ok();
    value.trim().to_owned()
}

fn assert_no_unit(unit: &str) {
    eventually("systemd has forgotten the scope", || {
        (property(unit, "LoadState") == "not-found").then_some(())
    });
}

fn group(slices: &str, sandbox: &Sandbox) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(slices).join(scope(sandbox))
}

fn file(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

fn update(runtime: &Runtime, sandbox: &Sandbox, resources: &Value) -> Done {
    let path = sandbox.path().join("limits.json");
    fs::write(&path, resources.to_string()).expect("write the limits");
    let path = path.to_str().expect("a path");
    call(runtime, &["update", "--resources", path, sandbox.id()])
}

#[test]
fn without_systemd_it_is_refused_by_name() {
    if Path::new("/run/systemd/system").is_dir() {
        println!("skipped: systemd is running here");
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = bundle(&sandbox, "system.slice", "true");
    let error = over(&runtime, &["run"], &bundle, sandbox.id()).refused();
    assert!(error.contains("systemd is not running on this host"), "{error}");
    sandbox.assert_clean();
}

#[test]
fn a_container_is_a_scope_with_its_limits_until_it_is_deleted() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let unit = scope(&sandbox);
    let mut bundle = bundle(&sandbox, "berth-test.slice", "sleep 1000 & sleep 1000");
    bundle.set(
        "/linux/resources",
        json!({
            "memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 67_108_864},
            "cpu": {"shares": 512, "quota": 50_500, "period": 100_000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 33},
        }),
    );
    over(&runtime, &["run", "--detach"], &bundle, sandbox.id()).ok();

    let folder = group("berth.slice/berth-test.slice", &sandbox);
    let init = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("its group");
    assert_eq!(cgroup, format!("0::/berth.slice/berth-test.slice/{unit}\n"));
    for (name, value) in [
        ("Slice", "berth-test.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("ActiveState", "active"),
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemorySwapMax", "0"),
        ("TasksMax", "33"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "510ms"),
        ("CPUQuotaPeriodUSec", "100ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert_eq!(file(&folder, "memory.max"), "67108864");
    assert_eq!(file(&folder, "pids.max"), "33");
    assert_eq!(file(&folder, "cpuset.cpus"), "0");
    // Ours is exact where systemd's is rounded.
    assert_eq!(file(&folder, "cpu.max"), "50500 100000");

    // What others do to their units has systemd write its values once more.
    run(Command::new("systemctl").arg("daemon-reload")).ok();
    assert_eq!(file(&folder, "memory.max"), "67108864");
    assert_eq!(call(&runtime, &["exec", sandbox.id(), "nproc"]).ok(), "1\n");
    let inside = call(&runtime, &["exec", sandbox.id(), "cat", "/proc/self/cgroup"]).ok();
    assert_eq!(inside, "0::/\n");
    let ps = call(&runtime, &["ps", "--format", "json", sandbox.id()]).ok();
    assert_eq!(ps.matches(',').count(), 1, "{ps}");

    update(
        &runtime,
        &sandbox,
        &json!({"memory": {"limit": 134_217_728, "swap": 134_217_728}, "pids": {"limit": 44}, "cpu": {"quota": 20_000}}),
    )
    .ok();
    for (name, value) in [
        ("MemoryMax", "134217728"),
        ("TasksMax", "44"),
        ("CPUQuotaPerSecUSec", "200ms"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert_eq!(file(&folder, "memory.max"), "134217728");
    assert_eq!(file(&folder, "cpu.max"), "20000 100000");
    assert_eq!(file(&folder, "pids.max"), "44");
    update(
        &runtime,
        &sandbox,
        &json!({"pids": {"limit": 55}, "cpu": {"cpus": "0,4000"}}),
    )
    .refused();
    assert_eq!(file(&folder, "pids.max"), "44");

    call(&runtime, &["pause", sandbox.id()]).ok();
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("paused"));
    call(&runtime, &["delete", "--force", sandbox.id()]).ok();
    assert!(!folder.exists());
    assert_no_unit(&unit);
    sandbox.assert_clean();
    run(Command::new("systemctl").args(["stop", "berth-test.slice", "berth.slice"])).ok();
}

#[test]
fn the_names_have_defaults_and_rules() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "cat /proc/self/mountinfo | grep cgroup2");
    bundle.set("/linux/cgroupsPath", json!(null));
    over(&runtime, &["create"], &bundle, sandbox.id()).ok();
    let unit = format!("{}.scope", sandbox.id());
    assert_eq!(property(&unit, "Slice"), "system.slice");
    // Deleted without the flag too: the unit is in the state.
    runtime.call(&["delete", sandbox.id()]).ok();
    assert_no_unit(&unit);
    for path in [
        "/berth-test/x",
        "a:b:c:d",
        "no-slice:b:c",
        "-.slice:b:",
        "a--b.slice:b:c",
    ] {
        bundle.set("/linux/cgroupsPath", json!(path));
        let error = over(&runtime, &["run"], &bundle, sandbox.id()).refused();
        assert!(error.contains("config.json: linux.cgroupsPath: "), "{error}");
    }
    sandbox.assert_clean();
}

#[test]
fn a_container_that_can_not_start_leaves_no_unit() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = bundle(&sandbox, "system.slice", "true");
    bundle.set("/process/args", json!(["/no/such/program"]));
    let error = over(&runtime, &["run"], &bundle, sandbox.id()).refused();
    assert!(error.contains("/no/such/program"), "{error}");
    assert_no_unit(&scope(&sandbox));
    // What systemd refuses comes with its words.
    bundle.set(
        "/annotations",
        json!({"org.systemd.property.NoSuchThing": "true"}),
    );
    let error = over(&runtime, &["run"], &bundle, sandbox.id()).refused();
    assert!(
        error.contains("NoSuchThing") && error.contains(&scope(&sandbox)),
        "{error}"
    );
    assert_no_unit(&scope(&sandbox));
    sandbox.assert_clean();
}

#[test]
fn a_unit_in_use_is_not_shared() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = bundle(&sandbox, "system.slice", "sleep 1000");
    over(&runtime, &["run", "--detach"], &bundle, sandbox.id()).ok();
    let second = format!("{}-second", sandbox.id());
    let error = over(&runtime, &["run"], &bundle, &second).refused();
    assert!(error.contains(&scope(&sandbox)), "{error}");
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("running"));
    call(&runtime, &["delete", "--force", sandbox.id()]).ok();
    assert_no_unit(&scope(&sandbox));
    // The name is free again at once.
    over(&runtime, &["run"], &bundle_of(bundle, "true"), sandbox.id()).ok();
    sandbox.assert_clean();
}

fn bundle_of(mut bundle: Bundle, script: &str) -> Bundle {
    bundle.set("/process/args", json!(["/bin/sh", "-c", script]));
    bundle
}

#[test]
fn a_container_that_ended_or_ran_out_of_memory_leaves_no_unit() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = bundle(&sandbox, "system.slice", "head -c 200m /dev/zero | tail -c 150m");
    bundle.set(
        "/linux/resources/memory",
        json!({"limit": 33_554_432, "swap": 33_554_432}),
    );
    over(&runtime, &["run", "--detach"], &bundle, sandbox.id()).ok();
    eventually("it has ended", || {
        (runtime.status(sandbox.id())? == "stopped").then_some(())
    });
    assert_no_unit(&scope(&sandbox));
    call(&runtime, &["delete", sandbox.id()]).ok();
    sandbox.assert_clean();
}

#[test]
fn annotations_set_properties_of_the_unit() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = bundle(&sandbox, "system.slice", "sleep 1000");
    bundle.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopSec": "uint64 7",
            "org.systemd.property.Description": "'the one of the test'",
            "org.systemd.property.After": "['basic.target']",
        }),
    );
    over(&runtime, &["run", "--detach"], &bundle, sandbox.id()).ok();
    let unit = scope(&sandbox);
    assert_eq!(property(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(property(&unit, "Description"), "the one of the test");
    assert!(property(&unit, "After").contains("basic.target"));
    call(&runtime, &["delete", "--force", sandbox.id()]).ok();
    for (name, value) in [("PIDs", "[uint32 1]"), ("TimeoutStopSec", "soon")] {
        bundle.set(
            "/annotations",
            json!({format!("org.systemd.property.{name}"): value}),
        );
        let error = over(&runtime, &["run"], &bundle, sandbox.id()).refused();
        assert!(error.contains(&format!("org.systemd.property.{name}")), "{error}");
    }
    sandbox.assert_clean();
}

#[test]
fn joined_namespaces_and_device_rules_work_in_a_scope() {
    if !is_systemd_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let first = bundle(&sandbox, "system.slice", "sleep 1000");
    over(&runtime, &["run", "--detach"], &first, sandbox.id()).ok();
    let init = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();

    let second = format!("{}b", sandbox.id());
    let script = "cat /proc/self/cgroup; mknod /kmsg c 1 11; (: < /kmsg) 2>/dev/null && echo opened; : < /dev/null && echo usual";
    let mut bundle = Bundle::named(&sandbox, "second", &["/bin/sh", "-c", script]);
    bundle.set(
        "/linux/cgroupsPath",
        json!(format!("system.slice:berth:{second}")),
    );
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
    }
    let mut namespaces = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .clone();
    for namespace in &mut namespaces {
        if namespace["type"] == "pid" {
            namespace["path"] = json!(format!("/proc/{init}/ns/pid"));
        }
    }
    bundle.set("/linux/namespaces", json!(namespaces));
    assert_eq!(over(&runtime, &["run"], &bundle, &second).ok(), "0::/\nusual\n");
    call(&runtime, &["delete", "--force", sandbox.id()]).ok();
    assert_no_unit(&scope(&sandbox));
    sandbox.assert_clean();
}

#[test]
fn create_killed_anywhere_leaves_what_delete_force_removes() {
    if !is_systemd_here() || !command_exists("strace") {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = bundle(&sandbox, "system.slice", "sleep 1000");
    bundle.write();
    let mut kills = 0;
    for call_name in [
        "connect", "write", "recvfrom", "read", "clone3", "sendmsg", "sendto",
    ] {
        for number in (1..40).step_by(if call_name == "read" { 3 } else { 1 }) {
            let create = runtime.command(&["--systemd-cgroup", "create", "--bundle"]);
            let mut command = Command::new("strace");
            command
                .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call_name}")])
                .args(["-e", &format!("inject={call_name}:signal=KILL:when={number}")])
                .arg(create.get_program())
                .args(create.get_args())
                .arg(bundle.path())
                .arg(sandbox.id());
            let killed = run(&mut command).code == 137;
            kills += u32::from(killed);
            call(&runtime, &["delete", "--force", sandbox.id()]).ok();
            assert_no_unit(&scope(&sandbox));
            if !killed {
                break;
            }
        }
    }
    assert!(
        kills > 10,
        "only {kills} kills hit create: is the list of calls still right?"
    );
    sandbox.assert_clean();
}

#[test]
fn with_v1_a_scope_has_a_group_in_every_hierarchy() {
    if !is_systemd_with_v1_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let unit = scope(&sandbox);
    let path = format!("/berth.slice/berth-test.slice/{unit}");
    let mut bundle = bundle(&sandbox, "berth-test.slice", "sleep 1000 & sleep 1000");
    bundle.set(
        "/linux/resources",
        json!({
            "memory": {"limit": 67_108_864},
            "cpu": {"shares": 512, "quota": 50_500, "period": 100_000, "cpus": "0"},
            "pids": {"limit": 33},
            "devices": [{"allow": false, "access": "rwm"}],
        }),
    );
    over(&runtime, &["run", "--detach"], &bundle, sandbox.id()).ok();

    // A kernel with v1 alone has an empty line for v2.
    let unified = Path::new("/sys/fs/cgroup/unified").is_dir();
    let memberships = |text: &str| {
        let fields = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let counted = fields.filter(|fields| unified || !fields[1].is_empty());
        counted
            .map(|fields| (fields[1].to_owned(), fields[2].to_owned()))
            .collect::<Vec<_>>()
    };
    let init = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();
    let of_init = memberships(&fs::read_to_string(format!("/proc/{init}/cgroup")).expect("its groups"));
    assert!(of_init.len() > 5, "{of_init:?}");
    for (hierarchy, group) in &of_init {
        assert_eq!(group, &path, "{hierarchy}");
    }
    let exec = call(&runtime, &["exec", sandbox.id(), "cat", "/proc/self/cgroup"]).ok();
    assert_eq!(memberships(&exec).len(), of_init.len(), "{exec}");

    let group = |controller: &str| Path::new("/sys/fs/cgroup").join(controller).join(&path[1..]);
    for (name, value) in [
        ("Slice", "berth-test.slice"),
        ("Delegate", "yes"),
        ("MemoryLimit", "67108864"),
        ("CPUShares", "512"),
        ("TasksMax", "33"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    for (controller, name, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50500"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "33"),
    ] {
        assert_eq!(file(&group(controller), name), value, "{name}");
    }
    let devices = file(&group("devices"), "devices.list");
    assert!(
        !devices.contains("a *:* rwm") && devices.contains("c 1:3 rwm"),
        "{devices}"
    );

    update(
        &runtime,
        &sandbox,
        &json!({"memory": {"limit": 33_554_432}, "cpu": {"shares": 256}}),
    )
    .ok();
    assert_eq!(property(&unit, "MemoryLimit"), "33554432");
    assert_eq!(file(&group("memory"), "memory.limit_in_bytes"), "33554432");
    assert_eq!(file(&group("cpu"), "cpu.shares"), "256");
    call(&runtime, &["pause", sandbox.id()]).ok();
    assert_eq!(file(&group("freezer"), "freezer.state"), "FROZEN");
    call(&runtime, &["resume", sandbox.id()]).ok();
    let stats = call(&runtime, &["events", "--stats", sandbox.id()]).ok();
    let stats: Value = serde_json::from_str(&stats).expect("stats are JSON");
    assert!(
        stats["data"]["memory"]["usage"]["usage"].as_u64() > Some(0),
        "{stats}"
    );

    call(&runtime, &["delete", "--force", sandbox.id()]).ok();
    assert_no_unit(&unit);
    for (hierarchy, _) in of_init {
        let name = hierarchy.strip_prefix("name=").unwrap_or(&hierarchy);
        assert!(
            !group(if name.is_empty() { "unified" } else { name }).exists(),
            "{hierarchy}"
        );
    }
    sandbox.assert_clean();
}
