//! The shim by its sandbox API, spoken over its socket with the ttrpc crate's own client: a pod's whole life, what is
//! refused, and what a dead shim leaves. (`client_sandbox` has containerd do the same.)

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::protobuf::{CodedOutputStream, Message, well_known_types::any::Any};
use containerd_shim_protos::sandbox_sync::SandboxClient;
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::ttrpc::{self, Code};
use containerd_shim_protos::{Client, TaskClient, api, sandbox_api};
use integration::{
    Bundle, Sandbox, Shim, adopt_orphans, binary, eventually, finish, is_gone, patience, refused, run,
};
use serde_json::{Value, json};

/// A shim for one sandbox, in an empty bundle.
struct Pod {
    id: String,
    bundle: PathBuf,
    sandboxes: SandboxClient,
    tasks: TaskClient,
    options: Any,
}

impl Pod {
    #[track_caller]
    fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, "")
    }

    /// A pod that was created and started, and the pid of its process.
    #[track_caller]
    fn running(sandbox: &Sandbox) -> (Self, u32) {
        let pod = Self::start(sandbox);
        pod.create(&[], "").expect("create");
        let pid = pod.run().expect("start");
        (pod, pid)
    }

    #[track_caller]
    fn kill_shim(&self) {
        let shim = self.shim();
        run(Command::new("kill").args(["-KILL", &shim.to_string()])).ok();
        eventually("the shim is dead", || is_gone(shim).then_some(()));
    }

    /// With another OCI runtime than ours.
    #[track_caller]
    fn start_with(sandbox: &Sandbox, runtime: &str) -> Self {
        Self::start_by(sandbox, runtime, "none")
    }

    /// To be killed at a failpoint.
    #[track_caller]
    fn start_by(sandbox: &Sandbox, runtime: &str, failpoint: &str) -> Self {
        // Where containerd has it.
        let sandboxes = sandbox.path().join("io.containerd.sandbox.controller.v1.shim");
        let bundle = sandboxes.join("test").join(sandbox.id());
        fs::create_dir_all(&bundle).expect("make the bundle");
        sandbox.owns(&sandbox.path().join("state/test"));
        sandbox.owns(&sandbox.path().join("s"));
        let options = options(sandbox, runtime);
        let mut command = Shim::command(sandbox, &bundle, sandbox.id(), "start");
        let mut child = command
            .env("BERTH_SHIM_FAILPOINT", failpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the shim");
        child
            .stdin
            .take()
            .expect("stdin")
            .write_all(&options.write_to_bytes().expect("encode options"))
            .expect("hand over the options");
        let answer = finish(child, "shim start".into()).ok();
        let answer: Value = serde_json::from_str(&answer).expect("an answer in JSON");
        assert_eq!(
            (&answer["version"], &answer["protocol"]),
            (&json!(3), &json!("ttrpc"))
        );
        let address = answer["address"].as_str().expect("an address");
        let connect = || Client::connect(address).expect("connect to the shim");
        Self {
            id: sandbox.id().to_owned(),
            bundle,
            sandboxes: SandboxClient::new(connect()),
            tasks: TaskClient::new(connect()),
            options,
        }
    }

    /// `config` is a `PodSandboxConfig`.
    fn create(&self, config: &[u8], network: &str) -> ttrpc::Result<()> {
        let mut request = sandbox_api::CreateSandboxRequest::new();
        request.sandbox_id.clone_from(&self.id);
        request.bundle_path = self.bundle.display().to_string();
        network.clone_into(&mut request.netns_path);
        if !config.is_empty() {
            let mut any = Any::new();
            any.type_url = "runtime.v1.PodSandboxConfig".into();
            any.value = config.to_vec();
            request.options = Some(any).into();
        }
        self.sandboxes.create_sandbox(patience(), &request).map(drop)
    }

    /// Start it, and tell the pid.
    fn run(&self) -> ttrpc::Result<u32> {
        let mut request = sandbox_api::StartSandboxRequest::new();
        request.sandbox_id.clone_from(&self.id);
        let response = self.sandboxes.start_sandbox(patience(), &request)?;
        assert!(response.created_at.seconds > 0);
        Ok(response.pid)
    }

    #[track_caller]
    fn status(&self) -> sandbox_api::SandboxStatusResponse {
        let mut request = sandbox_api::SandboxStatusRequest::new();
        request.sandbox_id.clone_from(&self.id);
        request.verbose = true;
        self.sandboxes
            .sandbox_status(patience(), &request)
            .expect("status")
    }

    #[track_caller]
    fn stop(&self) {
        let mut request = sandbox_api::StopSandboxRequest::new();
        request.sandbox_id.clone_from(&self.id);
        self.sandboxes.stop_sandbox(patience(), &request).expect("stop");
    }

    #[track_caller]
    fn wait(&self) -> u32 {
        let mut request = sandbox_api::WaitSandboxRequest::new();
        request.sandbox_id.clone_from(&self.id);
        self.sandboxes
            .wait_sandbox(patience(), &request)
            .expect("wait")
            .exit_status
    }

    fn try_shutdown(&self, id: &str) -> ttrpc::Result<()> {
        let mut request = sandbox_api::ShutdownSandboxRequest::new();
        id.clone_into(&mut request.sandbox_id);
        self.sandboxes.shutdown_sandbox(patience(), &request).map(drop)
    }

    #[track_caller]
    fn shutdown(&self) {
        let pid = self.shim();
        self.try_shutdown(&self.id).expect("shutdown");
        eventually("the shim ends", || is_gone(pid).then_some(()));
    }

    fn shim(&self) -> u32 {
        let pid = fs::read_to_string(self.bundle.join("shim.pid")).expect("read shim.pid");
        pid.parse().expect("a pid")
    }

    /// A request to create a container of the pod, in its IPC namespace.
    fn request(&self, sandbox: &Sandbox, name: &str, pid: u32) -> (api::CreateTaskRequest, Bundle) {
        let id = format!("{}{name}", self.id);
        let script = "echo x >/dev/shm/mine; exec sleep 1000";
        let mut bundle = Bundle::named(sandbox, name, &["/bin/sh", "-c", script]);
        bundle.set("/annotations", json!({"io.kubernetes.cri.sandbox-id": self.id}));
        bundle.set("/linux/cgroupsPath", json!(format!("/test/{id}")));
        let namespaces = bundle.config["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        for namespace in namespaces {
            if namespace["type"] == "ipc" {
                namespace["path"] = json!(format!("/proc/{pid}/ns/ipc"));
            }
        }
        bundle.write();
        let mut request = api::CreateTaskRequest::new();
        request.id = id;
        request.bundle = bundle.path().display().to_string();
        request.options = Some(self.options.clone()).into();
        (request, bundle)
    }

    /// A container of the pod that runs.
    #[track_caller]
    fn container(&self, sandbox: &Sandbox, pid: u32) -> (String, Bundle) {
        let (created, bundle) = self.request(sandbox, "c", pid);
        let id = created.id.clone();
        self.tasks
            .create(patience(), &created)
            .expect("create a container");
        let mut request = api::StartRequest::new();
        request.id.clone_from(&id);
        self.tasks.start(patience(), &request).expect("start a container");
        (id, bundle)
    }
}

