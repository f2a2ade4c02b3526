//! Volumes of the local driver that are mounted from an NFS server, as docker's `-o type=nfs`. These tests run where the
//! kernel has both sides of NFS and nfs-kernel-server is installed (hack/vm-tests boots such machines); elsewhere they
//! say why they do not.

use integration::{Done, Sandbox, binary, busybox_rootfs, eventually, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// nfsd is one for a network namespace, and this is the machine's.
struct Server;

impl Server {
    /// Exports `/export`, and `/squashed`, where root is nobody.
    fn start() -> Option<Self> {
        let here = Path::new("/usr/sbin/rpc.nfsd").exists()
            && run(Command::new("modprobe").args(["-a", "nfsd", "nfs", "nfsv4"])).code == 0;
        if !here {
            println!("skipped: needs NFS in the kernel, and nfs-kernel-server (hack/vm-tests has both)");
            return None;
        }
        if !Path::new("/proc/fs/nfsd/threads").exists() {
            run(Command::new("mount").args(["-t", "nfsd", "nfsd", "/proc/fs/nfsd"])).ok();
        }
        for (folder, options) in [
            ("/export", "rw,no_root_squash,no_subtree_check,insecure"),
            ("/squashed", "rw,root_squash,no_subtree_check,insecure"),
        ] {
            fs::create_dir_all(folder).expect("make a folder");
            run(Command::new("exportfs").args(["-o", options, &format!("127.0.0.1:{folder}")])).ok();
        }
        // Who tells the kernel what is exported; version 4 needs no portmapper.
        run(Command::new("rpc.mountd").args(["-N", "3"])).ok();
        Self::serve();
        Some(Self)
    }

    fn serve() {
        run(Command::new("rpc.nfsd").args(["-N", "3", "4"])).ok();
        // No client from before is waited for.
        fs::write("/proc/fs/nfsd/v4_end_grace", "Y").expect("begin to serve");
    }

    /// Connections are refused, and hard mounts wait.
    fn stop() {
        run(Command::new("rpc.nfsd").arg("0")).ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (program, arguments) in [
            ("rpc.nfsd", &["0"][..]),
            ("exportfs", &["-au"]),
            ("pkill", &["rpc.mountd"]),
        ] {
            let _ = Command::new(program).args(arguments).status();
        }
    }
}

/// A manager without a registry, which such machines do not have.
struct Manager {
    child: Child,
    folder: PathBuf,
}

impl Manager {
    fn start(sandbox: &Sandbox) -> Self {
        let folder = sandbox.path().to_owned();
        let child = Self::spawn(&folder);
        let manager = Self { child, folder };
        manager.await_answer();
        let (archive, rootfs) = (sandbox.path().join("box.tar"), sandbox.path().join("rootfs"));
        busybox_rootfs(&rootfs);
        fs::create_dir(rootfs.join("content")).expect("make a folder");
        fs::write(rootfs.join("content/of-image"), "from the image\n").expect("write a file");
        std::os::unix::fs::chown(rootfs.join("content/of-image"), Some(7), Some(8)).expect("give it away");
        run(Command::new("tar")
            .arg("-C")
            .arg(rootfs)
            .arg("-cf")
            .arg(&archive)
            .arg("."))
        .ok();
        manager
            .ctl(&["import", archive.to_str().expect("a path"), "box:1"])
            .ok();
        manager
    }

    fn spawn(folder: &Path) -> Child {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"));
        let mut manager = Command::new(binary("manager"));
        manager
            .arg("--root")
            .arg(folder.join("lib"))
            .arg("--state")
            .arg(folder.join("state"));
        manager
            .arg("--shim")
            .arg(binary("shim"))
            .arg("--runtime")
            .arg(binary("runtime"));
        manager.stdin(Stdio::null()).stderr(log.expect("make a log"));
        manager.spawn().expect("start a manager")
    }

    fn await_answer(&self) {
        eventually("the manager answers", || {
            (self.ctl(&["ps"]).code == 0).then_some(())
        });
    }

    fn kill_and_start(&mut self) {
        self.child.kill().expect("kill the manager");
        self.child.wait().expect("wait for the manager");
        self.child = Self::spawn(&self.folder);
        self.await_answer();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("managerctl"));
        command
            .arg("--socket")
            .arg(self.folder.join("state/manager.sock"))
            .args(args);
        command
    }

    fn ctl(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    fn run(&self, args: &[&str]) -> Done {
        self.ctl(&[&["run", "--network", "none"][..], args].concat())
    }

    fn volume(&self, name: &str, device: &str) {
        let device = format!("device={device}");
        let options = [
            "-o",
            "type=nfs",
            "-o",
            "o=addr=127.0.0.1,rw,nfsvers=4",
            "-o",
            &device,
        ];
        self.ctl(&[&["volume", "create"][..], &options, &[name]].concat())
            .ok();
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("--- log of the manager\n{log}");
        }
        for id in self.ctl(&["ps", "-aq"]).stdout.lines() {
            self.ctl(&["rm", "-f", id]);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn mounts() -> usize {
    let mounts = fs::read_to_string("/proc/mounts").expect("look at the mounts");
    mounts.lines().filter(|line| line.contains(" nfs4 ")).count()
}

#[test]
fn a_volume_of_a_server_is_written_filled_survives_kills_and_waits_for_its_server_alone() {
    let Some(_server) = Server::start() else { return };
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    manager.volume("far", ":/export");
    let write = "echo from a container >/data/file && cat /data/given";
    fs::write("/export/given", "from the server\n").expect("write a file");
    let seen = manager
        .run(&["--rm", "-v", "far:/data", "box:1", "sh", "-c", write])
        .ok();
    assert_eq!(seen, "from the server\n");
    let written = fs::read_to_string("/export/file").expect("what the container has written");
    assert_eq!(written, "from a container\n");
    assert_eq!(mounts(), 0, "nobody uses it");
    manager.ctl(&["volume", "rm", "far"]).ok();
    assert!(
        Path::new("/export/file").exists(),
        "what is the server's stays there"
    );

    // What an image has there goes into an empty one; where root is nobody that is refused, and nothing is left behind.
    fs::create_dir_all("/export/empty").expect("make a folder");
    manager.volume("empty", ":/export/empty");
    let show = [
        "--rm",
        "-v",
        "empty:/content",
        "box:1",
        "cat",
        "/content/of-image",
    ];
    assert_eq!(manager.run(&show).ok(), "from the image\n");
    let owner = fs::metadata("/export/empty/of-image").expect("a file of the image");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 7);
    manager.volume("squashed", ":/squashed");
    let error = manager
        .run(&["--rm", "-v", "squashed:/content", "box:1", "true"])
        .refused();
    assert!(
        error.contains("ermission denied") && error.contains("squashed"),
        "{error}"
    );
    assert_eq!(fs::read_dir("/squashed").expect("list it").count(), 0);
    manager
        .run(&["--rm", "-v", "squashed:/content:nocopy", "box:1", "true"])
        .ok();
    manager.volume("missing", ":/nowhere");
    let error = manager
        .run(&["--rm", "-v", "missing:/data", "box:1", "true"])
        .refused();
    assert!(error.contains(":/nowhere"), "{error}");
    assert_eq!(mounts(), 0);

    // A manager that is killed leaves it to its container, and to the next manager.
    manager.volume("far", ":/export");
    let count = "i=0; while :; do i=$((i + 1)); echo $i >/data/count; sleep 0.2; done";
    let counts = [
        "-d",
        "--name",
        "counts",
        "-v",
        "far:/data",
        "box:1",
        "sh",
        "-c",
        count,
    ];
    manager.run(&counts).ok();
    manager.kill_and_start();
    let counted = || fs::read_to_string("/export/count").unwrap_or_default();
    let goes_on = |what: &str| {
        let before = counted();
        eventually(what, || {
            (counted() != before && !counted().is_empty()).then_some(())
        });
    };
    goes_on("it counts with the next manager");
    manager.ctl(&["volume", "rm", "far"]).refused();
    assert_eq!(mounts(), 1);

    // Without its server that container waits, and nobody else does: neither others nor a manager that starts.
    Server::stop();
    for _ in 0..2 {
        assert_eq!(
            manager
                .run(&["--rm", "-v", "near:/data", "box:1", "echo", "here"])
                .ok(),
            "here\n"
        );
        for look in [
            &["ps", "-a"][..],
            &["volume", "ls"],
            &["inspect", "counts"],
            &["system", "df"],
        ] {
            manager.ctl(look).ok();
        }
        manager.kill_and_start();
    }
    let mut ending = manager
        .command(&["rm", "-f", "counts"])
        .spawn()
        .expect("begin to remove it");
    assert_eq!(manager.run(&["--rm", "box:1", "echo", "here"]).ok(), "here\n");
    Server::serve();
    assert!(ending.wait().expect("the removal").success());
    assert_eq!(mounts(), 0);
    manager.run(&counts).ok();
    goes_on("it counts again");
    manager.ctl(&["rm", "-f", "counts"]).ok();
    for name in ["far", "near", "empty", "squashed", "missing"] {
        manager.ctl(&["volume", "rm", name]).ok();
    }
    assert_eq!(mounts(), 0);
}
