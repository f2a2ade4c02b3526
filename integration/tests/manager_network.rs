//! The network of containers as their users meet it: addresses, who reaches whom, NAT, and what is left.

use integration::{Done, Manager, Outside, Sandbox, binary, eventually, finish, run};
use serde_json::Value;
use std::process::Stdio;

const GATEWAY: &str = "172.30.0.1";
const FOREVER: &[&str] = &["sleep", "3600"];

#[track_caller]
fn run_detached(manager: &Manager, image: &str, flags: &[&str]) -> String {
    let arguments = [&["run", "-d"], flags, &[image], FOREVER].concat();
    manager.ctl(&arguments).ok().trim().to_owned()
}

#[track_caller]
fn exec(manager: &Manager, container: &str, command: &[&str]) -> Done {
    manager.ctl(&[&["exec", container], command].concat())
}

#[track_caller]
fn inspect(manager: &Manager, container: &str) -> Value {
    let text = manager.ctl(&["inspect", container]).ok();
    let found: Value = serde_json::from_str(&text).expect("inspect prints JSON");
    found.get(0).cloned().unwrap_or(found)
}

/// A container's address, without the prefix length.
#[track_caller]
fn address(manager: &Manager, container: &str) -> String {
    let found = inspect(manager, container);
    let address = found["address"]
        .as_str()
        .unwrap_or_else(|| panic!("no address in {found}"));
    address
        .strip_suffix("/16")
        .expect("an address with its prefix length")
        .to_owned()
}

#[track_caller]
fn reaches(manager: &Manager, container: &str, address: &str) {
    exec(
        manager,
        container,
        &["busybox", "ping", "-c", "1", "-w", "30", address],
    )
    .ok();
}

/// The names of the links on the manager's host.
fn links(manager: &Manager) -> Vec<String> {
    let text = run(manager.inside("ip").args(["-j", "link"])).ok();
    let links: Value = serde_json::from_str(&text).expect("ip prints JSON");
    let names = links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| link["ifname"].as_str());
    names.map(str::to_owned).collect()
}

/// The links of containers on the manager's host.
fn containers_links(manager: &Manager) -> Vec<String> {
    links(manager)
        .into_iter()
        .filter(|name| name.starts_with("bth"))
        .collect()
}

fn rules(manager: &Manager) -> String {
    run(manager.inside("nft").args(["list", "ruleset"])).ok()
}

#[test]
fn containers_have_the_address_they_are_said_to_have_and_reach_host_and_neighbour() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let first = run_detached(&manager, &image, &["--name", "first"]);
    let second = run_detached(&manager, &image, &["--name", "second"]);

    assert_eq!(address(&manager, &first), "172.30.0.2");
    assert_eq!(address(&manager, &second), "172.30.0.3");
    let shown = exec(
        &manager,
        &first,
        &["busybox", "ip", "-o", "-4", "address", "show", "eth0"],
    )
    .ok();
    assert!(shown.contains("inet 172.30.0.2/16 "), "{shown}");
    let shown = exec(&manager, &first, &["busybox", "ip", "route"]).ok();
    assert!(shown.contains("default via 172.30.0.1 dev eth0"), "{shown}");

    reaches(&manager, "first", "127.0.0.1");
    reaches(&manager, "first", GATEWAY);
    reaches(&manager, "first", "172.30.0.3");
    reaches(&manager, "second", "172.30.0.2");
    // By its own name, too.
    let hostname = exec(&manager, "first", &["hostname"]).ok();
    reaches(&manager, "first", hostname.trim());
}

