//! Pods of containerd's CRI service in our shim: with containerd's own sandboxer, by which the pod's sandbox is a
//! container as others, and with `shim`, by which our shim makes it. Without the clients of hack/peers and hack/peers-go
//! the tests say so and pass.

use std::fs;

use integration::{Cri, Handler, Sandbox, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const HANDLERS: [Handler; 2] = [Handler::OUR_SHIM, Handler::OUR_SANDBOX];

/// A pod with its own network, a hostname and a name server.
struct Pod<'a> {
    cri: &'a Cri,
    id: String,
    request: String,
    name: &'static str,
}

impl<'a> Pod<'a> {
    #[track_caller]
    fn run(cri: &'a Cri, handler: Handler) -> Self {
        Self::run_with(cri, handler, &json!({}))
    }

    /// With other namespaces than the pod's own: CRI's `NamespaceOption`.
    #[track_caller]
    fn run_with(cri: &'a Cri, handler: Handler, namespaces: &Value) -> Self {
        let mut request = json!({
            "dns_config": {"servers": ["10.77.0.53"], "searches": ["pods.example"]},
            "linux": {"security_context": {"namespace_options": namespaces}},
        });
        if namespaces.get("network").is_none() {
            request["hostname"] = json!("web");
        }
        if namespaces.get("ipc").is_none() {
            request["linux"]["sysctls"] = json!({"kernel.shm_rmid_forced": "1"});
        }
        let request = cri.pod_request(handler.name, &request);
        let id = cri
            .call(&["runp", "--runtime", handler.name, &request])
            .ok()
            .trim()
            .to_owned();
        Self {
            cri,
            id,
            request,
            name: handler.name,
        }
    }

    #[track_caller]
    fn container(&self, name: &str, script: &str) -> String {
        self.container_with(name, script, &json!({}))
    }

    #[track_caller]
    fn container_with(&self, name: &str, script: &str, namespaces: &Value) -> String {
        let extra = json!({"linux": {"security_context": {"namespace_options": namespaces}}});
        let name = format!("{}-{name}", self.name);
        let request = self.cri.container_request(&name, script, &extra);
        let id = self.cri.call(&["create", &self.id, &request, &self.request]).ok();
        let id = id.trim().to_owned();
        self.cri.call(&["start", &id]).ok();
        id
    }

    /// `SANDBOX_READY` or `SANDBOX_NOTREADY`; nothing while containerd finds out that a shim died.
    fn state(&self) -> String {
        let inspected = self.cri.call(&["inspectp", "--output=json", &self.id]).stdout;
        let inspected: Value = serde_json::from_str(&inspected).unwrap_or_default();
        inspected["status"]["state"].as_str().unwrap_or("").to_owned()
    }

    /// The shims that work for this pod.
    fn shims(&self) -> Vec<i32> {
        let folder = self.cri.folder().display().to_string();
        processes(|line| line.contains("\0-namespace\0k8s.io\0") && line.contains(&folder))
    }

    #[track_caller]
    fn remove(self) {
        self.cri.call(&["stopp", &self.id]).ok();
        eventually("the pod is not ready", || {
            (self.state() == "SANDBOX_NOTREADY").then_some(())
        });
        // As a kubelet does: containerd refuses while it still cleans up after a shim that died.
        eventually("the pod is removed", || {
            (self.cri.call(&["rmp", &self.id]).code == 0).then_some(())
        });
        assert_eq!(self.cri.call(&["pods", "--quiet"]).ok(), "");
        assert_eq!(self.cri.call(&["ps", "--all", "--quiet"]).ok(), "");
        eventually("its shim ends", || self.shims().is_empty().then_some(()));
    }
}

/// Those whose command line, its words ended by NUL, is one of these.
fn processes(is_one: impl Fn(&str) -> bool) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_one(&String::from_utf8_lossy(&line)))
        })
        .collect()
}

#[track_caller]
fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill -9");
}

