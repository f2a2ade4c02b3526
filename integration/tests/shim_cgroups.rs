//! What a shim does with the container's control groups, of cgroup v1 and of v2: the watch for out-of-memory kills,
//! metrics, pause, update, and a group for the shim itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;
use containerd_shim_protos::types::task::Status;
use containerd_shim_protos::{api, cgroups, cgroups_v2};
use integration::{Bundle, Sandbox, Shim, eventually, patience, refused};
use serde_json::{Value, json};

const MEMORY_BYTES: u64 = 8 << 20;

/// A container that can't have more than [`MEMORY_BYTES`], and no swap.
fn small(sandbox: &Sandbox, script: &str) -> Bundle {
    let mut bundle = Bundle::new(sandbox, script);
    bundle.set("/linux/resources/memory/limit", json!(MEMORY_BYTES));
    bundle.set("/linux/resources/memory/swap", json!(MEMORY_BYTES));
    bundle
}

/// What the two kinds of metrics have in common.
#[derive(Debug)]
struct Metrics {
    pids: u64,
    pids_limit: u64,
    memory: u64,
    memory_limit: u64,
    swap_limit: u64,
    out_of_memory_kills: u64,
    cpu_nanos: u64,
    throttled_periods: u64,
}

#[track_caller]
fn metrics(shim: &Shim) -> Metrics {
    let mut request = api::StatsRequest::new();
    request.id.clone_from(&shim.id);
    let answer = shim.tasks.stats(patience(), &request).expect("stats");
    let bytes = &answer.stats.value;
    // The kind that a client of this machine's cgroups expects.
    if Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!(answer.stats.type_url, "io.containerd.cgroups.v1.Metrics");
        let found = cgroups::metrics::Metrics::parse_from_bytes(bytes).expect("metrics");
        return Metrics {
            pids: found.pids.current,
            pids_limit: found.pids.limit,
            memory: found.memory.usage.usage,
            memory_limit: found.memory.usage.limit,
            // That of both together.
            swap_limit: found.memory.swap.limit.saturating_sub(found.memory.usage.limit),
            out_of_memory_kills: found.memory_oom_control.oom_kill,
            cpu_nanos: found.cpu.usage.total,
            throttled_periods: found.cpu.throttling.throttled_periods,
        };
    }
    assert_eq!(answer.stats.type_url, "io.containerd.cgroups.v2.Metrics");
    let found = cgroups_v2::metrics::Metrics::parse_from_bytes(bytes).expect("metrics");
    Metrics {
        pids: found.pids.current,
        pids_limit: found.pids.limit,
        memory: found.memory.usage,
        memory_limit: found.memory.usage_limit,
        swap_limit: found.memory.swap_limit,
        out_of_memory_kills: found.memory_events.oom_kill,
        cpu_nanos: found.cpu.usage_usec * 1000,
        throttled_periods: found.cpu.nr_throttled,
    }
}

#[test]
fn an_out_of_memory_kill_is_recorded() {
    let sandbox = Sandbox::new();
    let bundle = small(&sandbox, "tail /dev/zero");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    assert_ne!(shim.wait(""), 0);
    assert_eq!(shim.exit_record()["oom_killed"], true);
    // The next in the same group, which counts on, has none of that.
    let next = Bundle::named(&sandbox, "next", &["/bin/sh", "-c", "exit 3"]);
    let other = Shim::start_as(&sandbox, next.path(), &format!("{}n", sandbox.id()), &next);
    assert_eq!(other.run_logged(), 3);
    assert_eq!(other.exit_record()["oom_killed"], false);
    other.end();
    shim.end();
}

