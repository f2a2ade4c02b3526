//! Bad input to the runtime: one clear error that names the thing and the rule, and nothing left behind.

use integration::{Bundle, Runtime, Sandbox};
use serde_json::{Value, json};
use std::fs;

/// Each case: where, the bad value, and the words that the error must hold.
#[test]
fn each_broken_field_is_named() {
    let cases: &[(&str, Value, &[&str])] = &[
        ("/ociVersion", json!("9.0"), &["ociVersion"]),
        ("/process/args", json!([]), &["process.args"]),
        ("/process/cwd", json!("relative"), &["process.cwd"]),
        (
            "/process/capabilities/bounding",
            json!(["CAP_NO_SUCH"]),
            &["CAP_NO_SUCH"],
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NO_SUCH", "soft": 1, "hard": 1}]),
            &["RLIMIT_NO_SUCH"],
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 1}]),
            &["rlimits"],
        ),
        ("/process/oomScoreAdj", json!(5000), &["oomScoreAdj"]),
        ("/process/user", json!({"uid": -1, "gid": 0}), &["uid"]),
        ("/root/path", json!("no-such-folder"), &["no-such-folder"]),
        ("/mounts/3/type", json!("no-such-type"), &["no-such-type"]),
        ("/linux/namespaces", json!([{"type": "no-such"}]), &["no-such"]),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            &["namespaces"],
        ),
        (
            "/linux/namespaces/0/path",
            json!("/no/such/namespace"),
            &["/no/such/namespace"],
        ),
        ("/linux/resources", json!({"pids": {"limit": "many"}}), &["pids"]),
        (
            "/linux/resources",
            json!({"devices": [{"allow": true, "type": "x", "access": "rwm"}]}),
            &["devices"],
        ),
        ("/linux/resources", json!({"memory": {"limit": 1}}), &["memory"]),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NO_SUCH"}),
            &["SCMP_ACT_NO_SUCH"],
        ),
        (
            "/linux/sysctl",
            json!({"kernel.no_such_thing_at_all": "1"}),
            &["kernel.no_such_thing_at_all"],
        ),
        ("/linux/maskedPaths", json!(["relative"]), &["maskedPaths"]),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            &["rootfsPropagation"],
        ),
        (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 0}]),
            &["uidMappings"],
        ),
        ("/hooks/prestart", json!([{"path": "relative"}]), &["hooks"]),
    ];
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for (number, (pointer, value, words)) in cases.iter().enumerate() {
        let mut bundle = Bundle::named(&sandbox, &format!("bundle-{number}"), &["/bin/true"]);
        bundle.set(pointer, value.clone());
        for verb in ["create", "run"] {
            let done = integration::run(&mut runtime.over(verb, &bundle, sandbox.id(), &[]));
            assert_eq!(done.code, 1, "{pointer} = {value}: {done}");
            for word in *words {
                assert!(
                    done.stderr.contains(word),
                    "{pointer} = {value}: {word:?} is not named: {done}"
                );
            }
            assert_eq!(
                done.stderr.trim_end().lines().count(),
                1,
                "{pointer} = {value}: one error is one line: {done}"
            );
        }
        sandbox.assert_clean();
    }
}

/// Init exists by then and waits for the runtime, which must not wait for it.
#[test]
fn what_the_kernel_refuses_while_init_waits_ends_init() {
    let twice = json!([
        {"containerID": 0, "hostID": 0, "size": 10},
        {"containerID": 5, "hostID": 100, "size": 10}
    ]);
    let namespaces = ["mount", "user", "uts", "pid", "ipc", "network"].map(|kind| json!({"type": kind}));
    let cases: &[(&[(&str, Value)], &str)] = &[
        (
            &[("/linux/resources", json!({"cpu": {"cpus": "4000"}}))],
            "linux.resources.cpu.cpus",
        ),
        (
            &[
                ("/linux/namespaces", json!(namespaces)),
                ("/linux/uidMappings", twice.clone()),
                ("/linux/gidMappings", twice),
            ],
            "uid",
        ),
    ];
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for (number, (changes, word)) in cases.iter().enumerate() {
        let mut bundle = Bundle::named(&sandbox, &format!("bundle-{number}"), &["/bin/true"]);
        for (pointer, value) in *changes {
            bundle.set(pointer, value.clone());
        }
        for verb in ["create", "run"] {
            let done = integration::run(&mut runtime.over(verb, &bundle, sandbox.id(), &[]));
            assert!(
                done.code == 1 && done.stderr.contains(word),
                "{changes:?}: {done}"
            );
        }
        sandbox.assert_clean();
    }
}

