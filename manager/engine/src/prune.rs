//! Removing the containers that do not run.

use std::collections::BTreeMap;
use std::sync::Arc;

use image::{LabelFilter, moment, read_filters};

use crate::Error;
use crate::container::{Container, State};
use crate::engine::{Engine, blocking};

/// Which containers, or networks, a prune is for. One has to pass all of them.
#[derive(Debug, Default)]
pub struct PruneFilters {
    labels: Vec<LabelFilter>,
    /// Made before all of these moments.
    until_unix_seconds: Option<i64>,
}

/// What a prune has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of the containers that are gone.
    pub deleted: Vec<String>,
    /// What they had written, and their logs.
    pub freed_bytes: u64,
}

impl PruneFilters {
    /// Read `kind=value` texts: `until=24h`, `label=key`, `label!=key=value`.
    pub fn parse(texts: &[String]) -> Result<PruneFilters, Error> {
        let mut filters = PruneFilters::default();
        read_filters(texts, |kind, value| {
            match kind {
                "label" => filters.labels.push(LabelFilter::new(value, false)),
                "label!" => filters.labels.push(LabelFilter::new(value, true)),
                "until" => {
                    let (moment, before) = (moment(value)?, filters.until_unix_seconds);
                    filters.until_unix_seconds = Some(before.map_or(moment, |other| other.min(moment)));
                }
                _ => return Err("the kinds are label, label! and until".into()),
            }
            Ok(())
        })?;
        Ok(filters)
    }

    fn pass(&self, container: &Container) -> bool {
        self.pass_made(&container.request.labels, container.created_unix_nanos)
    }

    /// Whether something with these labels that was made then is meant.
    pub(crate) fn pass_made(&self, labels: &BTreeMap<String, String>, created_unix_nanos: i64) -> bool {
        let created = created_unix_nanos / 1_000_000_000;
        self.until_unix_seconds.is_none_or(|until| created < until)
            && self
                .labels
                .iter()
                .all(|label| label.pass(labels.get(label.key()).map(String::as_str)))
    }
}

impl Engine {
    /// Remove the containers that do not run and pass `filters`, with what they have written.
    pub async fn prune_containers(&self, filters: &PruneFilters) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for container in self.list(true) {
            if !matches!(container.state, State::Created | State::Exited) || !filters.pass(&container) {
                continue;
            }
            let bytes = self.written_bytes(&container).await?;
            match self.remove(&container.id, false, false).await {
                Ok(()) => {
                    pruned.deleted.push(container.id.clone());
                    pruned.freed_bytes += bytes;
                }
                // It was started or removed meanwhile.
                Err(Error::NoSuchContainer(_) | Error::WrongState { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    async fn written_bytes(&self, container: &Arc<Container>) -> Result<u64, Error> {
        let (engine, container) = (Arc::clone(&self.0), Arc::clone(container));
        blocking(move || Ok(engine.usage_of(&container).bytes())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_that_mean_nothing_are_refused_by_name() {
        for text in ["until", "until=never", "dangling=true", "label"] {
            let error = PruneFilters::parse(&[text.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        PruneFilters::parse(&["until=1h".into(), "label=a".into(), "label!=a=b".into()]).unwrap();
    }
}
