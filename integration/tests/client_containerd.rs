//! containerd 2 with its own shim, io.containerd.runc.v2, and our runtime in runc's place: what people do with `ctr`, and
//! what the runtime must tell the shim for it. Without hack/peers' containerd the tests say so and pass.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use integration::{Containerd, Done, Image, Peers, Sandbox, Terminal, eventually};

/// A containerd with our runtime, or nothing when hack/peers has fetched none.
fn containerd(sandbox: &Sandbox) -> Option<Containerd> {
    Some(Containerd::with_our_runtime(sandbox, Peers::start(sandbox)?))
}

/// Runs a script by `ctr task exec`. It lives a moment longer than it must: the shim does not wait for ctr to open the
/// output, and what is written before that is lost when the process is gone so soon.
fn exec(containerd: &Containerd, flags: &[&str], id: &str, script: &str) -> Done {
    let script = format!("{script}; code=$?; sleep 0.3; exit $code");
    containerd.exec(flags, id, &["/bin/sh", "-c", &script])
}

const SLEEP: &[&str] = &["/bin/sleep", "1000"];

#[test]
fn output_and_exit_codes_come_through_and_nothing_stays() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let done = containerd.run(
        &["--rm"],
        "c1",
        &["/bin/sh", "-c", "echo out; echo err >&2; exit 3"],
    );
    assert_eq!((done.code, done.stdout.as_str()), (3, "out\n"), "{done}");
    assert!(done.stderr.contains("err"), "{done}");
    let refused = containerd.run(&["--rm"], "c2", &["/no/such/program"]).refused();
    assert!(refused.contains("/no/such/program"), "{refused}");
    // What ran is the runtime under test: the shim takes its name into each of its errors.
    assert!(refused.contains("runtime create failed"), "{refused}");
    assert_eq!(
        fs::read_dir(containerd.bundle(""))
            .expect("read the bundles")
            .count(),
        0
    );
}

#[test]
fn a_terminal_is_one_for_run_and_exec() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    containerd.assert_terminals_work();
}

#[test]
fn exec_ps_metrics_pause_and_resume_work() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    containerd
        .run(&["-d", "--memory-limit", "50000000"], "c1", SLEEP)
        .ok();
    let flags = ["--user", "1000:1000", "--cwd", "/tmp"];
    let done = exec(&containerd, &flags, "c1", "id -u; pwd; (exit 7)");
    assert_eq!((done.code, done.stdout.as_str()), (7, "1000\n/tmp\n"), "{done}");
    let refused = containerd.exec(&[], "c1", &["/no/such/program"]).refused();
    assert!(refused.contains("/no/such/program"), "{refused}");
    assert_eq!(containerd.ctr(&["task", "ps", "c1"]).ok().lines().count(), 2);

    let metrics = containerd
        .ctr(&["task", "metrics", "--format", "json", "c1"])
        .ok();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).expect("metrics are JSON");
    assert_eq!(metrics["pids"]["current"], 1, "{metrics}");
    let (used, limit) = (
        &metrics["memory"]["usage"]["usage"],
        &metrics["memory"]["usage"]["limit"],
    );
    assert!(used.as_u64().is_some_and(|bytes| bytes > 0), "{metrics}");
    // The kernel counts in pages.
    assert_eq!(
        limit.as_u64().map(|bytes| bytes / 4096),
        Some(50_000_000 / 4096),
        "{metrics}"
    );

    containerd.ctr(&["task", "pause", "c1"]).ok();
    assert_eq!(containerd.status("c1").as_deref(), Some("PAUSED"));
    containerd.ctr(&["task", "resume", "c1"]).ok();
    assert_eq!(containerd.status("c1").as_deref(), Some("RUNNING"));
    assert_eq!(exec(&containerd, &[], "c1", "echo awake").ok(), "awake\n");
    // A paused container can be killed.
    containerd.ctr(&["task", "pause", "c1"]).ok();
    containerd.remove("c1");
}

#[test]
fn signals_reach_one_process_or_all_and_their_number_comes_back() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("USR1", 42)] {
        // Process 1 of a PID namespace takes no signal that it has no handler for (`pid_namespaces(7)`), its child does.
        let script = match signal {
            "USR1" => "trap 'exit 42' USR1; echo ready; while :; do sleep 0.02; done",
            _ => "sleep 1000 & echo ready; wait $!",
        };
        let mut running =
            Terminal::spawn(containerd.run_command(&["--rm"], signal, &["/bin/sh", "-c", script]));
        running.expect("ready");
        let all = if signal == "TERM" { &["--all"][..] } else { &[] };
        containerd
            .ctr(&[&["task", "kill", "-s", signal], all, &[signal]].concat())
            .ok();
        assert_eq!(running.exit_code(), code, "{signal}: {}", running.screen());
    }
    containerd.run(&["-d"], "gone", &["/bin/true"]).ok();
    containerd.wait_for("gone", "STOPPED");
    let refused = containerd.ctr(&["task", "kill", "-s", "TERM", "gone"]).refused();
    assert!(refused.contains("process already finished"), "{refused}");
    containerd.remove("gone");
}

