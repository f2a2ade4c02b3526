//! The records of a PAX extended header: `length keyword=value\n`, length counting itself.

use super::{Time, sparse};

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// Linux lists at most 64 KiB of names for one file; each is looked for among those before it.
const XATTRS_MAX: usize = 1000;

/// What the records of one header say about its entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) modified: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<sparse::Records>,
}

impl Records {
    /// Whether anything here would make an entry another one.
    pub(super) fn changes_entries(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.modified.is_some()
            || !self.xattrs.is_empty()
            || self.sparse.is_some()
    }
}

pub(super) fn parse(mut content: &[u8]) -> Result<Records, String> {
    let mut records = Records::default();
    while !content.is_empty() {
        let (key, value, rest) = record(content).ok_or("a PAX record is malformed")?;
        content = rest;
        records.set(key, value)?;
    }
    Ok(records)
}

/// Whether it is a row of records, whatever they say.
#[cfg(feature = "fuzzing")]
pub(super) fn is_whole(mut content: &[u8]) -> bool {
    while !content.is_empty() {
        let Some((_, _, rest)) = record(content) else {
            return false;
        };
        content = rest;
    }
    true
}

fn record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().take(20).position(|b| *b == b' ')?;
    let digits = std::str::from_utf8(&content[..space]).ok()?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: usize = digits.parse().ok()?;
    if length > content.len() || length < space + 2 {
        return None;
    }
    let (record, rest) = content.split_at(length);
    let (newline, pair) = record[space + 1..].split_last()?;
    let equals = pair.iter().position(|b| *b == b'=')?;
    (*newline == b'\n' && equals > 0).then(|| (&pair[..equals], &pair[equals + 1..], rest))
}

impl Records {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => set_once(&mut self.path, key, Some(value.to_vec())),
            b"linkpath" => set_once(&mut self.link, key, Some(value.to_vec())),
            b"size" => set_once(&mut self.size, key, decimal(value).map(i64::cast_unsigned)),
            b"uid" => set_once(&mut self.uid, key, decimal(value)),
            b"gid" => set_once(&mut self.gid, key, decimal(value)),
            b"mtime" => set_once(&mut self.modified, key, time(value)),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.get_or_insert_default().set(key, value);
                }
                match key.strip_prefix(XATTR_PREFIX) {
                    Some(name) => self.set_xattr(name, value),
                    None => Ok(()),
                }
            }
        }
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if name.is_empty() || name.contains(&0) {
            return Err("a PAX record names an extended attribute that cannot be".into());
        }
        if self.xattrs.len() == XATTRS_MAX {
            return Err(format!("an entry has more than {XATTRS_MAX} extended attributes"));
        }
        if self.xattrs.iter().any(|(before, _)| before == name) {
            return Err(twice(name));
        }
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// Of two records with one key some readers take the first; an empty one takes back an earlier header's value for
/// some, and is a value for others.
fn set_once<T>(slot: &mut Option<T>, key: &[u8], value: Option<T>) -> Result<(), String> {
    let shown = || String::from_utf8_lossy(key).into_owned();
    let value = value.ok_or_else(|| format!("PAX record {:?} has a value out of range", shown()))?;
    slot.replace(value).map_or(Ok(()), |_| Err(twice(key)))
}

fn twice(key: &[u8]) -> String {
    format!("PAX record {:?} is there twice", String::from_utf8_lossy(key))
}

pub(super) fn decimal(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// `-?seconds[.fraction]`, the fraction counting away from zero.
fn time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |t| (true, t));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let mut nanoseconds = 0;
    for i in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.as_bytes().get(i).map_or(0, |b| b - b'0'));
    }
    let mut seconds = i128::from(whole.parse::<u64>().ok()?);
    if negative {
        seconds = -seconds;
        if nanoseconds > 0 {
            (seconds, nanoseconds) = (seconds - 1, 1_000_000_000 - nanoseconds);
        }
    }
    Some(Time {
        seconds: i64::try_from(seconds).ok()?,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_with_binary_values() {
        let records = parse(b"12 path=a/b\n27 SCHILY.xattr.user.x=\0\n\xff\n").unwrap();
        assert_eq!(records.path.unwrap(), b"a/b");
        assert_eq!(records.xattrs, [(b"user.x".to_vec(), b"\0\n\xff".to_vec())]);
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        assert_eq!(
            time(b"1.5"),
            Some(Time {
                seconds: 1,
                nanoseconds: 500_000_000
            })
        );
        assert_eq!(
            time(b"-1.25"),
            Some(Time {
                seconds: -2,
                nanoseconds: 750_000_000
            })
        );
        assert_eq!(
            time(b"-3"),
            Some(Time {
                seconds: -3,
                nanoseconds: 0
            })
        );
        assert_eq!(
            time(b"1.0000000019"),
            Some(Time {
                seconds: 1,
                nanoseconds: 1
            })
        );
        let least = Time {
            seconds: i64::MIN,
            nanoseconds: 0,
        };
        assert_eq!(time(b"-9223372036854775808"), Some(least));
        for bad in [
            "-9223372036854775808.1",
            "9223372036854775808",
            "",
            "-",
            ".5",
            "1.x",
            "1e3",
            "99999999999999999999",
        ] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            "x",
            "5 a=b\n",
            "7 a=b\n",
            "6 a=b ",
            "6 =ab\n",
            "6 abc\n",
            "0 a=b\n",
            "-6 a=b\n",
            "99999999999999999999999 a=b\n",
            "11 size=-1\n",
            "11 uid=1x2\n",
            "7 uid=\n",
            "10 path=a\n10 path=b\n",
            "20 SCHILY.xattr.a=b\n20 SCHILY.xattr.a=c\n",
            "25 GNU.sparse.numbytes=1\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
