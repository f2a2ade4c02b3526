//! Who reaches the manager, and how: its socket's group, TCP with certificates on both sides, ssh, contexts, systemd's
//! socket, and the services by which tools look at a server.

use integration::{Done, Manager, Peers, Sandbox, binary, eventually, run};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::fs;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PLACE: &str = "127.0.0.1:2376";
/// Begins HTTP/2 in the clear there, and prints the answer's bytes.
const GREETING: &str =
    r"printf 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' | busybox nc -w 3 127.0.0.1 2376 | od -An -tx1; exit 0";

/// An authority, and certificates that it has signed: `server` for 127.0.0.1, and `client`.
struct Authority(PathBuf);

impl Authority {
    fn new(sandbox: &Sandbox, name: &str) -> Authority {
        let folder = sandbox.path().join(name);
        fs::create_dir(&folder).expect("make a folder");
        let authority = Authority(folder);
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req", "-x509", "-subj", &subject, "-keyout", "ca.key", "-out", "ca.pem",
        ]);
        authority.sign("server", "subjectAltName=IP:127.0.0.1");
        authority.sign("client", "extendedKeyUsage=clientAuth");
        authority
    }

    fn sign(&self, name: &str, extension: &str) {
        let [key, pem, subject] = [
            format!("{name}.key"),
            format!("{name}.pem"),
            format!("/CN={name}"),
        ];
        let issuer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", extension];
        let names = ["req", "-x509", "-subj", &subject, "-keyout", &key, "-out", &pem];
        self.openssl(
            &[
                &names[..],
                &issuer,
                &["-addext", "basicConstraints=critical,CA:FALSE"],
            ]
            .concat(),
        );
    }

    fn openssl(&self, args: &[&str]) {
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ];
        run(Command::new("openssl").current_dir(&self.0).args(args).args(key)).ok();
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// The flags of a client.
    fn client(&self) -> Vec<String> {
        self.flags("client.pem", "client.key")
    }

    /// The flags of a manager that serves at `PLACE` too.
    fn manager(&self, key: &str) -> Vec<String> {
        let place = ["--tcp", PLACE].map(str::to_owned);
        [place.to_vec(), self.flags("server.pem", key)].concat()
    }

    fn flags(&self, certificate: &str, key: &str) -> Vec<String> {
        [
            ("--tlscacert", "ca.pem"),
            ("--tlscert", certificate),
            ("--tlskey", key),
        ]
        .iter()
        .flat_map(|(flag, name)| [(*flag).to_owned(), self.file(name)])
        .collect()
    }
}