/// Those of a runtime, ours where none is named.
fn options(sandbox: &Sandbox, runtime: &str) -> Any {
    let mut options = Options::new();
    options.root = sandbox.path().join("state").display().to_string();
    runtime.clone_into(&mut options.binary_name);
    let mut any = Any::new();
    any.type_url = "containerd.runc.v1.Options".into();
    any.value = options.write_to_bytes().expect("encode options");
    any
}

/// A field of a protobuf message: a message or text, or a number.
fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    encode(|out| out.write_bytes(number, bytes))
}

fn number(number: u32, value: u64) -> Vec<u8> {
    encode(|out| out.write_uint64(number, value))
}

fn encode(
    write: impl FnOnce(&mut CodedOutputStream) -> containerd_shim_protos::protobuf::Result<()>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut out = CodedOutputStream::vec(&mut bytes);
    write(&mut out).and_then(|()| out.flush()).expect("encode");
    drop(out);
    bytes
}

/// A `PodSandboxConfig` with these namespace options (`NamespaceOption`).
fn namespaces(options: &[u8]) -> Vec<u8> {
    field(8, &field(2, &field(1, options)))
}

fn namespace(process: &str, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/ns/{kind}")).expect("read a namespace")
}

#[test]
fn a_sandbox_has_namespaces_of_its_own_and_tells_its_end() {
    let sandbox = Sandbox::new();
    let pod = Pod::start(&sandbox);
    pod.create(&field(2, b"web"), "").expect("create");
    assert_eq!(pod.status().state, "SANDBOX_NOTREADY");
    let pid = pod.run().expect("start");
    let status = pod.status();
    assert_eq!(
        (status.state.as_str(), status.pid, &status.sandbox_id),
        ("SANDBOX_READY", pid, &pod.id)
    );
    let info: Value = serde_json::from_str(&status.info["info"]).expect("JSON for crictl");
    assert_eq!(
        info,
        json!({"pid": pid, "processStatus": "running"}),
        "what inspectp shows"
    );
    for kind in ["ipc", "uts", "net", "pid", "mnt"] {
        assert_ne!(
            namespace(&pid.to_string(), kind),
            namespace("self", kind),
            "{kind}"
        );
    }
    let mut enter = Command::new("nsenter");
    let hostname = run(enter.args(["--uts", "--target", &pid.to_string(), "hostname"])).ok();
    assert_eq!(hostname, "web\n");

    // Whoever may look into it finds nothing of the node, and nothing to use.
    let process = fs::read_to_string(format!("/proc/{pid}/status")).expect("read its status");
    let line = |key: &str| {
        let line = process.lines().find_map(|line| line.strip_prefix(key));
        line.expect(key)
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("CapPrm:"), "0000000000000000");
    assert_eq!(line("CapBnd:"), "0000000000000000");
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Uid:"), "65535 65535 65535 65535");
    assert_eq!(line("Threads:"), "1");
    let memory: u64 = ["RssAnon:", "RssFile:", "RssShmem:"]
        .iter()
        .map(|key| {
            line(key)
                .trim_end_matches(" kB")
                .parse::<u64>()
                .expect("a number")
        })
        .sum();
    assert!(memory <= 16, "{memory} KiB for doing nothing");
    let root = fs::read_dir(format!("/proc/{pid}/root")).expect("read its root");
    let mut names: Vec<_> = root.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["dev", "pause", "proc"]);
    assert!(fs::write(format!("/proc/{pid}/root/proc/sys/kernel/panic"), "0").is_err());

    let mut ping = sandbox_api::PingRequest::new();
    ping.sandbox_id.clone_from(&pod.id);
    pod.sandboxes.ping_sandbox(patience(), &ping).expect("ping");
    let mut request = sandbox_api::PlatformRequest::new();
    request.sandbox_id.clone_from(&pod.id);
    let platform = pod.sandboxes.platform(patience(), &request).expect("platform");
    assert_eq!(platform.platform.os, "linux");

    thread::scope(|scope| {
        let waiters = [(); 2].map(|()| scope.spawn(|| pod.wait()));
        pod.stop();
        for waiter in waiters {
            assert_eq!(waiter.join().expect("a waiter"), 137);
        }
    });
    let record = fs::read_to_string(pod.bundle.join("exit.json")).expect("the exit is on disk");
    assert!(record.contains("\"exit_status\":137"), "{record}");
    assert_eq!(pod.status().state, "SANDBOX_NOTREADY");
    pod.stop();
    assert_eq!(pod.wait(), 137);
    pod.shutdown();
    sandbox.assert_clean();
}

