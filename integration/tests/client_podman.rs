//! podman with our runtime: what its users do, as root and as a normal user, in images made here. Without hack/peers'
//! podman the tests say so and pass.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{Done, Manager, Peers, Sandbox, Terminal, binary, busybox_rootfs, eventually, run};
use serde_json::Value;

/// A normal user of this machine's number range, whom the peers' /etc knows.
const USER: u32 = 1000;

/// A group that this user is in, but has no subordinate ids for.
const TEAM: u32 = 777;

/// podman with its folders in the sandbox. It has no daemon: each call is a process, and each container has a conmon.
struct Podman<'a> {
    sandbox: &'a Sandbox,
    folder: PathBuf,
    user: Option<u32>,
    peers: Peers,
}

impl<'a> Podman<'a> {
    /// As root, with an image `box` of busybox; or nothing when hack/peers has fetched no podman.
    #[track_caller]
    fn start(sandbox: &'a Sandbox) -> Option<Self> {
        Self::start_as(sandbox, None)
    }

    #[track_caller]
    fn start_as(sandbox: &'a Sandbox, user: Option<u32>) -> Option<Self> {
        let podman = Self {
            sandbox,
            folder: sandbox.path().join("podman"),
            user,
            peers: Peers::start(sandbox)?,
        };
        let folder = &podman.folder;
        fs::create_dir_all(folder.join("run")).expect("make podman's folders");
        // The folder of the build may be out of a user's reach.
        fs::copy(binary("runtime"), folder.join("runtime")).expect("copy the runtime");
        let config = format!(
            "[engine]\nruntime = \"berth\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             runtime_supports_json = [\"berth\"]\nruntime_supports_nocgroup = [\"berth\"]\n\
             [engine.runtimes]\nberth = [\"{}\"]\n",
            folder.join("runtime").display()
        );
        fs::write(folder.join("containers.conf"), config).expect("write containers.conf");
        podman.hide_the_machines_state();
        podman.show_mounted_controllers();
        if let Some(user) = user {
            podman.know(user);
        }
        podman.import();
        Some(podman)
    }

    /// Some of podman's state and netavark's, and that of root's containers, lies in these whatever the flags say.
    fn hide_the_machines_state(&self) {
        for place in ["run", "var/lib"] {
            let ours = self.sandbox.path().join(place);
            fs::create_dir_all(&ours).expect("make a folder");
            let theirs = Path::new("/").join(place);
            run(self.peers.command("mount").arg("--bind").arg(ours).arg(theirs)).ok();
        }
        for state in ["run/berth/runtime", "run/netns", "podman/run/berth/runtime"] {
            self.sandbox.owns(&self.sandbox.path().join(state));
        }
    }

    /// podman takes every v1 controller for mounted, and makes plain folders in the place of those that are not, where
    /// it then fails. Here it finds the mounted ones and can add none.
    fn show_mounted_controllers(&self) {
        let script = "
            [ $(stat -fc %T /sys/fs/cgroup) = tmpfs ] || exit 0
            mkdir $0 && mount -t tmpfs cgroup $0 && cd /sys/fs/cgroup || exit 1
            for hierarchy in *; do
                ! mountpoint -q $hierarchy || { mkdir $0/$hierarchy && mount --bind $hierarchy $0/$hierarchy; } || exit 1
            done
            mount -o remount,bind,ro $0 && mount --move $0 /sys/fs/cgroup && rmdir $0";
        let stage = self.sandbox.path().join("cgroup");
        run(self.peers.command("sh").args(["-c", script]).arg(stage)).ok();
    }

