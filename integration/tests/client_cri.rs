//! crictl and containerd's CRI service with our runtime, below containerd's shim and ours: what a kubelet does with the
//! containers of pods (what it does with pods themselves is in `client_sandbox`). Without the clients of hack/peers
//! and hack/peers-go the tests say so and pass. (CRI-O itself is in no package registry.)

use integration::{Cri, Handler, Sandbox, eventually};
use serde_json::{Value, json};

#[test]
fn with_containerds_shim_a_pods_containers_live_and_end_as_a_kubelet_asks() {
    live_and_end(Handler::CONTAINERDS_SHIM);
}

#[test]
fn with_our_shim_a_pods_containers_live_and_end_as_a_kubelet_asks() {
    live_and_end(Handler::OUR_SHIM);
}

#[test]
fn with_our_sandbox_a_pods_containers_live_and_end_as_a_kubelet_asks() {
    live_and_end(Handler::OUR_SANDBOX);
}

fn live_and_end(handler: Handler) {
    let sandbox = Sandbox::new();
    let Some(cri) = Cri::start(&sandbox, &[handler]) else {
        return;
    };
    let pod_request = cri.pod_request("pod", &json!({}));
    let pod = cri.call(&["runp", &pod_request]).ok().trim().to_owned();
    let create = |name: &str, script: &str| {
        let request = cri.container_request(name, script, &json!({}));
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

    // Containers of a pod share its IPC, UTS and network namespaces.
    let second = create("second", "exit 3");
    let third = create("third", "sleep 1000");
    cri.call(&["start", &second]).ok();
    cri.call(&["start", &third]).ok();
    let namespaces = |id: &str| {
        cri.exec(
            id,
            "for kind in ipc uts net; do readlink /proc/self/ns/$kind; done",
        )
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
