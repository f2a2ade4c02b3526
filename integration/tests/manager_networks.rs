//! Networks that users make: who is on them, who reaches whom, what is refused, and what a kill leaves.

use integration::{Manager, Outside, Sandbox, eventually, exec, run, run_detached};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

#[track_caller]
fn assert_reaches(manager: &Manager, container: &str, address: &str) {
    manager.assert_pings(container, "ping", address);
}

#[track_caller]
fn assert_kept_from(manager: &Manager, container: &str, address: &str) {
    manager.assert_no_pings(container, "ping", address);
}

fn bridges(manager: &Manager) -> Vec<String> {
    let text = run(manager
        .inside("ip")
        .args(["-j", "link", "show", "type", "bridge"]))
    .ok();
    let links: Value = serde_json::from_str(&text).unwrap_or_default();
    let names = links.as_array().into_iter().flatten();
    names
        .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
        .collect()
}

fn network_events(manager: &Manager) -> String {
    let past = ["--since", "1h", "--until", "0s"];
    manager
        .ctl(&[&["events", "--filter", "type=network"], &past[..]].concat())
        .ok()
}

#[test]
fn a_network_is_made_shown_and_removed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let before = (bridges(&manager), manager.rules());
    let id = manager
        .ctl(&[
            "network",
            "create",
            "--subnet",
            "10.77.0.0/16",
            "--gateway",
            "10.77.0.9",
            "--ip-range",
            "10.77.5.0/24",
            "--aux-address",
            "printer=10.77.5.1",
            "--label",
            "a=b",
            "-o",
            "com.docker.network.bridge.name=br-web",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "web",
        ])
        .ok();
    let shown = manager.network("web");
    assert_eq!(shown["id"], id.trim());
    for (field, value) in [
        ("driver", "bridge"),
        ("subnet", "10.77.0.0/16"),
        ("gateway", "10.77.0.9"),
        ("ipRange", "10.77.5.0/24"),
    ] {
        assert_eq!(shown[field], value, "{shown}");
    }
    assert_eq!(shown["auxAddresses"]["printer"], "10.77.5.1");
    let link = run(manager.inside("ip").args(["address", "show", "dev", "br-web"])).ok();
    assert!(
        link.contains("mtu 1400") && link.contains("10.77.0.9/16"),
        "{link}"
    );

    // No container makes itself the host's router.
    for bridge in ["br-web", "berth0"] {
        let setting = format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6");
        let value = run(manager
            .inside("sh")
            .args(["-c", &format!("cat {setting} || echo 1")]))
        .ok();
        assert_eq!(value, "1\n", "{bridge}");
    }
    let listed = manager.ctl(&["network", "ls"]).ok();
    let short: BTreeSet<_> = listed.lines().map(|line| &line[..12]).collect();
    assert_eq!(short.len(), 5, "{listed}");
    for name in ["bridge", "host", "none", "web"] {
        assert!(
            listed
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(name)),
            "{listed}"
        );
    }
    assert_eq!(manager.network("bridge")["subnet"], "172.30.0.0/16");

    // Ids are found by their beginning, as everywhere.
    manager.ctl(&["network", "rm", &id[..12]]).ok();
    manager.ctl(&["network", "inspect", "web"]).refused();
    assert_eq!((bridges(&manager), manager.rules()), before);
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/16", "web"])
        .ok();
    run(manager
        .inside("ip")
        .args(["link", "add", "lan", "type", "bridge"]))
    .ok();
    run(manager
        .inside("ip")
        .args(["address", "add", "10.88.0.1/16", "dev", "lan"]))
    .ok();
    let refused = |arguments: &str, why: &str| {
        let words: Vec<_> = arguments.split(' ').collect();
        let done = manager.ctl(&words);
        assert!(done.code != 0 && done.stderr.contains(why), "{arguments}: {done}");
    };
    refused("network create web", "already exists");
    refused("network create host", "already exists");
    refused("network create --subnet 10.77.5.0/24 other", "network web");
    refused("network create --subnet 172.30.5.0/24 other", "network bridge");
    refused("network create --subnet 10.88.5.0/24 other", "10.88.0.1/16");
    refused("network create --subnet 10.1.2.3/16 other", "10.1.0.0/16");
    refused(
        "network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 other",
        "10.1.0.0/16",
    );
    refused("network create --subnet fd00::/64 other", "IPv6");
    refused("network create -d overlay other", "macvlan");
    refused("network create -o parent=eth0 other", "parent");
    for taken in ["lan", "berth0"] {
        let option = format!("com.docker.network.bridge.name={taken}");
        refused(&format!("network create -o {option} other"), "exists already");
    }
    refused("network rm bridge", "pre-defined");
    refused("network rm nothing", "nothing");
    for (flags, why) in [
        ("--network nothing", "nothing"),
        ("--network container:web", "no such container"),
        ("--network container:web --network-alias a", "container:web"),
        ("--ip 172.30.0.9", "user defined networks only"),
        ("--network web --network host", "user defined networks only"),
        ("--network web --ip 10.78.0.2", "10.77.0.0/16"),
        ("--network web --ip 10.77.0.1", "10.77.0.0/16"),
        ("--network web --mac-address 01:00:00:00:00:01", "mac-address"),
        ("--network web --network-alias a/b", "a/b"),
    ] {
        refused(&format!("create {flags} {image} true"), why);
    }
    assert_eq!(manager.ctl(&["ps", "-aq"]).ok(), "");
    assert_eq!(
        bridges(&manager).len(),
        3,
        "the two and the one that plays a local network"
    );

    manager
        .ctl(&[
            "create",
            "--name",
            "one",
            "--network",
            "web",
            "--ip",
            "10.77.0.5",
            &image,
            "true",
        ])
        .ok();
    refused(
        &format!("create --network web --ip 10.77.0.5 {image} true"),
        "already in use",
    );
    refused("network rm web", "one");
    refused("network connect web one", "already");
    let sharing = [
        "create",
        "--name",
        "shares",
        "--network",
        "container:one",
        &image,
        "true",
    ];
    manager.ctl(&sharing).ok();
    refused("network connect web shares", "network container");
    manager.ctl(&["rm", "shares"]).ok();
    manager.ctl(&["rm", "one"]).ok();
    manager.ctl(&["network", "rm", "web"]).ok();
}

