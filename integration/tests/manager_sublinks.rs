//! Networks of the drivers macvlan and ipvlan: containers as neighbours of the host's neighbours. What this kernel has no
//! module for is tested where there is one (`hack/vm-tests manager_sublinks`).

use integration::{Done, Manager, Outside, Sandbox, eventually, run, run_detached};

/// Of the network on the link to the other machine, which is the router.
const LAN: &[&str] = &[
    "-o",
    "parent=uplink",
    "--subnet",
    "192.0.2.0/24",
    "--gateway",
    "192.0.2.2",
    "--ip-range",
    "192.0.2.64/26",
    "--aux-address",
    "first=192.0.2.64",
];

#[track_caller]
fn create_lan(manager: &Manager, name: &str, flags: &[&str]) {
    manager
        .ctl(&[&["network", "create"], flags, LAN, &[name]].concat())
        .ok();
}

#[track_caller]
fn exec(manager: &Manager, container: &str, command: &str) -> Done {
    integration::exec(manager, container, &format!("busybox {command}"))
}

#[track_caller]
fn assert_reaches(manager: &Manager, container: &str, address: &str) {
    manager.assert_pings(container, "ping", address);
}

/// The links that the container itself sees, with their addresses.
#[track_caller]
fn links(manager: &Manager, container: &str) -> String {
    exec(manager, container, "ip address").ok()
}

#[track_caller]
fn default_route(manager: &Manager, container: &str) -> String {
    let routes = exec(manager, container, "ip route").ok();
    let default = routes.lines().find(|line| line.starts_with("default"));
    default.unwrap_or_default().trim().to_owned()
}

/// Whether this kernel has such links: a machine can be booted that does.
fn kernel_has(manager: &Manager, kind: &str) -> bool {
    let name = "probe0";
    let more: &[&str] = match kind {
        "dummy" => &[],
        "vlan" => &["id", "9"],
        _ => &["mode", "l2"],
    };
    let below: &[&str] = if kind == "dummy" { &[] } else { &["link", "uplink"] };
    let add = [&["link", "add"], below, &["name", name, "type", kind], more].concat();
    let made = run(manager.inside("ip").args(add)).code == 0;
    if made {
        run(manager.inside("ip").args(["link", "delete", name])).ok();
    } else {
        println!(
            "skipped: this kernel has no {kind} links (hack/vm-tests manager_sublinks boots one that does)"
        );
    }
    made
}

#[test]
fn macvlan_containers_are_neighbours_of_the_hosts() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_alone(&sandbox);
    let image = manager.load_busybox();
    let outside = Outside::new(&sandbox, &manager);
    let before = run(manager.inside("ip").args(["-o", "link"])).ok();
    create_lan(&manager, "lan", &["-d", "macvlan"]);
    run_detached(&manager, &image, "web", &["--network", "lan", "-p", "8080:80"]);
    let flags = [
        "--network",
        "lan",
        "--ip",
        "192.0.2.70",
        "--mac-address",
        "02:00:00:00:00:70",
    ];
    run_detached(&manager, &image, "db", &flags);

    assert_eq!(manager.place("web", "lan")["address"], "192.0.2.65/24");
    assert_eq!(manager.place("db", "lan")["address"], "192.0.2.70/24");
    assert!(links(&manager, "db").contains("02:00:00:00:00:70"));
    assert_eq!(default_route(&manager, "web"), "default via 192.0.2.2 dev eth0");
    // By name, and by the wire.
    for address in ["db", "192.0.2.70", "192.0.2.2"] {
        assert_reaches(&manager, "web", address);
    }
    let ping = ["ping", "-c", "1", "-w", "30", "192.0.2.70"];
    run(outside.inside("busybox").args(ping)).ok();
    let known = run(outside.inside("ip").args(["neigh", "show", "192.0.2.70"])).ok();
    assert!(known.contains("02:00:00:00:00:70"), "{known}");
    // The kernel keeps the host from links on its own.
    manager.assert_no_pings("web", "ping", "192.0.2.1");
    // Nothing of it is the host's: no link, and as with docker no port.
    let now = run(manager.inside("ip").args(["-o", "link"])).ok();
    let count = |text: &str| text.lines().count();
    assert_eq!(count(&now), count(&before), "{now}");
    assert_eq!(manager.ctl(&["port", "web"]).ok(), "");

    // Stopped and started it is the same one again.
    manager.ctl(&["restart", "-t", "0", "db"]).ok();
    assert_reaches(&manager, "web", "db");
    let shown = manager.ctl(&["network", "inspect", "lan"]).ok();
    assert!(
        shown.contains("\"driver\": \"macvlan\"") && shown.contains("02:00:00:00:00:70"),
        "{shown}"
    );
    let used = manager.ctl(&["network", "rm", "lan"]).refused();
    assert!(used.contains("web"), "{used}");
    manager.ctl(&["rm", "-f", "web", "db"]).ok();
    manager.ctl(&["network", "rm", "lan"]).ok();
}

