//! That each flag of docker's commands is known here, or has a row in RUN.md that says why it is not.

use integration::{Manager, Peers, Sandbox, run};
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
fn the_default_bridge_is_neither_joined_nor_left_later() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"])
        .ok();
    for network in ["bridge", "default", "host", "none"] {
        for verb in ["connect", "disconnect"] {
            let refused = manager.ctl(&["network", verb, network, "one"]).refused();
            let word = format!("{verb} a container");
            assert!(refused.contains(&word) && refused.contains("making"), "{refused}");
        }
    }
}