#[test]
fn the_nodes_namespaces_are_kept_where_they_are_asked_for() {
    let sandbox = Sandbox::new();
    let pod = Pod::start(&sandbox);
    let node = [number(1, 2), number(2, 2), number(3, 2)].concat();
    pod.create(&namespaces(&node), "").expect("create");
    let pid = pod.run().expect("start").to_string();
    for kind in ["ipc", "uts", "net", "pid"] {
        assert_eq!(namespace(&pid, kind), namespace("self", kind), "{kind}");
    }
    pod.shutdown();
}

#[test]
fn a_pods_user_namespace_is_that_of_its_network() {
    let sandbox = Sandbox::new();
    // As CRI makes it: a network namespace that belongs to a user namespace.
    let mut maker = Command::new("unshare")
        .args(["--user", "--net", "cat"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start unshare");
    let maker_pid = maker.id().to_string();
    eventually("the namespaces are there", || {
        let name = fs::read_to_string(format!("/proc/{maker_pid}/comm")).unwrap_or_default();
        (name == "cat\n").then_some(())
    });
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{maker_pid}/{map}"), "0 100000 65536").expect("map the ids");
    }
    let network = format!("/proc/{maker_pid}/ns/net");
    let pod = Pod::start(&sandbox);
    let mapping = [number(1, 100_000), number(3, 65_536)].concat();
    let users = [field(2, &mapping), field(3, &mapping)].concat();
    pod.create(&namespaces(&field(5, &users)), &network)
        .expect("create");
    let pid = pod.run().expect("start").to_string();
    for kind in ["user", "net"] {
        assert_eq!(namespace(&pid, kind), namespace(&maker_pid, kind), "{kind}");
    }
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("read its users");
    assert_eq!(
        map.split_ascii_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    // Its users can reach that one, and a container of its name elsewhere has nothing to do with it.
    let rootfs = Path::new("/run/berth-pods/test").join(&pod.id);
    assert!(rootfs.exists());
    let elsewhere = sandbox.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("make a bundle");
    run(&mut Shim::command(&sandbox, &elsewhere, &pod.id, "delete")).ok();
    assert!(rootfs.exists());
    pod.shutdown();
    assert!(!rootfs.exists());
    maker.kill().expect("end unshare");
    maker.wait().expect("wait for unshare");
}

#[test]
fn what_is_wrong_is_refused_and_the_shim_can_still_be_shut_down() {
    let sandbox = Sandbox::new();
    let pod = Pod::start(&sandbox);
    refused(pod.run(), Code::NOT_FOUND);
    refused(pod.try_shutdown("other"), Code::NOT_FOUND);
    let said = refused(pod.create(b"\xff", ""), Code::INVALID_ARGUMENT);
    assert!(said.contains("PodSandboxConfig does not decode"), "{said}");
    // It is not root that it runs as then.
    let user = field(8, &field(2, &field(3, &number(1, 1 << 32))));
    let said = refused(pod.create(&user, ""), Code::INVALID_ARGUMENT);
    assert!(said.contains("an id of 32 bits"), "{said}");
    let said = refused(pod.create(&[], "/nonexistent"), Code::UNKNOWN);
    assert!(said.contains("/nonexistent"), "{said}");
    let fifo = sandbox.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    let fifo = fifo.display().to_string();
    let said = refused(pod.create(&namespaces(&field(5, &[])), &fifo), Code::UNKNOWN);
    assert!(said.contains(&fifo), "{said}");
    // What failed left nothing that the next one stumbles over.
    pod.create(&[], "").expect("create");
    let said = refused(pod.create(&[], ""), Code::ALREADY_EXISTS);
    assert!(said.contains(&pod.id), "{said}");
    pod.run().expect("start");
    refused(pod.run(), Code::FAILED_PRECONDITION);
    let mut other = sandbox_api::PingRequest::new();
    other.sandbox_id = "other".into();
    refused(pod.sandboxes.ping_sandbox(patience(), &other), Code::NOT_FOUND);
    let mut request = sandbox_api::SandboxMetricsRequest::new();
    request.sandbox_id.clone_from(&pod.id);
    let said = refused(
        pod.sandboxes.sandbox_metrics(patience(), &request),
        Code::NOT_FOUND,
    );
    assert!(said.contains("cgroup_parent"), "{said}");
    pod.shutdown();
}

#[test]
fn a_shim_is_not_started_where_there_is_no_bundle() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path().join("wrong");
    fs::create_dir(&folder).expect("make a folder");
    let said = run(&mut Shim::command(&sandbox, &folder, sandbox.id(), "start")).refused();
    assert!(said.contains("wrong/config.json"), "{said}");
    assert_eq!(fs::read_dir(&folder).expect("read the folder").count(), 0);
    sandbox.assert_clean();
}

#[test]
fn a_shutdown_of_a_sandbox_ends_no_shim_of_a_container() {
    let sandbox = Sandbox::new();
    let shim = Shim::start(&sandbox, &Bundle::new(&sandbox, "exec sleep 1000"));
    let pid = shim.create_logged();
    let sandboxes = SandboxClient::new(Client::connect(&shim.address).expect("connect to the shim"));
    for id in [&shim.id, "other"] {
        let mut request = sandbox_api::ShutdownSandboxRequest::new();
        id.clone_into(&mut request.sandbox_id);
        refused(sandboxes.shutdown_sandbox(patience(), &request), Code::NOT_FOUND);
    }
    assert!(!is_gone(pid), "the container was killed");
    shim.start_process("");
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_runtime_that_is_not_there_is_named_and_nothing_stays() {
    let sandbox = Sandbox::new();
    let pod = Pod::start_with(&sandbox, "/nonexistent/runtime");
    let said = refused(pod.create(&[], ""), Code::UNKNOWN);
    assert!(said.contains("/nonexistent/runtime"), "{said}");
    sandbox_is_all_that_is_left(&pod);
    pod.shutdown();
}

/// A runtime that waits before it does what `verb` asks, until the first path is removed. It makes the second when it
/// waits.
fn held_runtime(sandbox: &Sandbox, verb: &str) -> (PathBuf, PathBuf, String) {
    let [hold, seen, program] = ["hold", "seen", "waits"].map(|name| sandbox.path().join(name));
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" {verb} \"*) touch {seen}; while [ -e {hold} ]; do sleep 0.01; done;; esac\n\
         exec {runtime} \"$@\"\n",
        hold = hold.display(),
        seen = seen.display(),
        runtime = binary("runtime").display()
    );
    fs::write(&program, script).expect("write a runtime");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
    fs::write(&hold, "").expect("hold it");
    (hold, seen, program.display().to_string())
}

#[test]
fn a_shutdown_that_comes_before_the_sandbox_is_made_is_carried_out_after() {
    let sandbox = Sandbox::new();
    let (hold, seen, runtime) = held_runtime(&sandbox, "create");
    let pod = Pod::start_with(&sandbox, &runtime);
    thread::scope(|scope| {
        let create = scope.spawn(|| pod.create(&[], ""));
        eventually("the runtime runs", || seen.exists().then_some(()));
        let shutdown = scope.spawn(|| pod.shutdown());
        refused(pod.run(), Code::FAILED_PRECONDITION);
        fs::remove_file(&hold).expect("let it go");
        create.join().expect("a client").expect("create");
        shutdown.join().expect("a client");
    });
    sandbox.assert_clean();
}

#[test]
fn a_shim_that_must_end_at_once_takes_a_sandbox_along_that_is_being_made() {
    let sandbox = Sandbox::new();
    let (hold, seen, runtime) = held_runtime(&sandbox, "create");
    let pod = Pod::start_with(&sandbox, &runtime);
    thread::scope(|scope| {
        let create = scope.spawn(|| pod.create(&[], ""));
        eventually("the runtime runs", || seen.exists().then_some(()));
        let mut request = api::ShutdownRequest::new();
        request.id.clone_from(&pod.id);
        request.now = true;
        pod.tasks.shutdown(patience(), &request).expect("shutdown");
        fs::remove_file(&hold).expect("let it go");
        create.join().expect("a client").expect("create");
    });
    eventually("the shim ends", || is_gone(pod.shim()).then_some(()));
    run(&mut Shim::command(&sandbox, &pod.bundle, &pod.id, "delete")).ok();
    sandbox.assert_clean();
}

#[test]
fn a_pid_that_was_the_sandboxs_is_not_killed_when_another_process_has_it() {
    let sandbox = Sandbox::new();
    let (hold, seen, runtime) = held_runtime(&sandbox, "start");
    let pod = Pod::start_with(&sandbox, &runtime);
    pod.create(&[], "").expect("create");
    let pid: u32 = fs::read_to_string(pod.bundle.join("init.pid"))
        .expect("read the pid")
        .parse()
        .expect("a pid");
    thread::scope(|scope| {
        let start = scope.spawn(|| pod.run());
        eventually("the runtime runs", || seen.exists().then_some(()));
        run(Command::new("kill").args(["-KILL", &pid.to_string()])).ok();
        let proc = PathBuf::from(format!("/proc/{pid}"));
        eventually("the sandbox's process was reaped", || {
            (!proc.exists()).then_some(())
        });
        let mut heir = eventually("another process has its pid", || {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("choose the next pid");
            let mut child = Command::new("sleep").arg("1000").spawn().expect("start sleep");
            if child.id() == pid {
                return Some(child);
            }
            child.kill().expect("end sleep");
            child.wait().expect("wait for sleep");
            None
        });
        let stop = scope.spawn(|| pod.stop());
        // All but surely answered after the stop was begun.
        pod.status();
        assert!(!is_gone(pid), "the other process was killed");
        fs::remove_file(&hold).expect("let it go");
        assert!(
            start.join().expect("a client").is_err(),
            "there was nothing to start"
        );
        stop.join().expect("a client");
        assert_eq!(pod.wait(), 137);
        assert!(!is_gone(pid), "the other process was killed");
        heir.kill().expect("end sleep");
        heir.wait().expect("wait for sleep");
    });
    pod.shutdown();
    sandbox.assert_clean();
}

/// No mount keeps the bundle from being removed.
#[track_caller]
fn sandbox_is_all_that_is_left(pod: &Pod) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    assert!(
        !mounts.contains(&pod.bundle.display().to_string()),
        "left mounted: {mounts}"
    );
}

