//! Metrics: what Prometheus reads of the manager, and that nobody who reads them keeps it from its work.

use integration::{Manager, Sandbox, eventually, run};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

const PLACE: &str = "127.0.0.1:9323";
const RUNNING: &str = r#"berth_container_states_containers{state="running"}"#;

fn start(sandbox: &Sandbox) -> Manager {
    let mut manager = Manager::start(sandbox);
    manager.stop();
    manager.set_options(&["--metrics-address", PLACE]);
    manager.start_again();
    manager
}

/// What the metrics are now: name and labels, and the number.
#[track_caller]
fn metrics(manager: &Manager) -> BTreeMap<String, f64> {
    let text = get(manager, "/metrics");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, number) = line.rsplit_once(' ').expect("a name and a number");
            (name.to_owned(), number.parse().expect("a number"))
        })
        .collect()
}

fn get(manager: &Manager, path: &str) -> String {
    accepting(
        manager,
        path,
        "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
    )
}

fn accepting(manager: &Manager, path: &str, accepted: &str) -> String {
    exchange(
        manager,
        &format!("GET {path} HTTP/1.1\r\nHost: here\r\nAccept: {accepted}\r\n\r\n"),
    )
}

/// Say `request` to the manager over a connection of its own, and hear all of the answer.
fn exchange(manager: &Manager, request: &str) -> String {
    let mut stream = connect(manager);
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// From within the manager's network namespace.
fn connect(manager: &Manager) -> TcpStream {
    let netns = format!("/proc/{}/ns/net", manager.pid());
    let connecting = std::thread::spawn(move || {
        let netns = fs::File::open(netns).expect("open the manager's network namespace");
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter it");
        TcpStream::connect(PLACE).expect("connect")
    });
    let stream = connecting.join().expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    stream
}

#[test]
fn what_happens_is_counted_and_what_is_there_is_told() {
    let sandbox = Sandbox::new();
    let manager = start(&sandbox);
    let image = manager.busybox();
    manager.ctl(&["run", "--rm", &image, "true"]).ok();
    manager
        .ctl(&["run", "-d", "--name", "runs", &image, "sleep", "1000"])
        .ok();
    manager
        .ctl(&["run", "-d", "--name", "still", &image, "sleep", "1000"])
        .ok();
    manager.ctl(&["pause", "still"]).ok();
    manager.ctl(&["create", "--name", "made", &image, "true"]).ok();
    manager.ctl(&["exec", "runs", "true"]).ok();
    manager.ctl(&["stop", "-t", "0", "no-such"]).refused();
    manager.ctl(&["volume", "create", "data"]).ok();
    manager.ctl(&["network", "create", "net"]).ok();
    let check = [
        "run",
        "-d",
        "--name",
        "ailing",
        "--health-cmd",
        "false",
        "--health-interval",
        "200ms",
    ];
    manager
        .ctl(&[&check[..], &[&image, "sleep", "1000"]].concat())
        .ok();
    let restarts = [
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "on-failure:2",
        &image,
        "false",
    ];
    manager.ctl(&restarts).ok();
    let lookup = "nslookup runs2 127.0.0.11; true";
    manager
        .ctl(&["run", "--rm", "--network", "net", &image, "sh", "-c", lookup])
        .ok();
    let seen = eventually("health checks and restarts are counted", || {
        let seen = metrics(&manager);
        let is = |name: &str, least: f64| seen.get(name).is_some_and(|number| *number >= least);
        (is("berth_health_checks_failed_total", 2.0)
            && is("berth_container_restarts_total", 2.0)
            && seen.get(RUNNING) == Some(&2.0))
        .then_some(seen)
    });
    for (name, expected) in [
        (RUNNING, 2.0),
        (r#"berth_container_states_containers{state="paused"}"#, 1.0),
        (r#"berth_container_states_containers{state="stopped"}"#, 2.0),
        (r#"berth_container_actions_seconds_count{action="exec"}"#, 1.0),
        (r#"berth_container_actions_seconds_count{action="pause"}"#, 1.0),
        (r#"berth_image_actions_seconds_count{action="pull"}"#, 1.0),
        (r#"berth_volume_actions_seconds_count{action="create"}"#, 1.0),
        (r#"berth_network_actions_seconds_count{action="create"}"#, 1.0),
        (r#"berth_events_total{type="container",action="create"}"#, 7.0),
        ("berth_volumes", 1.0),
        ("berth_networks", 2.0),
        ("berth_image_store_images", 1.0),
        ("berth_container_oom_kills_total", 0.0),
        (
            r#"berth_api_requests_total{method="Containers/Stop",code="NotFound"}"#,
            1.0,
        ),
    ] {
        assert_eq!(seen.get(name), Some(&expected), "{name} in {seen:#?}");
    }
    let least = |name: &str, least: f64| {
        let found = seen.get(name).copied().unwrap_or(-1.0);
        assert!(found >= least, "{name} {found} in {seen:#?}");
    };
    least(r#"berth_container_actions_seconds_count{action="start"}"#, 5.0);
    least(
        r#"berth_container_actions_seconds_bucket{le="+Inf",action="create"}"#,
        6.0,
    );
    least("berth_image_store_content_bytes", 100_000.0);
    least("berth_image_store_layers_bytes", 100_000.0);
    least("berth_dns_questions_total", 1.0);
    least("berth_dns_questions_forwarded_total", 1.0);
    least("process_resident_memory_bytes", 1_000_000.0);
    least("process_open_fds", 10.0);
    least("process_threads", 2.0);
    least("process_start_time_seconds", 1_700_000_000.0);
    assert!(
        seen.keys().any(|name| name.starts_with("berth_engine_info{")),
        "{seen:#?}"
    );
    // No container is named, however many there are.
    assert!(
        !seen
            .keys()
            .any(|name| name.contains("runs") || name.contains("ailing")),
        "{seen:#?}"
    );
    let gauge = seen["berth_api_requests_in_flight"];
    assert!(gauge.abs() < 0.5, "all calls have ended: {gauge}");
    let told = manager.ctl(&["info", "--format", "json"]).ok();
    assert!(told.contains(PLACE), "{told}");
    manager.ctl(&["unpause", "still"]).ok();
    manager
        .ctl(&["rm", "-f", "runs", "still", "made", "ailing", "again"])
        .ok();
    manager.ctl(&["network", "rm", "net"]).ok();
}

#[test]
fn readers_that_are_slow_or_evil_hold_nobody() {
    let sandbox = Sandbox::new();
    let manager = start(&sandbox);
    let older = accepting(&manager, "/metrics", "*/*");
    assert!(
        older.contains("content-type: text/plain; version=0.0.4"),
        "{older}"
    );
    assert!(
        older.contains("# TYPE berth_health_checks_failed_total counter\n"),
        "{older}"
    );
    assert!(
        older.contains("\nberth_health_checks_failed_total 0\n") && !older.contains("# EOF"),
        "{older}"
    );
    assert!(get(&manager, "/").starts_with("HTTP/1.1 404"));
    let posted = exchange(&manager, "POST /metrics HTTP/1.1\r\nHost: here\r\n\r\n");
    assert!(posted.starts_with("HTTP/1.1 405"), "{posted}");
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(100_000));
    assert!(!exchange(&manager, &long).starts_with("HTTP/1.1 200"));
    assert!(!exchange(&manager, "\0\u{1}\u{2}\r\n\r\n").starts_with("HTTP/1.1 200"));

    // More than are served at once say nothing, or half of it.
    let mut silent: Vec<_> = (0..40).map(|_| connect(&manager)).collect();
    for stream in silent.iter_mut().skip(20) {
        stream.write_all(b"GET /metr").expect("begin to ask");
    }
    manager.ctl(&["version"]).ok();
    let asked = Instant::now();
    // Whoever asks does not wait until the time of those before it is over, which is five seconds.
    assert!(metrics(&manager).contains_key("berth_volumes"));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    for stream in &mut silent {
        let mut rest = Vec::new();
        // The others' turns come, and end, as well.
        let _ = stream.read_to_end(&mut rest);
    }
    let fds = metrics(&manager)["process_open_fds"];
    assert!(fds < 40.0, "their connections are gone: {fds}");
}

#[test]
fn an_address_that_others_reach_is_warned_of_and_one_that_is_taken_refused() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let nobody = run(manager
        .inside("sh")
        .args(["-c", "cat /proc/net/tcp /proc/net/tcp6"]))
    .ok();
    assert!(
        !nobody.contains(":246B"),
        "no metrics unless they are asked for: {nobody}"
    );
    manager.stop();
    manager.set_options(&["--metrics-address", "0.0.0.0:9323"]);
    manager.start_again();
    eventually("the log warns", || {
        manager.log().contains("served in the clear").then_some(())
    });
    let again = manager.inside(&integration::binary("manager").to_string_lossy());
    let folder = sandbox.path().join("second");
    let refused = refused_second(again, &folder);
    assert!(refused.contains("--metrics-address 127.0.0.1:9323"), "{refused}");
}

fn refused_second(mut command: Command, folder: &std::path::Path) -> String {
    command
        .arg("--root")
        .arg(folder.join("lib"))
        .arg("--state")
        .arg(folder.join("run"));
    command.arg("--shim").arg(integration::binary("shim"));
    run(command.args(["--metrics-address", PLACE, "--bridge-name", "berth7"])).refused()
}
