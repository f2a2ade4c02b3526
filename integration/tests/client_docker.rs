//! dockerd with our runtime as its default runtime: what docker's users do, in images made here. Without hack/peers'
//! dockerd the tests say so and pass.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use integration::{Docker, Manager, Peers, Sandbox, Terminal, eventually, finish, run};
use serde_json::{Value, json};

#[test]
fn exit_codes_and_streams_are_as_with_runc() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let done = docker.sh(&[], "echo out; echo err >&2; exit 7");
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n"),
        "{done}"
    );
    assert_eq!(
        docker.sh(&[], "kill -9 $$").code,
        0,
        "process 1 takes no signal from itself"
    );
    for (program, code) in [
        ("/bin/true", 0),
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/etc", 126),
        ("/etc/passwd", 126),
    ] {
        let done = docker.call(&["run", "--rm", "box", program]);
        assert_eq!(done.code, code, "{done}");
        assert!(code == 0 || done.stderr.contains(program), "{done}");
    }
    // docker's own refusal, and the daemon's.
    assert_eq!(docker.call(&["run", "--no-such-flag", "box"]).code, 125);
    assert_eq!(
        docker
            .call(&["run", "--rm", "--pid", "container:nobody", "box"])
            .code,
        125
    );
    assert_eq!(
        docker
            .call(&[
                "run",
                "--rm",
                "--sysctl",
                "kernel.nothing=1",
                "--ipc",
                "private",
                "box",
                "/bin/true"
            ])
            .code,
        125
    );

    let mut command = docker.command(&["run", "--rm", "-i", "box", "/bin/cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start docker run");
    let text = "a line\n".repeat(20_000);
    let mut input = child.stdin.take().expect("its input");
    let writer = std::thread::spawn({
        let text = text.clone();
        move || input.write_all(text.as_bytes()).expect("write its input")
    });
    let done = finish(child, "docker run -i box cat".into());
    writer.join().expect("all is written");
    assert!(
        done.code == 0 && done.stdout == text,
        "{} of {} bytes came back: {}",
        done.stdout.len(),
        text.len(),
        done.stderr
    );
}

#[test]
fn terminals_are_terminals() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let mut shell = Terminal::spawn(docker.command(&["run", "-it", "--name", "shell", "box", "/bin/sh"]));
    shell.send("tty; echo ma''rk\n");
    let shown = shell.expect("mark");
    assert!(shown.contains("/dev/pts/0"), "{shown}");
    shell.send("until stty size | grep -x '24 80'; do :; done; echo si''zed\n");
    shell.expect("sized");
    shell.resize(100, 30);
    shell.send("until stty size | grep -x '30 100'; do :; done; echo resi''zed\n");
    shell.expect("resized");

    let mut exec = Terminal::spawn(docker.command(&["exec", "-it", "shell", "/bin/sh"]));
    exec.send("tty; ps; echo ma''rk\n");
    let shown = exec.expect("mark");
    assert!(shown.contains("/dev/pts/1"), "{shown}");
    exec.send("exit 5\n");
    assert_eq!(exec.exit_code(), 5, "{}", exec.screen());

    // Ctrl-C reaches what runs in the foreground, Ctrl-P Ctrl-Q leaves the container to itself.
    shell.send("sleep 1000\n");
    eventually("it sleeps", || {
        docker
            .exec("shell", "ps | grep -v grep | grep 'sleep 1000'")
            .stdout
            .lines()
            .next()
            .map(str::to_owned)
    });
    shell.send("\x03");
    shell.send("echo interru''pted\n");
    shell.expect("interrupted");
    shell.send("\x10\x11");
    shell.exit_code();
    assert_eq!(docker.inspect("shell", ".State.Status"), "running");
    let mut again = Terminal::spawn(docker.command(&["attach", "shell"]));
    again.send("exit 6\n");
    assert_eq!(again.exit_code(), 6, "{}", again.screen());
}

