//! Published ports as their users meet them: from where they are reached, how they are shown, who gets which, and
//! what becomes of them when the manager dies.

use integration::{Image, Manager, Outside, Sandbox, eventually, run};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};

/// The manager's host, for the other machine and for containers.
const HOST: &str = "192.0.2.1";

/// Run a container that tells its name to whoever connects to port 80 of it.
#[track_caller]
fn serve(manager: &Manager, image: &str, name: &str, flags: &[&str]) {
    let server = "exec busybox nc -ll -p 80 -e busybox hostname";
    let named = ["run", "-d", "--name", name, "-h", name];
    manager
        .ctl(&[&named, flags, &[image, "sh", "-c", server]].concat())
        .ok();
}

/// Connect until the server in the container is up, and be told this name.
#[track_caller]
fn told(mut connect: impl FnMut() -> Command, name: &str) {
    eventually("a published port is answered", || {
        let done = run(&mut connect());
        (done.code == 0 && done.stdout.trim() == name).then_some(())
    });
}

fn nc(mut program: Command, address: &str, port: &str) -> Command {
    program.args(["nc", "-w", "20", address, port]);
    program
}

/// Whether something is refused at once.
fn is_closed(program: Command, address: &str, port: &str) -> bool {
    let done = run(&mut nc(program, address, port));
    done.code != 0 && done.stderr.contains("refused")
}

fn rules(manager: &Manager) -> String {
    run(manager.inside("nft").args(["list", "table", "inet", "berth"])).ok()
}

/// A program of the host that has a port of it.
struct Listener(Child);

impl Listener {
    fn start(manager: &Manager, port: &str) -> Self {
        let mut command = manager.inside("busybox");
        command.args(["nc", "-ll", "-p", port, "-e", "true"]);
        let listener = Self(command.stdin(Stdio::null()).spawn().expect("start a listener"));
        eventually("the listener listens", || {
            (run(&mut nc(manager.inside("busybox"), "127.0.0.1", port)).code == 0).then_some(())
        });
        listener
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_published_port_is_reached_from_everywhere_while_its_container_runs() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    serve(
        &manager,
        &image,
        "web",
        &["-p", "8080:80", "-p", "127.0.0.1:9000:80"],
    );
    serve(&manager, &image, "other", &[]);
    let address = manager.inspect("web")["address"].clone();

    told(|| nc(outside.inside("busybox"), HOST, "8080"), "web");
    for host in ["127.0.0.1", HOST, "172.30.0.1"] {
        told(|| nc(manager.inside("busybox"), host, "8080"), "web");
    }
    told(|| nc(manager.inside("busybox"), "127.0.0.1", "9000"), "web");
    assert!(is_closed(outside.inside("busybox"), HOST, "9000"));
    for container in ["other", "web"] {
        told(
            || manager.ctl_command(&["exec", container, "busybox", "nc", "-w", "20", HOST, "8080"]),
            "web",
        );
    }

    assert_eq!(
        manager.ctl(&["port", "web"]).ok(),
        "80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:9000\n"
    );
    assert_eq!(
        manager.ctl(&["port", "web", "80/tcp"]).ok(),
        "0.0.0.0:8080\n127.0.0.1:9000\n"
    );
    let error = manager.ctl(&["port", "web", "81"]).refused();
    assert!(
        error.contains("No public port '81/tcp' published for web"),
        "{error}"
    );
    let listed = manager.ctl(&["ps"]).ok();
    assert!(
        listed.contains("0.0.0.0:8080->80/tcp, 127.0.0.1:9000->80/tcp"),
        "{listed}"
    );
    assert_eq!(
        manager.inspect("web")["ports"][1],
        json!({"hostAddress": "127.0.0.1", "hostPort": 9000, "containerPort": 80, "protocol": "tcp"})
    );

    manager.ctl(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(manager.ctl(&["port", "web"]).ok(), "");
    assert!(!rules(&manager).contains("8080"), "{}", rules(&manager));
    assert!(is_closed(outside.inside("busybox"), HOST, "8080"));
    manager.ctl(&["start", "web"]).ok();
    told(|| nc(outside.inside("busybox"), HOST, "8080"), "web");
    assert_eq!(manager.inspect("web")["address"], address);
}

#[test]
fn a_port_is_given_to_one_at_a_time() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    serve(
        &manager,
        &image,
        "first",
        &["-p", "8080:80", "-p", "127.0.0.1:9000:80"],
    );
    let listener = Listener::start(&manager, "7000");

    let cases = [
        (
            "8080:80",
            "Bind for 0.0.0.0:8080 failed: port is already allocated",
        ),
        (
            "127.0.0.1:8080:80",
            "Bind for 127.0.0.1:8080 failed: port is already allocated",
        ),
        (
            "9000:80",
            "Bind for 0.0.0.0:9000 failed: port is already allocated",
        ),
        ("7000:80", "Bind for 0.0.0.0:7000 failed: address already in use"),
        (
            "203.0.113.1:80:80",
            "Bind for 203.0.113.1:80 failed: cannot assign requested address",
        ),
        ("7000-7000:80", "address already in use"),
        ("[::1]:80:80", "publish it on 127.0.0.1"),
        ("8000-8001:80-82", "2 ports"),
        ("80:80/icmp", "icmp"),
    ];
    for (published, words) in cases {
        let command = ["run", "--rm", "-p", "6000:80", "-p", published, &image, "true"];
        let error = manager.ctl(&command).refused();
        assert!(error.contains(words), "{published}: {error}");
        assert!(!rules(&manager).contains("6000"), "{published}");
    }
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok().lines().count(), 1);