    /// Has the peers' /etc know a user with subordinate ids, and gives that user podman's folders.
    fn know(&self, user: u32) {
        let others = |file: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let other = |line: &&str| line.split(':').nth(2) != Some(&user.to_string());
            text.lines().filter(other).collect::<Vec<_>>().join("\n")
        };
        let home = self.folder.display();
        for (file, text) in [
            (
                "/etc/passwd",
                format!(
                    "{}\npodder:x:{user}:{user}::{home}:/bin/sh\n",
                    others("/etc/passwd")
                ),
            ),
            (
                "/etc/group",
                format!("{}\npodder:x:{user}:\n", others("/etc/group")),
            ),
            ("/etc/subuid", "podder:100000:65536\n".into()),
            ("/etc/subgid", "podder:100000:65536\n".into()),
        ] {
            let ours = self.sandbox.path().join(file.replace('/', "-"));
            fs::write(&ours, text).expect("write a file of users");
            run(self.peers.command("mount").arg("--bind").arg(ours).arg(file)).ok();
        }
        for folder in [self.folder.clone(), self.folder.join("run")] {
            chown(&folder, Some(user), Some(user)).expect("give the folder to the user");
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("close the folder");
        }
    }

    fn import(&self) {
        let rootfs = self.sandbox.path().join("box");
        fs::create_dir(&rootfs).expect("make a folder");
        busybox_rootfs(&rootfs);
        let archive = self.sandbox.path().join("box.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).expect("make an archive"));
        tar.follow_symlinks(false);
        tar.append_dir_all(".", &rootfs)
            .and_then(|()| tar.finish())
            .expect("archive the rootfs");
        self.call(&["import", archive.to_str().expect("a path"), "box"])
            .ok();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.user {
            None => self.peers.command("podman"),
            Some(user) => self.peers.command_as(user, TEAM, "podman"),
        };
        if self.user.is_none() {
            for (flag, folder) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
                command.arg(flag).arg(self.folder.join(folder));
            }
        }
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .env("HOME", &self.folder)
            .env("XDG_RUNTIME_DIR", self.folder.join("run"))
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env_remove("USER");
        command
    }

    /// `podman ARGS`, to its end.
    #[track_caller]
    fn call(&self, arguments: &[&str]) -> Done {
        run(&mut self.command(arguments))
    }

    /// The flags that every container has here: no network, a cgroup that the sandbox finds, and a name.
    fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--network=none".to_owned()];
        if self.user.is_none() {
            flags.push(format!("--cgroup-parent=/{}", self.sandbox.id()));
        }
        flags
    }

    /// `podman run FLAGS box /bin/sh -c SCRIPT`.
    #[track_caller]
    fn run(&self, flags: &[&str], script: &str) -> Done {
        let own = self.flags();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        self.call(&[&["run"], &own[..], flags, &["box", "/bin/sh", "-c", script]].concat())
    }

    /// One value of `podman inspect`, in Go's template language.
    #[track_caller]
    fn inspect(&self, name: &str, what: &str) -> String {
        self.call(&["inspect", "--format", &format!("{{{{{what}}}}}"), name])
            .ok()
            .trim()
            .to_owned()
    }

    #[track_caller]
    fn wait_for(&self, name: &str, what: &str, value: &str) {
        eventually(&format!("{what} of {name} is {value}"), || {
            (self.inspect(name, what) == value).then_some(())
        });
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = run(&mut self.command(&["pod", "rm", "--all", "--force", "--time=0"]));
        let _ = run(&mut self.command(&["rm", "--all", "--force", "--time=0"]));
        // The process that holds a user's namespaces.
        if self.user.is_some() {
            let _ = run(&mut self.command(&["system", "migrate"]));
        }
        // What podman keeps mounted for the next call.
        let folders = ["root/overlay", ".local/share/containers/storage/overlay"];
        for folder in folders.map(|folder| self.folder.join(folder)) {
            let _ = run(self.peers.command("umount").arg(folder));
        }
        // Parents of containers' groups are podman's, which does not know of all hierarchies.
        let groups = || {
            let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
            hierarchies.map(|hierarchy| hierarchy.path().join(self.sandbox.id()))
        };
        // A conmon ends only after its container's end is told.
        eventually("podman's own groups are empty", || {
            groups().for_each(|group| remove_empty(&group));
            groups().all(|group| !group.exists()).then_some(())
        });
    }
}

