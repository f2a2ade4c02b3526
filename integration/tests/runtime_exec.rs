//! `runtime exec`: more processes in a running container.

use integration::{Bundle, Runtime, Sandbox, eventually};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn sleeper(sandbox: &Sandbox) -> (Runtime, Bundle) {
    let runtime = Runtime::new(sandbox);
    let bundle = Bundle::new(sandbox, "touch /up; exec sleep 1000");
    runtime.detach(&bundle, sandbox.id());
    eventually("the program runs", || {
        bundle.rootfs().join("up").exists().then_some(())
    });
    (runtime, bundle)
}

#[test]
fn exec_is_in_the_container_and_passes_its_exit_code_on() {
    let sandbox = Sandbox::new();
    let (runtime, _bundle) = sleeper(&sandbox);
    let done = runtime.exec(sandbox.id(), "hostname; ps -o pid,args | grep -c '[s]leep 1000'; cat /proc/1/cgroup > /a; cat /proc/self/cgroup > /b; cmp /a /b 2>/dev/null || diff /a /b 2>/dev/null; readlink /proc/self/ns/net; readlink /proc/1/ns/net; exit 5");
    assert_eq!(done.code, 5, "{done}");
    let lines: Vec<_> = done.stdout.lines().collect();
    assert_eq!(lines[..2], ["runc", "1"], "{done}");
    assert_eq!(lines[lines.len() - 2], lines[lines.len() - 1], "{done}");
    runtime.delete(sandbox.id());
}

#[test]
fn exec_lands_in_the_containers_cgroups() {
    let sandbox = Sandbox::new();
    let (runtime, _bundle) = sleeper(&sandbox);
    let file = sandbox.path().join("pid");
    runtime
        .call(&[
            "exec",
            "--detach",
            "--pid-file",
            file.to_str().expect("a path"),
            sandbox.id(),
            "/bin/sleep",
            "500",
        ])
        .ok();
    let pid = fs::read_to_string(&file).expect("read the pid file");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its groups");
    let ours = groups.lines().filter(|line| line.contains(sandbox.id())).count();
    let init = runtime.state(sandbox.id()).expect("a state")["pid"].to_string();
    let init_groups = fs::read_to_string(format!("/proc/{init}/cgroup")).expect("read init's groups");
    assert_eq!(
        ours,
        init_groups
            .lines()
            .filter(|line| line.contains(sandbox.id()))
            .count(),
        "{groups}\nbeside init's\n{init_groups}"
    );
    assert!(ours > 0);
    runtime.delete(sandbox.id());
}

#[test]
fn exec_takes_user_environment_and_directory() {
    let sandbox = Sandbox::new();
    let (runtime, _bundle) = sleeper(&sandbox);
    let done = runtime.call(&[
        "exec",
        "--user",
        "1000:50",
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        sandbox.id(),
        "/bin/sh",
        "-c",
        "id -u; id -g; echo $A; pwd",
    ]);
    assert_eq!(done.ok(), "1000\n50\nb\n/tmp\n");
    runtime.delete(sandbox.id());
}

#[test]
fn exec_takes_a_process_file() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = sleeper(&sandbox);
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/bin/sh", "-c", "echo from a file; grep CapEff /proc/self/status"]);
    process["capabilities"] = json!({});
    let file = sandbox.path().join("process.json");
    fs::write(&file, process.to_string()).expect("write the process");
    let done = runtime.call(&["exec", "--process", file.to_str().expect("a path"), sandbox.id()]);
    assert_eq!(done.ok(), "from a file\nCapEff:\t0000000000000000\n");
    runtime.delete(sandbox.id());
}

#[test]
fn exec_of_a_missing_program_or_container_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let (runtime, _bundle) = sleeper(&sandbox);
    let done = runtime.call(&["exec", sandbox.id(), "no-such-program"]);
    assert!(
        done.code != 0 && done.stderr.contains("no-such-program") && done.stderr.contains("not found"),
        "{done}"
    );
    let refused = runtime.call(&["exec", "nobody-here", "/bin/true"]).refused();
    assert!(
        refused.contains("nobody-here") && refused.contains("does not exist"),
        "{refused}"
    );
    runtime.delete(sandbox.id());
}

