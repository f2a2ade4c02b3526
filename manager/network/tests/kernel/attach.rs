//! Attaching and detaching containers.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use network::{Bridge, Endpoint, Error, link_name};

use crate::namespace::{Namespace, host_with_bridge, id};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);

#[test]
fn an_attached_container_has_eth0_lo_and_a_default_route() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();

    assert_eq!(container.addresses("eth0"), ["172.30.0.2/16"]);
    assert_eq!(container.addresses("lo"), ["127.0.0.1/8"]);
    let link = &container.json("ip -j link show dev eth0")[0];
    assert_eq!(link["address"], "02:be:ac:1e:00:02");
    for name in ["eth0", "lo"] {
        let flags = container.json(&format!("ip -j link show dev {name}"))[0]["flags"].clone();
        assert!(
            flags.as_array().unwrap().contains(&"UP".into()),
            "{name}: {flags}"
        );
    }
    let route = &container.json("ip -j route show default")[0];
    assert_eq!(
        (&route["gateway"], &route["dev"]),
        (&"172.30.0.1".into(), &"eth0".into())
    );

    let port = &host.json(&format!("ip -j -d link show dev {}", link_name(&id(1))))[0];
    assert_eq!(
        (&port["master"], &port["linkinfo"]["info_kind"]),
        (&"berth0".into(), &"veth".into())
    );
    assert!(port["flags"].as_array().unwrap().contains(&"UP".into()), "{port}");
    let attached = host.run(|| bridge.attached()).unwrap();
    assert_eq!(attached.len(), 1);
    assert_eq!(attached[0].name, link_name(&id(1)));
    assert!(attached[0].is_complete);
}

#[test]
fn a_second_attach_of_a_container_is_refused_and_harms_nothing() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
    let error = host
        .attach(&bridge, &id(1), Ipv4Addr::new(172, 30, 0, 3), &container)
        .unwrap_err();
    assert!(matches!(error, Error::AlreadyAttached { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "container {} is attached already: link {} exists",
            id(1),
            link_name(&id(1))
        )
    );
    assert_eq!(container.addresses("eth0"), ["172.30.0.2/16"]);
}

#[test]
fn a_namespace_with_an_eth0_is_refused_and_kept_as_it_was() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    container.add_link("eth0");
    let links = host.links();
    let error = host
        .attach(&bridge, &id(1), ADDRESS, &container)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("eth0 in the container's network namespace: File exists"),
        "{error}"
    );
    assert_eq!(host.links(), links);
    assert_eq!(container.json("ip -j link show dev eth0")[0]["link"], "eth0-peer");
}

#[test]
fn a_container_whose_configuration_is_refused_leaves_nothing() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    let (host_links, container_links) = (host.links(), container.links());
    // A gateway that cannot be reached: the last request is the one refused.
    container.command("ip route add unreachable 172.30.0.1/32 scope link");
    let error = host
        .attach(&bridge, &id(1), ADDRESS, &container)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("add the default route via 172.30.0.1: No route to host"),
        "{error}"
    );
    assert_eq!(host.links(), host_links);
    assert_eq!(container.links(), container_links);
    container.command("ip route delete unreachable 172.30.0.1/32");
    assert_eq!(host.run(|| bridge.attached()).unwrap(), []);

    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
}

#[test]
fn a_link_that_is_to_lead_out_takes_the_place_of_the_one_that_did() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    container.add_link("other");
    container.command("ip route add default dev other");
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
    let routes = container.json("ip -j route show default");
    let routes = routes.as_array().unwrap();
    assert_eq!(routes.len(), 1, "{routes:?}");
    assert_eq!(routes[0]["dev"], "eth0");
    assert_eq!(routes[0]["gateway"], "172.30.0.1");
}

#[test]
fn what_is_no_network_namespace_is_refused_and_leaves_nothing() {
    let (host, bridge) = host_with_bridge();
    let links = host.links();
    for path in ["/dev/null", "/proc/self/ns/uts"] {
        let file = File::open(path).unwrap();
        let error = host
            .run(|| bridge.attach(&Endpoint::only(&id(1), ADDRESS, file.as_fd())))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "enter the container's network namespace: Invalid argument (os error 22)"
        );
        assert_eq!(host.links(), links);
    }
}