fn words(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// A manager that serves at `PLACE` too, with certificates of `authority`.
fn serving(sandbox: &Sandbox, authority: &Authority) -> Manager {
    let mut manager = Manager::start(sandbox);
    manager.stop();
    manager.set_options(&words(&authority.manager("server.key")));
    manager.start_again();
    manager
}

/// `managerctl ARGS` of a person with a home of their own, and nothing else that names a manager.
fn ctl(manager: &Manager, home: &Path, args: &[&str]) -> Done {
    let mut command = manager.inside(&binary("managerctl").to_string_lossy());
    run(command.env("HOME", home).args(args))
}

#[test]
fn over_tcp_both_sides_show_certificates() {
    let sandbox = Sandbox::new();
    let (authority, other) = (Authority::new(&sandbox, "one"), Authority::new(&sandbox, "other"));
    let manager = serving(&sandbox, &authority);
    let image = manager.busybox();
    let home = sandbox.path().join("home");
    fs::create_dir(&home).expect("make a home");
    let host = format!("tcp://{PLACE}");
    let with = |flags: &[String], args: &[&str]| {
        let flags = words(flags);
        ctl(&manager, &home, &[&["--host", &host][..], &flags, args].concat())
    };

    let flags = authority.client();
    let ran = with(
        &flags,
        &[
            "run",
            "--rm",
            "--network",
            "none",
            &image,
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ],
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (7, "out\n", "err\n")
    );

    // A client of another authority, one that trusts another, and one without a certificate at all.
    let mut foreign = other.client();
    foreign[1] = authority.file("ca.pem");
    let refused = with(&foreign, &["ps"]).refused();
    assert!(
        refused.contains(&host) && refused.contains("certificate"),
        "{refused}"
    );
    let mut trusting_another = authority.client();
    trusting_another[1] = other.file("ca.pem");
    let refused = with(&trusting_another, &["ps"]).refused();
    assert!(refused.contains("certificate"), "{refused}");
    let refused = with(&[], &["ps"]).refused();
    assert!(
        refused.contains("ca.pem") && refused.contains("--tlscacert"),
        "{refused}"
    );
    let curl = |more: &str| {
        let script = format!(
            "(sleep 1; echo) | openssl s_client -quiet -alpn h2 -connect {PLACE} {more} 2>&1; exit 0"
        );
        run(manager.inside("sh").args(["-c", &script])).stdout
    };
    let silent = curl("");
    assert!(silent.contains("certificate required"), "{silent}");
    // Nothing is served in the clear.
    let plain = run(manager.inside("sh").args(["-c", GREETING]));
    assert!(
        !plain.stdout.trim().starts_with("00 00"),
        "a frame of HTTP/2: {}",
        plain.stdout
    );
    // And all of them together have not kept it from its work.
    with(&flags, &["version"]).ok();
}

#[test]
fn a_manager_does_not_start_half_open() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(&sandbox, "one");
    let start = |args: &[&str]| {
        let folder = sandbox.path().join("half");
        // It is not to come as far as the network, but would change this machine's.
        let mut command = Command::new("unshare");
        command.arg("--net").arg(binary("manager"));
        command.args(["--root", &folder.join("lib").to_string_lossy()]);
        command.args(["--state", &folder.join("run").to_string_lossy()]);
        run(command.args(args)).refused()
    };
    let alone = start(&["--tcp", PLACE]);
    assert!(
        alone.contains("--tlscacert") && alone.contains("--tlskey"),
        "{alone}"
    );
    let unfit = start(&words(&authority.manager("client.pem")));
    assert!(unfit.contains(&authority.file("client.pem")), "{unfit}");
    let nobody = start(&["--socket-group", "no-such-group"]);
    assert!(
        nobody.contains("no-such-group") && nobody.contains("groupadd"),
        "{nobody}"
    );
}

/// Connections to `PLACE` whose clients say nothing.
fn strangers(sandbox: &Sandbox, count: usize) -> Vec<TcpStream> {
    let netns = format!("/run/netns/berth-{}", sandbox.id());
    let connecting = std::thread::spawn(move || {
        let netns = fs::File::open(netns).expect("open the manager's network namespace");
        // This thread's alone.
        setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the manager's network namespace");
        (0..count).map_while(|_| TcpStream::connect(PLACE).ok()).collect()
    });
    connecting.join().expect("the thread connects")
}

fn descriptors(manager: &Manager) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", manager.pid())).expect("list the manager's descriptors");
    all.count()
}

/// Of a second's time of a processor, how many hundredths the manager takes.
fn hundredths_of_a_second(manager: &Manager) -> u64 {
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", manager.pid())).expect("look at the manager");
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        // `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5).
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |index: usize| fields[index].parse::<u64>().expect("a number");
        number(11) + number(12)
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    ticks() - before
}