fn remove_empty(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.path().is_dir()) {
        remove_empty(&entry.path());
    }
    let _ = fs::remove_dir(group);
}

/// Some lines of a container's own view of itself.
fn lines(done: Done) -> Vec<String> {
    done.ok().lines().map(str::to_owned).collect()
}

#[test]
fn exit_codes_and_streams_are_as_with_crun() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let done = podman.run(&["--rm"], "echo out; echo err >&2; exit 7");
    assert_eq!(
        (done.code, done.stdout.as_str(), done.stderr.as_str()),
        (7, "out\n", "err\n"),
        "{done}"
    );
    for (program, code) in [("/no/such/program", 127), ("no-such", 127), ("/etc", 126)] {
        let done = podman.call(&["run", "--rm", "--network=none", "box", program]);
        assert_eq!(done.code, code, "{done}");
    }
    podman.run(&["--name", "kept"], "echo one; echo two >&2").ok();
    let logs = podman.call(&["logs", "kept"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\n", "two\n"));
    podman.wait_for("kept", ".State.Status", "exited");
    assert_eq!(podman.call(&["start", "--attach", "kept"]).stdout, "one\n");
}

#[test]
fn terminals_are_terminals() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let mut shell = Terminal::spawn(podman.command(&[
        "run",
        "-it",
        "--rm",
        "--network=none",
        "--name",
        "shell",
        "box",
        "/bin/sh",
    ]));
    shell.send("tty; echo ma''rk\n");
    let shown = shell.expect("mark");
    assert!(shown.contains("/dev/pts/0"), "{shown}");
    shell.resize(100, 30);
    shell.send("until stty size | grep -x '30 100'; do :; done; echo resi''zed\n");
    shell.expect("resized");
    let mut exec = Terminal::spawn(podman.command(&["exec", "-it", "shell", "/bin/sh"]));
    exec.send("tty; echo ma''rk\n");
    let shown = exec.expect("mark");
    assert!(shown.contains("/dev/pts/1"), "{shown}");
    exec.send("exit 5\n");
    assert_eq!(exec.exit_code(), 5, "{}", exec.screen());
    shell.send("exit 6\n");
    assert_eq!(shell.exit_code(), 6, "{}", shell.screen());
}

#[test]
fn a_container_has_a_whole_life() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let flags = [
        "-d",
        "--name",
        "c1",
        "--memory=64m",
        "--pids-limit=50",
        "--env=A=run",
    ];
    podman
        .run(&flags, "trap 'exit 9' TERM; while :; do sleep 0.1; done")
        .ok();
    let exec = [
        "exec",
        "--user=1000:50",
        "--workdir=/tmp",
        "--env=B=exec",
        "c1",
        "/bin/sh",
        "-c",
    ];
    let done = podman.call(&[&exec[..], &["id -u; id -g; pwd; echo $A $B; exit 3"]].concat());
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (3, "1000\n50\n/tmp\nrun exec\n"),
        "{done}"
    );
    let stats = podman
        .call(&["stats", "--no-stream", "--format", "json", "c1"])
        .ok();
    let stats: Value = serde_json::from_str(&stats).expect("stats are JSON");
    let memory = stats[0]["mem_usage"].as_str().expect("memory");
    assert!(
        memory.ends_with("/ 67.11MB") && !memory.starts_with("0B"),
        "{stats}"
    );
    assert_ne!(stats[0]["pids"], "0", "{stats}");

    let limit = || {
        let files = "/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max";
        let done = podman.call(&["exec", "c1", "/bin/sh", "-c", &format!("cat {files} 2>/dev/null")]);
        done.stdout.trim().to_owned()
    };
    assert_eq!(limit(), (64 << 20).to_string());
    podman.call(&["update", "--memory=128m", "c1"]).ok();
    assert_eq!(limit(), (128 << 20).to_string());

    podman.call(&["pause", "c1"]).ok();
    podman.wait_for("c1", ".State.Status", "paused");
    podman.call(&["unpause", "c1"]).ok();
    assert!(podman.call(&["top", "c1"]).ok().contains("sleep 0.1"));
    podman.call(&["stop", "c1"]).ok();
    podman.wait_for("c1", ".State.ExitCode", "9");
    podman.call(&["start", "c1"]).ok();
    podman.call(&["restart", "--time=0", "c1"]).ok();
    podman.wait_for("c1", ".State.Status", "running");
    podman.call(&["kill", "--signal=KILL", "c1"]).ok();
    podman.wait_for("c1", ".State.ExitCode", "137");
    podman.call(&["rm", "c1"]).ok();
}

