//! How much of a log a reader may hold back from rotation.
//!
//! A file that somebody reads is not deleted, and while it would have to be, the newest one grows beyond its size. What
//! a client gets by `logs` is what the log keeps, as with docker: one that falls behind it loses the oldest files and is
//! told so. It is given more than docker gives (docker: nothing), as long as it reads at a fair speed, up to a bound that
//! no speed passes, since a log that is written faster than it is read would grow for ever. A client that is attached
//! gets the output of the program itself, which may be far ahead of it (`run … | slow`): it loses nothing by reading
//! on, whatever the size, and only if it all but stops does it not keep the disk for ever. What counts is how much it
//! took in a while, not whether it took anything: one message each nine seconds is no reading.

use std::time::{Duration, Instant};

/// Speed is judged over this time.
const WINDOW: Duration = Duration::from_secs(10);
/// How much a fair reader takes in a window: a terminal behind a slow line does.
const FAIR_BYTES: u64 = 10 << 20;
/// A log grows so much for a client that reads slower.
const SLOW_BYTES_MAX: u64 = 64 << 20;
/// And so much for one that reads fast, or for one that is attached and slow.
const HELD_BYTES_MAX: u64 = 1 << 30;

/// Whom a client reads for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// What the log keeps.
    Log,
    /// What the program writes.
    Output,
}

/// What a client has taken lately.
pub(super) struct Pace {
    claim: Claim,
    since: Instant,
    taken_bytes: u64,
    /// It was slow in the window before this one.
    is_slow: bool,
}

impl Pace {
    pub(super) fn new(claim: Claim, now: Instant) -> Pace {
        Pace {
            claim,
            since: now,
            taken_bytes: 0,
            is_slow: false,
        }
    }

    /// It has all there is: waiting for more is not being slow.
    pub(super) fn caught_up(&mut self, now: Instant) {
        *self = Pace::new(self.claim, now);
    }

    pub(super) fn took(&mut self, bytes: usize) {
        self.taken_bytes += bytes as u64;
    }

    /// Whether the client has to let go of a log that has grown by so much beyond its size.
    pub(super) fn is_over(&mut self, held_bytes: u64, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            self.is_slow = self.taken_bytes < FAIR_BYTES;
            (self.since, self.taken_bytes) = (now, 0);
        }
        match self.claim {
            Claim::Log => held_bytes > HELD_BYTES_MAX || self.is_slow && held_bytes > SLOW_BYTES_MAX,
            Claim::Output => self.is_slow && held_bytes > HELD_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_a_message_now_and_then_is_slow_and_one_that_reads_on_is_not() {
        let begun = Instant::now();
        for (taken, claim, held_bytes, is_over) in [
            (16 << 10, Claim::Log, SLOW_BYTES_MAX, false),
            (16 << 10, Claim::Log, SLOW_BYTES_MAX + 1, true),
            (2 << 20, Claim::Log, HELD_BYTES_MAX, false),
            (2 << 20, Claim::Log, HELD_BYTES_MAX + 1, true),
            (16 << 10, Claim::Output, HELD_BYTES_MAX, false),
            (16 << 10, Claim::Output, HELD_BYTES_MAX + 1, true),
            (2 << 20, Claim::Output, 100 * HELD_BYTES_MAX, false),
        ] {
            let mut pace = Pace::new(claim, begun);
            let mut was_over = false;
            for second in 1..=30 {
                pace.took(taken);
                was_over |= pace.is_over(held_bytes, begun + Duration::from_secs(second));
            }
            assert_eq!(was_over, is_over, "{taken} a second, {claim:?}, {held_bytes}");
        }
    }

    #[test]
    fn who_waits_for_output_is_not_slow_when_it_comes() {
        let begun = Instant::now();
        let mut pace = Pace::new(Claim::Log, begun);
        let much_later = begun + Duration::from_hours(1);
        pace.caught_up(much_later);
        assert!(!pace.is_over(SLOW_BYTES_MAX + 1, much_later + Duration::from_secs(1)));
        pace.took(16 << 20);
        assert!(!pace.is_over(SLOW_BYTES_MAX + 1, much_later + WINDOW));
    }
}