#[test]
fn a_pod_keeps_its_shim_until_it_is_shut_down_and_takes_its_containers_along() {
    let sandbox = Sandbox::new();
    let (pod, pid) = Pod::running(&sandbox);
    // Neither of these ends a shim in use.
    let mut request = api::ShutdownRequest::new();
    request.id.clone_from(&pod.id);
    pod.tasks.shutdown(patience(), &request).expect("shutdown");
    run(Command::new("kill").args(["-TERM", &pod.shim().to_string()])).ok();
    assert_eq!(pod.status().state, "SANDBOX_READY");
    // containerd asks this after its restart, and takes an error for a dead shim.
    let mut request = api::ConnectRequest::new();
    request.id.clone_from(&pod.id);
    let connected = pod.tasks.connect(patience(), &request).expect("connect");
    assert_eq!((connected.shim_pid, connected.task_pid), (pod.shim(), pid));

    let (id, bundle) = pod.container(&sandbox, pid);
    eventually("the container writes into the pod's /dev/shm", || {
        pod.bundle.join("shm/mine").exists().then_some(())
    });
    // One that is refused is not on record, by which `delete` would ask the runtime for it.
    let mut request = api::CreateTaskRequest::new();
    request.id = format!("{}d", pod.id);
    request.bundle = bundle.path().display().to_string();
    request.stdin = "binary:///bin/cat".into();
    let created = pod.tasks.create(patience(), &request);
    refused(created, Code::INVALID_ARGUMENT);
    let record = |name: &str| pod.bundle.join("containers").join(name).exists();
    assert!(record(&id) && !record(&request.id));
    pod.shutdown();
    sandbox_is_all_that_is_left(&pod);
    // Its exit is on disk; what is left of it, `delete` removes.
    let record = fs::read_to_string(bundle.path().join("exit.json")).expect("the container's exit");
    assert!(record.contains("\"exit_status\":137"), "{record}");
    let id = format!("{}c", pod.id);
    run(&mut Shim::command(&sandbox, bundle.path(), &id, "delete")).ok();
    sandbox.assert_clean();
}