#[test]
fn a_container_killed_for_its_memory_is_told_as_such() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let heard = sandbox.path().join("events");
    let mut listener = containerd
        .ctr_command(&["events"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&heard).expect("make a file"))
        .spawn()
        .expect("start ctr events");
    let has = |topic: &str, id: &str| {
        let events = fs::read_to_string(&heard).unwrap_or_default();
        events
            .lines()
            .any(|line| line.contains(topic) && line.contains(id))
    };
    // Events before the listener is there are not replayed, so the first containers may go unheard.
    let mut number = 0;
    while !has("/tasks/exit", "calm") {
        number += 1;
        containerd
            .run(&["--rm"], &format!("calm{number}"), &["/bin/true"])
            .ok();
    }
    let greedy = ["/bin/sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done"];
    let done = containerd.run(&["--rm", "--memory-limit", "20000000"], "greedy", &greedy);
    assert_eq!(done.code, 137, "{done}");
    eventually("containerd tells of the lack of memory", || {
        has("/tasks/oom", "greedy").then_some(())
    });
    assert!(!has("/tasks/oom", "calm"), "nothing else lacked memory");
    listener.kill().expect("end ctr events");
    listener.wait().expect("wait for ctr events");
}

#[test]
fn the_flags_of_ctr_run_are_true_inside() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let shell = |flags: &[&str], id: &str, script: &str| {
        containerd
            .run(&[&["--rm"], flags].concat(), id, &["/bin/sh", "-c", script])
            .ok()
    };
    let shown = shell(
        &["--seccomp"],
        "seccomp",
        "grep Seccomp: /proc/self/status; unshare -U true 2>&1 || echo denied",
    );
    assert_eq!(shown.split_whitespace().nth(1), Some("2"), "{shown}");
    assert!(
        shown.ends_with("denied\n"),
        "containerd's profile keeps out new user namespaces: {shown}"
    );
    let shown = shell(&[], "plain", "grep Seccomp: /proc/self/status");
    assert_eq!(shown.split_whitespace().nth(1), Some("0"), "{shown}");

    let flags = [
        "--read-only",
        "--user",
        "1000:1001",
        "--hostname",
        "moon",
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
    ];
    let shown = shell(
        &flags,
        "process",
        "touch /x 2>&1; id -u; id -g; hostname; pwd; echo $A",
    );
    assert_eq!(
        shown,
        "touch: /x: Read-only file system\n1000\n1001\nmoon\n/tmp\nb\n"
    );

    let capabilities = ["--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_TIME"];
    let shown = shell(&capabilities, "caps", "grep CapEff /proc/self/status");
    let set = u64::from_str_radix(shown.split_whitespace().nth(1).expect("a set"), 16).expect("hex");
    assert_eq!(
        (set & 1, set >> 25 & 1),
        (0, 1),
        "chown is number 0, sys_time 25: {shown}"
    );

    fs::write(sandbox.path().join("shared"), "outside\n").expect("write a file");
    let mount = format!(
        "type=bind,src={}/shared,dst=/tmp/in,options=rbind:ro",
        sandbox.path().display()
    );
    let shown = shell(
        &["--mount", &mount],
        "mount",
        "cat /tmp/in; echo >/tmp/in || echo denied",
    );
    assert_eq!(shown, "outside\ndenied\n");

    let shown = shell(
        &["--privileged"],
        "privileged",
        "mount -t tmpfs t /tmp && echo mounted",
    );
    assert_eq!(shown, "mounted\n");

    let flags = ["-d", "--cpu-quota", "50000", "--cpu-period", "100000"];
    containerd.run(&flags, "limits", SLEEP).ok();
    let limit = |file: &str| {
        let path = Path::new("/sys/fs/cgroup").join(file.replace('@', &format!("{}/limits", sandbox.id())));
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    assert_eq!(
        limit("cpu/@/cpu.cfs_quota_us")
            .or_else(|| limit("@/cpu.max"))
            .as_deref()
            .map(|text| &text[..5]),
        Some("50000")
    );
    containerd.remove("limits");
}

#[test]
fn a_live_container_outlives_a_killed_containerd() {
    let sandbox = Sandbox::new();
    let Some(mut containerd) = containerd(&sandbox) else {
        return;
    };
    let waits = "until test -e /tmp/go; do sleep 0.02; done; exit 9";
    containerd.run(&["-d"], "stays", SLEEP).ok();
    containerd.run(&["-d"], "ends", &["/bin/sh", "-c", waits]).ok();
    let (ends, _) = containerd.task("ends").expect("a task");
    containerd.kill();
    // One ends while nobody is there to hear of it.
    fs::write(containerd.rootfs().join("tmp/go"), "").expect("let it end");
    eventually("it has ended", || {
        (!Path::new(&format!("/proc/{ends}")).exists()).then_some(())
    });
    containerd.start_again();
    assert_eq!(containerd.status("stays").as_deref(), Some("RUNNING"));
    // A task whose processes are all gone is deleted by containerd 2 as it starts.
    assert_eq!(containerd.status("ends"), None);
    containerd.ctr(&["container", "rm", "ends"]).ok();
    assert_eq!(exec(&containerd, &[], "stays", "echo again").ok(), "again\n");
    containerd.ctr(&["task", "kill", "-s", "KILL", "stays"]).ok();
    containerd.wait_for("stays", "STOPPED");
    containerd.remove("stays");
}

#[test]
fn a_user_namespace_has_its_maps_and_a_rootfs_of_its_own_ids() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let image = containerd.import(&Image::busybox());
    let flags = ["--rm", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /made; stat -c %u:%g /made /bin";
    let shown = containerd
        .run_image(&flags, &image, "c1", &["/bin/sh", "-c", script])
        .ok();
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "100000", "65536", "0", "200000", "65536", "0", "0:0", "0:0"]
    );
}

#[test]
fn a_task_is_checkpointed_and_restored() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    containerd.assert_a_task_is_saved_and_restored("c1");
    containerd.remove("c1");
}