#[test]
fn modes_keep_containers_apart() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_alone(&sandbox);
    let image = manager.load_busybox();
    let _outside = Outside::new(&sandbox, &manager);
    create_lan(
        &manager,
        "private",
        &["-d", "macvlan", "-o", "macvlan_mode=private"],
    );
    for name in ["one", "two"] {
        run_detached(&manager, &image, name, &["--network", "private"]);
    }
    assert_reaches(&manager, "one", "192.0.2.2");
    manager.assert_no_pings("one", "ping", "two");
    let refused = |flags: &[&str], why: &str| {
        let done = manager.ctl(&[&["network", "create"], flags, &["other"]].concat());
        assert!(done.code != 0 && done.stderr.contains(why), "{flags:?}: {done}");
    };
    let passthru = [
        "-d",
        "macvlan",
        "-o",
        "parent=uplink",
        "-o",
        "macvlan_mode=passthru",
    ];
    refused(
        &passthru,
        "network private is already using parent interface uplink",
    );
    refused(&["-d", "macvlan", "-o", "parent=nothing"], "no such link");
    refused(&["-d", "macvlan", "-o", "parent=lo"], "loopback");
    refused(&["-d", "macvlan", "-o", "macvlan_mode=l2"], "passthru");
    refused(
        &["-d", "macvlan", "--subnet", "192.0.2.0/25", "-o", "parent=uplink"],
        "overlaps",
    );
    assert_eq!(
        manager
            .ctl(&["network", "ls", "-q", "-f", "type=custom"])
            .ok()
            .lines()
            .count(),
        1
    );

    manager.ctl(&["rm", "-f", "one", "two"]).ok();
    manager.ctl(&["network", "rm", "private"]).ok();
    create_lan(
        &manager,
        "through",
        &["-d", "macvlan", "-o", "macvlan_mode=passthru"],
    );
    run_detached(&manager, &image, "one", &["--network", "through"]);
    assert_reaches(&manager, "one", "192.0.2.2");
    let second = manager
        .ctl(&["run", "-d", "--network", "through", &image, "true"])
        .refused();
    assert!(second.contains("parent uplink"), "{second}");
}

