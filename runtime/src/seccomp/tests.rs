//! The compiled program, run by an interpreter, against a direct reading of the same profile.

use std::os::fd::AsFd as _;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::arch::{Arch, X32_BIT};
use super::interpreter::{Call, run};
use super::rules::{ALLOW, ENOSYS, ERRNO, KILL_PROCESS, LOG, NOTIFY, TRACE};
use super::table::{CALLS, NONE};
use super::{Filter, reading};
use crate::sys::seccomp::{INSTRUCTIONS_MAX, Instruction};

fn filter(spec: Value) -> Filter {
    let spec: LinuxSeccomp = serde_json::from_value(spec).unwrap();
    Filter::from_spec(&spec).unwrap()
}

fn number(name: &str, arch: Arch) -> u32 {
    let row = CALLS.binary_search_by(|(call, _)| (*call).cmp(name)).unwrap();
    let number = CALLS[row].1[arch.column()];
    assert_ne!(number, NONE, "{name} on {arch:?}");
    if arch == Arch::X32 {
        number | X32_BIT
    } else {
        number
    }
}

fn outcome(filter: &Filter, name: &str, arch: Arch, arguments: [u64; 6]) -> u32 {
    run(
        &filter.program,
        &Call {
            number: number(name, arch),
            audit: arch.audit(),
            arguments,
        },
    )
}

fn errno(number: i32) -> u32 {
    ERRNO | number as u32
}

const NOTHING: [u64; 6] = [0; 6];

#[test]
fn the_table_is_sorted_and_free_of_doubles() {
    assert!(CALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for (name, native) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("mseal", 462),
    ] {
        assert_eq!(i64::from(number(name, Arch::NATIVE)), native);
    }
}

#[test]
fn each_rule_has_its_own_outcome() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/listener.sock",
        "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["chmod"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["chown"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
            {"names": ["openat"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["close"], "action": "SCMP_ACT_LOG"},
        ],
    }));
    let of = |name| outcome(&filter, name, Arch::X86_64, NOTHING);
    assert_eq!(of("mkdir"), errno(28));
    assert_eq!(of("rmdir"), errno(libc::EPERM));
    assert_eq!(of("chmod"), KILL_PROCESS);
    assert_eq!(of("chown"), TRACE | 7);
    assert_eq!(of("openat"), NOTIFY);
    assert_eq!(of("close"), LOG);
    assert_eq!(of("read"), ALLOW);
    assert!(filter.notifies());
}

#[test]
fn conditions_of_a_rule_are_anded_and_rules_are_ored() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 5, "op": "SCMP_CMP_LE"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0x7E02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        ],
    }));
    let of = |name, arguments| outcome(&filter, name, Arch::X86_64, arguments) == ALLOW;
    assert!(of("personality", NOTHING) && of("personality", [8, 0, 0, 0, 0, 0]));
    assert!(!of("personality", [9, 0, 0, 0, 0, 0]) && !of("personality", [8 | 1 << 32, 0, 0, 0, 0, 0]));
    assert!(
        of("socket", [1, 9, 5, 0, 0, 0])
            && !of("socket", [1, 9, 6, 0, 0, 0])
            && !of("socket", [2, 9, 5, 0, 0, 0])
    );
    assert!(of("clone", [0x11, 0, 0, 0, 0, 0]) && !of("clone", [0x1000_0000, 0, 0, 0, 0, 0]));
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 4, "op": "SCMP_CMP_EQ"}]}],
    }));
    for (value, allowed) in [(2, false), (3, true), (4, true), (5, false)] {
        let got = outcome(&filter, "personality", Arch::X86_64, [value, 0, 0, 0, 0, 0]);
        assert_eq!(got == ALLOW, allowed, "{value}");
    }
}

#[test]
fn calls_newer_than_the_profile_get_enosys() {
    let profile = |default: &str| {
        filter(json!({
            "defaultAction": default,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW"}],
        }))
    };
    let closed = profile("SCMP_ACT_ERRNO");
    assert_eq!(outcome(&closed, "faccessat2", Arch::X86_64, NOTHING), ENOSYS);
    assert_eq!(outcome(&closed, "faccessat2", Arch::X86, NOTHING), ENOSYS);
    assert_eq!(
        outcome(&closed, "mount", Arch::X86_64, NOTHING),
        errno(libc::EPERM)
    );
    assert_eq!(outcome(&closed, "read", Arch::X32, NOTHING), ENOSYS);
    let open = profile("SCMP_ACT_LOG");
    assert_eq!(outcome(&open, "faccessat2", Arch::X86_64, NOTHING), LOG);
}

