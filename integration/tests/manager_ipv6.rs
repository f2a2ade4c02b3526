//! Networks with IPv6 besides IPv4, as their users meet them: addresses, ways out, names, published ports, and what a kill
//! leaves.

use integration::{Manager, Outside, Sandbox, eventually, exec, run};
use serde_json::{Value, json};
use std::process::Command;

/// The manager's host, for the other machine and for containers.
const HOST: &str = "2001:db8::1";

#[track_caller]
fn create(manager: &Manager, flags: &str) -> String {
    let words: Vec<_> = flags.split(' ').collect();
    manager.ctl(&[&["network", "create"], &*words].concat()).ok()
}

#[track_caller]
fn refused(manager: &Manager, flags: &str) -> String {
    let words: Vec<_> = flags.split(' ').collect();
    manager.ctl(&[&["network", "create"], &*words].concat()).refused()
}

#[track_caller]
fn run_detached(manager: &Manager, image: &str, name: &str, flags: &str) {
    let flags: Vec<_> = flags.split(' ').collect();
    integration::run_detached(manager, image, name, &flags);
}

/// Run a container that tells its name to whoever connects to port 80 of it.
#[track_caller]
fn serve(manager: &Manager, image: &str, name: &str, flags: &str) {
    let server = "exec busybox nc -ll -p 80 -e busybox hostname";
    let flags: Vec<_> = flags.split(' ').collect();
    let named = ["run", "-d", "--name", name, "-h", name];
    manager
        .ctl(&[&named, &*flags, &[image, "sh", "-c", server]].concat())
        .ok();
}

#[track_caller]
fn assert_reaches(manager: &Manager, container: &str, address: &str) {
    manager.assert_pings(container, "ping6", address);
}

#[track_caller]
fn assert_kept_from(manager: &Manager, container: &str, address: &str) {
    manager.assert_no_pings(container, "ping6", address);
}

/// The default routes of IPv6 in a container.
fn ways_out(manager: &Manager, container: &str) -> String {
    exec(manager, container, "busybox ip -6 route show default").ok()
}

fn nc(mut program: Command, address: &str, port: &str) -> Command {
    program.args(["nc", "-w", "20", address, port]);
    program
}

/// Connect until the server in the container is up, and be told this name.
#[track_caller]
fn told(connect: impl Fn() -> Command, name: &str) {
    eventually("a published port is answered", || {
        let done = run(&mut connect());
        (done.code == 0 && done.stdout.trim() == name).then_some(())
    });
}

fn is_closed(program: Command, address: &str, port: &str) -> bool {
    let done = run(&mut nc(program, address, port));
    done.code != 0 && done.stderr.contains("refused")
}

#[test]
fn a_network_with_ipv6_is_made_shown_and_removed() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    create(
        &manager,
        "--ipv6 --subnet 10.77.0.0/16 --gateway 10.77.0.9 --subnet fd77:1:2:3::/64 --gateway fd77:1:2:3::9 \
         --ip-range fd77:1:2:3:5::/80 --aux-address printer=fd77:1:2:3:5::1 --aux-address scanner=10.77.0.7 \
         -o com.docker.network.bridge.name=br-six six",
    );
    let shown = manager.network("six");
    for (field, value) in [
        ("subnet", "10.77.0.0/16"),
        ("gateway", "10.77.0.9"),
        ("subnet6", "fd77:1:2:3::/64"),
        ("gateway6", "fd77:1:2:3::9"),
        ("ipRange6", "fd77:1:2:3:5::/80"),
    ] {
        assert_eq!(shown[field], value, "{shown}");
    }
    assert_eq!(
        shown["auxAddresses"],
        json!({"printer": "fd77:1:2:3:5::1", "scanner": "10.77.0.7"})
    );
    let link = run(manager.inside("ip").args(["address", "show", "dev", "br-six"])).ok();
    assert!(link.contains("inet6 fd77:1:2:3::9/64"), "{link}");

    // Without a subnet it gets one of this root's own, and the next network another one.
    create(&manager, "--ipv6 one");
    create(&manager, "--ipv6 two");
    let (one, two) = (subnet(&manager, "one"), subnet(&manager, "two"));
    assert!(
        one.starts_with("fd") && one.ends_with("/64") && one != two,
        "{one} and {two}"
    );
    assert_eq!(one.split(':').next(), two.split(':').next());
    assert_eq!(manager.network("six")["subnet6"], "fd77:1:2:3::/64");
    create(&manager, "four");
    assert_eq!(manager.network("four")["subnet6"], Value::Null);

    for (flags, why) in [
        ("--subnet fd78::/64 xx", "--ipv6"),
        ("--ipv4=false --ipv6 xx", "networks of IPv6 alone are not done"),
        ("--ipv6 --subnet fd77:1:2:3:4::/80 xx", "of network six"),
        ("--ipv6 --subnet fe80::/64 xx", "beyond their link"),
        ("--ipv6 --subnet fd78::1/64 xx", "fd78::/64"),
        ("--ipv6 --gateway fd78::1 xx", "needs a subnet"),
        ("--ipv6 --subnet fd78::/64 --gateway fd79::1 xx", "fd79::1"),
        (
            "--ipv6 --subnet fd78::/64 --subnet fd79::/64 xx",
            "one IPv6 subnet",
        ),
    ] {
        let error = refused(&manager, flags);
        assert!(error.contains(why), "{flags}: {error}");
    }
    run(manager
        .inside("ip")
        .args(["link", "add", "away", "type", "bridge"]))
    .ok();
    run(manager
        .inside("ip")
        .args(["address", "add", "fd78::7/64", "dev", "away"]))
    .ok();
    let error = refused(&manager, "--ipv6 --subnet fd78::/64 xx");
    assert!(error.contains("overlaps the address fd78::7/64"), "{error}");

    manager.kill();
    manager.start_again();
    assert_eq!(subnet(&manager, "one"), one);
    manager.ctl(&["network", "rm", "six", "one", "two", "four"]).ok();
    assert!(!manager.rules().contains("fd77"), "{}", manager.rules());
}

