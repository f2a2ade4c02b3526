//! One line of a log file: one chunk that the container wrote.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Where a chunk was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Also what a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was written to.
    pub stream: Stream,
    /// The bytes, as they were written.
    pub data: Vec<u8>,
    /// When, in nanoseconds since 1970.
    pub at_unix_nanos: i64,
    /// What the container's logging options add to each record.
    pub attributes: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: Option<Cow<'a, str>>,
    /// In place of `log`: bytes that are no UTF-8, in base64.
    #[serde(borrow, default)]
    log64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// Read one line. None: it is none of ours; so is the line that a shim was writing when it was killed.
pub(super) fn parse(line: &[u8]) -> Option<Record> {
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let data = match (line.log, line.log64) {
        (Some(text), _) => text.into_owned().into_bytes(),
        (None, Some(encoded)) => STANDARD.decode(encoded.as_bytes()).ok()?,
        (None, None) => return None,
    };
    let stream = match line.stream.as_ref() {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    Some(Record {
        stream,
        data,
        at_unix_nanos: unix_nanos(&line.time)?,
        attributes: line.attrs,
    })
}

/// RFC 3339 in UTC, as the shim writes it: `2026-01-02T03:04:05.123456789Z`, with fewer digits or none behind
/// the point.
fn unix_nanos(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (date, time) = whole.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second)
        && (1..10_000).contains(&year)
        && fraction.len() <= 9
        && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !in_range {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Days from 1970-01-01 in the Gregorian calendar; years begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_come_back_as_they_were_written() {
        let text = br#"{"log":"a\u00e9\n","stream":"stderr","time":"1970-01-02T00:00:00.000000001Z"}"#;
        let expected = Record {
            stream: Stream::Stderr,
            data: "aé\n".into(),
            at_unix_nanos: 86_400_000_000_001,
            attributes: None,
        };
        assert_eq!(parse(text), Some(expected));
        let bytes = br#"{"log64":"/wA=","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#;
        assert_eq!(parse(bytes).unwrap().data, [0xff, 0]);
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bad in [
            &br#"{"log":"half"#[..],
            b"",
            b"null",
            br#"{"stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
            br#"{"log":"","stream":"other","time":"1970-01-01T00:00:01Z"}"#,
            br#"{"log":"","stream":"stdout","time":"yesterday"}"#,
            br#"{"log":"","stream":"stdout","time":"1970-13-01T00:00:01Z"}"#,
        ] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(
            unix_nanos("2026-01-02T03:04:05.123456789Z"),
            Some(1_767_323_045_123_456_789)
        );
        assert_eq!(
            unix_nanos("2000-02-29T12:00:00.5Z"),
            Some(951_825_600_500_000_000)
        );
        assert_eq!(unix_nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_nanos("2026-01-02T03:04:05+01:00"), None);
    }
}