#[test]
fn other_architectures_are_no_way_around() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
    }));
    assert_eq!(
        outcome(&filter, "mkdir", Arch::X86_64, NOTHING),
        errno(libc::EPERM)
    );
    assert_eq!(outcome(&filter, "mkdir", Arch::X32, NOTHING), KILL_PROCESS);
    assert_eq!(outcome(&filter, "read", Arch::X86, NOTHING), KILL_PROCESS);
    assert_eq!(outcome(&filter, "read", Arch::Aarch64, NOTHING), KILL_PROCESS);
    let skipped = Call {
        number: u32::MAX,
        audit: Arch::X86_64.audit(),
        arguments: NOTHING,
    };
    assert_eq!(run(&filter.program, &skipped), ALLOW);
}

#[test]
fn x32_has_its_own_numbers_and_arm_its_private_calls() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": ["execve", "set_tls", "close_range"], "action": "SCMP_ACT_ALLOW"}],
    }));
    assert_eq!(number("execve", Arch::X32), X32_BIT + 520);
    for arch in [Arch::X86_64, Arch::X32, Arch::Arm, Arch::Aarch64] {
        assert_eq!(outcome(&filter, "execve", arch, NOTHING), ALLOW);
        // On x32 execve itself has a higher number than all that is new.
        let newer = if arch == Arch::X32 {
            errno(libc::EPERM)
        } else {
            ENOSYS
        };
        assert_eq!(outcome(&filter, "openat2", arch, NOTHING), newer);
        assert_eq!(outcome(&filter, "acct", arch, NOTHING), errno(libc::EPERM));
    }
    assert_eq!(outcome(&filter, "set_tls", Arch::Arm, NOTHING), ALLOW);
    assert_eq!(outcome(&filter, "usr26", Arch::Arm, NOTHING), errno(libc::EPERM));
}

#[test]
fn socketcall_and_ipc_follow_the_calls_behind_them() {
    let denies = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["bind", "shmat"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["connect"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]},
        ],
    }));
    let through = |filter: &Filter, name, first| outcome(filter, name, Arch::X86, [first, 0, 0, 0, 0, 0]);
    assert_eq!(through(&denies, "socketcall", 2), errno(libc::EPERM));
    assert_eq!(through(&denies, "socketcall", 3), errno(libc::EPERM));
    assert_eq!(through(&denies, "socketcall", 1), ALLOW);
    assert_eq!(through(&denies, "ipc", 0x0001_0015), errno(libc::EPERM));
    let allows = filter(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["bind", "close"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["connect"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]},
        ],
    }));
    assert_eq!(through(&allows, "socketcall", 2), ALLOW);
    assert_eq!(through(&allows, "socketcall", 3), errno(libc::EPERM));
}

#[test]
fn broken_fields_are_named() {
    let call = |call: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]});
    let args = |arg: Value| call(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [arg]}));
    for (spec, path) in [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x"}),
            "defaultAction",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            "defaultErrnoRet",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_MIPS"]}),
            "architectures[1]",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "listenerMetadata",
        ),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
            "listenerPath",
        ),
        (
            call(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "syscalls[0].action",
        ),
        (
            call(json!({"names": ["read", ""], "action": "SCMP_ACT_ERRNO"})),
            "syscalls[0].names[1]",
        ),
        (
            call(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000})),
            "syscalls[0].errnoRet",
        ),
        (
            args(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"})),
            "syscalls[0].args[0]",
        ),
    ] {
        let spec: LinuxSeccomp = serde_json::from_value(spec).unwrap();
        let error = Filter::from_spec(&spec).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("config.json: linux.seccomp.{path}: ")),
            "{error} should name {path}"
        );
    }
}

#[test]
fn what_the_kernel_would_not_take_is_refused() {
    let args = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_GT"}]);
    let rule = |value: u64| json!({"names": ["read", "write"], "action": "SCMP_ACT_ERRNO", "errnoRet": value % 4000, "args": args});
    let rules: Vec<Value> = (0..2000).map(rule).collect();
    let spec = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let error = Filter::from_spec(&serde_json::from_value(spec).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("instructions; the kernel takes no more than 4096"),
        "{error}"
    );
}

/// Numbers from a seed; the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn value(&mut self) -> u64 {
        let small = self.roll(4);
        match self.roll(5) {
            0 => small,
            1 => small << 32,
            2 => (small << 32) | self.roll(4),
            3 => u64::MAX - small,
            _ => u64::from(u32::MAX) - 1 + small,
        }
    }
}

const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ACTIONS: [&str; 5] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
];
/// Calls that x86 does not multiplex, so that the direct reading stays direct.
const NAMES: [&str; 9] = [
    "read",
    "write",
    "openat",
    "clone",
    "ioctl",
    "execve",
    "mprotect",
    "futex",
    "close_range",
];
const ARCHES: [(&str, Arch); 5] = [
    ("SCMP_ARCH_X86_64", Arch::X86_64),
    ("SCMP_ARCH_X86", Arch::X86),
    ("SCMP_ARCH_X32", Arch::X32),
    ("SCMP_ARCH_AARCH64", Arch::Aarch64),
    ("SCMP_ARCH_ARM", Arch::Arm),
];

