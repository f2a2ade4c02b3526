//! `managerctl run`, as a docker user expects it: the eight steps on a terminal, and what flags mean.

use integration::{Image, Manager, Registry, Sandbox, eventually, finish, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What `inspect` tells of one container.
/// A network beyond the manager's host, that knows no way back to its containers: only an address translated by
/// the host gets an answer.
struct Outside {
    name: String,
}

impl Outside {
    const ADDRESS: &'static str = "198.51.100.2";

    #[track_caller]
    fn beside(sandbox: &Sandbox, manager: &Manager) -> Self {
        let name = format!("berth-{}-outside", sandbox.id());
        run(Command::new("ip").args(["netns", "add", &name])).ok();
        let outside = Self { name };
        let name = &outside.name;
        let inside: &[&[&str]] = &[
            &[
                "link", "add", "uplink", "type", "veth", "peer", "name", "far", "netns", name,
            ],
            &["addr", "add", "198.51.100.1/24", "dev", "uplink"],
            &["link", "set", "uplink", "up"],
        ];
        for args in inside {
            run(manager.inside("ip").args(*args)).ok();
        }
        let address = format!("{}/24", Self::ADDRESS);
        let beyond: &[&[&str]] = &[
            &["addr", "add", &address, "dev", "far"],
            &["link", "set", "far", "up"],
            &["link", "set", "lo", "up"],
        ];
        for args in beyond {
            run(Command::new("ip").args(["-n", name]).args(*args)).ok();
        }
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Links of containers on the manager's host.
#[track_caller]
fn container_links(manager: &Manager) -> Vec<String> {
    let text = run(manager.inside("ip").args(["-json", "link"])).ok();
    let links: Value = serde_json::from_str(&text).expect("ip prints JSON");
    let names = links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| link["ifname"].as_str());
    names
        .filter(|name| name.starts_with("bth"))
        .map(str::to_owned)
        .collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_eight_steps_of_run_on_a_terminal() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let outside = Outside::beside(&sandbox, &manager);
    let image = manager.registry().push(&Image::busybox(), "busybox:1");
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");

    // 1 pulled because it is missing, 2 created, 6 started, 7 with a terminal attached.
    let mut terminal = manager.ctl_on_terminal(&["run", "-i", "-t", "--name", "eight", &image, "sh"]);
    terminal.expect("pulling");
    terminal.send("echo ready-$((40 + 2))\n");
    terminal.expect("ready-42");
    assert_eq!(manager.ctl(&["images", "-q"]).ok().lines().count(), 1);
    let running = manager.inspect("eight");
    assert_eq!(running["state"], "running");
    terminal.send("tty; stty size\n");
    terminal.expect("/dev/");
    terminal.expect("24 80");

    // 3 a layer that can be written to.
    terminal.send("echo kept > /kept; rm /bin/yes; cat /kept | tr k K\n");
    terminal.expect("Kept");

    // 4 an interface, 5 with an address, a route and translation.
    let address = running["address"].as_str().expect("a container has an address");
    let (address, prefix) = address.split_once('/').expect("an address has a prefix");
    assert_eq!((&address[..7], prefix), ("172.30.", "16"));
    terminal.send("ip addr show eth0 | grep inet\n");
    terminal.expect(&format!("inet {address}/16"));
    terminal.send("ip route | grep default\n");
    terminal.expect("default via 172.30.0.1 dev eth0");
    terminal.send(&format!(
        "ping -c 1 -W 20 {} > /dev/null && echo answered-$((1 + 1))\n",
        Outside::ADDRESS
    ));
    terminal.expect("answered-2");

    // 8 its exit stops it, and keeps it.
    terminal.send("exit 7\n");
    assert_eq!(terminal.exit_code(), 7);
    assert_eq!(manager.ctl(&["ps", "-q"]).ok(), "");
    let exited = eventually("the exit is on record", || {
        let found = manager.inspect("eight");
        (found["state"] == "exited").then_some(found)
    });
    assert_eq!(exited["exit"]["code"], 7);
    assert_eq!(container_links(&manager), [""; 0]);

    // Started again, it has its files.
    let mut again = manager.ctl_on_terminal(&["start", "-a", "-i", "eight"]);
    again.send("cat /kept | tr k K; ls /bin/yes\n");
    again.expect("Kept");
    again.expect("/bin/yes: No such file");
    again.send("exit\n");
    assert_eq!(
        again.exit_code(),
        1,
        "the shell's code is that of its last command"
    );

    // Removed, it is gone, and the next of its name begins anew.
    assert_eq!(manager.ctl(&["rm", "eight"]).ok(), "eight\n");
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
    let anew = manager.ctl(&[
        "run",
        "--rm",
        "--name",
        "eight",
        &image,
        "sh",
        "-c",
        "ls /bin/yes; ls /kept",
    ]);
    assert_eq!((anew.code, anew.stdout.as_str()), (1, "/bin/yes\n"), "{anew}");
    drop(outside);
}

#[test]
fn outputs_and_exit_codes_are_the_containers() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let done = manager.ctl(&[
        "run",
        "--rm",
        &image,
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str(), done.code),
        ("out\n", "err\n", 3)
    );
    let long = manager.ctl(&["run", "--rm", &image, "seq", "1", "200000"]).ok();
    assert!(
        long.lines().eq((1..=200_000).map(|number| number.to_string())),
        "{} bytes",
        long.len()
    );

    manager
        .ctl(&["run", "-d", "--name", "victim", &image, "sleep", "1000"])
        .ok();
    assert_eq!(manager.ctl(&["kill", "victim"]).ok(), "victim\n");
    assert_eq!(manager.ctl(&["wait", "victim"]).ok(), "137\n");
    assert_eq!(manager.inspect("victim")["exit"]["code"], 137);
}

#[test]
fn stdin_reaches_the_container_whole_and_ends_there() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let input = sandbox.path().join("input");
    let text = (0..400_000)
        .map(|number| number.to_string())
        .collect::<Vec<_>>()
        .join("\n");
    fs::write(&input, &text).expect("write the input");
    let mut command = manager.ctl_command(&["run", "--rm", "-i", &image, "cat"]);
    command.stdin(fs::File::open(&input).expect("open the input"));
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start managerctl");
    let output = finish(child, "run -i cat".to_owned()).ok();
    assert!(
        output == text,
        "{} of {} bytes came back",
        output.len(),
        text.len()
    );
}