#[test]
fn a_pods_containers_share_one_shim_its_namespaces_and_its_files() {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox, &HANDLERS) else {
        return;
    };
    for handler in HANDLERS {
        let pod = Pod::run(&cri, handler);
        assert_eq!(pod.state(), "SANDBOX_READY");
        let ids = ["one", "two"].map(|name| pod.container(name, "echo $0 $$; exec sleep 1000"));
        assert_eq!(pod.shims().len(), 1, "{handler:?}");
        for name in ["one", "two"] {
            let log = cri.folder().join(format!("logs/{}-{name}.log", handler.name));
            eventually("the line is logged", || {
                let text = fs::read_to_string(&log).unwrap_or_default();
                text.contains("stdout F /bin/sh").then_some(())
            });
        }

        let both = |script: &str| ids.each_ref().map(|id| cri.exec(id, script));
        let [first, second] = both("for kind in ipc uts net pid user; do readlink /proc/self/ns/$kind; done");
        assert_eq!(first, second, "{handler:?}");
        let [own, other] = both("readlink /proc/self/ns/mnt");
        assert_ne!(own, other);
        for (script, expected) in [
            ("hostname; cat /etc/hostname", "web\nweb"),
            (
                "cat /etc/resolv.conf",
                "search pods.example\nnameserver 10.77.0.53",
            ),
            ("cat /proc/sys/kernel/shm_rmid_forced", "1"),
            ("grep -c localhost /etc/hosts >/dev/null && echo yes", "yes"),
            ("stat -f -c %T /dev/shm; stat -c %a /dev/shm", "tmpfs\n1777"),
        ] {
            assert_eq!(
                both(script),
                [expected, expected],
                "{script} with {}",
                handler.name
            );
        }
        assert!(cri.exec(&ids[0], "ip address show eth0").contains(Cri::ADDRESS));
        let seen = cri.exec(&ids[0], "ps -o args");
        assert_eq!(
            seen.lines().filter(|line| *line == "sleep 1000").count(),
            2,
            "{seen}"
        );
        cri.exec(&ids[0], "echo hello >/dev/shm/x");
        assert_eq!(cri.exec(&ids[1], "cat /dev/shm/x"), "hello");

        let stats: Value =
            serde_json::from_str(&cri.call(&["statsp", "--output=json"]).ok()).expect("crictl's JSON");
        let linux = &stats["stats"][0]["linux"];
        let used = linux["memory"]["workingSetBytes"]["value"]
            .as_str()
            .and_then(|used| used.parse::<u64>().ok())
            .expect("a number of bytes");
        assert!(used > 0, "{stats}");
        assert_eq!(linux["containers"].as_array().map_or(0, Vec::len), 2, "{stats}");
        pod.remove();
    }
}

#[test]
fn a_pod_may_have_namespaces_of_the_node() {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox, &HANDLERS) else {
        return;
    };
    let node = ["ipc", "pid", "uts"].map(|kind| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("read a namespace");
        link.display().to_string()
    });
    // 2 is the node in the interface's enumeration.
    let mut cases = vec![
        (Handler::OUR_SHIM, json!({"pid": 2, "ipc": 2})),
        (Handler::OUR_SANDBOX, json!({"pid": 2, "ipc": 2})),
        (Handler::OUR_SHIM, json!({"network": 2, "pid": 2, "ipc": 2})),
    ];
    if cri.version() >= (2, 4) {
        // Before, containerd itself crashes at such a pod (its issue 12983). `shim_sandbox` has the case for our part.
        cases.push((Handler::OUR_SANDBOX, json!({"network": 2, "pid": 2, "ipc": 2})));
    }
    for (handler, namespaces) in cases {
        let pod = Pod::run_with(&cri, handler, &namespaces);
        let container = pod.container_with("one", "exec sleep 1000", &namespaces);
        let seen = cri.exec(
            &container,
            "for kind in ipc pid uts; do readlink /proc/self/ns/$kind; done",
        );
        let seen: Vec<_> = seen.lines().collect();
        assert_eq!(seen[..2], node[..2], "{handler:?}");
        let has_own_network = namespaces.get("network").is_none();
        assert_eq!(
            seen[2] != node[2],
            has_own_network,
            "a pod on the node's network has its hostname too"
        );
        pod.remove();
    }
}