/// Each address of IPv6 would be asked for and announced to all containers of the network when it is made.
#[test]
fn a_network_without_ipv6_has_no_address_of_it_on_either_end() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    run_detached(&manager, &image, &["--name", "one"]);
    let setting = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
    assert_eq!(exec(&manager, "one", &["busybox", "cat", setting]).ok(), "1\n");
    let inside = exec(&manager, "one", &["busybox", "cat", "/proc/net/if_inet6"]).ok();
    assert!(inside.contains(" lo\n"), "loopback keeps its own: {inside}");
    assert!(!inside.contains("eth0"), "{inside}");
    let outside = run(manager.inside("cat").arg("/proc/net/if_inet6")).ok();
    assert!(
        !outside.contains("bth") && !outside.contains("berth0"),
        "{outside}"
    );
    // What the container's own users make there is theirs to decide.
    let setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    assert_eq!(exec(&manager, "one", &["busybox", "cat", setting]).ok(), "0\n");
}

#[test]
fn the_outside_sees_the_host_in_place_of_the_container() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    let port = outside.tell_next_caller().to_string();
    let told = manager
        .ctl(&[
            "run",
            "--rm",
            &image,
            "busybox",
            "nc",
            "-w",
            "30",
            "192.0.2.2",
            &port,
        ])
        .ok();
    assert_eq!(told.trim(), "192.0.2.1");
}

#[test]
fn network_none_is_loopback_alone() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let id = run_detached(&manager, &image, &["--network", "none"]);
    assert_eq!(inspect(&manager, &id)["address"], Value::Null);
    assert_eq!(containers_links(&manager), Vec::<String>::new());
    let shown = exec(&manager, &id, &["busybox", "ip", "-o", "link"]).ok();
    assert!(
        shown.contains(": lo: <LOOPBACK,UP") && !shown.contains("eth0"),
        "{shown}"
    );
    reaches(&manager, &id, "127.0.0.1");
    assert_ne!(
        exec(&manager, &id, &["busybox", "ping", "-c", "1", "-w", "5", GATEWAY]).code,
        0
    );
}

#[test]
fn network_host_is_the_hosts() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let of_host = run(manager.inside("readlink").arg("/proc/self/ns/net")).ok();
    let command = [
        "run",
        "--rm",
        "--network",
        "host",
        &image,
        "readlink",
        "/proc/self/ns/net",
    ];
    assert_eq!(manager.ctl(&command).ok(), of_host);
    assert_eq!(containers_links(&manager), Vec::<String>::new());
}

#[test]
fn an_unknown_network_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let error = manager
        .ctl(&["run", "--rm", "--network", "backbone", &image, "true"])
        .refused();
    assert!(error.contains("backbone"), "{error}");
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
    assert_eq!(containers_links(&manager), Vec::<String>::new());
}

#[test]
fn an_address_stays_over_a_restart_and_is_used_again_after_removal() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    run_detached(&manager, &image, &["--name", "first"]);
    run_detached(&manager, &image, &["--name", "second"]);

    for _ in 0..3 {
        manager.ctl(&["stop", "-t", "0", "first"]).ok();
        manager.ctl(&["start", "first"]).ok();
        assert_eq!(address(&manager, "first"), "172.30.0.2");
        reaches(&manager, "first", GATEWAY);
        reaches(&manager, "second", "172.30.0.2");
    }

    manager.ctl(&["rm", "-f", "first"]).ok();
    run_detached(&manager, &image, &["--name", "third"]);
    assert_eq!(address(&manager, "third"), "172.30.0.2");
    reaches(&manager, "second", "172.30.0.2");
}

#[test]
fn containers_started_at_once_have_addresses_of_their_own() {
    const CONTAINERS: usize = 8;
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let starting: Vec<_> = (0..CONTAINERS)
        .map(|_| {
            let mut command = manager.ctl_command(&[&["run", "-d", &image], FOREVER].concat());
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().expect("start managerctl")
        })
        .collect();
    let ids: Vec<String> = starting
        .into_iter()
        .map(|child| finish(child, "managerctl run".to_owned()).ok().trim().to_owned())
        .collect();
    let mut addresses: Vec<String> = ids.iter().map(|id| address(&manager, id)).collect();
    for (id, address) in ids.iter().zip(&addresses) {
        let shown = exec(
            &manager,
            id,
            &["busybox", "ip", "-o", "-4", "address", "show", "eth0"],
        )
        .ok();
        assert!(shown.contains(&format!("inet {address}/16 ")), "{shown}");
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), CONTAINERS);
    assert_eq!(containers_links(&manager).len(), CONTAINERS);
}