/// That of IPv6; empty, if it has none.
fn subnet(manager: &Manager, name: &str) -> String {
    manager.network(name)["subnet6"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn containers_have_addresses_of_both_families_and_are_found_by_both() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one");
    create(&manager, "--ipv6 --subnet 10.78.0.0/24 --subnet fd78::/64 two");
    create(
        &manager,
        "--ipv6 --subnet 10.79.0.0/24 --subnet fd79::/64 --internal in",
    );
    create(&manager, "--subnet 10.80.0.0/24 four");
    run_detached(&manager, &image, "c-a", "--network one");
    run_detached(
        &manager,
        &image,
        "c-b",
        "--network one --ip 10.77.0.50 --ip6 fd77::99",
    );
    run_detached(&manager, &image, "c-c", "--network name=two,ip6=fd78::7");
    run_detached(&manager, &image, "c-d", "--network in");
    run_detached(&manager, &image, "c-e", "--network in");
    run_detached(&manager, &image, "c-f", "--network four");

    assert_eq!(manager.place("c-a", "one")["address6"], "fd77::2/64");
    assert_eq!(manager.place("c-a", "one")["gateway6"], "fd77::1");
    assert_eq!(manager.place("c-b", "one")["address6"], "fd77::99/64");
    assert_eq!(manager.place("c-b", "one")["address"], "10.77.0.50/24");
    assert_eq!(manager.place("c-f", "four")["address6"], Value::Null);
    let members = manager.network("two")["containers"].take();
    let member = members
        .as_object()
        .and_then(|all| all.values().next())
        .expect("a member");
    assert_eq!(member["address6"], "fd78::7/64");
    let hosts = exec(&manager, "c-b", "cat /etc/hosts").ok();
    assert!(
        hosts.contains("10.77.0.50\t") && hosts.contains("fd77::99\t"),
        "{hosts}"
    );

    assert_reaches(&manager, "c-a", "fd77::99");
    assert_reaches(&manager, "c-a", "c-b");
    assert_reaches(&manager, "c-d", "c-e");
    for (from, to) in [
        ("c-a", "fd78::7"),
        ("c-c", "fd77::2"),
        ("c-a", "fd79::2"),
        ("c-d", "fd77::2"),
        ("c-d", "2001:db8::2"),
        ("c-f", "2001:db8::2"),
    ] {
        assert_kept_from(&manager, from, to);
    }
    for from in ["c-a", "c-c"] {
        assert_reaches(&manager, from, "2001:db8::2");
        let port = outside.tell_next_caller();
        let caller = exec(&manager, from, &format!("busybox nc -w 30 2001:db8::2 {port}")).ok();
        assert_eq!(caller.trim(), HOST, "{from} goes out as the host");
    }
    assert_eq!(ways_out(&manager, "c-d"), "", "an internal network");

    let asked = exec(&manager, "c-a", "busybox nslookup -type=aaaa c-b 127.0.0.11").ok();
    assert!(asked.contains("fd77::99"), "{asked}");
    let asked = exec(&manager, "c-a", "busybox nslookup -type=a c-b 127.0.0.11").ok();
    assert!(
        asked.contains("10.77.0.50") && !asked.contains("fd77::99"),
        "{asked}"
    );
    let asked = exec(&manager, "c-a", "busybox nslookup fd77::99 127.0.0.11").ok();
    assert!(asked.contains("c-b.one"), "{asked}");

    for (flags, why) in [
        ("--network one --ip6 fd77::99", "already in use"),
        ("--network one --ip6 fd77::1", "no configured subnet"),
        ("--network one --ip6 fd99::2", "no configured subnet"),
        ("--network four --ip6 fd77::5", "has no IPv6"),
        ("--network one --ip6 nonsense", "no IPv6 address"),
        ("--ip6 fd77::5", "user defined networks only"),
    ] {
        let words: Vec<_> = flags.split(' ').collect();
        let error = manager
            .ctl(&[&["run", "-d"], &*words, &[&image, "true"]].concat())
            .refused();
        assert!(error.contains(why), "{flags}: {error}");
    }
    // What has none pays nothing and hears nothing.
    let setting = format!(
        "br-{}",
        &manager.network("four")["id"].as_str().expect("an id")[..12]
    );
    let path = format!("/proc/sys/net/ipv6/conf/{setting}/disable_ipv6");
    assert_eq!(run(manager.inside("cat").arg(path)).ok().trim(), "1");
}

#[test]
fn the_way_out_moves_with_the_networks() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create(&manager, "--subnet 10.76.0.0/24 four");
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one");
    create(&manager, "--ipv6 --subnet 10.78.0.0/24 --subnet fd78::/64 two");
    run_detached(&manager, &image, "web", "--network four");
    run_detached(&manager, &image, "plain", "--network bridge");
    assert_eq!(ways_out(&manager, "web"), "");
    manager
        .ctl(&["network", "connect", "--ip6", "fd77::40", "one", "web"])
        .ok();
    manager.ctl(&["network", "connect", "two", "web"]).ok();
    manager.ctl(&["network", "connect", "two", "plain"]).ok();
    assert_eq!(manager.place("web", "one")["address6"], "fd77::40/64");
    let out = ways_out(&manager, "web");
    assert!(
        out.contains("via fd77::1 dev eth1") && out.lines().count() == 1,
        "{out}"
    );
    let out = ways_out(&manager, "plain");
    assert!(out.contains("via fd78::1 dev eth1"), "{out}");

    manager.kill();
    manager.start_again();
    manager.ctl(&["network", "disconnect", "one", "web"]).ok();
    let out = ways_out(&manager, "web");
    assert!(
        out.contains("via fd78::1 dev eth2") && out.lines().count() == 1,
        "{out}"
    );
    assert_reaches(&manager, "plain", "web");
    manager.ctl(&["restart", "-t", "0", "web"]).ok();
    let out = ways_out(&manager, "web");
    assert!(
        out.contains("via fd78::1 dev eth2") && out.lines().count() == 1,
        "{out}"
    );
    // The address of one that is gone is free.
    run_detached(&manager, &image, "next", "--network one --ip6 fd77::40");
}

