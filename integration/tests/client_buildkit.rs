//! buildkitd with our runtime under its OCI worker: Dockerfiles, and what their steps see, fail at and leave behind.
//! Without hack/peers-go's buildkitd the tests say so and pass.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration::{Done, Peers, Sandbox, binary, busybox_rootfs, eventually, finish, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The first stage of every Dockerfile here: busybox, from an archive in the context.
const BASE: &str = "FROM scratch AS base\nADD box.tar /\n";

/// The capabilities that root has in a step: the same that docker gives to a container.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

/// A buildkitd with its folders in the sandbox, its steps' state in a folder that it takes for /run/berth, and their
/// cgroups below one that has the sandbox's name.
struct Buildkit {
    daemon: Child,
    programs: PathBuf,
    folder: PathBuf,
    group: String,
    snapshotter: &'static str,
    peers: Peers,
}

/// A file in what was built.
#[derive(Debug, PartialEq)]
struct Built {
    mode: u32,
    owner: (u64, u64),
    text: String,
}

impl Buildkit {
    /// A buildkitd, and an archive of busybox in the context of its builds; nothing when hack/peers-go has built none.
    #[track_caller]
    fn start(sandbox: &Sandbox, snapshotter: &'static str) -> Option<Self> {
        let programs = Peers::built()?;
        let peers = Peers::start_without_suite(sandbox);
        let folder = sandbox.path().join("buildkit");
        for name in ["context", "rootfs", "state", "tmp"] {
            fs::create_dir_all(folder.join(name)).expect("make buildkitd's folders");
        }
        archive_busybox(&folder);
        // buildkitd gives its runtime no `--root`.
        fs::create_dir_all("/run/berth").expect("make the runtime's folder");
        let mut mount = peers.command("mount");
        run(mount.arg("--bind").arg(folder.join("state")).arg("/run/berth")).ok();
        sandbox.owns(&folder.join("state"));
        let config = format!("[worker.oci]\ndefaultCgroupParent = \"/{}\"\n", sandbox.id());
        fs::write(folder.join("config.toml"), config).expect("write the config");
        let mut buildkit = Self {
            daemon: spawn(&peers, &programs, &folder, snapshotter),
            programs,
            folder,
            group: sandbox.id().to_owned(),
            snapshotter,
            peers,
        };
        eventually("buildkitd answers", || {
            let early = buildkit.daemon.try_wait().expect("look at buildkitd");
            assert!(early.is_none(), "buildkitd ended: {early:?}\n{}", buildkit.log());
            let workers = run(&mut buildkit.buildctl(&["debug", "workers"]));
            (workers.code == 0).then_some(())
        });
        Some(buildkit)
    }

