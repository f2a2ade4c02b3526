//! Making, mending and removing the bridge with its rules.

use std::net::Ipv4Addr;
use std::thread;

use network::{Bridge, Error};

use crate::namespace::{Namespace, host_with_bridge, id};

#[test]
fn the_first_start_makes_bridge_address_forwarding_and_rules() {
    let (host, _) = host_with_bridge();
    let link = &host.json("ip -j -d link show dev berth0")[0];
    assert_eq!(link["linkinfo"]["info_kind"], "bridge");
    assert_eq!(link["linkinfo"]["info_data"]["stp_state"], 0);
    assert_eq!(link["address"], "02:be:ac:1e:00:01");
    assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
    assert_eq!(host.addresses("berth0"), ["172.30.0.1/16"]);
    assert_eq!(host.command("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");

    let rules = host.rules();
    for expected in [
        "table inet berth {",
        "type filter hook forward priority filter; policy accept;",
        "oifname \"berth0\" iifname != \"berth0\" ct state ! established,related ct status ! dnat drop",
        "type nat hook postrouting priority srcnat; policy accept;",
        "ip saddr 172.30.0.0/16 oifname != \"berth0\" masquerade",
        "comment \"172.30.0.0/16 leaves as the host\"",
    ] {
        assert!(rules.contains(expected), "{expected} is not in\n{rules}");
    }
}

#[test]
fn a_second_start_writes_nothing() {
    let (host, bridge) = host_with_bridge();
    // Handles and the index would be new if anything were made again.
    let state = || {
        (
            host.command("nft -a list ruleset"),
            host.command("ip -j address show dev berth0"),
        )
    };
    let before = state();
    host.run(|| bridge.ensure()).unwrap();
    assert_eq!(state(), before);
}

#[test]
fn a_start_mends_what_is_missing() {
    let (host, bridge) = host_with_bridge();
    let complete = host.rules();
    for damage in [
        "nft flush ruleset",
        "nft flush table inet berth",
        "nft flush chain inet berth berth0-postrouting",
        "nft delete chain inet berth berth0-forward",
        "ip link set berth0 down",
        "ip address flush dev berth0",
        "ip link delete berth0",
        "nft add rule inet berth berth0-forward drop",
        "sysctl -q net.ipv4.ip_forward=0",
    ] {
        host.command(damage);
        host.run(|| bridge.ensure())
            .unwrap_or_else(|error| panic!("{damage}: {error}"));
        assert_eq!(host.addresses("berth0"), ["172.30.0.1/16"], "{damage}");
        let link = &host.json("ip -j link show dev berth0")[0];
        assert!(
            link["flags"].as_array().unwrap().contains(&"UP".into()),
            "{damage}"
        );
        let mut found: Vec<_> = host.rules().lines().map(str::to_owned).collect();
        let mut expected: Vec<_> = complete.lines().map(str::to_owned).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{damage}");
        assert_eq!(
            host.command("cat /proc/sys/net/ipv4/ip_forward").trim(),
            "1",
            "{damage}"
        );
    }
}

#[test]
fn the_hosts_own_tables_are_left_alone() {
    let host = Namespace::new();
    host.command("nft add table inet mine");
    host.command("nft add chain inet mine forward { type filter hook forward priority 0; policy drop; }");
    let before = host.rules();
    let bridge = Bridge::default();
    host.run(|| bridge.ensure()).unwrap();
    assert!(host.rules().contains(before.trim()));
    host.run(|| bridge.remove()).unwrap();
    assert_eq!(host.rules(), before);
}

#[test]
fn chains_that_drop_what_is_forwarded_are_told() {
    let (host, _) = host_with_bridge();
    assert_eq!(
        host.run(Bridge::dropping_forward_chains).unwrap(),
        Vec::<String>::new()
    );
    for (table, hook, policy) in [
        ("ip filter", "forward", "drop"),
        ("inet fine", "forward", "accept"),
        ("ip input", "input", "drop"),
        ("ip6 other", "forward", "drop"),
    ] {
        host.command(&format!("nft add table {table}"));
        let chain = format!("{{ type filter hook {hook} priority 0; policy {policy}; }}");
        host.command(&format!("nft add chain {table} FORWARD {chain}"));
    }
    let found = host.run(Bridge::dropping_forward_chains).unwrap();
    assert_eq!(found, ["table ip filter chain FORWARD"]);
}

#[test]
fn removal_leaves_nothing_and_may_be_repeated() {
    let (host, bridge) = host_with_bridge();
    for _ in 0..2 {
        host.run(|| bridge.remove()).unwrap();
        assert_eq!(host.links(), Namespace::new().links());
        assert_eq!(host.rules(), "");
    }
}

#[test]
fn two_bridges_share_the_table_and_not_the_rules() {
    let (host, first) = host_with_bridge();
    let second = Bridge {
        name: "other0".into(),
        gateway: Ipv4Addr::new(10, 9, 0, 1),
        prefix: 24,
        ..Bridge::default()
    };
    host.run(|| second.ensure()).unwrap();
    host.run(|| first.remove()).unwrap();
    let rules = host.rules();
    assert!(
        !rules.contains("berth0") && rules.contains("ip saddr 10.9.0.0/24 oifname != \"other0\""),
        "{rules}"
    );
    host.run(|| second.remove()).unwrap();
    assert_eq!(host.rules(), "");
}

#[test]
fn a_subnet_in_use_is_refused_and_the_user_of_it_named() {
    let cases = [
        (
            "ip address add 172.30.9.9/24 dev uplink",
            "the address 172.30.9.9/24 of link uplink",
        ),
        (
            "ip route add 172.16.0.0/12 dev uplink",
            "the route to 172.16.0.0/12 of link uplink",
        ),
        (
            "ip address add 172.30.0.1/16 dev uplink",
            "the address 172.30.0.1/16 of link uplink",
        ),
    ];
    for (taken, found) in cases {
        let host = Namespace::new();
        host.add_link("uplink");
        host.command(taken);
        let links = host.links();
        let error = host.run(|| Bridge::default().ensure()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "subnet 172.30.0.0/16 of bridge berth0 overlaps {found}; \
                 choose another subnet for the containers' network"
            )
        );
        assert_eq!(host.links(), links);
        assert_eq!(host.rules(), "");
    }
}

