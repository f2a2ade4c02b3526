//! Names of containers as programs in other containers find them on user-defined networks, and what the name server
//! asks of others for them.

use integration::{Done, Manager, Outside, Sandbox, command_exists, eventually, run};
use nix::sched::{CloneFlags, setns};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const FOREVER: &[&str] = &["sleep", "3600"];
const PATIENCE: Duration = Duration::from_secs(30);
const A: u16 = 1;

/// A manager with busybox and a network `lan`.
struct Host {
    manager: Manager,
    image: String,
    // Dropped last.
    sandbox: Sandbox,
}

impl Host {
    #[track_caller]
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let manager = Manager::start(&sandbox);
        let image = manager.busybox();
        manager.ctl(&["network", "create", "lan"]).ok();
        Self {
            manager,
            image,
            sandbox,
        }
    }

    /// A container on `lan` that sleeps.
    #[track_caller]
    fn run(&self, name: &str, flags: &[&str]) {
        self.run_on("lan", name, flags);
    }

    #[track_caller]
    fn run_on(&self, network: &str, name: &str, flags: &[&str]) {
        let start = ["run", "-d", "--name", name, "--network", network];
        let arguments = [&start[..], flags, &[&*self.image], FOREVER].concat();
        self.manager.ctl(&arguments).ok();
    }

    #[track_caller]
    fn exec(&self, container: &str, command: &[&str]) -> Done {
        self.manager.ctl(&[&["exec", container], command].concat())
    }

    /// What a container's own link has.
    #[track_caller]
    fn address(&self, container: &str) -> Ipv4Addr {
        let links = self
            .exec(
                container,
                &["busybox", "ip", "-4", "address", "show", "dev", "eth0"],
            )
            .ok();
        let address = links.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        let address = address.and_then(|address| address.split('/').next()?.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {links}"))
    }

    fn netns(&self, container: &str) -> PathBuf {
        let pid = &self.manager.inspect(container)["pid"];
        Path::new("/proc").join(pid.to_string()).join("ns/net")
    }

    /// Run `work` on a thread inside a container's network namespace.
    fn within<T: Send>(&self, container: &str, work: impl FnOnce() -> T + Send) -> T {
        within(&self.netns(container), work)
    }

    /// The code of the answer to a question in a container, and the addresses in it.
    #[track_caller]
    fn ask(&self, container: &str, name: &str) -> (u8, Vec<Ipv4Addr>) {
        self.within(container, || ask(name, A))
    }

    #[track_caller]
    fn found(&self, container: &str, name: &str) -> Ipv4Addr {
        let (code, addresses) = self.ask(container, name);
        assert_eq!(
            (code, addresses.len()),
            (0, 1),
            "{name} in {container}: {addresses:?}"
        );
        addresses[0]
    }
}

fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let netns = File::open(netns).expect("open a network namespace");
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        });
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xbe, 0x27, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Ask 127.0.0.11 of the namespace that this thread is in.
#[track_caller]
fn ask(name: &str, kind: u16) -> (u8, Vec<Ipv4Addr>) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    socket
        .connect((Ipv4Addr::new(127, 0, 0, 11), 53))
        .expect("connect");
    let message = question(name, kind);
    socket.send(&message).expect("ask");
    let mut buffer = [0; 4096];
    let length = socket
        .recv(&mut buffer)
        .unwrap_or_else(|error| panic!("no answer for {name}: {error}"));
    let answer = &buffer[..length];
    assert_eq!(
        (&answer[..2], &answer[12..message.len()]),
        (&message[..2], &message[12..])
    );
    // Each record is a pointer to the name, ten bytes of what it is, and the address.
    let records = answer[message.len()..]
        .chunks_exact(16)
        .take(usize::from(answer[7]));
    let addresses = records
        .filter_map(|record| Some(Ipv4Addr::from(*record.last_chunk::<4>()?)))
        .collect();
    (answer[3] & 15, addresses)
}

