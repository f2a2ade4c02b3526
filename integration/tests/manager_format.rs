//! `--format`: docker's templates over what `managerctl` lists and inspects.

use integration::{Manager, Sandbox};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn templates_print_what_dockers_do() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shown = |args: &[&str]| manager.ctl(args).ok();
    // Without any row, headings are known all the same.
    assert_eq!(
        shown(&["ps", "--format", r"table {{.ID}}\t{{.Names}}\t{{.RunningFor}}"]),
        "CONTAINER ID   NAMES   CREATED\n"
    );
    assert_eq!(shown(&["ps", "--format", "{{.ID}}"]), "");

    shown(&["volume", "create", "--label", "tier=one", "data"]);
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "--label",
        "b=2",
        "--label",
        "a=1",
        "-v",
        "data:/data",
    ];
    let id = shown(&[&run[..], &[&image, "sleep", "1000"]].concat());
    let short = &id[..12];
    assert_eq!(
        shown(&[
            "ps",
            "--format",
            r#"{{.ID}} {{.Names}} {{.State}} {{.Labels}} {{.Label "a"}} {{upper .Networks}}"#
        ]),
        format!("{short} web running a=1,b=2 1 BRIDGE\n")
    );
    let table = shown(&["ps", "--format", r"table {{.Names}}\t{{.Image}}\t{{.Command}}"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("NAMES   IMAGE") && lines[0].ends_with("COMMAND"),
        "{table}"
    );
    assert!(
        lines[1].starts_with("web     ") && lines[1].ends_with("\"sleep 1000\""),
        "{table}"
    );

    // Of what inspect tells, by the names that JSON has, or docker's in other case.
    assert_eq!(
        shown(&[
            "inspect",
            "-f",
            "{{.Name}} {{.State}} {{range .Mounts}}{{.source}}:{{.Target}}{{end}}",
            "web"
        ]),
        "web running data:/data\n"
    );
    assert_eq!(
        shown(&[
            "inspect",
            "--format",
            "{{.Id}} {{json .Labels}} {{len .Request.Env}}",
            "web"
        ]),
        format!("{} {{\"a\":\"1\",\"b\":\"2\"}} 0\n", id.trim())
    );
    assert_eq!(
        shown(&[
            "volume",
            "ls",
            "--format",
            "{{.Name}} {{.Driver}} {{.Labels}} {{.Links}}"
        ]),
        "data local tier=one 1\n"
    );
    assert_eq!(
        shown(&[
            "volume",
            "inspect",
            "--format",
            "{{index .Labels \"tier\"}}",
            "data"
        ]),
        "one\n"
    );
    let (repository, tag) = image.rsplit_once(':').expect("a tag");
    assert_eq!(
        shown(&["images", "--format", "{{.Repository}} {{.Tag}} {{.Architecture}}"]),
        format!("{repository} {tag} amd64\n")
    );
    assert_eq!(
        shown(&["version", "--format", "{{.Client.Version}} {{.Server.Version}}"]),
        "0.1.0 0.1.0\n"
    );
    assert_eq!(
        shown(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.Name}} {{.PIDs}} {{len .ID}}"
        ]),
        "web 1 12\n"
    );
    let events = shown(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "event=start",
        "--format",
        "{{.Type}} {{.Status}} {{.Actor.ID}} {{.Actor.Attributes.name}}",
    ]);
    assert_eq!(events, format!("container start {} web\n", id.trim()));

    let refused = |args: &[&str], word: &str| {
        let told = manager.ctl(args).refused();
        assert!(told.contains(word), "{args:?}: {told}");
    };
    refused(
        &["ps", "--format", "{{.Nmaes}}"],
        "there is no field Nmaes: there are Command",
    );
    refused(&["ps", "--format", "{{.Names"], "}} is missing");
    refused(&["ps", "--format", "yaml"], "neither table, json, nor a template");
    refused(&["top", "--format", "{{.PID}}", "web"], "table or json");
    refused(
        &["kill", "--format", "{{.ID}}", "web"],
        "means nothing to this command",
    );
    // What a terminal would obey is spelt out.
    shown(&[
        "run",
        "--name",
        "odd",
        "--label",
        "x=\u{1b}]0;t\u{7}",
        &image,
        "true",
    ]);
    let odd = shown(&["ps", "-a", "--format", "{{.Label \"x\"}}"]);
    assert!(odd.contains(r"\u{1b}]0;t\u{7}"), "{odd}");
}

