//! The default seccomp profile: what Docker's published rules allow, as `linux.seccomp` of config.json. The
//! lists are data, in `seccomp.json`; the rules with arguments stand here.

mod profile;

pub(crate) use profile::own;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Value, json};

const PROFILE: &str = include_str!("seccomp.json");

/// All `CLONE_NEW*` flags but that of time namespaces, which clone cannot make: a process without
/// `CAP_SYS_ADMIN` may fork, but make no namespace.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `personality` values that change nothing dangerous: Linux, 32-bit Linux, UTS names of 2.6, both, and the
/// question which is set.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const AF_ALG: u64 = 38;
const AF_NFC: u64 = 39;
const AF_VSOCK: u64 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

#[derive(Deserialize)]
struct Profile {
    /// For everybody, by theme.
    allow: BTreeMap<String, Vec<String>>,
    /// Only one architecture has these.
    allow_on: BTreeMap<String, Vec<String>>,
    /// Allowed to a container that has the capability.
    allow_with: BTreeMap<String, Vec<String>>,
}

fn profile() -> Option<&'static Profile> {
    static READ: OnceLock<Option<Profile>> = OnceLock::new();
    // A profile that does not parse fails this file's test, so None never leaves a build.
    READ.get_or_init(|| serde_json::from_str(PROFILE).ok()).as_ref()
}

/// The profile for a container with these capabilities.
pub(super) fn default_profile(capabilities: &[String]) -> Value {
    let Some(profile) = profile() else {
        return json!({"defaultAction": "SCMP_ACT_ERRNO"});
    };
    let has = |capability: &str| capabilities.iter().any(|held| held == capability);
    let mut names: Vec<&str> = profile.allow.values().flatten().map(String::as_str).collect();
    if let Some(own) = profile.allow_on.get(std::env::consts::ARCH) {
        names.extend(own.iter().map(String::as_str));
    }
    for (capability, calls) in &profile.allow_with {
        if has(capability) {
            names.extend(calls.iter().map(String::as_str));
        }
    }
    names.sort_unstable();
    names.dedup();

    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    // Neither the kernel's crypto API nor the host's virtual sockets know network namespaces or are needed.
    for (op, family) in [
        ("SCMP_CMP_LT", AF_ALG),
        ("SCMP_CMP_EQ", AF_NFC),
        ("SCMP_CMP_GT", AF_VSOCK),
    ] {
        rules.push(when("socket", &json!({"index": 0, "value": family, "op": op})));
    }
    for value in PERSONALITIES {
        rules.push(when(
            "personality",
            &json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}),
        ));
    }
    if !has("CAP_SYS_ADMIN") {
        // s390 has the flags in its second argument.
        let index = u32::from(std::env::consts::ARCH == "s390x");
        rules.push(when(
            "clone",
            &json!({"index": index, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}),
        ));
        // Its flags are behind a pointer, where no filter can look. "No such call" makes libc use clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

fn when(name: &str, argument: &Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument]})
}

fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "s390x" => &["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value) -> Vec<&str> {
        profile["syscalls"][0]["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    #[test]
    fn a_plain_container_cannot_mount_load_modules_or_make_namespaces() {
        let profile = default_profile(&["CAP_CHOWN".to_owned()]);
        let allowed = allowed(&profile);
        for call in [
            "mount",
            "unshare",
            "setns",
            "clone",
            "clone3",
            "bpf",
            "init_module",
            "keyctl",
            "io_uring_setup",
        ] {
            assert!(!allowed.contains(&call), "{call}");
        }
        for call in ["read", "openat2", "execve", "futex", "ptrace", "arch_prctl"] {
            assert!(
                allowed.contains(&call) || std::env::consts::ARCH != "x86_64",
                "{call}"
            );
        }
        let rules = profile["syscalls"].as_array().unwrap();
        assert!(
            rules
                .iter()
                .any(|rule| rule["names"][0] == "clone" && rule["args"][0]["value"] == NEW_NAMESPACES)
        );
        assert!(
            rules
                .iter()
                .any(|rule| rule["names"][0] == "clone3" && rule["errnoRet"] == ENOSYS)
        );
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let profile = default_profile(&["CAP_SYS_ADMIN".to_owned()]);
        assert!(allowed(&profile).contains(&"mount"));
        assert!(allowed(&profile).contains(&"clone3"));
        assert!(!allowed(&profile).contains(&"init_module"));
    }
}
