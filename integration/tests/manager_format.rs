//! `--format`: docker's templates over what `managerctl` lists and inspects.

use integration::{Manager, Sandbox};

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