#[test]
fn a_program_that_execve_refuses_is_told_by_its_name() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = sleeper(&sandbox);
    let script = |name: &str, text: &str| {
        let path = bundle.rootfs().join(name);
        fs::write(&path, text).expect("write a script");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    script("run.sh", "#!/no/such/shell foo\nsh\n");
    script("no-format", "x");
    for (name, code, why) in [
        ("run.sh", 127, "no such file or directory"),
        ("no-format", 126, "exec format error"),
    ] {
        let program = format!("/{name}");
        let done = runtime.call(&["exec", sandbox.id(), &program]);
        assert_eq!(done.code, code, "{done}");
        assert_eq!(done.stderr, format!("exec {program}: {why}\n"));
    }
    runtime.delete(sandbox.id());
}

#[test]
fn exec_into_a_stopped_container_is_refused() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "exit 0");
    runtime.detach(&bundle, sandbox.id());
    eventually("the container has stopped", || {
        (runtime.status(sandbox.id())? == "stopped").then_some(())
    });
    runtime.exec(sandbox.id(), "true").refused();
    runtime.delete(sandbox.id());
}

#[test]
fn a_hostile_container_gets_no_hold_of_the_runtime_that_joins_it() {
    let sandbox = Sandbox::new();
    let (runtime, bundle) = sleeper(&sandbox);
    // CVE-2019-5736: the program asked for is a link to /proc/self/exe, so that whoever joins runs itself.
    let script = "#!/proc/self/exe\n";
    fs::write(bundle.rootfs().join("bin/trap-door"), script).expect("write the script");
    std::process::Command::new("chmod")
        .arg("755")
        .arg(bundle.rootfs().join("bin/trap-door"))
        .status()
        .expect("chmod");
    let before = fs::read(integration::binary("runtime")).expect("read the runtime");
    let file = sandbox.path().join("pid");
    let flags = [
        "exec",
        "--detach",
        "--pid-file",
        file.to_str().expect("a path"),
        sandbox.id(),
        "/bin/trap-door",
    ];
    let _ = runtime.call(&flags);
    if let Ok(pid) = fs::read_to_string(&file) {
        for _ in 0..500 {
            let running = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            assert_ne!(
                running,
                integration::binary("runtime"),
                "the container runs the host's binary"
            );
        }
    }
    // And nobody inside may open the joining process's program for writing.
    let watcher = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); for p in /proc/[0-9]*/exe; do n=$(readlink $p 2>/dev/null); case $n in *runtime*) (echo x >> $p) 2>/dev/null && echo OPENED;; esac; done; done";
    let mut command = runtime.command(&["exec", sandbox.id(), "/bin/sh", "-c", watcher]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start the watcher");
    for _ in 0..40 {
        runtime.exec(sandbox.id(), "true").ok();
    }
    runtime.delete(sandbox.id());
    let done = integration::finish(child, "the watcher".into());
    assert!(!done.stdout.contains("OPENED"), "{done}");
    assert!(
        before == fs::read(integration::binary("runtime")).expect("read the runtime"),
        "the runtime's binary was changed"
    );
}

#[test]
fn a_process_joins_a_paused_container_only_when_asked_to_and_runs_when_it_goes_on() {
    let sandbox = Sandbox::new();
    let (runtime, _bundle) = sleeper(&sandbox);
    runtime.call(&["pause", sandbox.id()]).ok();
    let refused = runtime.exec(sandbox.id(), "true").refused();
    assert!(refused.contains("paused"), "{refused}");
    let mut command = runtime.command(&["exec", "--ignore-paused", sandbox.id(), "/bin/echo", "inside"]);
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start the runtime");
    runtime.call(&["resume", sandbox.id()]).ok();
    let done = integration::finish(child, "exec".into());
    assert_eq!((done.code, done.stdout.as_str()), (0, "inside\n"), "{done}");
    runtime.delete(sandbox.id());
}