    // Of a range the first that is free.
    drop(listener);
    let _listener = Listener::start(&manager, "8081");
    serve(&manager, &image, "ranged", &["-p", "8080-8083:80"]);
    assert_eq!(manager.ctl(&["port", "ranged"]).ok(), "80/tcp -> 0.0.0.0:8082\n");
    // A start tries again what did not work.
    manager
        .ctl(&[
            "create", "--name", "second", "-p", "8080:80", &image, "sleep", "1000",
        ])
        .ok();
    manager.ctl(&["start", "second"]).refused();
    assert!(
        manager.inspect("second")["error"]
            .to_string()
            .contains("port is already allocated")
    );
    manager.ctl(&["rm", "-f", "first"]).ok();
    manager.ctl(&["start", "second"]).ok();
    assert_eq!(manager.ctl(&["port", "second"]).ok(), "80/tcp -> 0.0.0.0:8080\n");
}

#[test]
fn exposed_ports_get_free_ones_and_ranges_their_like() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let mut exposing = Image::busybox();
    exposing.config["ExposedPorts"] = json!({"80/tcp": {}, "53/udp": {}});
    let image = manager.registry().push(&exposing, "exposing:1");
    manager.ctl(&["pull", &image]).ok();

    serve(
        &manager,
        &image,
        "some",
        &["-p", "5500:80", "-P", "--expose", "90-91"],
    );
    let found = manager.inspect("some");
    let ports = found["ports"].as_array().expect("ports");
    let of = |container_port: u16, protocol: &str| -> Vec<u64> {
        let matching = ports
            .iter()
            .filter(|port| port["containerPort"] == container_port && port["protocol"] == protocol);
        matching.filter_map(|port| port["hostPort"].as_u64()).collect()
    };
    assert_eq!((ports.len(), of(80, "tcp")), (4, vec![5500]), "{found}");
    for free in [of(53, "udp"), of(90, "tcp"), of(91, "tcp")] {
        assert!(free.len() == 1 && free[0] >= 32768, "{found}");
    }

    serve(&manager, &image, "many", &["-p", "10000-12000:20000-22000/udp"]);
    let listed = manager.ctl(&["ps"]).ok();
    assert!(
        listed.contains("0.0.0.0:10000-12000->20000-22000/udp"),
        "{listed}"
    );
    manager.ctl(&["rm", "-f", "many"]).ok();
    assert!(!rules(&manager).contains("11000"));

    // What cannot be published is told before there is a container.
    exposing.config["ExposedPorts"] = json!({"http/tcp": {}});
    let wrong = manager.registry().push(&exposing, "exposing:2");
    manager.ctl(&["pull", &wrong]).ok();
    let refused = manager
        .ctl(&["create", "-P", "--name", "wrong", &wrong, "true"])
        .refused();
    assert!(refused.contains("the image exposes \"http/tcp\""), "{refused}");
    manager.ctl(&["inspect", "wrong"]).refused();
    manager.ctl(&["run", "--rm", &wrong, "true"]).ok();

    for network in ["host", "none"] {
        let done = manager.ctl(&[
            "run",
            "--rm",
            "--network",
            network,
            "-p",
            "5001:80",
            &image,
            "true",
        ]);
        let warning = format!("Published ports are discarded when using {network} network mode");
        assert!(done.code == 0 && done.stderr.contains(&warning), "{done}");
    }
}

#[test]
fn ports_outlive_the_manager_and_are_mended_by_the_next() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    serve(&manager, &image, "web", &["-p", "8080:80"]);
    serve(&manager, &image, "brief", &["-p", "8081:80"]);
    let told_outside = || told(|| nc(outside.inside("busybox"), HOST, "8080"), "web");
    told_outside();

    let pid = manager.inspect("brief")["pid"].as_u64().expect("a pid");
    manager.kill();
    told_outside();
    run(Command::new("kill").args(["-9", &pid.to_string()])).ok();
    manager.start_again();
    let after = rules(&manager);
    assert!(after.contains("8080") && !after.contains("8081"), "{after}");
    manager
        .ctl(&["run", "--rm", "-p", "8080:80", &image, "true"])
        .refused();

    manager.kill();
    run(manager.inside("nft").args(["flush", "ruleset"])).ok();
    manager.start_again();
    told_outside();
    assert_eq!(rules(&manager), after);

    // And while it runs, all of it, though nothing is published.
    run(manager.inside("nft").args(["flush", "ruleset"])).ok();
    let sorted = |rules: &str| {
        let mut lines: Vec<_> = rules.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    eventually("the rules are back", || {
        let there = run(manager.inside("nft").args(["list", "ruleset"])).ok();
        (sorted(&there) == sorted(&after)).then_some(())
    });
    told_outside();

    // Or by the next change.
    run(manager.inside("nft").args(["flush", "ruleset"])).ok();
    manager.ctl(&["rm", "-f", "web"]).ok();
    serve(&manager, &image, "web", &["-p", "8080:80"]);
    told(|| nc(manager.inside("busybox"), "172.30.0.1", "8080"), "web");
}

#[test]
fn a_start_that_was_cut_off_keeps_no_port() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for point in [
        "start.ports-published",
        "start.process-started",
        "store.before-commit",
    ] {
        manager
            .ctl(&[
                "create", "--name", "cut", "-p", "8080:80", &image, "sleep", "1000",
            ])
            .ok();
        manager.kill();
        manager.set_failpoint(Some(point));
        manager.start_again();
        manager.ctl(&["start", "cut"]).refused();
        manager.await_end();
        assert!(rules(&manager).contains("8080"), "{point}");
        manager.set_failpoint(None);
        manager.start_again();
        assert!(!rules(&manager).contains("8080"), "{point}");
        assert_eq!(manager.inspect("cut")["ports"], Value::Array(Vec::new()));
        manager.ctl(&["start", "cut"]).ok();
        manager.ctl(&["rm", "-f", "cut"]).ok();
    }
}