    fn buildctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.peers.command(self.programs.join("buildctl"));
        let address = format!("unix://{}", self.folder.join("sock").display());
        command.args(["--addr", &address]).args(arguments);
        command
    }

    /// `buildctl build FLAGS` of a Dockerfile that goes on after [`BASE`], to be spawned.
    fn build_command(&self, dockerfile: &str, flags: &[&str]) -> Command {
        let context = self.folder.join("context");
        fs::write(context.join("Dockerfile"), format!("{BASE}{dockerfile}")).expect("write the Dockerfile");
        let mut command = self.buildctl(&["build", "--progress=plain", "--frontend=dockerfile.v0"]);
        for name in ["context", "dockerfile"] {
            command
                .arg("--local")
                .arg(format!("{name}={}", context.display()));
        }
        command.args(flags);
        command
    }

    #[track_caller]
    fn build(&self, dockerfile: &str, flags: &[&str]) -> Done {
        run(&mut self.build_command(dockerfile, flags))
    }

    /// The files of what a Dockerfile builds.
    #[track_caller]
    fn built(&self, dockerfile: &str, flags: &[&str]) -> BTreeMap<String, Built> {
        let archive = self.folder.join("built.tar");
        let output = format!("--output=type=tar,dest={}", archive.display());
        self.build(dockerfile, &[flags, &[&output]].concat()).ok();
        let mut archive = tar::Archive::new(fs::File::open(&archive).expect("open what was built"));
        let entries = archive.entries().expect("read what was built");
        let files = entries.map(|entry| entry.expect("read an entry of what was built"));
        files
            .filter(|entry| entry.header().entry_type().is_file())
            .map(|mut entry| {
                let mut text = String::new();
                entry.read_to_string(&mut text).expect("read a file");
                let header = entry.header();
                let built = Built {
                    mode: header.mode().expect("a mode"),
                    owner: (header.uid().expect("a user"), header.gid().expect("a group")),
                    text,
                };
                (entry.path().expect("a path").display().to_string(), built)
            })
            .collect()
    }

    /// What one step with these flags writes, `RUN FLAGS SCRIPT`.
    #[track_caller]
    fn step(&self, step_flags: &str, script: &str, flags: &[&str]) -> String {
        let dockerfile = format!(
            "RUN --mount=type=tmpfs,target=/scratch {step_flags} ( {script} ) >/seen\n\
             FROM scratch\nCOPY --from=base /seen /seen\n"
        );
        self.built(&dockerfile, flags)
            .remove("seen")
            .expect("the step's output")
            .text
    }

    /// The states of the containers that our runtime knows.
    #[track_caller]
    fn containers(&self) -> Vec<String> {
        let mut list = self.peers.command(binary("runtime"));
        let list = run(list.args(["list", "--format", "json"])).ok();
        let list: serde_json::Value = serde_json::from_str(&list).expect("a list in JSON");
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|container| container["status"].to_string())
            .collect()
    }

    /// Bundles, mounts and cgroups of steps, which are only there while they run.
    fn steps(&self) -> Vec<String> {
        let worker = self.folder.join(format!("root/runc-{}", self.snapshotter));
        let bundles = folders(&worker.join("executor"));
        let groups = hierarchies()
            .into_iter()
            .flat_map(|hierarchy| folders(&hierarchy.join(&self.group).join("buildkit")));
        let paths = bundles.into_iter().chain(groups);
        let mut found: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        found.extend(self.peers.mounts());
        found
    }

    /// All steps are gone, and all that they had.
    #[track_caller]
    fn assert_idle(&self) {
        assert_eq!(self.containers(), [""; 0]);
        eventually("nothing is left of the steps", || {
            self.steps().is_empty().then_some(())
        });
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Buildkit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- left of steps: {:?}", self.steps());
            eprintln!("--- log of buildkitd\n{}", self.log());
        }
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
        eventually("buildkitd ends at SIGTERM", || {
            self.daemon.try_wait().expect("look at buildkitd")
        });
        // The parents of the steps' groups are buildkitd's, which leaves them empty.
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.join(&self.group).join("buildkit"));
            let _ = fs::remove_dir(hierarchy.join(&self.group));
        }
    }
}

fn archive_busybox(folder: &Path) {
    busybox_rootfs(&folder.join("rootfs"));
    let archive = fs::File::create(folder.join("context/box.tar")).expect("make an archive");
    let mut tar = tar::Builder::new(archive);
    tar.follow_symlinks(false);
    tar.append_dir_all(".", folder.join("rootfs"))
        .and_then(|()| tar.finish())
        .expect("archive the rootfs");
}