#[test]
fn lack_of_memory_and_health_are_told() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let done = podman.run(
        &["--name", "large", "--memory=16m", "--memory-swap=16m"],
        "a=x; while :; do a=$a$a; done",
    );
    assert_eq!(done.code, 137, "{done}");
    podman.wait_for("large", ".State.OOMKilled", "true");

    let health = [
        "-d",
        "--name",
        "ill",
        "--health-cmd",
        "test -e /well",
        "--health-interval=disable",
    ];
    podman.run(&health, "sleep 1000").ok();
    assert_eq!(podman.call(&["healthcheck", "run", "ill"]).code, 1);
    podman.call(&["exec", "ill", "touch", "/well"]).ok();
    podman.call(&["healthcheck", "run", "ill"]).ok();
}

#[test]
fn isolation_is_what_was_asked_for() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let script =
        "touch /x 2>&1; touch /tmp/x && echo tmp; grep -E 'CapEff|Seccomp:' /proc/self/status | cut -f2";
    let shown = lines(podman.run(&["--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all"], script));
    assert!(shown[0].contains("Read-only file system"), "{shown:?}");
    assert_eq!(shown[1..], ["tmp", "0000000000000000", "2"]);
    let shown = lines(podman.run(
        &["--rm", "--uidmap=0:100000:65536"],
        "cat /proc/self/uid_map; id -u",
    ));
    assert_eq!(
        shown[0].split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    assert_eq!(shown[1], "0");
    let shown = podman
        .run(
            &["--rm", "--init", "--hostname=berth"],
            "cat /proc/1/comm; hostname",
        )
        .ok();
    assert!(
        shown.ends_with("berth\n") && !shown.starts_with("sh\n"),
        "{shown}"
    );
    let volume = sandbox.path().join("volume");
    fs::create_dir(&volume).expect("make a volume");
    let mount = format!("{}:/volume:ro", volume.display());
    let done = podman.run(&["--rm", "--volume", &mount], "touch /volume/x");
    assert!(done.code != 0 && done.stderr.contains("Read-only"), "{done}");
    let limits = podman.run(
        &["--rm", "--ulimit=nofile=77:88", "--sysctl=kernel.msgmax=4096"],
        "ulimit -n; cat /proc/sys/kernel/msgmax",
    );
    assert_eq!(limits.ok(), "77\n4096\n");
}

#[test]
fn the_containers_of_a_pod_share_its_namespaces() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let parent = format!("--cgroup-parent=/{}", sandbox.id());
    podman
        .call(&[
            "pod",
            "create",
            "--name",
            "p1",
            "--network=none",
            "--share=net,ipc,uts",
            &parent,
        ])
        .ok();
    let look = "for kind in net ipc uts pid mnt; do readlink /proc/self/ns/$kind; done; hostname";
    let run_in = |name: &str, script: &str| {
        podman.call(&[
            "run", "-d", "--pod=p1", "--name", name, "box", "/bin/sh", "-c", script,
        ])
    };
    run_in("a", "sleep 1000").ok();
    run_in("b", "sleep 1000").ok();
    let [a, b] = ["a", "b"].map(|name| lines(podman.call(&["exec", name, "/bin/sh", "-c", look])));
    assert_eq!((&a[..3], &a[5]), (&b[..3], &b[5]), "shared");
    assert!(a[3] != b[3] && a[4] != b[4], "own: {a:?} {b:?}");
    assert_eq!(a[5], "p1");
    podman.call(&["pod", "stop", "--time=0", "p1"]).ok();
    podman.wait_for("a", ".State.Status", "exited");
    podman.call(&["pod", "start", "p1"]).ok();
    podman.wait_for("b", ".State.Status", "running");
    podman.call(&["pod", "rm", "--force", "--time=0", "p1"]).ok();
}