#[test]
fn exec_is_in_the_container_as_it_was_asked() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    docker.detach("c1", &["--env", "A=run"], "sleep 1000");
    let flags = [
        "exec",
        "--user",
        "1000:50",
        "--workdir",
        "/tmp",
        "--env",
        "B=exec",
        "c1",
    ];
    let done = docker.call(
        &[
            &flags[..],
            &["/bin/sh", "-c", "id -u; id -g; pwd; echo $A $B; exit 3"],
        ]
        .concat(),
    );
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (3, "1000\n50\n/tmp\nrun exec\n"),
        "{done}"
    );
    // dockerd 26 says 126 of both, with runc too.
    for (program, codes) in [("/no/such/program", &[127, 126][..]), ("/etc", &[126])] {
        let done = docker.call(&["exec", "c1", program]);
        assert!(codes.contains(&done.code), "{done}");
    }
    // Without --privileged it has the container's rights and filter, with it all.
    let rights = "grep -E 'CapEff|Seccomp:' /proc/self/status | cut -f2";
    let container = docker
        .exec(
            "c1",
            &format!("{rights} ; sed -n 's/CapEff:.//p; s/Seccomp:.//p' /proc/1/status"),
        )
        .ok();
    let lines: Vec<&str> = container.lines().collect();
    assert_eq!(lines[..2], lines[2..], "{container}");
    let privileged = docker
        .call(&["exec", "--privileged", "c1", "/bin/sh", "-c", rights])
        .ok();
    assert_ne!(privileged.lines().next(), container.lines().next());

    docker
        .call(&["exec", "-d", "c1", "/bin/sh", "-c", "echo done >/tmp/made"])
        .ok();
    eventually("the detached process has run", || {
        (docker.exec("c1", "cat /tmp/made").stdout == "done\n").then_some(())
    });
    let top = docker.call(&["top", "c1"]).ok();
    assert!(top.contains("sleep 1000"), "{top}");
}