#[test]
fn signals_to_the_client_are_the_containers() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "trap 'echo got-it; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut client = manager.ctl_on_terminal(&["run", "--rm", &image, "sh", "-c", script]);
    client.expect("ready");
    kill(Pid::from_raw(client.pid() as i32), Signal::SIGTERM).expect("signal the client");
    client.expect("got-it");
    assert_eq!(client.exit_code(), 5);
}

#[test]
fn flags_shape_the_process_and_its_world() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make a folder to share");
    fs::write(shared.join("from-host"), "hello\n").expect("write a file to share");
    let volume = format!("{}:/mnt:ro", shared.display());
    let script =
        "id -un; pwd; hostname; echo $A; cat /mnt/from-host; touch /mnt/x 2>/dev/null || echo read-only";
    let done = manager.ctl(&[
        "run",
        "--rm",
        "-u",
        "alice",
        "-w",
        "/home",
        "--hostname",
        "box",
        "-e",
        "A=b c",
        "-v",
        &volume,
        &image,
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(done.ok(), "alice\n/home\nbox\nb c\nhello\nread-only\n");
    assert_eq!(entries(&shared), ["from-host"]);

    let read_only = manager.ctl(&["run", "--rm", "--read-only", &image, "touch", "/x"]);
    assert!(
        read_only.code != 0 && read_only.stderr.contains("Read-only"),
        "{read_only}"
    );
    let entry = manager.ctl(&["run", "--rm", "--entrypoint", "/bin/echo", &image, "sh", "-c"]);
    assert_eq!(entry.ok(), "sh -c\n");
    let none = manager.ctl(&["run", "--rm", "--network", "none", &image, "ls", "/sys/class/net"]);
    assert_eq!(none.ok(), "lo\n");
    let host = manager
        .ctl(&["run", "--rm", "--network", "host", &image, "ls", "/sys/class/net"])
        .ok();
    assert!(host.contains("berth0"), "{host}");
}

#[test]
fn limits_reach_the_kernel() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let id = manager
        .ctl(&[
            "run",
            "-d",
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "32",
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    let id = id.trim();
    let read = |controller: &str, old: &str, new: &str| {
        let old = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join("berth")
            .join(id)
            .join(old);
        let unified = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(|root| Path::new(root).join("berth").join(id).join(new));
        let mut texts = std::iter::once(old)
            .chain(unified)
            .filter_map(|path| fs::read_to_string(path).ok());
        texts.next().expect("the group has its limits").trim().to_owned()
    };
    assert_eq!(
        read("memory", "memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string()
    );
    assert_eq!(read("pids", "pids.max", "pids.max"), "32");
    let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota == "50000" || quota.starts_with("50000 100000"), "{quota}");
}

#[test]
fn a_container_run_with_rm_leaves_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let before = entries(&manager.root().join("containers"));
    manager.ctl(&["run", "--rm", &image, "touch", "/written"]).ok();
    let id = manager
        .ctl(&["run", "-d", "--rm", &image, "sh", "-c", "touch /written"])
        .ok();
    let id = id.trim();
    eventually("both containers are gone", || {
        manager.ctl(&["ps", "-a", "-q"]).ok().is_empty().then_some(())
    });
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
    assert_eq!(entries(&manager.root().join("containers")), before);
    assert_eq!(entries(&manager.state().join("bundles")), [""; 0]);
    assert_eq!(entries(&manager.state().join("runtime/berth")), [""; 0]);
    assert_eq!(container_links(&manager), [""; 0]);
    for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
        let group = Path::new("/sys/fs/cgroup").join(hierarchy).join("berth").join(id);
        assert!(!group.exists(), "{} is left", group.display());
    }
}

