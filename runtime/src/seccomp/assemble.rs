//! From verdicts to instructions. A program is written back to front: a jump goes forward only, so its targets are
//! known when it is written, and a target that is too far for the 8 bits of a jump gets a stepping stone near by.
//!
//! The numbers of an architecture are searched by halves, a comparison for each change of verdict; equal neighbours
//! are one range. Calls whose outcome does not hang on arguments never load one: the kernel (since 5.11) tries each
//! number when the filter is loaded and remembers those that are simply allowed, and does not run it for them again.

use super::conditions::{Compare, Condition};
use super::rules::{KILL_PROCESS, Outcome, Policy, Rule, Verdict};
use crate::sys::seccomp::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    Instruction,
};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How far a target may lie when a jump to it is about to be written: 255, less the few instructions that may come
/// between.
const REACH: usize = 250;

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    /// An instruction, counted from the end of the program.
    At(usize),
    /// Wherever the next return with this outcome is.
    Return(Outcome),
}

pub(super) fn assemble(policy: &Policy) -> Vec<Instruction> {
    let mut program = Program::default();
    let bodies: Vec<(u32, Label)> = policy
        .sections
        .iter()
        .map(|section| (section.audit, program.section(&section.ranges, policy.default)))
        .collect();
    // An architecture that is not listed, with numbers that mean something else, has no business here.
    let mut next = Label::Return(KILL_PROCESS);
    for (audit, body) in bodies.into_iter().rev() {
        next = program.jump(BPF_JEQ, audit, body, next);
    }
    let entry = program.load(ARCH, next);
    program.fall_into(entry);
    program.backwards.reverse();
    program.backwards
}

#[derive(Default)]
struct Program {
    backwards: Vec<Instruction>,
    /// The latest return of each outcome.
    returns: Vec<(Outcome, usize)>,
}

impl Program {
    fn section(&mut self, ranges: &[(u32, Verdict)], default: Outcome) -> Label {
        let body = self.search(ranges, default);
        self.load(NUMBER, body)
    }

