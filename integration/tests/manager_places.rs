//! What a container's place on a network has of its own: its priority as the way out, options of the driver, and further
//! addresses.

use integration::{Done, Manager, Sandbox, run};
use serde_json::Value;

#[track_caller]
fn ctl(manager: &Manager, command: &str) -> Done {
    let words: Vec<_> = command.split(' ').collect();
    manager.ctl(&words)
}

#[track_caller]
fn run_detached(manager: &Manager, image: &str, name: &str, flags: &str) {
    let flags: Vec<_> = flags.split(' ').collect();
    integration::run_detached(manager, image, name, &flags);
}

/// What the container goes out by: all its default routes.
#[track_caller]
fn way_out(manager: &Manager, container: &str) -> String {
    let routes = ctl(manager, &format!("exec {container} busybox ip route")).ok();
    let default = routes.lines().filter(|route| route.starts_with("default"));
    default.map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Networks 10.77.0.0/24 and so on.
fn create_networks(manager: &Manager, names: &[&str]) {
    for (name, number) in names.iter().zip(77..) {
        ctl(
            manager,
            &format!("network create --subnet 10.{number}.0.0/24 {name}"),
        )
        .ok();
    }
}

#[test]
fn the_network_with_the_highest_priority_is_the_way_out() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two", "three"]);
    ctl(&manager, "network create --internal inner").ok();
    run_detached(
        &manager,
        &image,
        "web",
        "--network one --network name=two,gw-priority=5 --network name=inner,gw-priority=9",
    );
    // A network without a way out is none, whatever its priority.
    let by_two = "default via 10.78.0.1 dev eth1";
    assert_eq!(way_out(&manager, "web"), by_two);
    let priority = |manager: &Manager, network: &str| manager.place("web", network)["gwPriority"].take();
    assert_eq!(priority(&manager, "one"), 0);
    assert_eq!(priority(&manager, "two"), 5);

    // One that is equal comes after those that were there.
    ctl(&manager, "network connect --gw-priority 5 three web").ok();
    assert_eq!(way_out(&manager, "web"), by_two);
    ctl(&manager, "network disconnect three web").ok();
    assert_eq!(way_out(&manager, "web"), by_two);
    ctl(&manager, "network connect --gw-priority 10 three web").ok();
    let by_three = "default via 10.79.0.1 dev eth3";
    assert_eq!(way_out(&manager, "web"), by_three);
    manager.assert_pings("web", "ping", "10.78.0.1");

    manager.kill();
    manager.start_again();
    assert_eq!(way_out(&manager, "web"), by_three);
    ctl(&manager, "restart -t 0 web").ok();
    assert_eq!(way_out(&manager, "web"), by_three);
    assert_eq!(priority(&manager, "three"), 10);
    ctl(&manager, "network disconnect three web").ok();
    assert_eq!(way_out(&manager, "web"), by_two);
    ctl(&manager, "network disconnect two web").ok();
    assert_eq!(way_out(&manager, "web"), "default via 10.77.0.1 dev eth0");
    ctl(&manager, "network connect --gw-priority=-1 two web").ok();
    assert_eq!(way_out(&manager, "web"), "default via 10.77.0.1 dev eth0");
    ctl(&manager, "network disconnect one web").ok();
    assert!(way_out(&manager, "web").starts_with("default via 10.78.0.1"));

    let refused = ctl(
        &manager,
        &format!("run --network name=one,gw-priority=a {image} true"),
    )
    .refused();
    assert!(refused.contains("gw-priority (a)"), "{refused}");
}

#[test]
fn the_default_bridge_is_the_way_out_unless_another_has_a_priority() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two"]);
    run_detached(&manager, &image, "web", "--network bridge");
    let by_bridge = way_out(&manager, "web");
    assert!(by_bridge.ends_with("dev eth0"), "{by_bridge}");
    ctl(&manager, "network connect one web").ok();
    assert_eq!(way_out(&manager, "web"), by_bridge);
    ctl(&manager, "network connect --gw-priority 1 two web").ok();
    let by_two = "default via 10.78.0.1 dev eth2";
    assert_eq!(way_out(&manager, "web"), by_two);
    ctl(&manager, "restart -t 0 web").ok();
    assert_eq!(way_out(&manager, "web"), by_two);
    manager.kill();
    manager.start_again();
    assert_eq!(way_out(&manager, "web"), by_two);
    ctl(&manager, "network disconnect two web").ok();
    assert_eq!(way_out(&manager, "web"), by_bridge);
}

#[test]
fn published_ports_follow_the_way_out_at_the_next_start() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two"]);
    run_detached(&manager, &image, "web", "-p 8080:80 --network one");
    let refused = ctl(&manager, "network connect --gw-priority 1 two web").refused();
    assert!(
        refused.contains("published ports") && refused.contains("stop it"),
        "{refused}"
    );
    assert_eq!(manager.place("web", "two"), Value::Null);
    assert_eq!(way_out(&manager, "web"), "default via 10.77.0.1 dev eth0");
    assert!(manager.rules().contains("10.77.0.2 . 80"), "{}", manager.rules());
    ctl(&manager, "stop -t 0 web").ok();
    ctl(&manager, "network connect --gw-priority 1 two web").ok();
    ctl(&manager, "start web").ok();
    assert_eq!(way_out(&manager, "web"), "default via 10.78.0.1 dev eth1");
    assert!(manager.rules().contains("10.78.0.2 . 80"), "{}", manager.rules());
}

