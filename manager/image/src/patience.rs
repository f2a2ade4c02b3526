//! How patient the store is with registries: time-outs, attempts, and the pauses between them.

use std::time::Duration;

use crate::{Layers, Registries};

/// Longer than this a registry may not make us wait by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(2);
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a registry that says nothing at all is asked: each time costs a whole stall timeout.
const UNANSWERED_MAX: u32 = 2;
/// A transfer that brought this much since its last failure starts counting anew.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How the store keeps layers, and how patient it is with registries.
#[derive(Debug, Clone)]
pub struct Config {
    /// A connection on which nothing arrives for this long is given up and tried again.
    pub stall_timeout: Duration,
    /// A connection that brings less than this, on average over [`Config::stall_timeout`], counts as one on which
    /// nothing arrives.
    pub bytes_per_second_min: u64,
    /// How often one request is tried in all, while attempts bring nothing new.
    pub attempts: u32,
    /// How long a pull waits for a layer that another pull is making, before it makes the layer itself: the other
    /// one's registry may be much slower.
    pub share_timeout: Duration,
    /// Where registries are, and their mirrors.
    pub registries: Registries,
    /// What new layers are kept as.
    pub layers: Layers,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            stall_timeout: Duration::from_secs(30),
            bytes_per_second_min: 2048,
            attempts: 5,
            share_timeout: Duration::from_mins(1),
            registries: Registries::default(),
            layers: Layers::default(),
        }
    }
}

impl Config {
    /// The defaults, changed by the environment: `BERTH_REGISTRY_STALL_SECONDS`,
    /// `BERTH_REGISTRY_MIN_BYTES_PER_SECOND`, `BERTH_REGISTRY_ATTEMPTS` and `BERTH_PULL_SHARE_SECONDS`.
    pub fn from_env() -> Config {
        let number = |name: &str, range: std::ops::RangeInclusive<u64>| {
            let text = std::env::var(name).ok()?;
            let number = text.parse().ok().filter(|n| range.contains(n));
            if number.is_none() {
                tracing::warn!(
                    name,
                    value = text,
                    "ignoring a setting that is not a number from {range:?}"
                );
            }
            number
        };
        let default = Config::default();
        Config {
            stall_timeout: number("BERTH_REGISTRY_STALL_SECONDS", 1..=3600)
                .map_or(default.stall_timeout, Duration::from_secs),
            bytes_per_second_min: number("BERTH_REGISTRY_MIN_BYTES_PER_SECOND", 0..=1 << 30)
                .unwrap_or(default.bytes_per_second_min),
            attempts: number("BERTH_REGISTRY_ATTEMPTS", 1..=100)
                .map_or(default.attempts, |n| u32::try_from(n).unwrap_or(1)),
            share_timeout: number("BERTH_PULL_SHARE_SECONDS", 0..=3600)
                .map_or(default.share_timeout, Duration::from_secs),
            registries: default.registries,
            layers: default.layers,
        }
    }
}

/// Watches that what arrives on one connection arrives fast enough.
///
/// Only the time spent waiting for the registry counts: that its bytes are slowly unpacked here is not its fault.
pub(crate) struct Pace {
    stall_timeout: Duration,
    /// This much has to arrive in one stall timeout of waiting.
    window_bytes: u64,
    waited: Duration,
    arrived: u64,
}

impl Pace {
    pub(crate) fn new(stall_timeout: Duration, bytes_per_second_min: u64) -> Pace {
        let window_bytes = u128::from(bytes_per_second_min) * stall_timeout.as_millis() / 1000;
        Pace {
            stall_timeout,
            window_bytes: u64::try_from(window_bytes).unwrap_or(u64::MAX),
            waited: Duration::ZERO,
            arrived: 0,
        }
    }

    /// How much longer the next bytes may take.
    pub(crate) fn remaining(&self) -> Duration {
        self.stall_timeout.saturating_sub(self.waited)
    }

    /// Note bytes that came after a wait.
    pub(crate) fn arrived(&mut self, bytes: u64, waited: Duration) {
        self.arrived += bytes;
        self.waited += waited;
        if self.arrived >= self.window_bytes {
            self.arrived = 0;
            self.waited = Duration::ZERO;
        }
    }

    /// What to say of a connection whose time has run out.
    pub(crate) fn complaint(&self) -> String {
        let timeout = self.stall_timeout;
        match self.arrived {
            0 => format!("nothing arrived for {timeout:?}"),
            few => format!(
                "only {few} bytes arrived in {timeout:?}, and less than {} is too slow",
                self.window_bytes
            ),
        }
    }
}

/// What kind of failure an attempt met, as far as it matters for the next one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failed {
    /// The registry did not answer at all.
    Unanswered,
    /// It answered, or the connection broke; with its `Retry-After` if it gave one.
    Answered { retry_after: Option<Duration> },
}

/// Why there is no next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GiveUp {
    /// It was tried often enough.
    Enough,
    /// The registry wants to be left alone for this long, and nobody waits for that.
    AskedToWait(Duration),
}