#[test]
fn a_running_container_comes_and_goes_and_leaves_by_its_first_network() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_alone(&sandbox);
    let image = manager.load_busybox();
    let _outside = Outside::new(&sandbox, &manager);
    create_lan(&manager, "lan", &["-d", "macvlan"]);
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "web"])
        .ok();
    run_detached(&manager, &image, "plain", &[]);
    manager
        .ctl(&["network", "connect", "--ip", "192.0.2.80", "lan", "plain"])
        .ok();
    assert!(links(&manager, "plain").contains("192.0.2.80/24"));
    assert_reaches(&manager, "plain", "192.0.2.2");
    assert!(default_route(&manager, "plain").contains("172.30.0.1"));
    manager.ctl(&["network", "disconnect", "lan", "plain"]).ok();
    assert!(!links(&manager, "plain").contains("macvlan") && !links(&manager, "plain").contains("192.0.2"));

    run_detached(
        &manager,
        &image,
        "both",
        &["--network", "lan", "--network", "web"],
    );
    assert_eq!(default_route(&manager, "both"), "default via 192.0.2.2 dev eth0");
    for address in ["192.0.2.2", "10.77.0.1"] {
        assert_reaches(&manager, "both", address);
    }
    manager.ctl(&["network", "disconnect", "lan", "both"]).ok();
    assert_eq!(default_route(&manager, "both"), "default via 10.77.0.1 dev eth1");
    manager.ctl(&["network", "connect", "lan", "both"]).ok();
    assert_reaches(&manager, "both", "192.0.2.2");
    assert_eq!(default_route(&manager, "both"), "default via 10.77.0.1 dev eth1");

    // Its priority counts there, too.
    manager.ctl(&["network", "disconnect", "lan", "both"]).ok();
    let connect = ["network", "connect", "--gw-priority", "1", "lan"];
    for name in ["both", "plain"] {
        let before = default_route(&manager, name);
        manager.ctl(&[&connect[..], &[name]].concat()).ok();
        let out = default_route(&manager, name);
        assert!(out.starts_with("default via 192.0.2.2 dev eth"), "{out}");
        manager.ctl(&["network", "disconnect", "lan", name]).ok();
        assert_eq!(default_route(&manager, name), before);
    }

    // Who shares its network loses the link with it, so that the next run may have the address.
    run_detached(
        &manager,
        &image,
        "owner",
        &["--network", "lan", "--ip", "192.0.2.90"],
    );
    run_detached(&manager, &image, "guest", &["--network", "container:owner"]);
    assert!(links(&manager, "guest").contains("192.0.2.90"));
    manager.ctl(&["stop", "-t", "0", "owner"]).ok();
    assert!(!links(&manager, "guest").contains("192.0.2.90"));
    manager.ctl(&["start", "owner"]).ok();
    assert_reaches(&manager, "owner", "192.0.2.2");
}