#[test]
fn strangers_take_no_more_than_their_part_of_the_manager() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(&sandbox, "one");
    let manager = serving(&sandbox, &authority);
    let before = descriptors(&manager);
    let waiting = strangers(&sandbox, 350);
    assert_eq!(waiting.len(), 350, "the kernel takes them all");
    eventually("as many of one address as may are asked who they are", || {
        (descriptors(&manager) >= before + 60).then_some(())
    });
    // Those that are taken out of turn would be there by now.
    std::thread::sleep(Duration::from_millis(500));
    let taken = descriptors(&manager) - before;
    assert!(taken < 100, "{taken} strangers");
    manager.ctl(&["ps"]).ok();
    // Who has a certificate does not wait until all of them have had their ten seconds.
    let begun = Instant::now();
    over_tcp(&manager, &sandbox, &authority).ok();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    drop(waiting);
}

fn over_tcp(manager: &Manager, sandbox: &Sandbox, authority: &Authority) -> Done {
    let host = format!("tcp://{PLACE}");
    let flags = authority.client();
    let args = [&["--host", &host][..], &words(&flags), &["ps"]].concat();
    ctl(manager, sandbox.path(), &args)
}

#[test]
fn a_manager_without_descriptors_left_waits_for_some() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(&sandbox, "one");
    let manager = serving(&sandbox, &authority);
    let limit = descriptors(&manager) + 20;
    run(Command::new("prlimit").args([
        format!("--pid={}", manager.pid()),
        format!("--nofile={limit}:{limit}"),
    ]))
    .ok();
    let waiting = strangers(&sandbox, 60);
    eventually("there are none left", || {
        (descriptors(&manager) >= limit).then_some(())
    });
    let busy = hundredths_of_a_second(&manager);
    assert!(busy < 25, "{busy} hundredths of a second in one second");
    drop(waiting);
    manager.ctl(&["ps"]).ok();
    assert!(
        manager.log().contains("no room for one more client"),
        "{}",
        manager.log()
    );
}

#[test]
fn a_socket_of_systemd_is_the_one_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path().join("systemd.sock");
    let listener = UnixListener::bind(&socket).expect("listen as systemd does");
    nix::fcntl::fcntl(
        &listener,
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
    )
    .expect("share it");
    let start = |args: &[&str]| {
        let folder = sandbox.path().join("activated");
        let script = format!(
            "exec env LISTEN_PID=$$ LISTEN_FDS=1 \"$@\" 3<&{}",
            listener.as_raw_fd()
        );
        let mut command = Command::new("timeout");
        command.args(["20", "unshare", "--net", "bash", "-c", &script, "bash"]);
        command.arg(binary("manager"));
        command.args(["--root", &folder.join("lib").to_string_lossy()]);
        command.args(["--state", &folder.join("run").to_string_lossy()]);
        run(command.args(args)).refused()
    };
    let refused = start(&["--socket-group", "root"]);
    assert!(
        refused.contains("--socket-group") && refused.contains("SocketGroup=root"),
        "{refused}"
    );
    let refused = start(&["--socket", "/run/elsewhere.sock"]);
    assert!(
        refused.contains("/run/elsewhere.sock") && refused.contains(&*socket.to_string_lossy()),
        "{refused}"
    );
}