#[test]
fn a_pod_may_have_users_of_its_own() {
    let sandbox = Sandbox::new();
    let handlers = HANDLERS.map(|handler| Handler {
        options: false,
        ..handler
    });
    let Some(cri) = Cri::start(&sandbox, &handlers) else {
        return;
    };
    let ids = json!([{"host_id": 100_000, "container_id": 0, "length": 65_536}]);
    let namespaces = json!({"userns_options": {"mode": 0, "uids": ids, "gids": ids}});
    for handler in handlers {
        let pod = Pod::run_with(&cri, handler, &namespaces);
        let id = pod.container_with("one", "exec sleep 1000", &namespaces);
        let other = pod.container_with("two", "exec sleep 1000", &namespaces);
        let map = cri.exec(&id, "cat /proc/self/uid_map");
        assert_eq!(
            map.split_whitespace().collect::<Vec<_>>(),
            ["0", "100000", "65536"]
        );
        let script = "for kind in user net ipc; do readlink /proc/self/ns/$kind; done";
        assert_eq!(cri.exec(&id, script), cri.exec(&other, script), "{handler:?}");
        // Root of the pod is root over its network.
        cri.exec(&id, "ip link set eth0 down");
        assert_eq!(
            cri.exec(&id, "id -u; stat -c %u /bin; cat /etc/hostname"),
            "0\n0\nweb"
        );
        pod.remove();
    }
}

#[test]
fn a_killed_shims_pod_is_not_ready_and_goes_without_a_trace() {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox, &HANDLERS) else {
        return;
    };
    for handler in HANDLERS {
        let pod = Pod::run(&cri, handler);
        let ids = ["one", "two"].map(|name| pod.container(name, "exec sleep 1000"));
        kill_hard(pod.shims()[0]);
        eventually("the pod is not ready", || {
            (pod.state() == "SANDBOX_NOTREADY").then_some(())
        });
        for id in &ids {
            // containerd has lost its shim and tells of an unknown exit.
            eventually("its container has exited", || {
                let status = cri.status(id);
                (status["state"] == "CONTAINER_EXITED" && status["exitCode"] != 0).then_some(())
            });
        }
        pod.remove();
    }
}

#[test]
fn a_pod_whose_own_process_ends_is_not_ready() {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox, &HANDLERS) else {
        return;
    };
    for handler in HANDLERS {
        let pod = Pod::run(&cri, handler);
        let own = json!({"pid": 1});
        let alone = pod.container_with("alone", "exec sleep 1000", &own);
        let sharing = pod.container("sharing", "exec sleep 1000");
        let pid = cri.inspect("inspectp", &pod.id)["info"]["pid"].as_i64();
        kill_hard(pid.expect("the pid of the pod's process") as i32);
        eventually("the pod is not ready", || {
            (pod.state() == "SANDBOX_NOTREADY").then_some(())
        });
        // It was the first process of the pod's pid namespace; who has one of its own lives on.
        eventually("the one that shared its pid namespace ended", || {
            (cri.status(&sharing)["state"] == "CONTAINER_EXITED").then_some(())
        });
        assert_eq!(cri.status(&sharing)["exitCode"], 137);
        assert_eq!(cri.status(&alone)["state"], "CONTAINER_RUNNING");
        pod.remove();
    }
}

#[test]
fn pods_outlive_containerd() {
    let sandbox = Sandbox::new();
    let Some(mut cri) = Cri::start(&sandbox, &HANDLERS) else {
        return;
    };
    for handler in HANDLERS {
        let pod = Pod::run(&cri, handler);
        let script = "while ! [ -e /dev/shm/go ]; do sleep 0.05; done; echo later; exec sleep 1000";
        let container = pod.container("one", script);
        let (id, request, shims) = (pod.id.clone(), pod.request.clone(), pod.shims());
        cri.kill();
        cri.start_again();
        let pod = Pod {
            cri: &cri,
            id,
            request,
            name: handler.name,
        };
        assert_eq!(pod.state(), "SANDBOX_READY");
        assert_eq!(cri.status(&container)["state"], "CONTAINER_RUNNING");
        assert_eq!(pod.shims(), shims);
        cri.exec(&container, "touch /dev/shm/go");
        eventually("what it writes now is logged too", || {
            (cri.call(&["logs", &container]).stdout == "later\n").then_some(())
        });
        let second = pod.container("two", "exec sleep 1000");
        assert_eq!(
            cri.exec(&second, "readlink /proc/self/ns/ipc"),
            cri.exec(&container, "readlink /proc/self/ns/ipc"),
            "a new container joins the pod"
        );
        pod.remove();
    }
}
