//! What somebody gets at who should not: a user of the host without rights, root in a container, and a neighbour of the
//! host. What containers do to the runtime is in `runtime_attacks`, to copies in `manager_cp`, to networks of others in
//! `manager_networks` and to names in `manager_dns`.

use integration::{Manager, Outside, Sandbox, binary, eventually, run};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// The host, for the neighbour.
const HOST: &str = "192.0.2.1";
const SECRET: &str = "a-word-for-the-container-alone";

/// A program of a user that nothing here was made for.
fn as_nobody(program: &Command) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(program.get_program()).args(program.get_args());
    command.current_dir("/");
    command
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[track_caller]
fn serve(manager: &Manager, image: &str, name: &str, flags: &[&str]) {
    let server = "busybox nc -ll -p 81 -e busybox hostname & exec busybox nc -ll -p 80 -e busybox hostname";
    let named = ["run", "-d", "--name", name, "-h", name];
    let command = [image, "sh", "-c", server];
    manager.ctl(&[&named, flags, &command].concat()).ok();
}

fn nc(mut program: Command, address: &str, port: &str) -> Command {
    program.args(["nc", "-w", "2", address, port]);
    program
}

/// What whoever listens at `address` says.
fn told(program: Command, address: &str, port: &str) -> String {
    let done = run(&mut nc(program, address, port));
    done.stdout.trim().to_owned()
}

fn from_container(manager: &Manager, name: &str) -> Command {
    manager.ctl_command(&["exec", name, "busybox"])
}

/// Whether `address` says nothing, in the time in which the neighbours of those that may ask are answered.
#[track_caller]
fn assert_silent(program: Command, address: &str, port: &str) {
    let done = run(&mut nc(program, address, port));
    assert!(
        done.code != 0 && done.stdout.is_empty(),
        "{address} {port}: {done:?}"
    );
}

#[test]
fn a_user_of_the_host_gets_at_nothing_of_the_manager() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let secret = format!("WORD={SECRET}");
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "box",
            "-e",
            &secret,
            &image,
            "sh",
            "-c",
            "echo up && exec sleep 3600",
        ])
        .ok();
    manager.ctl(&["volume", "create", "data"]).ok();

    // The folders around are the test's own: what is tested is not how they are kept.
    let client = sandbox.path().join("managerctl");
    std::fs::copy(binary("managerctl"), &client).expect("copy the client");
    let above = manager.root();
    for folder in above
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(sandbox.path()))
    {
        std::fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("open the folder");
    }
    let works = run(&mut as_nobody(&shell(&format!("{} --version", client.display()))));
    assert_eq!(works.code, 0, "{works:?}");
    let mut client = Command::new(client);
    client.arg("--socket").arg(manager.socket()).arg("ps");
    let error = run(&mut as_nobody(&client)).refused();
    assert!(
        error.contains("Permission denied") || error.contains("permission denied"),
        "{error}"
    );

    // What can be found is what can be listed, read, written, connected to or run; names of folders are all that may be.
    for folder in [manager.root(), manager.state()] {
        let found = run(&mut as_nobody(&shell(&format!(
            "find {0} -mindepth 1 \\( -readable -o -writable \\) ! -type l ! -type d -print; \
             find {0} -type d -writable -print",
            folder.display()
        ))));
        assert_eq!(found.stdout, "", "{}", folder.display());
    }
    // A program of root's that an image brings along must not be run by users of the host, whatever they guess.
    let bundles = manager.state().join("bundles");
    eventually("only the container has its root", || {
        let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", manager.pid())).ok()?;
        let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        (!points.any(|point| Path::new(point).starts_with(&bundles))).then_some(())
    });
    let programs = run(Command::new("find")
        .args([manager.root(), manager.state()])
        .args(["-name", "busybox", "-type", "f"]))
    .ok();
    for program in programs.lines() {
        assert!(std::fs::metadata(program).expect("the image's program").mode() & 0o111 != 0);
        let done = run(&mut as_nobody(&shell(&format!("{program} true"))));
        assert!(
            done.code != 0 && done.stderr.contains("Permission denied"),
            "{done:?}"
        );
    }

    // Command lines are for all to read.
    let lines = run(&mut as_nobody(&shell(
        "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '",
    )));
    assert!(!lines.stdout.contains(SECRET), "a command line tells it");
    // So are sockets without a file, and who may connect to them is up to nobody.
    let unix = std::fs::read_to_string(format!("/proc/{}/net/unix", manager.pid())).expect("its sockets");
    let own = sandbox.path().display().to_string();
    let nameless: Vec<_> = unix
        .lines()
        .filter(|line| line.contains(&format!("@{own}")))
        .collect();
    assert!(nameless.is_empty(), "{nameless:?}");
}

