//! A profile of somebody's own, in docker's format: `linux.seccomp` of config.json, with rules that count only with, or
//! without, a capability, an architecture or a kernel (moby's `profiles/seccomp`).

use std::fmt::Display;

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;

/// Docker's own profile has 20 KiB.
const PROFILE_MAX_BYTES: usize = 1 << 20;

/// Lists may be null, as Go writes empty ones.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Architecture>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    names: Option<Vec<String>>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Value>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

/// When a rule counts, or does not.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    /// As Go names them.
    arches: Option<Vec<String>>,
    /// `4.8`.
    min_kernel: Option<String>,
}

/// Whom a profile is for.
struct Place<'a> {
    capabilities: &'a [String],
    kernel: (u32, u32),
}

/// `linux.seccomp` of the profile `text`, for a container with these capabilities on this machine.
pub(crate) fn own(text: &str, capabilities: &[String]) -> Result<Value, Error> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = version(release.trim()).unwrap_or((0, 0));
    section(text, &Place { capabilities, kernel })
}

fn section(text: &str, place: &Place) -> Result<Value, Error> {
    if text.len() > PROFILE_MAX_BYTES {
        return Err(wrong(format!(
            "the profile has more than {PROFILE_MAX_BYTES} bytes"
        )));
    }
    let profile: Profile =
        serde_json::from_str(text).map_err(|error| wrong(format!("cannot read the profile: {error}")))?;
    let mut rules = Vec::new();
    for call in profile.syscalls.unwrap_or_default() {
        let counts = call.counts(place)?;
        let rule = call.rule()?;
        // Words that the specification has not are told now, and not by a start that fails.
        serde_json::from_value::<LinuxSyscall>(rule.clone()).map_err(|error| unspecified(&error))?;
        if counts {
            rules.push(rule);
        }
    }
    let mut section = json!({
        "defaultAction": profile.default_action,
        "architectures": architectures(profile.architectures, profile.arch_map)?,
        "syscalls": rules,
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            section[name] = value;
        }
    };
    put("defaultErrnoRet", profile.default_errno_ret.map(Value::from));
    put(
        "flags",
        profile.flags.filter(|flags| !flags.is_empty()).map(Value::from),
    );
    let named = |text: Option<String>| text.filter(|text| !text.is_empty()).map(Value::from);
    put("listenerPath", named(profile.listener_path));
    put("listenerMetadata", named(profile.listener_metadata));
    serde_json::from_value::<LinuxSeccomp>(section.clone()).map_err(|error| unspecified(&error))?;
    Ok(section)
}

impl Call {
    fn counts(&self, place: &Place) -> Result<bool, Error> {
        let native = |arches: &[String]| arches.iter().any(|arch| arch == go_architecture());
        let has = |capability: &String| place.capabilities.contains(capability);
        if let Some(not) = &self.excludes {
            let is_new = not.reaches(place)?.unwrap_or(false);
            if is_new || native(list(not.arches.as_ref())) || list(not.caps.as_ref()).iter().any(has) {
                return Ok(false);
            }
        }
        let Some(only) = &self.includes else {
            return Ok(true);
        };
        let arches = list(only.arches.as_ref());
        let is_new = only.reaches(place)?.unwrap_or(true);
        Ok(is_new && (arches.is_empty() || native(arches)) && list(only.caps.as_ref()).iter().all(has))
    }

    fn rule(self) -> Result<Value, Error> {
        let mut names = self.names.unwrap_or_default();
        match self.name.filter(|name| !name.is_empty()) {
            Some(_) if !names.is_empty() => {
                return Err(wrong(
                    "a rule has both 'name' and 'names', where one is to say which calls are meant",
                ));
            }
            name => names.extend(name),
        }
        if names.is_empty() {
            return Err(wrong("a rule names no system call"));
        }
        let mut rule = json!({"names": names, "action": self.action});
        if let Some(number) = self.errno_ret {
            rule["errnoRet"] = number.into();
        }
        if let Some(args) = self.args.filter(|args| !args.is_empty()) {
            rule["args"] = args.into();
        }
        Ok(rule)
    }
}

impl Filter {
    /// Whether the kernel is as new as is asked for. None: nothing is.
    fn reaches(&self, place: &Place) -> Result<Option<bool>, Error> {
        let asked = self.min_kernel.as_deref().filter(|asked| !asked.is_empty());
        asked
            .map(|asked| {
                let wanted = version(asked);
                wanted
                    .map(|wanted| place.kernel >= wanted)
                    .ok_or_else(|| wrong(format!("minKernel {asked:?} is no version such as 4.8")))
            })
            .transpose()
    }
}

