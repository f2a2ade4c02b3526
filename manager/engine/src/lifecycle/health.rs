//! The probes of the run: there while it runs and does not stand still.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Owner;
use crate::container::State;
use crate::health::{self, Health};

impl Owner {
    /// Begin to probe, if there is a check and somebody to answer; else end that.
    pub(super) fn probe(&mut self) {
        self.probes = None;
        let check = self.container.request.healthcheck.clone();
        let (Some(check), Some(shim)) = (check, self.shim.clone()) else {
            return;
        };
        if self.container.state != State::Running {
            return;
        }
        let health = self.container.health.clone().unwrap_or_default();
        Arc::make_mut(&mut self.container).health = Some(health);
        let stopped = CancellationToken::new();
        self.probes = Some(stopped.clone().drop_guard());
        tokio::spawn(health::watch(
            Arc::clone(&self.engine),
            Arc::clone(&self.container),
            shim,
            check,
            self.reports.0.clone(),
            stopped,
        ));
    }

    /// A probe of run number `run` has ended.
    pub(super) fn probed(&mut self, run: u64, health: Arc<Health>) {
        if run != self.container.runs || self.probes.is_none() {
            return;
        }
        let status = health.status;
        let before = Arc::make_mut(&mut self.container).health.replace(health);
        self.publish();
        if before.is_none_or(|before| before.status != status) {
            self.tell(status.event(), &[]);
        }
    }
}