/// Whatever is on record holds, and nothing else does.
#[test]
fn a_kill_in_between_leaves_the_way_out_that_is_on_record() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two"]);
    let at = |manager: &mut Manager, point: &str, command: &str| {
        manager.die_at(point, |manager| drop(ctl(manager, command).refused()));
    };
    for (name, flags, before) in [
        ("plain", "--network bridge", "default via 172.30.0.1 dev eth0"),
        ("web", "--network one", "default via 10.77.0.1 dev eth0"),
    ] {
        run_detached(&manager, &image, name, flags);
        assert_eq!(way_out(&manager, name), before);
        let by_two = "default via 10.78.0.1 dev eth1";
        at(
            &mut manager,
            "connect.recorded",
            &format!("network connect --gw-priority 3 two {name}"),
        );
        assert_eq!(way_out(&manager, name), by_two);
        at(
            &mut manager,
            "disconnect.unlinked",
            &format!("network disconnect two {name}"),
        );
        assert_eq!(way_out(&manager, name), by_two);
        at(
            &mut manager,
            "disconnect.recorded",
            &format!("network disconnect two {name}"),
        );
        assert_eq!(way_out(&manager, name), before);

        // A route that the container made itself is its own.
        let pid = manager.inspect(name)["pid"].take();
        let netns = format!("--net=/proc/{pid}/ns/net");
        let own = ["ip", "route", "replace", "default", "dev", "eth0"];
        run(std::process::Command::new("nsenter").arg(&netns).args(own)).ok();
        manager.kill();
        manager.start_again();
        assert_eq!(way_out(&manager, name), "default dev eth0 scope link");
    }
}

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

#[track_caller]
fn setting(manager: &Manager, container: &str, path: &str) -> String {
    let read = ctl(manager, &format!("exec {container} cat /proc/sys/net/{path}"));
    read.ok().trim().to_owned()
}

#[track_caller]
fn has_link(manager: &Manager, container: &str, name: &str) -> bool {
    ctl(manager, &format!("exec {container} busybox ip link"))
        .ok()
        .contains(&format!(" {name}@"))
}

#[test]
fn a_link_has_the_name_and_the_settings_that_were_asked_for() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two", "three", "four"]);
    let sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.gc_stale_time=33";
    run_detached(
        &manager,
        &image,
        "web",
        &format!(
            "--network one --network name=two,driver-opt={IFNAME}=wan,\"driver-opt={SYSCTLS}={sysctls}\""
        ),
    );
    let assert_is = |manager: &Manager| {
        for (path, value) in [
            ("ipv4/conf/wan/log_martians", "1"),
            ("ipv4/neigh/wan/gc_stale_time", "33"),
            ("ipv4/conf/eth0/log_martians", "0"),
        ] {
            assert_eq!(setting(manager, "web", path), value, "{path}");
        }
        let place = manager.place("web", "two");
        assert_eq!(place["link"], "wan");
        assert_eq!(place["driverOpts"][IFNAME], "wan");
        assert_eq!(place["driverOpts"][SYSCTLS], sysctls);
        manager.assert_pings("web", "ping", "10.78.0.1");
    };
    assert_is(&manager);

    // A number that a user gave away is nobody else's.
    ctl(
        &manager,
        &format!("network connect --driver-opt {IFNAME}=eth3 three web"),
    )
    .ok();
    ctl(&manager, "network connect four web").ok();
    assert_eq!(manager.place("web", "three")["link"], "eth3");
    assert_eq!(manager.place("web", "four")["link"], "eth4");
    manager.assert_pings("web", "ping", "10.80.0.1");

    manager.kill();
    manager.start_again();
    ctl(&manager, "restart -t 0 web").ok();
    assert_is(&manager);
    assert!(has_link(&manager, "web", "eth3") && has_link(&manager, "web", "eth4"));
    ctl(&manager, "network disconnect two web").ok();
    assert!(!has_link(&manager, "web", "wan"));
}