#[test]
fn a_context_is_a_manager_with_a_name() {
    let sandbox = Sandbox::new();
    let authority = Authority::new(&sandbox, "one");
    let manager = serving(&sandbox, &authority);
    let home = sandbox.path().join("home");
    fs::create_dir(&home).expect("make a home");
    let host = format!("tcp://{PLACE}");
    let flags = authority.client();
    let flags = words(&flags);
    let ctl = |args: &[&str]| ctl(&manager, &home, args);

    let create = [
        "context",
        "create",
        "far",
        "--description",
        "the test's",
        "--host",
        &host,
    ];
    assert_eq!(ctl(&[&create[..], &flags].concat()).ok(), "far\n");
    // It has copies of its own, which nobody else reads.
    fs::remove_file(authority.file("client.key")).expect("remove a key");
    let key = home.join(".config/berth/contexts/far/key.pem");
    assert_eq!(
        fs::metadata(&key).expect("look at the key").permissions().mode() & 0o777,
        0o600
    );

    ctl(&["ps"]).refused();
    ctl(&["--context", "far", "ps"]).ok();
    assert_eq!(ctl(&["context", "use", "far"]).ok(), "far\n");
    ctl(&["ps"]).ok();
    let listed = ctl(&["context", "ls"]).ok();
    assert!(
        listed.contains("far *") && listed.contains(&host) && listed.contains("the test's"),
        "{listed}"
    );
    let shown: Value = serde_json::from_str(&ctl(&["context", "inspect"]).ok()).expect("JSON");
    assert_eq!(shown[0]["host"], host);
    // What is typed counts more than what is in use.
    let local = format!("unix://{}", manager.socket().display());
    ctl(&["-H", &local, "ps"]).ok();
    ctl(&["-c", "default", "ps"]).refused();

    let in_use = ctl(&["context", "rm", "far"]).refused();
    assert!(in_use.contains("in use"), "{in_use}");
    ctl(&["context", "rm", "-f", "far"]).ok();
    assert!(!key.exists());
    assert_eq!(ctl(&["context", "show"]).ok(), "default\n");
    let missing = ctl(&["-c", "far", "ps"]).refused();
    assert!(missing.contains("no context far"), "{missing}");
}

#[test]
fn a_group_of_the_socket_is_let_in_and_nobody_else() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    manager.stop();
    // Debian has these: the first as root's equal on this socket, the second as anybody.
    manager.set_options(&["--socket-group", "users"]);
    manager.start_again();
    // The way there is everybody's, so that the socket alone decides.
    for folder in manager
        .socket()
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(sandbox.path()))
    {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("open a folder");
    }
    let socket = fs::metadata(manager.socket()).expect("look at the socket");
    assert_eq!(socket.mode() & 0o7777, 0o660);
    let programs = sandbox.path().join("programs");
    fs::create_dir(&programs).expect("make a folder");
    fs::copy(binary("managerctl"), programs.join("managerctl")).expect("copy managerctl");
    let of_group = |group: &str| {
        let mut command = manager.inside("setpriv");
        command.args(["--reuid", "nobody", "--regid", group, "--clear-groups"]);
        run(command
            .arg(programs.join("managerctl"))
            .arg("--socket")
            .arg(manager.socket())
            .arg("ps"))
    };
    of_group("users").ok();
    let refused = of_group("nogroup").refused();
    assert!(
        refused.contains("Permission denied") && refused.contains("group"),
        "{refused}"
    );
}

#[test]
fn ssh_carries_the_api_of_another_machine() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let folder = sandbox.path().join("ssh");
    fs::create_dir(&folder).expect("make a folder");
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    for key in ["host", "user"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])).ok();
    }
    fs::copy(path("user.pub"), path("authorized")).expect("authorise a key");
    let programs = binary("managerctl");
    let programs = programs.parent().expect("a folder").display();
    fs::write(
        path("sshd.conf"),
        format!(
            "Port 2222\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {authorized}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
             SetEnv PATH={programs}:/usr/bin:/bin BERTH_SOCKET={socket}\n",
            host = path("host"),
            authorized = path("authorized"),
            socket = manager.socket().display(),
        ),
    )
    .expect("write sshd's configuration");
    fs::create_dir_all("/run/sshd").expect("make sshd's folder");
    let mut sshd = manager
        .inside("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", &path("sshd.conf")])
        .stdin(Stdio::null())
        .stderr(fs::File::create(path("log")).expect("make a log"))
        .spawn()
        .expect("start sshd");
    eventually("sshd listens", || {
        fs::read_to_string(path("log"))
            .ok()?
            .contains("Server listening")
            .then_some(())
    });

    // ssh is found by its name, and reads its configuration from the person's home, which root's is not here.
    let own = folder.join("bin");
    fs::create_dir(&own).expect("make a folder");
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/ssh -i {} -o UserKnownHostsFile={} -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR \"$@\"\n",
        path("user"),
        path("known")
    );
    fs::write(own.join("ssh"), script).expect("write a script");
    fs::set_permissions(own.join("ssh"), fs::Permissions::from_mode(0o755)).expect("make it a program");
    let over = |host: &str, args: &[&str]| {
        let mut command = manager.inside(&binary("managerctl").to_string_lossy());
        command.env("PATH", format!("{}:/usr/bin:/bin", own.display()));
        run(command.args(["--host", host]).args(args))
    };
    let ran = over(
        "ssh://root@127.0.0.1:2222",
        &[
            "run",
            "--rm",
            "--network",
            "none",
            &image,
            "sh",
            "-c",
            "echo through; exit 5",
        ],
    );
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (5, "through\n"),
        "{}",
        ran.stderr
    );
    let refused = over("ssh://127.0.0.1:2", &["ps"]).refused();
    assert!(
        refused.contains("Connection refused") && refused.contains("ssh://127.0.0.1:2"),
        "{refused}"
    );
    sshd.kill().expect("end sshd");
    sshd.wait().expect("wait for sshd");
    eventually("what sshd had begun has ended", || {
        let sessions = run(Command::new("pgrep").args(["-f", &path("sshd.conf")]));
        (sessions.code != 0).then_some(())
    });
}

