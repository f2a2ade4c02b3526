//! The two topmost objects of config.json as they are read; all below them are `oci_spec`'s own.
//!
//! `oci_spec` checks one field of `process` (`execCPUAffinity`) with a regular expression. Its reader of `Spec` and
//! of `Process` so brings a whole engine for them into the program: 0.7 MB of code and its tables, which made the
//! file 4.0 MB in place of 2.7, and 89 page faults before `main` had done anything in place of 54. Read by these
//! types, with `crate::scheduling`'s own check of that field, nothing of it is linked.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use oci_spec::runtime::{
    Box as ConsoleSize, Capability, ExecCPUAffinity, Hooks, Linux, LinuxCapabilities, LinuxIOPriority,
    LinuxResources, LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy, Mount, PosixRlimit, Process, Root,
    Scheduler, Solaris, Spec, User, VM, Windows, ZOS,
};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;
use serde_json::Value;

use crate::log;

/// `config.json`.
#[derive(Deserialize)]
pub(crate) struct SpecText {
    #[serde(default, rename = "ociVersion")]
    version: String,
    root: Option<Root>,
    mounts: Option<Vec<Mount>>,
    process: Option<ProcessText>,
    hostname: Option<String>,
    domainname: Option<String>,
    hooks: Option<Hooks>,
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
    solaris: Option<Solaris>,
    windows: Option<Windows>,
    vm: Option<VM>,
    zos: Option<ZOS>,
}

/// `process` in it, and the file of `exec --process`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessText {
    terminal: Option<bool>,
    console_size: Option<ConsoleSize>,
    /// Root, where nothing is said, as runc takes it.
    #[serde(default)]
    user: User,
    args: Option<Vec<String>>,
    command_line: Option<String>,
    env: Option<Vec<String>>,
    cwd: PathBuf,
    capabilities: Option<CapabilitiesText>,
    rlimits: Option<Vec<PosixRlimit>>,
    no_new_privileges: Option<bool>,
    apparmor_profile: Option<String>,
    oom_score_adj: Option<i32>,
    selinux_label: Option<String>,
    io_priority: Option<LinuxIOPriority>,
    scheduler: Option<SchedulerText>,
    #[serde(rename = "execCPUAffinity")]
    exec_cpu_affinity: Option<AffinityText>,
}

