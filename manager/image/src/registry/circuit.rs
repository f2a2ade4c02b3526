//! Which mirrors have just failed. They are left alone for a while, so that not each layer waits for them again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const REST: Duration = Duration::from_secs(30);

/// The failures of late, by the URL of a mirror's API. All pulls share one.
#[derive(Debug, Default)]
pub(crate) struct Circuit(Mutex<HashMap<String, Failure>>);

#[derive(Debug)]
struct Failure {
    at: Instant,
    reason: String,
}

impl Circuit {
    /// Why a mirror is to be left alone now.
    pub(super) fn reason(&self, mirror: &str) -> Option<String> {
        self.reason_at(mirror, Instant::now())
    }

    fn reason_at(&self, mirror: &str, now: Instant) -> Option<String> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = failures.get(mirror)?;
        let ago = now.saturating_duration_since(failure.at);
        (ago < REST).then(|| format!("left alone since {} s ago: {}", ago.as_secs(), failure.reason))
    }

    pub(super) fn failed(&self, mirror: &str, reason: &str) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, failure| failure.at.elapsed() < REST);
        let failure = Failure {
            at: Instant::now(),
            reason: reason.to_owned(),
        };
        failures.insert(mirror.to_owned(), failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_failed_rests_for_a_while() {
        let circuit = Circuit::default();
        assert_eq!(circuit.reason("a"), None);
        circuit.failed("a", "it is down");
        assert!(circuit.reason("a").unwrap().contains("it is down"));
        assert_eq!(circuit.reason("b"), None);
        assert_eq!(circuit.reason_at("a", Instant::now() + REST), None);
    }
}
