//! The life of a container by the runtime's command line: run, create, start, state, kill, delete, list.

use integration::{Bundle, Runtime, Sandbox, eventually, run};
use serde_json::json;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn run_passes_output_and_exit_code_on() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "echo out; echo err >&2; exit 7");
    let done = runtime.run(&bundle, sandbox.id());
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n"),
        "{done}"
    );
}

#[test]
fn a_container_that_dies_by_a_signal_gives_128_and_its_number() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "(sleep 0.1; kill -9 1) & kill -TERM $$; sleep 100");
    // Process 1 of a pid namespace takes no signal from inside that it does not handle; from outside it does.
    let child = runtime.spawn(&bundle, sandbox.id());
    eventually("the container runs", || {
        (runtime.status(sandbox.id())? == "running").then_some(())
    });
    runtime.call(&["kill", sandbox.id(), "KILL"]).ok();
    assert_eq!(runtime.finish(child).code, 137);
}

/// Both take the container back, and neither minds that the other was faster.
#[test]
fn a_foreground_run_deletes_itself_while_it_is_deleted_by_force() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    for number in 0..20 {
        let id = format!("{}-{number}", sandbox.id());
        let child = runtime.spawn(&bundle, &id);
        eventually("the container runs", || {
            (runtime.status(&id)? == "running").then_some(())
        });
        runtime.call(&["delete", "--force", &id]).ok();
        let done = runtime.finish(child);
        assert_eq!(done.code, 137, "{done}");
    }
    sandbox.assert_clean();
}

#[test]
fn the_default_config_gives_namespaces_of_its_own() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(
        &sandbox,
        "echo $$; hostname; for n in pid ipc uts mnt net cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup",
    );
    let text = runtime.run(&bundle, sandbox.id()).ok();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("1"));
    assert_eq!(lines.next(), Some("runc"));
    for name in ["pid", "ipc", "uts", "mnt", "net"] {
        let own = fs::read_link(format!("/proc/self/ns/{name}"))
            .expect("read a namespace")
            .display()
            .to_string();
        let theirs = lines.next().expect("a namespace");
        assert!(
            theirs.starts_with(&format!("{name}:[")) && theirs != own,
            "{name}: {theirs} beside the host's {own}"
        );
    }
    assert!(lines.next().expect("a cgroup namespace").starts_with("cgroup:["));
}

#[test]
fn create_start_kill_delete_tell_each_state() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let id = sandbox.id();
    let bundle = Bundle::new(
        &sandbox,
        "trap 'exit 3' TERM; touch /started; while :; do sleep 0.05; done",
    );
    runtime.create(&bundle, id).ok();
    let state = runtime.state(id).expect("the container is there");
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], id);
    assert_eq!(state["bundle"].as_str(), bundle.path().to_str());
    let pid = state["pid"].as_i64().expect("a pid");
    assert!(fs::exists(format!("/proc/{pid}")).expect("look for the process"));
    assert!(
        !bundle.rootfs().join("started").exists(),
        "the program must not run before start"
    );
    runtime.call(&["start", id]).ok();
    eventually("the program has started", || {
        bundle.rootfs().join("started").exists().then_some(())
    });
    assert_eq!(runtime.status(id).as_deref(), Some("running"));
    let refused = runtime.call(&["delete", id]).refused();
    assert!(refused.contains(id) && refused.contains("running"), "{refused}");
    runtime.call(&["kill", id, "TERM"]).ok();
    eventually("the container has stopped", || {
        (runtime.status(id)? == "stopped").then_some(())
    });
    let refused = runtime.call(&["kill", id, "TERM"]).refused();
    assert!(refused.contains("not running"), "{refused}");
    runtime.call(&["delete", id]).ok();
    assert_eq!(runtime.status(id), None);
    let refused = runtime.call(&["state", id]).refused();
    assert!(refused.contains("does not exist"), "{refused}");
}

#[test]
fn start_twice_is_refused() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "sleep 1000");
    runtime.create(&bundle, sandbox.id()).ok();
    runtime.call(&["start", sandbox.id()]).ok();
    let refused = runtime.call(&["start", sandbox.id()]).refused();
    assert!(refused.contains("start"), "{refused}");
    runtime.delete(sandbox.id());
}