#[test]
fn stats_limits_and_pause_are_the_kernels() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    docker.detach(
        "c1",
        &["--memory", "64m", "--pids-limit", "50"],
        "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; mv /tmp/n /tmp/count; sleep 0.02; done",
    );
    let stats = docker
        .call(&["stats", "--no-stream", "--format", "{{json .}}", "c1"])
        .ok();
    let stats: Value = serde_json::from_str(&stats).expect("stats are JSON");
    assert!(
        stats["PIDs"]
            .as_str()
            .is_some_and(|text| ["1", "2"].contains(&text)),
        "{stats}"
    );
    let memory = stats["MemUsage"].as_str().expect("memory");
    assert!(
        memory.ends_with("/ 64MiB") && !memory.starts_with("0B"),
        "{stats}"
    );
    assert_ne!(stats["CPUPerc"], "0.00%", "{stats}");

    let limit = |v1: &str, v2: &str| {
        let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
        docker.exec("c1", &script).ok().trim().to_owned()
    };
    let memory = || limit("memory/memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), (64 << 20).to_string());
    assert_eq!(limit("pids/pids.max", "pids.max"), "50");
    let update = [
        "update",
        "--memory",
        "128m",
        "--memory-swap",
        "256m",
        "--cpus",
        "0.5",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "60",
        "c1",
    ];
    docker.call(&update).ok();
    assert_eq!(memory(), (128 << 20).to_string());
    assert!(limit("cpu/cpu.cfs_quota_us", "cpu.max").starts_with("50000"));
    assert_eq!(limit("cpuset/cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(limit("pids/pids.max", "pids.max"), "60");
    let refused = docker.call(&["update", "--cpuset-cpus", "1000", "c1"]).refused();
    assert!(refused.contains("1000"), "{refused}");

    docker.call(&["pause", "c1"]).ok();
    assert_eq!(docker.inspect("c1", ".State.Status"), "paused");
    let counted = |from: &str| docker.call(&["cp", &format!("c1:/tmp/count{from}"), "-"]).stdout;
    let before = counted("");
    assert!(docker.exec("c1", "true").refused().contains("paused"));
    assert!(
        !before.is_empty() && before == counted(""),
        "a paused container counts on"
    );
    docker.call(&["unpause", "c1"]).ok();
    eventually("it counts again", || (counted("") != before).then_some(()));
}

#[test]
fn health_checks_see_it_fall_ill_and_recover() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let check = [
        "--health-cmd",
        "test -e /tmp/well || { echo ill; exit 1; }",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    docker.detach("c1", &check, "touch /tmp/well; sleep 1000");
    let state = ".State.Health.Status";
    docker.wait_for("c1", state, "healthy");
    docker.exec("c1", "rm /tmp/well").ok();
    docker.wait_for("c1", state, "unhealthy");
    assert!(docker.inspect("c1", "json .State.Health.Log").contains("ill"));
    docker.exec("c1", "touch /tmp/well").ok();
    docker.wait_for("c1", state, "healthy");
}

#[test]
fn stop_kill_and_restart_end_and_begin_it() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let code = |name: &str| docker.inspect(name, ".State.ExitCode");
    let polite = "trap 'exit 9' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done";
    let ready = |name: &str, times: usize| {
        eventually("it is ready", || {
            (docker.call(&["logs", name]).ok().matches("ready").count() == times).then_some(())
        });
    };
    docker.detach("polite", &[], polite);
    ready("polite", 1);
    docker.call(&["kill", "--signal", "USR1", "polite"]).ok();
    eventually("the signal is taken", || {
        docker
            .call(&["logs", "polite"])
            .ok()
            .contains("usr1")
            .then_some(())
    });
    docker.call(&["stop", "polite"]).ok();
    assert_eq!(code("polite"), "9");
    docker.call(&["start", "polite"]).ok();
    ready("polite", 2);
    let pid = docker.inspect("polite", ".State.Pid");
    docker.call(&["restart", "polite"]).ok();
    ready("polite", 3);
    assert_ne!(docker.inspect("polite", ".State.Pid"), pid);
    docker.call(&["kill", "polite"]).ok();
    docker.wait_for("polite", ".State.Status", "exited");
    assert_eq!(code("polite"), "137");

    docker.detach("deaf", &[], "trap '' TERM; while :; do sleep 0.02; done");
    docker.call(&["stop", "--time", "0", "deaf"]).ok();
    assert_eq!(code("deaf"), "137");

    docker.detach("again", &["--restart", "on-failure:2"], "exit 4");
    docker.wait_for("again", ".RestartCount", "2");
    docker.wait_for("again", ".State.Status", "exited");
    assert_eq!(code("again"), "4");
    assert_eq!(docker.call(&["wait", "again"]).ok(), "4\n");
}

#[test]
fn a_container_killed_for_its_memory_is_told_as_such() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let limit = ["--memory", "20m", "--memory-swap", "20m"];
    docker.detach("greedy", &limit, "x=0123456789abcdef; while :; do x=$x$x; done");
    docker.detach("killed", &limit, "sleep 1000");
    docker.wait_for("greedy", ".State.Status", "exited");
    assert_eq!(docker.inspect("greedy", ".State.OOMKilled"), "true");
    assert_eq!(docker.inspect("greedy", ".State.ExitCode"), "137");
    docker.call(&["kill", "killed"]).ok();
    docker.wait_for("killed", ".State.Status", "exited");
    assert_eq!(docker.inspect("killed", ".State.OOMKilled"), "false");
}

#[test]
fn rights_and_limits_of_the_process_are_as_asked() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let script = "sed -n 's/CapEff:.//p; s/Seccomp:.//p; s/NoNewPrivs:.//p' /proc/self/status";
    // docker's default: 14 capabilities, its seccomp profile.
    assert_eq!(docker.sh(&[], script).ok(), "00000000a80425fb\n0\n2\n");
    let denied = docker.sh(&[], "unshare -U true").refused();
    assert!(denied.contains("Operation not permitted"), "{denied}");
    let flags = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
    ];
    assert_eq!(docker.sh(&flags, script).ok(), "0000000000000001\n1\n0\n");
    fs::write(
        sandbox.path().join("profile.json"),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}).to_string(),
    )
    .expect("write a profile");
    let profile = format!("seccomp={}", sandbox.path().join("profile.json").display());
    let shown = docker.sh(&["--security-opt", &profile], "mkdir /x").refused();
    assert!(shown.contains("No space left on device"), "{shown}");

    let flags = [
        "--user",
        "1000:1001",
        "--group-add",
        "50",
        "--ulimit",
        "nofile=100:200",
        "--hostname",
        "moon",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=7",
        "--oom-score-adj",
        "77",
        "--shm-size",
        "1m",
    ];
    let script = "id -u; id -g; id -G; ulimit -n; ulimit -Hn; hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj; df -k /dev/shm | awk 'END { print $2 }'";
    assert_eq!(
        docker.sh(&flags, script).ok(),
        "1000\n1001\n1001 50\n100\n200\nmoon\n7\n77\n1024\n"
    );

    let script = "mount -t tmpfs t /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs t /mnt && echo mounted; sed -n 's/Seccomp:.//p' /proc/self/status; test -e /dev/kmsg && echo devices; ls /sys/fs/cgroup | head -n 1 | wc -l";
    assert_eq!(
        docker.sh(&["--privileged"], script).ok(),
        "mounted\n0\ndevices\n1\n"
    );

    let shown = docker.sh(&["--init"], "cat /proc/1/comm").ok();
    assert_eq!(shown, "docker-init\n");
    // The null device may be written under any name: it is among those that every container has.
    let flags = [
        "--device",
        "/dev/kmsg:/dev/log-of-kernel:r",
        "--cap-add",
        "SYSLOG",
    ];
    let script = "true </dev/log-of-kernel && echo read; true 2>/dev/null >/dev/log-of-kernel || echo denied";
    assert_eq!(docker.sh(&flags, script).ok(), "read\ndenied\n");
}

