//! Fields of the specification that reach outside the container's own namespaces, and the command line's to match.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{Bundle, Done, Runtime, Sandbox, eventually, run};
use serde_json::json;

/// `runtime run` over a bundle, in a network namespace that stands for the host's and was set up by `script`.
fn run_on_network(runtime: &Runtime, bundle: &Bundle, id: &str, script: &str, after: &str) -> Done {
    let inner = runtime.over("run", bundle, id, &[]);
    let mut command = Command::new("unshare");
    let script = format!("set -e; {script}; set +e; \"$@\"; code=$?; {after}; exit $code");
    command.args(["--net", "sh", "-c", &script, "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    run(&mut command)
}

#[test]
fn devices_of_the_host_move_in_with_their_addresses() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "busybox ip -o addr; busybox ip link show kept >/dev/null || exit 9",
    );
    bundle.set(
        "/linux/netDevices",
        json!({"moved": {"name": "net0"}, "kept": {}}),
    );
    let script = "ip link add moved type veth peer name far; ip addr add 10.9.8.7/24 dev moved; \
        ip -6 addr add fd00::7/64 dev moved nodad; ip link set moved up; ip link set far up; \
        ip link add kept type veth peer name far2";
    let done = run_on_network(&runtime, &bundle, sandbox.id(), script, "true");
    assert_eq!(done.code, 0, "{done}");
    let line = |text: &str| {
        done.stdout
            .lines()
            .any(|line| line.contains("net0") && line.contains(text))
    };
    assert!(line("10.9.8.7/24") && line("fd00::7/64"), "{done}");
}

#[test]
fn devices_move_into_a_namespace_that_exists_and_not_over_one_that_is_there() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "busybox ip -o addr");
    let holder = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link add taken type veth peer name other && echo && exec sleep 1000",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut holder = holder.expect("start unshare");
    let mut ready = [0];
    std::io::Read::read_exact(&mut holder.stdout.take().expect("its output"), &mut ready)
        .expect("it is ready");
    let list = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("namespaces");
    let mut list: Vec<_> = list
        .iter()
        .filter(|each| each["type"] != "network")
        .cloned()
        .collect();
    list.push(json!({"type": "network", "path": format!("/proc/{}/ns/net", holder.id())}));
    bundle.set("/linux/namespaces", json!(list));
    let script = "ip link add moved type veth peer name far; ip addr add 10.9.8.7/24 dev moved";
    bundle.set("/linux/netDevices", json!({"moved": {"name": "taken"}}));
    let refused = run_on_network(&runtime, &bundle, sandbox.id(), script, "ip -o addr show moved");
    bundle.set("/linux/netDevices", json!({"moved": {}}));
    let done = run_on_network(&runtime, &bundle, sandbox.id(), script, "true");
    holder.kill().expect("end the holder");
    holder.wait().expect("reap the holder");
    assert!(
        refused.stdout.contains("10.9.8.7/24"),
        "it is back where it was: {refused}"
    );
    let error = refused.refused();
    assert!(
        error
            .contains("linux.netDevices.moved: the container's network namespace has a device taken already"),
        "{error}"
    );
    let text = done.ok();
    assert!(text.contains("10.9.8.7/24") && text.contains(" moved "), "{text}");
}

#[test]
fn a_device_that_is_not_there_is_named_and_the_others_come_back() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    bundle.set(
        "/linux/netDevices",
        json!({"aaa": {"name": "net0"}, "missing": {}}),
    );
    let script = "ip link add aaa type veth peer name far; ip addr add 10.9.8.7/24 dev aaa";
    let done = run_on_network(&runtime, &bundle, sandbox.id(), script, "ip -o addr show aaa");
    assert!(done.stdout.contains("10.9.8.7/24"), "{done}");
    assert!(
        done.refused()
            .contains("find network device missing: No such device")
    );
}