#[test]
fn a_killed_manager_leaves_links_where_they_belong() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start_alone(&sandbox);
    let image = manager.load_busybox();
    let _outside = Outside::new(&sandbox, &manager);
    let at = |manager: &mut Manager, point: &str, arguments: &[&str]| {
        manager.die_at(point, |manager| drop(manager.ctl(arguments).refused()));
    };
    create_lan(&manager, "lan", &["-d", "macvlan"]);
    run_detached(&manager, &image, "web", &[]);
    let pid = manager.inspect("web")["pid"].take();
    for point in ["connect.recorded", "sublink.made", "sublink.named"] {
        at(
            &mut manager,
            point,
            &["network", "connect", "--ip", "192.0.2.80", "lan", "web"],
        );
        let inside = links(&manager, "web");
        assert_eq!(inside.matches("192.0.2.80/24").count(), 1, "{point}: {inside}");
        assert_reaches(&manager, "web", "192.0.2.2");
        at(
            &mut manager,
            "disconnect.recorded",
            &["network", "disconnect", "lan", "web"],
        );
        assert!(!links(&manager, "web").contains("192.0.2.80"), "{point}");
    }
    let before = default_route(&manager, "web");
    for point in ["connect.recorded", "sublink.made", "sublink.named"] {
        let connect = ["network", "connect", "--gw-priority", "1", "lan", "web"];
        at(&mut manager, point, &connect);
        assert!(
            default_route(&manager, "web").contains("via 192.0.2.2"),
            "{point}"
        );
        let disconnect = ["network", "disconnect", "lan", "web"];
        at(&mut manager, "disconnect.recorded", &disconnect);
        assert_eq!(default_route(&manager, "web"), before, "{point}");
    }
    assert_eq!(manager.inspect("web")["pid"], pid, "it has run all the time");
    // With the name and the settings that were asked for.
    for point in ["sublink.made", "sublink.named"] {
        let name = "com.docker.network.endpoint.ifname=wan";
        let sysctl = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
        let options = [
            "--driver-opt",
            name,
            "--driver-opt",
            sysctl,
            "--link-local-ip",
            "169.254.7.7",
        ];
        at(
            &mut manager,
            point,
            &[&["network", "connect"], &options[..], &["lan", "web"]].concat(),
        );
        let setting = exec(&manager, "web", "cat /proc/sys/net/ipv4/conf/wan/log_martians").ok();
        assert_eq!(setting.trim(), "1", "{point}");
        let inside = links(&manager, "web");
        assert_eq!(inside.matches("169.254.7.7/16").count(), 1, "{point}: {inside}");
        assert_reaches(&manager, "web", "192.0.2.2");
        manager.ctl(&["network", "disconnect", "lan", "web"]).ok();
        assert!(!links(&manager, "web").contains("wan"), "{point}");
    }
    for point in ["sublink.made", "start.network-connected"] {
        at(
            &mut manager,
            point,
            &[
                "run",
                "-d",
                "--name",
                "new",
                "--network",
                "lan",
                "--ip",
                "192.0.2.81",
                &image,
                "sleep",
                "3600",
            ],
        );
        eventually("the address is free on the wire", || {
            (!manager.pings("web", "ping", "192.0.2.81", "1")).then_some(())
        });
        manager.ctl(&["rm", "-f", "new"]).ok();
    }
    for point in ["network.recorded", "network.made"] {
        at(
            &mut manager,
            point,
            &[
                "network",
                "create",
                "-d",
                "macvlan",
                "-o",
                "parent=uplink",
                "--subnet",
                "198.51.100.0/24",
                "late",
            ],
        );
        manager.ctl(&["network", "rm", "late"]).ok();
    }
}

#[test]
fn what_the_kernel_lacks_is_named_with_its_module() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_alone(&sandbox);
    let _outside = Outside::new(&sandbox, &manager);
    for (kind, module, flags) in [
        ("ipvlan", "ipvlan", ["-d", "ipvlan", "-o", "parent=uplink"]),
        ("vlan", "8021q", ["-d", "macvlan", "-o", "parent=uplink.10"]),
        ("dummy", "dummy", ["-d", "macvlan", "-o", "macvlan_mode=bridge"]),
    ] {
        let done = manager.ctl(&[&["network", "create"], &flags[..], &["other"]].concat());
        if kernel_has(&manager, kind) {
            done.ok();
            manager.ctl(&["network", "rm", "other"]).ok();
        } else {
            assert!(
                done.stderr.contains(&format!(
                    "links of kind {kind}: load its module with `modprobe {module}`"
                )),
                "{done}"
            );
        }
        assert_eq!(
            manager.ctl(&["network", "ls", "-q", "-f", "type=custom"]).ok(),
            ""
        );
    }
}

