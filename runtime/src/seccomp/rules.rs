//! `linux.seccomp` of config.json, checked and resolved: for each architecture, which calls have which outcome. The
//! semantics are those of runc with libseccomp, which all published profiles are written for. Pure.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use super::arch::{ARM_PRIVATE, Arch, X32_BIT, multiplexed};
use super::conditions::{Compare, Condition, conditions};
use super::table::{CALLS, NONE};
use crate::error::{Error, Result};

/// The kernel's `SECCOMP_RET_*`, with data in the low half.
pub(super) type Outcome = u32;

pub(super) const KILL_PROCESS: Outcome = 0x8000_0000;
pub(super) const KILL_THREAD: Outcome = 0;
pub(super) const TRAP: Outcome = 0x0003_0000;
pub(super) const ERRNO: Outcome = 0x0005_0000;
pub(super) const NOTIFY: Outcome = 0x7fc0_0000;
pub(super) const TRACE: Outcome = 0x7ff0_0000;
pub(super) const LOG: Outcome = 0x7ffc_0000;
pub(super) const ALLOW: Outcome = 0x7fff_0000;
pub(super) const ENOSYS: Outcome = ERRNO | libc::ENOSYS as u32;

const ERRNO_MAX: u32 = 4095;

/// No profile comes near; it bounds the work on hostile ones. Counts each name as often as its rule has alternatives.
const CALLS_MAX: usize = 65_536;

/// An outcome if all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) outcome: Outcome,
    pub(super) conditions: Vec<Condition>,
}

/// What happens to a range of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Always(Outcome),
    /// The first rule that holds, else the default. `low_only` compares low halves.
    First {
        rules: Vec<Rule>,
        low_only: bool,
    },
}

/// All numbers of one `AUDIT_ARCH_*`: each verdict holds from its number up to the next one's.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) audit: u32,
    pub(super) ranges: Vec<(u32, Verdict)>,
}

#[derive(Debug)]
pub(super) struct Policy {
    pub(super) default: Outcome,
    pub(super) sections: Vec<Section>,
    /// Some call is handed to a listener.
    pub(super) notifies: bool,
}

impl Policy {
    pub(super) fn from_spec(spec: &LinuxSeccomp) -> Result<Self> {
        let default = outcome(spec.default_action(), spec.default_errno_ret())
            .map_err(|rule| Error::spec("linux.seccomp.defaultErrnoRet", rule))?;
        if default == NOTIFY {
            let rule = "can't be SCMP_ACT_NOTIFY: the runtime itself would wait for the listener";
            return Err(Error::spec("linux.seccomp.defaultAction", rule));
        }
        let architectures = architectures(spec)?;
        let mut calls = Calls {
            default,
            rules: Vec::new(),
            named: vec![Vec::new(); 5],
            last: [None; 5],
        };
        let mut count = 0_usize;
        for (index, syscall) in spec.syscalls().iter().flatten().enumerate() {
            let alternatives = syscall.args().as_ref().map_or(1, |args| args.len().max(1));
            count = count.saturating_add(syscall.names().len().saturating_mul(alternatives));
            if count > CALLS_MAX {
                return Err(Error::spec(
                    "linux.seccomp.syscalls",
                    format!("has more than {CALLS_MAX} rules"),
                ));
            }
            calls.add(index, syscall, &architectures)?;
        }
        let notifies = calls.rules.iter().any(|rule| rule.outcome == NOTIFY);
        let shown = architectures.iter().filter(|arch| **arch != Arch::X32);
        let x32 = architectures.contains(&Arch::X32);
        let sections = shown.map(|arch| calls.section(*arch, x32)).collect();
        Ok(Self {
            default,
            sections,
            notifies,
        })
    }
}

fn architectures(spec: &LinuxSeccomp) -> Result<Vec<Arch>> {
    let mut architectures = vec![Arch::NATIVE];
    for (index, named) in spec.architectures().iter().flatten().enumerate() {
        let arch = Arch::from_spec(*named).ok_or_else(|| {
            let rule = format!("{named} is not supported (x86_64, x86, x32, aarch64 and arm are)");
            Error::spec(format!("linux.seccomp.architectures[{index}]"), rule)
        })?;
        if !architectures.contains(&arch) {
            architectures.push(arch);
        }
    }
    // x32 calls arrive as calls of x86_64.
    if architectures.contains(&Arch::X32) && !architectures.contains(&Arch::X86_64) {
        architectures.push(Arch::X86_64);
    }
    Ok(architectures)
}

