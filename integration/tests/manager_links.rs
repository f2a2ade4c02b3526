//! `--link`: a name, and on the default bridge variables, that one container has for another. Held against dockerd.

use integration::{Docker, Done, Manager, Sandbox};
use std::collections::BTreeSet;

/// What is told of the container that is called `my-db`: variables, and its line of /etc/hosts; without the address.
fn told(shown: &str) -> BTreeSet<String> {
    let hosts = shown.lines().find(|line| line.contains("my-db dbhost"));
    let hosts = hosts.unwrap_or_else(|| panic!("a line of /etc/hosts in {shown}"));
    let (address, _) = hosts.split_once(char::is_whitespace).expect("an address");
    shown
        .lines()
        .filter(|line| line.starts_with("MY_DB") || *line == hosts)
        .map(|line| line.replace(address, "ADDRESS"))
        .collect()
}

const DB: [&str; 18] = [
    "-d",
    "--name",
    "db",
    "-h",
    "dbhost",
    "-e",
    "A=b=c",
    "-e",
    "HOME=/x",
    "--expose",
    "80-83",
    "--expose",
    "53/udp",
    "--expose",
    "53",
    "--expose",
    "90-91",
    "-p=127.0.0.1:7001:6000/udp",
];
const SHOW: &str = "env; cat /etc/hosts";

#[test]
fn a_linked_container_is_told_of_as_by_docker() {
    let sandbox = Sandbox::new();
    // First, as it would hold mounts of containers that it has seen.
    let docker = Docker::start_with_runc(&sandbox);
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let sleep = [&image, "sleep", "1000"];
    manager.ctl(&[&["run"], &DB[..], &sleep].concat()).ok();
    let show = ["--name", "web", "--link", "db:my-db", &image, "sh", "-c", SHOW];
    let ours = told(&manager.ctl(&[&["run", "--rm"], &show[..]].concat()).ok());
    assert!(ours.contains("ADDRESS\tmy-db dbhost db"), "{ours:#?}");
    assert!(
        ours.contains("MY_DB_PORT_80_TCP_START=tcp://ADDRESS:80"),
        "{ours:#?}"
    );
    let short = ["run", "--rm", "--link", "db", &image, "sh", "-c", SHOW];
    let short = manager.ctl(&short).ok();
    assert!(
        short.contains("\tdb dbhost\n") && short.contains("DB_ENV_A=b=c"),
        "{short}"
    );

    let Some(docker) = docker else {
        return;
    };
    docker
        .call(&[&["run"], &DB[..], &["box", "sleep", "1000"]].concat())
        .ok();
    let flags = ["--name", "web", "--link", "db:my-db"];
    let theirs = told(&docker.sh(&flags, SHOW).ok());
    // Docker's image has no PATH of its own, and so has ours.
    assert_eq!(ours, theirs);
}

/// What both refuse, by what both say in any case.
#[test]
fn links_are_refused_where_docker_refuses_them() {
    let sandbox = Sandbox::new();
    let docker = Docker::start_with_runc(&sandbox);
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let ours = |args: &[&str]| {
        let args: Vec<_> = args
            .iter()
            .map(|&word| if word == "box" { image.as_str() } else { word })
            .collect();
        manager.ctl(&args)
    };
    let both = |args: &[&str]| -> Vec<Done> {
        let theirs = docker.iter().map(|docker| docker.call(args));
        [ours(args)].into_iter().chain(theirs).collect()
    };
    let made = [
        &["network", "create", "net"][..],
        &["create", "--name", "rests", "box", "true"],
        &["run", "-d", "--name", "runs", "box", "sleep", "1000"],
        &[
            "run",
            "-d",
            "--name",
            "ofhost",
            "--network",
            "host",
            "box",
            "sleep",
            "1000",
        ],
        &[
            "run",
            "-d",
            "--name",
            "apart",
            "--network",
            "net",
            "box",
            "sleep",
            "1000",
        ],
    ];
    for args in made {
        for done in both(args) {
            done.ok();
        }
    }
    for (flags, word) in [
        (&["--link", "nosuch"][..], "could not get container for nosuch"),
        (&["--link", "runs:a:b"], "bad format for links: runs:a:b"),
        (&["--link", "rests:r"], "link to a non running container"),
        (&["--link", "ofhost:h"], "can't be used with links"),
        (&["--link", "apart:a"], "not attached to default bridge network"),
        (
            &["--link", "runs", "--network", "host"],
            "can't be used with links",
        ),
        (
            &["--link", "runs", "--network", "container:runs"],
            "can't be used with links",
        ),
    ] {
        for done in both(&[&["run", "--rm"], flags, &["box", "true"]].concat()) {
            assert_ne!(done.code, 0, "{flags:?}");
            assert!(done.stderr.contains(word), "{flags:?}: {}", done.stderr);
        }
    }
}

