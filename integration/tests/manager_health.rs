//! Health checks: what they tell, what they cost when they hang, and that they follow the container.

use integration::{Image, Manager, Sandbox, eventually};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;

#[track_caller]
fn await_health(manager: &Manager, status: &str) -> Value {
    eventually(&format!("it is {status}"), || {
        let found = manager.inspect("one");
        (found["health"]["status"] == status).then_some(found)
    })
}

fn run(manager: &Manager, image: &str, flags: &[&str], command: &[&str]) {
    let run = ["run", "-d", "--name", "one"];
    manager.ctl(&[&run[..], flags, &[image], command].concat()).ok();
}

fn probes(manager: &Manager) -> usize {
    manager.ctl(&["top", "one"]).ok().matches("sleep 1000").count()
}

#[test]
fn health_is_what_the_last_probes_told() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let mut events = manager
        .ctl_command(&["events", "--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a client");
    let check = [
        "--health-cmd",
        "cat /well",
        "--health-interval",
        "150ms",
        "--health-retries",
        "2",
    ];
    run(&manager, &image, &check, &["sleep", "1000"]);
    assert_eq!(manager.inspect("one")["health"]["status"], "starting");
    assert!(manager.ctl(&["ps"]).ok().contains("(health: starting)"));
    manager
        .ctl(&["exec", "one", "sh", "-c", "echo fine > /well"])
        .ok();
    let well = await_health(&manager, "healthy");
    let last = &well["health"]["log"]
        .as_array()
        .expect("a log")
        .last()
        .expect("a probe");
    assert_eq!(
        (&last["exitCode"], &last["output"]),
        (&0.into(), &"fine\n".into())
    );
    assert!(manager.ctl(&["ps"]).ok().contains("(healthy)"));
    manager.ctl(&["exec", "one", "rm", "/well"]).ok();
    let ill = await_health(&manager, "unhealthy");
    assert!(ill["health"]["failingStreak"].as_u64() >= Some(2), "{ill}");
    let last = ill["health"]["log"]
        .as_array()
        .expect("a log")
        .last()
        .expect("a probe");
    assert!(
        last["output"].as_str().is_some_and(|text| text.contains("/well")),
        "{last}"
    );
    assert!(manager.ctl(&["ps"]).ok().contains("(unhealthy)"));
    eventually("five probes are kept", || {
        let log = manager.inspect("one")["health"]["log"].clone();
        (log.as_array().map(Vec::len) == Some(5)).then_some(())
    });
    manager.ctl(&["rm", "-f", "one"]).ok();
    events.kill().expect("end a client");
    let told = events.wait_with_output().expect("read the events").stdout;
    let told: Vec<Value> = serde_json::Deserializer::from_slice(&told)
        .into_iter()
        .map_while(Result::ok)
        .collect();
    let of_health = told
        .iter()
        .filter_map(|event| event["action"].as_str()?.strip_prefix("health_status: "));
    let of_health: Vec<&str> = of_health.collect();
    // The first two depend on when the file came.
    assert!(of_health.ends_with(&["healthy", "unhealthy"]), "{of_health:?}");
}

#[test]
fn an_images_check_counts_unless_the_client_says_otherwise() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let mut image = Image::busybox();
    image.config["Healthcheck"] = json!({"Test": ["CMD", "true"], "Interval": 150_000_000, "Retries": 7});
    let reference = manager.registry().push(&image, "checked:1");
    manager.ctl(&["pull", &reference]).ok();
    run(
        &manager,
        &reference,
        &["--health-timeout", "9s"],
        &["sleep", "1000"],
    );
    let found = await_health(&manager, "healthy");
    let check = &found["request"]["healthcheck"];
    assert_eq!(
        (&check["test"], &check["retries"]),
        (&json!(["CMD", "true"]), &7.into())
    );
    assert_eq!(check["timeoutNanos"], 9_000_000_000_i64);
    manager.ctl(&["rm", "-f", "one"]).ok();
    run(&manager, &reference, &["--no-healthcheck"], &["sleep", "1000"]);
    assert_eq!(manager.inspect("one")["health"], Value::Null);
    let both = ["create", "--no-healthcheck", "--health-cmd", "true", &reference];
    let refused = manager.ctl(&both).refused();
    assert!(refused.contains("cannot be used with"), "{refused}");
    let short = ["create", "--health-interval", "1us", &reference];
    let refused = manager.ctl(&short).refused();
    assert!(refused.contains("at least 1 ms"), "{refused}");
}

#[test]
fn a_probe_that_hangs_is_killed_and_fails() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let check = [
        "--health-cmd",
        "echo begun; exec sleep 1000",
        "--health-interval",
        "100ms",
        "--health-timeout",
        "300ms",
        "--health-retries",
        "3",
    ];
    run(&manager, &image, &check, &["sleep", "2000"]);
    let ill = await_health(&manager, "unhealthy");
    let last = ill["health"]["log"]
        .as_array()
        .expect("a log")
        .last()
        .expect("a probe");
    assert_eq!(last["exitCode"], -1);
    assert_eq!(last["output"], "Health check exceeded timeout (300ms): begun\n");
    assert!(probes(&manager) <= 1, "{}", manager.ctl(&["top", "one"]).ok());
    // One that cannot be begun has failed too.
    manager.ctl(&["rm", "-f", "one"]).ok();
    let mut image = Image::busybox();
    image.config["Healthcheck"] = json!({"Test": ["CMD", "/no/such"], "Interval": 100_000_000});
    let reference = manager.registry().push(&image, "broken:1");
    manager.ctl(&["pull", &reference]).ok();
    run(&manager, &reference, &[], &["sleep", "2000"]);
    let ill = await_health(&manager, "unhealthy");
    let last = ill["health"]["log"]
        .as_array()
        .expect("a log")
        .last()
        .expect("a probe");
    assert!(
        last["output"]
            .as_str()
            .is_some_and(|text| text.contains("/no/such")),
        "{last}"
    );
}

#[test]
fn failures_after_the_start_do_not_count() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let check = [
        "--health-cmd",
        "test -e /well",
        "--health-interval",
        "1h",
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "100ms",
        "--health-retries",
        "1",
    ];
    run(&manager, &image, &check, &["sleep", "1000"]);
    eventually("four have failed", || {
        let log = manager.inspect("one")["health"]["log"].clone();
        (log.as_array()?.len() >= 4).then_some(())
    });
    let found = manager.inspect("one");
    assert_eq!(
        (&found["health"]["status"], &found["health"]["failingStreak"]),
        (&"starting".into(), &0.into())
    );
    manager.ctl(&["exec", "one", "touch", "/well"]).ok();
    await_health(&manager, "healthy");
}

#[test]
fn probes_follow_pauses_ends_and_managers() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let check = ["--health-cmd", "true", "--health-interval", "100ms"];
    run(&manager, &image, &check, &["sleep", "1000"]);
    await_health(&manager, "healthy");
    manager.ctl(&["pause", "one"]).ok();
    let log = manager.inspect("one")["health"]["log"].clone();
    std::thread::sleep(Duration::from_millis(400));
    let paused = manager.inspect("one");
    assert_eq!(
        (&paused["state"], &paused["health"]["log"]),
        (&"paused".into(), &log)
    );
    manager.ctl(&["unpause", "one"]).ok();
    eventually("probes go on", || {
        (manager.inspect("one")["health"]["log"] != log).then_some(())
    });
    manager.kill();
    manager.start_again();
    await_health(&manager, "healthy");
    manager.ctl(&["stop", "-t", "0", "one"]).ok();
    manager.ctl(&["start", "one"]).ok();
    await_health(&manager, "healthy");
}
