//! crictl and containerd's CRI service with our runtime: what a kubelet does with pods. Without the clients of hack/peers
//! and hack/peers-go the test says so and passes. (CRI-O itself is in no package registry.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration::{Done, Image, Peers, Sandbox, binary, eventually, run};
use serde_json::{Value, json};

/// What `ctr image import` names the image, in the form that the CRI service looks up.
const IMAGE: &str = "docker.io/local/box:image";

/// A containerd whose CRI service runs all pods with our runtime, below a cgroup that has the sandbox's name.
struct Cri {
    daemon: Child,
    crictl: PathBuf,
    folder: PathBuf,
    group: String,
    peers: Peers,
}

impl Cri {
    #[track_caller]
    fn start(sandbox: &Sandbox) -> Option<Self> {
        let crictl = Peers::built()?.join("crictl");
        let peers = Peers::start(sandbox)?;
        let folder = sandbox.path().join("cri");
        fs::create_dir_all(folder.join("logs")).expect("make containerd's folders");
        fs::write(folder.join("crictl.yaml"), "").expect("write crictl's config");
        fs::write(folder.join("config.toml"), config(&folder)).expect("write containerd's config");
        sandbox.owns(&folder.join("runc/k8s.io"));
        let log = fs::File::create(folder.join("log")).expect("make containerd's log");
        let daemon = peers
            .command("containerd")
            .args(["--log-level=warn", "--config"])
            .arg(folder.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let group = sandbox.id().to_owned();
        let cri = Self {
            daemon,
            crictl,
            folder,
            group,
            peers,
        };
        eventually("containerd answers", || {
            (cri.call(&["version"]).code == 0).then_some(())
        });
        cri.import();
        Some(cri)
    }

    fn import(&self) {
        let mut image = Image::busybox();
        image.config["Cmd"] = json!(["/bin/sleep", "100000"]);
        let layout = self.folder.join("layout");
        image.write_layout(&layout);
        let archive = self.folder.join("image.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).expect("make an archive"));
        tar.append_dir_all(".", &layout)
            .and_then(|()| tar.finish())
            .expect("archive the layout");
        let mut import = self.peers.command("ctr");
        import.arg("--address").arg(self.folder.join("sock"));
        import.args(["--namespace=k8s.io", "image", "import", "--base-name"]);
        run(import.arg("docker.io/local/box").arg(archive)).ok();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let socket = format!("unix://{}", self.folder.join("sock").display());
        let mut command = self.peers.command(&self.crictl);
        command.arg("--config").arg(self.folder.join("crictl.yaml"));
        command.args(["--timeout=60s", "--runtime-endpoint", &socket]);
        command.args(["--image-endpoint", &socket]).args(arguments);
        command
    }

    /// `crictl ARGS`, to its end.
    #[track_caller]
    fn call(&self, arguments: &[&str]) -> Done {
        run(&mut self.command(arguments))
    }

    /// Write a request for crictl to read, and name its file.
    fn request(&self, name: &str, request: &Value) -> String {
        let file = self.folder.join(name);
        fs::write(&file, request.to_string()).expect("write a request");
        file.display().to_string()
    }

    /// A part of what `crictl inspect` tells.
    #[track_caller]
    fn status(&self, id: &str) -> Value {
        let text = self.call(&["inspect", id]).ok();
        let mut whole: Value = serde_json::from_str(&text).expect("crictl's JSON");
        whole["status"].take()
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("--- log of containerd\n{log}");
        }
        let _ = self.call(&["rmp", "--all", "--force"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // A kubelet makes and removes a pod's group; here that is the test.
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.group));
        }
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/{}", self.group));
    }
}

/// Without a network plugin, and without a score below the daemon's own, which takes `CAP_SYS_RESOURCE`.
fn config(folder: &Path) -> String {
    let folder = folder.display();
    let runtime = binary("runtime").display().to_string();
    format!(
        r#"version = 3
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{folder}/sock"
[ttrpc]
address = "{folder}/sock.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
enable_cdi = false
restrict_oom_score_adj = true
cni = {{ conf_dir = "{folder}/cni", bin_dirs = ["{folder}/cni"] }}
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "berth"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.berth]
runtime_type = "io.containerd.runc.v2"
options = {{ BinaryName = "{runtime}", Root = "{folder}/runc" }}
"#
    )
}