#[test]
fn links_outlast_restarts_and_removal_of_the_linked_one() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let serve = ["nc", "-ll", "-p", "80", "-e", "cat", "/etc/hostname"];
    let db = [&["run", "-d", "--name", "db", &image][..], &serve].concat();
    manager.ctl(&db).ok();
    let web = [
        "run", "-d", "--name", "web", "--link", "db:store", &image, "sleep", "1000",
    ];
    manager.ctl(&web).ok();
    let ask = ["exec", "web", "nc", "-w", "20", "store", "80"];
    let hostname = integration::eventually("the linked one answers", || {
        let answer = manager.ctl(&ask);
        (answer.code == 0 && !answer.stdout.is_empty()).then_some(answer.stdout)
    });
    manager.ctl(&["rename", "db", "other"]).ok();
    manager.ctl(&["restart", "-t", "0", "other"]).ok();
    integration::eventually("it answers still", || {
        (manager.ctl(&ask).stdout == hostname).then_some(())
    });
    manager.kill();
    manager.start_again();
    integration::eventually("it answers still", || {
        (manager.ctl(&ask).stdout == hostname).then_some(())
    });
    assert_eq!(manager.inspect("web")["request"]["links"][0], "db:store");
    // It is this container that was meant, whoever has its name.
    manager.ctl(&["restart", "-t", "0", "web"]).ok();
    integration::eventually("it answers still", || {
        (manager.ctl(&ask).stdout == hostname).then_some(())
    });
    manager.ctl(&["stop", "-t", "0", "web", "other"]).ok();
    let refused = manager.ctl(&["start", "web"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("other AS store"),
        "{}",
        refused.stderr
    );
    manager.ctl(&["rm", "other"]).ok();
    manager.ctl(&["start", "web"]).ok();
    let hosts = manager.ctl(&["exec", "web", "cat", "/etc/hosts"]).ok();
    assert!(!hosts.contains("store"), "{hosts}");
}

#[test]
fn on_a_network_that_users_made_a_link_is_a_name_for_one_alone() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "net"])
        .ok();
    let run = |name: &str, flags: &[&str]| {
        let head = ["run", "-d", "--name", name, "--network", "net"];
        manager
            .ctl(&[&head, flags, &[&image, "sleep", "1000"]].concat())
            .ok();
    };
    let find = |who: &str, name: &str| manager.ctl(&["exec", who, "nslookup", name]);
    // The other one need not be there yet.
    run("web", &["--link", "db:store"]);
    assert_ne!(find("web", "store").code, 0);
    run("db", &["--ip", "10.77.0.9"]);
    assert!(find("web", "store").ok().contains("10.77.0.9"));
    assert!(find("web", "store.net").ok().contains("10.77.0.9"));
    assert_ne!(find("db", "store").code, 0);
    // With the other one's new address comes a new answer.
    manager.ctl(&["network", "disconnect", "net", "db"]).ok();
    assert_ne!(find("web", "store").code, 0);
    manager
        .ctl(&["network", "connect", "--ip", "10.77.0.10", "net", "db"])
        .ok();
    manager.ctl(&["restart", "-t", "0", "db"]).ok();
    assert!(find("web", "store").ok().contains("10.77.0.10"));
    // A link goes over a name, as docker has it.
    run("late", &[]);
    manager.ctl(&["network", "disconnect", "net", "late"]).ok();
    manager
        .ctl(&["network", "connect", "--link", "db:web", "net", "late"])
        .ok();
    assert!(find("late", "web").ok().contains("10.77.0.10"));
    assert_eq!(manager.inspect("late")["networks"]["net"]["links"][0], "db:web");
    let refused = manager.ctl(&["network", "connect", "--link", "a:b:c", "net", "late"]);
    assert!(
        refused.stderr.contains("bad format for links"),
        "{}",
        refused.stderr
    );
}
