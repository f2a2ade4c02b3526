//! Any config.json, mostly one that differs from the default in some fields: an error or a plan that stays where it
//! belongs. Nothing is changed on the machine, as all is checked before anything is done.
#![no_main]
#![allow(dead_code, unused_imports)]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[path = "../../src/bundle.rs"]
mod bundle;
#[path = "../../src/capabilities.rs"]
mod capabilities;
#[path = "../../src/cgroup/mod.rs"]
mod cgroup;
#[path = "../../src/channel.rs"]
mod channel;
#[path = "../../src/checkpoint/mod.rs"]
mod checkpoint;
#[path = "../../src/cli/mod.rs"]
mod cli;
#[path = "../../src/clock.rs"]
mod clock;
#[path = "../../src/config_text.rs"]
mod config_text;
#[path = "../../src/create.rs"]
mod create;
#[path = "../../src/default_config.rs"]
mod default_config;
#[path = "../../src/delete.rs"]
mod delete;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/exec/mod.rs"]
mod exec;
#[path = "../../src/features.rs"]
mod features;
#[path = "../../src/foreground.rs"]
mod foreground;
#[path = "../../src/freeze.rs"]
mod freeze;
#[path = "../../src/gate.rs"]
mod gate;
#[path = "../../src/hooks.rs"]
mod hooks;
#[path = "../../src/id.rs"]
mod id;
#[path = "../../src/id_maps.rs"]
mod id_maps;
#[path = "../../src/init.rs"]
mod init;
#[path = "../../src/intel_rdt.rs"]
mod intel_rdt;
#[path = "../../src/json_path.rs"]
mod json_path;
#[path = "../../src/kill.rs"]
mod kill;
#[path = "../../src/list.rs"]
mod list;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/memory_policy.rs"]
mod memory_policy;
#[path = "../../src/mounts/mod.rs"]
mod mounts;
#[path = "../../src/namespaces.rs"]
mod namespaces;
#[path = "../../src/net_devices.rs"]
mod net_devices;
#[path = "../../src/netlink.rs"]
mod netlink;
#[path = "../../src/newborn.rs"]
mod newborn;
#[path = "../../src/notify.rs"]
mod notify;
#[path = "../../src/phases.rs"]
mod phases;
#[path = "../../src/process.rs"]
mod process;
#[path = "../../src/procfs.rs"]
mod procfs;
#[path = "../../src/program.rs"]
mod program;
#[path = "../../src/protect.rs"]
mod protect;
#[path = "../../src/ps.rs"]
mod ps;
#[path = "../../src/run.rs"]
mod run;
#[path = "../../src/scheduling.rs"]
mod scheduling;
#[path = "../../src/seccomp/mod.rs"]
mod seccomp;
#[path = "../../src/standard_streams.rs"]
mod standard_streams;
#[path = "../../src/start.rs"]
mod start;
#[path = "../../src/state.rs"]
mod state;
#[path = "../../src/sys/mod.rs"]
mod sys;
#[path = "../../src/terminal.rs"]
mod terminal;
#[path = "../../src/trampoline.rs"]
mod trampoline;
#[path = "../../src/update.rs"]
mod update;
#[path = "../../src/user.rs"]
mod user;
#[path = "../../src/validate.rs"]
mod validate;

/// What the runtime's `main` would call, which is not the fuzzer's.
fn begin() -> i32 {
    0
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(fields) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return;
    };
    for (name, value) in fields {
        match value {
            Value::Null => drop(object.remove(&name)),
            value => merge(object.entry(name).or_insert(Value::Null), value),
        }
    }
}

fuzz_target!(|text: &[u8]| {
    let mut text = text.to_vec();
    if let Ok(patch @ Value::Object(_)) = serde_json::from_slice(&text) {
        let mut config: Value =
            serde_json::from_str(include_str!("../../src/default_config.json")).expect("the default is JSON");
        merge(&mut config, patch);
        text = config.to_string().into_bytes();
    }
    let spec = match bundle::parse_spec(&text) {
        Ok(spec) => spec,
        Err(error) => return assert!(error.to_string().starts_with("config.json: "), "{error}"),
    };
    if validate::spec(&spec).is_err() {
        return;
    }
    if let Some(process) = spec.process() {
        let _ = process::ProcessPlan::from_spec(process, &spec);
    }
    if let Some(filter) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        let _ = seccomp::Filter::from_spec(filter);
    }
    let _ = namespaces::Namespaces::from_spec(&spec);
    if let Some(linux) = spec.linux() {
        let _ = net_devices::NetDevices::from_spec(linux, true);
    }
    let _ = intel_rdt::IntelRdt::from_spec(spec.linux().as_ref(), "fuzz");
    let _ = mounts::Plan::from_spec(&spec, Path::new("/bundle"));
    let Ok(plan) = cgroup::Plan::from_spec(&spec, "fuzz", cgroup::Driver::Filesystem) else {
        return;
    };
    for (_, path) in plan.paths().expect("places").named() {
        assert!(path.starts_with("/sys/fs/cgroup"), "{}", path.display());
        assert!(
            path.components().all(|part| part != Component::ParentDir),
            "{}",
            path.display()
        );
    }
});