/// How often the shim was woken up until now.
fn wake_ups(shim: &Shim) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", shim.pid())).expect("read status");
    let lines = status
        .lines()
        .filter_map(|line| line.split_once("ctxt_switches:"));
    lines
        .map(|(_, count)| count.trim().parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn each_out_of_memory_kill_is_told_while_the_container_lives_on() {
    let sandbox = Sandbox::new();
    let bundle = small(&sandbox, "while read line; do tail /dev/zero; done < /gate");
    let path = bundle.rootfs().join("gate");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    let both = fs::File::options().read(true).write(true).open(&path);
    let mut gate = both.expect("open the gate");
    // In the place of containerd's: the topic is behind --topic.
    let (publisher, topics) = (sandbox.path().join("publisher"), sandbox.path().join("topics"));
    let script = format!("#!/bin/sh\ncat >&2\necho \"$5\" >> {}\n", topics.display());
    fs::write(&publisher, script).expect("write the publisher");
    fs::set_permissions(&publisher, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let told = |topic: &str| {
        let text = fs::read_to_string(&topics).unwrap_or_default();
        text.lines().filter(|line| *line == topic).count()
    };

    bundle.write();
    let mut start = Shim::command(&sandbox, bundle.path(), sandbox.id(), "start");
    start.arg("-publish-binary").arg(&publisher);
    let shim = Shim::start_by(&sandbox, bundle.path(), sandbox.id(), &mut start);
    shim.create_logged();
    shim.start_process("");
    for kills in 1..=3 {
        std::io::Write::write_all(&mut gate, b"\n").expect("let it want memory");
        eventually("the kill is told", || (told("/tasks/oom") == kills).then_some(()));
        assert_eq!(metrics(&shim).out_of_memory_kills, kills as u64);
        let state = shim.state("").expect("state").status.value();
        assert_eq!(state, Status::RUNNING as i32);
    }
    eventually("the watch is quiet until the next kill", || {
        let before = wake_ups(&shim);
        thread::sleep(Duration::from_millis(200));
        (wake_ups(&shim) == before).then_some(())
    });
    shim.kill("", 9).expect("kill");
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.exit_record()["oom_killed"], true);
    shim.end();
    assert_eq!(
        (told("/tasks/oom"), told("/tasks/exit"), told("/tasks/delete")),
        (3, 1, 1)
    );
}

#[test]
fn metrics_are_those_of_the_container_and_follow_an_update() {
    let sandbox = Sandbox::new();
    let mut bundle = small(&sandbox, "while :; do :; done");
    bundle.set("/linux/resources/pids/limit", json!(32));
    bundle.set("/linux/resources/cpu/period", json!(10_000));
    bundle.set("/linux/resources/cpu/quota", json!(2_000));
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let found = eventually("it was throttled", || {
        Some(metrics(&shim)).filter(|found| found.throttled_periods > 0)
    });
    assert_eq!((found.pids, found.pids_limit), (1, 32), "{found:?}");
    assert_eq!(
        (found.memory_limit, found.swap_limit),
        (MEMORY_BYTES, 0),
        "{found:?}"
    );
    assert!(found.memory > 0 && found.memory <= MEMORY_BYTES, "{found:?}");
    assert!(found.cpu_nanos > 0, "{found:?}");
    assert_eq!(found.out_of_memory_kills, 0);

    let update = |resources: &Value| {
        let mut any = Any::new();
        any.type_url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into();
        any.value = resources.to_string().into_bytes();
        let mut request = api::UpdateTaskRequest::new();
        request.id.clone_from(&shim.id);
        request.resources = Some(any).into();
        shim.tasks.update(patience(), &request)
    };
    let twice = 2 * MEMORY_BYTES;
    update(&json!({"memory": {"limit": twice, "swap": twice}, "pids": {"limit": 64}})).expect("update");
    let found = metrics(&shim);
    let limits = (found.memory_limit, found.swap_limit, found.pids_limit);
    assert_eq!(limits, (twice, 0, 64), "{found:?}");
    refused(update(&json!({"pids": {"limit": "many"}})), Code::UNKNOWN);
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "while :; do :; done");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let state = || shim.state("").expect("state").status.value();
    let mut request = api::PauseRequest::new();
    request.id.clone_from(&shim.id);
    shim.tasks.pause(patience(), &request).expect("pause");
    assert_eq!(state(), Status::PAUSED as i32);
    let before = metrics(&shim).cpu_nanos;
    thread::sleep(Duration::from_millis(100));
    assert_eq!(metrics(&shim).cpu_nanos, before);
    let mut request = api::ResumeRequest::new();
    request.id.clone_from(&shim.id);
    shim.tasks.resume(patience(), &request).expect("resume");
    assert_eq!(state(), Status::RUNNING as i32);
    eventually("it goes on", || (metrics(&shim).cpu_nanos > before).then_some(()));
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_shim_joins_the_group_that_its_options_name() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exit 3");
    let shim = Shim::start(&sandbox, &bundle);
    let group = format!("/berth-test/{}-shim", sandbox.id());
    let mut request = shim.request_with(|options| options.shim_cgroup.clone_from(&group));
    let created = shim.tasks.create(patience(), &request);
    let message = refused(created, Code::UNKNOWN);
    assert!(message.contains(&group), "{message}");
    // Where systemd or the whole of cgroup v2 is mounted.
    let hierarchies = ["systemd", "unified", ""].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let hierarchy = hierarchies
        .into_iter()
        .find(|place| place.join("cgroup.procs").exists());
    let folder = hierarchy.expect("a hierarchy").join(&group[1..]);
    fs::create_dir_all(&folder).expect("make a group");
    request.stdout = shim.log_uri();
    shim.tasks.create(patience(), &request).expect("create");
    let members = fs::read_to_string(folder.join("cgroup.procs")).expect("read the group");
    assert_eq!(members, format!("{}\n", shim.pid()));
    shim.start_process("");
    assert_eq!(shim.wait(""), 3);
    shim.end();
    eventually("the group is empty", || fs::remove_dir(&folder).ok());
}