#[test]
fn addresses_that_cannot_be_a_containers_are_refused() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    for (address, rule) in [
        ("172.30.0.1", "is the gateway's, of bridge berth0"),
        (
            "172.30.0.0",
            "must be a host's address in 172.30.0.0/16, not its first or last",
        ),
        (
            "172.30.255.255",
            "must be a host's address in 172.30.0.0/16, not its first or last",
        ),
        (
            "10.0.0.2",
            "must be a host's address in 172.30.0.0/16, not its first or last",
        ),
    ] {
        let error = host
            .attach(&bridge, &id(1), address.parse().unwrap(), &container)
            .unwrap_err();
        assert_eq!(error.to_string(), format!("address {address}: {rule}"));
    }
    assert_eq!(container.links(), Namespace::new().links());
}

#[test]
fn detaching_takes_both_ends_away_and_may_be_repeated() {
    let (host, bridge) = host_with_bridge();
    let container = Namespace::new();
    let before = (host.links(), container.links());
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
    for _ in 0..2 {
        host.run(|| bridge.detach(&id(1))).unwrap();
        assert_eq!((host.links(), container.links()), before);
    }
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
}

#[test]
fn the_end_of_a_container_takes_its_link_away() {
    let (host, bridge) = host_with_bridge();
    let before = host.links();
    let container = Namespace::new();
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
    drop(container);
    // The kernel does it on a queue of its own.
    let deadline = Instant::now() + Duration::from_mins(1);
    while host.links() != before {
        assert!(Instant::now() < deadline, "{:?}", host.links());
        thread::sleep(Duration::from_millis(10));
    }
    host.run(|| bridge.detach(&id(1))).unwrap();
}

#[test]
fn an_attach_makes_a_bridge_that_was_lost() {
    let (host, bridge) = host_with_bridge();
    host.command("ip link delete berth0");
    let container = Namespace::new();
    host.attach(&bridge, &id(1), ADDRESS, &container).unwrap();
    assert_eq!(host.addresses("berth0"), ["172.30.0.1/16"]);
    assert_eq!(host.run(|| bridge.attached()).unwrap().len(), 1);
}

#[test]
fn foreign_ports_of_the_bridge_are_not_listed() {
    let (host, bridge) = host_with_bridge();
    host.command("ip link add vmport type veth peer name vmpeer");
    host.command("ip link set vmport master berth0");
    // Ours by name, but on no bridge.
    host.command("ip link add bth000000000001 type veth peer name bth000000000002");
    assert_eq!(host.run(|| bridge.attached()).unwrap(), []);
    host.run(|| bridge.remove()).unwrap();
    assert_eq!(host.run(|| bridge.attached()).unwrap(), []);
}

#[test]
fn many_containers_attach_at_the_same_time() {
    const CONTAINERS: u32 = 64;
    let (host, bridge) = host_with_bridge();
    let containers: Vec<_> = (0..CONTAINERS).map(|number| (number, Namespace::new())).collect();
    let each = |work: &(dyn Fn(u32, &Namespace) -> Result<(), Error> + Sync)| {
        thread::scope(|scope| {
            for part in containers.chunks(8) {
                scope.spawn(move || {
                    for (number, container) in part {
                        work(*number, container).unwrap();
                    }
                });
            }
        });
    };
    let address = |number| Ipv4Addr::from_bits(u32::from(ADDRESS) + number);
    each(&|number, container| host.attach(&bridge, &id(number), address(number), container));

    let mut attached = host.run(|| bridge.attached()).unwrap();
    attached.sort();
    assert_eq!(
        attached.into_iter().map(|link| link.name).collect::<Vec<_>>(),
        (0..CONTAINERS)
            .map(|number| link_name(&id(number)))
            .collect::<Vec<_>>()
    );
    for (number, container) in &containers {
        assert_eq!(container.addresses("eth0"), [format!("{}/16", address(*number))]);
    }
    each(&|number, _| host.run(|| bridge.detach(&id(number))));
    assert_eq!(host.run(|| bridge.attached()).unwrap(), []);
}

#[test]
fn a_bridge_of_a_wrong_name_attaches_nothing() {
    let host = Namespace::new();
    let bridge = Bridge {
        name: "a/b".into(),
        ..Bridge::default()
    };
    assert!(matches!(
        host.attach(&bridge, &id(1), ADDRESS, &Namespace::new()),
        Err(Error::Invalid { .. })
    ));
    assert!(matches!(host.run(|| bridge.ensure()), Err(Error::Invalid { .. })));
}
