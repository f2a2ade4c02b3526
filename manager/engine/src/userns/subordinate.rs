//! Which ids somebody may give to user namespaces: subuid(5), subgid(5). The files alone count: this program is static,
//! and asks no other service of names.

use std::path::Path;

use crate::Error;

/// The host's users for namespaces.
pub(super) const USERS: &str = "/etc/subuid";
/// And its groups.
pub(super) const GROUPS: &str = "/etc/subgid";
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Ids of the host, in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// The ranges in `file` of whoever has one of these names (or an id as text), in their order there. A file that is not
/// there has none.
pub(super) fn of(file: &str, names: &[String]) -> Result<Vec<Range>, Error> {
    read(file).map(|text| ranges(&text, names))
}

/// A small file of root's; empty if it is not there.
pub(super) fn read(file: &str) -> Result<String, Error> {
    let path = Path::new(file);
    let too_long = || std::io::Error::from(std::io::ErrorKind::FileTooLarge);
    let text = std::fs::metadata(path).and_then(|status| {
        if status.len() > FILE_BYTES_MAX {
            return Err(too_long());
        }
        std::fs::read_to_string(path)
    });
    match text {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(Error::file("read", path)),
    }
}

fn ranges(text: &str, names: &[String]) -> Vec<Range> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_theirs = names.iter().any(|name| name == owner);
        (is_theirs && count > 0 && fields.next().is_none()).then_some(Range { first, count })
    };
    text.lines().filter_map(range).collect()
}

/// The line of a database like passwd(5) whose name is `wanted`, or whose id that is: both.
pub(super) fn entry(database: &str, wanted: &str) -> Option<(String, String)> {
    let mut lines = database.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (name == wanted || id == wanted).then(|| (name.to_owned(), id.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ranges_of_a_name_or_its_id_count_in_their_order() {
        let text = "me:100000:1000\n1000:300000:65536\nyou:1:2\nme:x:1\nme:5:0\nbroken\nme:7:1:x\n";
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let range = |first, count| Range { first, count };
        assert_eq!(
            ranges(text, &names(&["me", "1000"])),
            [range(100_000, 1000), range(300_000, 65_536)]
        );
        assert_eq!(ranges(text, &names(&["you"])), [range(1, 2)]);
        assert_eq!(ranges(text, &names(&["m"])), []);
    }

    #[test]
    fn an_entry_is_found_by_name_and_by_its_whole_id() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nten:x:10:10::/:/bin/sh\none:x:1:1::/:/bin/sh\n";
        let found = |wanted| entry(passwd, wanted).map(|(name, id)| format!("{name} {id}"));
        assert_eq!(found("one").as_deref(), Some("one 1"));
        assert_eq!(found("10").as_deref(), Some("ten 10"));
        assert_eq!(found("100"), None);
    }
}
