//! The seccomp compiler against a direct reading of the same profile: random rules, random calls, one answer.
#![no_main]
#![allow(dead_code, unused_imports)]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/seccomp/interpreter.rs"]
mod interpreter;
#[path = "../../src/seccomp/reading.rs"]
mod reading;
#[path = "../../src/seccomp/mod.rs"]
mod seccomp;
#[path = "../../src/sys"]
mod sys {
    pub(crate) mod seccomp;
}

/// Name, number on x86_64 and on x86. The last is the newest, so that nothing else counts as newer than the profile.
const CALLS: [(&str, u32, u32); 5] = [
    ("read", 0, 3),
    ("write", 1, 4),
    ("ioctl", 16, 54),
    ("clone", 56, 120),
    ("file_setattr", 469, 469),
];
const ACTIONS: [&str; 6] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

#[derive(Arbitrary, Debug)]
struct Profile {
    default: u8,
    rules: Vec<Rule>,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    names: u8,
    action: u8,
    errno: u8,
    args: Vec<Arg>,
}

#[derive(Arbitrary, Debug)]
struct Arg {
    index: u8,
    operator: u8,
    value: u64,
    two: u64,
}

#[derive(Arbitrary, Debug)]
struct Call {
    name: u8,
    is_x86: bool,
    arguments: [u64; 6],
}

impl Rule {
    fn json(&self) -> Value {
        let names: Vec<&str> = CALLS
            .iter()
            .enumerate()
            .filter(|(at, _)| self.names >> at & 1 == 1)
            .map(|(_, call)| call.0)
            .collect();
        let args: Vec<Value> = self.args.iter().take(8).map(Arg::json).collect();
        json!({"names": names, "action": pick(&ACTIONS, self.action), "errnoRet": self.errno, "args": args})
    }
}

impl Arg {
    fn json(&self) -> Value {
        let operator = format!("SCMP_CMP_{}", pick(&OPERATORS, self.operator));
        json!({"index": self.index % 6, "value": self.value, "valueTwo": self.two, "op": operator})
    }
}

fn pick<T: Copy>(from: &[T], at: u8) -> T {
    from[usize::from(at) % from.len()]
}

fuzz_target!(|profile: Profile| {
    let default = pick(&ACTIONS, profile.default);
    let mut rules: Vec<Value> = profile.rules.iter().take(64).map(Rule::json).collect();
    // Makes the newest call known to the profile without deciding anything: the outcome is the default.
    rules.push(json!({"names": ["file_setattr"], "action": default}));
    let spec = json!({
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    });
    let spec: LinuxSeccomp = serde_json::from_value(spec).expect("a profile");
    let Ok(filter) = seccomp::Filter::from_spec(&spec) else {
        return;
    };
    for call in profile.calls.iter().take(64) {
        let (name, on_x86_64, on_x86) = pick(&CALLS, call.name);
        let (audit, number) = if call.is_x86 {
            (0x4000_0003, on_x86)
        } else {
            (0xc000_003e, on_x86_64)
        };
        let seen = interpreter::Call {
            number,
            audit,
            arguments: call.arguments,
        };
        let got = interpreter::run(filter.program(), &seen);
        let want = reading::outcome(&spec, name, call.is_x86, call.arguments);
        assert_eq!(got, want, "{name} with {:x?} under {spec:#?}", call.arguments);
    }
});