#[test]
fn systemd_makes_the_socket_and_is_told_of_the_state() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.stop();

    let (socket, told) = (
        sandbox.path().join("systemd.sock"),
        sandbox.path().join("notify.sock"),
    );
    let listener = UnixListener::bind(&socket).expect("listen as systemd does");
    let notified = UnixDatagram::bind(&told).expect("be told as systemd is");
    // A manager that does not start says nothing at all.
    notified
        .set_read_timeout(Some(Duration::from_mins(1)))
        .expect("limit the wait");
    let next = || {
        let mut buffer = [0; 256];
        let length = notified.recv(&mut buffer).expect("be told");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let start = || {
        let script = format!(
            "exec env LISTEN_PID=$$ LISTEN_FDS=1 \"$@\" 3<&{}",
            listener.as_raw_fd()
        );
        // Debian's sh takes descriptors of one digit only, and which one this is depends on the tests beside this one.
        let mut command = manager.inside("bash");
        nix::fcntl::fcntl(
            &listener,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()),
        )
        .expect("share it");
        command.args(["-c", &script, "bash"]).arg(binary("manager"));
        command
            .arg("--root")
            .arg(manager.root())
            .arg("--state")
            .arg(manager.state());
        command
            .arg("--shim")
            .arg(binary("shim"))
            .arg("--runtime")
            .arg(binary("runtime"));
        command
            .env("NOTIFY_SOCKET", &told)
            .stderr(fs::File::create(sandbox.path().join("log")).expect("make a log"))
            .spawn()
            .expect("start a manager")
    };
    let ctl = |args: &[&str]| {
        let mut command = manager.inside(&binary("managerctl").to_string_lossy());
        run(command.arg("--socket").arg(&socket).args(args))
    };
    let end = |mut child: std::process::Child| {
        run(Command::new("kill").arg(child.id().to_string())).ok();
        assert!(child.wait().expect("wait for the manager").success());
    };

    let first = start();
    assert_eq!(next(), "READY=1");
    ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"]).ok();
    // What systemd says to the manager, no shim and no container hears.
    let pid = ctl(&["inspect", "one"]).ok();
    let pid: Value = serde_json::from_str(&pid).expect("JSON");
    let pid = pid[0]["pid"].as_u64().expect("a process id");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("look at the container");
    let shim = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .expect("a parent");
    for process in [pid.to_string(), shim.trim().to_owned()] {
        let environment = fs::read(format!("/proc/{process}/environ")).expect("look at an environment");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(
            !environment.contains("NOTIFY_SOCKET") && !environment.contains("LISTEN_"),
            "{environment}"
        );
    }
    end(first);
    assert_eq!(next(), "STOPPING=1");
    assert!(socket.exists(), "the socket is systemd's");

    // Who asks while there is no manager waits for the next one.
    let mut waiting = manager.inside(&binary("managerctl").to_string_lossy());
    waiting
        .arg("--socket")
        .arg(&socket)
        .args(["exec", "one", "echo", "here"]);
    let waiting = waiting.stdout(Stdio::piped()).spawn().expect("start a client");
    let second = start();
    assert_eq!(next(), "READY=1");
    let output = waiting.wait_with_output().expect("wait for the client");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "here\n");
    ctl(&["rm", "-f", "one"]).ok();
    end(second);
}

