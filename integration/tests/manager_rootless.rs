//! A manager that a normal user starts: in namespaces of the user's, with a network by slirp4netns, and ports of the
//! host. Without cgroups, as no group is handed down to that user here.

use integration::{Done, Sandbox, binary, eventually, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const USER: u32 = 4711;
const FIRST: u32 = 3_000_000;

/// A user's session on a host whose network, users and devices are the test's own.
struct Session<'a> {
    sandbox: &'a Sandbox,
    /// Keeps the session's namespaces.
    host: Child,
    manager: Option<Child>,
}

impl<'a> Session<'a> {
    /// `subordinate`: the lines of /etc/subuid and /etc/subgid.
    fn begin(sandbox: &'a Sandbox, subordinate: &str) -> Self {
        let folder = |name: &str| sandbox.path().join(name);
        for name in ["bin", "home", "run"] {
            fs::create_dir(folder(name)).expect("make a folder");
        }
        // For tests to replace files of it.
        run(Command::new("cp").arg("-a").arg("/etc").arg(folder("etc"))).ok();
        // The build folder may be out of the user's reach.
        for name in ["manager", "managerctl", "shim", "runtime"] {
            fs::copy(binary(name), folder("bin").join(name)).expect("copy a binary");
        }
        let init = binary("init");
        fs::copy(&init, folder("bin").join(init.file_name().expect("its name"))).expect("copy the init");
        let users = fs::read_to_string("/etc/passwd").expect("read the users");
        let user = format!("{users}berthtest:x:{USER}:{USER}::/nowhere:/bin/sh\n");
        fs::write(folder("etc/passwd"), user).expect("write the users");
        for name in ["etc/subuid", "etc/subgid"] {
            fs::write(folder(name), subordinate).expect("write the ids");
        }
        for name in ["home", "run"] {
            std::os::unix::fs::chown(folder(name), Some(USER), Some(USER)).expect("give the folder away");
        }
        // Elsewhere udev lets everybody open this device.
        let script = "mount -t tmpfs -o mode=755 tun /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
             mount --bind etc /etc && ip link set lo up && exec sleep 3600";
        let host = Command::new("unshare")
            .args(["--mount", "--net", "--", "sh", "-c", script])
            .current_dir(sandbox.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("make a host");
        let session = Self {
            sandbox,
            host,
            manager: None,
        };
        eventually("the host is there", || {
            let name = fs::read_to_string(format!("/proc/{}/comm", session.host.id())).ok()?;
            (name.trim() == "sleep").then_some(())
        });
        session
    }

    /// A program in the session.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.host.id().to_string(), "--mount", "--net", "--"]);
        let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        command.args([
            "setpriv",
            &uid,
            &gid,
            "--clear-groups",
            "--inh-caps=-all",
            "--",
            program,
        ]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder("home"))
            .env("XDG_RUNTIME_DIR", self.folder("run"));
        command
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    fn berth(&self, name: &str) -> String {
        self.folder("bin").join(name).display().to_string()
    }

    fn ctl(&self, args: &[&str]) -> Done {
        run(self.command(&self.berth("managerctl")).args(args))
    }

    fn start(&mut self) {
        let manager = self.command(&self.berth("manager"));
        self.spawn(manager);
        self.await_answer();
    }

    fn spawn(&mut self, mut manager: Command) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder("log"));
        manager.stdin(Stdio::null()).stderr(log.expect("make the log"));
        self.manager = Some(manager.spawn().expect("start the manager"));
    }

    fn await_answer(&self) {
        eventually("the manager answers", || {
            (self.ctl(&["ps"]).code == 0).then_some(())
        });
    }

    /// What a port of the host says.
    fn answer(&self, port: &str) -> Done {
        self.answer_of("127.0.0.1", port)
    }

    fn answer_of(&self, address: &str, port: &str) -> Done {
        run(self.command("busybox").args(["nc", "-w", "5", address, port]))
    }

    /// A manager that finds `script` as slirp4netns.
    fn with_network(&self, script: &str) -> Command {
        let folder = self.folder("programs");
        fs::create_dir_all(&folder).expect("make a folder");
        let program = folder.join("slirp4netns");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("write a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
        let mut manager = self.command("sh");
        let script = format!("PATH={}:$PATH exec {}", folder.display(), self.berth("manager"));
        manager.args(["-c", &script]);
        manager
    }

    /// The processes that hold namespaces of this session.
    fn holders(&self) -> Vec<String> {
        let folder = self.folder("run").display().to_string();
        let processes = fs::read_dir("/proc").expect("look at processes").flatten();
        let names = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let has = |pid: &str, file: &str, text: &str| {
            let content = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&content).contains(text)
        };
        names
            .filter(|pid| has(pid, "cmdline", "hold-namespaces") && has(pid, "environ", &folder))
            .collect()
    }

    /// Another file takes the place of the host's /etc/resolv.conf.
    fn replace_resolv_conf(&self) {
        let new = self.folder("etc/resolv.conf.new");
        fs::write(&new, "nameserver 127.0.0.53\n").expect("write a file");
        fs::rename(&new, self.folder("etc/resolv.conf")).expect("replace a file");
    }

    /// kill -9.
    fn kill(&mut self) {
        let mut manager = self.manager.take().expect("a manager");
        manager.kill().expect("kill the manager");
        manager.wait().expect("wait for the manager");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder("log")).unwrap_or_default()
    }

    /// An image with busybox, imported.
    fn image(&self) -> &'static str {
        let root = self.folder("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name)).expect("make a folder");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy busybox");
        for name in ["sh", "sleep", "cat", "id", "nc", "ping", "touch", "echo", "ls"] {
            symlink("busybox", root.join("bin").join(name)).expect("link busybox");
        }
        let archive = self.folder("image.tar");
        // A device and an attribute that only root can make are in many images.
        run(Command::new("mknod")
            .arg(root.join("dev/odd"))
            .args(["c", "1", "3"]))
        .ok();
        run(Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg("."))
        .ok();
        self.ctl(&["import", &archive.display().to_string(), "box:1"])
            .ok();
        "box:1"
    }

    /// The processes that outlive managers: who holds the namespaces, and who brings packets in and out.
    fn kept(&self) -> Vec<String> {
        let record = fs::read_to_string(self.folder("run/berth/namespaces")).unwrap_or_default();
        record
            .split_ascii_whitespace()
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the manager\n{}", self.log());
        }
        let _ = run(self.command("sh").args([
            "-c",
            &format!("{0} ps -aq | xargs -r {0} rm -f", self.berth("managerctl")),
        ]));
        for child in self.manager.iter_mut().chain([&mut self.host]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.kept() {
            let _ = Command::new("kill").arg(pid).status();
        }
        // What containers made is of ids that only the user's namespace has.
        let _ = fs::remove_dir_all(self.folder("home"));
    }
}