#[test]
fn containers_reach_those_on_their_network_and_the_outside_and_nobody_else() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "one"])
        .ok();
    manager
        .ctl(&["network", "create", "--subnet", "10.78.0.0/24", "two"])
        .ok();
    manager
        .ctl(&[
            "network",
            "create",
            "--subnet",
            "10.79.0.0/24",
            "--internal",
            "in",
        ])
        .ok();
    run_detached(&manager, &image, "c-a", &["--network", "one"]);
    run_detached(
        &manager,
        &image,
        "c-b",
        &["--network", "name=one,alias=db,ip=10.77.0.9"],
    );
    run_detached(
        &manager,
        &image,
        "c-c",
        &["--network", "two", "--mac-address", "02:00:00:00:00:07"],
    );
    run_detached(&manager, &image, "c-d", &["--network", "in"]);
    run_detached(&manager, &image, "c-e", &["--network", "in"]);
    run_detached(&manager, &image, "c-f", &[]);

    assert_eq!(manager.place("c-b", "one")["address"], "10.77.0.9/24");
    assert_eq!(manager.place("c-b", "one")["aliases"][0], "db");
    assert_eq!(manager.inspect("c-a")["address"], "10.77.0.2/24");
    let link = exec(&manager, "c-c", "busybox ip link show eth0").ok();
    assert!(link.contains("02:00:00:00:00:07"), "{link}");
    let hosts = exec(&manager, "c-b", "cat /etc/hosts").ok();
    assert!(hosts.contains("10.77.0.9\t"), "{hosts}");

    assert_reaches(&manager, "c-a", "10.77.0.9");
    assert_reaches(&manager, "c-d", "10.79.0.3");
    for (from, to) in [
        ("c-a", "10.78.0.2"),
        ("c-c", "10.77.0.2"),
        ("c-f", "10.77.0.2"),
        ("c-a", "172.30.0.2"),
        ("c-a", "10.79.0.2"),
        ("c-d", "10.77.0.2"),
        ("c-d", "192.0.2.2"),
    ] {
        assert_kept_from(&manager, from, to);
    }
    for from in ["c-a", "c-c", "c-f"] {
        assert_reaches(&manager, from, "192.0.2.2");
        let port = outside.tell_next_caller();
        let caller = exec(&manager, from, &format!("busybox nc -w 30 192.0.2.2 {port}")).ok();
        assert_eq!(caller.trim(), "192.0.2.1", "{from} goes out as the host");
    }
}

#[test]
fn ports_are_published_from_any_network() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    manager.ctl(&["network", "create", "one"]).ok();
    let server = "exec busybox nc -ll -p 80 -e busybox hostname";
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "web",
            "-h",
            "web",
            "--network",
            "one",
            "-p",
            "8080:80",
            &image,
            "sh",
            "-c",
            server,
        ])
        .ok();
    let asked = |address: &str| {
        let mut client = outside.inside("busybox");
        let done = run(client.args(["nc", "-w", "20", address, "8080"]));
        (done.code == 0 && done.stdout.trim() == "web").then_some(())
    };
    eventually("the port is answered from outside", || asked("192.0.2.1"));
    run(manager.inside("nft").args(["flush", "ruleset"])).ok();
    eventually("the rules of all networks are back", || {
        let there = manager.rules();
        (there.matches("-postrouting {").count() == 2 && there.contains("8080")).then_some(())
    });
    eventually("the port is answered again", || asked("192.0.2.1"));
}

