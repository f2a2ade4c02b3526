//! Any text as `linux.seccomp`: an error or a program that is short enough and always comes to an end.
#![no_main]
#![allow(dead_code, unused_imports)]

use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;

#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/seccomp/interpreter.rs"]
mod interpreter;
#[path = "../../src/seccomp/mod.rs"]
mod seccomp;
#[path = "../../src/sys"]
mod sys {
    pub(crate) mod seccomp;
}

fuzz_target!(|text: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<LinuxSeccomp>(text) else {
        return;
    };
    let Ok(filter) = seccomp::Filter::from_spec(&spec) else {
        return;
    };
    let program = filter.program();
    assert!(!program.is_empty() && program.len() <= sys::seccomp::INSTRUCTIONS_MAX);
    for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0] {
        for number in [
            0,
            1,
            56,
            102,
            117,
            469,
            470,
            0x000f_0005,
            0x4000_0000,
            0x4000_0208,
            u32::MAX,
        ] {
            interpreter::run(
                program,
                &interpreter::Call {
                    number,
                    audit,
                    arguments: [u64::MAX; 6],
                },
            );
        }
    }
});
