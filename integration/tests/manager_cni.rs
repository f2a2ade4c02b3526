//! Networks of the driver cni: real plugins (Debian's containernetworking-plugins), and ones that do not do what they should.

use integration::{Done, Manager, Sandbox, eventually, run};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const FOREVER: &[&str] = &["sleep", "3600"];
const PLUGINS: &str = "/usr/lib/cni";

/// A manager with folders of its own for configurations and plugins.
struct Host {
    manager: Manager,
    image: String,
    folder: PathBuf,
}

impl Host {
    fn start(sandbox: &Sandbox) -> Host {
        let folder = sandbox.path().join("cni");
        for name in ["conf", "bin", "leases"] {
            fs::create_dir_all(folder.join(name)).expect("make the folders");
        }
        let mut manager = Manager::start_alone(sandbox);
        let (conf, bin) = (folder.join("conf"), format!("{}/bin:{PLUGINS}", folder.display()));
        let options = [
            "--cni-conf-dir",
            &conf.to_string_lossy(),
            "--cni-bin-dir",
            &bin,
            "--plugin-timeout",
            "20",
        ];
        manager.set_options(&options);
        manager.kill();
        manager.start_again();
        let image = manager.load_busybox();
        Host {
            manager,
            image,
            folder,
        }
    }

    fn conf(&self, name: &str, plugins: &Value) {
        let list = json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins});
        fs::write(
            self.folder.join("conf").join(format!("10-{name}.conflist")),
            list.to_string(),
        )
        .expect("write it");
    }

    /// The bridge plugin, with addresses from host-local.
    fn bridge(&self, bridge: &str, subnet: &str, more: &Value) -> Value {
        let mut plugin = json!({
            "type": "bridge", "bridge": bridge, "isGateway": true,
            "capabilities": {"ips": true, "mac": true},
            "ipam": {
                "type": "host-local",
                "dataDir": self.folder.join("leases"),
                "ranges": [[{"subnet": subnet}]],
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            plugin["ipam"][key] = value.clone();
        }
        plugin
    }

    fn script(&self, name: &str, script: &str) {
        let path = self.folder.join("bin").join(name);
        let text = format!(
            "#!/bin/sh\ncd {}\ncat >$CNI_COMMAND.{name}\necho $CNI_COMMAND $CNI_CONTAINERID >>calls.{name}\n{script}\n",
            self.folder.display()
        );
        fs::write(&path, text).expect("write a plugin");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
    }

    fn calls(&self, name: &str, command: &str) -> usize {
        let calls = fs::read_to_string(self.folder.join(format!("calls.{name}"))).unwrap_or_default();
        calls.lines().filter(|line| line.starts_with(command)).count()
    }

    /// The addresses that host-local has given away.
    fn leases(&self, name: &str) -> Vec<String> {
        let folder = self.folder.join("leases").join(name);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut leases: Vec<_> = names
            .filter(|name| name.contains('.') && !name.starts_with("last"))
            .collect();
        leases.sort();
        leases
    }

    /// Namespaces that are held.
    fn held(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.manager.state().join("netns"))
            .into_iter()
            .flatten()
            .flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Links on a bridge of the host.
    fn ports(&self, bridge: &str) -> usize {
        let shown = run(self
            .manager
            .inside("ip")
            .args(["-o", "link", "show", "master", bridge]));
        shown.stdout.lines().count()
    }

    #[track_caller]
    fn run(&self, name: &str, flags: &[&str]) {
        let arguments = [&["run", "-d", "--name", name], flags, &[&self.image], FOREVER].concat();
        self.manager.ctl(&arguments).ok();
    }

    fn exec(&self, container: &str, command: &str) -> Done {
        let words: Vec<_> = command.split(' ').collect();
        self.manager
            .ctl(&[&["exec", container, "busybox"], &*words].concat())
    }

    #[track_caller]
    fn assert_reaches(&self, container: &str, address: &str) {
        let ping = self.exec(container, &format!("ping -c 1 -w 30 {address}"));
        assert_eq!(ping.code, 0, "{container} to {address}: {ping}");
    }

    #[track_caller]
    fn place(&self, container: &str, network: &str) -> Value {
        self.manager.inspect(container)["networks"][network].take()
    }

    #[track_caller]
    fn at(&mut self, point: &str, arguments: &[&str]) {
        self.manager
            .die_at(point, |manager| drop(manager.ctl(arguments).refused()));
    }
}

fn has_plugins() -> bool {
    let has = Path::new(PLUGINS).join("host-local").exists();
    if !has {
        println!(
            "skipped: {PLUGINS} has no plugins (Debian's containernetworking-plugins, which hack/setup test installs)"
        );
    }
    has
}

#[test]
fn plugins_give_a_link_an_address_and_names() {
    if !has_plugins() {
        return;
    }
    let sandbox = Sandbox::new();
    let host = Host::start(&sandbox);
    let manager = &host.manager;
    let mut plugin = host.bridge(
        "cni-lan",
        "10.66.0.0/24",
        &json!({"routes": [{"dst": "0.0.0.0/0"}]}),
    );
    plugin["dns"] = json!({"nameservers": ["192.0.2.53"], "search": ["plugins.example"]});
    host.conf("lan", &json!([plugin]));
    manager.ctl(&["network", "create", "-d", "cni", "lan"]).ok();
    host.run("web", &["--network", "lan"]);
    let flags = [
        "--network",
        "lan",
        "--ip",
        "10.66.0.77",
        "--mac-address",
        "02:00:00:00:00:77",
    ];
    host.run("db", &flags);

    let place = host.place("web", "lan");
    assert_eq!(place["address"], "10.66.0.2/24", "{place}");
    assert_eq!(place["gateway"], "10.66.0.1");
    assert_eq!(place["plugins"]["dnsServers"][0], "192.0.2.53");
    assert_eq!(place["plugins"]["routes"][0], "0.0.0.0/0");
    let place = host.place("db", "lan");
    assert_eq!(
        (&place["address"], &place["macAddress"]),
        (&json!("10.66.0.77/24"), &json!("02:00:00:00:00:77"))
    );
    assert!(
        host.exec("db", "ip link show eth0")
            .ok()
            .contains("02:00:00:00:00:77")
    );
    assert!(
        host.exec("web", "ip route")
            .ok()
            .contains("default via 10.66.0.1")
    );
    for address in ["10.66.0.1", "10.66.0.77", "db"] {
        host.assert_reaches("web", address);
    }
    let hosts = host.exec("web", "cat /etc/hosts").ok();
    assert!(
        hosts.contains("10.66.0.2\t") && !hosts.contains("0.0.0."),
        "{hosts}"
    );
    let resolver = host.exec("web", "cat /etc/resolv.conf").ok();
    assert!(
        resolver.contains("nameserver 127.0.0.11") && resolver.contains("search plugins.example"),
        "{resolver}"
    );
    let shown = manager.ctl(&["network", "inspect", "lan"]).ok();
    assert!(
        shown.contains("10.66.0.77") && shown.contains("02:00:00:00:00:77"),
        "{shown}"
    );
    assert_eq!(
        (host.leases("lan").len(), host.held().len(), host.ports("cni-lan")),
        (2, 2, 2)
    );

    // A stopped container has nothing, and gets its own again.
    manager.ctl(&["stop", "-t", "0", "db"]).ok();
    assert_eq!((host.leases("lan").len(), host.held().len()), (1, 1));
    eventually("its link is gone", || (host.ports("cni-lan") == 1).then_some(()));
    assert_eq!(host.place("db", "lan")["address"], "");
    manager.ctl(&["start", "db"]).ok();
    host.assert_reaches("web", "db");
    assert_eq!(host.place("db", "lan")["address"], "10.66.0.77/24");
    manager.ctl(&["rm", "-f", "web", "db"]).ok();
    assert_eq!((host.leases("lan").len(), host.held().len()), (0, 0));
    manager.ctl(&["network", "rm", "lan"]).ok();
}

#[test]
fn a_running_container_comes_and_goes_beside_a_bridge() {
    if !has_plugins() {
        return;
    }
    let sandbox = Sandbox::new();
    let host = Host::start(&sandbox);
    let manager = &host.manager;
    host.conf(
        "side",
        &json!([host.bridge("cni-side", "10.67.0.0/24", &json!({}))]),
    );
    let file = host.folder.join("conf/10-side.conflist");
    let option = format!("conf={}", file.display());
    manager
        .ctl(&["network", "create", "-d", "cni", "-o", &option, "second"])
        .ok();
    host.run("web", &[]);
    manager
        .ctl(&["network", "connect", "--ip", "10.67.0.50", "second", "web"])
        .ok();
    assert_eq!(host.place("web", "second")["address"], "10.67.0.50/24");
    host.assert_reaches("web", "10.67.0.1");
    host.assert_reaches("web", "172.30.0.1");
    let taken = manager
        .ctl(&[
            "run",
            "--network",
            "second",
            "--ip",
            "10.67.0.50",
            &host.image,
            "true",
        ])
        .refused();
    assert!(
        taken.contains("CNI plugin bridge, ADD") && taken.contains("10.67.0.50"),
        "{taken}"
    );
    // Of the configuration that it was attached with.
    host.conf("side", &json!([{"type": "nothing"}]));
    manager.ctl(&["network", "disconnect", "second", "web"]).ok();
    assert!(!host.exec("web", "ip address").ok().contains("10.67.0"));
    assert_eq!((host.leases("side").len(), host.held().len()), (0, 0));
    let missing = manager.ctl(&["network", "connect", "second", "web"]).refused();
    assert!(missing.contains("CNI plugin nothing"), "{missing}");
}

#[test]
fn a_bridge_with_a_priority_takes_the_way_out_from_plugins_and_gives_it_back() {
    if !has_plugins() {
        return;
    }
    let sandbox = Sandbox::new();
    let host = Host::start(&sandbox);
    let manager = &host.manager;
    let way_out = json!({"routes": [{"dst": "0.0.0.0/0"}]});
    host.conf(
        "side",
        &json!([host.bridge("cni-side", "10.67.0.0/24", &way_out)]),
    );
    manager.ctl(&["network", "create", "-d", "cni", "side"]).ok();
    let create = ["network", "create", "--subnet", "10.77.0.0/24", "one"];
    manager.ctl(&create).ok();
    host.run("web", &["--network", "side"]);
    let default = |name: &str| {
        let routes = host.exec(name, "ip route").ok();
        let default = routes.lines().filter(|route| route.starts_with("default"));
        default.map(str::trim).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(default("web"), "default via 10.67.0.1 dev eth0");
    let connect = ["network", "connect", "--gw-priority", "1", "one", "web"];
    manager.ctl(&connect).ok();
    assert_eq!(default("web"), "default via 10.77.0.1 dev eth1");
    manager.ctl(&["network", "disconnect", "one", "web"]).ok();
    assert_eq!(default("web"), "default via 10.67.0.1 dev eth0");

    // At a start they make a route of their own besides, whichever network is the first.
    host.run(
        "web2",
        &["--network", "side", "--network", "name=one,gw-priority=1"],
    );
    assert_eq!(default("web2"), "default via 10.77.0.1 dev eth1");
    manager.ctl(&["network", "disconnect", "one", "web2"]).ok();
    assert_eq!(default("web2"), "default via 10.67.0.1 dev eth0");
    host.run("web3", &["--network", "one", "--network", "side"]);
    assert_eq!(default("web3"), "default via 10.77.0.1 dev eth0");
    host.run("plain", &[]);
    manager.ctl(&["network", "connect", "side", "plain"]).ok();
    assert_eq!(default("plain"), "default via 172.30.0.1 dev eth0");

    // The default bridge comes later, and is the way out where plugins make none, at the next start too.
    host.conf(
        "blind",
        &json!([host.bridge("cni-blind", "10.66.0.0/24", &json!({}))]),
    );
    manager.ctl(&["network", "create", "-d", "cni", "blind"]).ok();
    for (name, network, way) in [
        ("web4", "blind", "default via 172.30.0.1 dev eth1"),
        ("web5", "side", "default via 10.67.0.1 dev eth0"),
    ] {
        host.run(name, &["--network", network]);
        manager.ctl(&["network", "connect", "bridge", name]).ok();
        assert_eq!(default(name), way);
        manager.ctl(&["restart", "-t", "0", name]).ok();
        assert_eq!(default(name), way);
    }

    let place = "name=side,driver-opt=com.docker.network.endpoint.ifname=wan";
    host.run("named", &["--network", place]);
    assert_eq!(default("named"), "default via 10.67.0.1 dev wan");
    assert_eq!(host.place("named", "side")["link"], "wan");
    let place =
        "name=side,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    let refused = manager
        .ctl(&["run", "--network", place, &host.image, "true"])
        .refused();
    assert!(refused.contains("the plugin tuning"), "{refused}");
    let place = "name=side,link-local-ip=169.254.7.7";
    let refused = manager
        .ctl(&["run", "--network", place, &host.image, "true"])
        .refused();
    assert!(refused.contains("its plugins give the addresses"), "{refused}");

    let place = "name=side,gw-priority=1";
    let refused = manager
        .ctl(&["run", "--network", place, &host.image, "true"])
        .refused();
    assert!(refused.contains("which routes there are"), "{refused}");
    let connect = ["network", "connect", "--gw-priority", "1", "side", "web"];
    let refused = manager.ctl(&connect).refused();
    assert!(refused.contains("which routes there are"), "{refused}");
}

#[test]
fn a_killed_manager_leaves_nothing_to_plugins() {
    if !has_plugins() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut host = Host::start(&sandbox);
    host.conf(
        "lan",
        &json!([host.bridge("cni-lan", "10.66.0.0/24", &json!({}))]),
    );
    host.manager.ctl(&["network", "create", "-d", "cni", "lan"]).ok();
    let image = host.image.clone();
    for point in [
        "cni.pinned",
        "cni.recorded",
        "cni.added",
        "cni.attached",
        "start.network-connected",
        "start.process-started",
    ] {
        host.at(
            point,
            &[
                "run",
                "-d",
                "--name",
                "new",
                "--network",
                "lan",
                &image,
                "sleep",
                "3600",
            ],
        );
        assert_eq!((host.leases("lan").len(), host.held().len()), (0, 0), "{point}");
        host.manager.ctl(&["rm", "-f", "new"]).ok();
    }
    host.run("web", &["--network", "lan"]);
    let before = host.place("web", "lan");
    host.manager.kill();
    host.manager.start_again();
    assert_eq!(
        host.place("web", "lan"),
        before,
        "what plugins have said is on record"
    );
    for point in ["cni.deleted", "exit.told", "exit.released"] {
        host.manager.ctl(&["start", "web"]).ok();
        host.at(point, &["stop", "-t", "0", "web"]);
        eventually("its end is seen out", || {
            host.leases("lan").is_empty().then_some(())
        });
        assert_eq!(host.held().len(), 0, "{point}");
    }
    host.run("plain", &[]);
    for point in ["connect.recorded", "cni.recorded", "cni.added", "cni.attached"] {
        host.at(point, &["network", "connect", "lan", "plain"]);
        host.assert_reaches("plain", "10.66.0.1");
        assert_eq!(host.leases("lan").len(), 1, "{point}");
        if point == "cni.added" {
            // Nobody was told that it left.
            host.at("cni.deleted", &["network", "disconnect", "lan", "plain"]);
            host.assert_reaches("plain", "10.66.0.1");
            assert_eq!((host.leases("lan").len(), host.held().len()), (1, 1));
        }
        host.at("disconnect.recorded", &["network", "disconnect", "lan", "plain"]);
        assert!(!host.exec("plain", "ip address").ok().contains("10.66.0"));
        assert_eq!((host.leases("lan").len(), host.held().len()), (0, 0), "{point}");
    }
}

#[test]
fn what_plugins_refuse_is_told_and_undone() {
    let sandbox = Sandbox::new();
    let host = Host::start(&sandbox);
    let manager = &host.manager;
    let refused = |name: &str, why: &str| {
        let done = manager.ctl(&["run", "--rm", "--network", name, &host.image, "true"]);
        assert!(done.code != 0 && done.stderr.contains(why), "{name}: {done}");
        assert_eq!(host.held().len(), 0, "{name}");
    };
    for (name, script) in [
        (
            "full",
            r#"[ $CNI_COMMAND = DEL ] || { echo '{"code": 11, "msg": "no lease", "details": "try later"}'; exit 1; }"#,
        ),
        ("mute", "[ $CNI_COMMAND = DEL ] || { echo because >&2; exit 4; }"),
        (
            "odd",
            "[ $CNI_COMMAND = DEL ] || echo '{\"ips\":[{\"address\":\"x\"}]}'",
        ),
        (
            "inject",
            "[ $CNI_COMMAND = DEL ] || printf %s '{\"dns\":{\"search\":[\"a\\nnameserver 6.6.6.6\"]}}'",
        ),
    ] {
        host.script(name, script);
        host.conf(name, &json!([{"type": name}]));
        manager.ctl(&["network", "create", "-d", "cni", name]).ok();
    }
    refused("full", "CNI plugin full, ADD: no lease (code 11): try later");
    refused("mute", "because");
    refused("odd", "CNI plugin odd, ADD: its answer is malformed");
    refused("inject", "plain word");
    for name in ["full", "mute", "odd", "inject"] {
        assert_eq!(
            (host.calls(name, "ADD"), host.calls(name, "DEL")),
            (1, 1),
            "{name}"
        );
    }

    // One that cannot undo now is asked again, before anything new is asked of it.
    let stubborn = "if [ $CNI_COMMAND = DEL ]; then [ ! -e stubborn.busy ] || exit 1; else echo '{\"ips\":[{\"address\":\"10.1.0.9/24\"}]}'; fi";
    host.script("stubborn", stubborn);
    host.conf("stubborn", &json!([{"type": "stubborn"}]));
    manager.ctl(&["network", "create", "-d", "cni", "stubborn"]).ok();
    fs::write(host.folder.join("stubborn.busy"), "").expect("make it busy");
    host.run("web", &["--network", "stubborn"]);
    assert_eq!(host.place("web", "stubborn")["address"], "10.1.0.9/24");
    manager.ctl(&["stop", "-t", "0", "web"]).ok();
    let done = manager.ctl(&["start", "web"]).refused();
    assert!(done.contains("CNI plugin stubborn, DEL"), "{done}");
    fs::remove_file(host.folder.join("stubborn.busy")).expect("let it be");
    manager.ctl(&["start", "web"]).ok();
    manager.ctl(&["rm", "-f", "web"]).ok();
    assert_eq!(host.held().len(), 0);
    let told: Value = serde_json::from_slice(&fs::read(host.folder.join("DEL.stubborn")).expect("read it"))
        .expect("it is JSON");
    assert_eq!(told["prevResult"]["ips"][0]["address"], "10.1.0.9/24");

    let refused = |flags: &[&str], why: &str| {
        let done = manager.ctl(&[&["network", "create", "-d", "cni"], flags].concat());
        assert!(done.code != 0 && done.stderr.contains(why), "{flags:?}: {done}");
    };
    refused(&["nowhere"], "CNI network nowhere: no file in");
    refused(
        &["--subnet", "10.1.0.0/24", "full2"],
        "configuration of its plugins",
    );
    refused(&["-o", "conf=/nowhere", "other"], "/nowhere");
    refused(&["-o", "parent=eth0", "other"], "driver cni has conf");
    refused(&["full"], "already exists");
    host.conf("lost", &json!([{"type": "no-such-program"}]));
    refused(
        &["lost"],
        "CNI plugin no-such-program: there is no such program in",
    );
}

#[test]
fn a_plugin_that_hangs_is_ended_and_others_go_on() {
    let sandbox = Sandbox::new();
    let mut host = Host::start(&sandbox);
    let (conf, bin) = (host.folder.join("conf"), host.folder.join("bin"));
    let options = [
        "--cni-conf-dir",
        &conf.to_string_lossy(),
        "--cni-bin-dir",
        &bin.to_string_lossy(),
        "--plugin-timeout",
        "3",
    ];
    host.manager.set_options(&options);
    host.manager.kill();
    host.manager.start_again();
    host.script("slow", "[ $CNI_COMMAND = DEL ] || sleep 4321");
    host.conf("slow", &json!([{"type": "slow"}]));
    host.manager.ctl(&["network", "create", "-d", "cni", "slow"]).ok();
    let waiting = host
        .manager
        .ctl_spawned(&["run", "--rm", "--network", "slow", &host.image, "true"]);
    host.run("web", &[]);
    let done = integration::finish(waiting, "run on the network slow".to_owned());
    assert!(
        done.code != 0
            && done
                .stderr
                .contains("CNI plugin slow, ADD: it has not ended within 3s"),
        "{done}"
    );
    let left = run(std::process::Command::new("pgrep").args(["-f", "^sleep 4321"])).stdout;
    assert_eq!(left, "", "what it has started went with it");
    assert_eq!(host.held().len(), 0);
}

#[test]
fn ports_are_published_by_the_plugin_that_can() {
    if !has_plugins() {
        return;
    }
    let sandbox = Sandbox::new();
    let host = Host::start(&sandbox);
    let manager = &host.manager;
    let nat = run(manager.inside("iptables").args(["-w", "-t", "nat", "-L", "-n"]));
    if nat.code != 0 {
        println!("skipped: there is no iptables, by which the plugin portmap works: {nat}");
        return;
    }
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    let list = json!([
        host.bridge(
            "cni-lan",
            "10.66.0.0/24",
            &json!({"routes": [{"dst": "0.0.0.0/0"}]})
        ),
        portmap
    ]);
    host.conf("lan", &list);
    manager.ctl(&["network", "create", "-d", "cni", "lan"]).ok();
    let serve = ["busybox", "httpd", "-f", "-p", "80", "-h", "/etc"];
    let flags = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "lan",
        "-p",
        "8080:80",
        &host.image,
    ];
    manager.ctl(&[&flags[..], &serve].concat()).ok();
    assert!(manager.ctl(&["port", "web"]).ok().contains("8080"));
    run(manager
        .inside("ip")
        .args(["address", "add", "192.0.2.1/32", "dev", "lo"]))
    .ok();
    // busybox's wget is a static program that loads name services, and falls over them.
    let ask = "exec 3<>/dev/tcp/192.0.2.1/8080 && printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 5 cat <&3";
    eventually("the port leads to the container", || {
        let page = run(manager.inside("bash").args(["-c", ask]));
        page.stdout.contains("200 OK").then_some(())
    });
    let taken = manager
        .ctl(&["run", "-d", "-p", "8080:80", &host.image, "true"])
        .refused();
    assert!(taken.contains("8080"), "{taken}");
    manager.ctl(&["rm", "-f", "web"]).ok();
    let rules = run(manager.inside("iptables").args(["-w", "-t", "nat", "-S"])).ok();
    assert!(!rules.contains("8080"), "{rules}");
}
