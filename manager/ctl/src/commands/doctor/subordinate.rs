//! Whether the ids that are given away to user namespaces are each somebody's alone: subuid(5), subgid(5).

use std::fs;

use super::{Finding, Status};

const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
/// Whose ids `run --userns auto` gives away.
const POOL: &str = "containers";

/// Ids of the host in a row, and whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range<'a> {
    first: u64,
    end: u64,
    owner: &'a str,
}

pub(super) fn look() -> Finding {
    const CHECK: &str = "subordinate ids";
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if limit.trim() == "0" {
        let advice = "run --userns auto, userns-remap and users' managers need them: `sysctl -w user.max_user_namespaces=15000`";
        return Finding::new(CHECK, Status::Warning, "no user namespaces are allowed", advice);
    }
    let mut wrong = Vec::new();
    let mut pool = Vec::new();
    for file in FILES {
        let text = fs::read_to_string(file).unwrap_or_default();
        wrong.extend(faults(&text).into_iter().map(|fault| format!("{file}: {fault}")));
        let ids = ids_of(&text, POOL);
        pool.push(format!("{ids} in {file}"));
    }
    if !wrong.is_empty() {
        let advice = "containers of both could reach each other's files: as root, give each range to one name alone, above the \
                      ids of people";
        return Finding::new(CHECK, Status::Warning, wrong.join("; "), advice);
    }
    Finding::new(
        CHECK,
        Status::Ok,
        format!("for run --userns auto: {}", pool.join(", ")),
        "",
    )
}

/// What is wrong in a file: a sentence each.
fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ranges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match range(line) {
            Some(range) if range.first == 0 => {
                faults.push(format!("line {number} gives root's own id to {}", range.owner));
            }
            Some(range) => ranges.push(range),
            None if line.trim().is_empty() || line.starts_with('#') => {}
            None => faults.push(format!("line {number} is not NAME:FIRST:COUNT")),
        }
    }
    ranges.sort_by_key(|range| range.first);
    // The one before that reaches furthest.
    let mut before: Option<Range> = None;
    for range in ranges {
        if let Some(other) = before.filter(|other| other.end > range.first && other.owner != range.owner) {
            faults.push(format!(
                "{} and {} both have {}",
                other.owner, range.owner, range.first
            ));
        }
        if before.is_none_or(|before| before.end < range.end) {
            before = Some(range);
        }
    }
    faults
}

fn range(line: &str) -> Option<Range<'_>> {
    let mut fields = line.trim().split(':');
    let owner = fields.next().filter(|owner| !owner.is_empty())?;
    let (first, count) = (
        fields.next()?.parse::<u32>().ok()?,
        fields.next()?.parse::<u32>().ok()?,
    );
    fields.next().is_none().then_some(Range {
        first: first.into(),
        end: u64::from(first) + u64::from(count),
        owner,
    })
}

fn ids_of(text: &str, owner: &str) -> u64 {
    let ranges = text.lines().filter_map(range);
    ranges
        .filter(|range| range.owner == owner)
        .map(|range| range.end - range.first)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_two_have_are_told_and_ranges_side_by_side_are_right() {
        let right = "a:100000:1000\n\nb:101000:1000\n# c\na:102000:1000\na:102500:10\n";
        assert_eq!(faults(right), Vec::<String>::new());
        assert_eq!(ids_of(right, "a"), 2010);
        let wrong = "a:100000:5000\nb:100010:10\nc:104000:5\nd:0:5\ne:1\n";
        assert_eq!(
            faults(wrong),
            [
                "line 4 gives root's own id to d",
                "line 5 is not NAME:FIRST:COUNT",
                "a and b both have 100010",
                "a and c both have 104000",
            ]
        );
    }
}
