//! What containers use: numbers that the kernel confirms.

use integration::{Manager, Sandbox, eventually, finish};
use serde_json::Value;

#[track_caller]
fn look(manager: &Manager, args: &[&str]) -> Vec<Value> {
    let all = [&["stats", "--no-stream", "--format", "json"], args].concat();
    let told = manager.ctl(&all).ok();
    told.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn numbers_are_those_of_the_container() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let busy = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20; while :; do :; done";
    let run = [
        "run", "-d", "--name", "busy", "-m", "64m", &image, "sh", "-c", busy,
    ];
    let id = manager.ctl(&run).ok().trim().to_owned();
    let run = [
        "run",
        "-d",
        "--name",
        "idle",
        "--network",
        "none",
        &image,
        "sleep",
        "1000",
    ];
    manager.ctl(&run).ok();
    manager.ctl(&["create", "--name", "new", &image, "true"]).ok();
    let found = eventually("it is busy and holds memory", || {
        let found = look(&manager, &["busy"]).remove(0);
        (found["cpuPercent"].as_f64()? > 5.0 && found["memoryBytes"].as_u64()? > 20 << 20).then_some(found)
    });
    assert_eq!(
        (&found["id"], &found["memoryLimitBytes"]),
        (&id.as_str().into(), &(64 << 20).into())
    );
    let of_limit = found["memoryPercent"].as_f64().expect("a share");
    assert!(of_limit > 31.0 && of_limit <= 100.0, "{found}");
    // What comes over its link.
    let before = found["receivedBytes"].as_u64().expect("a number");
    let address = manager.inspect("busy")["address"]
        .as_str()
        .expect("an address")
        .to_owned();
    let address = address.split('/').next().expect("an address");
    let mut ping = manager.inside("busybox");
    integration::run(ping.args(["ping", "-c", "3", "-i", "0.2", "-s", "1000", address])).ok();
    let found = look(&manager, &["busy"]).remove(0);
    assert!(found["receivedBytes"].as_u64() >= Some(before + 3000), "{found}");
    assert!(found["sentBytes"].as_u64() >= Some(3000), "{found}");

    let running = look(&manager, &[]);
    let names: Vec<_> = running
        .iter()
        .filter_map(|found| found["name"].as_str())
        .collect();
    assert_eq!(names, ["idle", "busy"]);
    assert!(running[0]["cpuPercent"].as_f64() < Some(50.0), "{}", running[0]);
    assert_eq!(
        (&running[0]["pids"], &running[0]["receivedBytes"]),
        (&1.into(), &0.into())
    );
    assert!(running[0]["memoryLimitBytes"].as_u64() > Some(64 << 20));
    let all = look(&manager, &["-a"]);
    assert_eq!(
        (all.len(), &all[0]["name"], &all[0]["pids"]),
        (3, &"new".into(), &Value::Null)
    );
    let nobody = manager.ctl(&["stats", "--no-stream", "busy", "nobody"]).refused();
    assert!(nobody.contains("nobody"), "{nobody}");

    let table = manager.ctl(&["stats", "--no-stream", "-a"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("CONTAINER ID   NAME") && lines[0].ends_with("PIDS"),
        "{table}"
    );
    assert!(lines[1].contains("-- / --"), "{table}");
    assert!(
        lines[3].starts_with(&id[..12]) && lines[3].contains(" / 64MiB"),
        "{table}"
    );
}

#[test]
fn a_stream_goes_on_and_follows_what_comes_and_goes() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let log = sandbox.path().join("stats");
    let mut stream = manager
        .ctl_command(&["stats", "--format", "json"])
        .stdout(std::fs::File::create(&log).expect("make a file"))
        .spawn()
        .expect("start a client");
    let seen = |name: &str| {
        let text = std::fs::read_to_string(&log).expect("read what was told");
        text.lines()
            .filter(|line| line.contains(&format!("\"{name}\"")))
            .count()
    };
    for name in ["one", "two"] {
        manager
            .ctl(&["run", "-d", "--name", name, &image, "sleep", "1000"])
            .ok();
        eventually("it is seen twice", || (seen(name) >= 2).then_some(()));
    }
    manager.ctl(&["pause", "two"]).ok();
    manager.ctl(&["rm", "-f", "one"]).ok();
    let so_far = (seen("one"), seen("two"));
    eventually("the other is seen on", || {
        (seen("two") >= so_far.1 + 2).then_some(())
    });
    // One look may have been under way.
    assert!(seen("one") <= so_far.0 + 1);
    // With the manager the stream ends.
    manager.stop();
    eventually("the client ends", || {
        stream.try_wait().expect("look at the client")
    });
    manager.start_again();
    let once = finish(
        manager.ctl_spawned(&["stats", "--no-stream", "two"]),
        "stats".into(),
    )
    .ok();
    assert!(once.contains("two"), "{once}");
}