#[test]
fn a_detached_container_runs_on_and_writes_its_pid() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "sleep 1000");
    let file = sandbox.path().join("pid");
    runtime
        .run_with(
            &bundle,
            sandbox.id(),
            &["--detach", "--pid-file", file.to_str().expect("a path")],
        )
        .ok();
    let pid = fs::read_to_string(&file).expect("read the pid file");
    assert_eq!(
        runtime.state(sandbox.id()).expect("a state")["pid"].to_string(),
        pid
    );
    let ps = runtime.call(&["ps", "--format", "json", sandbox.id()]).ok();
    assert!(ps.contains(&pid), "{ps}");
    runtime.delete(sandbox.id());
}

#[test]
fn list_tells_what_is_there() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    assert_eq!(runtime.call(&["list", "--quiet"]).ok(), "");
    let bundle = Bundle::new(&sandbox, "sleep 1000");
    runtime.detach(&bundle, sandbox.id());
    assert_eq!(
        runtime.call(&["list", "--quiet"]).ok(),
        format!("{}\n", sandbox.id())
    );
    let list: serde_json::Value =
        serde_json::from_str(&runtime.call(&["list", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(list[0]["id"], sandbox.id());
    assert_eq!(list[0]["status"], "running");
    let table = runtime.call(&["list"]).ok();
    assert!(table.starts_with("ID") && table.contains("running"), "{table}");
    runtime.delete(sandbox.id());
}

#[test]
fn the_second_container_of_an_id_is_refused_and_the_first_lives_on() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "sleep 1000");
    runtime.detach(&bundle, sandbox.id());
    let refused = runtime.run(&bundle, sandbox.id()).refused();
    assert!(
        refused.contains(sandbox.id()) && refused.contains("exist"),
        "{refused}"
    );
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("running"));
    runtime.delete(sandbox.id());
}

#[test]
fn delete_force_ends_a_running_container_and_accepts_one_that_is_not_there() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "sleep 1000 & sleep 1000 & trap '' TERM; sleep 1000");
    runtime.detach(&bundle, sandbox.id());
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
    runtime.delete(sandbox.id());
    runtime.call(&["delete", sandbox.id()]).refused();
}

#[test]
fn without_a_pid_namespace_delete_ends_all_processes() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "sleep 1000 & sleep 1000 & exec sleep 1000");
    let namespaces = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("a list")
        .clone();
    bundle.set(
        "/linux/namespaces",
        namespaces.into_iter().filter(|ns| ns["type"] != "pid").collect(),
    );
    runtime.detach(&bundle, sandbox.id());
    runtime.delete(sandbox.id());
}

#[test]
fn user_groups_umask_directory_and_environment_are_as_asked() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "id -u; id -g; id -G; umask; pwd; echo $A $HOME; touch /tmp/made; exit 0",
    );
    bundle.set(
        "/process/user",
        json!({"uid": 1000, "gid": 1000, "additionalGids": [50, 60], "umask": 0o27}),
    );
    bundle.set("/process/cwd", json!("/tmp"));
    bundle.push("/process/env", json!("A=b c"));
    let text = runtime.run(&bundle, sandbox.id()).ok();
    assert_eq!(text, "1000\n1000\n1000 50 60\n0027\n/tmp\nb c /home/alice\n");
    let made = fs::metadata(bundle.rootfs().join("tmp/made")).expect("look at the file");
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (1000, 1000, 0o640));
}

#[test]
fn what_is_given_twice_or_unknown_is_taken_as_runc_takes_it() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "env | grep -c ^ONE=; echo $ONE $HOME; pwd");
    for entry in ["ONE=first", "ONE=last", "HOME="] {
        bundle.push("/process/env", json!(entry));
    }
    bundle.push("/process/capabilities/bounding", json!("CAP_NO_SUCH"));
    // Nobody but user 42 may enter it, and the container's root has no CAP_DAC_OVERRIDE.
    let private = bundle.rootfs().join("private");
    fs::create_dir(&private).expect("make a folder");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("close the folder");
    std::os::unix::fs::chown(&private, Some(42), Some(42)).expect("give the folder away");
    bundle.set("/process/cwd", json!("/private"));
    let done = runtime.run(&bundle, sandbox.id());
    assert!(done.stderr.contains("CAP_NO_SUCH"), "{}", done.stderr);
    assert_eq!(done.ok(), "1\nlast /root\n/private\n");
}