#[test]
fn a_parent_that_is_a_vlan_or_leads_nowhere_is_made_and_removed() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start_alone(&sandbox);
    let outside = Outside::new(&sandbox, &manager);
    if !kernel_has(&manager, "vlan") || !kernel_has(&manager, "dummy") {
        return;
    }
    let image = manager.load_busybox();
    let lan = ["--subnet", "198.51.100.0/24", "--gateway", "198.51.100.1"];
    let create = [
        &["network", "create", "-d", "macvlan", "-o", "parent=uplink.10"],
        &lan[..],
    ]
    .concat();
    manager.ctl(&[&create[..], &["tagged"]].concat()).ok();
    manager
        .ctl(&[
            "network",
            "create",
            "-d",
            "macvlan",
            "--subnet",
            "203.0.113.0/24",
            "alone",
        ])
        .ok();
    for line in [
        "link add link eth0 name eth0.10 type vlan id 10",
        "address add 198.51.100.1/24 dev eth0.10",
        "link set eth0.10 up",
    ] {
        run(outside.inside("ip").args(line.split(' '))).ok();
    }
    run_detached(&manager, &image, "one", &["--network", "tagged"]);
    assert_reaches(&manager, "one", "198.51.100.1");
    for name in ["two", "three"] {
        run_detached(&manager, &image, name, &["--network", "alone"]);
    }
    assert_reaches(&manager, "two", "three");
    assert_eq!(default_route(&manager, "two"), "", "it is internal");

    // Made again when they are gone, and only one's own removed.
    manager.ctl(&["rm", "-f", "one", "two", "three"]).ok();
    manager.kill();
    run(manager.inside("ip").args(["link", "delete", "uplink.10"])).ok();
    manager.start_again();
    let parents = |manager: &Manager| {
        let text = run(manager.inside("ip").args(["-o", "link"])).ok();
        (text.contains("uplink.10@"), text.contains("dm-"))
    };
    assert_eq!(parents(&manager), (true, true));
    manager.set_failpoint(Some("network.forgotten"));
    manager.kill();
    manager.start_again();
    manager.ctl(&["network", "rm", "tagged"]).refused();
    manager.await_end();
    manager.set_failpoint(None);
    manager.start_again();
    assert_eq!(parents(&manager), (false, true));
    manager.ctl(&["network", "rm", "alone"]).ok();
    assert_eq!(parents(&manager), (false, false));
}

#[test]
fn ipvlan_containers_have_the_hosts_mac_address() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_alone(&sandbox);
    let outside = Outside::new(&sandbox, &manager);
    if !kernel_has(&manager, "ipvlan") {
        return;
    }
    let image = manager.load_busybox();
    create_lan(&manager, "lan", &["-d", "ipvlan"]);
    let refused = manager
        .ctl(&[
            "network",
            "create",
            "-d",
            "ipvlan",
            "-o",
            "parent=uplink",
            "other",
        ])
        .refused();
    assert!(
        refused.contains("already using parent interface uplink"),
        "{refused}"
    );
    let flags = ["--network", "lan", "--mac-address", "02:00:00:00:00:70"];
    let refused = manager
        .ctl(&[&["create"], &flags[..], &[&image, "true"]].concat())
        .refused();
    assert!(refused.contains("custom mac address"), "{refused}");
    for name in ["one", "two"] {
        run_detached(&manager, &image, name, &["--network", "lan"]);
    }
    for address in ["two", "192.0.2.2"] {
        assert_reaches(&manager, "one", address);
    }
    assert_eq!(default_route(&manager, "one"), "default via 192.0.2.2 dev eth0");
    let link = run(manager.inside("ip").args(["-br", "link", "show", "uplink"])).ok();
    let mac = link.split_whitespace().nth(2).expect("it has an address");
    assert!(links(&manager, "one").contains(mac));
    assert_eq!(manager.place("one", "lan")["macAddress"], "");
    manager.ctl(&["network", "disconnect", "lan", "one"]).ok();
    assert!(!links(&manager, "one").contains("192.0.2"));
    manager.ctl(&["rm", "-f", "one", "two"]).ok();
    manager.ctl(&["network", "rm", "lan"]).ok();

    // Routed: no neighbours outside, whom the way back has to be told.
    let routed = [
        "-d",
        "ipvlan",
        "-o",
        "ipvlan_mode=l3",
        "-o",
        "parent=uplink",
        "--subnet",
        "198.51.100.0/24",
    ];
    manager
        .ctl(&[&["network", "create"], &routed[..], &["routed"]].concat())
        .ok();
    run(outside
        .inside("ip")
        .args(["route", "add", "198.51.100.0/24", "via", "192.0.2.1"]))
    .ok();
    run_detached(&manager, &image, "one", &["--network", "routed"]);
    assert!(default_route(&manager, "one").starts_with("default dev eth0"));
    assert_reaches(&manager, "one", "192.0.2.2");
}
