//! That each flag of docker's commands is known here, or has a row in RUN.md that says why it is not.

use integration::{Docker, Manager, Peers, Sandbox, run};
use std::collections::BTreeSet;
use std::process::Command;

const TABLE: &str = include_str!("../../manager/ctl/RUN.md");

/// The long flags that a help tells of, each at the beginning of its line.
fn flags(help: &str) -> BTreeSet<String> {
    let words = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let long = match line.strip_prefix('-')?.strip_prefix('-') {
            Some(long) => long,
            None => line.split_once(", --")?.1,
        };
        let is_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        Some(long.split(|letter| !is_name(letter)).next()?.to_owned())
    });
    words.filter(|flag| !flag.is_empty() && flag != "help").collect()
}

#[test]
fn every_flag_of_dockers_is_known_or_has_its_reason() {
    let sandbox = Sandbox::new();
    let Some(peers) = Peers::start(&sandbox) else {
        return;
    };
    let told = |mut command: Command, words: &[&str]| flags(&run(command.args(words).arg("--help")).ok());
    for words in [
        &["run"][..],
        &["create"],
        &["exec"],
        &["start"],
        &["stop"],
        &["restart"],
        &["kill"],
        &["rm"],
        &["ps"],
        &["logs"],
        &["attach"],
        &["update"],
        &["wait"],
        &["cp"],
        &["inspect"],
        &["network", "connect"],
        &["network", "disconnect"],
    ] {
        let theirs = told(peers.command("docker"), words);
        let ours = told(Command::new(integration::binary("managerctl")), words);
        assert!(!theirs.is_empty() || *words == ["wait"], "{words:?}");
        for flag in theirs.difference(&ours) {
            let row = match words {
                ["run" | "create"] => format!("| `--{flag}` |"),
                _ => format!("| `{} --{flag}` |", words.join(" ")),
            };
            let is_told = TABLE
                .lines()
                .any(|line| line.starts_with(&row) && !line.contains("| done |"));
            assert!(is_told, "RUN.md has no row {row}");
        }
    }
}

#[test]
fn the_hosts_network_and_none_are_neither_joined_nor_left_later() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"])
        .ok();
    for network in ["host", "none"] {
        for verb in ["connect", "disconnect"] {
            let refused = manager.ctl(&["network", verb, network, "one"]).refused();
            let word = format!("{verb} a container");
            assert!(refused.contains(&word) && refused.contains("making"), "{refused}");
        }
    }
}

#[test]
fn sizes_are_those_that_docker_tells() {
    // What has no length, several names, holes, or is no file; what goes, and what is not its own.
    const WRITES: &str = "mkdir -p /tmp/a/b && head -c 1000 /dev/zero >/tmp/a/one && ln /tmp/a/one /tmp/a/b/other \
        && ln -s /tmp/a/nowhere /tmp/link && truncate -s 5000000 /tmp/holes && mkfifo /tmp/pipe && echo x >>/etc/group \
        && rm -rf /home && head -c 70000 /dev/zero >/memory/file && head -c 90000 /dev/zero >/data/file";
    const RUN: [&str; 8] = [
        "--name",
        "writer",
        "--network",
        "none",
        "--tmpfs",
        "/memory",
        "-v",
        "/data",
    ];
    const ASKED: [&str; 5] = ["inspect", "-s", "-f", "{{.SizeRw}}", "writer"];
    let sandbox = Sandbox::new();
    let Some(docker) = Docker::start_with_runc(&sandbox) else {
        return;
    };
    docker
        .call(&[&["run"], &RUN[..], &["box", "sh", "-c", WRITES]].concat())
        .ok();
    let theirs = docker.call(&ASKED).ok();
    docker.call(&["rm", "-v", "writer"]).ok();

    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&[&["run"], &RUN[..], &[&image, "sh", "-c", WRITES]].concat())
        .ok();
    assert_eq!(manager.ctl(&ASKED).ok(), theirs);
    manager.ctl(&["rm", "-v", "writer"]).ok();
}