#[test]
fn the_memory_policy_is_that_of_every_process() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    if !Path::new("/proc/self/numa_maps").exists() {
        println!("skipped: this kernel has no NUMA");
        return;
    }
    let mut bundle = Bundle::new(
        &sandbox,
        "head -n 1 /proc/self/numa_maps > /first; exec sleep 1000",
    );
    let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    bundle.set("/linux/memoryPolicy", policy);
    runtime.detach(&bundle, sandbox.id());
    let first = eventually("the program has looked", || {
        fs::read_to_string(bundle.rootfs().join("first"))
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    let second = runtime.exec(sandbox.id(), "head -n 1 /proc/self/numa_maps").ok();
    for line in [first, second] {
        assert!(line.contains("bind=static:0"), "{line}");
    }
    runtime.delete(sandbox.id());
}

#[test]
fn a_share_of_the_caches_is_refused_without_resctrl() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    if Path::new("/sys/fs/resctrl/schemata").exists() {
        println!("skipped: resctrl is mounted here");
        return;
    }
    let mut bundle = Bundle::new(&sandbox, "true");
    bundle.set("/linux/intelRdt", json!({"closID": "gold"}));
    let refused = runtime.create(&bundle, sandbox.id()).refused();
    let wanted =
        "config.json: linux.intelRdt: needs a resctrl file system at /sys/fs/resctrl, which is not mounted";
    assert!(refused.contains(wanted), "{refused}");
    let bundle = Bundle::named(&sandbox, "second", &["/bin/sleep", "1000"]);
    runtime.detach(&bundle, sandbox.id());
    let refused = runtime
        .call(&["update", "--mem-bw-schema", "MB:0=50", sandbox.id()])
        .refused();
    assert!(refused.contains("has no linux.intelRdt"), "{refused}");
    runtime.delete(sandbox.id());
}

/// The container's group in every hierarchy.
fn groups(id: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let folders = fs::read_dir(root)
        .expect("read the hierarchies")
        .map(|entry| entry.expect("an entry").path());
    let mut groups: Vec<PathBuf> = folders
        .chain([root.to_owned()])
        .map(|folder| folder.join("berth-test").join(id))
        .filter(|group| group.is_dir())
        .collect();
    // `cpu` and `cpuacct` can be links to one.
    groups.sort_by_key(|group| fs::metadata(group).map(|found| (found.dev(), found.ino())).ok());
    groups.dedup_by_key(|group| fs::metadata(group).map(|found| (found.dev(), found.ino())).ok());
    groups
}

#[test]
fn exec_goes_into_the_cgroup_below_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let id = sandbox.id();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    runtime.detach(&bundle, id);
    for group in groups(id) {
        fs::create_dir(group.join("below")).expect("make a group");
    }
    let exec = |cgroup: &str| runtime.call(&["exec", "--cgroup", cgroup, id, "cat", "/proc/self/cgroup"]);
    let inside = exec("below").ok();
    // With v2 alone the default is a cgroup namespace, which does not tell the container's own part of the path.
    let is_ours = |line: &&str| line.contains(id) || *line == "0::/below";
    let ours: Vec<_> = inside.lines().filter(is_ours).collect();
    assert!(
        !ours.is_empty() && ours.iter().all(|line| line.ends_with("/below")),
        "{inside}"
    );
    if Path::new("/sys/fs/cgroup/pids").exists() {
        let inside = exec("pids:below").ok();
        let below: Vec<_> = inside.lines().filter(|line| line.ends_with("/below")).collect();
        assert!(matches!(below[..], [line] if line.contains(":pids:")), "{inside}");
    }
    for wrong in ["../..", "nowhere", "bogus:below"] {
        let done = exec(wrong);
        assert_eq!(done.code, 255, "{done}");
        assert!(done.refused().contains(&format!("--cgroup {wrong}: ")));
    }
    runtime.delete(id);
}