#[test]
fn a_name_is_taken_until_its_container_is_removed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    assert_eq!(manager.ctl(&["run", "--name", "only", &image, "true"]).ok(), "");
    let second = manager.ctl(&["run", "--name", "only", &image, "true"]);
    assert!(second.code == 125 && second.stderr.contains("only"), "{second}");
    manager.ctl(&["rm", "only"]).ok();
    manager
        .ctl(&["run", "--rm", "--name", "only", &image, "true"])
        .ok();
}

#[test]
fn when_run_with_rm_returns_its_container_is_gone() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for _ in 0..20 {
        manager
            .ctl(&["run", "--rm", "--name", "same", &image, "true"])
            .ok();
        assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
    }
}

#[test]
fn stop_asks_first_and_kills_then() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let polite = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    manager
        .ctl(&["run", "-d", "--name", "polite", &image, "sh", "-c", polite])
        .ok();
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "deaf",
            &image,
            "sh",
            "-c",
            "trap '' TERM; sleep 1000",
        ])
        .ok();
    assert_eq!(manager.ctl(&["stop", "-t", "60", "polite"]).ok(), "polite\n");
    assert_eq!(manager.ctl(&["stop", "-t", "1", "deaf"]).ok(), "deaf\n");
    assert_eq!(manager.inspect("polite")["exit"]["code"], 0);
    assert_eq!(manager.inspect("deaf")["exit"]["code"], 137);
    let refused = manager.ctl(&["rm", "polite", "nobody"]);
    assert!(
        refused.code == 1 && refused.stdout == "polite\n" && refused.stderr.contains("nobody"),
        "{refused}"
    );
    manager.ctl(&["start", "deaf"]).ok();
    let refused = manager.ctl(&["rm", "deaf"]).refused();
    assert!(refused.contains("deaf"), "{refused}");
    manager.ctl(&["rm", "-f", "deaf"]).ok();
}

#[test]
fn after_kill_it_is_not_running() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let first = manager
        .ctl(&["run", "-d", "--name", "again", &image, "sleep", "1000"])
        .ok();
    for _ in 0..5 {
        let before = manager.inspect("again")["pid"].clone();
        manager.ctl(&["kill", "again"]).ok();
        let killed = manager.inspect("again");
        assert_eq!(
            (&killed["state"], &killed["exit"]["code"]),
            (&"exited".into(), &137.into())
        );
        manager.ctl(&["start", "again"]).ok();
        let found = manager.inspect("again");
        assert_eq!(
            (&found["state"], found["id"].as_str()),
            (&"running".into(), Some(first.trim()))
        );
        assert_ne!(found["pid"], before);
    }
    let refused = manager.ctl(&["kill", "-s", "NOSUCH", "again"]).refused();
    assert!(refused.contains("NOSUCH"), "{refused}");
    manager.ctl(&["kill", "again"]).ok();
    let refused = manager.ctl(&["kill", "again"]).refused();
    assert!(refused.contains("not running"), "{refused}");
}