fn outcome(action: LinuxSeccompAction, data: Option<u32>) -> std::result::Result<Outcome, String> {
    use LinuxSeccompAction as Action;
    let below = |max: u32| {
        let data = data.unwrap_or(libc::EPERM as u32);
        if data <= max {
            Ok(data)
        } else {
            Err(format!("is {data}, more than {max}"))
        }
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        Action::ScmpActTrap => TRAP,
        Action::ScmpActErrno => ERRNO | below(ERRNO_MAX)?,
        Action::ScmpActTrace => TRACE | below(0xffff)?,
        Action::ScmpActNotify => NOTIFY,
        Action::ScmpActLog => LOG,
        Action::ScmpActAllow => ALLOW,
    })
}

/// The calls of a profile, by column of the table: number and index of the rule, in the profile's order.
struct Calls {
    default: Outcome,
    rules: Vec<Rule>,
    named: Vec<Vec<(u32, usize)>>,
    /// The newest call that the profile knows of.
    last: [Option<u32>; 5],
}

impl Calls {
    fn add(&mut self, index: usize, syscall: &LinuxSyscall, architectures: &[Arch]) -> Result<()> {
        let broken =
            |field: &str, rule: String| Error::spec(format!("linux.seccomp.syscalls[{index}].{field}"), rule);
        let outcome =
            outcome(syscall.action(), syscall.errno_ret()).map_err(|rule| broken("errnoRet", rule))?;
        let first = self.rules.len();
        for conditions in conditions(syscall.args().as_deref().unwrap_or_default())
            .map_err(|(at, rule)| broken(&format!("args[{at}]"), rule))?
        {
            self.rules.push(Rule { outcome, conditions });
        }
        let rules = first..self.rules.len();
        for (at, name) in syscall.names().iter().enumerate() {
            if name.is_empty() {
                return Err(broken(&format!("names[{at}]"), "is empty".into()));
            }
            if outcome == NOTIFY && name == "write" {
                // The listener would have to be asked before the runtime can tell anybody of it.
                return Err(broken("action", "SCMP_ACT_NOTIFY can't be used for write".into()));
            }
            // Profiles name calls of all architectures and kernels: those that do not exist here are passed over.
            let numbers = CALLS
                .binary_search_by(|(call, _)| (*call).cmp(name))
                .map(|row| CALLS[row].1)
                .ok();
            for arch in architectures {
                let number = numbers.map_or(NONE, |numbers| numbers[arch.column()]);
                if number != NONE {
                    if number < ARM_PRIVATE {
                        let last = &mut self.last[arch.column()];
                        *last = Some(last.map_or(number, |last| last.max(number)));
                    }
                    if outcome != self.default {
                        self.named[arch.column()].extend(rules.clone().map(|rule| (number, rule)));
                    }
                }
                if *arch == Arch::X86 && outcome != self.default {
                    self.add_multiplexed(name, rules.clone());
                }
            }
        }
        Ok(())
    }

    /// 32-bit x86 has a second way to its socket and System V IPC calls: `socketcall` and `ipc`, whose first argument
    /// says which. What is said of a call holds there too. Arguments are out of reach there (`socketcall` has them in
    /// memory), so a rule with conditions is left out if it opens something and holds unconditionally if it closes it.
    fn add_multiplexed(&mut self, name: &str, rules: std::ops::Range<usize>) {
        let Some((through, selector, mask)) = multiplexed(name) else {
            return;
        };
        let Ok(row) = CALLS.binary_search_by(|(call, _)| (*call).cmp(through)) else {
            return;
        };
        let number = CALLS[row].1[Arch::X86.column()];
        for rule in rules {
            let Rule { outcome, conditions } = &self.rules[rule];
            let closes = outcome.cast_signed() < self.default.cast_signed();
            if conditions.is_empty() || closes {
                let condition = Condition {
                    argument: 0,
                    compare: Compare::MaskedEqual(mask),
                    value: selector,
                };
                self.rules.push(Rule {
                    outcome: *outcome,
                    conditions: vec![condition],
                });
                self.named[Arch::X86.column()].push((number, self.rules.len() - 1));
            }
        }
    }

