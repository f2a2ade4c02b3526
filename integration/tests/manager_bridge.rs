//! Coming to the default bridge and leaving it, as with networks that users made.

use integration::{Manager, Sandbox};
use serde_json::Value;

#[track_caller]
fn run_detached(manager: &Manager, image: &str, name: &str, flags: &[&str]) {
    integration::run_detached(manager, image, name, &[&["-h", name], flags].concat());
}

#[track_caller]
fn exec(manager: &Manager, container: &str, command: &str) -> String {
    integration::exec(manager, container, command).ok()
}

#[track_caller]
fn change(manager: &Manager, what: &str, container: &str) {
    manager.ctl(&["network", what, "bridge", container]).ok();
}

/// Its address on the default bridge without the prefix, as `network inspect` tells it; none if it is not there.
#[track_caller]
fn on_bridge(manager: &Manager, container: &str) -> Option<String> {
    let members = manager.network("bridge")["containers"].take();
    let members = members.as_object()?.values().cloned().collect::<Vec<Value>>();
    let member = members.into_iter().find(|member| member["name"] == container)?;
    let (address, _) = member["address"].as_str()?.split_once('/')?;
    Some(address.to_owned())
}

/// Whether the container has a link of this name, its way out is this one, and its hosts have its address on the bridge.
#[track_caller]
fn assert_is(manager: &Manager, container: &str, link: (&str, bool), way_out: &str) {
    let links = exec(manager, container, "busybox ip link");
    assert_eq!(links.contains(&format!("{}@", link.0)), link.1, "{links}");
    let routes = exec(manager, container, "busybox ip route");
    let way = format!("default via {way_out}");
    assert_eq!(
        routes.matches("default via").count(),
        usize::from(!way_out.is_empty()),
        "{routes}"
    );
    assert!(way_out.is_empty() || routes.contains(&way), "{routes}");
    let hosts = exec(manager, container, "cat /etc/hosts");
    if let Some(address) = on_bridge(manager, container) {
        assert!(hosts.contains(&format!("{address}\t{container}\n")), "{hosts}");
    } else {
        let is_left = |line: &str| line.starts_with("172.30.0.") && line.ends_with(&format!("\t{container}"));
        assert!(!hosts.lines().any(is_left), "{hosts}");
    }
}

/// How often this manager has told of an action on the default bridge.
#[track_caller]
fn told(manager: &Manager, action: &str) -> usize {
    let past = ["--since", "1h", "--until", "0s", "--filter", "type=network"];
    let events = manager.ctl(&[&["events"], &past[..]].concat()).ok();
    let is_meant = |line: &&str| line.contains(&format!(" {action} ")) && line.contains("name=bridge");
    events.lines().filter(is_meant).count()
}

#[test]
fn a_container_of_another_network_comes_to_the_bridge_and_leaves_it() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "one"])
        .ok();
    run_detached(&manager, &image, "plain", &[]);
    run_detached(&manager, &image, "web", &["--network", "one"]);
    let plain = on_bridge(&manager, "plain").expect("it is on the bridge");
    manager.assert_no_pings("web", "ping", &plain);
    let refused = manager
        .ctl(&["network", "connect", "--ip", "172.30.0.9", "bridge", "web"])
        .refused();
    assert!(refused.contains("network create"), "{refused}");

    change(&manager, "connect", "web");
    let address = on_bridge(&manager, "web").expect("it is on the bridge");
    assert_is(&manager, "web", ("eth1", true), "10.77.0.1 dev eth0");
    manager.assert_pings("web", "ping", &plain);
    manager.assert_pings("plain", "ping", &address);
    // Nobody is found by name on the bridge, everybody elsewhere.
    assert!(exec(&manager, "web", "busybox nslookup web").contains("10.77.0.2"));
    manager
        .ctl(&["exec", "web", "busybox", "nslookup", "plain"])
        .refused();
    let shown = manager.ctl(&[
        "ps",
        "--filter",
        "network=bridge",
        "--format",
        "{{.Names}} {{.Networks}}",
    ]);
    assert_eq!(shown.ok(), "web bridge,one\nplain bridge\n");
    let refused = manager.ctl(&["network", "connect", "bridge", "web"]).refused();
    assert!(refused.contains("already"), "{refused}");

    assert_eq!(told(&manager, "connect"), 1);

    // It stays so, for the next run and the next manager.
    manager.ctl(&["restart", "-t", "0", "web"]).ok();
    assert_is(&manager, "web", ("eth1", true), "10.77.0.1 dev eth0");
    manager.kill();
    manager.start_again();
    assert_eq!(on_bridge(&manager, "web").as_ref(), Some(&address));
    assert_is(&manager, "web", ("eth1", true), "10.77.0.1 dev eth0");
    manager.assert_pings("web", "ping", &plain);

    // The bridge takes the place of the way out that goes.
    manager.ctl(&["network", "disconnect", "one", "web"]).ok();
    assert_is(&manager, "web", ("eth0", false), "172.30.0.1 dev eth1");
    manager.ctl(&["network", "connect", "one", "web"]).ok();
    assert_is(&manager, "web", ("eth2", true), "172.30.0.1 dev eth1");
    change(&manager, "disconnect", "web");
    assert_is(&manager, "web", ("eth1", false), "10.77.0.1 dev eth2");
    manager.assert_no_pings("web", "ping", &plain);
    let refused = manager.ctl(&["network", "disconnect", "bridge", "web"]).refused();
    assert!(refused.contains("not connected"), "{refused}");
    // Its address is free again.
    run_detached(&manager, &image, "next", &[]);
    assert_eq!(on_bridge(&manager, "next").as_ref(), Some(&address));

    assert_eq!(told(&manager, "disconnect"), 1);
}