#[test]
fn ps_shows_what_passes_its_filters() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let make = |args: &[&str]| manager.ctl(args).ok();
    make(&[
        "run",
        "-d",
        "--name",
        "web",
        "--label",
        "tier=front",
        "-v",
        "data:/srv",
        &image,
        "sleep",
        "1000",
    ]);
    let probe = ["--health-cmd", "true", "--health-interval", "1s"];
    make(
        &[
            &["run", "-d", "--name", "web2"],
            &probe[..],
            &[&image, "sleep", "1000"],
        ]
        .concat(),
    );
    let failed = manager.ctl(&[
        "run",
        "--name",
        "failed",
        "--network",
        "none",
        &image,
        "sh",
        "-c",
        "echo x > /x; exit 3",
    ]);
    assert_eq!(failed.code, 3);
    make(&["create", "--name", "made", "--label", "tier=back", &image, "true"]);
    make(&["commit", "failed", "built:1"]);
    make(&["create", "--name", "child", "built:1", "true"]);

    let listed = |args: &[&str]| {
        let shown = manager
            .ctl(&[&["ps", "--format", "{{.Names}}"], args].concat())
            .ok();
        shown.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let id = manager.inspect("failed")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for (args, expected) in [
        (&["-f", "name=web"][..], &["web2", "web"][..]),
        (&["-f", "name=^web$"], &["web"]),
        (&["-f", "name=^/web$", "-f", "name=web2"], &["web2", "web"]),
        (&["-f", "name=failed"], &[]),
        (&["-a", "-f", &format!("id={}", &id[..12])], &["failed"]),
        (&["-a", "-f", "label=tier"], &["made", "web"]),
        (&["-a", "-f", "label=tier=back"], &["made"]),
        (&["-a", "-f", "label=tier", "-f", "status=running"], &["web"]),
        (&["-f", "status=created"], &["child", "made"]),
        (&["-a", "-f", "exited=3"], &["failed"]),
        (&["-a", "-f", "exited=0"], &[]),
        (&["-a", "-f", "since=failed"], &["child", "made"]),
        (&["-a", "-f", "before=failed"], &["web2", "web"]),
        (&["-f", "volume=data"], &["web"]),
        (&["-f", "volume=/srv"], &["web"]),
        (&["-f", "health=none"], &["web"]),
        (&["-a", "-f", "network=none"], &["failed"]),
        (&["-a", "-f", "ancestor=built:1"], &["child"]),
        (
            &["-a", "-f", &format!("ancestor={image}"), "-f", "status=created"],
            &["child", "made"],
        ),
        (&["-a", "-f", "ancestor=none:such"], &[]),
        (&["-n", "2"], &["child", "made"]),
        (&["-l", "-f", "status=exited"], &["failed"]),
    ] {
        assert_eq!(listed(args), expected, "{args:?}");
    }
    integration::eventually("the probe has told", || {
        (listed(&["-f", "health=healthy"]) == ["web2"]).then_some(())
    });
    for (filter, word) in [
        ("colour=red", "the kinds are"),
        ("status=dead", "the states are"),
        ("since=nobody", "nobody"),
        ("name=(", "regular expression"),
    ] {
        let told = manager.ctl(&["ps", "-f", filter]).refused();
        assert!(told.contains(word), "{filter}: {told}");
    }
}