#[test]
fn each_family_leaves_by_the_highest_priority_that_has_it() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create(&manager, "--subnet 10.76.0.0/24 four");
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one");
    create(&manager, "--ipv6 --subnet 10.78.0.0/24 --subnet fd78::/64 two");
    run_detached(
        &manager,
        &image,
        "web",
        "--network one --network name=four,gw-priority=7 --network name=two,gw-priority=3",
    );
    let assert_out = |manager: &Manager, v4: &str, v6: &str| {
        let out = exec(manager, "web", "busybox ip route").ok();
        assert!(out.contains(v4) && out.matches("default").count() == 1, "{out}");
        let out = ways_out(manager, "web");
        assert!(out.contains(v6) && out.lines().count() == 1, "{out}");
    };
    assert_out(&manager, "via 10.76.0.1 dev eth1", "via fd78::1 dev eth2");
    manager.ctl(&["network", "disconnect", "two", "web"]).ok();
    assert_out(&manager, "via 10.76.0.1 dev eth1", "via fd77::1 dev eth0");
    manager
        .ctl(&["network", "connect", "--gw-priority", "3", "two", "web"])
        .ok();
    assert_out(&manager, "via 10.76.0.1 dev eth1", "via fd78::1 dev eth2");
    manager.ctl(&["network", "disconnect", "four", "web"]).ok();
    assert_out(&manager, "via 10.78.0.1 dev eth2", "via fd78::1 dev eth2");
    manager.ctl(&["network", "disconnect", "two", "web"]).ok();
    manager.die_at("connect.recorded", |manager| {
        let connect = ["network", "connect", "--gw-priority", "3", "two", "web"];
        manager.ctl(&connect).refused();
    });
    assert_out(&manager, "via 10.78.0.1 dev eth1", "via fd78::1 dev eth1");
}

