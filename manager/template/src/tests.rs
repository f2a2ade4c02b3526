//! What people write after --format, and what Go makes of it (each line was compared with text/template's documentation).

use serde_json::{Value, json};

use super::Template;

fn container() -> Value {
    json!({
        "id": "c0ffee", "Names": "web", "Labels": {"b": "2", "a": "1"}, "Ports": [80, 443],
        "State": {"Running": true, "Code": 0, "Health": null}, "Mounts": []
    })
}

#[track_caller]
fn shows(text: &str, expected: &str) {
    let template = Template::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(template.render(&container()).as_deref(), Ok(expected), "{text}");
}

#[track_caller]
fn fails(text: &str, word: &str) {
    let told = Template::parse(text).and_then(|template| template.render(&container()));
    let told = told.expect_err(text).to_string();
    assert!(told.contains(word), "{text}: {told}");
}

#[test]
fn fields_are_printed_as_go_prints_them() {
    shows("{{.ID}}: {{.Names}}", "c0ffee: web");
    shows(
        "{{.State.Running}} {{.State.Code}} {{.Ports}} {{.Labels}}",
        "true 0 [80 443] map[a:1 b:2]",
    );
    shows(
        "{{.State.Health}} {{.State.Health.Status}} {{.Labels.none}}|",
        "<no value> <no value> <no value>|",
    );
    shows(
        "{{$.Names}} {{(index .Labels \"b\")}} {{.Labels \"a\"}}",
        "web 2 1",
    );
    shows(
        "{{json .Labels}} {{.State | json}}",
        r#"{"a":"1","b":"2"} {"Code":0,"Health":null,"Running":true}"#,
    );
    fails("{{.Nmaes}}", "there are");
    fails("{{.Names.Deeper}}", "Deeper");
}

#[test]
fn functions_and_pipelines_do_what_go_and_docker_do() {
    shows(
        "{{upper .Names}} {{.Names | title | printf \"%-5s|%q\" \"a\"}}",
        "WEB a    |\"Web\"",
    );
    shows(
        "{{len .Ports}} {{index .Ports 1}} {{join (split \"a,b\" \",\") \"-\"}}",
        "2 443 a-b",
    );
    shows(
        "{{printf \"%05d %.1f %x %t%%\" 42 1.25 255 true}}",
        "00042 1.2 ff true%",
    );
    shows("{{print 1 2 \"a\" 3}} {{println \"x\" 1}}", "1 2a3 x 1\n");
    shows(
        "{{slice .Names 1 3}} {{truncate .Names 1}} [{{pad .Names 1 2}}]",
        "eb w [ web  ]",
    );
    shows(
        "{{and .Names .Mounts}} {{or .Mounts .Names}} {{not .Mounts}}",
        "[] web true",
    );
    shows(
        "{{eq .Names \"db\" \"web\"}} {{lt 1 2}} {{ge 1 2.5}} {{ne 1 1}}",
        "true true false false",
    );
    fails("{{shout .Names}}", "no function \"shout\"");
    fails("{{index .Ports 2}}", "no item 2");
    fails("{{printf \"%d\" .Names}}", "%d");
}

#[test]
fn blocks_loop_and_choose() {
    shows("{{range .Ports}}{{.}},{{end}}", "80,443,");
    shows(
        "{{range $i, $p := .Ports}}{{if $i}}, {{end}}{{$p}}{{end}}",
        "80, 443",
    );
    shows("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;");
    shows("{{range .Mounts}}x{{else}}none{{end}}", "none");
    shows(
        "{{range .Ports}}{{if eq . 443}}{{continue}}{{end}}{{.}}{{break}}{{end}}",
        "80",
    );
    shows(
        "{{if .State.Code}}bad{{else if .State.Running}}runs{{else}}ok{{end}}",
        "runs",
    );
    shows(
        "{{with .State}}{{.Running}} {{$.Names}}{{end}}{{with .Mounts}}m{{else}}-{{end}}",
        "true web-",
    );
    shows("{{$n := 1}}{{range .Ports}}{{$n = .}}{{end}}{{$n}}", "443");
    shows("a  {{- .Names -}}  b {{/* gone */}}c", "awebb c");
    shows("{{\"{{\"}} {{`a\\b`}} {{-1}}", "{{ a\\b -1");
}

#[test]
fn what_is_no_template_is_told_with_its_place() {
    for (text, word) in [
        ("{{.Names", "}}"),
        ("a{{if .Names}}b", "{{end}}"),
        ("{{end}}", "byte 0"),
        ("ab{{else}}", "byte 2"),
        ("{{.A | .B}}", "function"),
        ("{{(.Names}}", "not closed"),
        ("{{\"a}}", "closing"),
        ("{{}}", "missing"),
        ("{{break}}", "range"),
        ("{{template \"x\"}}", "not supported"),
        ("{{$x}}", "no variable $x"),
        ("{{range .Names}}{{end}}", "range"),
        ("{{len}}", "arguments"),
    ] {
        fails(text, word);
    }
    fails(&("{{(".to_owned() + &"(".repeat(100) + "}}"), "parentheses");
    fails(&"{{if 1}}".repeat(100), "in each other");
    fails(&"a".repeat(70_000), "longer");
}

#[test]
fn loops_in_loops_have_an_end() {
    let text = "{{range $.l}}".repeat(20) + &"{{end}}".repeat(20);
    let list: Vec<u32> = (0..1000).collect();
    let told = Template::parse(&text).unwrap().render(&json!({"l": list}));
    assert!(told.unwrap_err().to_string().contains("too much"));
    let doubles = "{{$x := print \"aaaaaaaaaaaaaaaa\"}}".to_owned() + &"{{$x = print $x $x}}".repeat(60);
    fails(&doubles, "too much");
}
