//! containerd 2 with our shim, our runtime below it or another: what people do with `ctr`, and what happens to live
//! containers when containerd or a shim dies. Without hack/peers' containerd the tests say so and pass.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use integration::{Containerd, Cri, Done, Handler, Peers, Sandbox, Terminal, eventually, run};
use serde_json::{Value, json};

/// A containerd with our shim, or nothing when hack/peers has fetched none.
fn containerd(sandbox: &Sandbox) -> Option<Containerd> {
    Some(Containerd::newer_with_our_shim(sandbox, Peers::start(sandbox)?))
}

fn exec(containerd: &Containerd, id: &str, script: &str) -> Done {
    containerd.exec(&[], id, &["/bin/sh", "-c", script])
}

const SLEEP: &[&str] = &["/bin/sleep", "1000"];

/// `ctr events`, and what it heard.
struct Listener {
    process: Child,
    heard: std::path::PathBuf,
}

impl Listener {
    #[track_caller]
    fn start(containerd: &Containerd) -> Self {
        let heard = containerd.folder().join("events");
        let process = containerd
            .ctr_command(&["events"])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&heard).expect("make a file"))
            .spawn()
            .expect("start ctr events");
        let listener = Self { process, heard };
        // Events before the listener is there are not replayed, so the first containers may go unheard.
        let mut number = 0;
        eventually("ctr events is there", || {
            number += 1;
            let id = format!("warm{number}");
            containerd.run(&["--rm"], &id, &["/bin/true"]).ok();
            listener.of(&id).contains(&"delete".to_owned()).then_some(())
        });
        listener
    }

    /// The events of one container's task, in order.
    fn of(&self, id: &str) -> Vec<String> {
        let text = fs::read_to_string(&self.heard).unwrap_or_default();
        let about = format!("\"container_id\":\"{id}\"");
        let lines = text.lines().filter(|line| line.contains(&about));
        let topics = lines.filter_map(|line| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix("/tasks/"))
        });
        topics.map(str::to_owned).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn output_and_exit_codes_come_through_and_nothing_stays() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let script = "echo out; echo err >&2; exit 3";
    let done = containerd.run(&["--rm"], "c1", &["/bin/sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (3, "out\n"), "{done}");
    assert!(done.stderr.contains("err"), "{done}");
    let refused = containerd.run(&["--rm"], "c2", &["/no/such/program"]).refused();
    assert!(refused.contains("/no/such/program"), "{refused}");
    let bundles = fs::read_dir(containerd.bundle("")).expect("read the bundles");
    assert_eq!(bundles.count(), 0);
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn a_terminal_is_one_for_run_exec_and_attach() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    containerd.assert_terminals_work();

    let mut detached = Terminal::spawn(containerd.run_command(&["-d", "-t"], "c2", &["/bin/sh"]));
    assert_eq!(detached.exit_code(), 0, "{}", detached.screen());
    let mut attached = Terminal::spawn(containerd.ctr_command(&["task", "attach", "c2"]));
    attached.send("echo at''tached; tty\n");
    let shown = attached.expect("/dev/pts/0");
    assert!(shown.contains("attached"), "{shown}");
    attached.send("exit 7\n");
    assert_eq!(attached.exit_code(), 7, "{}", attached.screen());
    assert_eq!(containerd.status("c2"), None, "who was attached removes the task");
    containerd.ctr(&["container", "rm", "c2"]).ok();
}

#[test]
fn exec_ps_metrics_pause_resume_and_kill_work() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let flags = ["-d", "--memory-limit", "50000000"];
    containerd.run(&flags, "c1", SLEEP).ok();
    let flags = ["--user", "1000:1000", "--cwd", "/tmp"];
    // One whose end comes before ctr opens its output.
    for _ in 0..5 {
        let done = containerd.exec(&flags, "c1", &["/bin/sh", "-c", "id -u; pwd; exit 7"]);
        assert_eq!((done.code, done.stdout.as_str()), (7, "1000\n/tmp\n"), "{done}");
    }
    let refused = containerd.exec(&[], "c1", &["/no/such/program"]).refused();
    assert!(refused.contains("/no/such/program"), "{refused}");

    let mut waits = containerd
        .ctr_command(&["task", "exec", "--exec-id", "waits", "c1", "/bin/sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .expect("start ctr");
    let listed = eventually("ps lists the exec", || {
        let list = containerd.ctr(&["task", "ps", "c1"]).ok();
        list.contains("waits").then_some(list)
    });
    assert_eq!(listed.lines().count(), 3, "a title and two processes: {listed}");
    let kill = ["task", "kill", "--exec-id", "waits", "-s", "TERM", "c1"];
    containerd.ctr(&kill).ok();
    assert_eq!(waits.wait().expect("wait for ctr").code(), Some(143));

    let metrics = containerd
        .ctr(&["task", "metrics", "--format", "json", "c1"])
        .ok();
    let metrics: Value = serde_json::from_str(&metrics).expect("metrics are JSON");
    assert_eq!(metrics["pids"]["current"], 1, "{metrics}");
    let memory = &metrics["memory"]["usage"];
    assert!(
        memory["usage"].as_u64().is_some_and(|bytes| bytes > 0),
        "{metrics}"
    );
    // The kernel counts in pages.
    let pages = memory["limit"].as_u64().map(|bytes| bytes / 4096);
    assert_eq!(pages, Some(50_000_000 / 4096), "{metrics}");

    containerd.ctr(&["task", "pause", "c1"]).ok();
    assert_eq!(containerd.status("c1").as_deref(), Some("PAUSED"));
    containerd.ctr(&["task", "resume", "c1"]).ok();
    assert_eq!(containerd.status("c1").as_deref(), Some("RUNNING"));
    assert_eq!(exec(&containerd, "c1", "echo again").ok(), "again\n");
    containerd.ctr(&["task", "kill", "-s", "KILL", "c1"]).ok();
    containerd.wait_for("c1", "STOPPED");
    let refused = containerd.ctr(&["task", "kill", "c1"]).refused();
    assert!(refused.contains("process already finished"), "{refused}");
    let removed = containerd.ctr(&["task", "rm", "c1"]);
    assert!(removed.stderr.contains("exit code 137"), "{removed}");
    containerd.ctr(&["container", "rm", "c1"]).ok();
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn events_come_in_the_order_in_which_things_happen() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let listener = Listener::start(&containerd);
    let flags = ["-d", "--memory-limit", "20000000"];
    let greedy = "until test -e /tmp/go; do sleep 0.02; done; x=0123456789abcdef; while :; do x=$x$x; done";
    containerd.run(&flags, "c1", &["/bin/sh", "-c", greedy]).ok();
    exec(&containerd, "c1", "true").ok();
    containerd.ctr(&["task", "pause", "c1"]).ok();
    containerd.ctr(&["task", "resume", "c1"]).ok();
    fs::write(containerd.rootfs().join("tmp/go"), "").expect("let it want memory");
    containerd.wait_for("c1", "STOPPED");
    containerd.remove("c1");
    let expected = [
        "create",
        "start",
        "exec-added",
        "exec-started",
        "exit",
        "paused",
        "resumed",
        "oom",
        "exit",
        "delete",
    ];
    eventually("the last event is heard", || {
        (listener.of("c1").last()? == "delete").then_some(())
    });
    assert_eq!(listener.of("c1"), expected);
    assert!(!listener.of("warm1").contains(&"oom".to_owned()));
}

#[test]
fn what_lives_while_containerd_is_away_is_there_when_it_is_back() {
    let sandbox = Sandbox::new();
    let Some(mut containerd) = containerd(&sandbox) else {
        return;
    };
    let waits = |code: u32| format!("until test -e /tmp/go; do sleep 0.02; done; exit {code}");
    containerd.run(&["-d"], "stays", SLEEP).ok();
    for code in [0, 9] {
        let script = waits(code);
        containerd
            .run(&["-d"], &format!("ends{code}"), &["/bin/sh", "-c", &script])
            .ok();
    }
    let (stays, _) = containerd.task("stays").expect("a task");
    containerd.kill();
    fs::write(containerd.rootfs().join("tmp/go"), "").expect("let them end");
    for id in ["ends0", "ends9"] {
        let exit = containerd.bundle(id).join("exit.json");
        eventually("the exit is on disk", || exit.exists().then_some(()));
    }
    containerd.start_again();
    assert_eq!(containerd.task("stays"), Some((stays, "RUNNING".to_owned())));
    assert_eq!(exec(&containerd, "stays", "echo again").ok(), "again\n");
    for id in ["ends0", "ends9"] {
        // containerd 2 deletes a task without processes as it starts.
        assert_eq!(containerd.status(id), None);
        assert!(!containerd.bundle(id).exists());
        containerd.ctr(&["container", "rm", id]).ok();
    }
    let log = fs::read_to_string(containerd.folder().join("containerd.log")).expect("read the log");
    assert!(
        !log.contains("dead shim"),
        "both ended as they were asked to: {log}"
    );
    containerd.remove("stays");
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn a_killed_shim_is_noticed_and_its_container_removed() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let listener = Listener::start(&containerd);
    for id in ["c1", "c2"] {
        containerd.run(&["-d"], id, SLEEP).ok();
    }
    let pid = fs::read_to_string(containerd.bundle("c1").join("shim.pid")).expect("read shim.pid");
    run(std::process::Command::new("kill").args(["-KILL", &pid])).ok();
    eventually("containerd tells of its end", || {
        (listener.of("c1").last()? == "delete").then_some(())
    });
    assert_eq!(listener.of("c1"), ["create", "start", "exit", "delete"]);
    assert_eq!(containerd.status("c1"), None);
    assert_eq!(containerd.status("c2").as_deref(), Some("RUNNING"));
    containerd.ctr(&["container", "rm", "c1"]).ok();
    containerd.remove("c2");
    drop((listener, containerd));
    sandbox.assert_clean();
}

#[test]
fn containers_of_one_group_share_a_shim() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let annotation = "io.containerd.runc.v2.group=web";
    for (id, flags) in [
        ("c1", &["--annotation", annotation][..]),
        ("c2", &["--annotation", annotation]),
        ("alone", &[]),
    ] {
        containerd.run(&[&["-d"], flags].concat(), id, SLEEP).ok();
    }
    let address = |id: &str| fs::read_to_string(containerd.bundle(id).join("address")).expect("read address");
    assert_eq!(address("c1"), address("c2"));
    assert_ne!(address("c1"), address("alone"));
    // The group goes on without the container that was its first.
    containerd.remove("c1");
    containerd
        .run(&["-d", "--annotation", annotation], "c3", SLEEP)
        .ok();
    assert_eq!(address("c2"), address("c3"));
    for id in ["c2", "c3", "alone"] {
        assert_eq!(exec(&containerd, id, "echo inside").ok(), "inside\n");
        containerd.remove(id);
    }
    drop(containerd);
    sandbox.assert_clean();
}

/// The options that containerd has for runc's shim, and the file in which other shims find theirs.
#[test]
fn the_runtime_below_is_the_one_of_the_options() {
    let sandbox = Sandbox::new();
    let Some(peers) = Peers::start(&sandbox) else {
        return;
    };
    if Path::new("/sys/fs/cgroup/unified").exists() {
        // crun refuses hybrid cgroups, and what is not mounted here is not there for it.
        run(peers.command("umount").arg("/sys/fs/cgroup/unified")).ok();
    }
    let containerd = Containerd::newer_with_our_shim(&sandbox, peers);
    let root = sandbox.path().join("runtime").display().to_string();
    let config = sandbox.path().join("options.toml").display().to_string();
    fs::write(&config, format!("BinaryName = 'crun'\nRoot = '{root}'\n")).expect("write a file");
    let runc = [
        "--runtime",
        "io.containerd.runc.v2",
        "--runc-root",
        &root,
        "--runc-binary",
    ];
    let berth = ["--runtime", "io.containerd.berth.v1"];
    for (id, runtime) in [
        ("by-default", berth.to_vec()),
        ("runc", [&runc[..], &["runc"]].concat()),
        ("crun", [&runc[..], &["crun"]].concat()),
        (
            "crun-by-file",
            [&berth[..], &["--runtime-config-path", &config]].concat(),
        ),
    ] {
        let known = Path::new(&root).join(sandbox.id()).join(id);
        containerd.run_with(&runtime, &["-d"], id, SLEEP).ok();
        assert_eq!(
            known.exists(),
            id != "by-default",
            "{id} is in the root of its options"
        );
        let done = exec(&containerd, id, "echo inside; exit 7");
        assert_eq!((done.code, done.stdout.as_str()), (7, "inside\n"), "{id}: {done}");
        containerd.ctr(&["task", "pause", id]).ok();
        assert_eq!(containerd.status(id).as_deref(), Some("PAUSED"), "{id}");
        containerd.ctr(&["task", "resume", id]).ok();
        assert!(
            containerd.ctr(&["task", "metrics", id]).ok().contains("memory"),
            "{id}"
        );
        containerd.ctr(&["task", "kill", "-s", "KILL", id]).ok();
        containerd.wait_for(id, "STOPPED");
        containerd.remove(id);
        assert!(!known.exists(), "{id} is gone from its runtime");
        let refused = containerd.run_with(&runtime, &["--rm"], &format!("{id}-2"), &["/no/such/program"]);
        let refused = refused.refused();
        assert!(refused.contains("/no/such/program"), "{id}: {refused}");
    }
    if !Path::new("/run/systemd/system").exists() {
        let runc = ["--runtime", "io.containerd.runc.v2", "--runc-systemd-cgroup"];
        let refused = containerd.run_with(&runc, &["--rm", "--cgroup", "a.slice:b:c"], "no-systemd", SLEEP);
        let refused = refused.refused();
        assert!(refused.contains("systemd is not running"), "{refused}");
    }
    let missing = [&runc[..], &["/no/such/runtime"]].concat();
    let refused = containerd.run_with(&missing, &["--rm"], "none", SLEEP).refused();
    assert!(refused.contains("\"/no/such/runtime\""), "{refused}");
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn output_goes_where_the_log_uri_says() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    let path = |name: &str| sandbox.path().join(name).display().to_string();
    let script = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"];
    let uri = format!("file://{}", path("plain"));
    containerd.run(&["-d", "--log-uri", &uri], "plain", &script).ok();
    containerd.wait_for("plain", "STOPPED");
    assert_eq!(
        fs::read_to_string(path("plain")).expect("read the output"),
        "out\nerr\n"
    );

    // Gets both streams as its descriptors 3 and 4, and closes 5 when it is ready (containerd's runtime/v2 README).
    let logger = "#!/bin/sh\necho \"$CONTAINER_NAMESPACE $CONTAINER_ID $1 $2\" >\"$2\"\nexec 5>&-\n\
                  sed 's/^/stdout: /' <&3 >>\"$2\"\nsed 's/^/stderr: /' <&4 >>\"$2\"\necho over >>\"$2\"\n";
    fs::write(path("logger"), logger).expect("write a logger");
    fs::set_permissions(path("logger"), fs::Permissions::from_mode(0o755)).expect("make it executable");
    let uri = format!("binary://{}?to={}", path("logger"), path("logged"));
    containerd.run(&["-d", "--log-uri", &uri], "logger", &script).ok();
    let expected = format!(
        "{} logger to {}\nstdout: out\nstderr: err\nover\n",
        sandbox.id(),
        path("logged")
    );
    eventually("the logger has it all", || {
        let text = fs::read_to_string(path("logged")).unwrap_or_default();
        text.ends_with("over\n").then(|| assert_eq!(text, expected))
    });
    let uri = format!("binary://{}", path("no-logger"));
    let refused = containerd
        .run(&["-d", "--log-uri", &uri], "none", &script)
        .refused();
    assert!(refused.contains("no-logger"), "{refused}");
    for id in ["plain", "logger"] {
        containerd.remove(id);
    }
}

#[test]
fn a_task_is_checkpointed_and_restored() {
    let sandbox = Sandbox::new();
    let Some(containerd) = containerd(&sandbox) else {
        return;
    };
    containerd.assert_a_task_is_saved_and_restored("c1");
    containerd.ctr(&["task", "kill", "-s", "KILL", "c1"]).ok();
    containerd.wait_for("c1", "STOPPED");
    containerd.remove("c1");
    drop(containerd);
    sandbox.assert_clean();
}

/// What `kubectl exec -it`, `kubectl attach` and a kubelet's rotation of logs come to.
#[test]
fn a_pods_containers_are_attached_to_and_their_logs_reopened() {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox, &[Handler::OUR_SHIM]) else {
        return;
    };
    let pod_request = cri.pod_request("pod", &json!({}));
    let pod = cri.call(&["runp", &pod_request]).ok().trim().to_owned();
    let start = |name: &str, script: &str, extra: &Value| {
        let request = cri.container_request(name, script, extra);
        let id = cri.call(&["create", &pod, &request, &pod_request]).ok();
        let id = id.trim().to_owned();
        cri.call(&["start", &id]).ok();
        id
    };
    let script = "while read line; do echo got $line; done; exit 4";
    let asks = start("asks", script, &json!({"stdin": true, "stdin_once": true}));
    let mut attach = cri.command(&["attach", "--stdin", &asks]);
    let mut attach = attach
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start crictl");
    // Its input ends when the client's does.
    let mut input = attach.stdin.take().expect("a pipe");
    input.write_all(b"one\ntwo\n").expect("write to crictl");
    drop(input);
    let shown = attach.wait_with_output().expect("wait for crictl").stdout;
    assert_eq!(String::from_utf8_lossy(&shown), "got one\ngot two\n");
    eventually("it has ended", || {
        (cri.status(&asks)["state"] == "CONTAINER_EXITED").then_some(())
    });
    assert_eq!(cri.status(&asks)["exitCode"], 4);
    assert_eq!(cri.call(&["logs", &asks]).ok(), "got one\ngot two\n");

    let shell = start("shell", "exec sh", &json!({"stdin": true, "tty": true}));
    let mut attached = Terminal::spawn(cri.command(&["attach", "--stdin", "--tty", &shell]));
    attached.send("echo at''tached; tty\n");
    let shown = attached.expect("/dev/pts/0");
    assert!(shown.contains("attached"), "{shown}");
    let mut exec = Terminal::spawn(cri.command(&["exec", "--interactive", "--tty", &shell, "/bin/sh"]));
    exec.send("tty; echo ma''rk\n");
    let shown = exec.expect("mark");
    assert!(shown.contains("/dev/pts/1"), "{shown}");
    exec.send("exit\n");
    assert_eq!(exec.exit_code(), 0, "{}", exec.screen());
    attached.send("exit 6\n");
    eventually("the shell has ended", || {
        (cri.status(&shell)["exitCode"] == 6).then_some(())
    });

    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    let talks = start("talks", script, &json!({}));
    let log = cri.folder().join("logs/talks.log");
    let old = cri.folder().join("logs/talks.log.1");
    // CRI's format: a time, the stream, F for a full line, and the line.
    let numbers = |path: &Path| -> Vec<u32> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split(" stdout F ").nth(1));
        lines.filter_map(|number| number.parse().ok()).collect()
    };
    eventually("it talks", || (numbers(&log).len() > 5).then_some(()));
    fs::rename(&log, &old).expect("rotate the log");
    cri.call(&["logs", "--reopen", &talks]).ok();
    eventually("it talks on, in a new log", || {
        (numbers(&log).len() > 5).then_some(())
    });
    cri.call(&["stop", "--timeout", "0", &talks]).ok();
    let all = [numbers(&old), numbers(&log)].concat();
    assert!(
        all.iter().copied().eq(1..=all.len() as u32),
        "no line is lost or twice: {all:?}"
    );
    cri.call(&["stopp", &pod]).ok();
    cri.call(&["rmp", "--force", &pod]).ok();
}