#[test]
fn a_normal_user_has_containers() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start_as(&sandbox, Some(USER)) else {
        return;
    };
    let look = "id -u; cat /proc/self/uid_map; touch /made && echo wrote";
    // Groups that the user may not make are done without; those that nobody asks for are not tried.
    for flags in [&["--rm"][..], &["--rm", "--cgroups=disabled"]] {
        let shown = lines(podman.run(flags, look));
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(shown[0], "0", "{flags:?}");
        assert_eq!(words(&shown[1]), ["0", &USER.to_string(), "1"]);
        assert_eq!(words(&shown[2]), ["1", "100000", "65536"]);
        assert_eq!(shown[3], "wrote");
    }
    let kept = podman.run(&["--rm", "--userns=keep-id"], "id -u; touch /tmp/made");
    assert_eq!(kept.ok(), format!("{USER}\n"));

    podman
        .run(
            &["-d", "--name", "c1"],
            "trap 'exit 4' TERM; while :; do sleep 0.1; done",
        )
        .ok();
    let done = podman.call(&["exec", "--user=33", "c1", "/bin/sh", "-c", "id -u; exit 3"]);
    assert_eq!((done.code, done.stdout.as_str()), (3, "33\n"), "{done}");
    podman.call(&["stop", "c1"]).ok();
    podman.wait_for("c1", ".State.ExitCode", "4");
    let mut shell = Terminal::spawn(podman.command(&["start", "--attach", "c1"]));
    eventually("it runs again", || {
        (podman.inspect("c1", ".State.Status") == "running").then_some(())
    });
    podman.call(&["kill", "--signal=TERM", "c1"]).ok();
    assert_eq!(shell.exit_code(), 4, "{}", shell.screen());
    // The state lies in the user's own folder.
    assert!(Path::new(&podman.folder.join("run/berth")).is_dir());
}

#[test]
fn a_normal_user_may_keep_groups() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start_as(&sandbox, Some(USER)) else {
        return;
    };
    let folder = sandbox.path().join("team");
    fs::create_dir(&folder).expect("make the team's folder");
    chown(&folder, Some(0), Some(TEAM)).expect("give the folder to the team");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).expect("close the folder");
    let volume = format!("{}:/team", folder.display());
    let done = podman.run(&["--rm", "--volume", &volume], "touch /team/x");
    assert!(done.refused().contains("Permission denied"));
    assert!(!folder.join("x").exists());
    // By root of the namespace and by another user, from the start and by exec.
    let keep = ["-d", "--name=c1", "--group-add=keep-groups", "--volume", &volume];
    podman.run(&keep, "touch /team/run; sleep 1000").ok();
    for user in ["0", "33"] {
        let touch = format!("touch /team/exec{user}");
        podman
            .call(&["exec", "--user", user, "c1", "/bin/sh", "-c", &touch])
            .ok();
    }
    eventually("all were made", || {
        let made = ["run", "exec0", "exec33"].map(|name| folder.join(name).exists());
        made.iter().all(|made| *made).then_some(())
    });
}

