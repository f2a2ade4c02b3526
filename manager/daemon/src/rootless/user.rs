//! Which ids a user may give to processes of a namespace of their own: subuid(5), subgid(5).

use std::path::Path;

use anyhow::{Context, bail};

/// What images expect: the ids of a distribution, and nobody.
const WANTED: u32 = 65_536;

/// A range of ids of the host, for those from 1 of the namespace. Its 0 is the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subordinate {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// The longest range of `uid`, from a file of lines `NAME-OR-ID:FIRST:COUNT`.
pub(super) fn subordinate(file: &Path, uid: u32) -> anyhow::Result<Subordinate> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let name = user_name(uid);
    let found = longest(&text, name.as_deref(), uid);
    let shown = name.clone().unwrap_or_else(|| uid.to_string());
    let Some(found) = found else {
        bail!(
            "{} gives {shown} no ids for containers; as root: `usermod --add-subuids 100000-165535 --add-subgids \
             100000-165535 {shown}`, with ranges that nobody else has",
            file.display()
        );
    };
    Ok(Subordinate {
        count: found.count.min(WANTED),
        ..found
    })
}

fn longest(text: &str, name: Option<&str>, id: u32) -> Option<Subordinate> {
    let id = id.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse::<u32>().ok()?);
        let is_own = name == Some(owner) || owner == id;
        (is_own && count > 0 && fields.next().is_none()).then_some(Subordinate { first, count })
    });
    ranges.max_by_key(|range| range.count)
}

/// From passwd(5): this program is static, and has no other services of names.
fn user_name(uid: u32) -> Option<String> {
    name_of(&std::fs::read_to_string("/etc/passwd").ok()?, uid)
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_range_of_a_user_counts() {
        let text = "me:100000:1000\n1000:300000:65536\nyou:1:2\nme:x:1\nme:5:0\nbroken\n";
        let range = |first, count| Some(Subordinate { first, count });
        assert_eq!(longest(text, Some("me"), 1000), range(300_000, 65_536));
        assert_eq!(longest(text, Some("me"), 7), range(100_000, 1_000));
        assert_eq!(longest(text, None, 7), None);
    }

    #[test]
    fn a_name_is_found_by_its_whole_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nten:x:10:10::/:/bin/sh\none:x:1:1::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1).as_deref(), Some("one"));
        assert_eq!(name_of(passwd, 100), None);
    }
}