/// With a hook that waits for the mounts, the runtime hears of init's failure at another place.
#[test]
fn a_mount_that_fails_is_named_beside_hooks() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    bundle.set("/hooks/createRuntime", json!([{"path": "/bin/true"}]));
    bundle.set("/mounts/3/type", json!("no-such-type"));
    let refused = runtime.run(&bundle, sandbox.id()).refused();
    assert!(refused.contains("no-such-type"), "{refused}");
    sandbox.assert_clean();
}

#[test]
fn what_is_no_config_is_refused() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "true");
    let call = || {
        runtime
            .call(&[
                "run",
                "--bundle",
                bundle.path().to_str().expect("a path"),
                sandbox.id(),
            ])
            .refused()
    };
    for text in ["", "{", "[]", "null", "{\"ociVersion\": 3}", "\u{0}\u{1}"] {
        fs::write(bundle.path().join("config.json"), text).expect("write the config");
        let refused = call();
        assert!(refused.contains("config.json"), "{text:?}: {refused}");
    }
    fs::remove_file(bundle.path().join("config.json")).expect("remove the config");
    assert!(call().contains("config.json"));
    let refused = runtime
        .call(&["run", "--bundle", "/no/such/bundle", sandbox.id()])
        .refused();
    assert!(refused.contains("/no/such/bundle"), "{refused}");
}

#[test]
fn an_id_that_leads_out_of_the_state_folder_is_refused() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "true");
    let long = "a".repeat(2000);
    for id in ["..", ".", "a/b", "../../etc", "", "a b", "ü", long.as_str()] {
        let refused = runtime.run(&bundle, id).refused();
        assert!(refused.contains("id"), "{id:?}: {refused}");
        for verb in ["state", "start", "kill", "delete", "pause", "exec"] {
            let mut args = vec![verb, id];
            args.extend(["kill", "exec"].contains(&verb).then_some("TERM"));
            runtime.call(&args).refused();
        }
    }
}

#[test]
fn a_program_that_can_not_be_run_is_named_and_nothing_is_left() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for (program, reason) in [
        ("no-such-program", "not found"),
        ("/no/such/program", "no such file"),
        ("/etc/passwd", "permission denied"),
        ("/etc", ""),
    ] {
        let bundle = Bundle::named(
            &sandbox,
            &format!("bundle{}", program.replace('/', "-")),
            &[program],
        );
        let done = runtime.run(&bundle, sandbox.id());
        assert_ne!(done.code, 0, "{done}");
        assert!(
            done.stderr.contains(program) && done.stderr.to_lowercase().contains(reason),
            "{program}: {done}"
        );
        sandbox.assert_clean();
    }
}

#[test]
fn unknown_commands_and_flags_are_refused_by_name() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for (args, word) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["run", "--no-such-flag", "x"], "no-such-flag"),
        (&["state"], "argument"),
        (&["kill", "x", "SIGNOSUCH"], "SIGNOSUCH"),
    ] {
        let refused = runtime.call(args).refused();
        assert!(refused.contains(word), "{args:?}: {refused}");
    }
    for args in [&["checkpoint", "x"][..], &["restore", "x"]] {
        runtime.call(args).refused();
    }
}

#[test]
fn the_log_holds_the_error_as_json_and_as_text() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let log = sandbox.path().join("log");
    let path = log.to_str().expect("a path");
    runtime
        .call(&["--log", path, "--log-format", "json", "start", "nobody-here"])
        .refused();
    let text = fs::read_to_string(&log).expect("read the log");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("a line of JSON");
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"]
            .as_str()
            .is_some_and(|message| message.contains("nobody-here")),
        "{last}"
    );
    assert!(last["time"].is_string(), "{last}");
    fs::remove_file(&log).expect("remove the log");
    runtime.call(&["--log", path, "start", "nobody-here"]).refused();
    let text = fs::read_to_string(&log).expect("read the log");
    assert!(
        text.contains("level=error") && text.contains("nobody-here"),
        "{text}"
    );
}