fn ids() -> String {
    format!("{USER}:{FIRST}:65536\n")
}

#[test]
fn a_user_runs_containers_with_networks_ports_and_volumes_and_kills_the_manager() {
    let sandbox = Sandbox::new();
    let mut session = Session::begin(&sandbox, &ids());
    session.start();
    let image = session.image();
    assert_eq!(session.ctl(&["run", "--rm", image, "id", "-u"]).ok().trim(), "0");
    assert_eq!(
        session
            .ctl(&[
                "run",
                "--rm",
                "-u",
                "1000",
                "--network",
                "none",
                image,
                "id",
                "-u"
            ])
            .ok()
            .trim(),
        "1000"
    );

    let serve = "echo ready; exec busybox nc -ll -p 80 -e busybox echo hello";
    let published = ["-p", "8080:80", "-p", "127.0.0.1:9000:80"];
    session
        .ctl(
            &[
                &["run", "-d", "--name", "web"][..],
                &published,
                &[image, "sh", "-c", serve],
            ]
            .concat(),
        )
        .ok();
    for port in ["8080", "9000"] {
        eventually("the port of the host is answered", || {
            (session.answer(port).stdout == "hello\n").then_some(())
        });
    }
    let error = session
        .ctl(&["run", "--rm", "-p", "8080:80", image, "id"])
        .refused();
    assert!(error.contains("port is already allocated"), "{error}");
    let error = session
        .ctl(&["run", "--rm", "-p", "80:80", image, "id"])
        .refused();
    assert!(error.contains("ip_unprivileged_port_start"), "{error}");

    session
        .ctl(&["network", "create", "--subnet", "10.99.0.0/24", "own"])
        .ok();
    session
        .ctl(&[
            "run",
            "-d",
            "--name",
            "peer",
            "--network",
            "own",
            image,
            "sleep",
            "3600",
        ])
        .ok();
    session
        .ctl(&[
            "run",
            "--rm",
            "--network",
            "own",
            image,
            "ping",
            "-c",
            "1",
            "-w",
            "20",
            "peer",
        ])
        .ok();
    // The gateway of slirp4netns: packets leave the bridge, and come back.
    session
        .ctl(&["run", "--rm", image, "ping", "-c", "1", "-w", "20", "10.0.2.2"])
        .ok();

    session
        .ctl(&[
            "run",
            "--rm",
            "-v",
            "data:/data",
            image,
            "sh",
            "-c",
            "echo kept >/data/file",
        ])
        .ok();
    assert_eq!(
        session
            .ctl(&["run", "--rm", "-v", "data:/data", image, "cat", "/data/file"])
            .ok(),
        "kept\n"
    );
    session
        .ctl(&["exec", "web", "sh", "-c", "echo new >/file && rm -f /bin/ls"])
        .ok();
    let changes = session.ctl(&["diff", "web"]).ok();
    assert!(
        changes.contains("A /file") && changes.contains("D /bin/ls"),
        "{changes}"
    );
    session.ctl(&["commit", "web", "box:2"]).ok();
    assert_eq!(
        session.ctl(&["run", "--rm", "box:2", "cat", "/file"]).ok(),
        "new\n"
    );
    let gone = session
        .ctl(&["run", "--rm", "box:2", "sh", "-c", "echo /bin/l*"])
        .ok();
    assert_eq!(gone, "/bin/l*\n", "a removed file stays removed");
    // Without cgroups its processes are not told apart by a group that it has in common with others.
    let top = session.ctl(&["top", "web"]).ok();
    assert_eq!(top.lines().count(), 2, "{top}");

    session.kill();
    assert_eq!(
        session.answer("8080").stdout,
        "hello\n",
        "it runs on without a manager"
    );
    let kept = session.kept();
    session.start();
    assert_eq!(
        session.kept(),
        kept,
        "the next manager goes into the same namespaces"
    );
    assert_eq!(session.ctl(&["exec", "web", "cat", "/file"]).ok(), "new\n");
    assert_eq!(session.ctl(&["logs", "web"]).ok(), "ready\n");
    assert_eq!(session.answer("9000").stdout, "hello\n");
    session.ctl(&["rm", "-f", "web"]).ok();
    assert!(session.answer("8080").code != 0, "nobody listens any more");

    // Who brings packets in and out may be killed by whoever runs out of memory.
    let serve = "exec busybox nc -ll -p 80 -e busybox echo again";
    session
        .ctl(&[
            "run", "-d", "--name", "web", "-p", "8080:80", image, "sh", "-c", serve,
        ])
        .ok();
    eventually("the port of the host is answered", || {
        (session.answer("8080").stdout == "again\n").then_some(())
    });
    run(Command::new("kill").args(["-9", &kept[1]])).ok();
    eventually("it has ended", || {
        let status = fs::read_to_string(format!("/proc/{}/stat", kept[1])).unwrap_or_default();
        (status.is_empty() || status.contains(") Z ")).then_some(())
    });
    session.kill();
    session.start();
    assert_eq!(session.kept()[0], kept[0], "the namespaces are the same");
    assert_ne!(session.kept()[1], kept[1]);
    assert_eq!(session.answer("8080").stdout, "again\n");
    session.ctl(&["rm", "-f", "web"]).ok();

    // The user's files of it are the user's, or of the user's ids.
    let owners = run(Command::new("find")
        .arg(session.folder("home"))
        .args(["-printf", "%U\n"]))
    .ok();
    let foreign = owners.lines().map(|uid| uid.parse::<u32>().expect("a user id"));
    let foreign: Vec<u32> = foreign
        .filter(|uid| *uid != USER && !(FIRST..FIRST + 65_536).contains(uid))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn what_a_user_can_not_have_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let mut session = Session::begin(&sandbox, &ids());
    session.start();
    let image = session.image();
    let error = session.ctl(&["run", "--rm", "-m", "64m", image, "id"]).refused();
    assert!(error.contains("without the right to make cgroups"), "{error}");
    session
        .ctl(&["run", "-d", "--name", "box", image, "sleep", "3600"])
        .ok();
    let error = session
        .ctl(&["run", "--rm", "--userns", "auto", image, "id"])
        .refused();
    assert!(
        error.contains("userns") && error.contains("root's rights"),
        "{error}"
    );
    let error = session.ctl(&["pause", "box"]).refused();
    assert!(error.contains("no cgroup that can freeze"), "{error}");
    let error = session
        .ctl(&["run", "--rm", "-p", "9001:80/sctp", image, "id"])
        .refused();
    assert!(
        error.contains("without root's rights ports of SCTP can't be published"),
        "{error}"
    );
    // Networks with IPv6 are for the containers on them; its ports are the host's, which has them by slirp4netns.
    session.ctl(&["network", "create", "--ipv6", "six"]).ok();
    let on_six = ["run", "--rm", "--network", "six"];
    let read = ["-p", "9002:80", image, "cat", "/proc/net/if_inet6"];
    let seen = session.ctl(&[&on_six[..], &read].concat()).ok();
    assert!(seen.lines().any(|line| line.starts_with("fd")), "{seen}");
    let error = session
        .ctl(&[&on_six[..], &["-p", "[::]:9002:80", image, "id"]].concat())
        .refused();
    assert!(
        error.contains("without root's rights publishes no ports on IPv6"),
        "{error}"
    );
    session.ctl(&["network", "rm", "six"]).ok();
}

