//! What happened, and what happens: in docker's words, from a time on, and only what was asked for.

use integration::{Manager, Sandbox, eventually, finish};
use serde_json::Value;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

/// What happened between `since` and now.
#[track_caller]
fn told(manager: &Manager, since: &str, filters: &[&str]) -> Vec<Value> {
    let until = now();
    let mut args = vec!["events", "--format", "json", "--since", since, "--until", &until];
    for filter in filters {
        args.extend(["--filter", filter]);
    }
    let text = manager.ctl(&args).ok();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["action"].as_str())
        .collect()
}

#[test]
fn what_happened_is_told_afterwards_as_far_as_it_was_asked_for() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let begun = now();
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "-l",
        "tier=front",
        &image,
        "sleep",
        "1000",
    ];
    let id = manager.ctl(&run).ok();
    manager.ctl(&["pause", "web"]).ok();
    manager.ctl(&["unpause", "web"]).ok();
    manager.ctl(&["update", "--pids-limit", "50", "web"]).ok();
    manager.ctl(&["stop", "-t", "0", "web"]).ok();
    let between = now();
    manager.ctl(&["rename", "web", "old"]).ok();
    manager.ctl(&["run", "--name", "job", &image, "sh", "-c", "exit 4"]);
    manager.ctl(&["rm", "old"]).ok();

    let web = told(&manager, &begun, &["container=web"]);
    let all = [
        "create", "start", "pause", "unpause", "update", "kill", "kill", "die", "stop",
    ];
    assert_eq!(actions(&web), all);
    assert!(
        web.iter()
            .all(|event| event["subject"] == id.trim() && event["kind"] == "container")
    );
    assert_eq!(web[0]["attributes"]["tier"], "front");
    assert_eq!(web[7]["attributes"]["exit_code"], "137");
    let later = told(&manager, &between, &["type=container"]);
    assert_eq!(actions(&later), ["rename", "create", "start", "die", "destroy"]);
    let ends = told(
        &manager,
        &begun,
        &["event=die", "event=destroy", "label=tier=front"],
    );
    assert_eq!(actions(&ends), ["die", "destroy"]);
    let of_image = told(&manager, &begun, &[&format!("image={image}"), "event=die"]);
    assert_eq!(of_image.len(), 2);
    assert!(told(&manager, &begun, &["container=nobody"]).is_empty());
    // Before the manager began to look, and with nothing asked of before.
    assert_eq!(told(&manager, "0.0", &["event=pull"]).len(), 1);
    // What takes more memory than it may have is killed, and that is told.
    let eats = ["dd", "if=/dev/zero", "of=/dev/shm/held", "bs=1M", "count=40"];
    manager.ctl(&[&["run", "--name", "eats", "-m", "16m", &image][..], &eats].concat());
    assert_eq!(manager.inspect("eats")["exit"]["oomKilled"], true);
    let eaten = told(&manager, &begun, &["container=eats"]);
    assert_eq!(actions(&eaten), ["create", "start", "oom", "die"]);
    let refused = manager.ctl(&["events", "--filter", "colour=red"]).refused();
    assert!(
        refused.contains("colour=red") && refused.contains("label"),
        "{refused}"
    );
    let refused = manager
        .ctl(&["events", "--since", "1m", "--until", "2m"])
        .refused();
    assert!(refused.contains("later than until"), "{refused}");
}

#[test]
fn a_stream_begins_with_the_past_and_ends_in_time() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let begun = now();
    manager.ctl(&["run", "--name", "one", &image, "true"]).ok();
    let until = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs()
        + 3;
    let until = until.to_string();
    let args = [
        "events",
        "--since",
        &begun,
        "--until",
        &until,
        "--filter",
        "event=start",
    ];
    let clock = Instant::now();
    let stream = manager.ctl_spawned(&args);
    manager
        .ctl(&["run", "--rm", "--name", "two", &image, "true"])
        .ok();
    let told = finish(stream, "events".into()).ok();
    let names: Vec<&str> = told
        .lines()
        .filter_map(|line| line.split_once("name=")?.1.split([',', ')']).next())
        .collect();
    assert_eq!(names, ["one", "two"], "{told}");
    assert!(clock.elapsed().as_secs() >= 1);
    // Without a time, it goes on until its client leaves.
    let log = sandbox.path().join("events");
    let mut live = manager
        .ctl_command(&["events", "--filter", "container=three"])
        .stdout(std::fs::File::create(&log).expect("make a file"))
        .spawn()
        .expect("start a client");
    eventually("the client hears of it", || {
        manager
            .ctl(&["run", "--rm", "--name", "three", &image, "true"])
            .ok();
        let heard = std::fs::read_to_string(&log).expect("read what was told");
        heard.contains("container die").then_some(())
    });
    let heard = std::fs::read_to_string(&log).expect("read what was told");
    assert!(heard.lines().all(|line| line.contains("name=three")), "{heard}");
    assert!(live.try_wait().expect("look at the client").is_none());
    live.kill().expect("end the client");
    live.wait().expect("wait for the client");
}
