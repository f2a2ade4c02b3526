//! The few forms that the kernel's statistics files have. A file that is missing or longer than it was gives no
//! error: kernels differ.

use std::collections::BTreeMap;

use super::{Pressure, Stall, Stats};
use crate::cgroup::dir::Dir;
use crate::error::{Context, Result};

/// The text of a file, empty if this kernel or controller does not have it.
pub(super) fn text(dir: &Dir, file: &str) -> Result<String> {
    let text = dir
        .read_if_there(file)
        .context(|| format!("read {}", dir.path().join(file).display()))?;
    Ok(text.unwrap_or_default())
}

/// One number; `max` is the largest one. `None` if there is no such file.
pub(super) fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    Ok(parse_number(text(dir, file)?.trim()))
}

fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        // v1 shows unset limits as huge numbers, some old kernels as negative ones.
        negative if negative.starts_with('-') => Some(0),
        text => text.parse().ok(),
    }
}

/// Lines of `key number`.
pub(super) fn flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), parse_number(value.trim())?))
    };
    text.lines().filter_map(pair).collect()
}

/// `0-2,7` as single numbers.
pub(super) fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<u16>().ok()?..=to.trim().parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the same for `full`. `None` if the kernel does not count.
pub(super) fn pressure(dir: &Dir, file: &str) -> Result<Option<Pressure>> {
    // EOPNOTSUPP (psi=0) is like a missing file.
    Ok(parse_pressure(&text(dir, file)?))
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut any = false;
    for line in text.lines() {
        let mut words = line.split(' ');
        let stall = match words.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        any = true;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            *stall = match key {
                "avg10" => Stall {
                    avg10: value.parse().ok()?,
                    ..std::mem::take(stall)
                },
                "avg60" => Stall {
                    avg60: value.parse().ok()?,
                    ..std::mem::take(stall)
                },
                "avg300" => Stall {
                    avg300: value.parse().ok()?,
                    ..std::mem::take(stall)
                },
                "total" => Stall {
                    total: value.parse().ok()?,
                    ..std::mem::take(stall)
                },
                _ => continue,
            };
        }
    }
    any.then_some(pressure)
}

/// The same on v1 and v2.
pub(super) fn pids(dir: &Dir, stats: &mut Stats) -> Result<()> {
    stats.pids.current = number(dir, "pids.current")?.unwrap_or(0);
    stats.pids.limit = number(dir, "pids.max")?
        .filter(|limit| *limit != u64::MAX)
        .unwrap_or(0);
    Ok(())
}

/// The sizes for which the group has hugetlb files, from names such as `hugetlb.2MB.current`.
pub(super) fn huge_page_sizes(dir: &Dir, suffix: &str) -> Result<Vec<String>> {
    let what = || format!("list {}", dir.path().display());
    let mut sizes = Vec::new();
    for entry in std::fs::read_dir(dir.path()).context(what)? {
        let name = entry.context(what)?.file_name();
        let size = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugetlb.")?.strip_suffix(suffix));
        sizes.extend(size.filter(|size| !size.contains('.')).map(str::to_owned));
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_files() {
        assert_eq!(
            flat("a 1\nb max\nodd\nc x\n"),
            BTreeMap::from([("a".into(), 1), ("b".into(), u64::MAX)])
        );
        assert_eq!(list("0-2,7\n"), [0, 1, 2, 7]);
        assert_eq!(list("\n"), Vec::<u16>::new());
        let text = "some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 total=3\n";
        let pressure = parse_pressure(text).unwrap();
        assert_eq!(
            pressure.some,
            Stall {
                avg10: 1.5,
                avg60: 0.0,
                avg300: 0.25,
                total: 77
            }
        );
        assert_eq!(pressure.full.total, 3);
        assert_eq!(parse_pressure(""), None);
    }
}
