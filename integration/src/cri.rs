//! A containerd of the test's own with its CRI service, driven with `crictl`: what a kubelet does with pods.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::image::Image;
use crate::peers::Peers;
use crate::process::{Done, binary, eventually, run};
use crate::sandbox::Sandbox;

/// How pods are run: a runtime handler of the CRI service.
#[derive(Debug, Clone, Copy)]
pub struct Handler {
    pub name: &'static str,
    /// The shim, as containerd names it.
    pub shim: &'static str,
    /// Who makes a pod's sandbox: `podsandbox` (containerd, as a container) or `shim`.
    pub sandboxer: &'static str,
    /// Whether the configuration names the runtime and its state folder. Before 2.4 containerd takes no options but
    /// those of runc's shim for containers of a `shim` sandbox and of pods with a user namespace (its pull request
    /// 13360).
    pub options: bool,
}

impl Handler {
    pub const CONTAINERDS_SHIM: Self = Self {
        name: "runc",
        shim: "io.containerd.runc.v2",
        sandboxer: "podsandbox",
        options: true,
    };
    pub const OUR_SHIM: Self = Self {
        name: "berth",
        shim: "io.containerd.berth.v1",
        sandboxer: "podsandbox",
        options: true,
    };
    pub const OUR_SANDBOX: Self = Self {
        name: "berth-sandbox",
        shim: "io.containerd.berth.v1",
        sandboxer: "shim",
        options: false,
    };
}

/// A containerd whose CRI service runs all pods with our runtime, below a cgroup that has the sandbox's name. Pods get
/// their network from a plugin that gives each the address [`Cri::ADDRESS`].
pub struct Cri {
    daemon: Child,
    crictl: PathBuf,
    folder: PathBuf,
    /// The sandbox's id: the name of the pods' cgroup.
    group: String,
    peers: Peers,
}

impl Cri {
    /// What `ctr image import` names the image, in the form that the CRI service looks up.
    pub const IMAGE: &str = "docker.io/local/box:image";
    /// The address of every pod.
    pub const ADDRESS: &str = "10.77.0.2";

    /// The first of `handlers` is the default one. Nothing, and a word on why, when the clients of hack/peers and
    /// hack/peers-go are not there.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, handlers: &[Handler]) -> Option<Self> {
        let crictl = Peers::built()?.join("crictl");
        let peers = Peers::start(sandbox)?;
        let folder = sandbox.path().join("cri");
        for name in ["logs", "cni", "programs", "berth"] {
            fs::create_dir_all(folder.join(name)).expect("make containerd's folders");
        }
        symlink(binary("shim"), folder.join("programs/containerd-shim-berth-v1")).expect("link the shim");
        write_network(&folder.join("cni"));
        fs::write(folder.join("crictl.yaml"), "").expect("write crictl's config");
        fs::write(folder.join("config.toml"), config(&folder, handlers)).expect("write containerd's config");
        // Where our shim's runtime has its state without an option.
        fs::create_dir_all("/run/berth").expect("make /run/berth");
        let mut mount = peers.command("mount");
        run(mount.arg("--bind").arg(folder.join("berth")).arg("/run/berth")).ok();
        for root in ["runc", "berth/runtime"] {
            sandbox.owns(&folder.join(root).join("k8s.io"));
        }
        let daemon = spawn(&peers, &folder);
        let cri = Self {
            daemon,
            crictl,
            folder,
            group: sandbox.id().to_owned(),
            peers,
        };
        cri.ready();
        cri.import();
        Some(cri)
    }

    #[track_caller]
    fn ready(&self) {
        eventually("containerd answers", || {
            (self.call(&["version"]).code == 0).then_some(())
        });
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

    /// containerd's version, the major and the minor number.
    #[track_caller]
    pub fn version(&self) -> (u32, u32) {
        let text = self.call(&["version"]).ok();
        let version = text.lines().find_map(|line| line.strip_prefix("RuntimeVersion:"));
        let mut numbers = version
            .expect("a version")
            .trim()
            .trim_start_matches('v')
            .split('.')
            .map(|number| number.parse().expect("a number"));
        let mut next = || numbers.next().expect("a number");
        (next(), next())
    }

    /// Where containerd and its parts are: `logs`, `state`, `runc`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `crictl ARGS`, to its end.
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Done {
        run(&mut self.command(arguments))
    }

    /// A `crictl` command line, to be spawned.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let socket = format!("unix://{}", self.folder.join("sock").display());
        let mut command = self.peers.command(&self.crictl);
        command.arg("--config").arg(self.folder.join("crictl.yaml"));
        command.args(["--timeout=60s", "--runtime-endpoint", &socket]);
        command.args(["--image-endpoint", &socket]).args(arguments);
        command
    }

    /// Write a request for crictl to read, and name its file.
    pub fn request(&self, name: &str, request: &Value) -> String {
        let file = self.folder.join(name);
        fs::write(&file, request.to_string()).expect("write a request");
        file.display().to_string()
    }

    /// A pod's request, with the fields of `extra` in the place of those here.
    pub fn pod_request(&self, name: &str, extra: &Value) -> String {
        let mut request = json!({
            "metadata": {"name": name, "namespace": "default", "uid": self.group},
            "log_directory": self.folder.join("logs"),
            "linux": {"cgroup_parent": format!("/{}", self.group)},
        });
        merge(&mut request, extra);
        self.request(&format!("{name}.json"), &request)
    }

    /// A container's request: a script of the image's shell, which logs to NAME.log.
    pub fn container_request(&self, name: &str, script: &str, extra: &Value) -> String {
        let mut request = json!({
            "metadata": {"name": name}, "image": {"image": Self::IMAGE},
            "command": ["/bin/sh", "-c", script], "log_path": format!("{name}.log"),
            "linux": {"resources": {"memory_limit_in_bytes": 64 << 20}},
        });
        merge(&mut request, extra);
        self.request(&format!("{name}.json"), &request)
    }

    /// A part of what `crictl inspect` tells.
    #[track_caller]
    pub fn status(&self, id: &str) -> Value {
        self.inspect("inspect", id)["status"].take()
    }

    /// What `crictl inspect` (for containers) or `crictl inspectp` (for pods) tells.
    #[track_caller]
    pub fn inspect(&self, verb: &str, id: &str) -> Value {
        serde_json::from_str(&self.call(&[verb, id]).ok()).expect("crictl's JSON")
    }

    /// What a script prints that runs in a container, without the empty lines that crictl puts behind it.
    #[track_caller]
    pub fn exec(&self, id: &str, script: &str) -> String {
        let output = self.call(&["exec", "--sync", id, "/bin/sh", "-c", script]).ok();
        output.trim_end().to_owned()
    }

    /// kill -9 of containerd, and nothing else.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("kill containerd");
        self.daemon.wait().expect("wait for containerd");
    }

    /// Start a containerd over the same folders, after [`Cri::kill`].
    #[track_caller]
    pub fn start_again(&mut self) {
        self.daemon = spawn(&self.peers, &self.folder);
        self.ready();
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

/// Put the fields of one object into another, level by level.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// containerd looks for our shim in `PATH`.
fn spawn(peers: &Peers, folder: &Path) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    let log = fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join("log"));
    peers
        .command("containerd")
        .args(["--log-level=warn", "--config"])
        .arg(folder.join("config.toml"))
        .env("PATH", format!("{}:{path}", folder.join("programs").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("open containerd's log"))
        .spawn()
        .expect("start containerd")
}

