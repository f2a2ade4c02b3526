//! What a rule demands of a call's arguments. Pure.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// `argument & mask == value`
    MaskedEqual(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// From 0 to 5.
    pub(super) argument: u32,
    pub(super) compare: Compare,
    pub(super) value: u64,
}

/// The alternatives of a rule's arguments. All must hold; but when two are about the same argument, each stands for
/// itself: profiles from before libseccomp could combine them mean it so, and runc keeps to it.
pub(super) fn conditions(
    args: &[LinuxSeccompArg],
) -> std::result::Result<Vec<Vec<Condition>>, (usize, String)> {
    let mut conditions = Vec::with_capacity(args.len());
    for (at, arg) in args.iter().enumerate() {
        let argument = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
        let argument = argument.ok_or_else(|| (at, format!("index is {}, more than 5", arg.index())))?;
        let value = arg.value();
        let (compare, value) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => (Compare::NotEqual, value),
            LinuxSeccompOperator::ScmpCmpLt => (Compare::Less, value),
            LinuxSeccompOperator::ScmpCmpLe => (Compare::LessOrEqual, value),
            LinuxSeccompOperator::ScmpCmpEq => (Compare::Equal, value),
            LinuxSeccompOperator::ScmpCmpGe => (Compare::GreaterOrEqual, value),
            LinuxSeccompOperator::ScmpCmpGt => (Compare::Greater, value),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                (Compare::MaskedEqual(value), arg.value_two().unwrap_or(0) & value)
            }
        };
        conditions.push(Condition {
            argument,
            compare,
            value,
        });
    }
    let repeated =
        |at: usize, condition: &Condition| conditions[..at].iter().any(|c| c.argument == condition.argument);
    if conditions
        .iter()
        .enumerate()
        .any(|(at, condition)| repeated(at, condition))
    {
        return Ok(conditions.into_iter().map(|condition| vec![condition]).collect());
    }
    Ok(vec![conditions])
}