#[test]
fn a_container_of_the_bridge_leaves_it_and_comes_back() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "one"])
        .ok();
    run_detached(&manager, &image, "peer", &["--network", "one"]);
    run_detached(&manager, &image, "other", &[]);
    run_detached(&manager, &image, "web", &["--link", "other:db", "-p", "8080:80"]);
    let refused = manager.ctl(&["network", "disconnect", "bridge", "web"]).refused();
    assert!(refused.contains("published ports"), "{refused}");
    manager.ctl(&["rm", "-f", "web"]).ok();

    run_detached(&manager, &image, "web", &["--link", "other:db"]);
    assert!(exec(&manager, "web", "cat /etc/hosts").contains("db"));
    change(&manager, "disconnect", "web");
    assert_is(&manager, "web", ("eth0", false), "");
    assert_eq!(manager.inspect("web")["address"], Value::Null);
    // Without any network it starts all the same, and knows nobody there any more.
    manager.ctl(&["restart", "-t", "0", "web"]).ok();
    assert_is(&manager, "web", ("eth0", false), "");
    assert!(!exec(&manager, "web", "cat /etc/hosts").contains("db"));

    manager.ctl(&["network", "connect", "one", "web"]).ok();
    assert_is(&manager, "web", ("eth0", true), "10.77.0.1 dev eth0");
    assert!(exec(&manager, "web", "busybox nslookup peer").contains("10.77.0.2"));
    // While it does not run, too.
    manager.ctl(&["stop", "-t", "0", "web"]).ok();
    change(&manager, "connect", "web");
    manager.ctl(&["network", "disconnect", "one", "web"]).ok();
    manager.ctl(&["start", "web"]).ok();
    assert_is(&manager, "web", ("eth1", true), "172.30.0.1 dev eth1");
    assert!(exec(&manager, "web", "cat /etc/hosts").contains("db"));
}

/// Nothing acknowledged is lost, and nothing is left of what was not.
#[test]
fn a_kill_in_between_is_put_right() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "one"])
        .ok();
    run_detached(&manager, &image, "web", &["--network", "one"]);
    let before = manager.inspect("web")["pid"].take();
    let at = |manager: &mut Manager, point: &str, what: &str, network: &str| {
        manager.die_at(point, |manager| {
            drop(manager.ctl(&["network", what, network, "web"]).refused());
        });
    };
    at(&mut manager, "connect.recorded", "connect", "bridge");
    assert_is(&manager, "web", ("eth1", true), "10.77.0.1 dev eth0");
    manager.assert_pings("web", "ping", "172.30.0.1");
    at(&mut manager, "disconnect.unlinked", "disconnect", "bridge");
    assert_is(&manager, "web", ("eth1", true), "10.77.0.1 dev eth0");
    // Between the row of the network by which it went out and the route by the bridge.
    at(&mut manager, "disconnect.recorded", "disconnect", "one");
    assert_is(&manager, "web", ("eth0", false), "172.30.0.1 dev eth1");
    manager.assert_pings("web", "ping", "172.30.0.1");
    manager.ctl(&["network", "connect", "one", "web"]).ok();
    at(&mut manager, "disconnect.recorded", "disconnect", "bridge");
    assert_is(&manager, "web", ("eth1", false), "10.77.0.1 dev eth2");
    assert_eq!(on_bridge(&manager, "web"), None);
    assert_eq!(manager.inspect("web")["pid"], before, "it runs on");
}