#[test]
fn the_callers_umask_does_not_reach_a_container() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "umask");
    let under_umask_0 = |command: Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 0 && exec \"$@\"", "sh"]);
        run(shell.arg(command.get_program()).args(command.get_args())).ok()
    };
    let shown = under_umask_0(runtime.over("run", &bundle, sandbox.id(), &[]));
    assert_eq!(shown, "0022\n", "run");
    let bundle = Bundle::named(&sandbox, "sleeper", &["/bin/sleep", "1000"]);
    runtime.detach(&bundle, sandbox.id());
    let shown = under_umask_0(runtime.command(&["exec", sandbox.id(), "/bin/sh", "-c", "umask"]));
    assert_eq!(shown, "0022\n", "exec");
    runtime.delete(sandbox.id());
}

#[test]
fn capabilities_rlimits_and_no_new_privs_are_as_asked() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "grep -E '^(Cap|NoNew)' /proc/self/status; ulimit -n; cat /proc/self/oom_score_adj",
    );
    let two = json!(["CAP_CHOWN", "CAP_KILL"]);
    bundle.set("/process/capabilities", json!({"bounding": two, "effective": two, "permitted": two, "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}));
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1000}]),
    );
    bundle.set("/process/oomScoreAdj", json!(321));
    let text = runtime.run(&bundle, sandbox.id()).ok();
    for line in [
        "CapInh:\t0000000000000020",
        "CapPrm:\t0000000000000021",
        "CapEff:\t0000000000000021",
        "CapBnd:\t0000000000000021",
        "CapAmb:\t0000000000000020",
        "NoNewPrivs:\t1",
        "512",
        "321",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line:?} is not in:\n{text}"
        );
    }
}

#[test]
fn a_user_namespace_maps_root_to_an_unprivileged_user() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /proc/self/uid_map; id -u; touch /made && ls -ln /made; mount -t tmpfs none /tmp 2>/dev/null; echo > /dev/null && echo devices work",
    );
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    bundle
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    run(std::process::Command::new("chown")
        .args(["-R", "200000:200000"])
        .arg(bundle.rootfs()))
    .ok();
    let text = runtime.run(&bundle, sandbox.id()).ok();
    assert!(
        text.starts_with("         0     200000      65536\n0\n") && text.ends_with("devices work\n"),
        "{text}"
    );
    assert_eq!(
        fs::metadata(bundle.rootfs().join("made"))
            .expect("look at the file")
            .uid(),
        200_000
    );
}

#[test]
fn a_user_namespace_may_have_no_root() {
    const HOST: u32 = 200_000;
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let id = sandbox.id();
    let script = "id -u; id -g; cat /proc/self/uid_map; touch /made; stat -c %u:%g /made /tmp/sub /proc/self/stat; \
        grep CapEff /proc/self/status; cat /proc/sys/net/ipv4/ip_forward; echo > /dev/null && echo devices; \
        touch /up; exec sleep 1000";
    let mut bundle = Bundle::new(&sandbox, script);
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle
        .set(
            "/linux/uidMappings",
            json!([{"containerID": 1000, "hostID": HOST, "size": 10}]),
        )
        .set(
            "/linux/gidMappings",
            json!([{"containerID": 50, "hostID": HOST, "size": 10}]),
        )
        .set("/process/user", json!({"uid": 1003, "gid": 52}))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .push(
            "/mounts",
            json!({"destination": "/tmp/sub", "type": "tmpfs", "source": "tmpfs"}),
        );
    run(std::process::Command::new("chown")
        .args(["-R", "200003:200002"])
        .arg(bundle.rootfs()))
    .ok();
    let child = runtime.spawn(&bundle, id);
    eventually("the container runs", || {
        bundle.rootfs().join("up").exists().then_some(())
    });
    let exec = |user: &[&str], program: &[&str]| runtime.call(&[&["exec"], user, &[id], program].concat());
    assert_eq!(exec(&[], &["id", "-u"]).ok(), "1003\n");
    assert_eq!(exec(&["--user", "1001:50"], &["id", "-u"]).ok(), "1001\n");
    let refused = exec(&["--user", "0:0"], &["true"]).refused();
    assert!(refused.contains("group 0"), "{refused}");
    runtime.delete(id);
    let text = runtime.finish(child).stdout;
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["1003", "52"], "{text}");
    let map: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(map, ["1000", "200000", "10"], "{text}");
    assert_eq!(lines[3..6], ["1003:52"; 3], "{text}");
    assert_eq!(
        lines[6..],
        ["CapEff:\t0000000000000000", "1", "devices"],
        "{text}"
    );
    let made = fs::metadata(bundle.rootfs().join("made")).expect("look at the file");
    assert_eq!((made.uid(), made.gid()), (HOST + 3, HOST + 2));
}