    fn search(&mut self, ranges: &[(u32, Verdict)], default: Outcome) -> Label {
        match ranges {
            [] => Label::Return(default),
            [(_, verdict)] => self.verdict(verdict, default),
            // One number that differs from all around it.
            [(_, around), (number, other), (after, again)] if *after == number + 1 && around == again => {
                let other = self.verdict(other, default);
                let around = self.verdict(around, default);
                self.jump(BPF_JEQ, *number, other, around)
            }
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let start = upper[0].0;
                let upper = self.search(upper, default);
                let lower = self.search(lower, default);
                self.jump(BPF_JGE, start, upper, lower)
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict, default: Outcome) -> Label {
        match verdict {
            Verdict::Always(outcome) => Label::Return(*outcome),
            Verdict::First { rules, low_only } => {
                let otherwise = Label::Return(default);
                rules
                    .iter()
                    .rev()
                    .fold(otherwise, |otherwise, rule| self.rule(rule, *low_only, otherwise))
            }
        }
    }

    fn rule(&mut self, rule: &Rule, low_only: bool, otherwise: Label) -> Label {
        let holds = Label::Return(rule.outcome);
        rule.conditions.iter().rev().fold(holds, |holds, condition| {
            if low_only {
                self.compare_low(condition, holds, otherwise)
            } else {
                self.compare(condition, holds, otherwise)
            }
        })
    }

    /// Compares 64 bits by halves: all supported architectures are little-endian.
    fn compare(&mut self, condition: &Condition, holds: Label, otherwise: Label) -> Label {
        let high = (condition.value >> 32) as u32;
        let offset = ARGUMENTS + condition.argument * 8 + 4;
        match condition.compare {
            Compare::Equal | Compare::NotEqual => {
                let (_, other) = turned(condition.compare == Compare::Equal, holds, otherwise);
                let low = self.compare_low(condition, holds, otherwise);
                let test = self.jump(BPF_JEQ, high, low, other);
                self.load(offset, test)
            }
            Compare::MaskedEqual(mask) => {
                let low = self.compare_low(condition, holds, otherwise);
                match (mask >> 32) as u32 {
                    0 => low,
                    mask => {
                        let test = self.jump(BPF_JEQ, high, low, otherwise);
                        self.load_masked(offset, mask, test)
                    }
                }
            }
            Compare::Greater | Compare::GreaterOrEqual | Compare::Less | Compare::LessOrEqual => {
                let greater = matches!(condition.compare, Compare::Greater | Compare::GreaterOrEqual);
                let (above, below) = turned(greater, holds, otherwise);
                let low = self.compare_low(condition, holds, otherwise);
                let not_above = self.jump(BPF_JEQ, high, low, below);
                let test = self.jump(BPF_JGT, high, above, not_above);
                self.load(offset, test)
            }
        }
    }

    fn compare_low(&mut self, condition: &Condition, holds: Label, otherwise: Label) -> Label {
        let value = condition.value as u32;
        let offset = ARGUMENTS + condition.argument * 8;
        let (operation, as_it_is) = match condition.compare {
            Compare::Equal | Compare::MaskedEqual(_) => (BPF_JEQ, true),
            Compare::NotEqual => (BPF_JEQ, false),
            Compare::Greater => (BPF_JGT, true),
            Compare::LessOrEqual => (BPF_JGT, false),
            Compare::GreaterOrEqual => (BPF_JGE, true),
            Compare::Less => (BPF_JGE, false),
        };
        let (yes, no) = turned(as_it_is, holds, otherwise);
        let test = self.jump(operation, value, yes, no);
        match condition.compare {
            Compare::MaskedEqual(mask) if mask as u32 != u32::MAX => {
                self.load_masked(offset, mask as u32, test)
            }
            _ => self.load(offset, test),
        }
    }

    fn load_masked(&mut self, offset: u32, mask: u32, then: Label) -> Label {
        if matches!(then, Label::Return(_)) {
            return then;
        }
        self.fall_into(then);
        self.push(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask);
        let masked = Label::At(self.backwards.len() - 1);
        self.load(offset, masked)
    }

    /// Loads a word for what comes next; when that is decided already there is nothing to load for.
    fn load(&mut self, offset: u32, then: Label) -> Label {
        if matches!(then, Label::Return(_)) {
            return then;
        }
        self.fall_into(then);
        self.push(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset);
        Label::At(self.backwards.len() - 1)
    }

    fn jump(&mut self, operation: u32, value: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let here = self.backwards.len();
        let distance =
            |target: usize| u8::try_from(here - target - 1).unwrap_or_else(|_| unreachable!("REACH"));
        self.push(BPF_JMP | operation | BPF_K, distance(yes), distance(no), value);
        Label::At(here)
    }

    /// Makes sure that what is written next is followed by `label`.
    fn fall_into(&mut self, label: Label) {
        let last = self.backwards.len().wrapping_sub(1);
        match label {
            Label::At(target) if target == last => {}
            Label::At(target) => self.step_to(target),
            Label::Return(outcome) => self.write_return(outcome),
        }
    }

    /// An instruction within reach that leads to `label`.
    fn near(&mut self, label: Label) -> usize {
        let reach = self.backwards.len().saturating_sub(REACH);
        match label {
            Label::At(target) if target >= reach => target,
            Label::At(target) => {
                self.step_to(target);
                self.backwards.len() - 1
            }
            Label::Return(outcome) => {
                let have = self
                    .returns
                    .iter()
                    .find(|(have, at)| *have == outcome && *at >= reach);
                if let Some((_, at)) = have {
                    return *at;
                }
                self.write_return(outcome);
                self.backwards.len() - 1
            }
        }
    }

    fn step_to(&mut self, target: usize) {
        let distance = (self.backwards.len() - target - 1) as u32;
        self.push(BPF_JMP | BPF_JA, 0, 0, distance);
    }

    fn write_return(&mut self, outcome: Outcome) {
        let at = self.backwards.len();
        self.push(BPF_RET | BPF_K, 0, 0, outcome);
        match self.returns.iter_mut().find(|(have, _)| *have == outcome) {
            Some(have) => have.1 = at,
            None => self.returns.push((outcome, at)),
        }
    }

    fn push(&mut self, code: u32, jt: u8, jf: u8, k: u32) {
        self.backwards.push(Instruction {
            code: code as u16,
            jt,
            jf,
            k,
        });
    }
}

fn turned(as_it_is: bool, yes: Label, no: Label) -> (Label, Label) {
    if as_it_is { (yes, no) } else { (no, yes) }
}