#[test]
fn a_user_without_ids_or_programs_is_told_what_to_do() {
    let sandbox = Sandbox::new();
    let session = Session::begin(&sandbox, "somebody:1000000:65536\n");
    let manager = session.berth("manager");
    let error = run(&mut session.command(&manager)).refused();
    assert!(
        error.contains("usermod --add-subuids") && error.contains("berthtest"),
        "{error}"
    );

    for name in ["etc/subuid", "etc/subgid"] {
        fs::write(session.folder(name), ids()).expect("write the ids");
    }
    let only = session.folder("only");
    fs::create_dir(&only).expect("make a folder");
    for (there, missing, package) in [
        (&[][..], "newuidmap", "uidmap"),
        (&["newuidmap", "newgidmap"], "slirp4netns", "slirp4netns"),
    ] {
        for name in there {
            symlink(Path::new("/usr/bin").join(name), only.join(name)).expect("link a program");
        }
        // Else nsenter and setpriv are not found.
        let script = format!("PATH={} exec {manager}", only.display());
        let error = run(session.command("sh").args(["-c", &script])).refused();
        assert!(
            error.contains(&format!("run {missing}")) && error.contains(package),
            "{error}"
        );
    }
    let error = run(session.command(&manager).env_remove("XDG_RUNTIME_DIR")).refused();
    assert!(error.contains("XDG_RUNTIME_DIR is not set"), "{error}");
}