#[test]
fn neighbours_reach_published_ports_and_nothing_else() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let outside = Outside::new(&sandbox, &manager);
    serve(
        &manager,
        &image,
        "web",
        &["-p", "8080:80", "-p", "127.0.0.1:9000:80"],
    );
    let address = manager.inspect("web")["address"]
        .as_str()
        .expect("its address")
        .to_owned();
    let address = address.split('/').next().expect("an address");
    eventually("the published port is answered", || {
        (told(outside.inside("busybox"), HOST, "8080") == "web").then_some(())
    });
    // So that silence is no server that is not up yet.
    for port in ["80", "81"] {
        eventually("the server is up", || {
            (told(manager.inside("busybox"), address, port) == "web").then_some(())
        });
    }

    // A neighbour may say that the containers' addresses, and even the host's loopback, are behind the host.
    let neighbour = |line: &str| run(outside.inside("ip").args(line.split(' '))).ok();
    neighbour(&format!("route add {address} via {HOST}"));
    for port in ["80", "81"] {
        assert_silent(outside.inside("busybox"), address, port);
    }
    neighbour("link set lo down");
    run(outside
        .inside("ip")
        .args(["route", "del", "local", "127.0.0.0/8", "table", "local"]));
    run(outside
        .inside("ip")
        .args(["route", "del", "local", "127.0.0.1", "table", "local"]));
    neighbour(&format!("route add 127.0.0.0/8 via {HOST} src 192.0.2.2"));
    let route_localnet = "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet";
    run(outside.inside("sh").args(["-c", route_localnet])).ok();
    let way = run(outside.inside("ip").args(["route", "get", "127.0.0.1"])).ok();
    assert!(way.contains(HOST), "the packets are sent to the host: {way}");
    assert_silent(outside.inside("busybox"), "127.0.0.1", "9000");
    assert_eq!(told(manager.inside("busybox"), "127.0.0.1", "9000"), "web");
}

#[test]
fn root_in_a_container_reaches_no_port_that_is_for_the_host_alone() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["network", "create", "--subnet", "10.77.0.0/24", "other"])
        .ok();
    serve(&manager, &image, "web", &["-p", "127.0.0.1:9000:80"]);
    serve(&manager, &image, "far", &["--network", "other"]);
    // With all that a container can be given for its own network.
    serve(
        &manager,
        &image,
        "evil",
        &["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"],
    );
    eventually("the published port is answered", || {
        (told(manager.inside("busybox"), "127.0.0.1", "9000") == "web").then_some(())
    });
    let gateway = "172.30.0.1";
    assert_silent(from_container(&manager, "evil"), gateway, "9000");

    let evil = |script: &str| run(&mut manager.ctl_command(&["exec", "evil", "sh", "-c", script]));
    let way = evil(&format!(
        "busybox ip link set lo down; busybox ip route del local 127.0.0.0/8 table local; \
         busybox ip route del local 127.0.0.1 table local; \
         busybox ip route add 127.0.0.0/8 via {gateway} && busybox ip route get 127.0.0.1"
    ));
    assert!(
        way.stdout.contains(gateway),
        "the packets are sent to the host: {way:?}"
    );
    assert_silent(from_container(&manager, "evil"), "127.0.0.1", "9000");

    // Another's network is not reached through its gateway's neighbour, by an address of that network, or as the host.
    let far = manager.inspect("far")["address"]
        .as_str()
        .expect("its address")
        .to_owned();
    let far = far.split('/').next().expect("an address");
    assert_silent(from_container(&manager, "evil"), far, "80");
    let sent = |script: &str, way: &str| {
        let script = format!("{script} && busybox ip route get {far}");
        let told = evil(&script).ok();
        assert!(told.contains(way), "the packets are sent like that: {told}");
    };
    sent(
        "busybox ip address add 10.77.0.99/24 dev eth0 && busybox ip route del 10.77.0.0/24 && \
         busybox ip route add 10.77.0.0/24 via 172.30.0.1 src 10.77.0.99 dev eth0",
        "via 172.30.0.1 dev eth0  src 10.77.0.99",
    );
    assert_silent(from_container(&manager, "evil"), far, "80");
    sent(
        &format!(
            "busybox ip address add {gateway}/32 dev eth0 && \
             busybox ip route replace 10.77.0.0/24 dev eth0 src {gateway}"
        ),
        &format!("dev eth0  src {gateway}"),
    );
    assert_silent(from_container(&manager, "evil"), far, "80");
    assert_eq!(told(from_container(&manager, "far"), "127.0.0.1", "80"), "far");
}

#[test]
fn names_of_a_containers_making_are_no_commands_for_a_terminal() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "touch $(printf '/tmp/\\033[2Jcleared') && exec sleep 3600";
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "box",
            "--label",
            "odd=\u{1b}[2J",
            &image,
            "sh",
            "-c",
            script,
            "\u{1b}]0;title\u{7}",
        ])
        .ok();
    eventually("the file is there", || {
        manager
            .ctl(&["diff", "box"])
            .stdout
            .contains("cleared")
            .then_some(())
    });
    for words in [
        &["diff", "box"][..],
        &["ps", "--no-trunc"],
        &["top", "box"],
        &["inspect", "box"],
        &["ps", "--format", "{{.Command}} {{.Labels}}"],
        &["events", "--since", "1h", "--until", "0s"],
    ] {
        let shown = manager.ctl(words).ok();
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{words:?}: {shown:?}");
    }
}