#[test]
fn a_normal_user_has_terminals_and_pods() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start_as(&sandbox, Some(USER)) else {
        return;
    };
    podman
        .call(&[
            "pod",
            "create",
            "--name=p1",
            "--network=none",
            "--share=net,ipc,uts,pid",
        ])
        .ok();
    podman
        .call(&["run", "-d", "--pod=p1", "--name=a", "box", "sleep", "1000"])
        .ok();
    let mut shell =
        Terminal::spawn(podman.command(&["run", "-it", "--pod=p1", "--name=b", "box", "/bin/sh"]));
    shell.send("tty; hostname; ps | grep 'sleep 100''0'; echo ma''rk\n");
    let shown = shell.expect("mark");
    for part in ["/dev/pts/0", "p1", "sleep 1000"] {
        assert!(shown.contains(part), "{shown}");
    }
    let mut exec = Terminal::spawn(podman.command(&["exec", "-it", "a", "/bin/sh"]));
    exec.send("stty size; exit 5\n");
    assert_eq!(exec.exit_code(), 5, "{}", exec.screen());
    assert!(exec.screen().contains("24 80"), "{}", exec.screen());
    shell.send("exit 6\n");
    assert_eq!(shell.exit_code(), 6, "{}", shell.screen());
    // Without a cgroup nothing can be frozen, and podman is told so.
    let refused = podman.call(&["pause", "a"]).refused();
    assert!(refused.contains("cgroup"), "{refused}");
    podman.call(&["pod", "rm", "--force", "--time=0", "p1"]).ok();
}

#[test]
fn images_are_built() {
    for user in [None, Some(USER)] {
        let sandbox = Sandbox::new();
        let Some(podman) = Podman::start_as(&sandbox, user) else {
            return;
        };
        let build = |image: &str, steps: &str| {
            let file = sandbox.path().join("Containerfile");
            fs::write(&file, format!("FROM box\n{steps}")).expect("write a Containerfile");
            let file = file.to_str().expect("a path");
            podman.call(&[
                "build",
                "--isolation=oci",
                "--network=none",
                // buildah asks for more than who lacks CAP_SYS_RESOURCE may give.
                "--ulimit=nofile=1024:1024",
                "--ulimit=nproc=1024:1024",
                "--tag",
                image,
                "--file",
                file,
                ".",
            ])
        };
        let steps =
            "ENV WHO=moon\nRUN echo $WHO >/made && chown 33:33 /made\nUSER 33\nRUN id -u >/tmp/user\n";
        build("built", steps).ok();
        let show = ["run", "--rm", "--network=none", "built", "/bin/sh", "-c"];
        let done = podman.call(&[&show[..], &["cat /made /tmp/user; stat -c %u:%g /made"]].concat());
        assert_eq!(done.ok(), "moon\n33\n33:33\n", "as {user:?}");
        let failed = build("failed", "RUN echo seen && exit 3\n");
        assert!(
            failed.code != 0 && failed.stdout.contains("seen") && failed.stderr.contains("exit status 3"),
            "{failed}"
        );
    }
}

#[test]
fn a_container_is_restored_from_its_checkpoint() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let script = "i=0; while :; do i=$((i+1)); echo $i >/count.new; mv /count.new /count; sleep 0.02; done";
    podman.run(&["-d", "--name=c1"], script).ok();
    let count = || -> Option<u32> {
        let done = podman.call(&["exec", "c1", "cat", "/count"]);
        done.stdout.trim().parse().ok()
    };
    eventually("it counts", || count().filter(|count| *count > 5));
    podman.call(&["container", "checkpoint", "c1"]).ok();
    assert_eq!(podman.inspect("c1", ".State.Checkpointed"), "true");
    assert_eq!(podman.inspect("c1", ".State.Running"), "false");
    podman.call(&["container", "restore", "c1"]).ok();
    assert_eq!(podman.inspect("c1", ".State.Status"), "running");
    // A container begun anew would have to count up to there again.
    let restored = count().expect("a number");
    assert!(restored > 5, "{restored}");
    eventually("it goes on counting", || {
        count().filter(|count| *count > restored)
    });
}

