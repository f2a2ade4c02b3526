//! The manager dies at any moment: what it has acknowledged is so when the next one answers, what it has not is
//! there whole or not at all, what runs goes on, and nothing is left that has no owner.
//!
//! `failpoints`, `archives` and `volumes` end it at each place between two durable states, `at_random` and `networks`
//! anywhere under load; `shim` is about the death of a container's shim.

mod archives;
mod at_random;
mod failpoints;
mod networks;
mod shim;
mod upkeep;
mod volumes;

use integration::{Manager, binary, run};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Far beyond what a loaded machine needs.
const DEADLINE: Duration = Duration::from_secs(90);

/// What `inspect` tells of a container; nothing if there is none.
#[track_caller]
fn find(manager: &Manager, container: &str) -> Option<Value> {
    let done = manager.ctl(&["inspect", "--type", "container", container]);
    if done.code != 0 {
        assert!(done.stderr.contains("no such container"), "{done}");
        return None;
    }
    let mut all: Value = serde_json::from_str(&done.stdout).expect("inspect prints JSON");
    Some(all[0].take())
}

#[track_caller]
fn inspect(manager: &Manager, container: &str) -> Value {
    find(manager, container).unwrap_or_else(|| panic!("{container} is not there"))
}

/// Whether a process is there and has not ended. One whose shim was killed may stay a zombie.
fn is_alive(pid: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

fn entries(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[track_caller]
fn ids(manager: &Manager, flags: &[&str]) -> BTreeSet<String> {
    let mut args = vec!["ps", "-q", "--no-trunc"];
    args.extend_from_slice(flags);
    manager.ctl(&args).ok().lines().map(str::to_owned).collect()
}

/// What the links of a running container on the host are named from. One that has ended meanwhile has none.
fn links_of(manager: &Manager, id: &str) -> BTreeSet<String> {
    let Some(found) = find(manager, id) else {
        return BTreeSet::new();
    };
    let on_bridge = found["address"].is_string().then(|| id[..12].to_owned());
    let places = found["networks"].as_object().into_iter().flatten();
    let on_networks =
        places.filter_map(|(_, place)| Some(network::link_id(id, place["networkId"].as_str()?)));
    on_bridge.into_iter().chain(on_networks).collect()
}

/// What has no owner among the containers, or an owner without it, a line each.
fn strays(manager: &Manager) -> Vec<String> {
    let (all, running) = (ids(manager, &["-a"]), ids(manager, &[]));
    let links = run(manager.inside("ip").args(["-json", "link"])).ok();
    let links: Value = serde_json::from_str(&links).expect("ip prints JSON");
    let links = links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| link["ifname"].as_str()?.strip_prefix("bth"))
        .map(str::to_owned)
        .collect();
    let wanted_links = running.iter().flat_map(|id| links_of(manager, id)).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    let bundles = manager.state().join("bundles");
    let mounts = mounts
        .lines()
        .filter_map(|line| Path::new(line.split(' ').nth(4)?).strip_prefix(&bundles).ok())
        .filter_map(|rest| Some(rest.iter().next()?.to_string_lossy().into_owned()))
        .collect();
    let images = manager.root().join("images");
    let volumes = manager
        .ctl(&["volume", "ls", "-q"])
        .ok()
        .lines()
        .map(str::to_owned)
        .collect();
    let wanted = [
        ("folders", entries(&manager.root().join("containers")), &all),
        ("writable layers", entries(&images.join("containers")), &all),
        ("bundles", entries(&bundles), &running),
        (
            "states of the runtime",
            entries(&manager.state().join("runtime/berth")),
            &running,
        ),
        // A container's root leaves its bundle when it is created.
        ("mounts", mounts, &BTreeSet::new()),
        ("links", links, &wanted_links),
        ("volumes", entries(&manager.root().join("volumes")), &volumes),
        ("temporary files", entries(&images.join("tmp")), &BTreeSet::new()),
    ];
    let differ = wanted.into_iter().filter(|(_, found, owners)| found != *owners);
    differ
        .map(|(what, found, owners)| format!("{what} {found:?}, owners {owners:?}"))
        .collect()
}

/// Nothing is there that has no owner.
#[track_caller]
fn assert_no_strays(manager: &Manager) {
    let until = Instant::now() + DEADLINE;
    loop {
        let found = strays(manager);
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "left behind:\n{}", found.join("\n"));
        thread::sleep(Duration::from_millis(20));
    }
}

/// The cgroups of a container that are there, in any hierarchy.
fn cgroups(id: &str) -> Vec<String> {
    let hierarchies = entries(Path::new("/sys/fs/cgroup"));
    let groups = hierarchies
        .iter()
        .map(|name| format!("/sys/fs/cgroup/{name}/berth/{id}"));
    groups.filter(|group| Path::new(group).exists()).collect()
}

/// Remove a container, and look that all of it is gone.
#[track_caller]
fn remove(manager: &Manager, container: &str) {
    let before = inspect(manager, container);
    manager.ctl(&["rm", "-f", container]).ok();
    assert!(find(manager, container).is_none());
    assert_eq!(cgroups(before["id"].as_str().expect("an id")), [""; 0]);
    assert!(before["state"] != "running" || !is_alive(&before["pid"]));
    assert_no_strays(manager);
}

/// A container that has nothing to do with what is done, and must not notice it.
struct Witness {
    pid: Value,
}

impl Witness {
    #[track_caller]
    fn start(manager: &Manager, image: &str) -> Self {
        let script = "i=0; while :; do echo line $i; i=$((i + 1)); usleep 20000; done";
        manager
            .ctl(&["run", "-d", "--name", "witness", image, "sh", "-c", script])
            .ok();
        let pid = inspect(manager, "witness")["pid"].clone();
        Self { pid }
    }

    #[track_caller]
    fn assert_unharmed(&self, manager: &Manager) {
        let found = inspect(manager, "witness");
        assert_eq!((&found["state"], &found["pid"]), (&"running".into(), &self.pid));
        assert!(is_alive(&self.pid));
    }

    /// All that it wrote is in its log, and it can still be reached.
    #[track_caller]
    fn assert_whole(&self, manager: &Manager) {
        self.assert_unharmed(manager);
        assert_eq!(manager.ctl(&["exec", "witness", "echo", "here"]).ok(), "here\n");
        let log = manager.ctl(&["logs", "witness"]).ok();
        let count = log.lines().count();
        let expected = (0..count).map(|i| format!("line {i}"));
        assert!(
            count > 0 && log.lines().eq(expected),
            "the log has a hole:\n{log}"
        );
    }
}

/// One more manager over the folders of one that is dead, which nobody waits for.
fn spawn_unattended(manager: &Manager, failpoint: &str) -> Child {
    let log = fs::File::options()
        .append(true)
        .open(manager.root().with_file_name("log"))
        .expect("open the manager's log");
    let mut command: Command = manager.inside(&binary("manager").to_string_lossy());
    command.arg("--root").arg(manager.root());
    command.arg("--state").arg(manager.state());
    command.arg("--shim").arg(binary("shim"));
    command.arg("--runtime").arg(binary("runtime"));
    command
        .env("BERTH_FAILPOINT", failpoint)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start a manager")
}