#[test]
fn settings_of_a_link_go_over_those_that_all_have() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one");
    let option = "com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.accept_ra=1";
    run_detached(&manager, &image, "plain", "--network one");
    run_detached(
        &manager,
        &image,
        "web",
        &format!("--network name=one,driver-opt={option}"),
    );
    let accepts = |name: &str| exec(&manager, name, "cat /proc/sys/net/ipv6/conf/eth0/accept_ra").ok();
    assert_eq!((accepts("plain").trim(), accepts("web").trim()), ("0", "1"));
    assert_reaches(&manager, "web", "fd77::1");
}

#[test]
fn a_place_has_more_addresses_of_its_link() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one");
    run_detached(
        &manager,
        &image,
        "web",
        "--network one --link-local-ip fe80::254:77 --link-local-ip 169.254.7.7",
    );
    run_detached(&manager, &image, "peer", "--network bridge");
    let connect = [
        "network",
        "connect",
        "--link-local-ip",
        "fe80::254:88",
        "one",
        "peer",
    ];
    manager.die_at("connect.recorded", |manager| {
        manager.ctl(&connect).refused();
    });
    assert_reaches(&manager, "web", "fe80::254:88%eth0");
    assert_reaches(&manager, "peer", "fe80::254:77%eth1");
    assert_reaches(&manager, "peer", "fd77::2");
    assert_eq!(
        manager.place("web", "one")["linkLocalIps"],
        json!(["fe80::254:77", "169.254.7.7"])
    );
    manager.ctl(&["restart", "-t", "0", "web"]).ok();
    assert_reaches(&manager, "peer", "fe80::254:77%eth1");
    for (address, reason) in [("fe80::1", "is the host's"), ("fe80::254:88", "already in use")] {
        let run = [
            "run",
            "--network",
            "one",
            "--link-local-ip",
            address,
            &image,
            "true",
        ];
        let refused = manager.ctl(&run).refused();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn ports_are_published_on_both_families() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 six");
    create(&manager, "--subnet 10.78.0.0/24 four");
    serve(
        &manager,
        &image,
        "web",
        "--network six -p 8080:80 -p 0.0.0.0:8081:80 -p [2001:db8::1]:9000:80 -p [::]:9001:80",
    );
    serve(&manager, &image, "other", "--network four -p 8082:80");
    let mut ports: Vec<_> = manager
        .ctl(&["port", "web"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    ports.sort();
    assert_eq!(
        ports,
        [
            "80/tcp -> 0.0.0.0:8080",
            "80/tcp -> 0.0.0.0:8081",
            "80/tcp -> [2001:db8::1]:9000",
            "80/tcp -> [::]:8080",
            "80/tcp -> [::]:9001",
        ]
    );
    let listed = manager
        .ctl(&["ps", "--format", "{{.Ports}}", "--filter", "name=web"])
        .ok();
    assert!(
        listed.contains("0.0.0.0:8080->80/tcp") && listed.contains("[::]:8080->80/tcp"),
        "{listed}"
    );
    assert_eq!(manager.ctl(&["port", "other"]).ok(), "80/tcp -> 0.0.0.0:8082\n");

    let all_is_well = |manager: &Manager| {
        for port in ["8080", "9000", "9001"] {
            told(|| nc(outside.inside("busybox"), HOST, port), "web");
            told(|| nc(manager.inside("busybox"), HOST, port), "web");
            let by_itself = || manager.ctl_command(&["exec", "web", "busybox", "nc", "-w", "20", HOST, port]);
            told(by_itself, "web");
        }
        told(|| nc(outside.inside("busybox"), "192.0.2.1", "8080"), "web");
        told(|| nc(manager.inside("busybox"), "127.0.0.1", "8080"), "web");
        assert!(is_closed(outside.inside("busybox"), HOST, "8081"));
        assert!(is_closed(outside.inside("busybox"), HOST, "8082"));
        // Whoever tries this address of localhost first goes on to the other one at once.
        assert!(is_closed(manager.inside("busybox"), "::1", "8080"));
    };
    all_is_well(&manager);
    manager.kill();
    run(manager.inside("nft").args(["flush", "ruleset"])).ok();
    manager.start_again();
    all_is_well(&manager);
    run(manager.inside("nft").args(["flush", "ruleset"])).ok();
    all_is_well(&manager);

    for (flags, why) in [
        (
            "--network six -p [::]:8080:80",
            "[::]:8080 failed: port is already allocated",
        ),
        (
            "--network six -p [2001:db8::1]:8080:80",
            "port is already allocated",
        ),
        ("--network six -p [::1]:7000:80", "publish it on 127.0.0.1"),
        (
            "--network six -p [2001:db8::77]:7000:80",
            "the host does not have it",
        ),
        ("--network four -p [::]:7000:80", "no address of IPv6"),
        ("-p [::]:7000:80", "no address of IPv6"),
    ] {
        let words: Vec<_> = flags.split(' ').collect();
        let error = manager
            .ctl(&[&["run", "--rm"], &*words, &[&image, "true"]].concat())
            .refused();
        assert!(error.contains(why), "{flags}: {error}");
    }
    // The same port of the other family is free.
    serve(&manager, &image, "half", "--network six -p [::]:8081:80");
    told(|| nc(outside.inside("busybox"), HOST, "8081"), "half");
    let error = manager.ctl(&["network", "disconnect", "six", "web"]).refused();
    assert!(error.contains("published ports"), "{error}");

    manager.ctl(&["stop", "-t", "0", "web"]).ok();
    assert!(is_closed(outside.inside("busybox"), HOST, "8080"));
    assert!(!manager.rules().contains("8080"), "{}", manager.rules());
}

/// Nothing acknowledged is lost, and nothing is left of what was not.
#[test]
fn a_kill_in_between_is_put_right() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let at = |manager: &mut Manager, point: &str, arguments: &str| {
        let words: Vec<_> = arguments.split(' ').collect();
        manager.die_at(point, |manager| drop(manager.ctl(&words).refused()));
    };
    for point in ["network.recorded", "network.made"] {
        at(
            &mut manager,
            point,
            "network create --ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one",
        );
        assert_eq!(manager.network("one")["subnet6"], "fd77::/64", "{point}");
        assert!(
            manager.rules().contains("fd77::/64 leaves as the host"),
            "{point}"
        );
        let addresses = run(manager.inside("ip").args(["-6", "address"])).ok();
        assert!(addresses.contains("fd77::1/64"), "{point}: {addresses}");
        at(&mut manager, "network.forgotten", "network rm one");
        manager.ctl(&["network", "inspect", "one"]).refused();
        assert!(!manager.rules().contains("fd77"), "{point}");
    }
    create(&manager, "--ipv6 --subnet 10.77.0.0/24 --subnet fd77::/64 one");
    run_detached(&manager, &image, "peer", "--network one");
    run_detached(&manager, &image, "web", "--network bridge");
    at(
        &mut manager,
        "connect.recorded",
        "network connect --ip6 fd77::9 one web",
    );
    assert_eq!(manager.place("web", "one")["address6"], "fd77::9/64");
    assert_reaches(&manager, "peer", "fd77::9");
    let out = ways_out(&manager, "web");
    assert!(out.contains("via fd77::1"), "{out}");
    at(&mut manager, "disconnect.recorded", "network disconnect one web");
    assert_kept_from(&manager, "peer", "fd77::9");
    // A run that nobody was told of is gone, and its container has its address still.
    let start = format!("run -d --name late --network one --ip6 fd77::9 -p 8080:80 {image} sleep 3600");
    at(&mut manager, "start.ports-published", &start);
    assert!(!manager.rules().contains("8080"), "{}", manager.rules());
    manager.ctl(&["start", "late"]).ok();
    assert_eq!(manager.place("late", "one")["address6"], "fd77::9/64");
    assert_reaches(&manager, "peer", "fd77::9");
    assert!(manager.rules().contains("8080"), "{}", manager.rules());
}
