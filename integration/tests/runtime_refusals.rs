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
        ("/solaris", json!({}), &["solaris: ", "Linux"]),
        ("/windows", json!({"layerFolders": []}), &["windows: ", "Linux"]),
        ("/vm", json!({"kernel": {"path": "/k"}}), &["vm: ", "Linux"]),
        ("/zos", json!({"namespaces": []}), &["zos: ", "Linux"]),
        ("/hostname", json!("x".repeat(65)), &["hostname: ", "64"]),
        ("/domainname", json!("x".repeat(65)), &["domainname: ", "64"]),
        (
            "/process/commandLine",
            json!("dir"),
            &["process.commandLine", "Windows"],
        ),
        (
            "/process/user",
            json!({"uid": 0, "gid": 0, "username": "ContainerUser"}),
            &["process.user.username", "Windows"],
        ),
        (
            "/process/user",
            json!({"uid": 4_294_967_295_u32, "gid": 0}),
            &["process.user.uid"],
        ),
        (
            "/process/consoleSize",
            json!({"height": 70_000, "width": 1}),
            &["process.consoleSize"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_NO_SUCH"}),
            &["process.scheduler.policy", "SCHED_NO_SUCH"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            &["process.scheduler.policy"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            &["process.scheduler.nice"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            &["process.scheduler.priority"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_RR", "priority": 1, "runtime": 5}),
            &["process.scheduler", "SCHED_DEADLINE"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NO_SUCH"]}),
            &["process.scheduler.flags[0]", "SCHED_FLAG_NO_SUCH"],
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            &["process.ioPriority.priority"],
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_NO_SUCH", "priority": 0}),
            &["process.ioPriority.class"],
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0;1"}),
            &["process.execCPUAffinity.initial"],
        ),
        (
            "/process/execCPUAffinity",
            json!({"final": "99999"}),
            &["process.execCPUAffinity.final"],
        ),
        (
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1}}),
            &["linux.timeOffsets.boottime", "time namespace"],
        ),
        ("/linux/netDevices", json!({"a/b": {}}), &["linux.netDevices"]),
        (
            "/linux/netDevices",
            json!({"lo": {"name": "0123456789abcdef"}}),
            &["linux.netDevices"],
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_NO_SUCH"}),
            &["linux.memoryPolicy.mode", "MPOL_NO_SUCH"],
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0-"}),
            &["linux.memoryPolicy.nodes"],
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
            &["linux.memoryPolicy.nodes"],
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            &["linux.memoryPolicy.flags"],
        ),
        // More nodes than there are: the kernel's word.
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "1000"}),
            &["memory policy", "Invalid argument"],
        ),
        ("/linux/intelRdt", json!({"closID": ".."}), &["linux.intelRdt"]),
        (
            "/linux/personality",
            json!({"domain": "LINUX64"}),
            &["linux.personality.domain"],
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            &["linux.personality.flags"],
        ),
        // CVE-2021-43784 overflowed a length with as many.
        (
            "/linux/uidMappings",
            json!(vec![json!({"containerID": 0, "hostID": 0, "size": 1}); 5000]),
            &["linux.uidMappings"],
        ),
        (
            "/mounts/0/uidMappings",
            json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            &["mounts[0]"],
        ),
        ("/mounts/0/options", json!(["idmap"]), &["mounts[0].options"]),
        (
            "/mounts/0/options",
            json!(["tmpcopyup"]),
            &["mounts[0].options", "tmpfs"],
        ),
        (
            "/hooks/poststart",
            json!([{"path": "/bin/true", "timeout": -1}]),
            &["hooks.poststart[0].timeout"],
        ),
    ];
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/bin/true"]);
    let config = bundle.config.clone();
    for (pointer, value, words) in cases {
        bundle.config = config.clone();
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

const FUZZ_SEEDS: [&str; 5] = [
    include_str!("../../runtime/fuzz/seeds/config/mounts.json"),
    include_str!("../../runtime/fuzz/seeds/config/namespaces.json"),
    include_str!("../../runtime/fuzz/seeds/config/others.json"),
    include_str!("../../runtime/fuzz/seeds/config/process.json"),
    include_str!("../../runtime/fuzz/seeds/config/resources.json"),
];

/// The default config.json with every field that the runtime knows: those from which its fuzzer starts.
fn config_with_all_fields(bundle: &Bundle) -> Value {
    fn merge(target: &mut Value, other: Value) {
        match other {
            Value::Object(fields) if target.is_object() => {
                for (name, value) in fields {
                    merge(&mut target[name.as_str()], value);
                }
            }
            other => *target = other,
        }
    }
    let mut config = bundle.config.clone();
    for seed in FUZZ_SEEDS {
        merge(&mut config, serde_json::from_str(seed).expect("a seed is JSON"));
    }
    config
}

/// Every place in a document below `pointer`, as a JSON pointer and as errors name it.
fn places(value: &Value, pointer: &str, name: &str, found: &mut Vec<(String, String)>) {
    let mut go_on = |part: &str, name: String, value| {
        let pointer = format!("{pointer}/{}", part.replace('~', "~0").replace('/', "~1"));
        found.push((pointer.clone(), name.clone()));
        places(value, &pointer, &name, found);
    };
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                go_on(field, format!("{name}{dot}{field}"), value);
            }
        }
        Value::Array(entries) => {
            for (index, value) in entries.iter().enumerate() {
                go_on(&index.to_string(), format!("{name}[{index}]"), value);
            }
        }
        _ => {}
    }
}

#[test]
fn each_field_of_another_type_or_out_of_its_range_is_named() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    let whole = config_with_all_fields(&bundle);
    let mut all = Vec::new();
    places(&whole, "", "", &mut all);
    assert!(all.len() > 200, "only {} fields", all.len());
    for (pointer, name) in all {
        let wrong = match whole.pointer(&pointer) {
            Some(Value::Number(_)) => [json!("text"), json!(1e30)],
            _ => [json!(7.5), json!([7.5])],
        };
        for wrong in wrong {
            bundle.config = whole.clone();
            bundle.set(&pointer, wrong);
            let done = runtime.create(&bundle, sandbox.id());
            assert_eq!(done.code, 1, "{name}: {done}");
            // Of a list in the place of something else, its entry may be what is wrong.
            let named = [":", "[0]:"].map(|end| format!("config.json: {name}{end}"));
            assert!(
                named.iter().any(|text| done.stderr.contains(text)),
                "{name}: {done}"
            );
        }
    }
    sandbox.assert_clean();
}

#[test]
fn fields_that_nobody_knows_are_ignored() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "echo ran");
    for place in [
        "/new",
        "/process/new",
        "/linux/new",
        "/root/new",
        "/mounts/0/new",
        "/linux/resources/new",
    ] {
        bundle.set(place, json!({"any": ["thing", 1, null]}));
    }
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "ran\n");
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