#[test]
fn a_user_who_is_not_root_maps_ranges_by_the_helpers() {
    const NOBODY: u32 = 65534;
    let sandbox = Sandbox::new();
    if !integration::command_exists("newuidmap") {
        println!("skipped: there is no newuidmap");
        return;
    }
    let runtime = Runtime::new(&sandbox);
    let id = sandbox.id();
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /proc/self/uid_map; busybox touch /file; busybox chown 1000 /file",
    );
    let maps = json!([
        {"containerID": 0, "hostID": NOBODY, "size": 1},
        {"containerID": 1, "hostID": 700_000, "size": 500},
        {"containerID": 1000, "hostID": 800_000, "size": 10}
    ]);
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", maps.clone());
    bundle.set("/linux/gidMappings", maps);
    bundle.set("/linux/resources", json!({}));
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_CHOWN"));
    }
    chown(bundle.rootfs(), Some(NOBODY), Some(NOBODY)).expect("give the rootfs away");
    chown(runtime.root(), Some(NOBODY), Some(NOBODY)).expect("give the state away");
    let ranges = sandbox.path().join("ranges");
    fs::write(&ranges, "nobody:700000:500\nnobody:800000:10\n").expect("write the ranges");
    let inner = runtime.over("run", &bundle, id, &[]);
    // A mount namespace of its own, so that the host's files stay as they are.
    let script = "for file in subuid subgid; do mount --bind $0 /etc/$file || exit 99; done; \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&ranges);
    command.arg(inner.get_program()).args(inner.get_args());
    let done = run(&mut command);
    assert_eq!(done.code, 0, "{done}");
    let lines: Vec<Vec<&str>> = done
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[1..],
        [["1", "700000", "500"], ["1000", "800000", "10"]],
        "{done}"
    );
    let owner = fs::metadata(bundle.rootfs().join("file"))
        .expect("the file")
        .uid();
    assert_eq!(owner, 800_000);
}

#[test]
fn clocks_names_sysctls_scheduling_and_personality_are_as_asked() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /proc/self/timens_offsets /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward \
         /proc/sys/kernel/msgmax; uname -m; cut -d ' ' -f 19,41 /proc/self/stat; busybox ionice -p $$",
    );
    bundle.push("/linux/namespaces", json!({"type": "time"}));
    let offsets = json!({"monotonic": {"secs": 172_800}, "boottime": {"secs": 604_800, "nanosecs": 5}});
    bundle.set("/linux/timeOffsets", offsets);
    bundle.set("/domainname", json!("example"));
    let sysctls = json!({"net.ipv4.ip_forward": "1", "kernel/msgmax": "4321"});
    bundle.set("/linux/sysctl", sysctls);
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 7}));
    bundle.set(
        "/process/ioPriority",
        json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
    );
    let text = runtime.run(&bundle, sandbox.id()).ok();
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let machine = if cfg!(target_arch = "x86_64") {
        "i686"
    } else {
        "armv8l"
    };
    let wanted = [
        "monotonic 172800 0",
        "boottime 604800 5",
        "example",
        "1",
        "4321",
        machine,
        "7 3",
        "best-effort: prio 6",
    ];
    assert_eq!(lines, wanted, "{text}");
}

