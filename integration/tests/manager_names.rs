//! Names as a container's programs look them up: what stands in its resolv.conf and hosts.

use integration::{Manager, Sandbox, run};
use std::process::{Child, Stdio};

#[test]
fn name_servers_search_and_options_are_those_asked_for() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let flags = [
        "--dns",
        "192.0.2.53",
        "--dns",
        "192.0.2.54",
        "--dns-search",
        "one.example",
        "--dns-search",
        "two.example",
        "--dns-option",
        "ndots:1",
        "--dns-opt",
        "rotate",
    ];
    let show = ["cat", "/etc/resolv.conf"];
    let told = manager
        .ctl(&[&["run", "--rm"], &flags[..], &[&image], &show].concat())
        .ok();
    for line in [
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\n",
        "search one.example two.example\n",
        "options ndots:1 rotate\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert_eq!(told.matches("nameserver").count(), 2, "{told}");
    let none = ["run", "--rm", "--dns-search", ".", &image];
    let told = manager.ctl(&[&none[..], &show].concat()).ok();
    assert!(!told.contains("search"), "{told}");
}

/// A program of the host that listens on the bridge's gateway address.
struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn added_hosts_are_found_and_the_host_itself_is_reached_by_name() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let mut listen = manager.inside("busybox");
    listen.args(["nc", "-ll", "-p", "7000", "-e", "busybox", "echo", "the host"]);
    let _listener = Listener(listen.stdin(Stdio::null()).spawn().expect("start a listener"));
    integration::eventually("the host listens", || {
        let mut ask = manager.inside("busybox");
        (run(ask.args(["nc", "-w", "20", "127.0.0.1", "7000"])).code == 0).then_some(())
    });

    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "one",
            "--add-host",
            "db:192.0.2.9",
            "--add-host",
            "six=2001:db8::9",
            "--add-host",
            "host.internal:host-gateway",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let exec = |command: &[&str]| manager.ctl(&[&["exec", "one"], command].concat()).ok();
    let hosts = exec(&["cat", "/etc/hosts"]);
    for line in [
        "192.0.2.9\tdb\n",
        "2001:db8::9\tsix\n",
        "172.30.0.1\thost.internal\n",
    ] {
        assert!(hosts.contains(line), "{hosts}");
    }
    let told = exec(&["busybox", "nc", "-w", "20", "host.internal", "7000"]);
    assert_eq!(told, "the host\n");
    let asked = &manager.inspect("one")["request"]["names"]["hosts"][0];
    assert_eq!(
        (&asked["name"], &asked["address"]),
        (&"db".into(), &"192.0.2.9".into())
    );
}

#[test]
fn what_is_no_name_and_no_address_is_refused() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (flag, value, words) in [
        ("--dns", "resolver.example", "not an address of a name server"),
        ("--dns-search", "a b", "not a valid domain"),
        ("--dns-option", "ndots:1\nnameserver 192.0.2.1", "not one word"),
        ("--add-host", "db:elsewhere", "invalid IP address in add-host"),
        ("--add-host", "db", "bad format for add-host"),
        ("--add-host", "db\tbank:192.0.2.1", "not a valid domain"),
    ] {
        let error = manager
            .ctl(&["run", "--rm", flag, value, &image, "true"])
            .refused();
        assert!(error.contains(words), "{flag} {value}: {error}");
    }
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
}