/// A network plugin (CNI) that makes a link in the pod's namespace, whose other end stays there too.
fn write_network(folder: &Path) {
    let address = Cri::ADDRESS;
    let plugin = format!(
        r#"#!/bin/sh -e
case $CNI_COMMAND in
VERSION) echo '{{"cniVersion": "1.0.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]}}' ;;
ADD)
	if [ "$CNI_IFNAME" = lo ]; then
		nsenter --net="$CNI_NETNS" ip link set lo up
	else
		nsenter --net="$CNI_NETNS" ip link add "$CNI_IFNAME" type veth peer name peer
		nsenter --net="$CNI_NETNS" ip address add {address}/24 dev "$CNI_IFNAME"
	fi
	echo '{{"cniVersion": "0.4.0", "interfaces": [{{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}}],
		"ips": [{{"version": "4", "address": "{address}/24", "interface": 0}}]}}' ;;
esac
"#
    );
    for name in ["pod", "loopback"] {
        fs::write(folder.join(name), &plugin).expect("write a network plugin");
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).expect("make it a program");
    }
    let network = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "pod"}]});
    fs::write(folder.join("pods.conflist"), network.to_string()).expect("write the network's config");
}

/// Without a score below the daemon's own, which takes `CAP_SYS_RESOURCE`.
fn config(folder: &Path, handlers: &[Handler]) -> String {
    use std::fmt::Write;
    let folder = folder.display();
    let runtime = binary("runtime").display().to_string();
    let image = Cri::IMAGE;
    let mut config = format!(
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
sandbox = "{image}"
[plugins.'io.containerd.cri.v1.runtime']
enable_cdi = false
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
cni = {{ conf_dir = "{folder}/cni", bin_dirs = ["{folder}/cni"] }}
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = "{}"
"#,
        handlers[0].name
    );
    for handler in handlers {
        let Handler {
            name,
            shim,
            sandboxer,
            options,
        } = handler;
        let _ = write!(
            config,
            r#"[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.{name}]
runtime_type = "{shim}"
sandboxer = "{sandboxer}"
"#
        );
        if *options {
            let _ = writeln!(
                config,
                r#"options = {{ BinaryName = "{runtime}", Root = "{folder}/runc" }}"#
            );
        }
    }
    config
}