#[test]
fn networks_are_joined_and_left_running_and_stopped() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (name, subnet) in [("one", "10.77.0.0/24"), ("two", "10.78.0.0/24")] {
        manager.ctl(&["network", "create", "--subnet", subnet, name]).ok();
    }
    run_detached(&manager, &image, "peer", &["--network", "two"]);
    run_detached(
        &manager,
        &image,
        "web",
        &["--network", "one", "--network", "name=two,ip=10.78.0.50"],
    );
    assert_reaches(&manager, "web", "10.78.0.2");
    let route = exec(&manager, "web", "busybox ip route").ok();
    assert!(
        route.contains("default via 10.77.0.1 dev eth0") && route.contains("eth1"),
        "{route}"
    );

    // The way out moves to the network that is left.
    manager.ctl(&["network", "disconnect", "one", "web"]).ok();
    let route = exec(&manager, "web", "busybox ip route").ok();
    assert!(
        route.contains("default via 10.78.0.1 dev eth1") && !route.contains("eth0"),
        "{route}"
    );
    assert_eq!(manager.place("web", "one"), Value::Null);
    manager
        .ctl(&[
            "network",
            "connect",
            "--ip",
            "10.77.0.40",
            "--alias",
            "www",
            "one",
            "web",
        ])
        .ok();
    assert_eq!(manager.place("web", "one")["aliases"][0], "www");
    assert_reaches(&manager, "web", "10.77.0.1");

    // On the default bridge, too, and while it does not run.
    run_detached(&manager, &image, "plain", &[]);
    manager.ctl(&["network", "connect", "two", "plain"]).ok();
    assert_reaches(&manager, "plain", "10.78.0.2");
    let shown = |filter: &str| {
        let rows = manager.ctl(&["ps", "--filter", filter, "--format", "{{.Names}} {{.Networks}}"]);
        rows.ok()
    };
    assert_eq!(shown("network=two"), "plain bridge,two\nweb one,two\npeer two\n");
    assert_eq!(shown("network=bridge"), "plain bridge,two\n");
    manager.ctl(&["stop", "-t", "0", "web"]).ok();
    manager.ctl(&["network", "disconnect", "two", "web"]).ok();
    manager
        .ctl(&["network", "connect", "--ip", "10.78.0.60", "two", "web"])
        .ok();

    let events = network_events(&manager);
    for action in ["create", "connect", "disconnect"] {
        assert!(
            events.contains(&format!(" network {action} ")),
            "{action} is not in {events}"
        );
    }
    manager.kill();
    manager.start_again();
    manager.ctl(&["start", "web"]).ok();
    assert_eq!(manager.place("web", "one")["address"], "10.77.0.40/24");
    assert_eq!(manager.place("web", "two")["address"], "10.78.0.60/24");
    assert_reaches(&manager, "web", "10.78.0.2");
    assert_reaches(&manager, "plain", "10.78.0.2");
    assert_eq!(
        manager.network("two")["containers"]
            .as_object()
            .map(serde_json::Map::len),
        Some(3)
    );

    manager.ctl(&["network", "prune", "-f"]).ok();
    assert_eq!(bridges(&manager).len(), 3, "networks in use stay");
    manager.ctl(&["rm", "-f", "web", "plain", "peer"]).ok();
    let pruned = manager
        .ctl(&["network", "prune", "-f", "--filter", "label=none"])
        .ok();
    assert_eq!(pruned, "");
    let pruned = manager.ctl(&["network", "prune", "-f"]).ok();
    assert!(pruned.contains("one") && pruned.contains("two"), "{pruned}");
    assert_eq!(bridges(&manager).len(), 1);
    let events = network_events(&manager);
    assert!(events.contains(" network destroy "), "{events}");
}

/// Whether its files have its address on a network of a user's, and the name server that comes with that.
#[track_caller]
fn assert_tells_of(manager: &Manager, container: &str, address: &str, tells: bool) {
    let hosts = exec(manager, container, "cat /etc/hosts").ok();
    assert_eq!(hosts.contains(&format!("{address}\t")), tells, "{hosts}");
    let resolv = exec(manager, container, "cat /etc/resolv.conf").ok();
    assert_eq!(resolv.contains("nameserver 127.0.0.11\n"), tells, "{resolv}");
}