#[test]
fn a_killed_shims_pod_is_removed_with_its_containers_by_one_delete() {
    let sandbox = Sandbox::new();
    let (pod, pid) = Pod::running(&sandbox);
    let (id, _) = pod.container(&sandbox, pid);
    pod.kill_shim();
    assert!(!is_gone(pid), "its pod lives on");
    let Pod {
        id: pod_id, bundle, ..
    } = pod;
    run(&mut Shim::command(&sandbox, &bundle, &pod_id, "delete")).ok();
    eventually("the pod is dead", || is_gone(pid).then_some(()));
    fs::remove_dir_all(&bundle).expect("nothing is mounted in the bundle");
    assert!(!sandbox.path().join("state/test").join(&id).exists());
    sandbox.assert_clean();
}

#[test]
fn a_container_that_was_refused_is_none_of_the_pod() {
    let sandbox = Sandbox::new();
    let (pod, pid) = Pod::running(&sandbox);
    let recorded = || fs::read_dir(pod.bundle.join("containers")).map_or(0, Iterator::count);
    let (request, bundle) = pod.request(&sandbox, "c", pid);
    let mut unmountable = request.clone();
    unmountable
        .rootfs
        .push(containerd_shim_protos::types::mount::Mount {
            type_: "nonexistent".into(),
            ..Default::default()
        });
    refused(pod.tasks.create(patience(), &unmountable), Code::UNKNOWN);
    let mut deaf = request.clone();
    deaf.stdout = "nonexistent://x".into();
    assert!(pod.tasks.create(patience(), &deaf).is_err());
    let mut unrestorable = request.clone();
    unrestorable.checkpoint = sandbox.path().display().to_string();
    unrestorable.rootfs.clone_from(&unmountable.rootfs);
    refused(pod.tasks.create(patience(), &unrestorable), Code::UNKNOWN);
    // A `delete` of the pod would delete whatever had their ids by then.
    assert_eq!(recorded(), 0);
    pod.tasks
        .create(patience(), &request)
        .expect("create a container");
    assert_eq!(recorded(), 1);
    pod.shutdown();
    run(&mut Shim::command(&sandbox, bundle.path(), &request.id, "delete")).ok();
}