#[test]
fn a_user_that_is_not_mapped_is_refused_by_field() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let map = json!([{"containerID": 1000, "hostID": 200_000, "size": 10}]);
    for (user, words) in [
        (
            json!({"uid": 999, "gid": 1000}),
            "process.user.uid: 999 is not mapped",
        ),
        (
            json!({"uid": 1000, "gid": 1010}),
            "process.user.gid: 1010 is not mapped",
        ),
        (
            json!({"uid": 1000, "gid": 1000, "additionalGids": [1001, 7]}),
            "process.user.additionalGids[1]: 7 is not mapped",
        ),
    ] {
        let mut bundle = Bundle::named(&sandbox, &words.replace([' ', '.'], "-"), &["/bin/true"]);
        bundle.push("/linux/namespaces", json!({"type": "user"}));
        bundle
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map.clone())
            .set("/process/user", user);
        let refused = runtime.create(&bundle, sandbox.id()).refused();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut first = Bundle::new(&sandbox, "touch /up; sleep 1000");
    first.set("/hostname", json!("first"));
    runtime.detach(&first, sandbox.id());
    eventually("the first runs", || {
        first.rootfs().join("up").exists().then_some(())
    });
    let pid = runtime.state(sandbox.id()).expect("a state")["pid"].to_string();
    let mut second = Bundle::named(
        &sandbox,
        "second",
        &[
            "/bin/sh",
            "-c",
            "hostname; readlink /proc/self/ns/net; ps -o pid,args | grep -c 'sleep 100[0]'",
        ],
    );
    let joined: Vec<_> = [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")]
        .iter()
        .map(|(kind, file)| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))
        .chain([json!({"type": "mount"}), json!({"type": "cgroup"})])
        .collect();
    second.set("/linux/namespaces", json!(joined));
    second
        .config
        .as_object_mut()
        .expect("an object")
        .remove("hostname");
    second.set(
        "/linux/cgroupsPath",
        json!(format!("/berth-test/{}-2", sandbox.id())),
    );
    let text = runtime.run(&second, &format!("{}-2", sandbox.id())).ok();
    let net = fs::read_link(format!("/proc/{pid}/ns/net"))
        .expect("read a namespace")
        .display()
        .to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["first", net.as_str()], "{text}");
    assert_ne!(
        lines[2], "0",
        "the first container's process is to be seen: {text}"
    );
    runtime.delete(sandbox.id());
}

/// The namespaces of process `pid` by kind, as config.json names them, but for those left out.
fn namespaces_of(pid: &str, without: &[&str]) -> Vec<serde_json::Value> {
    let kinds = [
        ("user", "user"),
        ("time", "time"),
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
        ("mount", "mnt"),
    ];
    let kept = kinds.iter().filter(|(kind, _)| !without.contains(kind));
    kept.map(|(kind, file)| json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}))
        .collect()
}