#[test]
fn a_default_route_overlaps_nothing() {
    let host = Namespace::new();
    host.add_link("uplink");
    host.command("ip address add 192.0.2.2/24 dev uplink");
    host.command("ip route add default via 192.0.2.1");
    host.command("ip route add 128.0.0.0/1 via 192.0.2.1");
    host.run(|| Bridge::default().ensure()).unwrap();
}

#[test]
fn a_foreign_link_of_the_name_is_refused() {
    let host = Namespace::new();
    host.add_link("berth0");
    let error = host.run(|| Bridge::default().ensure()).unwrap_err();
    assert!(matches!(error, Error::ForeignLink { .. }));
    assert!(
        error
            .to_string()
            .starts_with("link berth0 exists, but is a link of kind veth, not a bridge;"),
        "{error}"
    );
    assert!(host.run(|| Bridge::default().remove()).is_err());
    assert!(host.links().contains(&"berth0".to_owned()));
}

#[test]
fn a_bridge_with_another_address_is_refused() {
    let (host, bridge) = host_with_bridge();
    let moved = Bridge {
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        ..bridge
    };
    let error = host.run(|| moved.ensure()).unwrap_err().to_string();
    assert!(
        error.contains("has the address 172.30.0.1/16 and not 10.0.0.1/16; remove it with"),
        "{error}"
    );
    assert_eq!(host.addresses("berth0"), ["172.30.0.1/16"]);
}

#[test]
fn starts_at_the_same_time_agree() {
    let host = Namespace::new();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| host.run(|| Bridge::default().ensure())))
            .collect();
        for start in starts {
            start.join().unwrap().unwrap();
        }
    });
    assert_eq!(host.addresses("berth0"), ["172.30.0.1/16"]);
    assert_eq!(host.rules().matches("masquerade").count(), 3);
}

#[test]
fn owners_on_one_host_know_their_links_and_do_not_take_a_bridge_in_use() {
    let host = Namespace::new();
    let owned_by = |owner: &str| Bridge {
        owner: owner.into(),
        ..Bridge::default()
    };
    let (first, second) = (owned_by("aaaa"), owned_by("bbbb"));
    host.run(|| first.ensure()).unwrap();
    let alias = |link: &str| {
        host.json(&format!("ip -j link show {link}"))[0]["ifalias"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(alias("berth0"), "berth:aaaa");
    // Nobody is on it.
    host.run(|| second.ensure()).unwrap();
    assert_eq!(alias("berth0"), "berth:bbbb");

    let container = Namespace::new();
    host.attach(&first, &id(1), Ipv4Addr::new(172, 30, 0, 2), &container)
        .unwrap();
    assert_eq!(alias("berth0"), "berth:aaaa");
    let link = network::link_name(&id(1));
    assert_eq!(alias(&link), format!("berth:aaaa:{}", id(1)));
    assert_eq!(host.run(|| first.attached()).unwrap()[0].name, link);
    assert!(host.run(|| second.attached()).unwrap().is_empty());
    let refused = host.run(|| second.ensure()).unwrap_err().to_string();
    assert!(
        refused.contains("berth0") && refused.contains("aaaa") && refused.contains("--bridge-name"),
        "{refused}"
    );
    let refused = host.attach(&second, &id(2), Ipv4Addr::new(172, 30, 0, 3), &Namespace::new());
    assert!(matches!(refused, Err(Error::OthersBridge { .. })), "{refused:?}");
}
