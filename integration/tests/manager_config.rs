//! The manager's configuration file: what it says holds below the command line, what is wrong with it is told with its
//! line, and SIGHUP has it read again.

use integration::{Manager, Sandbox, binary, eventually, run};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// `manager ARGS`, which is to end by itself and touches nothing of this machine.
fn manager_once(sandbox: &Sandbox, args: &[&str]) -> integration::Done {
    let folder = sandbox.path().join("once");
    let mut command = Command::new("unshare");
    command.arg("--net").arg(binary("manager"));
    command.arg("--root").arg(folder.join("lib"));
    command.arg("--state").arg(folder.join("run"));
    command.arg("--shim").arg(binary("shim"));
    run(command.args(args))
}

struct File(PathBuf);

impl File {
    fn new(sandbox: &Sandbox, text: &str) -> File {
        let file = File(sandbox.path().join("manager.toml"));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("write the configuration");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

/// A manager with this configuration, and more on its command line.
fn start(sandbox: &Sandbox, file: &File, options: &[&str]) -> Manager {
    let mut manager = Manager::start(sandbox);
    manager.stop();
    manager.set_options(&[&["--config", file.path()], options].concat());
    manager.start_again();
    manager
}

#[track_caller]
fn info(manager: &Manager) -> Value {
    let text = manager.ctl(&["system", "info", "--format", "json"]).ok();
    serde_json::from_str(&text).expect("info prints JSON")
}

/// SIGHUP, and wait until the log says more of `word` than before.
#[track_caller]
fn reload(manager: &Manager, word: &str) {
    let before = manager.log().matches(word).count();
    run(Command::new("kill").args(["-HUP", &manager.pid().to_string()])).ok();
    eventually("the configuration is read again", || {
        (manager.log().matches(word).count() > before).then_some(())
    });
}

const HOLDS: &str = "the configuration is read again, and holds";
const STAYS: &str = "the configuration is not right: all stays as it was";

#[test]
fn a_file_that_is_not_right_is_refused_with_its_line_and_its_key() {
    let sandbox = Sandbox::new();
    let file = File::new(&sandbox, "");
    for (text, parts) in [
        (
            "\nlog-drvier = 'local'\n",
            [":2: ", "`log-drvier`", "`log-driver`"],
        ),
        ("root = true\n", [":1: root: ", "boolean", "string"]),
        (
            "log-driver = 'splunk'\n",
            [":1: log-driver", "splunk", "json-file"],
        ),
        (
            "[log-opts]\nmax-size = 'big'\n",
            [":1: log-opts", "max-size", "big"],
        ),
        ("dns = ['here']\n", [":1: dns[0]: ", "IP address", ""]),
        (
            "bridge-subnet = '10.0.0.255/24'\n",
            [":1: bridge-subnet", "10.0.0.255", "broadcast"],
        ),
        (
            "[default-ulimits]\nfiles = 5\n",
            [":1: default-ulimits", "files", "ulimit"],
        ),
        ("tcp = '127.0.0.1:1'\n", ["--tlscacert", "--tlskey", ""]),
        ("root = \n", [":1: ", "", ""]),
    ] {
        file.write(text);
        for more in ["--check-config", "--log-level=info"] {
            let said = manager_once(&sandbox, &["--config", file.path(), more]).refused();
            assert!(parts.iter().all(|part| said.contains(part)), "{text:?}: {said}");
        }
    }
    let missing = manager_once(&sandbox, &["--config", "/no/such.toml", "--check-config"]).refused();
    assert!(
        missing.contains("/no/such.toml") && missing.contains("No such file"),
        "{missing}"
    );
    let folder = manager_once(&sandbox, &["--config", "/etc", "--check-config"]).refused();
    assert!(folder.contains("not a regular file"), "{folder}");
    // To which nobody ever writes.
    let pipe = sandbox.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
    let pipe = manager_once(&sandbox, &["--config", &pipe.to_string_lossy(), "--check-config"]).refused();
    assert!(pipe.contains("not a regular file"), "{pipe}");

    file.write("log-level = 'debug'\n");
    let checked = manager_once(
        &sandbox,
        &["--config", file.path(), "--validate", "--log-level", "warn"],
    )
    .ok();
    assert!(
        checked.contains("is valid") && checked.contains("\"warn\" of the command line"),
        "{checked}"
    );
    assert!(
        !sandbox.path().join("once").exists(),
        "a check leaves nothing behind"
    );
}

#[test]
fn what_containers_and_networks_leave_out_is_as_the_file_says() {
    let sandbox = Sandbox::new();
    let file = File::new(
        &sandbox,
        r#"
        log-driver = "local"
        default-shm-size = "8m"
        dns = ["10.9.8.7"]
        dns-search = ["corp.example"]
        dns-opts = ["ndots:3"]
        [log-opts]
        max-file = 2
        [default-ulimits]
        nofile = "100:200"
        core = 0
        [[default-address-pools]]
        base = "10.77.0.0/16"
        size = 24
        "#,
    );
    let manager = start(&sandbox, &file, &[]);
    let image = manager.busybox();
    let look = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /etc/resolv.conf; df -k /dev/shm";
    let seen = manager.ctl(&["run", "--rm", &image, "sh", "-c", look]).ok();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..3], ["100", "200", "0"], "{seen}");
    for part in [
        "nameserver 10.9.8.7",
        "search corp.example",
        "options ndots:3",
        "8192",
    ] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    // What is asked for counts.
    let own = [
        "run",
        "--rm",
        "--ulimit",
        "nofile=50",
        "--dns",
        "10.1.1.1",
        "--shm-size",
        "4m",
        &image,
        "sh",
        "-c",
        look,
    ];
    let seen = manager.ctl(&own).ok();
    assert_eq!(seen.lines().next(), Some("50"), "{seen}");
    assert!(
        seen.contains("nameserver 10.1.1.1") && seen.contains("4096"),
        "{seen}"
    );
    assert!(!seen.contains("10.9.8.7"), "{seen}");
    // A network takes the first of the pool, and the next one the next.
    for (name, subnet) in [("one", "10.77.0.0/24"), ("two", "10.77.1.0/24")] {
        manager.ctl(&["network", "create", name]).ok();
        let network = manager.ctl(&["network", "inspect", name]).ok();
        assert!(network.contains(subnet), "{network}");
    }
    manager.ctl(&["create", "--name", "quiet", &image, "true"]).ok();
    let logging = manager.inspect("quiet").to_string();
    assert!(
        logging.contains("\"local\"") && logging.contains("max-file"),
        "{logging}"
    );
    let info = info(&manager);
    assert_eq!(info["version"]["logDriver"], "local");
    assert_eq!(info["defaultAddressPools"][0]["base"], "10.77.0.0/16");
    assert_eq!(info["configuration"]["file"], file.path());
    manager.ctl(&["network", "rm", "one", "two"]).ok();
}