#[test]
fn a_living_shim_whose_pod_was_given_up_ends_with_it() {
    let sandbox = Sandbox::new();
    let (pod, pid) = Pod::running(&sandbox);
    let (id, bundle) = pod.container(&sandbox, pid);
    // That of one of its containers is no reason.
    run(&mut Shim::command(&sandbox, bundle.path(), &id, "delete")).ok();
    assert_eq!(pod.status().state, "SANDBOX_READY");
    run(&mut Shim::command(&sandbox, &pod.bundle, &pod.id, "delete")).ok();
    eventually("the shim ends", || is_gone(pod.shim()).then_some(()));
    fs::remove_dir_all(&pod.bundle).expect("nothing is mounted in the bundle");
    sandbox.assert_clean();
}

#[test]
fn a_delete_goes_on_when_one_container_fails() {
    let sandbox = Sandbox::new();
    let (pod, pid) = Pod::running(&sandbox);
    let (_, bundle) = pod.container(&sandbox, pid);
    pod.kill_shim();
    // There is no telling whether something is mounted in that.
    fs::remove_dir_all(bundle.path()).expect("remove the container's bundle");
    fs::write(bundle.path(), "").expect("put a file there");
    let said = run(&mut Shim::command(&sandbox, &pod.bundle, &pod.id, "delete")).refused();
    assert!(said.contains(&bundle.path().display().to_string()), "{said}");
    eventually("the pod is dead", || is_gone(pid).then_some(()));
    fs::remove_dir_all(&pod.bundle).expect("nothing is mounted in the pod's bundle");
    sandbox.assert_clean();
}

