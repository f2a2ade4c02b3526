//! Several managers on one machine: each knows what is its own, and what is another's is refused or left alone.
//! And what a manager keeps is for nobody but root.

use integration::{Done, Image, Layer, Manager, Sandbox, binary, eventually, run};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Somebody who is nobody on this machine.
const NOBODY: &str = "65534";

/// Another manager in the network namespace of `beside`.
fn second(beside: &Manager, root: &Path, state: &Path, more: &[&str]) -> Command {
    let mut command = beside.inside(&binary("manager").to_string_lossy());
    command.arg("--root").arg(root).arg("--state").arg(state);
    command.arg("--shim").arg(binary("shim"));
    command.arg("--runtime").arg(binary("runtime")).args(more);
    command
}

#[track_caller]
fn pid_of(manager: &Manager, container: &str) -> i64 {
    let text = manager.ctl(&["inspect", container]).ok();
    let all: serde_json::Value = serde_json::from_str(&text).expect("inspect prints JSON");
    let pid = all[0]["pid"].as_i64().expect("a process id");
    assert!(pid > 0, "{container} does not run: {text}");
    pid
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(program);
    command
}

#[test]
fn the_state_of_another_root_is_refused_and_its_containers_run_on() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["run", "-d", "--name", "kept", &image, "sleep", "1000"])
        .ok();
    let pid = pid_of(&manager, "kept");
    let other = sandbox.path().join("other");
    let state = manager.state();
    let state_name = state.to_string_lossy().into_owned();

    // While the first one runs.
    let refused = run(&mut second(&manager, &other, &state, &[])).refused();
    assert!(
        refused.contains("another manager") && refused.contains(&state_name),
        "{refused}"
    );
    assert!(!refused.contains("backtrace"), "{refused}");
    assert_eq!(pid_of(&manager, "kept"), pid);

    // When it is gone, and its containers are not. A second attempt finds the other root made.
    manager.kill();
    for _ in 0..2 {
        let refused = run(&mut second(&manager, &other, &state, &[])).refused();
        let owner = manager.root().to_string_lossy().into_owned();
        assert!(
            refused.contains("another root") && refused.contains(&owner) && refused.contains(&state_name),
            "{refused}"
        );
    }
    // The root is not mounted: there is no database.
    let hidden = sandbox.path().join("hidden");
    fs::rename(manager.root(), &hidden).expect("hide the root");
    let refused = run(&mut second(&manager, &manager.root(), &state, &[])).refused();
    assert!(refused.contains("is the right root mounted?"), "{refused}");
    fs::remove_dir_all(manager.root()).expect("remove the empty root");
    fs::rename(&hidden, manager.root()).expect("mount the root");

    manager.start_again();
    assert_eq!(pid_of(&manager, "kept"), pid);
    assert_eq!(manager.ctl(&["exec", "kept", "echo", "alive"]).ok(), "alive\n");
}

#[test]
fn managers_on_one_host_leave_each_others_network_alone() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let run_one: &[&str] = &["run", "-d", "--name", "first", &image, "sleep", "1000"];
    let id = manager.ctl(run_one).ok();
    let link = format!("bth{}", &id[..12]);
    let (root, state) = (sandbox.path().join("root"), sandbox.path().join("state"));
    let reach = |manager: &Manager| -> Done {
        run(manager.inside("ip").args(["link", "show", "dev", &link])).ok();
        manager.ctl(&["exec", "first", "ping", "-c", "1", "-W", "30", "172.30.0.1"])
    };
    reach(&manager).ok();

    let refused = run(&mut second(&manager, &root, &state, &[])).refused();
    assert!(
        refused.contains("berth0") && refused.contains("--bridge-name"),
        "{refused}"
    );
    reach(&manager).ok();

    let own = ["--bridge-name", "other0", "--bridge-subnet", "10.77.0.1/24"];
    let log = fs::File::create(sandbox.path().join("second.log")).expect("make a log");
    let mut beside = second(&manager, &root, &state, &own)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start a second manager");
    eventually("the second manager answers", || {
        let mut version = manager.inside(&binary("managerctl").to_string_lossy());
        version
            .arg("--socket")
            .arg(state.join("manager.sock"))
            .arg("version");
        (run(&mut version).code == 0).then_some(())
    });
    reach(&manager).ok();
    // What the first finds at a start is still its own.
    manager.kill();
    manager.start_again();
    reach(&manager).ok();
    beside.kill().expect("end the second manager");
    beside.wait().expect("wait for the second manager");
}

#[test]
fn the_roots_files_are_closed_to_others_and_containers_are_not_to_their_users() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let mut image = Image::busybox().with_layer(Layer::from_files(&[("opt/deep/er/file", "open\n")]));
    image.config["User"] = NOBODY.into();
    let reference = manager.registry().push(&image, "user:1");
    manager.ctl(&["pull", &reference]).ok();
    let source = sandbox.path().join("made/by/berth");
    let bind = format!("{}:/made", source.display());
    let script = "cat /opt/deep/er/file /etc/hostname && ls / /made /etc/hosts >/dev/null && id -u && umask";
    let args = [
        "run", "--rm", "-h", "inside", "-v", &bind, &reference, "sh", "-c", script,
    ];
    assert_eq!(manager.ctl(&args).ok(), format!("open\ninside\n{NOBODY}\n0022\n"));
    assert_eq!(
        fs::metadata(&source).expect("look").permissions().mode() & 0o777,
        0o755
    );
    manager
        .ctl(&[
            "run", "-d", "--name", "held", "-e", "SECRET=1", &reference, "sleep", "1000",
        ])
        .ok();

    let database = manager.root().join("engine.db");
    let closed = |manager: &Manager| {
        for file in ["engine.db", "engine.db-wal", "images/images.db", "manager.lock"] {
            let done = run(as_nobody("cat").arg(manager.root().join(file)));
            assert_ne!(done.code, 0, "{file} can be read by others");
        }
        let found = run(as_nobody("find")
            .arg(manager.root())
            .args(["-type", "f", "-readable"]));
        assert_eq!(found.stdout, "");
    };
    closed(&manager);
    // Members of the socket's group get to it.
    let mode = |path: &Path| fs::metadata(path).expect("look").permissions().mode() & 0o777;
    assert_eq!((mode(&manager.state()), mode(&manager.socket())), (0o711, 0o660));
    // As an older manager has left them.
    manager.kill();
    for path in [database.clone(), manager.root().join("images/images.db")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("open a database");
    }
    manager.start_again();
    closed(&manager);
    assert_eq!(
        manager.ctl(&["exec", "held", "id", "-u"]).ok(),
        format!("{NOBODY}\n")
    );
}