fn random_rule(dice: &mut Dice) -> Value {
    let names: Vec<&str> = (0..=dice.roll(3))
        .map(|_| NAMES[dice.roll(NAMES.len() as u64) as usize])
        .collect();
    let args: Vec<Value> = (0..dice.roll(4))
        .map(|_| {
            let operator = format!("SCMP_CMP_{}", OPERATORS[dice.roll(7) as usize]);
            json!({"index": dice.roll(3), "value": dice.value(), "valueTwo": dice.value(), "op": operator})
        })
        .collect();
    json!({"names": names, "action": ACTIONS[dice.roll(5) as usize], "args": args})
}

#[test]
fn random_profiles_do_what_they_say() {
    let mut dice = Dice(0x5eed_5eed_5eed_5eed);
    for _ in 0..400 {
        let rules: Vec<Value> = (0..dice.roll(40)).map(|_| random_rule(&mut dice)).collect();
        let default = ACTIONS[dice.roll(5) as usize];
        let architectures: Vec<&str> = ARCHES.iter().map(|(name, _)| *name).collect();
        let spec = json!({"defaultAction": default, "architectures": architectures, "syscalls": rules});
        let spec: LinuxSeccomp = serde_json::from_value(spec).unwrap();
        let filter = Filter::from_spec(&spec).unwrap();
        let open = matches!(default, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG");
        let named: Vec<&String> = spec
            .syscalls()
            .iter()
            .flatten()
            .flat_map(oci_spec::runtime::LinuxSyscall::names)
            .collect();
        for _ in 0..200 {
            let name = NAMES[dice.roll(NAMES.len() as u64) as usize];
            let arch = ARCHES[dice.roll(5) as usize].1;
            let arguments = [dice.value(), dice.value(), dice.value(), 0, 0, 0];
            let last = named.iter().map(|name| number(name, arch)).max();
            let newer = !open && last.is_some_and(|last| number(name, arch) > last);
            let want = if newer {
                ENOSYS
            } else {
                reading::outcome(&spec, name, arch.is_32_bit(), arguments)
            };
            let got = outcome(&filter, name, arch, arguments);
            assert_eq!(
                got, want,
                "{name} on {arch:?} with {arguments:x?} under {default}: {spec:#?}"
            );
        }
    }
}

#[test]
fn long_programs_jump_far() {
    // Hundreds of conditional calls, so that every kind of jump has to go over more than 255 instructions.
    let names: Vec<&str> = CALLS
        .iter()
        .filter(|(_, n)| n[0] != NONE)
        .map(|(name, _)| *name)
        .collect();
    let rules: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": at % 300 + 1,
                "args": [{"index": 1, "value": at, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let filter = filter(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    assert!(filter.program.len() > 1000 && filter.program.len() <= INSTRUCTIONS_MAX);
    for (at, name) in names.iter().enumerate() {
        let hit = outcome(&filter, name, Arch::X86_64, [0, at as u64, 0, 0, 0, 0]);
        assert_eq!(hit, errno((at % 300 + 1) as i32), "{name}");
        assert_eq!(
            outcome(&filter, name, Arch::X86_64, [0, at as u64 + 1, 0, 0, 0, 0]),
            ALLOW,
            "{name}"
        );
    }
}

#[test]
fn equal_profiles_give_equal_programs() {
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let compile = || filter(serde_json::from_str(text).unwrap()).program;
    let flat = |program: &[Instruction]| {
        program
            .iter()
            .map(|i| (i.code, i.jt, i.jf, i.k))
            .collect::<Vec<_>>()
    };
    assert_eq!(flat(&compile()), flat(&compile()));
}

#[test]
fn the_kernel_takes_the_program() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
        "listenerPath": "/run/listener.sock",
        "syscalls": [
            {"names": ["getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99,
             "args": [{"index": 0, "value": 1_u64 << 40, "op": "SCMP_CMP_LT"}]},
            {"names": ["setdomainname"], "action": "SCMP_ACT_NOTIFY"},
        ],
    }));
    // A filter stays with its thread; the thread is thrown away.
    std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        let listener = filter.load().unwrap().expect("a notifying filter has a listener");
        assert!(nix::fcntl::fcntl(listener.as_fd(), nix::fcntl::FcntlArg::F_GETFD).is_ok());
        assert_eq!(nix::unistd::getsid(None), Err(nix::errno::Errno::from_raw(99)));
    })
    .join()
    .unwrap();
}
