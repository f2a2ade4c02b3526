//! Rules of the runtime spec that types alone don't hold, checked before anything is done. Rules that belong to
//! one kernel concern (mounts, cgroups, seccomp, namespaces, capabilities) are checked by that concern's plan.

use std::path::Path;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Hook, Linux, LinuxIdMapping, Process, Spec, User};

use crate::error::{Error, Result};
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::Namespaces;
use crate::net_devices::NetDevices;

/// Checks everything that is not checked where a plan is made.
pub(crate) fn spec(spec: &Spec) -> Result<()> {
    version(spec.version())?;
    let not_here = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    if let Some((name, _)) = not_here.iter().find(|(_, there)| *there) {
        return Err(Error::spec(*name, "this runtime makes Linux containers only"));
    }
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::spec("root", "is required"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::spec("root.path", "must not be empty"));
    }
    let process_spec = spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::spec("process", "is required"))?;
    process(process_spec)?;
    let namespaces = Namespaces::from_spec(spec)?;
    if !namespaces.has(CloneFlags::CLONE_NEWNS) {
        without_mount_namespace(spec, &namespaces)?;
    }
    if !namespaces.has(CloneFlags::CLONE_NEWUTS) {
        for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            if value.as_ref().is_some_and(|value| !value.is_empty()) {
                return Err(Error::spec(name, "needs a UTS namespace in linux.namespaces"));
            }
        }
    }
    for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if value.as_ref().is_some_and(|value| value.len() > 64) {
            return Err(Error::spec(name, "must be at most 64 bytes long"));
        }
    }
    hooks(spec)?;
    if let Some(linux_spec) = spec.linux() {
        linux(linux_spec, &namespaces)?;
        if namespaces.makes(CloneFlags::CLONE_NEWUSER) {
            mapped(process_spec.user(), linux_spec)?;
        }
    }
    Ok(())
}

/// What would change the host's mounts, as far as the container has a field for it.
fn without_mount_namespace(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    const RULE: &str = "needs a mount namespace in linux.namespaces";
    if namespaces.has(CloneFlags::CLONE_NEWUSER) {
        let rule = "a user namespace needs a mount namespace beside it: its root may not mount in the host's";
        return Err(Error::spec("linux.namespaces", rule));
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    for (field, paths) in [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ] {
        if paths.as_ref().is_some_and(|paths| !paths.is_empty()) {
            return Err(Error::spec(format!("linux.{field}"), RULE));
        }
    }
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    if propagation.is_empty() {
        Ok(())
    } else {
        Err(Error::spec("linux.rootfsPropagation", RULE))
    }
}

fn version(version: &str) -> Result<()> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(1)), Some(Ok(_)), Some(Ok(_))) => Ok(()),
        _ if version.is_empty() => Err(Error::spec("ociVersion", "is required")),
        _ => Err(Error::spec(
            "ociVersion",
            format!("{version:?} is not supported (known: 1.0.0 to 1.3.0)"),
        )),
    }
}

/// Rules of the process, of config.json or of `exec --process`.
pub(crate) fn process(process: &Process) -> Result<()> {
    let arguments = process.args().as_deref().unwrap_or_default();
    if arguments.first().is_none_or(String::is_empty) {
        return Err(Error::spec("process.args", "must name a program"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::spec("process.cwd", "must be an absolute path"));
    }
    if process.command_line().is_some() {
        return Err(Error::spec("process.commandLine", "is for Windows only"));
    }
    if process.user().username().is_some() {
        return Err(Error::spec(
            "process.user.username",
            "is for Windows only; use uid and gid",
        ));
    }
    for (field, id) in [("uid", process.user().uid()), ("gid", process.user().gid())] {
        if id == u32::MAX {
            return Err(Error::spec(
                format!("process.user.{field}"),
                "4294967295 means no id to the kernel",
            ));
        }
    }
    if process.user().umask().is_some_and(|mask| mask > 0o777) {
        return Err(Error::spec("process.user.umask", "must be at most 0777 (511)"));
    }
    for (index, entry) in process.env().as_deref().unwrap_or_default().iter().enumerate() {
        let (name, _) = entry.split_once('=').unwrap_or_default();
        if name.is_empty() || entry.contains('\0') {
            return Err(Error::spec(
                format!("process.env[{index}]"),
                format!("{entry:?} is not NAME=VALUE"),
            ));
        }
    }
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::spec("process.args", "must not contain a NUL character"));
    }
    if process
        .oom_score_adj()
        .is_some_and(|score| !(-1000..=1000).contains(&score))
    {
        return Err(Error::spec("process.oomScoreAdj", "must be from -1000 to 1000"));
    }
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        let path = format!("process.rlimits[{index}]");
        if limit.soft() > limit.hard() {
            return Err(Error::spec(path, "soft must not be above hard"));
        }
        if limits[..index].iter().any(|earlier| earlier.typ() == limit.typ()) {
            return Err(Error::spec(path, format!("{} is there twice", limit.typ())));
        }
    }
    if process
        .console_size()
        .is_some_and(|size| size.height() > 65_535 || size.width() > 65_535)
    {
        return Err(Error::spec(
            "process.consoleSize",
            "height and width must be at most 65535",
        ));
    }
    if process
        .apparmor_profile()
        .as_ref()
        .is_some_and(|profile| !profile.is_empty())
        && !Path::new("/sys/kernel/security/apparmor").exists()
    {
        return Err(Error::spec(
            "process.apparmorProfile",
            "AppArmor is not enabled on this host",
        ));
    }
    needs_selinux("process.selinuxLabel", process.selinux_label().as_ref())?;
    Ok(())
}