#[test]
fn a_manager_that_is_killed_while_it_makes_namespaces_leaves_one_set_of_them_to_the_next() {
    let sandbox = Sandbox::new();
    let mut session = Session::begin(&sandbox, &ids());
    let (begun, go) = (session.folder("run/begun"), session.folder("run/go"));
    let script = format!(
        "echo >>{}; while [ ! -e {} ]; do sleep 0.05; done; exec /usr/bin/slirp4netns \"$@\"",
        begun.display(),
        go.display()
    );
    let attempts = || fs::read(&begun).unwrap_or_default().len();
    session.spawn(session.with_network(&script));
    eventually("the network begins", || (attempts() == 1).then_some(()));
    session.kill();
    session.spawn(session.with_network(&script));
    let next = session.manager.as_ref().expect("a manager").id();
    eventually("the next one waits, or makes its own", || {
        let waits = fs::read_to_string(format!("/proc/{next}/syscall"));
        // flock, of x86-64 and of arm64.
        let waits = waits.is_ok_and(|call| call.starts_with("73 ") || call.starts_with("32 "));
        (waits || attempts() > 1).then_some(())
    });
    fs::write(&go, "").expect("let it go on");
    session.await_answer();
    assert_eq!(attempts(), 1);
    assert_eq!(session.holders(), session.kept()[..1]);
}