#[test]
fn tools_ask_a_server_for_its_health_and_what_it_offers() {
    let Some(programs) = Peers::built() else { return };
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let grpcurl = |flags: &[&str], args: &[&str]| {
        let mut command = manager.inside(&programs.join("grpcurl").to_string_lossy());
        let socket = format!("unix://{}", manager.socket().display());
        run(command
            .args(["-plaintext", "-authority", "manager"])
            .args(flags)
            .arg(socket)
            .args(args))
        .ok()
    };
    let offered = grpcurl(&[], &["list"]);
    for service in [
        "berth.v1.Images",
        "berth.v1.Containers",
        "berth.v1.System",
        "grpc.health.v1.Health",
    ] {
        assert!(offered.contains(service), "{offered}");
    }
    let described = grpcurl(&[], &["describe", "berth.v1.StopContainerRequest"]);
    assert!(described.contains("timeout_seconds"), "{described}");
    for service in offered.lines().filter(|service| service.starts_with("berth.")) {
        let question = format!("{{\"service\": \"{service}\"}}");
        let health = grpcurl(&["-d", &question], &["grpc.health.v1.Health/Check"]);
        assert!(health.contains("SERVING"), "{service}: {health}");
    }
    let health = grpcurl(&[], &["grpc.health.v1.Health/Check"]);
    assert!(health.contains("SERVING"), "{health}");
    let version: Value = serde_json::from_str(&grpcurl(&[], &["berth.v1.System/Version"])).expect("JSON");
    assert!(version["version"].is_string(), "{version}");
}

#[test]
fn new_certificates_hold_for_who_connects_after_a_reload() {
    let sandbox = Sandbox::new();
    let (authority, other) = (Authority::new(&sandbox, "one"), Authority::new(&sandbox, "other"));
    let manager = serving(&sandbox, &authority);
    let home = sandbox.path().join("home");
    fs::create_dir(&home).expect("make a home");
    let host = format!("tcp://{PLACE}");
    let old = authority.client();
    let as_other = other.client();
    // The files that clients show stay apart from those that the manager reads.
    for name in ["ca.pem", "client.pem", "client.key"] {
        fs::copy(authority.file(name), authority.file(&format!("old-{name}"))).expect("keep a file");
    }
    let old: Vec<_> = old
        .iter()
        .map(|word| word.replace("/one/", "/one/old-"))
        .collect();
    let version = |flags: &[String]| {
        ctl(
            &manager,
            &home,
            &[&["--host", &host][..], &words(flags), &["version"]].concat(),
        )
    };
    version(&old).ok();
    version(&as_other).refused();
    let reload = |word: &str| {
        run(Command::new("kill").args(["-HUP", &manager.pid().to_string()])).ok();
        eventually("it has read them again", || {
            manager.log().contains(word).then_some(())
        });
    };
    // Half of a renewal is not right, and changes nothing.
    fs::copy(other.file("server.pem"), authority.file("server.pem")).expect("renew");
    reload("all stays as it was");
    version(&old).ok();
    for name in ["server.key", "ca.pem"] {
        fs::copy(other.file(name), authority.file(name)).expect("renew");
    }
    reload("is read again, and holds");
    version(&as_other).ok();
    version(&old).refused();
}