#[test]
fn a_pods_containers_live_and_end_as_a_kubelet_asks() {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox) else {
        return;
    };
    // Network of the node: 2 in the interface's enumeration.
    let security = json!({"namespace_options": {"network": 2}});
    let pod_request = json!({
        "metadata": {"name": "pod", "namespace": "default", "uid": sandbox.id()},
        "log_directory": cri.folder.join("logs"),
        "linux": {"cgroup_parent": format!("/{}", sandbox.id()), "security_context": security},
    });
    let pod_request = cri.request("pod.json", &pod_request);
    let pod = cri.call(&["runp", &pod_request]).ok().trim().to_owned();
    let create = |name: &str, script: &str| {
        let request = json!({
            "metadata": {"name": name}, "image": {"image": IMAGE},
            "command": ["/bin/sh", "-c", script], "log_path": format!("{name}.log"),
            "linux": {"resources": {"memory_limit_in_bytes": 64 << 20}, "security_context": security},
        });
        let request = cri.request(&format!("{name}.json"), &request);
        let id = cri.call(&["create", &pod, &request, &pod_request]).ok();
        id.trim().to_owned()
    };
    let first = create(
        "first",
        "echo out; echo err >&2; trap 'exit 9' TERM; while :; do sleep 0.05; done",
    );
    assert_eq!(cri.status(&first)["state"], "CONTAINER_CREATED");
    cri.call(&["start", &first]).ok();
    assert_eq!(cri.status(&first)["state"], "CONTAINER_RUNNING");
    eventually("both lines are logged", || {
        let logs = cri.call(&["logs", &first]);
        (logs.stdout == "out\n" && logs.stderr == "err\n").then_some(())
    });

    let exec = |script: &str| cri.call(&["exec", "--sync", &first, "/bin/sh", "-c", script]);
    let limit = "cd /sys/fs/cgroup && cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max";
    assert_eq!(exec(limit).ok().trim(), "67108864");
    let failed = exec("echo seen; exit 5").refused();
    assert!(failed.contains("exited with 5"), "{failed}");
    cri.call(&["update", "--memory", "33554432", &first]).ok();
    assert_eq!(exec(limit).ok().trim(), "33554432");
    let stats = cri.call(&["stats", "--output=json", &first]).ok();
    let stats: Value = serde_json::from_str(&stats).expect("crictl's JSON");
    let used = stats["stats"][0]["memory"]["workingSetBytes"]["value"].as_str();
    let used: u64 = used
        .and_then(|used| used.parse().ok())
        .expect("a number of bytes");
    assert!((1..33_554_432).contains(&used), "{stats}");

    // Containers of a pod share its IPC and UTS namespaces, and here the node's network.
    let second = create("second", "exit 3");
    let third = create("third", "sleep 1000");
    cri.call(&["start", &second]).ok();
    cri.call(&["start", &third]).ok();
    let namespaces = |id: &str| {
        let script = "for kind in ipc uts net; do readlink /proc/self/ns/$kind; done";
        cri.call(&["exec", "--sync", id, "/bin/sh", "-c", script]).ok()
    };
    assert_eq!(namespaces(&third), namespaces(&first));
    eventually("it ends by itself", || {
        (cri.status(&second)["state"] == "CONTAINER_EXITED").then_some(())
    });
    assert_eq!(cri.status(&second)["exitCode"], 3);

    cri.call(&["stop", "--timeout", "30", &first]).ok();
    assert_eq!(cri.status(&first)["exitCode"], 9, "its own answer to SIGTERM");
    cri.call(&["stop", "--timeout", "0", &third]).ok();
    assert_eq!(cri.status(&third)["exitCode"], 137, "killed");
    for id in [&first, &second, &third] {
        cri.call(&["rm", id]).ok();
    }
    cri.call(&["stopp", &pod]).ok();
    cri.call(&["rmp", &pod]).ok();
    assert_eq!(cri.call(&["pods", "--quiet"]).ok(), "");
}