#[test]
fn a_pod_shares_its_user_namespace_and_all_others_with_new_mounts() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let show = "for kind in user time pid net ipc uts cgroup; do readlink /proc/self/ns/$kind; done";
    let map = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    let bundle = |name: &str, script: &str| {
        let mut bundle = Bundle::named(&sandbox, name, &["/bin/sh", "-c", script]);
        let group = format!("/berth-test/{}-{name}", sandbox.id());
        bundle.set("/linux/cgroupsPath", json!(group));
        run(std::process::Command::new("chown")
            .args(["-R", "200000:200000"])
            .arg(bundle.rootfs()))
        .ok();
        bundle
    };
    let mut first = bundle("first", &format!("({show}) > /links; exec sleep 1000"));
    let every = ["user", "time", "cgroup", "mount", "pid", "network", "ipc", "uts"];
    first
        .set(
            "/linux/namespaces",
            json!(every.map(|kind| json!({"type": kind}))),
        )
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/linux/timeOffsets", json!({"boottime": {"secs": 7_000_000}}));
    runtime.detach(&first, sandbox.id());
    let theirs = eventually("the first has looked", || {
        let text = fs::read_to_string(first.rootfs().join("links")).ok()?;
        (text.lines().count() == 7).then_some(text)
    });
    let pid = runtime.state(sandbox.id()).expect("a state")["pid"].to_string();
    let joining = |name: &str, script: &str, new: &[&str]| {
        let mut bundle = bundle(name, script);
        let mut namespaces = namespaces_of(&pid, new);
        namespaces.extend(new.iter().map(|kind| json!({"type": kind})));
        bundle
            .set("/linux/namespaces", json!(namespaces))
            .set("/hostname", json!(""));
        bundle
    };
    // All but the mounts.
    let script = format!("{show}; cut -d. -f1 /proc/uptime; ps -o args | grep -c 'sleep 100[0]'; id -u");
    let second = joining("second", &script, &["mount"]);
    let text = runtime.run(&second, &format!("{}-second", sandbox.id())).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..7], theirs.lines().collect::<Vec<_>>(), "{text}");
    assert!(
        lines[7].parse::<u64>().is_ok_and(|uptime| uptime > 7_000_000),
        "{text}"
    );
    assert_eq!(lines[8..], ["1", "0"], "{text}");
    // The user namespace alone, which owns all that is new.
    let script = format!(
        "{show}; hostname inner && hostname; busybox ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu"
    );
    let mut third = joining("third", &script, &every[1..]);
    for set in ["bounding", "effective", "permitted"] {
        for name in ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"] {
            third.push(&format!("/process/capabilities/{set}"), json!(name));
        }
    }
    let text = runtime.run(&third, &format!("{}-third", sandbox.id())).ok();
    let lines: Vec<_> = text.lines().collect();
    let of_first: Vec<_> = theirs.lines().collect();
    assert_eq!(lines[0], of_first[0], "{text}");
    for (new, old) in lines[1..7].iter().zip(&of_first[1..]) {
        assert_ne!(new, old, "{text}");
    }
    assert_eq!(
        lines[7..],
        ["inner", "1400"],
        "the namespaces belong to the container's root: {text}"
    );
    runtime.delete(sandbox.id());
}

#[test]
fn a_mount_namespace_by_path_is_where_rootfs_and_sources_are_found() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let place = sandbox.path().join("only-there");
    fs::create_dir(&place).expect("make a folder");
    let script = "mount -t tmpfs tmpfs \"$0\" && echo there > \"$0/file\" && echo ready && exec sleep 1000";
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(&place)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start unshare");
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut holder.stdout.take().expect("its output"), &mut ready)
        .expect("it is ready");
    let mut bundle = Bundle::new(&sandbox, "cat /data/file; ls /");
    let others = ["user", "time", "pid", "network", "ipc", "uts", "cgroup"];
    let mut namespaces = namespaces_of(&holder.id().to_string(), &others);
    namespaces.extend(["pid", "uts", "network", "ipc"].map(|kind| json!({"type": kind})));
    bundle.set("/linux/namespaces", json!(namespaces)).push(
        "/mounts",
        json!({"destination": "/data", "type": "bind", "source": place, "options": ["bind"]}),
    );
    let done = runtime.run(&bundle, sandbox.id());
    holder.kill().expect("end the holder");
    holder.wait().expect("reap the holder");
    let text = done.ok();
    assert!(text.starts_with("there\n") && !text.contains("boot"), "{text}");
}