/// Counts the attempts of one request and paces them.
pub(crate) struct Attempts {
    max: u32,
    failed: u32,
    /// Failures since the last progress.
    fruitless: u32,
    /// Attempts without any answer since the last one with.
    unanswered: u32,
    offset: u64,
}

impl Attempts {
    pub(crate) fn new(config: &Config) -> Attempts {
        Attempts {
            max: config.attempts.max(1),
            failed: 0,
            fruitless: 0,
            unanswered: 0,
            offset: 0,
        }
    }

    /// How many attempts have failed.
    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// Note a failure at `offset` of the content. How long to wait before the next attempt, or why there is none.
    pub(crate) fn failed_at(&mut self, offset: u64, failure: Failed) -> Result<Duration, GiveUp> {
        self.failed += 1;
        if offset >= self.offset + PROGRESS_BYTES {
            self.fruitless = 0;
            self.offset = offset;
        }
        self.fruitless += 1;
        let retry_after = match failure {
            Failed::Unanswered => {
                self.unanswered += 1;
                None
            }
            Failed::Answered { retry_after } => {
                self.unanswered = 0;
                retry_after
            }
        };
        match retry_after {
            Some(wait) if wait > RETRY_AFTER_MAX => Err(GiveUp::AskedToWait(wait)),
            _ if self.fruitless >= self.max || self.unanswered >= UNANSWERED_MAX => Err(GiveUp::Enough),
            // Others were told the same: not all should come back at the same instant.
            Some(wait) => Ok(wait + Duration::from_millis(fastrand::u64(0..250))),
            None => {
                let pause = PAUSE_FIRST
                    .saturating_mul(1 << (self.fruitless - 1).min(10))
                    .min(PAUSE_MAX);
                Ok(pause.mul_f64(0.5 + fastrand::f64()))
            }
        }
    }
}

/// The value of a `Retry-After` header: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: std::time::SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(
            httpdate::parse_http_date(value)
                .ok()?
                .duration_since(now)
                .unwrap_or_default(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(max: u32) -> Attempts {
        Attempts::new(&Config {
            attempts: max,
            ..Config::default()
        })
    }

    const BROKEN: Failed = Failed::Answered { retry_after: None };

    fn asked_to_wait(wait: Duration) -> Failed {
        Failed::Answered {
            retry_after: Some(wait),
        }
    }

    #[test]
    fn attempts_end_but_progress_renews_them() {
        let mut limited = attempts(3);
        assert!(limited.failed_at(0, BROKEN).is_ok());
        assert!(limited.failed_at(10, BROKEN).is_ok());
        assert_eq!(limited.failed_at(20, BROKEN), Err(GiveUp::Enough));
        assert_eq!(limited.failed(), 3);
        let mut moving = attempts(2);
        for step in 1..20 {
            assert!(moving.failed_at(step * PROGRESS_BYTES, BROKEN).is_ok());
        }
    }

    #[test]
    fn silence_is_borne_twice_in_a_row() {
        let mut silent = attempts(9);
        assert!(silent.failed_at(0, Failed::Unanswered).is_ok());
        assert!(silent.failed_at(0, BROKEN).is_ok());
        assert!(silent.failed_at(0, Failed::Unanswered).is_ok());
        assert_eq!(silent.failed_at(0, Failed::Unanswered), Err(GiveUp::Enough));
        assert_eq!(attempts(1).failed_at(0, Failed::Unanswered), Err(GiveUp::Enough));
    }

    #[test]
    fn a_registry_decides_the_pause_within_reason() {
        let pause = attempts(3)
            .failed_at(0, asked_to_wait(Duration::from_secs(7)))
            .unwrap();
        assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&pause));
        let hour = Duration::from_hours(1);
        assert_eq!(
            attempts(3).failed_at(0, asked_to_wait(hour)),
            Err(GiveUp::AskedToWait(hour))
        );
        assert!(attempts(9).failed_at(0, BROKEN).unwrap() <= PAUSE_FIRST.mul_f64(1.5));
    }

    #[test]
    fn a_pace_is_measured_over_the_time_of_waiting() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(10 * second, 100);
        for _ in 0..9 {
            pace.arrived(50, second);
        }
        assert_eq!(pace.remaining(), second);
        assert!(pace.complaint().contains("450 bytes") && pace.complaint().contains("1000"));
        // Enough of them in time, and a new window begins.
        pace.arrived(550, second / 2);
        assert_eq!(pace.remaining(), 10 * second);
        assert!(pace.complaint().contains("nothing"));
        let mut unlimited = Pace::new(second, 0);
        unlimited.arrived(1, second / 2);
        assert_eq!(unlimited.remaining(), second);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = httpdate::parse_http_date("Fri, 02 Jan 2026 03:04:05 GMT").unwrap();
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Fri, 02 Jan 2026 03:04:15 GMT", now),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            retry_after("Fri, 02 Jan 2026 03:04:00 GMT", now),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon", now), None);
    }
}
