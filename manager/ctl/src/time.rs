//! Times: as the API has them (UNIX nanoseconds), as people read them, and as they write them for `--since` and
//! `--ttl`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// RFC 3339 in UTC, with nanoseconds.
pub(crate) fn rfc3339(unix_nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_nanos)).map_or_else(
        |_| unix_nanos.to_string(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string(),
    )
}

/// How long ago that was, in docker's words without the "ago".
pub(crate) fn elapsed(unix_nanos: i64) -> String {
    let now_nanos = Timestamp::now().as_nanosecond();
    let seconds = (now_nanos - i128::from(unix_nanos)) / 1_000_000_000;
    describe(u64::try_from(seconds).unwrap_or(0))
}

/// How long until then, in the same words.
pub(crate) fn remaining(unix_seconds: i64) -> String {
    let seconds = unix_seconds.saturating_sub(Timestamp::now().as_second());
    describe(u64::try_from(seconds).unwrap_or(0))
}

fn describe(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// A moment in UNIX nanoseconds, from `--since`: seconds since 1970, a time (RFC 3339, or without a zone in the
/// local one), or how long ago (`10m`, `1h30m`).
pub(crate) fn parse_since(text: &str) -> Result<i64, String> {
    let time = absolute(text).or_else(|| {
        let ago: SignedDuration = text.parse().ok()?;
        Timestamp::now().checked_sub(ago).ok()
    });
    let nanos = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    nanos.ok_or_else(|| {
        format!("{text:?} is neither a time (2026-01-31T12:00:00Z), nor UNIX seconds, nor 10m ago")
    })
}

/// How long something lasts, in seconds: a second at least.
pub(crate) fn parse_ttl(text: &str) -> Result<u64, String> {
    let duration = text.parse::<SignedDuration>().ok();
    let seconds = duration.and_then(|duration| u64::try_from(duration.as_secs()).ok());
    seconds
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("{text:?} is no duration of a second or more, such as 90s, 1h30m or 24h"))
}

/// How long something lasts, in nanoseconds: `500ms`, `1m30s`.
pub(crate) fn parse_nanos(text: &str) -> Result<i64, String> {
    let duration = text.parse::<SignedDuration>().ok();
    let nanos = duration.and_then(|duration| i64::try_from(duration.as_nanos()).ok());
    nanos
        .filter(|nanos| *nanos >= 0)
        .ok_or_else(|| format!("{text:?} is no duration such as 500ms, 30s or 1m30s"))
}

fn absolute(text: &str) -> Option<Timestamp> {
    if let Some(time) = unix_seconds(text) {
        return Some(time);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let local: DateTime = text.parse().ok()?;
    TimeZone::system().to_timestamp(local).ok()
}

fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !fits(seconds) || !fits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_nanoseconds() {
        assert_eq!(
            rfc3339(1_767_323_045_123_456_789),
            "2026-01-02T03:04:05.123456789Z"
        );
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn since_takes_seconds_times_and_durations() {
        assert_eq!(parse_since("1767323045.5"), Ok(1_767_323_045_500_000_000));
        assert_eq!(parse_since("2026-01-02T03:04:05Z"), Ok(1_767_323_045_000_000_000));
        assert_eq!(
            parse_since("2026-01-02T05:04:05+02:00"),
            Ok(1_767_323_045_000_000_000)
        );
        assert!(parse_since("2026-01-02").is_ok());
        let hour_ago = parse_since("1h30m").unwrap();
        let now = parse_since("0s").unwrap();
        assert_eq!((now - hour_ago) / 60_000_000_000, 90);
        assert!(parse_since("yesterday").is_err());
        assert!(parse_since("").is_err());
    }

    #[test]
    fn durations_are_dockers() {
        assert_eq!(parse_nanos("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse_nanos("500ms"), Ok(500_000_000));
        for text in ["", "5", "-1s", "soon"] {
            assert!(parse_nanos(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_described_in_dockers_words() {
        assert_eq!(describe(0), "Less than a second");
        assert_eq!(describe(59), "59 seconds");
        assert_eq!(describe(61), "About a minute");
        assert_eq!(describe(3600), "About an hour");
        assert_eq!(describe(47 * 3600), "47 hours");
        assert_eq!(describe(20 * 86400), "2 weeks");
        assert_eq!(describe(800 * 86400), "2 years");
    }
}