#[test]
fn a_namespace_of_another_kind_is_refused_by_its_path() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let own = "/proc/self/ns/uts";
    for kind in ["user", "time", "pid", "network", "ipc", "cgroup", "mount"] {
        let mut bundle = Bundle::named(&sandbox, kind, &["/bin/true"]);
        let list = bundle.config["linux"]["namespaces"].as_array().expect("a list");
        let mut list: Vec<_> = list.iter().filter(|each| each["type"] != kind).cloned().collect();
        list.push(json!({"type": kind, "path": own}));
        bundle.set("/linux/namespaces", json!(list));
        let refused = runtime.create(&bundle, sandbox.id()).refused();
        assert!(
            refused.contains("join") && refused.contains(own),
            "{kind}: {refused}"
        );
    }
}

#[test]
fn inherited_descriptors_are_closed_but_for_those_asked_for() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "readlink /proc/$$/fd/4 || echo none; cat <&3");
    let secret = sandbox.path().join("secret");
    fs::write(&secret, "passed on\n").expect("write a file");
    bundle.write();
    let shell = |flags: &str| {
        let line = format!(
            "exec 3<{} 4</etc/passwd; exec {} --root {} run {flags} --bundle {} {}",
            secret.display(),
            integration::binary("runtime").display(),
            runtime.root().display(),
            bundle.path().display(),
            sandbox.id()
        );
        run(std::process::Command::new("bash").args(["-c", &line]))
    };
    let done = shell("--preserve-fds 1");
    assert!(done.stdout == "none\npassed on\n", "{done}");
    let done = shell("");
    assert!(!done.stdout.contains("passed on") && done.code != 0, "{done}");
}

#[test]
fn a_created_container_holds_nothing_of_its_callers() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    bundle.write();
    let log = sandbox.path().join("log");
    // Who reads the pipe of descriptor 7 gets to its end when create has: without a start, nobody else may have it.
    let line = format!(
        "exec 7>&1 >/dev/null 2>/dev/null </dev/null; exec {} --root {} --log {} create --bundle {} {}",
        integration::binary("runtime").display(),
        runtime.root().display(),
        log.display(),
        bundle.path().display(),
        sandbox.id()
    );
    run(std::process::Command::new("bash").args(["-c", &line])).ok();
    let pid = &runtime.state(sandbox.id()).expect("a state")["pid"];
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("list its descriptors");
    let open = open.map(|entry| fs::read_link(entry.expect("an entry").path()).expect("read a descriptor"));
    let mut open: Vec<String> = open.map(|link| link.display().to_string()).collect();
    open.retain(|link| !link.starts_with("socket:") && link != "/dev/null");
    open.sort();
    let expected = ["/memfd:trampoline (deleted)", log.to_str().expect("a path")];
    assert_eq!(open, expected);
    runtime.call(&["start", sandbox.id()]).ok();
    runtime.delete(sandbox.id());
}

#[test]
fn hooks_run_in_order_with_the_state_on_stdin() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "echo program >> /log");
    let log = bundle.rootfs().join("log");
    let hook = |name: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("s=$(cat); echo {name} $(echo $s | grep -o '\"status\": *\"[a-z]*\"' | tr -d ' ') >> {}", log.display())]});
    for name in ["prestart", "createRuntime", "poststart", "poststop"] {
        bundle.set(&format!("/hooks/{name}"), json!([hook(name)]));
    }
    let inside = |name: &str, file: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >> {file}")]}]);
    bundle.set(
        "/hooks/createContainer",
        inside("createContainer", &log.display().to_string()),
    );
    bundle.set("/hooks/startContainer", inside("startContainer", "/log"));
    runtime.run(&bundle, sandbox.id()).ok();
    let text = fs::read_to_string(&log).expect("read the log");
    let names: Vec<_> = text
        .lines()
        .map(|line| line.split(' ').next().expect("a name"))
        .collect();
    let at = |name: &str| {
        names
            .iter()
            .position(|found| *found == name)
            .unwrap_or_else(|| panic!("{name} is not in {text}"))
    };
    assert!(
        at("prestart") < at("createRuntime") && at("createRuntime") < at("createContainer"),
        "{text}"
    );
    assert!(
        at("createContainer") < at("startContainer") && at("startContainer") < at("program"),
        "{text}"
    );
    assert!(
        at("poststart") > at("startContainer") && at("poststop") == names.len() - 1,
        "{text}"
    );
    assert!(text.contains(r#"poststop "status":"stopped""#), "{text}");
}

#[test]
fn a_hook_that_fails_stops_the_start_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::named(&sandbox, stage, &["/bin/true"]);
        bundle.set(
            &format!("/hooks/{stage}"),
            json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo the reason >&2; exit 9"]}]),
        );
        let refused = runtime.run(&bundle, sandbox.id()).refused();
        assert!(
            refused.contains("hook") && refused.contains("the reason"),
            "{stage}: {refused}"
        );
        sandbox.assert_clean();
    }
}

