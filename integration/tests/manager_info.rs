//! `info`, held against dockerd's on the same machine.

use integration::{Docker, Manager, Sandbox, eventually};
use serde_json::Value;

/// Fields that say the same of one machine. Of its distribution docker knows the one that it came with.
const SAME: [&str; 17] = [
    ".NCPU",
    ".MemTotal",
    ".KernelVersion",
    ".OSType",
    ".Architecture",
    ".CgroupDriver",
    ".CgroupVersion",
    ".LoggingDriver",
    ".LiveRestoreEnabled",
    ".Swarm.LocalNodeState",
    ".MemoryLimit",
    ".SwapLimit",
    ".CPUShares",
    ".CPUCfsQuota",
    ".CPUSet",
    ".PidsLimit",
    ".OomKillDisable",
];
const COUNTS: &str = "{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}";

#[test]
fn what_is_told_of_the_machine_is_what_docker_tells() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let Some(docker) = Docker::start_with_runc(&sandbox) else {
        return;
    };
    for field in SAME {
        let ask = ["info", "--format", &format!("{{{{json {field}}}}}")];
        assert_eq!(manager.ctl(&ask).ok(), docker.call(&ask).ok(), "{field}");
    }
    let again = ["-d", "--name", "again", "--restart", "always"];
    let still = ["-d", "--name", "still"];
    for (flags, program) in [(&again[..], "false"), (&still[..], "sleep")] {
        let run = |image| [&["run"], flags, &[image, program, "1000"]].concat();
        manager.ctl(&run(&image)).ok();
        docker.call(&run("box")).ok();
    }
    manager.ctl(&["pause", "still"]).ok();
    docker.call(&["pause", "still"]).ok();
    // It rests longer each time between its runs.
    let ask = ["info", "--format", COUNTS];
    for counts in [
        eventually("docker's container rests", || {
            let before = docker.inspect("again", ".State.Status");
            let counts = docker.call(&ask).ok();
            let same = before == "restarting" && docker.inspect("again", ".State.Status") == before;
            same.then_some(counts)
        }),
        eventually("our container rests", || {
            let before = manager.inspect("again")["state"].clone();
            let counts = manager.ctl(&ask).ok();
            let same = before == "restarting" && manager.inspect("again")["state"] == before;
            same.then_some(counts)
        }),
    ] {
        assert_eq!(counts, "2 0 1 1\n");
    }
    docker.call(&["unpause", "still"]).ok();
    manager.ctl(&["rm", "-f", "again", "still"]).ok();
}

#[test]
fn plugins_that_are_there_are_told() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let folder = sandbox.path().join("plugins");
    std::fs::create_dir(&folder).expect("make a folder");
    std::fs::write(folder.join("far.spec"), "tcp://127.0.0.1:1").expect("write a plugin's address");
    manager.stop();
    manager.set_options(&["--plugin-folders", &folder.to_string_lossy()]);
    manager.start_again();
    let plugins = manager.ctl(&["info", "--format", "{{json .Plugins}}"]).ok();
    let plugins: Value = serde_json::from_str(&plugins).expect("JSON");
    assert_eq!(plugins["Volume"], serde_json::json!(["local", "far"]));
    let networks = plugins["Network"].as_array().expect("a list");
    for driver in ["bridge", "host", "null"] {
        assert!(networks.iter().any(|known| known == driver), "{plugins}");
    }
    let text = manager.ctl(&["info"]).ok();
    assert!(
        text.contains("local, far") && text.contains("name=seccomp,profile=builtin"),
        "{text}"
    );
}