#[test]
fn mounts_are_where_and_as_they_were_asked() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let shared = sandbox.path().join("shared");
    fs::create_dir_all(shared.join("below")).expect("make a folder");
    fs::write(shared.join("file"), "outside\n").expect("write a file");
    let bind = |options: &str| format!("{}:/shared:{options}", shared.display());
    assert_eq!(
        docker
            .sh(
                &["-v", &bind("rw")],
                "cat /shared/file; echo inside >/shared/made"
            )
            .ok(),
        "outside\n"
    );
    assert_eq!(
        fs::read_to_string(shared.join("made")).expect("what it made"),
        "inside\n"
    );

    // Read-only with all below it: docker asks `runtime features` whether rro is known, and writes it then.
    run(docker
        .inside("mount")
        .args(["-t", "tmpfs", "below"])
        .arg(shared.join("below")))
    .ok();
    let refused = docker.sh(
        &["-v", &bind("ro")],
        "touch /shared/x; touch /shared/below/x; echo end",
    );
    assert_eq!(
        refused.stderr.matches("Read-only file system").count(),
        2,
        "{refused}"
    );
    let flat = format!(
        "type=bind,src={},dst=/shared,readonly,bind-recursive=writable",
        shared.display()
    );
    let shown = docker.sh(
        &["--mount", &flat],
        "touch /shared/below/x && echo made; touch /shared/x",
    );
    assert!(
        shown.stdout == "made\n" && shown.stderr.contains("Read-only"),
        "{shown}"
    );
    run(docker.inside("umount").arg(shared.join("below"))).ok();

    let flags = ["--read-only", "--tmpfs", "/scratch:size=1m,noexec,mode=1770"];
    let script = "touch /x; touch /scratch/x && stat -c %a /scratch; df -k /scratch | awk 'END { print $2 }'; cp /bin/busybox /scratch/y && /scratch/y true; echo end";
    let done = docker.sh(&flags, script);
    assert_eq!(done.stdout, "1770\n1024\nend\n", "{done}");
    assert!(done.stderr.contains("/x: Read-only file system"), "{done}");

    // A new volume begins with what the image has there.
    assert_eq!(
        docker
            .sh(
                &["-v", "kept:/etc"],
                "echo kept >/etc/made; head -n 1 /etc/passwd | cut -d: -f1"
            )
            .ok(),
        "root\n"
    );
    assert_eq!(docker.sh(&["-v", "kept:/kept"], "cat /kept/made").ok(), "kept\n");
    docker.call(&["volume", "rm", "kept"]).ok();
}