#[test]
fn the_doctor_says_what_is_broken_and_what_to_do() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let findings = |manager: &Manager| {
        let done = manager.ctl(&["system", "doctor", "--format", "json"]);
        let findings: Vec<serde_json::Value> = serde_json::from_str(&done.stdout).expect("JSON");
        (done.code, findings)
    };
    let of = |findings: &[serde_json::Value], check: &str| {
        findings
            .iter()
            .find(|one| one["check"] == check)
            .cloned()
            .expect(check)
    };
    let (code, found) = findings(&manager);
    assert_eq!(of(&found, "manager")["status"], "ok");
    for check in [
        "kernel",
        "namespaces",
        "seccomp",
        "cgroups",
        "overlay",
        "clock",
        "folder",
        "disk",
    ] {
        assert_ne!(of(&found, check)["status"], "broken", "{check}");
    }
    assert_eq!(code, 0);
    // Others may write where images are.
    let root = manager.root();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("open the folder");
    let (code, found) = findings(&manager);
    let folder = of(&found, "folder");
    assert!(code == 1 && folder["status"] == "broken", "{folder}");
    assert!(
        folder["advice"]
            .as_str()
            .is_some_and(|advice| advice.contains("chmod")),
        "{folder}"
    );
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).expect("close the folder");
    manager.stop();
    let told = manager.ctl(&["system", "doctor"]);
    assert_eq!(told.code, 1);
    assert!(
        told.stdout.contains("broken") && told.stdout.contains("no manager answers"),
        "{told}"
    );
    assert!(told.stdout.contains("manager: start it with"), "{told}");
    manager.start_again();
}

#[test]
fn sizes_are_told_when_they_are_asked_for() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shown = |args: &[&str]| manager.ctl(args).ok();
    let json = |args: &[&str]| -> Value { serde_json::from_str(&shown(args)).expect("JSON") };
    let script = "head -c 1234567 /dev/zero >/written";
    shown(&["run", "--name", "writer", &image, "sh", "-c", script]);
    shown(&["create", "--name", "idle", &image, "true"]);

    let images = json(&["images", "--format", "json"]);
    let of_image = images[0]["unpackedBytes"].as_u64().expect("a number");
    let told = &json(&["inspect", "--size", "writer"])[0];
    assert_eq!(told["sizeRw"], 1_234_567, "{told}");
    assert_eq!(told["sizeRootFs"], 1_234_567 + of_image, "{told}");
    let each = json(&["ps", "-a", "-s", "--format", "json"]);
    assert_eq!(each[0]["sizeRw"], 0, "{each}");
    assert_eq!(each[1]["sizeRootFs"], 1_234_567 + of_image, "{each}");
    // As with docker, a template asks by naming it.
    let sizes = shown(&["ps", "-a", "--format", "{{.Names}} {{.Size}}"]);
    let (idle, writer) = sizes.split_once('\n').expect("two lines");
    assert!(
        idle.starts_with("idle 0B (virtual ") && idle.ends_with("MB)"),
        "{sizes}"
    );
    assert!(writer.starts_with("writer 1.23MB (virtual "), "{sizes}");
    let table = shown(&["ps", "-as"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].ends_with("NAMES    SIZE"), "{table}");
    assert!(
        lines[2].contains("writer   1.23MB (virtual ") && lines[2].ends_with("MB)"),
        "{table}"
    );

    let told = &json(&["inspect", "writer"])[0];
    assert_eq!(
        (&told["sizeRw"], &told["sizeRootFs"]),
        (&Value::Null, &Value::Null)
    );
    assert!(!shown(&["ps", "-a"]).contains("SIZE"));
    shown(&["rm", "writer", "idle"]);
}

#[test]
fn sizes_are_told_while_files_and_containers_go() {
    const CHANGES: &str =
        "while true; do mkdir -p /x/a/b /x/c; echo 1 >/x/a/b/1; mv /x/a/b /x/c/d; rm -r /x; done";
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for name in ["one", "two", "three"] {
        let run = ["run", "-d", "--name", name, &image, "sh", "-c", CHANGES];
        manager.ctl(&run).ok();
    }
    let told = std::thread::scope(|scope| {
        let ask = || {
            let asked = (0..20).map(|_| {
                manager
                    .ctl(&["ps", "-a", "--format", "{{.Names}} {{.Size}}"])
                    .ok()
            });
            asked.collect::<Vec<_>>()
        };
        let asking: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
        manager.ctl(&["rm", "-f", "one", "two"]).ok();
        let told = asking
            .into_iter()
            .flat_map(|asking| asking.join().expect("it tells"));
        told.collect::<Vec<_>>()
    });
    for listed in told {
        assert!(
            listed.contains("three ") && listed.contains(" (virtual "),
            "{listed}"
        );
    }
    manager.ctl(&["rm", "-f", "three"]).ok();
}