/// A name server in a namespace that knows one address for all names, or never says anything.
struct Upstream {
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    #[track_caller]
    fn start(netns: &Path, at: IpAddr, says: Option<[u8; 4]>) -> Self {
        let socket = within(netns, || {
            UdpSocket::bind(SocketAddr::new(at, 53)).expect("port 53")
        });
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // It ends with the test.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let Some(address) = says else { continue };
                let mut answer = buffer[..length].to_vec();
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                // The question ends with the message: nobody here sends EDNS.
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address);
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A name server at the first address that this machine's resolv.conf has, but on the manager's host.
fn hosts_own(host: &Host) -> Option<Upstream> {
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut servers = resolv.lines().filter_map(|line| line.strip_prefix("nameserver"));
    let Some(address) = servers.find_map(|address| address.trim().parse::<Ipv4Addr>().ok()) else {
        eprintln!("skipped: this machine's resolv.conf has no server with an IPv4 address");
        return None;
    };
    if !address.is_loopback() {
        run(host
            .manager
            .inside("ip")
            .args(["address", "add", &format!("{address}/32"), "dev", "lo"]))
        .ok();
    }
    let netns = Path::new("/run/netns").join(format!("berth-{}", host.sandbox.id()));
    Some(Upstream::start(&netns, address.into(), Some([203, 0, 113, 7])))
}

#[test]
fn containers_find_each_other_by_name_alias_and_short_id() {
    let host = Host::new();
    host.run("web", &["--network-alias", "www"]);
    host.run("client", &[]);
    let id = host.manager.inspect("web")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let address = host.address("web");
    for name in ["web", "WEB", "www", &id[..12], "web.lan", "www.lan"] {
        assert_eq!(host.found("client", name), address, "{name}");
    }
    // A container knows its own names too.
    assert_eq!(host.found("web", "www"), address);
    let told = host.exec("client", &["busybox", "nslookup", "web"]).ok();
    assert!(
        told.contains(&address.to_string()) && !told.contains("can't find"),
        "{told}"
    );
    let told = host.exec("client", &["cat", "/etc/resolv.conf"]).ok();
    assert!(
        told.contains("nameserver 127.0.0.11\n") && told.contains("ndots:0"),
        "{told}"
    );
    assert_eq!(told.matches("nameserver").count(), 1, "{told}");
    host.exec("client", &["busybox", "ping", "-c", "1", "-w", "30", "web"])
        .ok();
}

#[test]
fn a_real_resolver_understands_what_it_is_told() {
    if !command_exists("dig") {
        eprintln!("skipped: dig is not installed (hack/setup test)");
        return;
    }
    let host = Host::new();
    host.run("web", &[]);
    host.run("client", &[]);
    let netns = format!("--net={}", host.netns("client").display());
    let dig = |arguments: &[&str]| {
        let mut command = Command::new("nsenter");
        run(command.args([&netns, "dig", "@127.0.0.11"]).args(arguments)).ok()
    };
    let address = host.address("web").to_string();
    assert_eq!(dig(&["+short", "web"]).trim(), address);
    assert_eq!(dig(&["+short", "+tcp", "web"]).trim(), address);
    assert_eq!(dig(&["+short", "-x", &address]).trim(), "web.lan.");
    // Without an IPv6 address the name is there all the same: musl would take NXDOMAIN for the whole name.
    for kind in ["AAAA", "HTTPS", "MX"] {
        let told = dig(&["web", kind]);
        assert!(
            told.contains("status: NOERROR") && told.contains("ANSWER: 0"),
            "{told}"
        );
    }
    let told = dig(&["web"]);
    assert!(
        told.contains("qr rd ra;") && told.contains("EDNS: version: 0") && !told.contains("WARNING"),
        "{told}"
    );
}

#[test]
fn names_follow_renames_and_ends() {
    let host = Host::new();
    host.run("web", &[]);
    host.run("client", &[]);
    let address = host.found("client", "web");
    host.manager.ctl(&["rename", "web", "shop"]).ok();
    assert_eq!(host.found("client", "shop"), address);
    assert_ne!(host.ask("client", "web").0, 0, "the old name is nobody's");
    host.manager.ctl(&["stop", "-t", "0", "shop"]).ok();
    assert_ne!(host.ask("client", "shop").0, 0, "it is not there to be found");
    host.manager.ctl(&["start", "shop"]).ok();
    assert_eq!(host.found("client", "shop"), host.address("shop"));
    // The one that asks is restarted, and finds what it found.
    host.manager.ctl(&["restart", "-t", "0", "client"]).ok();
    assert_eq!(host.found("client", "shop"), host.address("shop"));
}

#[test]
fn an_alias_of_two_has_both_in_turns() {
    let host = Host::new();
    host.run("one", &["--network-alias", "db"]);
    host.run("two", &["--network-alias", "db"]);
    host.run("client", &[]);
    let both = BTreeSet::from([host.address("one"), host.address("two")]);
    let mut first = BTreeSet::new();
    host.within("client", || {
        for _ in 0..100 {
            let (code, addresses) = ask("db", A);
            assert_eq!((code, &addresses.iter().copied().collect()), (0, &both));
            first.insert(addresses[0]);
        }
    });
    assert_eq!(first, both);
}

#[test]
fn only_shared_networks_count_and_connecting_shares_one() {
    let host = Host::new();
    host.manager.ctl(&["network", "create", "other"]).ok();
    host.run("client", &[]);
    host.run_on("other", "web", &[]);
    assert_ne!(host.ask("client", "web").0, 0);
    host.manager
        .ctl(&["network", "connect", "--alias", "www", "other", "client"])
        .ok();
    let address = host.address("web");
    assert_eq!(host.found("client", "web"), address);
    assert_eq!(host.found("client", "web.other"), address);
    host.found("web", "www");
    host.manager
        .ctl(&["network", "disconnect", "other", "client"])
        .ok();
    assert_ne!(host.ask("client", "web").0, 0);
    assert_ne!(host.ask("web", "www").0, 0);
}

#[test]
fn on_the_default_bridge_nothing_changes_until_another_network_is_joined() {
    let host = Host::new();
    host.run_on("bridge", "client", &[]);
    let told = host.exec("client", &["cat", "/etc/resolv.conf"]).ok();
    assert!(!told.contains("127.0.0.11"), "{told}");
    let rules = run(Command::new("nsenter").args([
        &format!("--net={}", host.netns("client").display()),
        "nft",
        "list",
        "ruleset",
    ]));
    assert_eq!(rules.ok(), "");

    host.run("web", &[]);
    host.manager.ctl(&["network", "connect", "lan", "client"]).ok();
    let told = host.exec("client", &["cat", "/etc/resolv.conf"]).ok();
    assert!(told.contains("nameserver 127.0.0.11\n"), "{told}");
    assert_eq!(host.found("client", "web"), host.address("web"));
}

#[test]
fn names_are_found_again_after_the_manager_was_killed() {
    let mut host = Host::new();
    host.run("web", &["--network-alias", "www"]);
    host.run("client", &[]);
    let address = host.address("web");
    for _ in 0..3 {
        host.manager.kill();
        host.manager.start_again();
        assert_eq!(host.found("client", "web"), address);
        assert_eq!(host.found("client", "www"), address);
        // Of the rules before nothing is left.
        let netns = format!("--net={}", host.netns("client").display());
        let rules = run(Command::new("nsenter").args([&netns, "nft", "list", "ruleset"])).ok();
        assert_eq!(rules.matches("dport 53").count(), 2, "{rules}");
    }
}

#[test]
fn a_container_may_have_port_53_for_itself() {
    let host = Host::new();
    let serve = [
        "busybox", "nc", "-ll", "-p", "53", "-e", "busybox", "echo", "mine",
    ];
    host.manager
        .ctl(
            &[
                &["run", "-d", "--name", "dns", "--network", "lan", &host.image],
                &serve[..],
            ]
            .concat(),
        )
        .ok();
    host.run("client", &[]);
    let told = eventually("the container's own server answers", || {
        let told = host.exec("client", &["busybox", "nc", "-w", "20", "dns", "53"]);
        (told.code == 0 && !told.stdout.is_empty()).then_some(told.stdout)
    });
    assert_eq!(told, "mine\n");
    host.found("dns", "client");
}

#[test]
fn other_names_are_asked_of_the_hosts_servers_but_not_for_internal_networks() {
    let host = Host::new();
    let Some(upstream) = hosts_own(&host) else { return };
    host.run("client", &[]);
    assert_eq!(
        host.found("client", "www.example.org"),
        Ipv4Addr::new(203, 0, 113, 7)
    );
    assert_eq!(upstream.asked(), 1);

    host.manager
        .ctl(&["network", "create", "--internal", "inside"])
        .ok();
    host.run_on("inside", "shut", &[]);
    host.run_on("inside", "neighbour", &[]);
    let (code, addresses) = host.ask("shut", "secret.example.org");
    assert_eq!(
        (code, addresses.len()),
        (2, 0),
        "there is no way out, and that is said at once"
    );
    assert_eq!(upstream.asked(), 1, "a question has left an internal network");
    assert_eq!(host.found("shut", "neighbour"), host.address("neighbour"));
    // On another network besides it has a way out.
    host.manager.ctl(&["network", "connect", "lan", "shut"]).ok();
    host.found("shut", "www.example.org");
    assert_eq!(upstream.asked(), 2);
}

#[test]
fn servers_asked_for_are_asked_as_the_container_would() {
    let host = Host::new();
    let outside = Outside::new(&host.sandbox, &host.manager);
    let netns = Path::new("/run/netns").join(format!("berth-{}-outside", host.sandbox.id()));
    let upstream = Upstream::start(&netns, Ipv4Addr::new(192, 0, 2, 2).into(), Some([203, 0, 113, 8]));
    host.run("client", &["--dns", "192.0.2.2"]);
    host.run("web", &[]);
    assert_eq!(
        host.found("client", "www.example.org"),
        Ipv4Addr::new(203, 0, 113, 8)
    );
    assert_eq!(host.found("client", "web"), host.address("web"));
    assert_eq!(upstream.asked(), 1);
    // 127.0.0.1 is the container's own then.
    host.run("proud", &["--dns", "127.0.0.1"]);
    let own = Upstream::start(
        &host.netns("proud"),
        Ipv4Addr::LOCALHOST.into(),
        Some([203, 0, 113, 9]),
    );
    assert_eq!(
        host.found("proud", "www.example.org"),
        Ipv4Addr::new(203, 0, 113, 9)
    );
    assert_eq!(own.asked(), 1);
    drop(outside);
}

#[test]
fn a_container_that_floods_harms_itself() {
    let host = Host::new();
    let _outside = Outside::new(&host.sandbox, &host.manager);
    let netns = Path::new("/run/netns").join(format!("berth-{}-outside", host.sandbox.id()));
    let silent = Upstream::start(&netns, Ipv4Addr::new(192, 0, 2, 2).into(), None);
    host.run("flood", &["--dns", "192.0.2.2"]);
    host.run("client", &[]);
    host.run("web", &[]);
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", host.manager.pid()))
            .expect("the manager's descriptors")
            .count()
    };
    let before = open();
    let address = host.address("web");
    let sender = host.within("flood", || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        socket
            .connect((Ipv4Addr::new(127, 0, 0, 11), 53))
            .expect("connect");
        socket
    });
    let mut most = 0;
    host.within("client", || {
        for round in 0..200 {
            for number in 0..50 {
                let _ = sender.send(&question(&format!("{number}.{round}.example.org"), A));
            }
            assert_eq!(ask("web", A), (0, vec![address]));
            most = most.max(open());
        }
    });
    assert!(silent.asked() > 0, "the flood has reached the server");
    assert!(
        most <= before + 300,
        "{most} descriptors, {before} before the flood"
    );
    // Its own names it finds, as soon as the questions before are worked off.
    assert_eq!(host.found("flood", "web"), address);
}