#[test]
fn a_delete_of_many_containers_ends_in_the_time_that_containerd_gives_it() {
    let sandbox = Sandbox::new();
    let (pod, pid) = Pod::running(&sandbox);
    let (hold, seen, runtime) = held_runtime(&sandbox, "create");
    let requests = ["c", "d", "e"].map(|name| {
        let (mut request, _) = pod.request(&sandbox, name, pid);
        request.options = Some(options(&sandbox, &runtime)).into();
        request
    });
    let shim = pod.shim();
    thread::scope(|scope| {
        for request in &requests {
            scope.spawn(|| {
                pod.tasks
                    .create(patience(), request)
                    .expect_err("the shim is killed")
            });
            eventually("the runtime runs", || fs::remove_file(&seen).ok());
        }
        run(Command::new("kill").args(["-KILL", &shim.to_string()])).ok();
    });
    let start = Instant::now();
    run(&mut Shim::command(&sandbox, &pod.bundle, &pod.id, "delete")).ok();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    eventually("the pod is dead", || is_gone(pid).then_some(()));
    fs::remove_file(&hold).expect("nobody waits for it any more");
    fs::remove_dir_all(&pod.bundle).expect("nothing is mounted in the bundle");
    sandbox.assert_clean();
}

#[test]
fn a_shim_killed_at_a_failpoint_of_its_sandbox_leaves_what_delete_finds() {
    adopt_orphans();
    let sandbox = Sandbox::new();
    for (failpoint, is_on_disk) in [
        ("sandbox.prepared", false),
        ("sandbox.called", false),
        ("sandbox.made", false),
        ("sandbox.told", false),
        ("sandbox.start.called", false),
        ("sandbox.start.made", false),
        ("sandbox.reaped", false),
        ("sandbox.recorded", true),
        ("sandbox.delete.called", true),
        ("sandbox.deleted", true),
    ] {
        for _ in 0..3 {
            let pod = Pod::start_by(&sandbox, "", failpoint);
            let shim = pod.shim();
            // As far as it goes.
            let live = || -> ttrpc::Result<()> {
                pod.create(&[], "")?;
                let pid = pod.run()?;
                let (request, bundle) = pod.request(&sandbox, "c", pid);
                pod.tasks.create(patience(), &request)?;
                let ended = pod.try_shutdown(&pod.id);
                fs::remove_dir_all(bundle.path()).expect("remove the container's bundle");
                ended
            };
            assert!(live().is_err(), "{failpoint} was not reached");
            eventually("the shim is dead, which takes a debug build", || {
                is_gone(shim).then_some(())
            });
            let recorded = pod.bundle.join("exit.json").exists();
            assert_eq!(recorded, is_on_disk, "{failpoint}");
            run(&mut Shim::command(&sandbox, &pod.bundle, &pod.id, "delete")).ok();
            fs::remove_dir_all(&pod.bundle).expect("nothing is mounted in the bundle");
            sandbox.assert_clean();
        }
    }
}