#[test]
fn each_scheduling_policy_and_io_class_is_as_asked() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    // proc(5): nice value, real-time priority, policy.
    let script = "cut -d ' ' -f 19,40,41 /proc/self/stat; busybox ionice -p $$";
    let cases = [
        (
            json!({"policy": "SCHED_OTHER", "nice": -5}),
            "IOPRIO_CLASS_RT",
            1,
            "-5 0 0\nrealtime: prio 1\n",
        ),
        (
            json!({"policy": "SCHED_FIFO", "priority": 9}),
            "IOPRIO_CLASS_BE",
            0,
            " 9 1\nbest-effort: prio 0\n",
        ),
        (
            json!({"policy": "SCHED_RR", "priority": 3}),
            "IOPRIO_CLASS_BE",
            7,
            " 3 2\nbest-effort: prio 7\n",
        ),
        (
            json!({"policy": "SCHED_IDLE"}),
            "IOPRIO_CLASS_IDLE",
            0,
            " 0 5\nidle\n",
        ),
        // A child would not run under it, but is what the shell is.
        (
            json!({"policy": "SCHED_DEADLINE", "runtime": 5_000_000, "deadline": 50_000_000, "period": 100_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "IOPRIO_CLASS_BE",
            4,
            " 0 0\nbest-effort: prio 4\n",
        ),
    ];
    for (scheduler, class, level, wanted) in cases {
        let policy = scheduler["policy"].as_str().expect("a policy").to_owned();
        let deadline = policy == "SCHED_DEADLINE";
        let script = if deadline {
            "cut -d ' ' -f 41 /proc/$$/stat; ".to_owned() + script
        } else {
            script.to_owned()
        };
        let mut bundle = Bundle::named(&sandbox, &policy, &["/bin/sh", "-c", &script]);
        bundle
            .set("/process/scheduler", scheduler)
            .set("/process/ioPriority", json!({"class": class, "priority": level}));
        // With real-time groups a real-time process needs a share of its group's, which only the root has to give.
        if Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
            let share = json!({"realtimePeriod": 1_000_000, "realtimeRuntime": 20_000});
            bundle
                .set("/linux/cgroupsPath", json!(format!("/{}", sandbox.id())))
                .set("/linux/resources/cpu", share);
        }
        let done = runtime.run(&bundle, sandbox.id());
        if deadline && done.stderr.contains("os error 16") {
            println!("skipped: the kernel admits no SCHED_DEADLINE here (EBUSY)");
            continue;
        }
        let text = done.ok();
        let text = if deadline {
            text.strip_prefix("6\n").expect("the policy of the shell")
        } else {
            &text
        };
        assert!(text.ends_with(wanted), "{policy}: {text}");
    }
}

#[test]
fn a_deadline_on_some_cpus_alone_is_refused_with_the_field_to_look_at() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("skipped: there is one CPU, which is all of them");
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "echo runs");
    let scheduler =
        json!({"policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 100_000, "period": 1_000_000});
    bundle
        .set("/process/scheduler", scheduler)
        .set("/linux/resources/cpu", json!({"cpus": "0"}));
    let refused = runtime.run(&bundle, sandbox.id()).refused();
    for part in ["process.scheduler", "linux.resources.cpu.cpus"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn each_memory_policy_is_as_asked() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    if !Path::new("/proc/self/numa_maps").exists() {
        println!("skipped: this kernel has no NUMA");
        return;
    }
    let cases = [
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
        (json!({"mode": "MPOL_PREFERRED"}), "local"),
        (
            json!({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}),
            "prefer (many):0",
        ),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}), "interleave:0"),
        (
            json!({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}),
            "weighted interleave:0",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}),
            "bind=relative:0",
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}),
            "bind",
        ),
    ];
    for (number, (policy, wanted)) in cases.into_iter().enumerate() {
        let program = ["/bin/head", "-n", "1", "/proc/self/numa_maps"];
        let mut bundle = Bundle::named(&sandbox, &format!("bundle-{number}"), &program);
        bundle.set("/linux/memoryPolicy", policy.clone());
        let done = runtime.run(&bundle, sandbox.id());
        if done.stderr.contains("set memory policy") && done.stderr.contains("os error 22") {
            println!("skipped: this kernel does not know {policy}");
            continue;
        }
        let text = done.ok();
        let shown = text.split_once(' ').expect("an address and a policy").1;
        assert!(shown.starts_with(wanted), "{policy}: {text}");
    }
}

#[test]
fn exec_runs_on_the_processors_that_are_asked_for() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "exec sleep 1000");
    bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
    runtime.detach(&bundle, sandbox.id());
    let text = runtime
        .exec(sandbox.id(), "grep Cpus_allowed_list /proc/self/status")
        .ok();
    assert_eq!(text.split_whitespace().last(), Some("0"), "{text}");
    let status = format!(
        "/proc/{}/status",
        runtime.state(sandbox.id()).expect("a state")["pid"]
    );
    let init = fs::read_to_string(status).expect("read init's status");
    let init = init.lines().find(|line| line.starts_with("Cpus_allowed_list"));
    let single = std::thread::available_parallelism().is_ok_and(|count| count.get() == 1);
    assert!(
        single || init.is_some_and(|line| !line.ends_with("\t0")),
        "it is for exec alone: {init:?}"
    );
    runtime.delete(sandbox.id());
}

