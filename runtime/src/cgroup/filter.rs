//! A device policy as an eBPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`: what cgroup v2 has in place of the v1
//! devices controller. The kernel runs it for each mknod and open of a device and allows what it answers with 1.

use std::os::fd::AsFd;

use super::devices::{Access, Devices, Kind, Policy};
use super::dir::Dir;
use crate::error::{Context, Result};
use crate::sys::bpf::{self, Instruction};

/// `BPF_DEVCG_DEV_*` in linux/bpf.h.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

// Operation codes, linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5e; // BPF_JMP32 | BPF_JNE | BPF_X
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// Registers: r1 is the context on entry, scratch after the loads.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn instruction(code: u8, target: u8, source: u8, offset: i16, value: i32) -> Instruction {
    Instruction {
        code,
        registers: source << 4 | target,
        offset,
        value,
    }
}

/// `struct bpf_cgroup_dev_ctx` has three words: access << 16 | type, major, minor.
pub(super) fn program(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for (devices, access) in &policy.exceptions {
        exception(&mut program, *devices, *access, !policy.allow);
    }
    answer(&mut program, policy.allow);
    program
}

fn answer(program: &mut Vec<Instruction>, allow: bool) {
    program.push(instruction(MOVE, ANSWER, 0, 0, i32::from(allow)));
    program.push(instruction(EXIT, 0, 0, 0, 0));
}

/// Answers `allow` if the request matches, else falls through to the next exception.
fn exception(program: &mut Vec<Instruction>, devices: Devices, access: Access, allow: bool) {
    let kind = match devices.kind {
        Kind::Block => BLOCK,
        Kind::Char => CHAR,
    };
    let mut tests = vec![instruction(JUMP_NOT_EQUAL, KIND, 0, 0, kind)];
    if access != Access::ALL {
        tests.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        tests.push(instruction(AND, SCRATCH, 0, 0, i32::from(access.0)));
        // What is allowed must cover the whole request; what is denied need only touch it (as v1 does).
        tests.push(if allow {
            instruction(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS, 0, 0)
        } else {
            instruction(JUMP_EQUAL, SCRATCH, 0, 0, 0)
        });
    }
    for (register, number) in [(MAJOR, devices.major), (MINOR, devices.minor)] {
        if let Some(number) = number {
            tests.push(instruction(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed()));
        }
    }
    // Jumps count from the next instruction; behind the tests come the two of the answer.
    let length = tests.len();
    for (index, test) in tests.iter_mut().enumerate() {
        if matches!(test.code, JUMP_EQUAL | JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
            test.offset = (length - index - 1 + 2) as i16;
        }
    }
    program.append(&mut tests);
    answer(program, allow);
}

/// Attaches the program of `policy` to a group and removes those that were attached before. With one earlier
/// program the kernel swaps both in one step; otherwise the old ones stay until the new one holds, so that no moment
/// is without a rule.
pub(super) fn attach(dir: &Dir, policy: &Policy) -> Result<()> {
    let what = || {
        format!(
            "set linux.resources.devices: attach an eBPF program to {}",
            dir.path().display()
        )
    };
    let loaded = bpf::load_cgroup_device(&program(policy)).context(what)?;
    let old = bpf::attached_cgroup_device(dir.as_fd()).context(what)?;
    if let [only] = old.as_slice()
        && bpf::replace_cgroup_device(dir.as_fd(), loaded.as_fd(), only.as_fd()).is_ok()
    {
        return Ok(());
    }
    bpf::attach_cgroup_device(dir.as_fd(), loaded.as_fd()).context(what)?;
    for program in old {
        bpf::detach_cgroup_device(dir.as_fd(), program.as_fd()).context(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the few operations that are used here.
    fn run(program: &[Instruction], kind: i32, access: u8, major: u32, minor: u32) -> u32 {
        let context = [u32::from(access) << 16 | kind.cast_unsigned(), major, minor];
        let mut registers = [0u32; 11];
        let mut at = 0usize;
        // No loops are possible: every jump goes forward, and the end of the slice would panic.
        loop {
            let Instruction {
                code,
                registers: both,
                offset,
                value,
            } = program[at];
            let (target, source) = (usize::from(both & 15), usize::from(both >> 4));
            let value = value.cast_unsigned();
            at += 1;
            let mut jump = |condition: bool| {
                if condition {
                    at = at.checked_add_signed(offset.into()).unwrap();
                }
            };
            match code {
                LOAD_WORD => registers[target] = context[usize::try_from(offset).unwrap() / 4],
                MOVE => registers[target] = value,
                MOVE_REGISTER => registers[target] = registers[source],
                AND => registers[target] &= value,
                SHIFT_RIGHT => registers[target] >>= value,
                JUMP_EQUAL => jump(registers[target] == value),
                JUMP_NOT_EQUAL => jump(registers[target] != value),
                JUMP_NOT_EQUAL_REGISTER => jump(registers[target] != registers[source]),
                EXIT => return registers[0],
                _ => panic!("operation {code:#x}"),
            }
        }
    }

    fn policy(rules: &str) -> Vec<Instruction> {
        let resources = serde_json::from_str(&format!(r#"{{"devices":{rules}}}"#)).unwrap();
        program(&Policy::from_resources(Some(&resources)).unwrap())
    }

    #[test]
    fn default_rules_allow_the_default_devices_and_mknod() {
        let default = policy("[]");
        let (read, write, mknod) = (Access::READ.0, Access::WRITE.0, Access::MKNOD.0);
        assert_eq!(run(&default, CHAR, read | write, 1, 3), 1);
        assert_eq!(run(&default, CHAR, read | write, 136, 77), 1);
        assert_eq!(run(&default, BLOCK, mknod, 8, 0), 1);
        assert_eq!(run(&default, BLOCK, read, 8, 0), 0);
        assert_eq!(run(&default, CHAR, read, 1, 1), 0);
        assert_eq!(run(&default, BLOCK, read, 1, 3), 0);
        assert_eq!(run(&default, CHAR, read, 5, 1), 0);
    }

    #[test]
    fn an_allowed_access_does_not_allow_more() {
        let rules = policy(r#"[{"allow":true,"type":"b","major":8,"minor":1,"access":"r"}]"#);
        assert_eq!(run(&rules, BLOCK, Access::READ.0, 8, 1), 1);
        assert_eq!(run(&rules, BLOCK, Access::READ.0 | Access::WRITE.0, 8, 1), 0);
        assert_eq!(run(&rules, BLOCK, Access::READ.0, 8, 2), 0);
    }

    #[test]
    fn a_denied_access_denies_what_touches_it() {
        let rules = policy(
            r#"[{"allow":true},{"allow":false,"type":"b","major":8,"access":"w"},
                {"allow":false,"type":"c","major":4294967295,"minor":0}]"#,
        );
        assert_eq!(run(&rules, BLOCK, Access::READ.0, 8, 1), 1);
        assert_eq!(run(&rules, BLOCK, Access::READ.0 | Access::WRITE.0, 8, 1), 0);
        assert_eq!(run(&rules, CHAR, Access::READ.0, u32::MAX, 0), 0);
        assert_eq!(run(&rules, CHAR, Access::ALL.0, 10, 1), 1);
    }
}