fn needs_selinux(path: &str, label: Option<&String>) -> Result<()> {
    if label.is_some_and(|label| !label.is_empty()) && !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Error::spec(path, "SELinux is not enabled on this host"));
    }
    Ok(())
}

fn hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated)]
    let kinds: [(&str, &Option<Vec<Hook>>); 6] = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in kinds {
        for (index, hook) in list.iter().flatten().enumerate() {
            let path = format!("hooks.{kind}[{index}]");
            if !hook.path().is_absolute() {
                return Err(Error::spec(format!("{path}.path"), "must be absolute"));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(Error::spec(
                    format!("{path}.timeout"),
                    "must be more than 0 seconds",
                ));
            }
        }
    }
    Ok(())
}

fn linux(linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    let user_maps = [
        ("uidMappings", linux.uid_mappings()),
        ("gidMappings", linux.gid_mappings()),
    ];
    for (field, maps) in user_maps {
        let path = format!("linux.{field}");
        let maps = maps.as_deref().unwrap_or_default();
        if namespaces.makes(CloneFlags::CLONE_NEWUSER) {
            mappings(&path, maps)?;
        } else if !maps.is_empty() && !namespaces.has(CloneFlags::CLONE_NEWUSER) {
            return Err(Error::spec(path, "needs a user namespace in linux.namespaces"));
        }
    }
    for (name, value) in linux.sysctl().iter().flatten() {
        sysctl(name, value, namespaces)?;
    }
    needs_selinux("linux.mountLabel", linux.mount_label().as_ref())?;
    MemoryPolicy::from_spec(linux)?;
    NetDevices::from_spec(linux, namespaces.has(CloneFlags::CLONE_NEWNET))?;
    if linux
        .personality()
        .as_ref()
        .is_some_and(|p| p.flags().as_ref().is_some_and(|flags| !flags.is_empty()))
    {
        return Err(Error::spec(
            "linux.personality.flags",
            "the spec defines no flags",
        ));
    }
    Ok(())
}

fn mappings(path: &str, maps: &[LinuxIdMapping]) -> Result<()> {
    if maps.is_empty() {
        return Err(Error::spec(
            path,
            "a new user namespace needs at least one mapping",
        ));
    }
    if maps.len() > 340 {
        return Err(Error::spec(path, "the kernel takes at most 340 mappings"));
    }
    if let Some(index) = maps.iter().position(|map| map.size() == 0) {
        return Err(Error::spec(format!("{path}[{index}].size"), "must not be 0"));
    }
    Ok(())
}

/// In a new user namespace a process can be no user but one that is mapped.
fn mapped(user: &User, linux: &Linux) -> Result<()> {
    let has = |maps: &Option<Vec<LinuxIdMapping>>, id: u32| {
        let mut maps = maps.iter().flatten();
        maps.any(|map| id >= map.container_id() && id - map.container_id() < map.size())
    };
    let (users, groups) = (linux.uid_mappings(), linux.gid_mappings());
    let additional = user.additional_gids().iter().flatten().enumerate();
    let ids = [
        ("uid".into(), user.uid(), users),
        ("gid".into(), user.gid(), groups),
    ]
    .into_iter()
    .chain(additional.map(|(index, gid)| (format!("additionalGids[{index}]"), *gid, groups)));
    for (field, id, maps) in ids {
        if !has(maps, id) {
            let list = if field == "uid" {
                "uidMappings"
            } else {
                "gidMappings"
            };
            return Err(Error::spec(
                format!("process.user.{field}"),
                format!("{id} is not mapped by linux.{list}"),
            ));
        }
    }
    Ok(())
}