#[test]
fn a_containers_files_follow_its_networks() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (name, subnet) in [("one", "10.77.0.0/24"), ("two", "10.78.0.0/24")] {
        manager.ctl(&["network", "create", "--subnet", subnet, name]).ok();
    }
    for name in ["web", "own"] {
        run_detached(&manager, &image, name, &["--hostname", name]);
    }
    let before = exec(&manager, "web", "cat /etc/hosts").ok();
    let changes = [
        ("web", "echo 192.0.2.1 mine >> /etc/hosts"),
        ("own", "echo nameserver 192.0.2.53 > /etc/resolv.conf"),
    ];
    for (container, change) in changes {
        manager.ctl(&["exec", container, "sh", "-c", change]).ok();
    }
    for container in ["web", "own"] {
        manager.ctl(&["network", "connect", "one", container]).ok();
    }
    manager.ctl(&["network", "connect", "two", "web"]).ok();
    assert_tells_of(&manager, "web", "10.77.0.2", true);
    assert_tells_of(&manager, "web", "10.78.0.2", true);
    // What somebody wrote stays.
    let own = exec(&manager, "own", "cat /etc/resolv.conf").ok();
    assert_eq!(own, "nameserver 192.0.2.53\n");

    for network in ["one", "two"] {
        manager.ctl(&["network", "disconnect", network, "web"]).ok();
        let kept = exec(&manager, "web", "cat /etc/hosts").ok();
        assert_eq!(kept.contains("10.78.0.2\tweb\n"), network == "one", "{kept}");
    }
    assert_tells_of(&manager, "web", "10.77.0.2", false);
    let after = exec(&manager, "web", "cat /etc/hosts").ok();
    assert_eq!(after, format!("{before}192.0.2.1 mine\n"));
    // The next manager finds all as it is to be.
    manager.kill();
    manager.start_again();
    assert_tells_of(&manager, "web", "10.77.0.2", false);
    assert_tells_of(&manager, "web", "10.78.0.2", false);
}

/// Nothing acknowledged is lost, and nothing is left of what was not.
#[test]
fn a_kill_in_between_is_put_right() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let at = |manager: &mut Manager, point: &str, arguments: &[&str]| {
        manager.die_at(point, |manager| drop(manager.ctl(arguments).refused()));
    };
    for point in ["network.recorded", "network.made"] {
        at(
            &mut manager,
            point,
            &["network", "create", "--subnet", "10.77.0.0/24", "one"],
        );
        // It was on record, so it is there, whole.
        assert_eq!(manager.network("one")["subnet"], "10.77.0.0/24", "{point}");
        assert_eq!(bridges(&manager).len(), 2, "{point}");
        assert!(
            manager.rules().contains("10.77.0.0/24 leaves as the host"),
            "{point}"
        );
        at(&mut manager, "network.forgotten", &["network", "rm", "one"]);
        manager.ctl(&["network", "inspect", "one"]).refused();
        assert_eq!(bridges(&manager).len(), 1, "{point}");
        assert!(!manager.rules().contains("10.77"), "{point}");
    }
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "one"])
        .ok();
    run_detached(&manager, &image, "web", &[]);
    let before = manager.inspect("web")["pid"].take();
    at(
        &mut manager,
        "connect.recorded",
        &["network", "connect", "one", "web"],
    );
    assert_reaches(&manager, "web", "10.77.0.1");
    assert_tells_of(&manager, "web", "10.77.0.2", true);
    // Nobody was told that it left.
    at(
        &mut manager,
        "disconnect.unlinked",
        &["network", "disconnect", "one", "web"],
    );
    assert_reaches(&manager, "web", "10.77.0.1");
    assert_tells_of(&manager, "web", "10.77.0.2", true);

    // A kill between the making of a link and its setting up leaves it like this.
    manager.kill();
    let netns = format!("--net=/proc/{before}/ns/net");
    for change in [
        &["addr", "flush", "dev", "eth1"][..],
        &["link", "set", "eth1", "down"],
    ] {
        run(Command::new("nsenter").args([&netns, "ip"]).args(change)).ok();
    }
    manager.start_again();
    assert_reaches(&manager, "web", "10.77.0.1");
    // One that the container set down itself stays so.
    manager.kill();
    run(Command::new("nsenter").args([&netns, "ip", "link", "set", "eth1", "down"])).ok();
    manager.start_again();
    let link = exec(&manager, "web", "busybox ip link show eth1").ok();
    assert!(!link.contains("UP"), "{link}");

    at(
        &mut manager,
        "disconnect.recorded",
        &["network", "disconnect", "one", "web"],
    );
    assert_eq!(manager.place("web", "one"), Value::Null);
    let links = exec(&manager, "web", "busybox ip link").ok();
    assert!(!links.contains("eth1"), "{links}");
    assert_tells_of(&manager, "web", "10.77.0.2", false);
    assert_eq!(manager.inspect("web")["pid"], before, "it runs on");
    manager.ctl(&["network", "rm", "one"]).ok();
}