#[test]
fn exec_changes_processors_with_the_cgroup() {
    if std::thread::available_parallelism().is_ok_and(|count| count.get() == 1) {
        println!("skipped: there is one processor only");
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "exec sleep 1000");
    bundle.set("/process/execCPUAffinity", json!({"initial": "0", "final": "1"}));
    runtime.detach(&bundle, sandbox.id());
    let process = sandbox.path().join("process.json");
    let mut own = bundle.config["process"].clone();
    own["args"] = json!(["grep", "Cpus_allowed_list", "/proc/self/status"]);
    let exec = |affinity: serde_json::Value| {
        own["execCPUAffinity"] = affinity;
        fs::write(&process, own.to_string()).expect("write the process");
        runtime.call(&[
            "exec",
            "--process",
            process.to_str().expect("a path"),
            sandbox.id(),
        ])
    };
    let mut exec = exec;
    let last = |text: String| text.split_whitespace().last().map(str::to_owned);
    let config = runtime.exec(sandbox.id(), "grep Cpus_allowed_list /proc/self/status");
    assert_eq!(last(config.ok()).as_deref(), Some("1"));
    assert_eq!(
        last(exec(json!({"initial": "1", "final": "0-1"})).ok()).as_deref(),
        Some("0-1")
    );
    for (affinity, words) in [
        (json!({"final": "x"}), "process.execCPUAffinity.final"),
        (json!({"initial": "1-0"}), "process.execCPUAffinity.initial"),
        (json!({"final": "8000"}), "bind to CPUs [8000]"),
    ] {
        let refused = exec(affinity).refused();
        assert!(refused.contains(words), "{refused}");
    }
    runtime.delete(sandbox.id());
}

#[test]
fn labels_of_security_modules_that_are_not_there_are_refused() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let cases = [
        (
            "/process/apparmorProfile",
            "process.apparmorProfile: AppArmor is not enabled",
            "/sys/kernel/security/apparmor",
        ),
        (
            "/process/selinuxLabel",
            "process.selinuxLabel: SELinux is not enabled",
            "/sys/fs/selinux/enforce",
        ),
        (
            "/linux/mountLabel",
            "linux.mountLabel: SELinux is not enabled",
            "/sys/fs/selinux/enforce",
        ),
    ];
    for (pointer, wanted, module) in cases {
        if Path::new(module).exists() {
            println!("skipped: {module} is there");
            continue;
        }
        let mut bundle = Bundle::named(&sandbox, &pointer[1..].replace('/', "-"), &["true"]);
        bundle.set(pointer, json!("label"));
        let refused = runtime.create(&bundle, sandbox.id()).refused();
        assert!(refused.contains(wanted), "{refused}");
    }
}

#[test]
fn features_lists_what_other_tests_try() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let text = runtime.call(&["features"]).ok();
    let features: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for feature in ["intelRdt", "netDevices", "apparmor", "selinux", "seccomp"] {
        assert_eq!(features["linux"][feature]["enabled"], true, "{feature}");
    }
    // Every mount option that it lists is taken.
    let options = features["mountOptions"].as_array().expect("a list");
    let mut bundle = Bundle::new(&sandbox, "true");
    for option in options
        .iter()
        .filter(|option| !["remount", "idmap", "ridmap"].contains(&option.as_str().unwrap_or("")))
    {
        let bind = option.as_str().is_some_and(|option| option.ends_with("bind"));
        let (kind, source) = if bind {
            ("bind", "/etc/hostname")
        } else {
            ("tmpfs", "tmpfs")
        };
        let destination = format!("/tmp/of-{}", option.as_str().unwrap_or_default());
        bundle.push(
            "/mounts",
            json!({"destination": destination, "type": kind, "source": source, "options": [option]}),
        );
    }
    runtime.run(&bundle, sandbox.id()).ok();
}