fn spawn(peers: &Peers, programs: &Path, folder: &Path, snapshotter: &str) -> Child {
    let log = fs::File::create(folder.join("log")).expect("make buildkitd's log");
    let option = |name: &str, value: &Path| format!("--{name}={}", value.display());
    peers
        .command(programs.join("buildkitd"))
        .arg(option("config", &folder.join("config.toml")))
        .arg(option("root", &folder.join("root")))
        .arg(format!("--addr=unix://{}", folder.join("sock").display()))
        .arg(option("otel-socket-path", &folder.join("otel")))
        .args(["--oci-worker=true", "--containerd-worker=false"])
        .args(["--oci-worker-net=host", "--cdi-disabled"])
        .arg(option("oci-worker-binary", &binary("runtime")))
        .arg(format!("--oci-worker-snapshotter={snapshotter}"))
        .arg("--allow-insecure-entitlement=security.insecure")
        .env("TMPDIR", folder.join("tmp"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share the log"))
        .stderr(log)
        .spawn()
        .expect("start buildkitd")
}

/// Where cgroups are mounted, of v1, v2 or both.
fn hierarchies() -> Vec<PathBuf> {
    let mut found = folders(Path::new("/sys/fs/cgroup"));
    found.push("/sys/fs/cgroup".into());
    found
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn file(mode: u32, owner: (u64, u64), text: &str) -> Built {
    let text = text.to_owned();
    Built { mode, owner, text }
}

#[test]
fn stages_are_built_with_their_files_and_owners() {
    for snapshotter in ["overlayfs", "native"] {
        let sandbox = Sandbox::new();
        let Some(buildkit) = Buildkit::start(&sandbox, snapshotter) else {
            return;
        };
        let dockerfile = "ENV GREETING=hello\n\
            RUN echo $GREETING >/made && chown 1000:50 /made && chmod 4750 /made\n\
            RUN rm /bin/awk && mkdir /empty\n\
            FROM base AS user\nWORKDIR /work/below\nRUN chown 1000:50 .\nUSER 1000:50\n\
            RUN pwd >seen && id -u >>seen && id -g >>seen && ! test -e /bin/awk && cat /made >>seen\n\
            FROM scratch\n\
            COPY --from=base /made /kept/made\n\
            COPY --from=user /work/below/seen /seen\n\
            COPY --from=user --chown=7:8 --chmod=600 /work/below/seen /given\n";
        let built = buildkit.built(dockerfile, &[]);
        let seen = "/work/below\n1000\n50\nhello\n";
        let wanted = [
            ("given", file(0o600, (7, 8), seen)),
            ("kept/made", file(0o4750, (1000, 50), "hello\n")),
            ("seen", file(0o644, (1000, 50), seen)),
        ];
        let wanted: BTreeMap<_, _> = wanted.map(|(name, file)| (name.to_owned(), file)).into();
        assert_eq!(built, wanted, "with {snapshotter}");

        let folder = buildkit.folder.join("out");
        let output = format!("--output=type=local,dest={}", folder.display());
        buildkit.build(dockerfile, &[&output]).ok();
        let made = fs::read_to_string(folder.join("kept/made")).expect("read what was built");
        assert_eq!(made, "hello\n", "with {snapshotter}");
        buildkit.assert_idle();
    }
}

#[test]
fn caches_and_secrets_are_mounted_for_one_step() {
    let sandbox = Sandbox::new();
    let Some(buildkit) = Buildkit::start(&sandbox, "overlayfs") else {
        return;
    };
    let secret = buildkit.folder.join("secret");
    fs::write(&secret, "sesame\n").expect("write the secret");
    let secret = format!("--secret=id=token,src={}", secret.display());
    let dockerfile = "ARG ROUND\n\
        RUN --mount=type=cache,target=/cache echo $ROUND >>/cache/log && cp /cache/log /log\n\
        RUN test ! -e /cache/log && echo gone >>/log\n\
        RUN --mount=type=secret,id=token stat -c %a:%u /run/secrets/token >>/log && cat /run/secrets/token >>/log\n\
        RUN test ! -s /run/secrets/token && echo hidden >>/log\n\
        RUN --mount=type=bind,source=box.tar,target=/box.tar test -s /box.tar && ! echo x 2>/dev/null >/box.tar && echo read-only >>/log\n\
        FROM scratch\nCOPY --from=base /log /log\n";
    for (round, logged) in [("1", "1\n"), ("2", "1\n2\n")] {
        let argument = format!("build-arg:ROUND={round}");
        let built = buildkit.built(dockerfile, &["--opt", &argument, &secret]);
        let wanted = format!("{logged}gone\n400:0\nsesame\nhidden\nread-only\n");
        assert_eq!(built["log"].text, wanted, "in round {round}");
    }
    buildkit.assert_idle();
}

#[test]
fn a_step_is_confined_as_far_as_its_flags_say() {
    let sandbox = Sandbox::new();
    let Some(buildkit) = Buildkit::start(&sandbox, "overlayfs") else {
        return;
    };
    let status = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";
    let confined = buildkit.step("", status, &[]);
    let wanted = format!("CapEff:{DEFAULT_CAPABILITIES}\nNoNewPrivs:0\nSeccomp:2\n");
    assert_eq!(confined, wanted);
    let hidden = "wc -c </proc/timer_list; ls -A /sys/firmware; \
        echo x 2>/dev/null >/proc/sys/kernel/domainname || echo refused; \
        busybox mount -t tmpfs none /scratch 2>/dev/null || echo refused";
    let hidden = buildkit.step("", hidden, &[]);
    assert_eq!(hidden.replace('\n', " ").trim(), "0 refused refused");

    let insecure = "grep ^Seccomp: /proc/self/status | tr -d '\\t' && busybox mount -t tmpfs none /scratch && echo mounted";
    let insecure = buildkit.step("--security=insecure", insecure, &["--allow=security.insecure"]);
    assert_eq!(insecure, "Seccomp:0\nmounted\n");

    let network = "readlink /proc/self/ns/net";
    let own = run(buildkit.peers.command("readlink").arg("/proc/self/ns/net")).ok();
    assert_eq!(buildkit.step("", network, &[]), own, "--oci-worker-net=host");
    assert_ne!(buildkit.step("--network=none", network, &[]), own);

    let flags = [
        "--opt=shm-size=8388608",
        "--opt=ulimit=nofile=100:200",
        "--opt=add-hosts=moon=10.1.2.3",
        "--opt=hostname=builder",
    ];
    let limits = "df -k /dev/shm | awk 'END { print $2 }'; ulimit -Sn; ulimit -Hn; hostname; grep moon /etc/hosts | tr '\\t' ' '";
    let limits = buildkit.step("", limits, &flags);
    assert_eq!(limits, "8192\n100\n200\nbuilder\n10.1.2.3 moon\n");
    buildkit.assert_idle();
}

#[test]
fn a_step_that_fails_tells_its_exit_code_and_output() {
    let sandbox = Sandbox::new();
    let Some(buildkit) = Buildkit::start(&sandbox, "overlayfs") else {
        return;
    };
    for (step, told) in [
        (
            "echo to''ld >&2; exit 3",
            ["told", "did not complete successfully: exit code: 3"],
        ),
        (
            "(echo to''ld; kill -9 $(sh -c 'echo $PPID')); exit $?",
            ["told", "exit code: 137"],
        ),
        (
            "no-such-program",
            ["no-such-program: not found", "exit code: 127"],
        ),
        (
            "[\"/no/such/program\"]",
            [
                "exec: \"/no/such/program\": stat /no/such/program: no such file or directory",
                "exit code: 1",
            ],
        ),
    ] {
        let refused = buildkit
            .build(&format!("RUN {step}\nRUN echo go''es on\n"), &[])
            .refused();
        for told in told {
            assert!(refused.contains(told), "RUN {step}: no `{told}` in\n{refused}");
        }
        assert!(!refused.contains("goes on"), "RUN {step}:\n{refused}");
    }
    buildkit.assert_idle();
}

#[test]
fn stages_run_side_by_side() {
    let sandbox = Sandbox::new();
    let Some(buildkit) = Buildkit::start(&sandbox, "overlayfs") else {
        return;
    };
    let stages = (0..8).map(|stage| {
        format!(
            "FROM base AS stage{stage}\nRUN --mount=type=cache,target=/meet touch /meet/{stage} && \
             until test $(ls /meet | wc -l) = 8; do sleep 0.01; done; echo {stage} >/met\n"
        )
    });
    let copies = (0..8).map(|stage| format!("COPY --from=stage{stage} /met /{stage}\n"));
    let last = std::iter::once("FROM scratch\n".to_owned());
    let dockerfile: String = stages.chain(last).chain(copies).collect();
    let built = buildkit.built(&dockerfile, &[]);
    let texts: Vec<_> = built.values().map(|file| file.text.as_str()).collect();
    assert_eq!(texts, ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n", "6\n", "7\n"]);
    buildkit.assert_idle();
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let sandbox = Sandbox::new();
    let Some(buildkit) = Buildkit::start(&sandbox, "overlayfs") else {
        return;
    };
    let deaf = "RUN trap '' INT TERM HUP; (while :; do sleep 1000; done) & while :; do sleep 1000; done\n";
    let mut command = buildkit.build_command(deaf, &[]);
    let client = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start buildctl");
    eventually("the step runs", || {
        (buildkit.containers() == ["\"running\""]).then_some(())
    });
    assert!(
        !buildkit.steps().is_empty(),
        "a running step has mounts and cgroups"
    );
    kill(Pid::from_raw(client.id() as i32), Signal::SIGINT).expect("interrupt buildctl");
    finish(client, "buildctl build".into()).refused();
    eventually("the step is gone", || {
        buildkit.containers().is_empty().then_some(())
    });
    buildkit.assert_idle();
    assert_eq!(buildkit.step("", "echo builds again", &[]), "builds again\n");
}