#[test]
fn containers_share_namespaces_and_reach_each_other() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    docker.call(&["network", "create", "net1"]).ok();
    docker.detach(
        "first",
        &["--network", "net1", "--ipc", "shareable"],
        "echo kept >/dev/shm/x; sleep 1000",
    );
    let link = |kind: &str| format!("readlink /proc/self/ns/{kind}");
    for (flag, kind) in [("--pid", "pid"), ("--network", "net"), ("--ipc", "ipc")] {
        let own = docker.exec("first", &link(kind)).ok();
        assert_eq!(
            docker.sh(&[flag, "container:first"], &link(kind)).ok(),
            own,
            "{flag}"
        );
        assert_ne!(docker.sh(&[], &link(kind)).ok(), own, "without {flag}");
    }
    let shown = docker.sh(&["--pid", "container:first"], "ps").ok();
    assert!(shown.contains("sleep 1000"), "{shown}");
    assert_eq!(
        docker.sh(&["--ipc", "container:first"], "cat /dev/shm/x").ok(),
        "kept\n"
    );
    let own = fs::read_link("/proc/self/ns/uts")
        .expect("read a link")
        .display()
        .to_string();
    assert_eq!(docker.sh(&["--uts", "host"], &link("uts")).ok().trim(), own);
    assert_eq!(
        docker.sh(&["--network", "none"], "ls /sys/class/net").ok(),
        "lo\n"
    );
    // docker's own resolver listens in the container's network namespace.
    let shown = docker.sh(&["--network", "net1"], "ping -c 1 -W 5 first").ok();
    assert!(shown.contains("1 packets received"), "{shown}");
    docker.call(&["rm", "-f", "first"]).ok();
    docker.call(&["network", "rm", "net1"]).ok();
}

#[test]
fn users_are_remapped_for_all_containers() {
    let sandbox = Sandbox::new();
    let Some(peers) = Peers::start(&sandbox) else {
        return;
    };
    // Subordinate ids, in the peers' namespace alone.
    for (file, line) in [
        ("subuid", "nobody:300000:65536\n"),
        ("subgid", "nobody:400000:65536\n"),
    ] {
        let own = sandbox.path().join(file);
        fs::write(&own, line).expect("write the subordinate ids");
        run(peers
            .command("mount")
            .arg("--bind")
            .arg(own)
            .arg(format!("/etc/{file}")))
        .ok();
    }
    let docker = Docker::start_with(&sandbox, peers, &json!({"userns-remap": "nobody:nogroup"}));
    let shown = docker
        .sh(
            &[],
            "cat /proc/self/uid_map /proc/self/gid_map; touch /x; stat -c %u:%g /x /bin",
        )
        .ok();
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "300000", "65536", "0", "400000", "65536", "0:0", "0:0"]
    );
    docker.detach("c1", &["--memory", "64m"], "sleep 1000");
    let pid = docker.inspect("c1", ".State.Pid");
    let owner =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}")).expect("its process"));
    assert_eq!(owner, 300_000);
    assert_eq!(
        docker.exec("c1", "id -u; hostname >/dev/null && echo alive").ok(),
        "0\nalive\n"
    );
    // Out of it, by container or by process, one is root of the machine again.
    let shown = docker
        .sh(&["--userns", "host"], "cut -c1-40 /proc/self/uid_map")
        .ok();
    assert!(shown.contains("4294967295"), "{shown}");
}

#[test]
fn images_are_built() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let context = sandbox.path().join("context");
    fs::create_dir(&context).expect("make a folder");
    fs::write(context.join("greeting"), "hello\n").expect("write a file");
    let dockerfile = "FROM box\nENV WHO=moon\nCOPY greeting /greeting\n\
                      RUN cat /greeting >/made && echo $WHO >>/made && chown 1000:50 /made\n\
                      USER 1000\nRUN id -u >/tmp/user\nCMD [\"/bin/cat\", \"/made\", \"/tmp/user\"]\n";
    fs::write(context.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
    let path = context.to_str().expect("a path");
    for builder in ["0", "1"] {
        let image = format!("built{builder}");
        let mut command = docker.command(&["build", "-t", &image, path]);
        run(command.env("DOCKER_BUILDKIT", builder)).ok();
        let shown = docker.call(&["run", "--rm", &image]).ok();
        assert_eq!(shown, "hello\nmoon\n1000\n", "with DOCKER_BUILDKIT={builder}");
        fs::write(context.join("Failing"), "FROM box\nRUN echo seen && exit 3\n")
            .expect("write a Dockerfile");
        let mut command = docker.command(&["build", "-f", &format!("{path}/Failing"), path]);
        let failed = run(command.env("DOCKER_BUILDKIT", builder));
        assert_ne!(failed.code, 0, "{failed}");
        let all = format!("{}{}", failed.stdout, failed.stderr);
        assert!(all.contains("seen") && all.contains('3'), "{failed}");
    }
}