/// Those that belong to an IPC namespace, beside `fs.mqueue.*`.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// A sysctl must belong to a namespace that is the container's own, or it would change the host.
fn sysctl(name: &str, value: &str, namespaces: &Namespaces) -> Result<()> {
    let path = format!("linux.sysctl.{name}");
    let dotted = name.replace('/', ".");
    let legal = dotted
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':'));
    if dotted.is_empty() || !legal || dotted.split('.').any(str::is_empty) {
        return Err(Error::spec(path, "is not the name of a sysctl"));
    }
    if value.contains('\0') {
        return Err(Error::spec(path, "must not contain a NUL character"));
    }
    let (namespace, kind) = if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        ("ipc", CloneFlags::CLONE_NEWIPC)
    } else if dotted.starts_with("net.") {
        ("network", CloneFlags::CLONE_NEWNET)
    } else if dotted.starts_with("user.") {
        ("user", CloneFlags::CLONE_NEWUSER)
    } else if dotted == "kernel.domainname" {
        ("uts", CloneFlags::CLONE_NEWUTS)
    } else if dotted == "kernel.hostname" {
        return Err(Error::spec(path, "use the field hostname"));
    } else {
        return Err(Error::spec(path, "is not in a separate kernel namespace"));
    };
    if !namespaces.has(kind) {
        return Err(Error::spec(
            path,
            format!("needs a namespace of type {namespace} in linux.namespaces"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh"]},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network"}]}
        })
    }

    fn check(change: impl FnOnce(&mut Value)) -> std::result::Result<(), String> {
        let mut value = base();
        change(&mut value);
        spec(&serde_json::from_value(value).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_sound_configuration_passes() {
        check(|_| ()).unwrap();
        check(|v| v["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"})).unwrap();
        check(|v| v["ociVersion"] = json!("1.2.0-dev")).unwrap();
    }

    #[test]
    fn each_broken_rule_is_named_by_its_path() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 20] = [
            ("ociVersion", |v| v["ociVersion"] = json!("2.0.0")),
            ("root", |v| drop(v.as_object_mut().unwrap().remove("root"))),
            ("process", |v| drop(v.as_object_mut().unwrap().remove("process"))),
            ("process.args", |v| v["process"]["args"] = json!([])),
            ("process.cwd", |v| v["process"]["cwd"] = json!("tmp")),
            ("process.env[1]", |v| v["process"]["env"] = json!(["A=1", "=2"])),
            ("process.user.umask", |v| {
                v["process"]["user"]["umask"] = json!(512);
            }),
            ("process.oomScoreAdj", |v| {
                v["process"]["oomScoreAdj"] = json!(1001);
            }),
            ("process.rlimits[0]", |v| {
                v["process"]["rlimits"] = json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]);
            }),
            ("linux.namespaces", |v| {
                v["linux"]["namespaces"] = json!([{"type": "user"}]);
            }),
            ("linux.maskedPaths", |v| {
                v["linux"] = json!({"maskedPaths": ["/proc/kcore"]});
            }),
            ("linux.rootfsPropagation", |v| {
                v["linux"] = json!({"rootfsPropagation": "rshared"});
            }),
            ("hostname", |v| {
                v["hostname"] = json!("x");
                v["linux"]["namespaces"] = json!([{"type": "mount"}]);
            }),
            ("hooks.poststop[0].path", |v| {
                v["hooks"] = json!({"poststop": [{"path": "x"}]});
            }),
            ("hooks.prestart[0].timeout", |v| {
                v["hooks"] = json!({"prestart": [{"path": "/x", "timeout": 0}]});
            }),
            ("linux.uidMappings", |v| {
                v["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
            }),
            ("linux.uidMappings", |v| {
                v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}, {"type": "uts"}]);
            }),
            ("linux.sysctl.kernel.panic", |v| {
                v["linux"]["sysctl"] = json!({"kernel.panic": "1"});
            }),
            ("linux.sysctl.kernel.msgmax", |v| {
                v["linux"]["sysctl"] = json!({"kernel.msgmax": "1"});
            }),
            ("linux.memoryPolicy.nodes", |v| {
                v["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND"});
            }),
        ];
        for (path, change) in cases {
            let error = check(change).expect_err(path);
            assert!(
                error.starts_with(&format!("config.json: {path}: ")),
                "{path}: {error}"
            );
        }
    }

    #[test]
    fn a_sysctl_can_not_walk_out_of_proc_sys() {
        for name in ["net/../kernel/panic", "net.ipv4.../x", "net..x", "", "net.ipv4 x"] {
            assert!(
                check(|v| v["linux"]["sysctl"] = json!({name: "1"})).is_err(),
                "{name}"
            );
        }
    }
}