#[test]
fn containers_are_ended_and_begun_again_as_asked() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    podman
        .run(
            &["-d", "--name=again", "--restart=on-failure:2"],
            "echo here; exit 4",
        )
        .ok();
    podman.wait_for("again", ".RestartCount", "2");
    podman.wait_for("again", ".State.Status", "exited");
    assert_eq!(podman.inspect("again", ".State.ExitCode"), "4");
    assert_eq!(podman.call(&["logs", "again"]).ok(), "here\n".repeat(3));
    assert_eq!(podman.call(&["wait", "again"]).ok(), "4\n");

    let script = "until test -e /tmp/go; do sleep 0.02; done; echo gone; exit 8";
    podman.run(&["-d", "--name=c1", "--init"], script).ok();
    for (program, code) in [("no-such", 127), ("/etc/passwd", 126), ("/bin/false", 1)] {
        let done = podman.call(&["exec", "c1", program]);
        assert_eq!(done.code, code, "{done}");
    }
    podman.call(&["exec", "--detach", "c1", "touch", "/tmp/go"]).ok();
    podman.wait_for("c1", ".State.ExitCode", "8");
    podman.wait_for("c1", ".State.Status", "exited");
    assert_eq!(podman.call(&["logs", "--follow", "c1"]).ok(), "gone\n");
    podman.call(&["exec", "c1", "true"]).refused();

    podman
        .run(
            &["-d", "--name=deaf"],
            "trap '' TERM; while :; do sleep 0.02; done",
        )
        .ok();
    podman.call(&["stop", "--time=0", "deaf"]).ok();
    podman.wait_for("deaf", ".State.ExitCode", "137");
    // Of a paused container too, all is taken away.
    podman.call(&["start", "deaf"]).ok();
    podman.call(&["pause", "deaf"]).ok();
    podman.call(&["rm", "--force", "--time=0", "deaf"]).ok();
    assert_eq!(podman.call(&["container", "exists", "deaf"]).code, 1);
}

#[test]
fn each_container_may_have_users_of_its_own() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    // podman takes the ids for `auto` from those of a user of this name.
    let users = fs::read_to_string("/etc/passwd").expect("read the users");
    for (file, text) in [
        (
            "/etc/passwd",
            format!("{users}containers:x:499:499::/:/bin/sh\n").as_str(),
        ),
        ("/etc/subuid", "containers:500000:1000000\n"),
        ("/etc/subgid", "containers:500000:1000000\n"),
    ] {
        let ours = sandbox.path().join(file.replace('/', "-"));
        fs::write(&ours, text).expect("write a file of users");
        run(podman.peers.command("mount").arg("--bind").arg(ours).arg(file)).ok();
    }
    let volume = sandbox.path().join("volume");
    fs::create_dir(&volume).expect("make a volume");
    let first_id = |name: &str| -> u32 {
        let flags = ["-d", "--name", name, "--userns=auto:size=1024"];
        let mount = format!("--volume={}:/volume:idmap", volume.display());
        let touch = format!("touch /volume/{name}; sleep 1000");
        podman.run(&[&flags[..], &[&mount]].concat(), &touch).ok();
        let made = volume.join(name);
        let owner = eventually("it has made its file", || fs::metadata(&made).ok()).uid();
        assert_eq!(owner, 0, "an idmapped volume knows the machine's users");
        let map = lines(podman.call(&["exec", name, "cat", "/proc/self/uid_map"])).remove(0);
        let words: Vec<u32> = map
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect();
        assert_eq!((words[0], words[2]), (0, 1024), "{map}");
        words[1]
    };
    let (a, b) = (first_id("a"), first_id("b"));
    assert!(a >= 500_000 && b >= 500_000 && a.abs_diff(b) >= 1024, "{a} {b}");
}

