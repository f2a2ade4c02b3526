//! A profile read directly, call by call, without any of the compiler: what the tests and the fuzz targets compare its
//! programs with. Knows neither numbers nor architectures.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

/// The kernel's word for what happens to a call. `low_only` is for architectures of 32 bits.
pub(crate) fn outcome(profile: &LinuxSeccomp, name: &str, low_only: bool, arguments: [u64; 6]) -> u32 {
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let of = |rule: &LinuxSyscall| rule.action().as_u32(rule.errno_ret());
    let about = |rule: &&LinuxSyscall| of(rule) != default && rule.names().iter().any(|have| have == name);
    let rules = || profile.syscalls().iter().flatten().filter(about);
    let args = |rule: &LinuxSyscall| rule.args().clone().unwrap_or_default();
    if let Some(rule) = rules().find(|rule| args(rule).is_empty()) {
        return of(rule);
    }
    let holds = |arg: &LinuxSeccompArg| holds(arg, low_only, arguments);
    let matches = |rule: &&LinuxSyscall| {
        let args = args(rule);
        let repeated =
            (0..args.len()).any(|at| args[..at].iter().any(|have| have.index() == args[at].index()));
        if repeated {
            args.iter().any(holds)
        } else {
            args.iter().all(holds)
        }
    };
    rules().find(matches).map_or(default, of)
}

fn holds(arg: &LinuxSeccompArg, low_only: bool, arguments: [u64; 6]) -> bool {
    let cut = |value: u64| if low_only { u64::from(value as u32) } else { value };
    let (value, two) = (cut(arg.value()), cut(arg.value_two().unwrap_or(0)));
    let argument = cut(arguments[arg.index()]);
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => argument != value,
        LinuxSeccompOperator::ScmpCmpLt => argument < value,
        LinuxSeccompOperator::ScmpCmpLe => argument <= value,
        LinuxSeccompOperator::ScmpCmpEq => argument == value,
        LinuxSeccompOperator::ScmpCmpGe => argument >= value,
        LinuxSeccompOperator::ScmpCmpGt => argument > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => argument & value == two & value,
    }
}