/// Names as text: one that is unknown is no error (config.md, `process.capabilities`).
#[derive(Deserialize)]
struct CapabilitiesText {
    bounding: Option<Vec<String>>,
    effective: Option<Vec<String>>,
    permitted: Option<Vec<String>>,
    inheritable: Option<Vec<String>>,
    ambient: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct AffinityText {
    initial: Option<String>,
    r#final: Option<String>,
}

/// `oci_spec` calls two of the flags by names that are not the specification's.
#[derive(Deserialize)]
struct SchedulerText {
    policy: LinuxSchedulerPolicy,
    nice: Option<i32>,
    priority: Option<i32>,
    flags: Option<Vec<FlagText>>,
    runtime: Option<u64>,
    deadline: Option<u64>,
    period: Option<u64>,
}

#[derive(Deserialize)]
enum FlagText {
    #[serde(rename = "SCHED_FLAG_RESET_ON_FORK")]
    ResetOnFork,
    #[serde(rename = "SCHED_FLAG_RECLAIM")]
    Reclaim,
    #[serde(rename = "SCHED_FLAG_DL_OVERRUN")]
    Overrun,
    #[serde(rename = "SCHED_FLAG_KEEP_POLICY")]
    KeepPolicy,
    #[serde(rename = "SCHED_FLAG_KEEP_PARAMS")]
    KeepParams,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MIN")]
    UtilClampMin,
    #[serde(rename = "SCHED_FLAG_UTIL_CLAMP_MAX")]
    UtilClampMax,
}

impl From<SpecText> for Spec {
    fn from(text: SpecText) -> Self {
        let mut spec = Self::default();
        spec.set_version(text.version)
            .set_root(text.root)
            .set_mounts(text.mounts)
            .set_process(text.process.map(Process::from))
            .set_hostname(text.hostname)
            .set_domainname(text.domainname)
            .set_hooks(text.hooks)
            .set_annotations(text.annotations)
            .set_linux(text.linux)
            .set_solaris(text.solaris)
            .set_windows(text.windows)
            .set_vm(text.vm)
            .set_zos(text.zos);
        spec
    }
}

impl From<ProcessText> for Process {
    fn from(text: ProcessText) -> Self {
        let mut process = Self::default();
        process
            .set_terminal(text.terminal)
            .set_console_size(text.console_size)
            .set_user(text.user)
            .set_args(text.args)
            .set_command_line(text.command_line)
            .set_env(text.env)
            .set_cwd(text.cwd)
            .set_capabilities(text.capabilities.map(LinuxCapabilities::from))
            .set_rlimits(text.rlimits)
            .set_no_new_privileges(text.no_new_privileges)
            .set_apparmor_profile(text.apparmor_profile)
            .set_oom_score_adj(text.oom_score_adj)
            .set_selinux_label(text.selinux_label)
            .set_io_priority(text.io_priority)
            .set_scheduler(text.scheduler.map(Scheduler::from))
            .set_exec_cpu_affinity(text.exec_cpu_affinity.map(ExecCPUAffinity::from));
        process
    }
}

impl From<SchedulerText> for Scheduler {
    fn from(text: SchedulerText) -> Self {
        let flags = text
            .flags
            .map(|flags| flags.into_iter().map(Flag::from).collect());
        let mut scheduler = Self::default();
        scheduler
            .set_policy(text.policy)
            .set_nice(text.nice)
            .set_priority(text.priority)
            .set_flags(flags)
            .set_runtime(text.runtime)
            .set_deadline(text.deadline)
            .set_period(text.period);
        scheduler
    }
}

impl From<FlagText> for Flag {
    fn from(flag: FlagText) -> Self {
        match flag {
            FlagText::ResetOnFork => Self::SchedResetOnFork,
            FlagText::Reclaim => Self::SchedFlagReclaim,
            FlagText::Overrun => Self::SchedFlagDLOverrun,
            FlagText::KeepPolicy => Self::SchedFlagKeepPolicy,
            FlagText::KeepParams => Self::SchedFlagKeepParams,
            FlagText::UtilClampMin => Self::SchedFlagUtilClampMin,
            FlagText::UtilClampMax => Self::SchedFlagUtilClampMax,
        }
    }
}

impl From<CapabilitiesText> for LinuxCapabilities {
    fn from(text: CapabilitiesText) -> Self {
        let mut unknown = BTreeSet::new();
        let mut known = |names: Option<Vec<String>>| {
            let known = |name: String| {
                let text: StrDeserializer<'_, serde::de::value::Error> = name.as_str().into_deserializer();
                let capability = Capability::deserialize(text).ok();
                if capability.is_none() {
                    unknown.insert(name);
                }
                capability
            };
            Some(names?.into_iter().filter_map(known).collect::<HashSet<_>>())
        };
        let mut sets = Self::default();
        sets.set_bounding(known(text.bounding))
            .set_effective(known(text.effective))
            .set_permitted(known(text.permitted))
            .set_inheritable(known(text.inheritable))
            .set_ambient(known(text.ambient));
        if !unknown.is_empty() {
            let names = Vec::from_iter(unknown).join(" ");
            log::warn(&format!(
                "ignoring unknown or unavailable capabilities: [{names}]"
            ));
        }
        sets
    }
}

impl From<AffinityText> for ExecCPUAffinity {
    fn from(text: AffinityText) -> Self {
        let mut affinity = Self::default();
        affinity
            .set_initial(text.initial)
            .set_cpu_affinity_final(text.r#final);
        affinity
    }
}

/// Takes away a `pids` without `limit`, which `oci_spec` reads as a limit of 0: said in so many words, that is one (the
/// lowest there is, as with runc). `resources` stand at `pointer` in `text`.
pub(crate) fn drop_unset_pids(resources: &mut LinuxResources, text: &[u8], pointer: &str) {
    if resources.pids().is_none_or(|pids| pids.limit() != 0) {
        return;
    }
    let is_set = serde_json::from_slice::<Value>(text)
        .is_ok_and(|whole| whole.pointer(&format!("{pointer}/pids/limit")).is_some());
    if !is_set {
        resources.set_pids(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field that both know; one that is forgotten here would be lost.
    #[test]
    fn all_is_read_as_oci_spec_reads_it() {
        let process = r#"{"terminal":true,"consoleSize":{"height":3,"width":4},"user":{"uid":1,"gid":2,"umask":18},
            "args":["a"],"commandLine":"c","env":["A=b"],"cwd":"/x","capabilities":{"bounding":["CAP_KILL"]},
            "rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":2}],"noNewPrivileges":false,"apparmorProfile":"p",
            "oomScoreAdj":7,"selinuxLabel":"s","ioPriority":{"class":"IOPRIO_CLASS_IDLE","priority":1},
            "scheduler":{"policy":"SCHED_BATCH","nice":3},"execCPUAffinity":{"initial":"0-1","final":"0"}}"#;
        let linux = r#"{"cgroupsPath":"/a","namespaces":[{"type":"pid"}]}"#;
        let text = format!(
            r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},"mounts":[{{"destination":"/proc","type":"proc"}}],
            "process":{process},"hostname":"h","domainname":"d","hooks":{{"prestart":[{{"path":"/p"}}]}},
            "annotations":{{"k":"v"}},"linux":{linux},"vm":{{"kernel":{{"path":"/k"}}}}}}"#
        );
        let theirs: Spec = serde_json::from_str(&text).unwrap();
        let ours: SpecText = serde_json::from_str(&text).unwrap();
        assert_eq!(Spec::from(ours), theirs);
        let nothing = r#"{"process":{"user":{"uid":0,"gid":0},"cwd":"/"}}"#;
        let theirs: Spec = serde_json::from_str(nothing).unwrap();
        let ours: SpecText = serde_json::from_str(nothing).unwrap();
        // Only what the specification has: oci_spec's own default for the rest is not wanted.
        assert_eq!(Spec::from(ours).process(), theirs.process());
    }

    #[test]
    fn scheduler_flags_have_the_names_of_the_specification() {
        let names = [
            ("SCHED_FLAG_RESET_ON_FORK", Flag::SchedResetOnFork),
            ("SCHED_FLAG_RECLAIM", Flag::SchedFlagReclaim),
            ("SCHED_FLAG_DL_OVERRUN", Flag::SchedFlagDLOverrun),
            ("SCHED_FLAG_KEEP_POLICY", Flag::SchedFlagKeepPolicy),
            ("SCHED_FLAG_KEEP_PARAMS", Flag::SchedFlagKeepParams),
            ("SCHED_FLAG_UTIL_CLAMP_MIN", Flag::SchedFlagUtilClampMin),
            ("SCHED_FLAG_UTIL_CLAMP_MAX", Flag::SchedFlagUtilClampMax),
        ];
        for (name, wanted) in names {
            let flag: FlagText = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert_eq!(Flag::from(flag), wanted);
        }
    }
}