#[test]
fn containers_reach_each_other_over_a_bridge() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let networks = podman.folder.join("networks");
    let networks = ["--network-config-dir", networks.to_str().expect("a path")];
    let parent = format!("--cgroup-parent=/{}", sandbox.id());
    let call = |arguments: &[&str]| podman.call(&[&networks[..], arguments].concat());
    call(&[
        "network",
        "create",
        "--disable-dns",
        "--subnet=10.123.0.0/24",
        "net1",
    ])
    .ok();
    let server = "while :; do echo hello | nc -l -p 80; done";
    call(&[
        "run",
        "-d",
        "--name=server",
        "--network=net1",
        "--ip=10.123.0.7",
        &parent,
        "box",
        "/bin/sh",
        "-c",
        server,
    ])
    .ok();
    let client = "until nc 10.123.0.7 80 2>/dev/null; do sleep 0.05; done; ls /sys/class/net";
    let done = call(&[
        "run",
        "--rm",
        "--network=net1",
        &parent,
        "box",
        "/bin/sh",
        "-c",
        client,
    ]);
    assert_eq!(done.ok(), "hello\neth0\nlo\n");
    call(&["rm", "--force", "--time=0", "server"]).ok();
    call(&["network", "rm", "net1"]).ok();
}

#[test]
fn a_pod_is_played_from_kubernetes_yaml() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let file = sandbox.path().join("pod.yaml");
    let pod = r#"
apiVersion: v1
kind: Pod
metadata:
  name: p1
spec:
  shareProcessNamespace: true
  initContainers:
    - name: first
      image: localhost/box:latest
      command: [/bin/sh, -c, "echo ready >/shared/x"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: main
      image: localhost/box:latest
      command: [/bin/sh, -c, "cat /shared/x; exec sleep 1000"]
      securityContext: {runAsUser: 33, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      resources: {limits: {memory: 64Mi}}
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes:
    - name: shared
      emptyDir: {}
"#;
    fs::write(&file, pod).expect("write the pod");
    let file = file.to_str().expect("a path");
    podman.call(&["kube", "play", "--network=none", file]).ok();
    eventually("it has started", || {
        (podman.call(&["logs", "p1-main"]).ok() == "ready\n").then_some(())
    });
    let look = "id -u; touch /x 2>/dev/null || echo closed; grep CapEff /proc/self/status | cut -f2";
    let shown = podman.call(&["exec", "p1-main", "/bin/sh", "-c", look]).ok();
    assert_eq!(shown, "33\nclosed\n0000000000000000\n");
    // The pod's own process is process 1 of all.
    let first = podman.call(&["exec", "p1-main", "cat", "/proc/1/comm"]).ok();
    assert_eq!(first, "catatonit\n");
    podman.call(&["pod", "pause", "p1"]).ok();
    assert_eq!(podman.inspect("p1-main", ".State.Status"), "paused");
    podman.call(&["pod", "unpause", "p1"]).ok();
    podman.call(&["kube", "down", "--force", file]).ok();
    assert_eq!(podman.call(&["pod", "exists", "p1"]).code, 1);
}

#[test]
fn archives_of_images_go_both_ways() {
    let sandbox = Sandbox::new();
    let Some(podman) = Podman::start(&sandbox) else {
        return;
    };
    let manager = Manager::start(&sandbox);
    let path = |name: &str| sandbox.path().join(name).to_str().expect("a path").to_owned();
    for form in ["oci-archive", "docker-archive"] {
        let archive = path(form);
        podman
            .call(&["save", "-q", "--format", form, "-o", &archive, "box"])
            .ok();
        let said = manager.ctl(&["load", "-i", &archive]).ok();
        assert_eq!(said, "Loaded image: localhost/box:latest\n", "{form}");
        let name = format!("of-{form}:1");
        manager
            .ctl(&[
                "run",
                "--name",
                form,
                "localhost/box",
                "/bin/sh",
                "-c",
                "echo ours > /word",
            ])
            .ok();
        manager
            .ctl(&["commit", "-c", "CMD [\"/bin/cat\", \"/word\"]", form, &name])
            .ok();
        let archive = path("ours.tar");
        manager.ctl(&["save", "-o", &archive, &name]).ok();
        let said = podman.call(&["load", "-q", "-i", &archive]).ok();
        assert!(said.contains(&name), "{said}");
        assert_eq!(podman.call(&["run", "--rm", &name]).ok(), "ours\n");
        manager.ctl(&["rm", form]).ok();
    }
}