#[test]
fn nothing_is_left_of_containers_and_the_bridge_stays_for_the_next() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let before = (links(&manager), rules(&manager));
    assert!(
        before.0.contains(&"berth0".to_owned()) && before.1.contains("table inet berth"),
        "{before:?}"
    );

    manager.ctl(&["run", "--rm", &image, "true"]).ok();
    let id = run_detached(&manager, &image, &[]);
    assert_eq!(containers_links(&manager).len(), 1);
    manager.ctl(&["rm", "-f", &id]).ok();
    assert_eq!((links(&manager), rules(&manager)), before);

    // A container may outlive the manager; so the network does.
    manager.stop();
    assert_eq!((links(&manager), rules(&manager)), before);
    manager.start_again();
    assert_eq!((links(&manager), rules(&manager)), before);
}

#[test]
fn the_network_works_without_a_manager() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let id = run_detached(&manager, &image, &[]);
    let address = address(&manager, &id);
    manager.kill();
    run(manager
        .inside("busybox")
        .args(["ping", "-c", "1", "-w", "30", &address]))
    .ok();
    manager.start_again();
    reaches(&manager, &id, GATEWAY);
    assert_eq!(containers_links(&manager).len(), 1);
}

#[test]
fn a_link_without_an_owner_goes_at_the_next_start() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let other = run_detached(&manager, &image, &["--name", "other"]);
    manager.stop();
    manager.set_failpoint(Some("start.network-connected"));
    manager.start_again();
    let done = manager.ctl(&[&["run", "-d", "--name", "cut", &image], FOREVER].concat());
    assert_ne!(done.code, 0, "{done}");
    manager.await_end();
    assert_eq!(containers_links(&manager).len(), 2);

    manager.set_failpoint(None);
    manager.start_again();
    eventually("the orphaned link is gone", || {
        (containers_links(&manager).len() == 1).then_some(())
    });
    reaches(&manager, &other, GATEWAY);
    manager.ctl(&["start", "cut"]).ok();
    reaches(&manager, "cut", GATEWAY);
}

#[test]
fn a_firewall_that_keeps_containers_in_is_told_of() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    assert!(
        !manager.log().contains("drops forwarded packets"),
        "{}",
        manager.log()
    );
    let chain =
        "add table ip other; add chain ip other WALL { type filter hook forward priority 0; policy drop; }";
    run(manager.inside("nft").arg(chain)).ok();
    manager.stop();
    manager.start_again();
    let log = manager.log();
    let warning = log.lines().find(|line| line.contains("drops forwarded packets"));
    let warning = warning.unwrap_or_else(|| panic!("nothing is said in\n{log}"));
    assert!(
        warning.contains("WARN") && warning.contains("table ip other chain WALL"),
        "{warning}"
    );
}

#[test]
fn a_subnet_in_use_stops_the_manager_with_the_users_name() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    manager.stop();
    let on_host = |line: &str| run(manager.inside("ip").args(line.split(' '))).ok();
    on_host("link delete berth0");
    on_host("link add uplink type veth peer name far");
    on_host("address add 172.30.7.1/24 dev uplink");
    let mut command = manager.inside(&binary("manager").to_string_lossy());
    command
        .arg("--root")
        .arg(manager.root())
        .arg("--state")
        .arg(manager.state());
    let error = run(&mut command).refused();
    assert!(
        error.contains("subnet 172.30.0.0/16") && error.contains("172.30.7.1/24 of link uplink"),
        "{error}"
    );
    assert!(!links(&manager).contains(&"berth0".to_owned()));

    run(manager.inside("ip").args(["link", "delete", "uplink"])).ok();
    manager.start_again();
}