fn list(list: Option<&Vec<String>>) -> &[String] {
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Those of the profile, or of its entry for this machine.
fn architectures(plain: Option<Vec<String>>, map: Option<Vec<Architecture>>) -> Result<Vec<String>, Error> {
    let (plain, map) = (plain.unwrap_or_default(), map.unwrap_or_default());
    if !plain.is_empty() && !map.is_empty() {
        return Err(wrong("the profile has both 'architectures' and 'archMap'"));
    }
    let own = map
        .into_iter()
        .find(|entry| entry.architecture == native_architecture());
    Ok(match own {
        Some(entry) => [
            vec![entry.architecture],
            entry.sub_architectures.unwrap_or_default(),
        ]
        .concat(),
        None => plain,
    })
}

fn native_architecture() -> &'static str {
    super::architectures().first().copied().unwrap_or_default()
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The first two numbers of a kernel's version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn unspecified(error: &serde_json::Error) -> Error {
    wrong(format!(
        "the profile does not follow the runtime specification: {error}"
    ))
}

fn wrong(rule: impl Display) -> Error {
    Error::invalid("security_opts", format!("seccomp: {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOWN: &str = "CAP_CHOWN";

    fn read(profile: &Value) -> Result<Value, Error> {
        let capabilities = [CHOWN.to_owned()];
        let place = Place {
            capabilities: &capabilities,
            kernel: (5, 10),
        };
        section(&profile.to_string(), &place)
    }

    fn with(call: &Value) -> Value {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [call]})
    }

    #[test]
    fn a_rule_counts_where_its_filters_say_so() {
        let go = go_architecture();
        for (includes, excludes, counts) in [
            (json!({}), json!({}), true),
            (json!({"caps": [CHOWN]}), json!(null), true),
            (json!({"caps": [CHOWN, "CAP_SYS_ADMIN"]}), json!(null), false),
            (json!(null), json!({"caps": ["CAP_SYS_ADMIN"]}), true),
            (json!(null), json!({"caps": ["CAP_SYS_ADMIN", CHOWN]}), false),
            (json!({"arches": [go, "mips"]}), json!(null), true),
            (json!({"arches": ["mips"]}), json!(null), false),
            (json!(null), json!({"arches": [go]}), false),
            (json!({"minKernel": "5.10"}), json!(null), true),
            (json!({"minKernel": "5.11"}), json!(null), false),
            (json!(null), json!({"minKernel": "4.8"}), false),
            (json!({"caps": null, "arches": []}), json!({"caps": null}), true),
        ] {
            let call = json!({"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "args": null,
                              "includes": includes, "excludes": excludes});
            let found = read(&with(&call)).unwrap();
            assert_eq!(found["syscalls"].as_array().unwrap().len() == 1, counts, "{call}");
        }
    }

    #[test]
    fn a_profile_becomes_the_runtimes() {
        let native = native_architecture();
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": null, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "archMap": [{"architecture": "SCMP_ARCH_MIPS", "subArchitectures": null},
                        {"architecture": native, "subArchitectures": ["SCMP_ARCH_X32"]}],
            "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "comment": "no room",
                          "args": [{"index": 1, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}],
        });
        let expected = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "architectures": [native, "SCMP_ARCH_X32"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
                          "args": [{"index": 1, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]}],
        });
        assert_eq!(read(&profile).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_told() {
        let call = |more: Value| {
            let mut call = json!({"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"});
            call.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            with(&call)
        };
        let map = [json!({"architecture": "SCMP_ARCH_X86"})];
        for (profile, words) in [
            (json!([]), "cannot read"),
            (json!({}), "defaultAction"),
            (json!({"defaultAction": "SCMP_ACT_FLY"}), "SCMP_ACT_FLY"),
            (call(json!({"name": "rmdir"})), "both 'name' and 'names'"),
            (call(json!({"names": []})), "names no system call"),
            (call(json!({"action": "allow"})), "allow"),
            (
                call(json!({"action": "SCMP_ACT_FLY", "includes": {"caps": ["CAP_SYS_ADMIN"]}})),
                "SCMP_ACT_FLY",
            ),
            (call(json!({"includes": {"minKernel": "new"}})), "minKernel"),
            (
                call(json!({"args": [{"index": 0, "op": "SCMP_CMP_LIKE", "value": 1}]})),
                "SCMP_CMP_LIKE",
            ),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": map}),
                "archMap",
            ),
        ] {
            let refused = read(&profile).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