#[test]
fn a_network_that_does_not_get_ready_is_told_of_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let session = Session::begin(&sandbox, &ids());
    let error = run(&mut session.with_network("exec sleep 1000")).refused();
    assert!(error.contains("slirp4netns was not ready after"), "{error}");
    assert_eq!(session.holders(), [""; 0]);
}

#[test]
fn names_are_asked_of_the_network_inside_when_the_host_has_replaced_its_file_of_servers() {
    let sandbox = Sandbox::new();
    let mut session = Session::begin(&sandbox, &ids());
    session.start();
    let image = session.image();
    let show = [
        "run",
        "--rm",
        "--network",
        "host",
        image,
        "cat",
        "/etc/resolv.conf",
    ];
    let is_inside = |session: &Session| session.ctl(&show).ok() == "nameserver 10.0.2.3\n";
    assert!(is_inside(&session));
    for _ in 0..3 {
        session.replace_resolv_conf();
        eventually("that of the network inside is there again", || {
            is_inside(&session).then_some(())
        });
    }
    session.kill();
    session.replace_resolv_conf();
    session.start();
    eventually("it is there with the next manager", || {
        is_inside(&session).then_some(())
    });
}

#[test]
fn the_same_port_of_two_addresses_is_that_of_two_containers() {
    let sandbox = Sandbox::new();
    let mut session = Session::begin(&sandbox, &ids());
    session.start();
    let image = session.image();
    let addresses = ["127.0.0.1", "127.0.0.2"];
    for address in addresses {
        let serve = format!("exec busybox nc -ll -p 80 -e busybox echo {address}");
        let port = format!("{address}:8090:80");
        session
            .ctl(&[
                "run", "-d", "--name", address, "-p", &port, image, "sh", "-c", &serve,
            ])
            .ok();
    }
    let answered = |session: &Session| {
        for address in addresses {
            eventually("each answers at its own address", || {
                (session.answer_of(address, "8090").stdout.trim() == address).then_some(())
            });
        }
    };
    answered(&session);
    session.kill();
    session.start();
    answered(&session);
    session.ctl(&["rm", "-f", "127.0.0.1"]).ok();
    assert_eq!(session.answer_of("127.0.0.2", "8090").stdout.trim(), "127.0.0.2");
    assert!(session.answer("8090").code != 0, "nobody listens any more");
}
