//! What running containers use, as their shims and the kernel tell it. Nobody is asked while no client wants to know.

mod metrics;
mod network;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use crate::Error;
use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::lifecycle::{Handle, Snapshot};
use crate::member::has_cgroup;
use crate::request::Network;

pub use metrics::Usage;

/// As many shims are asked at once.
const AT_ONCE: usize = 32;
/// A shim that does not answer keeps the numbers of the others no longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks, the first of which tells no CPU time: docker's interval.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// What one container uses.
#[derive(Debug, Clone)]
pub struct Stats {
    /// As it is now.
    pub container: Arc<Container>,
    /// None: it does not run, or its shim does not answer.
    pub usage: Option<Usage>,
    /// Of one CPU, since the look before; 0 at the first.
    pub cpu_percent: f64,
}

/// Looks at containers again and again, for one client.
pub struct Sampler {
    engine: Engine,
    /// None: all that there are.
    wanted: Option<Vec<Arc<Handle>>>,
    all: bool,
    /// When, and how much CPU time each had had then.
    before: BTreeMap<String, (Instant, u64)>,
}

impl Engine {
    /// Look at `containers`; if none are named at all that run, with `all` at those that do not, too.
    pub fn stats(&self, containers: &[String], all: bool) -> Result<Sampler, Error> {
        let found: Result<Vec<_>, _> = containers
            .iter()
            .map(|name| self.0.containers.find(name))
            .collect();
        let found = found?;
        Ok(Sampler {
            engine: self.clone(),
            wanted: (!found.is_empty()).then_some(found),
            all,
            before: BTreeMap::new(),
        })
    }
}

impl Sampler {
    /// One look, newest containers first. Those that were removed are left out.
    pub async fn look(&mut self) -> Vec<Stats> {
        let handles = match &self.wanted {
            Some(wanted) => wanted.clone(),
            None => self.engine.0.containers.all(),
        };
        let shown = |snapshot: &Snapshot| {
            let is_wanted = self.wanted.is_some() || self.all || snapshot.container.is_up();
            is_wanted && !snapshot.gone
        };
        let snapshots: Vec<_> = handles
            .iter()
            .map(|handle| handle.snapshot())
            .filter(shown)
            .collect();
        let mut looked: Vec<_> = stream::iter(snapshots)
            .map(|snapshot| async move {
                let usage = usage(&snapshot).await;
                (snapshot.container, usage, Instant::now())
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        looked.sort_by_key(|(container, _, _)| std::cmp::Reverse(container.created_unix_nanos));
        let mut now = BTreeMap::new();
        let mut stats = Vec::new();
        for (container, usage, at) in looked {
            let mut cpu_percent = 0.0;
            if let Some(usage) = &usage {
                if let Some((before, nanos)) = self.before.get(&container.id) {
                    cpu_percent = percent(usage.cpu_nanos.saturating_sub(*nanos), at - *before);
                }
                now.insert(container.id.clone(), (at, usage.cpu_nanos));
            }
            stats.push(Stats {
                container,
                usage,
                cpu_percent,
            });
        }
        self.before = now;
        stats
    }
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn percent(cpu_nanos: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    cpu_nanos as f64 / elapsed.as_nanos() as f64 * 100.0
}

async fn usage(snapshot: &Snapshot) -> Option<Usage> {
    let shim = snapshot.shim.as_ref()?;
    let id = snapshot.container.id.clone();
    let pid = snapshot.container.pid;
    let told = if has_cgroup(pid, &id) {
        match tokio::time::timeout(ANSWER_TIMEOUT, shim.stats()).await {
            Ok(told) => told.and_then(|(kind, bytes)| metrics::read(&id, &kind, &bytes)),
            Err(_) => Err(Error::shim(&id, "it does not tell its statistics")),
        }
    } else {
        // Nobody counts for it.
        Ok(Usage::default())
    };
    let mut usage = match told {
        Ok(usage) => usage,
        Err(error) => {
            // It may be ending.
            tracing::debug!(id, %error, "no statistics");
            return None;
        }
    };
    if snapshot.container.request.network != Network::Host {
        let traffic = blocking(move || Ok(network::traffic(&id, pid))).await;
        (usage.received_bytes, usage.sent_bytes) = traffic.ok().flatten().unwrap_or_default();
    }
    Some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_cpu_is_a_hundred_percent() {
        assert!((percent(500_000_000, Duration::from_secs(1)) - 50.0).abs() < 0.01);
        assert!((percent(3_000_000_000, Duration::from_millis(1500)) - 200.0).abs() < 0.01);
        assert!(percent(1, Duration::ZERO).abs() < 0.01);
    }
}