#[test]
fn an_image_may_have_more_layers_than_one_page_of_mount_options_names() {
    const LAYERS: usize = 150;
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let files: Vec<_> = (0..LAYERS).map(|i| format!("layers/{i}")).collect();
    let image = files.iter().fold(Image::busybox(), |image, file| {
        image.with_layer(integration::Layer::from_files(&[(file, "x")]))
    });
    let reference = manager.registry().push(&image, "high:1");
    let script = "ls /layers | wc -l; echo > /layers/0; cat /layers/* | wc -c";
    let told = manager.ctl(&["run", "--rm", &reference, "sh", "-c", script]).ok();
    assert_eq!(told, format!("{LAYERS}\n{LAYERS}\n"));
}

#[test]
fn lists_and_images_are_told_as_tables_and_json() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let id = manager
        .ctl(&[
            "run", "-d", "--name", "listed", "-l", "tier=web", &image, "sleep", "1000",
        ])
        .ok();
    let table = manager.ctl(&["ps"]).ok();
    let row = table.lines().nth(1).expect("one container");
    assert!(
        row.starts_with(&id[..12]) && row.contains("Up ") && row.ends_with("listed"),
        "{table}"
    );
    let list: Value = serde_json::from_str(&manager.ctl(&["ps", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(list[0]["id"], id.trim());
    assert_eq!(list[0]["labels"]["tier"], "web");
    assert_eq!(list[0]["state"], "running");
    assert_eq!(list[0]["command"], serde_json::json!(["sleep", "1000"]));
    let images: Value =
        serde_json::from_str(&manager.ctl(&["images", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(images[0]["names"][0], format!("{}/busybox:1", Registry::HOST));
    let refused = manager.ctl(&["rmi", &image]).refused();
    assert!(refused.contains("busybox"), "an image in use is kept: {refused}");
    manager.ctl(&["rm", "-f", "listed"]).ok();
    let removed = manager.ctl(&["rmi", &image]).ok();
    assert!(
        removed.contains("Untagged: ") && removed.contains("Deleted: sha256:"),
        "{removed}"
    );
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
}

#[test]
fn a_limit_of_memory_limits_swap_where_it_is_counted() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let id = manager
        .ctl(&["run", "-d", "-m", "64m", &image, "sleep", "1000"])
        .ok();
    let id = id.trim();
    let v1 = Path::new("/sys/fs/cgroup/memory/berth").join(id);
    let v2 = Path::new("/sys/fs/cgroup/berth").join(id);
    if let Ok(limit) = fs::read_to_string(v1.join("memory.memsw.limit_in_bytes")) {
        assert_eq!(limit.trim(), (128 << 20).to_string());
    } else if let Ok(limit) = fs::read_to_string(v2.join("memory.swap.max")) {
        assert_eq!(limit.trim(), (64 << 20).to_string());
    }
    let memory = ["memory.limit_in_bytes", "memory.max"]
        .into_iter()
        .zip([&v1, &v2])
        .find_map(|(file, group)| fs::read_to_string(group.join(file)).ok())
        .expect("a limit of memory");
    assert_eq!(memory.trim(), (64 << 20).to_string());
}

#[test]
fn what_an_image_asks_for_and_does_not_get_is_told_on_stderr() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let mut image = Image::busybox();
    image.config["OnBuild"] = serde_json::json!(["RUN true"]);
    let reference = manager.registry().push(&image, "asks:1");
    manager.ctl(&["pull", &reference]).ok();
    let done = manager.ctl(&["run", "--rm", &reference, "echo", "ran"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "ran\n"), "{done}");
    let told: Vec<&str> = done.stderr.lines().collect();
    assert!(told.len() == 1 && told[0].starts_with("WARNING: "), "{done}");
    assert!(told[0].contains("ONBUILD"), "{done}");
    let plain = manager.busybox();
    assert_eq!(manager.ctl(&["run", "--rm", &plain, "true"]).stderr, "");
}

#[test]
fn on_the_hosts_network_a_container_has_the_hosts_name() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let host = run(&mut Command::new("hostname")).ok();
    let name = |more: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "host"];
        args.extend(more);
        args.extend([image.as_str(), "hostname"]);
        manager.ctl(&args).ok()
    };
    assert_eq!(name(&[]), host);
    assert_eq!(name(&["-h", "own"]), "own\n");
    let version = manager.ctl(&["version"]).ok();
    assert!(!version.contains("runtime version"), "{version}");
}