#[test]
fn a_reload_changes_what_can_change_and_names_what_cannot() {
    let sandbox = Sandbox::new();
    let file = File::new(&sandbox, "default-shm-size = '8m'\nbridge-name = 'other0'\n");
    let manager = start(&sandbox, &file, &["--bridge-name", "berth0"]);
    let image = manager.busybox();
    let shm = || {
        let seen = manager.ctl(&["run", "--rm", &image, "df", "-k", "/dev/shm"]).ok();
        let line = seen.lines().last().expect("a line").to_owned();
        line.split_whitespace().nth(1).expect("a size").to_owned()
    };
    assert_eq!(shm(), "8192");
    // The file says one thing, the command line another.
    let overridden = info(&manager)["configuration"]["overridden"].to_string();
    assert!(
        overridden.contains("bridge-name") && overridden.contains("other0"),
        "{overridden}"
    );
    let text = manager.ctl(&["info"]).ok();
    assert!(text.contains("WARNING: bridge-name"), "{text}");

    // An older container keeps what it was made with.
    manager
        .ctl(&["run", "-d", "--name", "before", &image, "sleep", "1000"])
        .ok();
    file.write("default-shm-size = '16m'\nlog-level = 'debug'\nroot = '/elsewhere'\nlayers = 'auto'\n");
    reload(&manager, HOLDS);
    assert_eq!(shm(), "16384");
    let kept = manager.ctl(&["exec", "before", "df", "-k", "/dev/shm"]).ok();
    assert!(kept.contains("8192"), "{kept}");
    let configuration = info(&manager)["configuration"].clone();
    assert_eq!(
        configuration["pending"],
        serde_json::json!(["layers"]),
        "{configuration}"
    );
    eventually("the log names what holds later", || {
        let log = manager.log();
        (log.contains("layers") && log.contains("next start")).then_some(())
    });

    // A broken file changes nothing, and not a part of it either.
    file.write("default-shm-size = '32m'\nlog-level = 'no such=level=x'\n");
    reload(&manager, STAYS);
    assert_eq!(shm(), "16384");
    file.write("default-shm-size = '32m'\nlog-drvier = 'local'\n");
    reload(&manager, STAYS);
    assert_eq!(shm(), "16384");
    let error = info(&manager)["configuration"]["error"].to_string();
    assert!(error.contains("log-drvier") && error.contains(":2: "), "{error}");
    let doctor = manager.ctl(&["system", "doctor", "--format", "json"]);
    let findings: Vec<Value> = serde_json::from_str(&doctor.stdout).expect("JSON");
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == "configuration");
    let finding = finding.expect("the doctor tells of the configuration");
    assert_eq!(finding["status"], "warning", "{finding}");
    assert!(finding["found"].to_string().contains("log-drvier"), "{finding}");

    file.write("default-shm-size = '32m'\n");
    reload(&manager, HOLDS);
    assert_eq!(shm(), "32768");
    assert_eq!(info(&manager)["configuration"]["error"], "");
    assert_eq!(info(&manager)["containers"]["running"], 1);
}

#[test]
fn info_has_dockers_fields_and_counts() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"])
        .ok();
    manager
        .ctl(&["run", "-d", "--name", "two", &image, "sleep", "1000"])
        .ok();
    manager.ctl(&["pause", "two"]).ok();
    manager.ctl(&["create", "--name", "three", &image, "true"]).ok();
    let layout = "{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}} {{.Images}} {{.LoggingDriver}} {{.OSType}} {{.DockerRootDir}}";
    let expected = format!("3 1 1 1 1 json-file linux {}\n", manager.root().display());
    for command in [&["info"][..], &["system", "info"]] {
        assert_eq!(
            manager.ctl(&[command, &["--format", layout]].concat()).ok(),
            expected
        );
    }
    let cpus = manager.ctl(&["info", "--format", "{{.NCPU}} {{.MemTotal}}"]).ok();
    assert!(
        cpus.split_whitespace()
            .all(|number| number.parse::<u64>().is_ok_and(|n| n > 0)),
        "{cpus}"
    );
    manager.ctl(&["unpause", "two"]).ok();
}