#[test]
fn options_that_a_place_cannot_have_are_refused_and_leave_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two"]);
    run_detached(&manager, &image, "web", "--network one");
    for (option, reason) in [
        (
            format!("{IFNAME}=eth0"),
            "another link of the container has this name",
        ),
        (format!("{IFNAME}=lo"), "is no name for a container's link"),
        (format!("{IFNAME}=a/b"), "is no name for a container's link"),
        (
            format!("{IFNAME}=sixteen-letters-"),
            "is no name for a container's link",
        ),
        (
            "com.example.speed=9".to_owned(),
            "\"com.example.speed\" is not done",
        ),
        (
            format!("{SYSCTLS}=net.ipv4.conf.eth0.log_martians=1"),
            "unrecognised network interface sysctl",
        ),
        (
            format!("{SYSCTLS}=net.ipv4.conf.IFNAME./../all/forwarding=1"),
            "unrecognised network interface sysctl",
        ),
        // What is none is known to the kernel alone.
        (
            format!("{SYSCTLS}=net.ipv4.conf.IFNAME.no_such=1"),
            "/proc/sys/net/ipv4/conf/eth1/no_such",
        ),
        (
            format!("{SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.rp_filter=0"),
            "in quotes",
        ),
    ] {
        let refused = ctl(
            &manager,
            &format!("network connect --driver-opt {option} two web"),
        )
        .refused();
        assert!(refused.contains(reason), "{option}: {refused}");
        assert_eq!(manager.place("web", "two"), Value::Null, "{option}");
        assert!(!has_link(&manager, "web", "eth1"), "{option}");
        let run = format!("run --network one --network name=two,driver-opt={option} {image} true");
        ctl(&manager, &run).refused();
    }
    let named = ctl(
        &manager,
        &format!("run --network name=bridge,driver-opt={IFNAME}=a {image} true"),
    );
    assert!(named.refused().contains("user defined networks only"));
    ctl(&manager, "network connect two web").ok();
    assert_eq!(manager.place("web", "two")["link"], "eth1");
}

#[test]
fn a_kill_in_between_leaves_a_link_with_its_name_and_settings() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two"]);
    run_detached(&manager, &image, "web", "--network one");
    let sysctl = "net.ipv4.conf.IFNAME.log_martians=1";
    let connect =
        format!("network connect --driver-opt {IFNAME}=wan --driver-opt {SYSCTLS}={sysctl} two web");
    manager.die_at("connect.recorded", |manager| {
        ctl(manager, &connect).refused();
    });
    assert_eq!(setting(&manager, "web", "ipv4/conf/wan/log_martians"), "1");
    manager.assert_pings("web", "ping", "10.78.0.1");
    manager.die_at("disconnect.unlinked", |manager| {
        ctl(manager, "network disconnect two web").refused();
    });
    assert_eq!(setting(&manager, "web", "ipv4/conf/wan/log_martians"), "1");
    manager.die_at("disconnect.recorded", |manager| {
        ctl(manager, "network disconnect two web").refused();
    });
    assert!(!has_link(&manager, "web", "wan"));
}

#[test]
fn a_place_has_more_addresses_of_its_link() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create_networks(&manager, &["one", "two"]);
    run_detached(
        &manager,
        &image,
        "web",
        "--network one --link-local-ip 169.254.7.7 --link-local-ip 169.254.7.8",
    );
    run_detached(
        &manager,
        &image,
        "peer",
        "--network two --network name=one,link-local-ip=169.254.8.8",
    );
    run_detached(&manager, &image, "plain", "--network bridge");
    ctl(
        &manager,
        "network connect --link-local-ip 169.254.9.9,169.254.9.10 one plain",
    )
    .ok();
    let assert_all = |manager: &Manager| {
        manager.assert_pings("web", "ping", "169.254.8.8");
        manager.assert_pings("peer", "ping", "169.254.9.10");
        manager.assert_pings("plain", "ping", "169.254.7.8");
        let shown = manager.place("web", "one")["linkLocalIps"].take();
        assert_eq!(shown, serde_json::json!(["169.254.7.7", "169.254.7.8"]));
        // Packets to elsewhere are from its other address.
        let route = ctl(manager, "exec web busybox ip route get 192.0.2.7").ok();
        assert!(route.contains("src 10.77.0.2"), "{route}");
    };
    assert_all(&manager);
    manager.kill();
    manager.start_again();
    assert_all(&manager);
    ctl(&manager, "restart -t 0 web").ok();
    assert_all(&manager);

    for (address, reason) in [
        ("169.253.5.5", "is no host's of 169.254.0.0/16 or fe80::/10"),
        ("2001:db8::89", "is no host's of 169.254.0.0/16 or fe80::/10"),
        ("169.254.7", "invalid link-local IP address"),
        ("169.254.8.8", "already in use on network one"),
        ("fe80::7", "network one has no IPv6"),
    ] {
        let run = format!("run --network one --link-local-ip {address} {image} true");
        let refused = ctl(&manager, &run).refused();
        assert!(refused.contains(reason), "{address}: {refused}");
    }
    let named = format!("run --link-local-ip 169.254.7.9 {image} true");
    let refused = ctl(&manager, &named).refused();
    assert!(refused.contains("user defined networks only"), "{refused}");

    ctl(&manager, "network disconnect one plain").ok();
    manager.die_at("connect.recorded", |manager| {
        ctl(manager, "network connect --link-local-ip 169.254.9.9 one plain").refused();
    });
    manager.assert_pings("web", "ping", "169.254.9.9");
}