#[test]
fn a_container_outlives_a_killed_dockerd() {
    let sandbox = Sandbox::new();
    let Some(peers) = Peers::start(&sandbox) else {
        return;
    };
    let mut docker = Docker::start_with(&sandbox, peers, &json!({"live-restore": true}));
    docker.detach(
        "c1",
        &[],
        "echo first; until test -e /tmp/go; do sleep 0.02; done; echo second; exit 8",
    );
    docker.detach("c2", &[], "sleep 1000");
    let pid = docker.inspect("c1", ".State.Pid");
    docker.kill();
    assert!(
        Path::new(&format!("/proc/{pid}")).exists(),
        "the container ended with dockerd"
    );
    docker.start_again();
    assert_eq!(docker.inspect("c1", ".State.Pid"), pid);
    docker.exec("c1", "touch /tmp/go").ok();
    docker.wait_for("c1", ".State.Status", "exited");
    assert_eq!(docker.inspect("c1", ".State.ExitCode"), "8");
    assert_eq!(docker.call(&["logs", "c1"]).ok(), "first\nsecond\n");
    docker.call(&["rm", "-f", "c2"]).ok();
}

#[test]
fn archives_of_images_and_containers_go_both_ways() {
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start(&sandbox) else {
        return;
    };
    let manager = Manager::start(&sandbox);
    let path = |name: &str| sandbox.path().join(name).to_str().expect("a path").to_owned();

    docker.detach("one", &[], "echo theirs > /word");
    docker.call(&["wait", "one"]).ok();
    docker.call(&["commit", "one", "theirs:1"]).ok();
    let archive = path("theirs.tar");
    docker.call(&["save", "-o", &archive, "theirs:1"]).ok();
    let said = manager.ctl(&["load", "-i", &archive]).ok();
    assert_eq!(said, "Loaded image: docker.io/library/theirs:1\n");
    assert_eq!(
        manager
            .ctl(&["run", "--rm", "theirs:1", "/bin/cat", "/word"])
            .ok(),
        "theirs\n"
    );

    // Theirs is below it, and gone from it.
    let script = "rm /word; echo ours > /our-word";
    manager
        .ctl(&["run", "--name", "two", "theirs:1", "/bin/sh", "-c", script])
        .ok();
    manager
        .ctl(&[
            "commit",
            "-c",
            "CMD [\"/bin/cat\", \"/our-word\"]",
            "two",
            "ours:1",
        ])
        .ok();
    let archive = path("ours.tar");
    manager.ctl(&["save", "-o", &archive, "ours:1"]).ok();
    let said = docker.call(&["load", "-i", &archive]).ok();
    assert!(said.contains("ours:1"), "{said}");
    assert_eq!(docker.call(&["run", "--rm", "ours:1"]).ok(), "ours\n");
    docker
        .call(&["run", "--rm", "ours:1", "/bin/test", "!", "-e", "/word"])
        .ok();

    let archive = path("exported.tar");
    manager.ctl(&["export", "-o", &archive, "two"]).ok();
    docker.call(&["import", &archive, "imported"]).ok();
    assert_eq!(
        docker
            .call(&["run", "--rm", "imported", "/bin/cat", "/our-word"])
            .ok(),
        "ours\n"
    );
    docker.call(&["export", "-o", &archive, "one"]).ok();
    manager.ctl(&["import", &archive, "imported"]).ok();
    assert_eq!(
        manager
            .ctl(&["run", "--rm", "imported", "/bin/cat", "/word"])
            .ok(),
        "theirs\n"
    );

    // Both tell the same of the same deeds.
    let deeds = "rm /bin/true; echo x > /new; chmod 700 /home; mkdir -p /a/b";
    docker.detach("three", &[], deeds);
    docker.call(&["wait", "three"]).ok();
    docker.call(&["save", "-o", &archive, "box"]).ok();
    manager.ctl(&["load", "-i", &archive]).ok();
    manager
        .ctl(&["run", "--name", "three", "box", "/bin/sh", "-c", deeds])
        .ok();
    let lines = |text: String| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let theirs = lines(docker.call(&["diff", "three"]).ok());
    assert_eq!(lines(manager.ctl(&["diff", "three"]).ok()), theirs);
}
