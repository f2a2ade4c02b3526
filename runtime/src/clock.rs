//! Wall-clock time as RFC 3339 text, which is all that the runtime needs of a calendar.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time after 1970, in UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamp(Duration);

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Timestamp {
    /// Seconds only: `2026-01-02T03:04:05Z`.
    pub(crate) fn rfc3339(self) -> String {
        let seconds = self.0.as_secs();
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// With nine digits after the second.
    pub(crate) fn rfc3339_nanos(self) -> String {
        let mut text = self.rfc3339();
        text.pop();
        format!("{text}.{:09}Z", self.0.subsec_nanos())
    }
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn date(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days_come_out_right() {
        let at = |seconds| Timestamp(Duration::new(seconds, 42)).rfc3339();
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_767_323_045), "2026-01-02T03:04:05Z");
        assert_eq!(
            Timestamp(Duration::new(0, 42)).rfc3339_nanos(),
            "1970-01-01T00:00:00.000000042Z"
        );
    }
}