#[test]
fn a_created_container_ends_at_a_signal_that_asks_for_it() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "trap 'exit 7' TERM; sleep 1000 & wait");
    runtime.create(&bundle, sandbox.id()).ok();
    runtime.call(&["kill", sandbox.id(), "TERM"]).ok();
    eventually("it has stopped", || {
        (runtime.status(sandbox.id())? == "stopped").then_some(())
    });
    runtime.call(&["start", sandbox.id()]).refused();
    runtime.call(&["delete", sandbox.id()]).ok();
    sandbox.assert_clean();
}

#[test]
fn a_kept_container_is_there_when_its_program_has_ended() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "exit 3");
    assert_eq!(runtime.run_with(&bundle, sandbox.id(), &["--keep"]).code, 3);
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("stopped"));
    runtime.call(&["delete", sandbox.id()]).ok();
    assert_eq!(runtime.run(&bundle, sandbox.id()).code, 3);
    assert!(runtime.state(sandbox.id()).is_none());
}

#[test]
fn the_session_keyring_is_the_containers_own_unless_it_is_not_wanted() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "cat /proc/keys");
    bundle.set("/linux/maskedPaths", json!([]));
    // Each by an id of its own, as keyrings are shown for some time after their end.
    for (suffix, flags, is_own) in [("a", &[][..], true), ("b", &["--no-new-keyring"], false)] {
        let id = format!("{}-{suffix}", sandbox.id());
        let keys = runtime.run_with(&bundle, &id, flags).ok();
        assert_eq!(keys.contains(&format!("_ses.{id}:")), is_own, "{keys}");
    }
}

#[test]
fn a_socket_gets_the_pidfd_of_what_was_made() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let socket = sandbox.path().join("pidfds");
    let listener = UnixListener::bind(&socket).expect("listen");
    let received = || {
        let (connection, _) = listener.accept().expect("accept the runtime");
        let (_, descriptors) = integration::receive(&connection, &mut [0; 4096]).expect("receive a pidfd");
        let info = format!("/proc/self/fdinfo/{}", descriptors[0].as_raw_fd());
        let info = fs::read_to_string(info).expect("look at the descriptor");
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        pid.expect("it is of a process").trim().to_owned()
    };
    let file = sandbox.path().join("pid");
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let flags = ["--pidfd-socket", &path(&socket), "--pid-file", &path(&file)];
    let mut command = runtime.over("create", &bundle, sandbox.id(), &flags);
    let child = command.stdin(Stdio::null()).spawn().expect("start the runtime");
    let pid = received();
    assert_eq!(integration::finish(child, "create".into()).code, 0);
    assert_eq!(pid, fs::read_to_string(&file).expect("read the pid file"));
    runtime.call(&["start", sandbox.id()]).ok();

    let mut command = runtime.command(&["exec", "--detach"]);
    command.args(flags).args([sandbox.id(), "/bin/sleep", "1000"]);
    let child = command.stdin(Stdio::null()).spawn().expect("start the runtime");
    let pid = received();
    assert_eq!(integration::finish(child, "exec".into()).code, 0);
    assert_eq!(pid, fs::read_to_string(&file).expect("read the pid file"));
    runtime.delete(sandbox.id());
}

/// The gate at which it waits for its start is one file more than it may open.
#[test]
fn a_created_container_with_no_files_to_spare_starts() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/bin/sleep", "1000"]);
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}]),
    );
    runtime.create(&bundle, sandbox.id()).ok();
    runtime.call(&["start", sandbox.id()]).ok();
    let pid = runtime.state(sandbox.id()).expect("a state")["pid"].to_string();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("read its limits");
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let values: Vec<_> = files.expect("a limit").split_whitespace().skip(3).collect();
    assert_eq!(values, ["3", "3", "files"]);
    runtime.delete(sandbox.id());
}
