//! The OCI configuration of the process that keeps a pod's namespaces.

use std::path::Path;

use serde_json::{Value, json};

use super::pod::{Mapping, Pod};

/// Where other makers of pods have the program, too.
pub(super) const PROGRAM: &str = "pause";

/// User and group that own nothing, as in the pause images of Kubernetes.
const NOBODY: u32 = 65_535;

/// Hidden from containers by default (containerd, docker), and so here: who shares the pid namespace and may trace
/// processes reaches the files of this one.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

/// `rootfs` has the program and little else. `network` and `user` are paths of namespaces that exist; empty ones are made.
pub(super) fn pause(pod: &Pod, rootfs: &Path, cgroups_path: &str, network: &Path, user: &Path) -> Value {
    // The ids of a small user namespace may not reach up to 65535.
    let nobody = if pod.user_namespace.is_some() { 0 } else { NOBODY };
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": [format!("/{PROGRAM}")],
            "cwd": "/",
            "user": {
                "uid": pod.user.unwrap_or(nobody),
                "gid": pod.group.unwrap_or(nobody),
                "additionalGids": pod.supplemental_groups,
            },
            "noNewPrivileges": true,
        },
        "root": {"path": rootfs, "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "noexec", "mode=755", "size=64k"]},
        ],
        "linux": {
            "cgroupsPath": cgroups_path,
            "sysctl": pod.sysctls,
            "maskedPaths": MASKED,
            // The least there is: it never runs.
            "resources": {"cpu": {"shares": 2}, "devices": [{"allow": false, "access": "rwm"}]},
        },
    });
    let mut namespaces = vec![json!({"type": "mount"})];
    if !pod.node_ipc {
        namespaces.push(json!({"type": "ipc"}));
    }
    if !pod.node_pid {
        namespaces.push(json!({"type": "pid"}));
    }
    if !pod.node_network {
        namespaces.push(namespace("network", network));
        // The node's hostname belongs to the node's network.
        namespaces.push(json!({"type": "uts"}));
        if !pod.hostname.is_empty() {
            spec["hostname"] = json!(pod.hostname);
        }
    }
    if let Some(mappings) = &pod.user_namespace {
        namespaces.push(namespace("user", user));
        spec["linux"]["uidMappings"] = mappings.users.iter().map(mapping).collect();
        spec["linux"]["gidMappings"] = mappings.groups.iter().map(mapping).collect();
    }
    spec["linux"]["namespaces"] = namespaces.into();
    spec
}

fn namespace(kind: &str, path: &Path) -> Value {
    if path.as_os_str().is_empty() {
        json!({"type": kind})
    } else {
        json!({"type": kind, "path": path})
    }
}

fn mapping(mapping: &Mapping) -> Value {
    json!({"hostID": mapping.host, "containerID": mapping.container, "size": mapping.length})
}

/// Where the process's group is, in the form that containerd's CRI gives to the pod's containers too: a slice means
/// that systemd makes the groups. Without a parent it is where containerd puts containers without one.
pub(super) fn cgroups_path(parent: &str, namespace: &str, id: &str) -> String {
    let base = parent.rsplit('/').next().unwrap_or_default();
    if parent.is_empty() {
        format!("/{namespace}/{id}")
    } else if base.strip_suffix(".slice").is_some() {
        format!("{base}:cri-containerd:{id}")
    } else {
        format!("{}/{id}", parent.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::pod::Mappings;

    fn namespaces(spec: &Value) -> Vec<String> {
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        namespaces
            .iter()
            .map(|namespace| {
                format!(
                    "{}{}",
                    namespace["type"].as_str().unwrap(),
                    namespace["path"].as_str().unwrap_or("")
                )
            })
            .collect()
    }

    #[test]
    fn the_pods_namespaces_are_made_and_the_nodes_are_kept() {
        let mut pod = Pod {
            hostname: "web".into(),
            ..Pod::default()
        };
        let spec = pause(
            &pod,
            Path::new("/r"),
            "/x",
            Path::new("/run/netns/n"),
            Path::new(""),
        );
        assert_eq!(
            namespaces(&spec),
            ["mount", "ipc", "pid", "network/run/netns/n", "uts"]
        );
        assert_eq!(spec["hostname"], "web");
        pod.node_network = true;
        pod.node_pid = true;
        pod.node_ipc = true;
        let spec = pause(&pod, Path::new("/r"), "/x", Path::new(""), Path::new(""));
        assert_eq!(namespaces(&spec), ["mount"]);
        assert!(spec.get("hostname").is_none(), "that of the node stays");
        pod.user_namespace = Some(Mappings {
            users: vec![Mapping {
                host: 9,
                container: 0,
                length: 5,
            }],
            groups: vec![],
        });
        let spec = pause(
            &pod,
            Path::new("/r"),
            "/x",
            Path::new(""),
            Path::new("/proc/1/fd/5"),
        );
        assert_eq!(namespaces(&spec), ["mount", "user/proc/1/fd/5"]);
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 9);
        assert_eq!(spec["process"]["user"]["uid"], 0);
    }

    #[test]
    fn groups_lie_below_the_pods() {
        assert_eq!(cgroups_path("", "k8s.io", "p"), "/k8s.io/p");
        assert_eq!(cgroups_path("/kubepods/x/", "k8s.io", "p"), "/kubepods/x/p");
        assert_eq!(
            cgroups_path("/kubepods.slice/x.slice", "k8s.io", "p"),
            "x.slice:cri-containerd:p"
        );
    }
}