    fn section(&self, arch: Arch, x32: bool) -> Section {
        let mut ranges = Ranges {
            default: self.default,
            ranges: vec![(0, Verdict::Always(self.default))],
        };
        let newest = self.newest(arch);
        self.fill(&mut ranges, arch, 0);
        if let Some(last) = newest {
            ranges.from(last + 1, Verdict::Always(ENOSYS));
        }
        match arch {
            Arch::X86_64 if x32 => {
                ranges.from(X32_BIT, Verdict::Always(self.default));
                self.fill(&mut ranges, Arch::X32, X32_BIT);
                if let Some(last) = self.newest(Arch::X32) {
                    ranges.from((X32_BIT | last) + 1, Verdict::Always(ENOSYS));
                }
            }
            // Numbers of an architecture that is not listed would pass a filter that denies by name.
            Arch::X86_64 if newest.is_none() => {
                ranges.from(X32_BIT, Verdict::Always(KILL_PROCESS));
                // A tracer's way to skip a call.
                ranges.from(u32::MAX, Verdict::Always(self.default));
            }
            Arch::Arm => {
                ranges.from(ARM_PRIVATE, Verdict::Always(self.default));
                self.fill(&mut ranges, arch, ARM_PRIVATE);
            }
            _ => {}
        }
        Section {
            audit: arch.audit(),
            ranges: ranges.ranges,
        }
    }

    /// The last call that the profile can have decided about. A closed profile answers EPERM to all else, and libc
    /// would take that for a refusal and not fall back to older calls; so what is newer gets ENOSYS, as in runc.
    fn newest(&self, arch: Arch) -> Option<u32> {
        let open = matches!(self.default, ALLOW | LOG) || self.default & 0xffff_0000 == TRACE;
        if open || self.default == ENOSYS {
            None
        } else {
            self.last[arch.column()]
        }
    }

    /// Sets the verdicts of the named calls from `base` on (of ARM either the usual or the private ones).
    fn fill(&self, ranges: &mut Ranges, arch: Arch, base: u32) {
        let private = arch == Arch::Arm && base == ARM_PRIVATE;
        let mut named = self.named[arch.column()].clone();
        named.retain(|(number, _)| arch != Arch::Arm || (*number >= ARM_PRIVATE) == private);
        named.sort_by_key(|(number, _)| *number);
        let offset = if arch == Arch::X32 { X32_BIT } else { 0 };
        for group in named.chunk_by(|a, b| a.0 == b.0) {
            let number = group[0].0 | offset;
            ranges.from(number, self.verdict(group, arch));
            ranges.from(number + 1, Verdict::Always(self.default));
        }
    }

    /// As in libseccomp a rule without conditions wins over those with some, and an earlier one over a later one.
    fn verdict(&self, group: &[(u32, usize)], arch: Arch) -> Verdict {
        let rules = group.iter().map(|(_, rule)| &self.rules[*rule]);
        match rules.clone().find(|rule| rule.conditions.is_empty()) {
            Some(rule) => Verdict::Always(rule.outcome),
            None => Verdict::First {
                rules: rules.cloned().collect(),
                low_only: arch.is_32_bit(),
            },
        }
    }
}

/// A partition of all numbers, built in ascending order.
struct Ranges {
    default: Outcome,
    ranges: Vec<(u32, Verdict)>,
}

impl Ranges {
    /// From `number` on it is `verdict`, until another is said.
    fn from(&mut self, number: u32, verdict: Verdict) {
        debug_assert!(
            self.ranges.last().is_none_or(|(last, _)| *last <= number),
            "{}",
            self.default
        );
        while self.ranges.last().is_some_and(|(last, _)| *last == number) {
            self.ranges.pop();
        }
        if self.ranges.last().is_none_or(|(_, last)| *last != verdict) {
            self.ranges.push((number, verdict));
        }
    }
}
